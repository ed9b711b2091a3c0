"""Options of detection: the grid and network, training, evaluation, and the application to sweeps."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.ranges import check_counts, check_not_negative, check_positive
from vision3d.stages.detect.synth.config import StreetObjects
from vision3d.training.options import NetworkTraining, training_groups

RESUMABLE = ("checkpoint_every", "keep", "evaluate_every", "evaluate_frames", "workers")
"""Keys of a training that may change when it is resumed."""
GROWS = ("steps",)
"""Keys of a training that may be larger when it is resumed."""

GROUND = -1.73
"""Height of the ground in the frame of the network [m]: sweeps are shifted to the sensor height of KITTI's car."""


@dataclass(frozen=True)
class GridConfig:
    """The region that the network sees, in the frame of the sensor (x forward, y left, z up), and its voxels."""

    low: tuple[float, float, float] = (0.0, -25.6, -3.0)
    """Lower corner [m]."""
    high: tuple[float, float, float] = (51.2, 25.6, 1.0)
    """Upper corner [m]."""
    voxel: tuple[float, float, float] = (0.32, 0.32, 0.25)
    """Size of a voxel [m]; a pillar has the whole height."""

    def __post_init__(self) -> None:
        for axis, low, high, voxel in zip("xyz", self.low, self.high, self.voxel):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ConfigError("grid", f"{axis}: got {low} to {high}, want an ascending pair of finite numbers")
            if not 0 < voxel <= high - low:
                raise ConfigError("grid.voxel", f"{axis}: got {voxel}, want more than 0 and at most {high - low:g}")
        if math.prod(self.shape[:2]) > 2**24:
            raise ConfigError("grid.voxel", f"gives {self.shape[0]} x {self.shape[1]} cells, want at most 2^24")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells along x, y, z."""
        counts = [round((high - low) / voxel) for low, high, voxel in zip(self.low, self.high, self.voxel)]
        return counts[0], counts[1], counts[2]


@dataclass(frozen=True)
class BevConfig:
    """Convolutions on the bird's-eye image; the outputs of all levels are brought to one resolution and concatenated."""

    channels: tuple[int, ...] = (48, 96, 128)
    """Features of each level."""
    layers: tuple[int, ...] = (2, 3, 3)
    """3x3 convolutions, or residual blocks of two, of each level."""
    strides: tuple[int, ...] = ()
    """Stride of each level relative to the one before; by default 1 for the first level and 2 for the others."""
    block: Literal["plain", "residual"] = "plain"
    """plain: convolutions (SECOND). residual: blocks of two convolutions and a shortcut (ResNet)."""
    up: Literal["nearest", "transposed"] = "nearest"
    """Upsampling. nearest: 1x1 convolution, then nearest neighbor. transposed: transposed convolution."""
    up_channels: int = 48
    """Features of each level after upsampling."""
    stride: int = 1
    """Cells of the grid along an edge of a cell of the output."""
    sparse: bool = False
    """Compute the occupied cells and those around them only: faster on large grids, of which few cells are occupied."""
    dilate: int = 2
    """Cells around occupied ones that are computed, in each direction (sparse)."""

    def __post_init__(self) -> None:
        if self.dilate < 0:
            raise ConfigError("bev.dilate", f"got {self.dilate}, want at least 0")
        if len(self.channels) != len(self.layers) or not self.channels:
            raise ConfigError(
                "bev", f"got {len(self.channels)} channels and {len(self.layers)} layers, want one of each a level"
            )
        if self.strides and len(self.strides) != len(self.channels):
            raise ConfigError("bev.strides", f"got {len(self.strides)}, want none or {len(self.channels)}, one a level")
        if min(*self.channels, *self.layers, self.up_channels) < 1:
            raise ConfigError("bev", "want at least one channel and layer per level")
        if min(1, self.stride, *self.strides) < 1:
            raise ConfigError("bev.strides", "want at least 1")
        for stride in self.level_strides:
            if stride % self.stride and self.stride % stride:
                raise ConfigError(
                    "bev.stride", f"got {self.stride} with a level of stride {stride}, want one to be a multiple of the other"
                )

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Stride of each level relative to the grid."""
        strides = self.strides or (1, *[2] * (len(self.channels) - 1))
        return tuple(math.prod(strides[: level + 1]) for level in range(len(strides)))


@dataclass(frozen=True)
class AnchorConfig:
    """Anchors of the anchor head: one box for each class, along x and along y, at every cell. The default is KITTI's."""

    sizes: tuple[tuple[float, float, float], ...] = ((3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73))
    """Length, width, height of each class [m]."""
    bottoms: tuple[float, ...] = (-1.78, -0.6, -0.6)
    """Height of the bottom of each class [m], where the ground is at -1.73."""
    positive: tuple[float, ...] = (0.6, 0.5, 0.5)
    """Anchors with at least this overlap with an object of their class shall predict it."""
    negative: tuple[float, ...] = (0.45, 0.35, 0.35)
    """Anchors with less than this overlap with every object of their class shall predict none."""

    def __post_init__(self) -> None:
        counts = [len(self.sizes), len(self.bottoms), len(self.positive), len(self.negative)]
        if len(set(counts)) != 1:
            raise ConfigError(
                "anchors",
                "got {} sizes, {} bottoms, {} positive and {} negative thresholds, want one of each a class".format(*counts),
            )
        if not all(0 < edge < math.inf for size in self.sizes for edge in size):
            raise ConfigError("anchors.sizes", f"got {[list(size) for size in self.sizes]}, want positive numbers")
        if not all(math.isfinite(bottom) for bottom in self.bottoms):
            raise ConfigError("anchors.bottoms", f"got {list(self.bottoms)}, want finite numbers")
        for low, high in zip(self.negative, self.positive):
            if not 0 < low <= high <= 1:
                raise ConfigError("anchors.positive", f"got {high} with negative {low}, want 0 < negative <= positive <= 1")


@dataclass(frozen=True)
class LionConfig:
    """Blocks of sequence operators on voxels (method lion)."""

    operator: str = "mamba"
    """Sequence operator: mamba, rwkv6, retnet, mlstm, ttt, gla, deltanet, gated_deltanet or deltaproduct."""
    operator_options: tuple[str, ...] = ()
    """Options of the operator, such as mlp_ratio=4 (its arguments in vision3d.stages.detect.operators)."""
    groups: tuple[int, ...] = (1024, 512, 256)
    """Voxels per group of each block; the height of the grid halves after each."""
    window: tuple[int, int] = (13, 13)
    """Size of the windows that order the voxels, along x and y [voxels]; they have the whole height."""
    last_group: int = 256
    """Voxels per group of the layer behind the blocks."""
    flat_groups: tuple[int, ...] = ()
    """Voxels per group of further layers on voxels of the whole height."""
    flat_windows: tuple[int, ...] = ()
    """Size of the windows of each of these layers, along x and y [voxels]."""
    generate: float = 0.2
    """Share of the voxels, those with the strongest features, around which new ones are generated after each block; 0: none."""
    descriptor: bool = True
    """Submanifold convolutions before voxels are merged (3D spatial feature descriptor)."""
    bidirectional: bool = True
    """Whether a voxel sees its whole group, or only the voxels before it."""
    drop_path: float = 0.0
    """Probability that the update of a group is dropped in training."""

    def __post_init__(self) -> None:
        check_counts(self, "last_group")
        if not self.groups or min(self.groups) < 1:
            raise ConfigError("lion.groups", f"got {list(self.groups)}, want one size of at least 1 for each block")
        if min(self.window) < 1:
            raise ConfigError("lion.window", f"got {list(self.window)}, want at least 1")
        if len(self.flat_groups) != len(self.flat_windows) or min((1, *self.flat_groups, *self.flat_windows)) < 1:
            raise ConfigError(
                "lion.flat_groups",
                f"got {list(self.flat_groups)} with flat_windows {list(self.flat_windows)}, want as many, at least 1",
            )
        for name in ("generate", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"lion.{name}", f"got {getattr(self, name)}, want a number in [0, 1)")


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    method: Literal["lion", "pillars"] = "lion"
    """lion: sequence operators on voxels (Liu et al. 2024). pillars: PointPillars (Lang et al. 2019)."""
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")
    """Names of the classes."""
    grid: GridConfig = field(default_factory=GridConfig)
    """Region and voxels."""
    channels: int = 48
    """Features of a voxel."""
    intensity: bool = True
    """Use the intensity of returns."""
    lion: LionConfig = field(default_factory=LionConfig)
    """Blocks of method lion."""
    bev: BevConfig = field(default_factory=BevConfig)
    """Convolutions on the bird's-eye image."""
    head: Literal["center", "anchor"] = "center"
    """center: boxes at the centers of objects (CenterPoint). anchor: boxes relative to given ones (SECOND)."""
    head_channels: int = 48
    """Features of the center head."""
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    """Anchors of the anchor head."""

    def __post_init__(self) -> None:
        check_counts(self, "channels", "head_channels")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError("classes", f"got {', '.join(self.classes) or 'none'}, want one or more different names")
        if self.head == "anchor" and len(self.anchors.sizes) != len(self.classes):
            raise ConfigError(
                "anchors", f"got {len(self.anchors.sizes)} for {len(self.classes)} classes, want one a class, in their order"
            )
        for axis, count in zip("xy", self.grid.shape):
            if count % self.bev.stride:
                raise ConfigError("bev.stride", f"got {self.bev.stride} for {count} cells along {axis}, want a divisor")

    @property
    def cells(self) -> tuple[int, int]:
        """Cells along x and y of the image that the head sees."""
        return self.grid.shape[0] // self.bev.stride, self.grid.shape[1] // self.bev.stride


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training samples."""

    turn_deg: float = 180.0
    """Rotate the sweep about the vertical by up to this in both directions, so that any sector becomes the front."""
    flip: bool = True
    """Mirror left and right."""
    scale: tuple[float, float] = (0.95, 1.05)
    """Range of the scale of the sweep."""
    object_scale: tuple[float, float] = (0.82, 1.1)
    """Range of the scale of each object, on its place on the ground."""
    height: float = 0.15
    """Shift the ground by up to this up or down [m]."""
    tilt_deg: float = 0.5
    """Tilt the ground by up to this in any direction."""
    drop_intensity: float = 0.3
    """Fraction of the samples whose intensities are set to 0."""
    thin: float = 0.3
    """Fraction of the samples of which only every second ring or a random part of the points stays."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    heat: float = 1.0
    """Focal loss of the centers, or of the anchors' classes."""
    box: float = 8.0
    """L1 (anchors: smooth L1) of positions, sizes and orientations."""
    vertical: float = 16.0
    """L1 of z [m] and of the logarithm of the height; center head only, whose `box` has the others, x and y in cells."""
    direction: float = 0.2
    """Cross-entropy of front and back."""
    overlap: float = 0.5
    """1 - overlap of the predicted and true boxes (3D intersection over union); center head only."""
    iou: float = 0.5
    """L1 of the predicted overlap; center head only."""


@dataclass(frozen=True)
class StreetsConfig(StreetObjects):
    """Generated streets (DATA `synth`)."""

    sensors: tuple[str, ...] = ("hdl64e", "hdl32e", "hdl64e", "vlp16")
    """Sensors, in turn; the one of the validation is not among them."""
    frames: int = 2000
    """Streets that count as one pass; each pass has new ones."""

    def __post_init__(self) -> None:
        check_counts(self, "frames")
        if not self.sensors:
            raise ConfigError("synth.sensors", "got none, want at least one sensor")
        self.check_objects("synth.")


@dataclass(frozen=True)
class TrainConfig(NetworkTraining):
    """Train a detector on labelled sweeps, or on generated ones."""

    HELP_GROUPS: ClassVar[HelpGroups] = training_groups(("steps", "batch_size"), "evaluate_frames")

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of the samples."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the losses."""
    synth: StreetsConfig = field(default_factory=StreetsConfig)
    """Generated streets."""
    steps: int = 3000
    """Steps of training."""
    batch_size: int = 2
    """Sectors per step."""
    lr: float = 3e-3
    """Maximum learning rate of AdamW (one cycle)."""
    clip_norm: float = 10.0
    """Maximum norm of the gradient."""
    min_points: int = 5
    """Objects with fewer points are neither learned nor counted as mistakes."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 200
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    evaluate_frames: int = 100
    """Held-out frames of an evaluation: of ImageSets/val.txt, or generated streets of validation; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "min_points")


@dataclass(frozen=True)
class DetectConfig:
    """Find the objects in LiDAR sweeps."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("weights", "operator", "score", "classes", "sensor_height"),
        "output": ("images", "fps", "reach"),
    }

    weights: str = "detector"
    """Weights: a .safetensors of `detect train`, or the name of bundled ones."""
    operator: str = ""
    """Use the bundled weights with this sequence operator, such as gated_deltanet; weights of a file must have it."""
    score: float = 0.3
    """Minimum score of a box."""
    classes: tuple[str, ...] = ()
    """Only these classes; none: all of the weights."""
    sensor_height: float | None = None
    """Height of the sensor above the ground [m]; by default the ground is estimated in every sweep."""
    columns: int | None = None
    """Columns of a .bin (float32): 4 as in KITTI, 5 as in nuScenes. By default this is recognized."""
    images: bool = True
    """Draw each sweep from above with its boxes, and the boxes on its camera image where there is a calibration."""
    fps: float = 10.0
    """Frames per second of the video of a folder of sweeps."""
    reach: float = 50.0
    """Distance shown in the images from above [m]."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_positive(self, "fps", "reach")
        if not 0 <= self.score <= 1:
            raise ConfigError("score", f"got {self.score}, want a number in [0, 1]")
        if self.sensor_height is not None and not 0 <= self.sensor_height < 100:
            raise ConfigError("sensor_height", f"got {self.sensor_height}, want 0 to 100 m")
        if self.columns is not None and not 3 <= self.columns <= 64:
            raise ConfigError("columns", f"got {self.columns}, want 3 to 64")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluate a detector by the protocol of KITTI."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("weights", "split", "frames"),
        "generated streets": ("sensors", "seed"),
    }

    weights: str = "detector"
    """Weights: a .safetensors of `detect train`, or the name of bundled ones."""
    split: str = ""
    """Frames of ImageSets/SPLIT.txt; by default all."""
    frames: int = 0
    """Number of frames; 0: all, and 200 generated ones."""
    sensors: tuple[str, ...] = ("hdl64e", "vls128")
    """Sensors of generated streets, in turn."""
    seed: int = 1
    """Seed of generated streets."""
    score: float = 0.3
    """Minimum score in images."""
    worst: int = 8
    """Number of images of the frames with the most mistakes."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        check_not_negative(self, "frames", "seed", "worst")
        if not 0 <= self.score <= 1:
            raise ConfigError("score", f"got {self.score}, want a number in [0, 1]")
