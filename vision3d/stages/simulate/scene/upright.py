"""Up direction of a scene, and its floor."""

import logging
import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.geometry import paths
from vision3d.geometry.vectors import unit
from vision3d.scene import Cameras
from vision3d.stages.simulate.config import SimulateConfig, Vector

logger = logging.getLogger("vision3d.physics")

UpFrom = Literal["format", "guess", "caller"]
"""Source of an up direction: a format that defines it, what most files of a format have, or the caller."""

_DRAWN = 4000  # points used for RANSAC
_PLANES = 1500  # candidate planes
_TOLERANCE = 0.01  # thickness of a floor, relative to the scene's longest side
_MIN_SHARE = 0.18  # minimum fraction of the points in a floor
_MIN_SPREAD = 0.15  # minimum standard deviation across it, relative to the scene's longest side
_MIN_ABOVE = 0.65  # minimum fraction of the other points on one side, if that determines the up direction
_SQUARES, _MIN_OPEN = 16, 0.25  # squares per side of a floor; minimum fraction of them without anything above
_TILT = math.cos(math.radians(20))  # maximum tilt of a floor against a known up direction
_MIN_HEIGHT = 0.1  # of objects on a floor, relative to the longest side, if the floor alone determines the up direction
_MUCH_LARGER = 1.5  # a floor with this many times the points overrules one perpendicular to the expected direction
_MIN_STANDING = 3  # points; fewer are noise
_BESIDE, _AROUND = 4, 3  # in thicknesses of the floor: minimum height of objects above feet, and distance of feet next to them
_ROUGH = 4.5  # median deviations from the median, three standard deviations of a normal distribution
_MIN_BARE = 50  # points of a bare floor needed to measure its roughness
FACING = 0.7
"""Minimum cosine between the normals of a floor's faces and its own."""


@dataclass(frozen=True, eq=False)
class Floor:
    """A plane that supports the rest of a scene."""

    normal: Float[Tensor, " 3"]
    """Unit, upwards."""
    height: float
    """Along the normal, in the scene's units."""
    thickness: float
    """Distance of the floor's points from the plane, in the scene's units."""
    share: float = 1.0
    """Fraction of the points that belong to it."""

    def contains(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Mask of points in the floor, or below it."""
        return points.double() @ self.normal - self.height < self.thickness


@dataclass(frozen=True, eq=False)
class FloorPoints:
    """Masks of a scene's floor points."""

    lying: Bool[Tensor, " n"]
    """In the floor or below it."""
    hidden: Bool[Tensor, " n"]
    """Within the floor, but part of an object on it: its underside, which no photo shows."""
    rough: float
    """Height of the floor's roughness above its plane, in the scene's units."""


def floor_points(
    floor: Floor, points: Float[Tensor, "n 3"], solid: Bool[Tensor, " n"], colors: Float[Tensor, "n 3"] | None = None
) -> FloorPoints:
    """The points of a floor, without the feet of objects on it.

    The thickness of a floor is at most that of the scene's noise. Its roughness and its colors, lit and in shadow, are measured
    where it is bare. Below or next to an object, points that are higher or of another color belong to the object.

    floor: Floor of the scene.
    points: Centers.
    solid: Mask of points that are opaque enough.
        colors: Colors of the points, linear or not.
    """
    low, heights = floor.contains(points), points.double() @ floor.normal - floor.height
    axes = torch.linalg.svd(floor.normal[None])[2][1:].T
    cells = (points.double() @ axes / floor.thickness).floor().clamp(-(2**30), 2**30).long()
    keys = (cells[:, 0] << 32) + cells[:, 1]
    standing, counts = torch.unique(keys[solid & ~low & (heights < _BESIDE * floor.thickness)], return_counts=True)
    rows, beside = low.nonzero()[:, 0], torch.zeros_like(low)
    if len(standing):
        number = torch.zeros(len(rows), dtype=torch.int64)  # of objects around each
        for i, j in torch.cartesian_prod(*[torch.arange(-_AROUND, _AROUND + 1)] * 2).tolist():
            wanted = keys[rows] + (i << 32) + j
            places = torch.searchsorted(standing, wanted).clamp(max=len(standing) - 1)
            number += torch.where(standing[places] == wanted, counts[places], 0)
        beside[rows] = number >= _MIN_STANDING
    near = heights.abs() < floor.thickness
    bare = low & solid & ~beside & near
    none = torch.zeros_like(low)
    if int(bare.sum()) < _MIN_BARE:
        return FloorPoints(low, none, floor.thickness)
    rough = _usual(heights[bare])
    feet = low & beside & (heights > rough)
    if colors is None:
        return FloorPoints(low & ~feet, none, rough)
    base = colors[bare].double().median(0).values
    share = (colors.double() @ base / base.square().sum().clamp(min=1e-12)).clamp(min=0)  # fraction of the floor's light
    off = (colors.double() - share[:, None] * base).norm(dim=-1)
    hidden = low & beside & near & ~feet & (off > _usual(off[bare]))
    return FloorPoints(low & ~feet & ~hidden, hidden, rough)


def _usual(values: Float[Tensor, " n"]) -> float:
    """A value that few are above, robust to outliers."""
    middle = values.median()
    return float(middle + _ROUGH * (values - middle).abs().median())


def find_floor(
    points: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    up: Float[Tensor, " 3"] | None,
    eyes: Float[Tensor, "c 3"] | None = None,
    seed: int = 0,
    facing: Float[Tensor, "n 3"] | None = None,
) -> Floor | None:
    """The plane with many of the points and most others on one side; None if no plane qualifies.

    Much of it must have nothing above, or it is the bottom of an object; cameras may stand there, in a room. Random sample
    consensus (Fischler and Bolles 1981) on points drawn by weight.

    Args:
        points: Points of the scene.
        weights: Weight of each, at least 0.
        up: Known up direction: the floor is within 20 degrees of being level. None: any plane, but objects on it must be as
            high as a tenth of the scene; a plane with less on it is the large side of a flat object.
        eyes: Camera positions.
        seed: Seed of the draws.
        facing: Surface normals at the points, if known: a floor faces upwards.
    """
    if len(points) < 50:
        return None
    generator = torch.Generator().manual_seed(seed)
    # torch.multinomial is limited to 2^24 categories.
    some = torch.randperm(len(points), generator=generator)[: 1 << 20]
    share = weights[some].double().clamp(min=0)
    if not bool(share.sum() > 0):
        return None
    rows = some[torch.multinomial(share, _DRAWN, replacement=True, generator=generator)]
    drawn, faced = points[rows].double(), None if facing is None else facing[rows].double()
    low, high = torch.quantile(drawn, torch.tensor([0.01, 0.99], dtype=torch.float64), dim=0)
    extent = float((high - low).max())
    if extent == 0:
        return None
    chosen = torch.randint(len(drawn), (_PLANES, 3), generator=generator)
    corners = drawn[chosen]
    normals = unit(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    is_plane = normals.any(-1)  # not so if a point is drawn twice
    normals, corners, chosen = normals[is_plane], corners[is_plane], chosen[is_plane]
    if faced is not None:
        normals = torch.where((normals * faced[chosen].sum(1)).sum(-1, keepdim=True) < 0, -normals, normals)
    if up is not None and faced is not None:
        is_level = normals @ up > _TILT
        normals, corners = normals[is_level], corners[is_level]
    elif up is not None:
        normals = torch.where((normals @ up)[:, None] < 0, -normals, normals)
        normals = normals[is_level := normals @ up > _TILT]
        corners = corners[is_level]
    if up is not None and eyes is not None and len(eyes) and len(normals):  # a ceiling is above the cameras
        is_below = (eyes.double() @ normals.T).median(0).values > (corners[:, 0] * normals).sum(-1)
        normals, corners = normals[is_below], corners[is_below]
    if not len(normals):
        return None
    tolerance = _TOLERANCE * extent
    heights = drawn @ normals.T - (corners[:, 0] * normals).sum(-1)
    is_of = heights.abs() < tolerance
    if faced is not None:
        is_of &= faced @ normals.T > FACING
    best = int(is_of.sum(0).argmax())
    is_in = is_of[:, best]
    if not bool(is_in.any()):  # none of its faces has its orientation
        return None
    best_row = int(is_in.nonzero()[0, 0])
    middle, normal, spreads = drawn[best_row], normals[best], drawn[0]
    for _ in range(3):  # refit: the inliers' direction of least variance, then new inliers
        middle = drawn[is_in].mean(0)
        spreads, axes = torch.linalg.eigh((drawn[is_in] - middle).mT @ (drawn[is_in] - middle) / int(is_in.sum()))
        normal = axes[:, 0]
        is_in = ((drawn - middle) @ normal).abs() < tolerance
        if faced is not None:
            normal = normal if bool(faced[best_row] @ normal > 0) else -normal
            is_in &= faced @ normal > FACING
    beyond = (drawn - middle) @ normal
    above, below = (beyond > 2 * tolerance).sum(), (beyond < -2 * tolerance).sum()
    is_turned = bool((normal @ up) < 0) if up is not None else faced is None and bool(below > above)
    if is_turned:
        normal, above, below = -normal, below, above
    one_sided = float(above) / max(float(above + below), 1.0)
    spread = float(spreads[1].clamp(min=0).sqrt()) / extent
    is_unclear = up is None and one_sided < _MIN_ABOVE
    if is_in.double().mean() < _MIN_SHARE or is_unclear or spread < _MIN_SPREAD or not bool(above):
        return None
    heights = (drawn - middle) @ normal
    is_above = heights > 2 * tolerance
    if up is None and float(torch.quantile(heights[is_above], 0.95)) < _MIN_HEIGHT * extent:
        return None
    if not _is_open(drawn[is_in], drawn[is_above], normal, eyes):
        return None
    return Floor(normal, float(middle @ normal), 1.5 * tolerance, float(is_in.double().mean()))


def _is_open(floor: Tensor, above: Tensor, normal: Tensor, eyes: Tensor | None) -> bool:
    """Whether much of a floor has nothing above it, or most of the cameras stand on it."""
    axes = torch.linalg.svd(normal[None])[2][1:].T  # two directions along the floor
    flat, higher = floor @ axes, above @ axes
    low, high = torch.quantile(flat, torch.tensor([0.02, 0.98], dtype=torch.float64), dim=0)
    if eyes is not None and len(eyes):
        feet = eyes.double() @ axes
        if float(((feet > low) & (feet < high)).all(-1).double().mean()) > 0.5:
            return True
    side = float((high - low).max()) / _SQUARES

    def squares(places: Tensor) -> Tensor:
        cells = ((places - low) / side).floor().long()
        cells = cells[((cells >= 0) & (cells < _SQUARES)).all(-1)]
        return torch.zeros(_SQUARES, _SQUARES, dtype=torch.bool).index_put_((cells[:, 0], cells[:, 1]), torch.tensor(True))

    bare, covered = squares(flat), squares(higher)
    return float((bare & ~covered).sum()) > _MIN_OPEN * float(bare.sum())


def stand_upright(
    points: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    config: SimulateConfig,
    cameras: Cameras | None = None,
    default_up: Vector = (0.0, 0.0, 1.0),
    *,
    facing: Float[Tensor, "n 3"] | None = None,
    up_from: UpFrom = "caller",
) -> tuple[Float[Tensor, " 3"], Floor | None]:
    """The up direction and the floor by the options; logs one line about the choice.

    The direction is that of the options, else of the cameras (mean up direction of the images), else of a format that defines
    one; a floor within 20 degrees of being level corrects it. Otherwise it is the normal of a floor perpendicular to
    `default_up`, or of one with 1.5 times its points in any other orientation, else `default_up` itself.

    Args:
        points: Points of the scene.
        weights: Weight of each, at least 0.
        config: Options.
        cameras: Cameras of the photos.
        default_up: Up direction if nothing else determines it.
        facing: Surface normals at the points, if known.
        up_from: Source of `default_up`; an unconfirmed guess is logged as a warning.
    """
    given, source = None, ""
    fallback = unit(torch.tensor(default_up, dtype=torch.float64))
    if config.up is not None:
        given, source = unit(torch.tensor(config.up, dtype=torch.float64)), "as given"
    elif cameras is not None and len(cameras):
        given, source = unit(paths.mean_up(cameras.camtoworlds.detach().cpu().double())), "of the cameras"
    elif up_from == "format":
        given, source = fallback, "by the format"
    eyes = None if cameras is None else cameras.camtoworlds.detach().cpu()[:, :3, 3]
    floor = None
    if config.floor == "auto" or given is None:
        floor = find_floor(points, weights, fallback if given is None else given, eyes, facing=facing)
    if given is None:
        other = find_floor(points, weights, None, eyes, facing=facing)
        if other is not None and (floor is None or other.share > _MUCH_LARGER * floor.share):
            floor = other
    if config.up is None and floor is not None:
        up, source = floor.normal, "along the normal of the detected floor"
    elif given is not None:
        up = given
    else:
        up, source = fallback, "assumed"
    words = {
        "none": "no floor",
        "below": "floor below the moving part",
        "auto": "floor below the moving part" if floor is None else "detected floor",
    }
    shown = " ".join(f"{value:.3g}" for value in (up + 0.0).tolist())
    if source == "assumed":
        text = "up axis assumed: %s (not defined by the file, cameras or a floor; set it with --up X Y Z); %s (--floor)"
        logger.log(logging.INFO if up_from == "caller" else logging.WARNING, text, shown, words[config.floor])
    else:
        logger.info("up axis: %s, %s (change it with --up X Y Z); %s (--floor)", shown, source, words[config.floor])
    return up, floor if config.floor == "auto" else None
