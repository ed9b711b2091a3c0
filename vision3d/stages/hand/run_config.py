"""Options of `hand run`, `hand eval` and `hand synth`."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_positive
from vision3d.stages.hand.config import FIELD_OF_VIEW_DEG, FilterConfig, FrameConfig


@dataclass(frozen=True)
class HandConfig:
    """Find hands in images: joints, meshes and positions in the camera's space."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("weights", "finder_weights", "box", "side", "score"),
        "camera": ("fov", "intrinsics"),
        "output": ("overlay", "meshes", "frames"),
        "video": ("find_every", "lost", "smooth"),
    }

    weights: str = "hand"
    """Weights: a .safetensors of `hand train`, or the name of bundled ones."""
    finder_weights: str | None = None
    """Weights of the finder, which finds the hands in whole images; by default the bundled ones."""
    box: tuple[float, float, float, float] | None = None
    """Box around the one hand, x y w h [px], instead of the finder; in a video that of the first frame."""
    side: Literal["auto", "right", "left"] = "auto"
    """Side of all hands; auto: of the boxes, of the finder, or of the network."""
    score: float = 0.3
    """Minimum score of a hand that the finder found; hands in given boxes are always kept."""
    max_hands: int = 4
    """Maximum number of hands in an image, those with the highest scores."""
    margin: float = 1.35
    """Side of the crop over the longer side of the joints' box."""
    passes: int = 2
    """Passes over an image: each but the first crops around the joints of the one before, fingers up."""
    fov: float = FIELD_OF_VIEW_DEG
    """Field of view along the longer side of the image [degrees], if the intrinsics are unknown."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Intrinsics fx fy cx cy [px]."""
    find_every: int = 15
    """Frames of a video after which the finder looks for more hands; without a hand it looks in every frame."""
    lost: float = 0.2
    """Minimum score to keep tracking a hand of a video."""
    smooth: bool = True
    """Filter joints and positions of a video (One-Euro)."""
    filter: FilterConfig = field(default_factory=FilterConfig)
    """The filter."""
    overlay: bool = True
    """Draw mesh and joints over the image."""
    meshes: bool = True
    """Write meshes: .obj and .glb of each hand of an image, one animated .glb of a video."""
    frames: int = 0
    """Maximum number of frames of a video or webcam; 0: all."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_counts(self, "max_hands", "passes", "find_every")
        check_not_negative(self, "frames")
        check_positive(self, "fov")
        if self.side not in ("auto", "right", "left"):
            raise ConfigError("side", f"got {self.side!r}, want auto, right or left")
        for name in ("score", "lost"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(name, f"got {getattr(self, name)}, want a number in [0, 1]")
        if not 1 <= self.margin <= 4:
            raise ConfigError("margin", f"got {self.margin}, want 1 to 4")
        if self.fov >= 180:
            raise ConfigError("fov", f"got {self.fov} degrees, want between 0 and 180")
        if self.box is not None:
            check_box(self.box, "box")
        if self.intrinsics is not None:
            fx, fy, *_ = self.intrinsics
            if not (min(fx, fy) > 0 and all(map(math.isfinite, self.intrinsics))):
                text = " ".join(f"{value:g}" for value in self.intrinsics)
                raise ConfigError("intrinsics", f"got {text}, which is singular; want fx fy cx cy with fx, fy > 0 pixels")

    @property
    def intrinsics_source(self) -> str:
        """Where the intrinsics are from, in words."""
        return "given" if self.intrinsics is not None else f"assumed from a field of view of {self.fov:g} degrees"


def check_box(box: tuple[float, ...], name: str) -> None:
    """Raise ConfigError for a box x y w h that is not finite or is empty."""
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise ConfigError(name, f"got {' '.join(f'{value:g}' for value in box)}, want x y w h in pixels with w, h > 0")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a network of hands by the protocol of FreiHAND."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("weights", "images", "split"),
        "generated images": ("frames", "backgrounds", "furniture", "seed"),
    }

    weights: str = "hand"
    """Weights: a .safetensors of `hand train`, or the name of bundled ones."""
    images: int = 0
    """Number of images; 0: all, and 960 generated ones."""
    split: str = ""
    """evaluation or training of a folder; by default the first of them that is there."""
    vertices: Literal["auto", "compare", "skip"] = "auto"
    """Compare vertices one by one: auto: only if the folder has those of the bundled template."""
    frames: FrameConfig = field(default_factory=FrameConfig)
    """What generated images show; their size is that of the network."""
    backgrounds: Path | None = None
    """Folder with photographs for generated images."""
    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture for generated images; models not trained on."""
    seed: int = 0
    """Seed of generated images; they differ from those of trainings."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_not_negative(self, "images", "seed")

        if self.vertices not in ("auto", "compare", "skip"):
            raise ConfigError("vertices", f"got {self.vertices!r}, want auto, compare or skip")
        if self.split not in ("", "evaluation", "training"):
            raise ConfigError("split", f"got {self.split!r}, want evaluation or training")


@dataclass(frozen=True)
class SynthConfig:
    """Generate images of hands with their truth."""

    HELP_GROUPS: ClassVar[HelpGroups] = {"main options": ("images", "backgrounds", "furniture", "split", "seed")}

    frames: FrameConfig = field(default_factory=lambda: FrameConfig(size=224))
    """What the images show."""
    images: int = 1000
    """Number of images."""
    backgrounds: Path | None = None
    """Folder with photographs; without one, backgrounds are gradients and noise."""
    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture: hands hold its models, and furnished rooms are
    backgrounds."""
    split: Literal["train", "test"] = "train"
    """Models to hold and to furnish with: those of training, or others."""
    seed: int = 0
    """Seed of the images."""

    def __post_init__(self) -> None:
        check_counts(self, "images")
        check_not_negative(self, "seed")
        if self.split not in ("train", "test"):
            raise ConfigError("split", f"got {self.split!r}, want train or test")
        if not 16 <= self.frames.size <= 1024:
            raise ConfigError("frames.size", f"got {self.frames.size}, want 16 to 1024 pixels")
