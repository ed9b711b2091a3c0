"""Which way is up in a scene, and where its floor is."""

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
"""Where an upward direction comes from: a format that defines it, what most files of a format have, or whoever calls."""

_DRAWN = 4000  # points that vote
_PLANES = 1500  # that are tried
_TOLERANCE = 0.01  # of a floor, in the scene's longest side
_LEAST_SHARE = 0.18  # of the points that a floor has
_LEAST_SPREAD = 0.15  # its standard deviation across, in the scene's longest side
_LEAST_ABOVE = 0.65  # of the other points lie on one side of it, where that has to tell which way is up
_SQUARES, _LEAST_OPEN = 16, 0.25  # a floor is looked at in squares; this share of them has nothing above
_TILT = math.cos(math.radians(20))  # of a floor against the known upward direction
_LEAST_HEIGHT = 0.1  # of what a floor carries, in the scene's longest side, where the floor alone tells which way is up
_MUCH_LARGER = 1.5  # times the points of a floor across the expected direction has one that overrules it
_LEAST_STANDING = 3  # points; fewer are noise
_BESIDE, _AROUND = 4, 3  # feet are below what is so many thicknesses of the floor high, or so many beside it
_ROUGH = 4.5  # median deviations from the median, three standard deviations of a normal distribution
_LEAST_BARE = 50  # points of a floor where nothing stands, which tell how rough it is
FACING = 0.7
"""Cosine between normals of faces of a floor and its own, at least."""


@dataclass(frozen=True, eq=False)
class Floor:
    """A plane that carries the rest of a scene."""

    normal: Float[Tensor, " 3"]
    """Unit, upwards."""
    height: float
    """Along the normal, in the scene's units."""
    thickness: float
    """How far the points of the floor are from the plane, in the scene's units."""
    share: float = 1.0
    """Of the points that are of it."""

    def contains(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which points are of the floor, or below it."""
        return points.double() @ self.normal - self.height < self.thickness


@dataclass(frozen=True, eq=False)
class FloorPoints:
    """Which of a scene's points are of its floor."""

    lying: Bool[Tensor, " n"]
    """Of the floor or below it."""
    hidden: Bool[Tensor, " n"]
    """Within the floor, but of what stands on it: its underside, that no photograph shows."""
    rough: float
    """How far the floor rises above its plane, in the scene's units."""


def floor_points(
    floor: Floor, points: Float[Tensor, "n 3"], solid: Bool[Tensor, " n"], colors: Float[Tensor, "n 3"] | None = None
) -> FloorPoints:
    """The points of a floor, without the feet of what stands on it.

    The thickness of a floor is that of the scene's noise at most. Where nothing stands it is measured how rough the floor is
    and which colours it has, lit and in shadow. Below or beside something that stands there, what is higher or of another
    colour belongs to that.

    Args:
        floor: Of the scene.
        points: Centres.
        solid: Those that are opaque enough to count.
        colors: Of the points, linear or not.
    """
    low, heights = floor.contains(points), points.double() @ floor.normal - floor.height
    axes = torch.linalg.svd(floor.normal[None])[2][1:].T
    cells = (points.double() @ axes / floor.thickness).floor().clamp(-(2**30), 2**30).long()
    keys = (cells[:, 0] << 32) + cells[:, 1]
    standing, counts = torch.unique(keys[solid & ~low & (heights < _BESIDE * floor.thickness)], return_counts=True)
    rows, beside = low.nonzero()[:, 0], torch.zeros_like(low)
    if len(standing):
        number = torch.zeros(len(rows), dtype=torch.int64)  # of what stands around each
        for i, j in torch.cartesian_prod(*[torch.arange(-_AROUND, _AROUND + 1)] * 2).tolist():
            wanted = keys[rows] + (i << 32) + j
            places = torch.searchsorted(standing, wanted).clamp(max=len(standing) - 1)
            number += torch.where(standing[places] == wanted, counts[places], 0)
        beside[rows] = number >= _LEAST_STANDING
    near = heights.abs() < floor.thickness
    bare = low & solid & ~beside & near
    none = torch.zeros_like(low)
    if int(bare.sum()) < _LEAST_BARE:
        return FloorPoints(low, none, floor.thickness)
    rough = _usual(heights[bare])
    feet = low & beside & (heights > rough)
    if colors is None:
        return FloorPoints(low & ~feet, none, rough)
    base = colors[bare].double().median(0).values
    share = (colors.double() @ base / base.square().sum().clamp(min=1e-12)).clamp(min=0)  # of the light of the floor
    off = (colors.double() - share[:, None] * base).norm(dim=-1)
    hidden = low & beside & near & ~feet & (off > _usual(off[bare]))
    return FloorPoints(low & ~feet & ~hidden, hidden, rough)


def _usual(values: Float[Tensor, " n"]) -> float:
    """What few of the values are above, whatever else is among them."""
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
    """The plane that many of the points lie in, with most others on one side of it; None when there is none.

    A good part of it must have nothing above, or it is the bottom of a thing; but cameras may stand there, in a room.
    Random sampling consensus (Fischler and Bolles 1981) among points drawn by their weights.

    Args:
        points: Of the scene.
        weights: How much each counts, at least 0.
        up: The floor is within 20 degrees of being level. None: any plane, but then what stands on it must be as high as a
            tenth of the scene: one with less on it is the large side of a flat thing.
        eyes: Where photographs were taken from.
        seed: Of the drawing.
        facing: Normals of the surface at the points, where they are known: a floor faces upwards.
    """
    if len(points) < 50:
        return None
    generator = torch.Generator().manual_seed(seed)
    # At most 2^24 categories can be drawn from.
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
    is_plane = normals.any(-1)  # the same point may be drawn twice
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
    if up is not None and eyes is not None and len(eyes) and len(normals):  # a ceiling is above them
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
    if not bool(is_in.any()):  # no face of the plane faces as it does
        return None
    best_row = int(is_in.nonzero()[0, 0])
    middle, normal, spreads = drawn[best_row], normals[best], drawn[0]
    for _ in range(3):  # the least spread direction of what is in, and what is in then
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
    is_unclear = up is None and one_sided < _LEAST_ABOVE
    if is_in.double().mean() < _LEAST_SHARE or is_unclear or spread < _LEAST_SPREAD or not bool(above):
        return None
    heights = (drawn - middle) @ normal
    is_above = heights > 2 * tolerance
    if up is None and float(torch.quantile(heights[is_above], 0.95)) < _LEAST_HEIGHT * extent:
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
    return float((bare & ~covered).sum()) > _LEAST_OPEN * float(bare.sum())


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
    """The upward direction and the floor, as the options say; what was chosen is logged in one line.

    The direction is that of the options, else of the cameras (the mean of what is up in their images), else of a format that
    defines it; a floor within 20 degrees of being level straightens it. Where none of these is there, it is that of a floor
    across `default_up`, or of one with 1.5 times its points across any other direction, else `default_up` itself.

    Args:
        points: Of the scene.
        weights: How much each counts, at least 0.
        config: Options.
        cameras: Of the photographs.
        default_up: Upward direction where nothing else tells.
        facing: Normals of the surface at the points, where they are known.
        up_from: Where `default_up` comes from; a guess that nothing confirms is a warning.
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
