"""Gaussians as points for engines that only know points: three corners of a 2D Gaussian, four of an ellipsoid, and back.

GaMeS (arXiv 2402.01459) and GASP (arXiv 2409.05819): v1 = mean, v_k = v1 + s_k r_k; the moved corners give the covariance
E E^T with E = [v2 - v1, v3 - v1]. Differences: E keeps all of its shear (the published Gram-Schmidt is an option), edges are
differences in float64, and short ones are lengthened for float32 engines so that they can be resolved.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry.edge_factors import (
    clamp_factors,
    factors_svd,
    factors_to_vertices,
    flatten_gaussians,
    gaussians_to_factors,
    vertices_to_factors,
)
from vision3d.geometry.neighbors import knn
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.geometry.triangles import gaussians_to_edges
from vision3d.geometry.vectors import orthogonal_part, unit
from vision3d.scene import FrameSequence, GaussianScene, Selection
from vision3d.stages.simulate.engines.points import PointEngine, Points, moved
from vision3d.stages.simulate.output.frame import Frame

logger = logging.getLogger("vision3d.physics")


@dataclass(frozen=True, eq=False)
class Corners:
    """Gaussians as corners of triangles (k = 2) or tetrahedra (k = 3).

    Under an affine map A of all points, factors and means become exactly A E and A m, for any stretch.
    """

    means: Float[Tensor, "n 3"]
    """[m]."""
    factors: Float[Tensor, "n 3 k"]
    """Rest edges, whose products are covariances [m]."""
    stretch: Float[Tensor, "n k"]
    """Factor by which the edges are lengthened for the engine, at least 1."""

    @classmethod
    def of(cls, means: Float[Tensor, "n 3"], factors: Float[Tensor, "n 3 k"], least_edge: float = 0.0) -> "Corners":
        """Corners with at least this edge length [m], in float64."""
        factors = factors.double()
        lengths = torch.linalg.vector_norm(factors, dim=1)
        stretch = (least_edge / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)).clamp(min=1)
        return cls(means.double(), factors, torch.where(lengths > 0, stretch, 1))

    def points(self, masses: Float[Tensor, " n"] | None = None) -> Points:
        """Input of an engine; the corners of a Gaussian share its mass (1 when None)."""
        vertices = factors_to_vertices(self.means, self.factors * self.stretch[:, None])
        count, corners = vertices.shape[:2]
        masses = self.means.new_ones(count) if masses is None else masses.double()
        groups = torch.arange(count).repeat_interleave(corners)
        pairs = torch.combinations(torch.arange(corners), 2)
        edges = (corners * torch.arange(count)[:, None, None] + pairs).flatten(0, 1)
        return Points(vertices.flatten(0, 1), masses.repeat_interleave(corners) / corners, groups, edges)

    def read(self, x: Float[Tensor, "m 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 k"]]:
        """Current means and factors."""
        means, factors = vertices_to_factors(x.double().unflatten(0, (len(self.means), -1)))
        return means, factors / self.stretch[:, None]


def gram_schmidt_edges(edges: Float[Tensor, "n 3 2"]) -> Float[Tensor, "n 3 2"]:
    """Edges after the published conversion: the first one unchanged, of the second the orthogonal part. Loses shear."""
    a, b = edges.unbind(-1)
    across = orthogonal_part(b, unit(a))
    return torch.stack([a, (b * across).sum(-1, keepdim=True) * across], -1)


def simulate_points(
    scene: GaussianScene,
    engine: PointEngine,
    frames: int = 50,
    fps: float = 24.0,
    *,
    select: Selection | None = None,
    center: Float[Tensor, " 3"] | None = None,
    scale: float = 1.0,
    min_opacity: float = 0.02,
    max_stretch: float | None = 1.5,
    flatten: bool = False,
    method: Literal["exact", "gram_schmidt"] = "exact",
    edge_share: float | None = None,
) -> Iterator[Frame]:
    """Frames of a scene whose Gaussians are points of an engine, the rest state first; each is computed on demand.

    Args:
        scene: 3dgs becomes tetrahedra of four points, 2dgs and flat ones triangles of three.
        engine: `CageEngine`, `WarpEngine`, `MpmPoints`, or your own.
        frames: At least 1.
        fps: Frames per second of simulated time.
        select: Moving Gaussians; all when None.
        center: Origin of the engine's coordinates in the scene; 0 when None.
        scale: Meters per unit of the scene.
        min_opacity: Fainter Gaussians do not move.
        max_stretch: Maximum ratio to rest lengths of rendered Gaussians; unlimited when None.
        flatten: Use three points for ellipsoids as well, without their shortest axis; the loss is logged.
        method: `gram_schmidt`: the published conversion back from triangles.
        edge_share: Minimum edge length given to the engine, as a fraction of the distance between neighboring Gaussians;
            the engine's own when None. 0: unchanged edges, as published.

    Returns:
        Frames with the channels `means`, `covar_factors` or `edges`, and `turns` (rotations) if colors are view-dependent.

    Raises:
        ConfigError: An option has an invalid value.
        InputError: Nothing is selected or opaque enough, or the engine returns non-finite positions.
        ShapeError: The engine returns a different number of points.
    """
    _check(frames, fps, scale, max_stretch, method, edge_share)
    if not isinstance(engine, PointEngine):
        raise ConfigError("engine", f"{type(engine).__name__} has no methods begin(points) and advance(duration, time)")
    rows, factors = _rows(scene, select, min_opacity), _rest_factors(scene, flatten)
    if method == "gram_schmidt":
        if factors.shape[-1] != 2:
            raise ConfigError("method", "gram_schmidt is for triangles; give flatten=True")
        lengths = torch.linalg.vector_norm(factors, dim=1)
        factors = torch.where((lengths[:, :1] < lengths[:, 1:])[..., None], factors.flip(-1), factors)  # the longer one first
    origin = torch.zeros(3, dtype=torch.float64) if center is None else center.detach().cpu().double()
    means = (scene.means.detach().cpu().double()[rows] - origin) * scale
    share = float(getattr(engine, "edge_share", 0.0)) if edge_share is None else edge_share
    corners = Corners.of(means, factors[rows] * scale, share * _distance(means))
    points = corners.points()
    engine.begin(points)
    show = _Shown(scene, rows, factors, origin, scale, max_stretch, method)
    return _frames(engine, points, corners, show, frames, fps)


def to_sequence(scene: GaussianScene, frames: Iterable[Frame]) -> FrameSequence:
    """The frames in memory, as a sequence of the scene."""
    kept = list(frames)
    times = torch.tensor([frame.time for frame in kept], dtype=torch.float64)
    return FrameSequence(
        scene, times, {name: torch.stack([frame.channels[name] for frame in kept]) for name in kept[0].channels}
    )


@dataclass(frozen=True, eq=False)
class _Shown:
    """Converts means and factors in the engine's meters to channels of the entire scene."""

    scene: GaussianScene
    rows: Int64[Tensor, " r"]
    factors: Float[Tensor, "n 3 k"]
    origin: Float[Tensor, " 3"]
    scale: float
    max_stretch: float | None
    method: str

    def channels(self, means: Tensor, factors: Tensor) -> dict[str, Tensor]:
        all_means, all_factors = self.scene.means.detach().cpu().double(), self.factors.clone()
        all_means[self.rows] = means / self.scale + self.origin
        factors = factors / self.scale
        deformed = factors
        if self.method == "gram_schmidt":
            factors = gram_schmidt_edges(factors)
        if self.max_stretch is not None:
            factors = clamp_factors(factors, factors_svd(self.factors[self.rows])[1], self.max_stretch)
        all_factors[self.rows] = factors
        name = "covar_factors" if factors.shape[-1] == 3 or self.scene.mode == "3dgs" else "edges"
        if name == "covar_factors" and factors.shape[-1] == 2:  # a flattened ellipsoid
            all_factors = torch.nn.functional.pad(all_factors, (0, 1))
        result = {"means": all_means.to(self.scene.means), name: all_factors.to(self.scene.means)}
        if self.scene.sh_degree > 0:
            quats = torch.zeros(len(all_means), 4, dtype=torch.float64)
            quats[:, 0] = 1
            quats[self.rows] = rotmat_to_quat(nearest_rotation(_gradients(self.factors[self.rows], deformed)))
            result["turns"] = quats.to(self.scene.means)
        return result


def _gradients(rest: Float[Tensor, "n 3 k"], factors: Float[Tensor, "n 3 k"]) -> Float[Tensor, "n 3 3"]:
    """Deformation gradients from rest edges, which are orthogonal, to current ones; a triangle's normal rotates along."""
    inverse = rest / rest.square().sum(1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)
    found = factors @ inverse.mT
    if rest.shape[-1] == 2:
        before, now = (unit(torch.linalg.cross(edges[..., 0], edges[..., 1])) for edges in (rest, factors))
        found = found + now[:, :, None] * before[:, None]
    return found


def _frames(engine: PointEngine, points: Points, corners: Corners, show: _Shown, frames: int, fps: float) -> Iterator[Frame]:
    x = points.x
    for index in range(frames):
        time = index / fps
        if index:
            before = (index - 1) / fps
            x = moved(engine, points, time - before, before)
        move = float(torch.linalg.vector_norm(x - points.x, dim=-1).max())
        height = {"points": float(len(points)), "largest_move_m": move}
        yield Frame(index, time, show.channels(*corners.read(x)), height)


def _check(frames: int, fps: float, scale: float, max_stretch: float | None, method: str, edge_share: float | None) -> None:
    for name, is_right, value, want in (
        ("frames", frames >= 1, frames, "at least 1"),
        ("fps", fps > 0, fps, "a number > 0"),
        ("scale", scale > 0, scale, "a number > 0"),
        ("max_stretch", max_stretch is None or max_stretch >= 1, max_stretch, "at least 1, or None"),
        ("edge_share", edge_share is None or edge_share >= 0, edge_share, "at least 0, or None"),
        ("method", method in ("exact", "gram_schmidt"), method, "exact or gram_schmidt"),
    ):
        if not is_right:
            raise ConfigError(name, f"got {value!r}, want {want}")


def _rows(scene: GaussianScene, select: Selection | None, min_opacity: float) -> Tensor:
    scene.validate()
    chosen = torch.ones(len(scene), dtype=torch.bool) if select is None else select.mask(scene.means).cpu()
    if not bool(chosen.any()):
        raise InputError(f"selection: holds none of {len(scene)} Gaussians, want at least one")
    opacities = scene.opacities.detach().cpu()
    rows = (chosen & (opacities >= min_opacity)).nonzero()[:, 0]
    if not len(rows):
        raise InputError(
            f"scene: no opacity of {int(chosen.sum())} Gaussians is above min_opacity = {min_opacity:g}, "
            f"the highest is {float(opacities[chosen].max()):.3g}; lower min_opacity"
        )
    return rows


def _rest_factors(scene: GaussianScene, flatten: bool) -> Tensor:
    quats, scales = scene.quats.detach().cpu().double(), scene.scales.detach().cpu().double()
    if scene.mode != "3dgs":
        return gaussians_to_edges(quats, scales, flat_axis=2)
    if not flatten:
        return gaussians_to_factors(quats, scales)
    edges, lost = flatten_gaussians(quats, scales)
    logger.info(
        "three points per Gaussian lose %.2g of the trace of covariances, at most %.2g", float(lost.mean()), float(lost.max())
    )
    return edges


def _distance(means: Tensor) -> float:
    """Median distance of a Gaussian to its nearest neighbor [m]."""
    return float(knn(means, k=1)[0].median()) if len(means) > 1 else 0.0
