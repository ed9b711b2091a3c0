"""Options of the stage `animate fit`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vision3d.core.device import BackendName
from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_each
from vision3d.geometry.choices import SkinningMethod
from vision3d.stages.animate.guidance.config import SdsConfig

RESUMABLE = ("checkpoint_every", "keep", "log_every", "video")
"""Keys that may change when a run is resumed."""
GROWS = ("steps",)
"""Keys that may be larger when a run is resumed."""
_STEPS, _FRAME_STEPS = 1000, 60  # at least, and for each frame


@dataclass(frozen=True)
class FieldConfig:
    """Motion of the nodes over time."""

    kind: Literal["discrete", "mlp", "hexplane"] = "discrete"
    """Free parameters for each frame with splines between them (discrete), an MLP on Fourier features of position and time
    (mlp), or feature planes over pairs of x, y, z and t (hexplane)."""
    stretch: bool = True
    """Whether nodes stretch; otherwise they move rigidly."""
    discrete_rate: float = 5e-3
    """Learning rate of the free parameters."""
    joint_rate: float = 0.03
    """Learning rate of the joints while frames are added [rad]; a third of it afterwards."""
    rate: float = 2e-3
    """Learning rate of the layers of networks."""
    plane_rate: float = 2e-2
    """Learning rate of planes."""
    frequencies: int = 3
    """Frequencies along each axis (mlp)."""
    layers: int = 2
    """Layers before the heads (mlp)."""
    width: int = 64
    """Width of the layers."""
    features: int = 8
    """Features per plane (hexplane)."""
    resolutions: tuple[int, ...] = (16, 32)
    """Cells of the planes along an axis, coarse to fine (hexplane)."""

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("frequencies", "layers", "width", "features")}
        for name, value in counts.items():
            if not 1 <= value <= 1024:
                raise ConfigError(f"motion.{name}", f"got {value}, want 1 to 1024")
        if not self.resolutions or min(self.resolutions) < 2:
            raise ConfigError("motion.resolutions", f"got {self.resolutions}, want numbers of at least 2")
        for name in ("discrete_rate", "joint_rate", "rate", "plane_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"motion.{name}", f"got {getattr(self, name)}, want a number > 0")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss; each term is a mean and independent of the sizes of images, meshes and the world."""

    rgb: float = 1.0
    """Images over random background colors: absolute differences and SSIM."""
    ssim: float = 0.2
    """Weight of SSIM in it, in [0, 1]; no effect on images smaller than 11 pixels."""
    mask: float = 2.0
    """Squared differences of opacity."""
    mask_start: float = 4.0
    """Factor on `mask` at the beginning, which falls to 1 at half of the steps: silhouettes are matched before colors."""
    blurred: float = 80.0
    """Squared differences at the coarser levels of image and opacity pyramids, which attract limbs that are far off."""
    arap: float = 1.0
    """As-rigid-as-possible energy of the frames (Sorkine and Alexa 2007)."""
    arap_between: float = 0.5
    """The same at times between frames."""
    edges: float = 0.5
    """Difference of what neighboring nodes predict for each other (Sumner et al. 2007, E_reg), in squared object radii."""
    final: float = 0.1
    """Factor on `arap`, `arap_between` and `edges` in the last step; it decreases from 1 once all frames are added, above 0."""
    limit: float = 0.05
    """Mean squared strain of an edge over the frames at which a quarter of its weight in `arap` remains, once all frames are
    added: a robust weight that lets joints bend. 0: no robust weights."""
    normals: float = 0.02
    """Squared changes of the cosines between the normals of adjacent faces relative to the rest pose, so edges stay sharp."""
    acceleration: float = 0.02
    """Second difference in time of the nodes' translations, in squared object radii, and of the joints' rotations [rad^2]."""
    pose: float = 1e-3
    """Squared rotations of the joints from the rest pose [rad^2]."""
    depth: float = 0.0
    """Squared motion of the surface along the viewing direction of a camera of each frame, in squared radii of the object: a
    single camera does not see it."""
    guidance: float = 1e-5
    """Score distillation, with --guidance (DreamMesh4D has 0.1, with 5000 for colors)."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"loss.{name}", f"got {value}, want a number >= 0")
        if self.ssim > 1:
            raise ConfigError("loss.ssim", f"got {self.ssim}, want a number in [0, 1]")
        if not 0 < self.final <= 1:
            raise ConfigError("loss.final", f"got {self.final}, want a number above 0, at most 1")


@dataclass(frozen=True)
class CameraConfig:
    """The camera of a clip without cameras; its distance follows from the mask, which the mesh in its rest pose fills."""

    elevation: float = 5.0
    """Height above the horizon [deg]."""
    azimuth: float = 0.0
    """Angle about the upward axis [deg]; 0 is the front: +z where y is up (glTF), +x where z is up."""
    fovy: float = 20.0
    """Vertical field of view [deg]."""
    up: Literal["x", "y", "z"] = "y"
    """Up axis of the mesh."""

    def __post_init__(self) -> None:
        checks = (
            ("elevation", -90 < self.elevation < 90, "more than -90 and less than 90"),
            ("azimuth", abs(self.azimuth) <= 360, "-360 to 360"),
            ("fovy", 1 <= self.fovy <= 120, "1 to 120"),
        )
        check_each(self, checks, group="camera.")


@dataclass(frozen=True)
class AnimateConfig:
    """Fit the motion of a mesh to a clip with masks."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("steps",),
        "motion model": ("fit", "nodes", "neighbors", "method"),
        "training": (
            "frames_per_step",
            "views_per_step",
            "grow",
            "coarse",
            "coarse_steps",
            "resolution",
            "fps",
            "reference",
            "seed",
        ),
        "rendering": ("renderer", "per_face", "video", "device", "backend"),
        "evaluation": ("hold_out_every", "hold_out_cameras"),
        "logs and checkpoints": ("checkpoint_every", "keep", "log_every"),
    }

    fit: Literal["auto", "joints", "graph"] = "auto"
    """What deforms the mesh: its joints (joints), the nodes of a deformation graph (graph), or joints if there are any and then
    nodes for the residual (auto)."""
    nodes: int = 128
    """Nodes of the deformation graph."""
    neighbors: int = 4
    """Maximum number of nodes that a vertex follows."""
    method: SkinningMethod = "hybrid"
    """Skinning: linear (lbs), dual quaternions (dqs), or a blend fitted for each node (hybrid)."""
    motion: FieldConfig = field(default_factory=FieldConfig)
    """Motion of the nodes over time."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss."""
    sds: SdsConfig = field(default_factory=SdsConfig)
    """Score distillation, with --guidance."""
    camera: CameraConfig = field(default_factory=CameraConfig)
    """The camera of a clip that comes without cameras."""
    steps: int | None = None
    """Training steps [default: 60 per frame, at least 1000]."""
    frames_per_step: int = 4
    """Frames per step."""
    views_per_step: int = 2
    """Cameras per frame of a step."""
    grow: float = 0.5
    """Fraction of training during which frames are added, in order of their distance from the reference; 0: all at once."""
    coarse: int = 2
    """Training starts on images this many times smaller: 1, 2, 4 or 8."""
    coarse_steps: float = 0.3
    """Fraction of training on the smaller images."""
    resolution: int = 128
    """Longest side of the training images [px]; larger ones are cropped to the object if their cameras are known, and
    downscaled. 0 keeps their size."""
    fps: float = 24.0
    """Frames per second of a folder of images without times; a video has its own."""
    reference: int | None = None
    """Frame in which the mesh is exactly in its rest pose; -1: none [default: the first in which the mesh covers its masks (IoU
    0.97), else -1]."""
    renderer: Literal["auto", "mesh", "gaussians"] = "auto"
    """What is rendered: the mesh with its texture or colors, Gaussians on its faces, or whichever was given
    (auto)."""
    per_face: Literal[1, 3, 4, 6] = 6
    """Gaussians per face, if the mesh has none."""
    hold_out_every: int = 0
    """Hold out every N-th frame for evaluation; 0: none."""
    hold_out_cameras: tuple[str, ...] = ()
    """Names of cameras that are held out for evaluation."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0: only at the end."""
    keep: int = 2
    """Number of checkpoints to keep."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    video: bool = True
    """Write comparison.mp4: target, fit, and another view."""
    seed: int = 0
    """Seed of the order of frames and cameras, and of networks."""
    device: str = "auto"
    """Where to train: auto, cpu or cuda."""
    backend: BackendName = "auto"
    """Rasterizer of Gaussians."""

    def total_steps(self, frames: int) -> int:
        """`steps`, or its default for this number of frames."""
        return max(_STEPS, _FRAME_STEPS * frames) if self.steps is None else self.steps

    def __post_init__(self) -> None:
        checks = (
            ("nodes", self.nodes >= 1, "1 or more"),
            ("neighbors", 1 <= self.neighbors <= 16, "1 to 16"),
            ("steps", self.steps is None or self.steps >= 0, "0 or more"),
            ("frames_per_step", self.frames_per_step >= 1, "1 or more"),
            ("views_per_step", self.views_per_step >= 1, "1 or more"),
            ("grow", 0 <= self.grow <= 1, "a number in [0, 1]"),
            ("coarse", self.coarse in (1, 2, 4, 8), "1, 2, 4 or 8"),
            ("coarse_steps", 0 <= self.coarse_steps <= 1, "a number in [0, 1]"),
            ("resolution", self.resolution == 0 or 16 <= self.resolution <= 4096, "0, or 16 to 4096"),
            ("fps", 0 < self.fps < float("inf"), "a number > 0"),
            ("reference", self.reference is None or self.reference >= -1, "a frame, or -1"),
            ("hold_out_every", self.hold_out_every == 0 or self.hold_out_every >= 2, "0, or 2 and more"),
            ("checkpoint_every", self.checkpoint_every >= 0, "0 or more"),
            ("keep", self.keep >= 1, "1 or more"),
            ("log_every", self.log_every >= 1, "1 or more"),
        )
        check_each(self, checks)
