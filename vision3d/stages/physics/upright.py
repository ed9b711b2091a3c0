"""Which way is up in a scene, and where its floor is."""

import logging
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.geometry import paths
from vision3d.geometry.vectors import unit
from vision3d.scene import Cameras
from vision3d.stages.physics.config import SimulateConfig, Vector

logger = logging.getLogger("vision3d.physics")

_DRAWN = 4000  # points that vote
_PLANES = 1500  # that are tried
_TOLERANCE = 0.01  # of a floor, in the scene's longest side
_LEAST_SHARE = 0.18  # of the points that a floor has
_LEAST_SPREAD = 0.15  # its standard deviation across, in the scene's longest side
_LEAST_ABOVE = 0.65  # of the other points lie on one side of it, where that has to tell which way is up
_SQUARES, _LEAST_OPEN = 16, 0.25  # a floor is looked at in squares; this share of them has nothing above
_TILT = math.cos(math.radians(20))  # of a floor against the known upward direction


@dataclass(frozen=True, eq=False)
class Floor:
    """A plane that carries the rest of a scene."""

    normal: Float[Tensor, " 3"]
    """Unit, upwards."""
    height: float
    """Along the normal, in the scene's units."""
    thickness: float
    """How far the points of the floor are from the plane, in the scene's units."""

    def contains(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Which points are of the floor, or below it."""
        return points.double() @ self.normal - self.height < self.thickness


def find_floor(
    points: Float[Tensor, "n 3"],
    weights: Float[Tensor, " n"],
    up: Float[Tensor, " 3"] | None,
    eyes: Float[Tensor, "c 3"] | None = None,
    seed: int = 0,
) -> Floor | None:
    """The plane that many of the points lie in, with most others on one side of it; None when there is none.

    A good part of it must have nothing above, or it is the bottom of a thing; but cameras may stand there, in a room.
    Random sampling consensus (Fischler and Bolles 1981) among points drawn by their weights.

    Args:
        points: Of the scene.
        weights: How much each counts, at least 0.
        up: The floor is within 20 degrees of being level; any plane when None.
        eyes: Where photographs were taken from.
        seed: Of the drawing.
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
    drawn = points[rows].double()
    low, high = torch.quantile(drawn, torch.tensor([0.01, 0.99], dtype=torch.float64), dim=0)
    extent = float((high - low).max())
    if extent == 0:
        return None
    corners = drawn[torch.randint(len(drawn), (_PLANES, 3), generator=generator)]
    normals = unit(torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    is_plane = normals.any(-1)  # the same point may be drawn twice
    normals, corners = normals[is_plane], corners[is_plane]
    if up is not None:
        normals = torch.where((normals @ up)[:, None] < 0, -normals, normals)
        normals = normals[is_level := normals @ up > _TILT]
        corners = corners[is_level]
        if eyes is not None and len(eyes) and len(normals):  # a ceiling is above them
            is_below = (eyes.double() @ normals.T).median(0).values > (corners[:, 0] * normals).sum(-1)
            normals, corners = normals[is_below], corners[is_below]
    if not len(normals):
        return None
    tolerance = _TOLERANCE * extent
    heights = drawn @ normals.T - (corners[:, 0] * normals).sum(-1)
    best = int((heights.abs() < tolerance).sum(0).argmax())
    is_in = heights[:, best].abs() < tolerance
    middle, normal, spreads = drawn[best], normals[best], drawn[0]
    for _ in range(3):  # the least spread direction of what is in, and what is in then
        middle = drawn[is_in].mean(0)
        spreads, axes = torch.linalg.eigh((drawn[is_in] - middle).mT @ (drawn[is_in] - middle) / int(is_in.sum()))
        normal = axes[:, 0]
        is_in = ((drawn - middle) @ normal).abs() < tolerance
    beyond = (drawn - middle) @ normal
    above, below = (beyond > 2 * tolerance).sum(), (beyond < -2 * tolerance).sum()
    is_turned = bool((normal @ up) < 0) if up is not None else bool(below > above)
    if is_turned:
        normal, above, below = -normal, below, above
    one_sided = float(above) / max(float(above + below), 1.0)
    spread = float(spreads[1].clamp(min=0).sqrt()) / extent
    is_unclear = up is None and one_sided < _LEAST_ABOVE
    if is_in.double().mean() < _LEAST_SHARE or is_unclear or spread < _LEAST_SPREAD or not bool(above):
        return None
    is_above = (drawn - middle) @ normal > 2 * tolerance
    if not _is_open(drawn[is_in], drawn[is_above], normal, eyes):
        return None
    return Floor(normal, float(middle @ normal), 1.5 * tolerance)


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
) -> tuple[Float[Tensor, " 3"], Floor | None]:
    """The upward direction and the floor, as the options say; what was chosen is logged in one line.

    The direction is that of the options, else of the cameras (the mean of what is up in their pictures), else of the floor that
    is seen, else `default_up`. A floor that is seen straightens that of the cameras.
    """
    given = None if config.up is None else unit(torch.tensor(config.up, dtype=torch.float64))
    if given is None and cameras is not None and len(cameras):
        given, source = unit(paths.mean_up(cameras.camtoworlds.detach().cpu().double())), "of the cameras"
    else:
        source = "as given"
    fallback = unit(torch.tensor(default_up, dtype=torch.float64))
    eyes = None if cameras is None else cameras.camtoworlds.detach().cpu()[:, :3, 3]
    floor = find_floor(points, weights, given, eyes) if config.floor == "auto" or given is None else None
    if given is None and floor is None:
        floor = find_floor(points, weights, fallback, eyes)
    if config.up is None and floor is not None:
        up, source = floor.normal, "across the floor that is seen"
    elif given is not None:
        up = given
    else:
        up, source = fallback, "by the format, as neither cameras nor a floor tell"
    words = {
        "none": "no floor",
        "below": "floor below what moves",
        "auto": "floor below what moves" if floor is None else "floor that is seen",
    }
    shown = " ".join(f"{value:.3g}" for value in (up + 0.0).tolist())
    logger.info("up is %s, %s (--up X Y Z changes it); %s (--floor)", shown, source, words[config.floor])
    return up, floor if config.floor == "auto" else None
