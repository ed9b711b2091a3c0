"""Options of `edit run`, `edit eval` and `edit reconstruct`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_numbers, check_positive
from vision3d.stages.edit.config import Split
from vision3d.stages.edit.diffusion_config import Sampling, Scheduler

MAX_VARIANTS = 24
REFINE, MAX_REFINE = 30, 2000
"""Steps of refinement: the default and the maximum."""
MAX_TEXTURE = 8192
_BYTES_A_TEXEL = 400  # measured: 210 to 250 where charts cover 60 % of a texture
Method = Literal["closed-form", "adapter", "diffusion"]
BUNDLED_ADAPTER = "edit_adapter"
"""Name of bundled weights."""
Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]


def texture_gb(width: int, height: int) -> float:
    """Memory [GB] that an edit of a mesh with a texture of this size needs."""
    return _BYTES_A_TEXEL * width * height / 1e9


@dataclass(frozen=True)
class Methods:
    """How texts become edits, and with which networks."""

    method: Method = "closed-form"
    """closed-form: the text is parsed, and each edit is computed from the colors of the planes; adapter: a network changes the
    planes by the tokens of the text; diffusion: the change is drawn by a diffusion model of yours."""
    refine: int = REFINE
    """Steps that bring the planes of the encoder closer to the object's colors, before and after the edit; 30 take about a
    second; 0: none."""
    planes: str = "edit_planes"
    """Weights of encoder and decoder: a .safetensors of `edit train-planes`, or the name of bundled ones."""
    adapter: str | None = None
    """Weights of the adapter: a .safetensors of `edit train`, or the name of bundled ones; default: edit_adapter."""
    diffusion: str | None = None
    """Weights of the diffusion model: a .safetensors of `edit train-diffusion`, which method diffusion needs."""
    steps: int = 20
    """Steps of the sampler."""
    guidance: float = 1.5
    """Guidance by the text; 1: none."""
    source_guidance: float = 1.0
    """Guidance by the source; 1: none."""
    start: float = 1.0
    """Share of the noise to begin with, added to the latents of the source (SDEdit); 1: pure noise."""
    scheduler: Scheduler = "ddim"
    """ddim, or dpm (DPM-Solver++)."""

    def __post_init__(self) -> None:
        _check_refine(self.refine)
        if self.method not in get_args(Method):
            raise ConfigError("method", f"got {self.method!r}, want {', '.join(get_args(Method))}")
        if self.adapter is not None and self.method != "adapter":
            raise ConfigError("method", f"got {self.method} with weights of an adapter, want --method adapter")
        if (self.method == "diffusion") != (self.diffusion is not None):
            got, want = ("without", "--diffusion PATH") if self.diffusion is None else ("with", "--method diffusion")
            raise ConfigError("method", f"got {self.method} {got} weights of a diffusion model, want {want}")
        _ = self.sampling  # checks its options

    @property
    def weights(self) -> str:
        """Of the network of the method."""
        return self.diffusion or self.adapter or BUNDLED_ADAPTER

    @property
    def sampling(self) -> Sampling:
        """Of the diffusion model."""
        return Sampling(self.steps, self.guidance, self.source_guidance, self.start, self.scheduler)


@dataclass(frozen=True)
class EditConfig(Methods):
    """Change colors, patterns and material of an object by text; its shape stays."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("text", "select", "variants", "method", "up"),
        "networks": ("refine", "strength", "planes", "adapter", "device"),
        "diffusion": ("diffusion", "steps", "guidance", "source_guidance", "start", "scheduler"),
        "output": ("allow_geometry", "format", "seed", "texture_size", "views", "view_size"),
    }

    variants: int = 1
    """Versions to choose from, which differ in what the text leaves open: shades, second colors, periods, places, strengths."""
    seed: int = 0
    """Seed of the variants, and of the noise of a diffusion model."""
    strength: float = 1.0
    """Factor of the change, with methods adapter and diffusion."""
    allow_geometry: bool = False
    """The shape may change, too: the result is the surface of the edited planes, a .glb (triplanes: the triplane). Detail that
    planes do not hold is lost. For whole objects, with method closed-form."""
    up: Up = "auto"
    """Axis of the world that is up, for top, bottom and patterns; auto: by the format of the file, as `view` does."""
    format: Literal["own", "glb"] = "own"
    """Of the edited object. own: as the input, .glb (meshes), .ply (Gaussians) or .safetensors (triplanes); glb: also Gaussians
    as .glb, and triplanes as meshes with a texture."""
    texture_size: int = 1024
    """Side of the texture of meshes that get a new one [texels]."""
    views: int = 4
    """Images of the object before and after."""
    view_size: int = 384
    """Side of these [px]."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "strength")
        if self.allow_geometry and self.method != "closed-form":
            raise ConfigError(
                "allow_geometry", f"got it with method {self.method}, which changes colors only; want closed-form"
            )
        if self.format not in ("own", "glb"):
            raise ConfigError("format", f"got {self.format!r}, want own or glb")
        check_counts(self, "views", "view_size", "texture_size", "variants")
        check_not_negative(self, "seed")
        if self.variants > MAX_VARIANTS:
            raise ConfigError("variants", f"got {self.variants}, want at most {MAX_VARIANTS}")
        if not 16 <= self.texture_size <= MAX_TEXTURE:
            need = "" if self.texture_size < 16 else f", which needs {texture_gb(self.texture_size, self.texture_size):.3g} GB"
            raise ConfigError("texture_size", f"got {self.texture_size}{need}, want 16 to {MAX_TEXTURE}")


@dataclass(frozen=True)
class EditEvalConfig(Methods):
    """Evaluate edits on objects: accuracy of instructions, color errors, baselines."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("furniture", "split", "objects", "each", "seed"),
        "networks": ("method", "refine", "planes", "adapter"),
        "diffusion": ("diffusion", "steps", "guidance", "source_guidance", "start", "scheduler"),
    }

    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture; procedural objects only without it."""
    split: Split = "val"
    """Split of the furniture: train (objects of the training), val, or test (and one maker)."""
    objects: int = 60
    """Generated objects, if no files are given."""
    each: int = 6
    """Instructions of each object and kind of phrasing."""
    points: int = 8192
    """Points that the encoder sees."""
    seed: int = 0
    """Seed of instructions and phrasings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "objects", "each", "points")
        check_not_negative(self, "seed")


@dataclass(frozen=True)
class EditSynthConfig:
    """Make pairs of an object and the same after an instruction."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("pairs", "furniture", "split", "share", "seed"),
        "instructions": ("two", "basic", "phrasings"),
        "networks": ("planes", "refine", "device"),
        "output": ("save_planes", "texture_size", "views", "view_size"),
    }

    pairs: int = 100
    """Number of pairs."""
    furniture: Path | None = None
    """Folder with the .sh3f files of sweethome3d-furniture; without it, objects are procedural."""
    split: Split = "train"
    """train, val or test: which of the furniture."""
    share: float = 0.5
    """Share of objects that are furniture."""
    seed: int = 0
    """Seed of objects and instructions."""
    two: float = 0.25
    """Share of instructions with two edits."""
    basic: float = 0.3
    """Share of edits that are basic: of the whole object, without fine colors and patterns in given colors."""
    phrasings: Literal["training", "held-out"] = "training"
    """training, or held-out: phrasings that no training sees."""
    planes: str = "edit_planes"
    """Weights of encoder and decoder of the planes."""
    refine: int = REFINE
    """Steps of refinement of the planes, as of `edit run`."""
    device: str = "auto"
    """auto, cpu or cuda."""
    save_planes: bool = False
    """Also write the planes of both objects, as .safetensors."""
    texture_size: int = 512
    """Side of the texture of objects that get a new one [texels]."""
    views: int = 2
    """Views in before_after.png."""
    view_size: int = 192
    """Width and height of a view [px]."""

    def __post_init__(self) -> None:
        check_counts(self, "pairs", "views", "view_size", "texture_size")
        check_not_negative(self, "seed")
        check_numbers(self, ("share", "two", "basic"), lambda value: 0 <= value <= 1, "a share in [0, 1]")
        _check_refine(self.refine)
        if self.phrasings not in ("training", "held-out"):
            raise ConfigError("phrasings", f"got {self.phrasings!r}, want training or held-out")
        if self.split not in get_args(Split):
            raise ConfigError("split", f"got {self.split!r}, want {', '.join(get_args(Split))}")
        if not 16 <= self.texture_size <= MAX_TEXTURE:
            raise ConfigError("texture_size", f"got {self.texture_size}, want 16 to {MAX_TEXTURE}")


@dataclass(frozen=True)
class ReconstructConfig:
    """Reconstruct an object from one image by an LRM."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("lrm", "fill", "steps"),
        "networks": ("planes", "device"),
        "output": ("grid", "texture_size", "view_size"),
    }

    lrm: Path | None = None
    """Folder with TripoSR: config.yaml and model.safetensors; they are not bundled."""
    fill: float = 0.85
    """Fraction of the image that the longer side of a cut-out object takes."""
    steps: int = 400
    """Steps of the fit of our planes to its density and colors."""
    grid: int = 128
    """Points along a side of the grid that the surface is made from."""
    texture_size: int = 1024
    """Side of the texture of the mesh [texels]."""
    view_size: int = 256
    """Side of the images of the result [px]."""
    planes: str = "edit_planes"
    """Weights of encoder and decoder of our planes."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_counts(self, "steps", "view_size")
        check_numbers(self, ("fill",), lambda value: 0.1 <= value <= 1, "a number from 0.1 to 1")
        if not 16 <= self.grid <= 512:
            raise ConfigError("grid", f"got {self.grid}, want 16 to 512")
        if not 16 <= self.texture_size <= MAX_TEXTURE:
            raise ConfigError("texture_size", f"got {self.texture_size}, want 16 to {MAX_TEXTURE}")


def _check_refine(steps: int) -> None:
    if not 0 <= steps <= MAX_REFINE:
        raise ConfigError("refine", f"got {steps}, want 0 to {MAX_REFINE}")
