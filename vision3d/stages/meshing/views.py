"""What the cameras see of a scene: colours, opacity, depth and normals, rendered when they are asked for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.errors import InputError
from vision3d.geometry.cameras import pixel_grid, unproject
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.se3 import transform_points
from vision3d.render import depth_to_normals
from vision3d.render.splats import rasterize_2dgs
from vision3d.render.views import render_views
from vision3d.scene import Cameras, GaussianScene

_FAINT = 0.1
"""Rays that meet less opacity than this pass through free space."""


class Maps(NamedTuple):
    """One view, on the processor."""

    color: Float[Tensor, "h w 3"]
    """Of what is there, not mixed with a background."""
    alpha: Float[Tensor, "h w"]
    depth: Float[Tensor, "h w"]
    """Along the camera's z [m]; 0 where no surface is."""
    normal: Float[Tensor, "h w 3"]
    """In the world, towards the camera."""

    @property
    def is_free(self) -> Tensor:
        """Pixels whose ray meets nothing."""
        return self.alpha < _FAINT


@dataclass
class SceneViews:
    """The views of a scene in pinhole cameras. Those that fit in the cache are rendered once."""

    scene: GaussianScene
    cameras: Cameras
    alpha_min: float = 0.5
    """Pixels of less opacity show no surface."""
    quantile: float | None = 0.3
    """Share of the opacity that a ray has met at its depth; None takes the expected depth."""
    backend: str = "auto"
    cache_bytes: float = 1e9

    def __post_init__(self) -> None:
        if self.cameras.model != "pinhole" or self.cameras.distortion is not None:
            raise InputError(f"cameras: got {self.cameras.model} ones, want pinhole cameras without lens distortion")
        self._discs = None if self.quantile is None else boosted(as_discs(self.scene), self.quantile)
        self._cached: dict[int, Maps] = {}
        self._free = self.cache_bytes

    def __len__(self) -> int:
        return len(self.cameras)

    def __iter__(self) -> Iterator[Maps]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Maps:
        if index in self._cached:
            return self._cached[index]
        maps = self._render(index)
        size = sum(part.numel() * part.element_size() for part in maps)
        if size <= self._free:
            self._free -= size
            self._cached[index] = maps
        return maps

    def points(self, index: int, maps: Maps) -> Float[Tensor, "h w 3"]:
        """World positions of the pixels' surfaces; those without a surface are at the camera."""
        K, pose = self.cameras.Ks[index].cpu(), self.cameras.camtoworlds[index].cpu()
        height, width = maps.depth.shape
        pixels = pixel_grid(width, height, maps.depth.dtype).flatten(0, 1)
        points = unproject(pixels, maps.depth.flatten(), K)
        return transform_points(pose, points).unflatten(0, (height, width))

    @torch.no_grad()
    def _render(self, index: int) -> Maps:
        scene, camera = self.scene, self.cameras[index : index + 1].to(self.scene.device)
        view = next(iter(render_views(scene, camera, render_mode="RGB+ED", backend=self.backend)))
        assert view.image is not None and view.depth is not None and view.normal is not None
        depth, normal = view.depth, view.normal
        if self._discs is not None:
            depth, normal = _disc_maps(self._discs, camera, self.backend)
        alpha = view.alpha.clamp(0, 1)
        has_surface = (alpha >= self.alpha_min) & (depth > 0) & depth.isfinite()
        depth = torch.where(has_surface, depth, 0)
        if self._discs is None and scene.mode != "2dgs":
            normal = depth_to_normals(depth[None], camera.viewmats, camera.Ks)[0]
        color = (view.image / alpha.clamp(min=1e-3)[..., None]).clamp(0, 1)
        normal = torch.nn.functional.normalize(normal, dim=-1)
        return Maps(*(part.cpu().contiguous() for part in (color, alpha, depth, normal)))


def as_discs(scene: GaussianScene) -> GaussianScene:
    """The scene with each Gaussian's shortest axis as the third, which discs do without."""
    if scene.mode == "2dgs":
        return scene
    order = scene.log_scales.argsort(-1, descending=True)
    axes = quat_to_rotmat(scene.quats).gather(2, order[:, None].expand(-1, 3, -1))
    axes = torch.cat([axes[..., :2], torch.linalg.cross(axes[..., 0], axes[..., 1])[..., None]], -1)
    quats, log_scales = rotmat_to_quat(axes), scene.log_scales.gather(1, order)
    return replace(scene, quats=quats, log_scales=log_scales, mode="2dgs", antialiased=False)


def boosted(scene: GaussianScene, quantile: float) -> GaussianScene:
    """The scene with opacities 1 - (1 - o)^k, whose median depth is where the given scene lets through 1 - quantile.

    What is let through behind Gaussians is a product of 1 - o exp(-q); the power k of it is one half where it is
    1 - quantile, with k = log(1/2) / log(1 - quantile). Exact at the middles of Gaussians, near elsewhere.
    """
    power = math.log(0.5) / math.log1p(-quantile)
    logits = scene.opacity_logits.double()
    # logit(1 - x) = -logit(x), and 1 - o is a power of what it was.
    through = power * torch.nn.functional.logsigmoid(-logits)
    return replace(scene, opacity_logits=((-torch.expm1(through)).clamp(1e-12, 1 - 1e-12).logit()).to(scene.opacity_logits))


def _disc_maps(discs: GaussianScene, camera: Cameras, backend: str) -> tuple[Tensor, Tensor]:
    """Median depth and normals of discs."""
    no_colors = discs.means.new_zeros(len(discs), 1)
    _, _, normal, _, _, median, _ = rasterize_2dgs(
        discs.means, discs.quats, discs.scales, discs.opacities, no_colors, camera.viewmats, camera.Ks,
        int(camera.width), int(camera.height), packed=True, backend=backend,
    )  # fmt: skip
    return median[0, ..., 0], normal[0]
