"""Options of hands: the network and its losses, generated images and their changes, filters."""

from dataclasses import dataclass, fields
from typing import Literal

from vision3d.core.errors import ConfigError
from vision3d.core.ranges import check_counts, check_not_negative, check_positive

OWN_BACKBONE = "mobilenetv3_small_100"
"""The backbone that needs no other package."""
STRIDE, UP = 32, 4
"""Pixels of the image along a cell of the backbone's features, and texels of the feature map along such a cell."""

FIELD_OF_VIEW_DEG = 60.0
"""Assumed angle of the longer side of a photo with unknown intrinsics; a phone's main camera has 60 to 75."""
BATCH = 16
"""Generated images that are made together, and lie together in a shard."""


@dataclass(frozen=True)
class NetworkConfig:
    """The network: features of a crop, 2D joints, features at these, and the mesh."""

    backbone: str = OWN_BACKBONE
    """mobilenetv3_small_100, or the name of a model of timm with features of stride 32 (extra `hand`)."""
    input_size: int = 160
    """Width and height of the crop [pixels]; the weights work with other sizes, too."""
    upright: bool = False
    """The crops are turned so that the fingers point up, by the angle of the finder or of the last frame."""
    reduce: int = 0
    """Features after a 1x1 convolution in front of the transposed one, which makes it smaller, such as 128; 0: none."""
    pyramid: int = 0
    """Features of a pyramid of the backbone's strides 32, 16 and 8, from which 2D joints (by heat maps of stride 4) and tokens
    are read in place of the stride 32 alone, as published; 0: none."""
    interaction: Literal["released", "skeleton"] = "released"
    """released: blocks of the published code. skeleton: with features of bones and the graph of the hand."""
    coordinate_attention: bool = False
    """Coordinate attention on the feature map (Hou et al. 2021)."""
    uv_head: Literal["linear", "heatmap"] = "linear"
    """2D joints from the pooled features (linear), or as the means of heat maps (heatmap)."""
    head: Literal["direct", "canonical6d"] = "direct"
    """direct: vertices in camera axes. canonical6d: a change of the template, rotated and scaled."""
    logits: bool = True
    """Predict the confidence of each 2D joint, the side of the hand, and whether there is one."""
    upsampling: Literal["random", "template"] = "random"
    """First weights from joints to vertices: random, or inverse distances on the template."""
    dims: tuple[int, int, int] = (256, 128, 64)
    """Features of a token in each stage; the first are also those of the feature map."""
    tokens: tuple[int, int, int] = (21, 84, 336)
    """Tokens of each stage; the first are the joints."""
    heads: int = 8
    """Heads of the attention."""
    mlp_ratio: int = 2
    """Hidden features of an MLP, as a multiple of its features (skeleton)."""
    bone_samples: int = 4
    """Points on each bone at which the feature map is sampled (skeleton)."""

    def __post_init__(self) -> None:
        check_counts(self, "heads", "mlp_ratio", "bone_samples")
        check_not_negative(self, "reduce", "pyramid")
        choices = {
            "interaction": ("released", "skeleton"),
            "uv_head": ("linear", "heatmap"),
            "head": ("direct", "canonical6d"),
            "upsampling": ("random", "template"),
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ConfigError(name, f"got {getattr(self, name)!r}, want {' or '.join(valid)}")
        if self.pyramid and (self.reduce or self.coordinate_attention or self.uv_head != "heatmap"):
            raise ConfigError("pyramid", "replaces reduce and coordinate_attention, and needs uv_head heatmap")
        if not 32 <= self.input_size <= 1024 or self.input_size % STRIDE:
            raise ConfigError("input_size", f"got {self.input_size}, want a multiple of {STRIDE} from 32 to 1024")
        if not self.backbone:
            raise ConfigError("backbone", f"got none, want {OWN_BACKBONE} or the name of a model of timm")
        if len(self.dims) != 3 or min(self.dims) < 1 or any(dim % self.heads for dim in self.dims):
            raise ConfigError("dims", f"got {list(self.dims)}, want three multiples of the number of heads, {self.heads}")
        if self.dims[0] % 4:
            raise ConfigError("dims", f"got {self.dims[0]} features of the map, want a multiple of 4")
        if len(self.tokens) != 3 or self.tokens[0] != 21 or min(self.tokens) < 1:
            raise ConfigError("tokens", f"got {list(self.tokens)}, want three numbers, the first of them the 21 joints")

    @property
    def map_size(self) -> int:
        """Width and height of the feature map [texels]."""
        return self.input_size // STRIDE * UP


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; 0 leaves one out."""

    uv: float = 1.0
    """L1 of the 2D joints [crop sides]."""
    heat: float = 0.0
    """Cross-entropy of the heat maps with Gaussians at the 2D joints, for `uv_head` heatmap: their means alone learn slowly."""
    joints: float = 10.0
    """L1 of the root-relative 3D joints [m]."""
    vertices: float = 10.0
    """L1 of the root-relative vertices [m]."""
    edge: float = 0.0
    """L1 of the lengths of edges [m]."""
    normal: float = 0.0
    """Cosine of the angle between edges and the true normals of their faces."""
    bone: float = 0.0
    """L1 of the lengths of bones [m]."""
    reprojection: float = 0.0
    """L1 between the projected 3D joints and the true 2D joints [crop sides]."""
    confidence: float = 0.1
    """Cross-entropy of the confidence of the 2D joints."""
    side: float = 0.1
    """Cross-entropy of right and left."""
    presence: float = 0.1
    """Cross-entropy of whether there is a hand."""
    confidence_scale: float = 0.05
    """Error of a 2D joint whose confidence should be 1/e [crop sides]."""

    def __post_init__(self) -> None:
        check_not_negative(self, *(field.name for field in fields(self)))
        check_positive(self, "confidence_scale")


@dataclass(frozen=True)
class FilterConfig:
    """One-Euro filter of the joints and positions in a video (Casiez et al. 2012)."""

    min_cutoff: float = 1.0
    """Cutoff frequency of a still hand [Hz]; lower ones jitter less and lag more."""
    beta: float = 20.0
    """Increase of the cutoff with the speed [Hz per unit/s]; higher ones lag less."""
    derivative_cutoff: float = 1.0
    """Cutoff frequency of the speed [Hz]."""

    def __post_init__(self) -> None:
        check_positive(self, "min_cutoff", "derivative_cutoff")
        check_not_negative(self, "beta")


@dataclass(frozen=True)
class FrameConfig:
    """What the images show."""

    size: int = 128
    """Side [px]."""
    views: str = "all"
    """all, or near: the palm or the back within 60 degrees."""
    gestures: float = 0.3
    """Share of poses near named gestures."""
    together: float = 0.4
    """Share of poses whose fingers bend together; the rest has independent angles."""
    objects: float = 0.45
    """Share of hands that hold something."""
    grips: float = 0.7
    """Share of these objects that are where the fingers close around them, and of that size; the others lie on the palm."""
    sleeves: float = 0.5
    """Share of forearms in a sleeve."""
    margins: tuple[float, float] = (1.05, 1.7)
    """Side of the crop over that of the joints' box, from and to."""
    crowd: float = 0.3
    """Share of hands with another hand behind."""
    empty: float = 0.0
    """Share of images without a hand."""
    whole: bool = False
    """Whole photos: hands of any size anywhere, with the person behind them."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of images; 0 leaves one out."""

    rotation: float = 180.0
    """Largest rotation about the optical axis, in either direction [degrees]."""
    zoom: float = 0.2
    """Largest logarithm of the zoom, in either direction."""
    shift: float = 0.08
    """Largest shift along each axis, in either direction [crop sides]."""
    color: float = 0.3
    """Largest relative change of brightness, contrast, and each channel."""
    gray: float = 0.05
    """Share of gray images."""
    hue: float = 20.0
    """Largest turn of the hues, in either direction [degrees]."""
    gamma: float = 0.35
    """Largest logarithm of an exponent of the colors, in either direction."""
    cover: float = 0.3
    """Share of images with a rectangle of one color, or of another image, in front."""
    mirror: float = 0.1
    """Share of mirrored images, of left hands: the network shall say so, and nothing else of them counts."""

    def __post_init__(self) -> None:
        check_not_negative(self, *(field.name for field in fields(self)))
