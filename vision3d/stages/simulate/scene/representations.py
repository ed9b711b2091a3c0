"""Conversion of a scene to particles, and of moved particles to a scene.

- `fdrive`: one particle per Gaussian with its deformation gradient F; the covariance becomes F Sigma F^T.
- `points3`: three corners of a flat Gaussian, four of an ellipsoid, each a separate particle; their edges give the covariance.
- `mesh`: the vertices of the mesh under the Gaussians are the particles; the Gaussians follow their faces.
"""

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry.edge_factors import clamp_factors, factors_svd, flatten_gaussians, gaussians_to_factors
from vision3d.geometry.mesh import weld_vertices
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import nearest_rotation
from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.geometry.triangles import edges_to_gaussians, gaussians_to_edges
from vision3d.scene import GaussianScene, Mesh, MeshGaussians, Selection
from vision3d.stages.simulate.config import SimulateConfig

_WELD = 1e-6  # relative to the longest side

Movable = GaussianScene | MeshGaussians | Mesh


class Representation(ABC):
    """A scene as movable points.

    Args:
        scene: The scene.
        config: Options.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    """Noun for its points, for messages."""

    def __init__(self, scene: Movable, config: SimulateConfig) -> None:
        self.base = scene
        """Base object of the frames."""
        self.points = torch.zeros(0, 3, dtype=torch.float64)
        """Rest positions, in the scene's units, float64 (n, 3)."""
        self.opacities = torch.zeros(0)
        """Opacities of the points (n,)."""
        self.colors: Tensor | None = None
        """View-independent colors of the points (n, 3), not clamped, if there are any."""
        self.labels: Tensor | None = None
        """Labels of the points (n,), if there are any."""
        self.longest: float | None = None
        """Longest side of the moving part, in the scene's units."""

    def of_length(self, longest: float) -> Self:
        """With the longest side of the moving part, in the scene's units, which `max_length` refers to."""
        other = copy.copy(self)
        other.longest = longest
        return other

    def mask(self, selection: Selection) -> Bool[Tensor, " n"]:
        """Mask of the points in a selection."""
        return selection.mask(self.points.float())

    @abstractmethod
    def channels(self, rows: Int64[Tensor, " r"], places: Float[Tensor, "r 3"], F: Float[Tensor, "r 3 3"]) -> dict[str, Tensor]:
        """Channels of a frame in which `rows` are at `places` (scene's units), deformed by `F`, and others at rest."""


class FDrive(Representation):
    """One particle per Gaussian."""

    name, noun = "fdrive", "Gaussians"

    def __init__(self, scene: Movable, config: SimulateConfig) -> None:
        if not isinstance(scene, GaussianScene):
            raise ConfigError("representation", f"{self.name} moves Gaussians, got {scene!r}; want mesh")
        scene, self.lost = _flattened(scene, config)
        super().__init__(scene, config)
        self.scene = scene
        self.points = scene.means.detach().cpu().double()
        self.opacities = scene.opacities.detach().cpu()
        self.colors = sh0_to_rgb(scene.sh[:, 0].detach().cpu())
        self.labels = None if scene.labels is None else scene.labels.cpu()
        quats, scales = scene.quats.detach().cpu().double(), scene.scales.detach().cpu().double()
        is_full = scene.mode == "3dgs"
        self.channel = "covar_factors" if is_full else "edges"
        self.rest = gaussians_to_factors(quats, scales) if is_full else gaussians_to_edges(quats, scales, flat_axis=2)
        self.lengths = scales.sort(-1, descending=True).values if is_full else factors_svd(self.rest)[1]
        self.stretch, self.max_length = config.max_stretch, config.max_length
        self.turns = config.turn_colors and scene.sh_degree > 0

    def channels(self, rows: Tensor, places: Tensor, F: Tensor) -> dict[str, Tensor]:
        means, factors = self.points.clone(), self.rest.clone()
        F = F.double()
        means[rows] = places.double()
        factors[rows] = self._shown(F @ self.rest[rows], F, self.lengths[rows])
        result = {"means": means.float(), self.channel: factors.float()}
        if self.turns:
            quats = torch.zeros(len(means), 4)
            quats[:, 0] = 1
            quats[rows] = rotmat_to_quat(nearest_rotation(F)).float()
            result["turns"] = quats
        return result

    def channels_of(self, rows: Tensor, places: Tensor, F: Tensor, own: Tensor) -> dict[str, Tensor]:
        """Like `channels`, with the factors `own` of the first rows instead of F E."""
        result = self.channels(rows, places, F)
        count = len(own)
        limit = None if self.max_length is None or self.longest is None else self.max_length * self.longest
        result[self.channel][rows[:count]] = clamp_factors(own, self.lengths[rows[:count]], self.stretch, limit).float()
        return result

    def _shown(self, factors: Tensor, F: Tensor, lengths: Tensor) -> Tensor:
        """Clamped factors; those that are certainly within the bounds are not decomposed."""
        limit = None if self.max_length is None or self.longest is None else self.max_length * self.longest
        # The squares of the singular values of F are within |F^T F - 1| of 1, and so are those of its action on any factor.
        off = torch.linalg.matrix_norm(F.mT @ F - torch.eye(3, dtype=F.dtype))
        could = (1 + off > self.stretch**2) | (1 - off < 1 / self.stretch**2)
        if limit is not None:
            could |= lengths[:, 0] * (1 + off).sqrt() > limit
        which = could.nonzero()[:, 0]
        if len(which):
            factors = factors.index_copy(0, which, clamped(factors[which], lengths[which], self.stretch, limit))
        return factors


class Points3(FDrive):
    """The corners of each Gaussian are independent particles, as published (GASP)."""

    name = "points3"


class MeshVertices(Representation):
    """The vertices of a mesh, with the Gaussians on it."""

    name, noun = "mesh", "vertices"

    def __init__(self, scene: Movable, config: SimulateConfig) -> None:
        if isinstance(scene, GaussianScene):
            raise ConfigError("representation", "mesh moves meshes and Gaussians on meshes (.safetensors); want fdrive")
        super().__init__(scene, config)
        mesh = scene.mesh if isinstance(scene, MeshGaussians) else scene
        if not mesh.num_faces:
            raise InputError(f"{mesh!r}: has no faces; want a mesh")
        self.rest = mesh.vertices.detach().cpu().double()
        # Coincident vertices, as at seams of textures and normals, are one particle.
        extent = float((self.rest.amax(0) - self.rest.amin(0)).max())
        self.points, self.triangles, self.place = weld_vertices(self.rest, mesh.faces.cpu(), _WELD * extent)
        self.opacities = torch.ones(len(self.points))

    def channels(self, rows: Tensor, places: Tensor, F: Tensor) -> dict[str, Tensor]:
        moves = torch.zeros_like(self.points)
        moves[rows] = places.double() - self.points[rows]
        return {"vertices": (self.rest + moves[self.place]).float()}

    def mask(self, selection: Selection) -> Bool[Tensor, " n"]:
        chosen = selection.mask(self.rest.float())
        return torch.zeros(len(self.points), dtype=torch.bool).index_put_((self.place[chosen],), torch.tensor(True))


REPRESENTATIONS: dict[str, type[Representation]] = {"fdrive": FDrive, "points3": Points3, "mesh": MeshVertices}


def represent(scene: Movable, config: SimulateConfig) -> Representation:
    """The representation of the options; auto: `fdrive` for Gaussians, `mesh` for anything with a mesh.

    Raises:
        ConfigError: The name is unknown, or it does not match the scene.
    """
    name = config.representation
    if name == "auto":
        name = "fdrive" if isinstance(scene, GaussianScene) else "mesh"
    if name not in REPRESENTATIONS:
        raise ConfigError("representation", f"got {name!r}, want one of auto, {', '.join(REPRESENTATIONS)}")
    if name == "points3" and config.grouping in ("hierarchy", "tracers"):
        raise ConfigError("grouping", f"{config.grouping} go without points3, whose particles are corners; want followers")
    return REPRESENTATIONS[name](scene, config)


def unused_vertices(representation: Representation) -> Bool[Tensor, " n"]:
    """Points of a mesh that no face uses."""
    unused = torch.zeros(len(representation.points), dtype=torch.bool)
    if isinstance(representation, MeshVertices):
        unused[:] = True
        unused[representation.triangles.flatten()] = False
    return unused


def clamped(
    factors: Float[Tensor, "n 3 k"], lengths: Float[Tensor, "n k"], stretch: float, limit: float | None = None
) -> Float[Tensor, "n 3 k"]:
    """Like `clamp_factors`, if only covariances are needed, in 0.4 of the time: from the eigenvectors of E^T E."""
    if factors.shape[-1] == 2:
        return clamp_factors(factors, lengths, stretch, limit)
    turns = torch.linalg.eigh(factors.mT @ factors)[1].flip(-1)
    along = factors @ turns
    own = torch.linalg.vector_norm(along, dim=1)  # roots of eigenvalues would have only half of the digits
    wanted = torch.minimum(torch.maximum(own, lengths / stretch), lengths * stretch).clamp(
        max=math.inf if limit is None else limit
    )
    result = (along * (wanted / own.clamp(min=torch.finfo(own.dtype).tiny))[:, None]) @ turns.mT
    # If an axis has no length, or less than rounding errors, only the decomposition itself gives its direction.
    thin = (own <= 1e-7 * own.amax(1, keepdim=True)).any(1).nonzero()[:, 0]
    if len(thin):
        result = result.index_copy(0, thin, clamp_factors(factors[thin], lengths[thin], stretch, limit))
    return result


def _flattened(scene: GaussianScene, config: SimulateConfig) -> tuple[GaussianScene, float]:
    """The scene without the shortest axis of each Gaussian, if requested, and the mean fraction of the trace that is lost."""
    if not config.flatten or scene.mode != "3dgs":
        return scene, 0.0
    edges, lost = flatten_gaussians(scene.quats.detach(), scene.scales.detach())
    quats, scales = edges_to_gaussians(edges)
    return replace(scene, quats=quats, log_scales=scales.log(), mode="flat"), float(lost.mean())
