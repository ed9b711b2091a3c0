"""Visible parts of a scene: colors, opacity, depth and normals in cameras, rendered on demand."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import pixel_grid, unproject
from vision3d.geometry.paths import focus_point
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat
from vision3d.geometry.se3 import transform_points
from vision3d.render import depth_to_normals
from vision3d.render.baking import stereo
from vision3d.render.splats import rasterize_2dgs
from vision3d.render.views import render_views
from vision3d.scene import Cameras, GaussianScene

_HAZY = 0.025
"""Relative spread above which a ray shows no surface."""
_SHARP = 0.01
"""Relative spread up to which the depth of the Gaussians is used."""
_FAINT = 0.1
"""Opacity below which rays pass through free space."""


class Maps(NamedTuple):
    """One view, on the CPU."""

    color: Float[Tensor, "h w 3"]
    """Color of the surface, not blended with a background."""
    alpha: Float[Tensor, "h w"]
    depth: Float[Tensor, "h w"]
    """Along the camera's z [m]; 0 without a surface."""
    normal: Float[Tensor, "h w 3"]
    """In world space, towards the camera."""
    spread: Float[Tensor, "h w"]
    """Distance behind the depth where the ray reaches half of the remaining opacity [m]: small at a surface, large in haze."""

    @property
    def is_certain(self) -> Tensor:
        """Pixels with a surface at a reliable depth, not haze."""
        return (self.depth > 0) & (self.spread < _HAZY * self.depth)

    @property
    def is_free(self) -> Tensor:
        """Pixels whose ray hits nothing."""
        return self.alpha < _FAINT


@dataclass
class SceneViews:
    """The views of a scene in pinhole cameras. Views that fit in the cache are rendered once."""

    scene: GaussianScene
    cameras: Cameras
    alpha_min: float = 0.5
    """Minimum opacity of pixels with a surface."""
    quantile: float | None = 0.3
    """Fraction of the opacity that a ray has reached at its depth; None uses the expected depth."""
    backend: str = "auto"
    cache_bytes: float = 1e9
    sweeps: bool = False
    """Find depths by plane sweeps where the scene is hazy."""

    def __post_init__(self) -> None:
        if self.cameras.model != "pinhole" or self.cameras.distortion is not None:
            raise InputError(f"cameras: got {self.cameras.model} ones, want pinhole cameras without lens distortion")
        flat = as_2dgs(self.scene)
        quantile = 0.5 if self.quantile is None else self.quantile
        self._surface = boosted(flat, quantile)
        self._behind = boosted(flat, 0.5 * (1 + quantile))
        self._small: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._neighbors: list[list[int]] | None = None
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
        if self.sweeps:
            maps = self._swept(index, maps)
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
    def _swept(self, index: int, maps: Maps) -> Maps:
        """The maps with the depths of a plane sweep where those of the Gaussians are spread."""
        if self._neighbors is None:
            poses = self.cameras.camtoworlds.cpu()
            self._neighbors = stereo.neighbors(self.cameras, focus_point(poses[:, :3, 3], poses[:, :3, 2]))
        others = self._neighbors[index]
        is_hazy = (maps.depth > 0) & (maps.spread > _SHARP * maps.depth)
        if len(others) < 2 or not bool(is_hazy.any()):
            return maps
        small = self._small_cameras
        image, depth, spread = self._small_maps(index)
        found = stereo.sweep(
            image, small[index], [self._small_maps(j)[0] for j in others], small[torch.tensor(others)], depth, spread
        )
        size = maps.depth.shape
        inverse, width = (
            torch.nn.functional.interpolate(part[None, None], size, mode="bilinear", align_corners=False)[0, 0]
            for part in (1 / found.depth, found.spread / found.depth)
        )
        share = ((maps.spread / maps.depth.clamp(min=1e-6) - _SHARP) / _SHARP).clamp(0, 1)
        depth = 1 / torch.lerp(1 / maps.depth.clamp(min=1e-6), inverse, share)
        depth = torch.where(is_hazy, depth, maps.depth)
        camera = self.cameras[index].to("cpu")
        normal = depth_to_normals(depth[None], camera.viewmats, camera.Ks)[0]
        normal = torch.where(is_hazy[..., None], torch.nn.functional.normalize(normal, dim=-1), maps.normal)
        spread = torch.where(is_hazy, torch.lerp(maps.spread, width * depth, share), maps.spread)
        return maps._replace(depth=depth, normal=normal, spread=spread)

    @property
    def _small_cameras(self) -> Cameras:
        cameras = self.cameras.to("cpu")
        factor = (stereo.MAX_SIZE / torch.maximum(cameras.width, cameras.height)).clamp(max=1)
        sizes = [(size * factor).round().long().clamp(min=1) for size in (cameras.width, cameras.height)]
        return cameras.resized(*sizes)

    def _small_maps(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Colors on black, depths and spreads at the size of the sweep."""
        if index not in self._small:
            maps = self._render_in(self._small_cameras[index])
            self._small[index] = (maps.color * maps.alpha[..., None], maps.depth, maps.spread)
        return self._small[index]

    def _render(self, index: int) -> Maps:
        return self._render_in(self.cameras[index])

    @torch.no_grad()
    def _render_in(self, camera: Cameras) -> Maps:
        scene, camera = self.scene, camera.to(self.scene.device)
        view = next(iter(render_views(scene, camera, render_mode="RGB+ED", backend=self.backend)))
        assert view.image is not None and view.depth is not None and view.normal is not None
        depth, normal = _2dgs_maps(self._surface, camera, self.backend)
        behind, _ = _2dgs_maps(self._behind, camera, self.backend)
        spread = torch.where((behind > 0) & behind.isfinite(), (behind - depth).clamp(min=0), 0)
        if self.quantile is None:
            depth, normal = view.depth, view.normal
        alpha = view.alpha.clamp(0, 1)
        has_surface = (alpha >= self.alpha_min) & (depth > 0) & depth.isfinite()
        depth = torch.where(has_surface, depth, 0)
        if self.quantile is None and scene.mode != "2dgs":
            normal = depth_to_normals(depth[None], camera.viewmats, camera.Ks)[0]
        color = (view.image / alpha.clamp(min=1e-3)[..., None]).clamp(0, 1)
        normal = torch.nn.functional.normalize(normal, dim=-1)
        return Maps(*(part.cpu().contiguous() for part in (color, alpha, depth, normal, spread.nan_to_num(0))))


def as_2dgs(scene: GaussianScene) -> GaussianScene:
    """The scene with each Gaussian's shortest axis as the third, which 2D Gaussians ignore."""
    if scene.mode == "2dgs":
        return scene
    order = scene.log_scales.argsort(-1, descending=True)
    axes = quat_to_rotmat(scene.quats).gather(2, order[:, None].expand(-1, 3, -1))
    axes = torch.cat([axes[..., :2], torch.linalg.cross(axes[..., 0], axes[..., 1])[..., None]], -1)
    quats, log_scales = rotmat_to_quat(axes), scene.log_scales.gather(1, order)
    return replace(scene, quats=quats, log_scales=log_scales, mode="2dgs", antialiased=False)


def boosted(scene: GaussianScene, quantile: float) -> GaussianScene:
    """The scene with opacities 1 - (1 - o)^k, whose median depth is where the given scene has a transmittance of 1 - quantile.

    The transmittance behind Gaussians is a product of 1 - o exp(-q); its power k is one half where it is 1 - quantile, with
    k = log(1/2) / log(1 - quantile). Exact at the centers of Gaussians, approximate elsewhere.
    """
    power = math.log(0.5) / math.log1p(-quantile)
    logits = scene.opacity_logits.double()
    # logit(1 - x) = -logit(x), and 1 - o is raised to a power.
    through = power * torch.nn.functional.logsigmoid(-logits)
    return replace(scene, opacity_logits=((-torch.expm1(through)).clamp(1e-12, 1 - 1e-12).logit()).to(scene.opacity_logits))


def _2dgs_maps(scene: GaussianScene, camera: Cameras, backend: str) -> tuple[Tensor, Tensor]:
    """Median depth and normals of 2D Gaussians."""
    no_colors = scene.means.new_zeros(len(scene), 1)
    _, _, normal, _, _, median, _ = rasterize_2dgs(
        scene.means, scene.quats, scene.scales, scene.opacities, no_colors, camera.viewmats, camera.Ks,
        int(camera.width), int(camera.height), packed=True, backend=backend,
    )  # fmt: skip
    return median[0, ..., 0], normal[0]
