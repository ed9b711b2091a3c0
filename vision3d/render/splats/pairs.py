"""The (image, Gaussian) pairs of one call, dense or packed, and operations on them for both kinds of Gaussians."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from vision3d.render.splats.calls import Call
from vision3d.render.splats.checks import Sizes
from vision3d.render.splats.kernels import Kernels
from vision3d.render.splats.records import Camera, Gaussians, Grid, Intersections, Pixels, Projected, Projected2dgs

P = TypeVar("P", Projected, Projected2dgs)


@dataclass(frozen=True)
class Pairs:
    """Pairs in the caller's layout: [..., C, N, *] dense, or [nnz, *] packed, with only the visible ones."""

    sizes: Sizes
    packed: bool
    images: Tensor
    """Image (scene * C + camera) of each visible pair, ascending."""
    gaussians: Tensor
    """Gaussian of each visible pair, ascending within an image."""

    @property
    def rows(self) -> Tensor:
        """Index of each visible pair among all (image, Gaussian) pairs."""
        return self.gaussians if self.sizes.num_images == 1 else self.images * self.sizes.num_gaussians + self.gaussians

    def layouts(self, projected: P) -> tuple[P, P]:
        """A projection (B, C, N, *) or (nnz, *) in the caller's layout, and as (nnz, *) with the order of `flatten_ids`."""
        if self.packed:
            return projected, projected
        projected = projected._make(value.reshape(*self.sizes.batch, *value.shape[1:]) for value in projected)
        return projected, projected._make(map(self.flat, projected))

    def image_shape(self, camera: Camera) -> tuple[int, ...]:
        """Shape [..., C, H, W] of the images in the caller's layout."""
        return (*self.sizes.batch, self.sizes.num_cameras, camera.height, camera.width)

    def flat(self, value: Tensor) -> Tensor:
        """A tensor in the caller's layout as (nnz, *), the order that `flatten_ids` refers to."""
        return value if self.packed else value.flatten(0, len(self.sizes.batch) + 1)

    def shaped(self, value: Tensor) -> Tensor:
        """An (nnz, *) tensor back in the caller's layout."""
        if self.packed:
            return value
        return value.reshape(*self.sizes.batch, self.sizes.num_cameras, self.sizes.num_gaussians, *value.shape[1:])

    def image_ids(self) -> Tensor:
        """The image of each flat pair."""
        if self.packed:
            return self.images
        images = torch.arange(self.sizes.num_images, device=self.images.device)
        return images.repeat_interleave(self.sizes.num_gaussians)

    def grid(self, camera: Camera, tile_size: int) -> Grid:
        """The tiles of all images."""
        return Grid(self.sizes.num_images, camera.width, camera.height, tile_size)

    def of_gaussians(self, values: Tensor) -> Tensor:
        """(B, N) or (B, N, D) values, or (B, C, N, D) that differ between cameras, as (nnz, *)."""
        if values.dim() < 4 and not self.packed:
            values = values[:, None].expand(-1, self.sizes.num_cameras, *values.shape[1:])
            return values.flatten(0, 2)
        if not self.packed:
            return values.flatten(0, 2)
        if values.dim() == 4:
            return values.flatten(0, 2).index_select(0, self.rows)
        scenes = self.images // self.sizes.num_cameras if self.sizes.num_batches > 1 else None
        rows = self.gaussians if scenes is None else scenes * self.sizes.num_gaussians + self.gaussians
        return values.flatten(0, 1).index_select(0, rows)

    def scenes_and_cameras(self) -> tuple[Tensor, Tensor]:
        """Scene and camera of each visible pair."""
        if self.sizes.num_batches == 1:
            return torch.zeros_like(self.images), self.images
        return self.images // self.sizes.num_cameras, self.images % self.sizes.num_cameras

    def ids(self) -> dict[str, Tensor | None]:
        if not self.packed:
            return {"batch_ids": None, "camera_ids": None, "gaussian_ids": None}
        scenes, cameras = self.scenes_and_cameras()
        return {"batch_ids": scenes, "camera_ids": cameras, "gaussian_ids": self.gaussians}


def by_scene(call: Call, size: Sizes, rows: "SparseRows") -> tuple[Gaussians, Tensor, Camera]:
    """Gaussians, colors and cameras in the format of the kernels: one batch dimension, covariances as upper triangles.

    Args:
        call: Arguments that passed `Call.check`.
        size: Sizes of the call.
        rows: Makes the gradients sparse if the call requests it.
    """
    camera = call.camera
    assert call.colors is not None  # `Call.with_colors`
    means, quats, scales, covars, opacities = call.gaussians
    if covars is not None:
        quats = scales = None
        covars = covars[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
    if call.sparse_grad:
        means, quats, scales = (None if value is None else rows.attach(value) for value in (means, quats, scales))
    parts = (None if value is None else _flat_batch(value, size) for value in (means, quats, scales, covars, opacities))
    camera = Camera(_flat_batch(camera.viewmats, size), _flat_batch(camera.Ks, size), *camera[2:])
    return Gaussians._make(parts), _flat_batch(call.colors, size), camera


def _flat_batch(tensor: Tensor, sizes: Sizes) -> Tensor:
    return tensor.reshape(sizes.num_batches, *tensor.shape[len(sizes.batch) :])


def flat_pixels(call: Call) -> Pixels:
    """Backgrounds, masks and limits with one dimension for all images; no backgrounds for depths only."""
    backgrounds = None if call.render_mode in ("D", "ED") else call.backgrounds
    masks, max_depths = (None if maps is None else maps.flatten(0, -3) for maps in (call.masks, call.max_depths))
    return Pixels(None if backgrounds is None else backgrounds.flatten(0, -2), masks, max_depths)


def info_of(
    call: Call, pairs: Pairs, projected: Projected | Projected2dgs, opacity: Tensor, found: Intersections
) -> dict[str, Any]:
    """The entries shared by the info dictionaries of both functions."""
    sizes, (tile_height, tile_width) = pairs.sizes, call.tiles
    return {
        **pairs.ids(),
        "radii": projected.radii,
        "means2d": projected.means2d,
        "depths": projected.depths,
        "opacities": pairs.shaped(opacity),
        "tile_width": tile_width,
        "tile_height": tile_height,
        "tiles_per_gauss": pairs.shaped(found.tiles_per_gauss),
        "isect_ids": found.isect_ids,
        "flatten_ids": found.lists.flatten_ids,
        "isect_offsets": found.lists.isect_offsets.reshape(*sizes.batch, sizes.num_cameras, tile_height, tile_width),
        "width": call.camera.width,
        "height": call.camera.height,
        "tile_size": call.tile_size,
        "n_batches": sizes.num_batches,
        "n_cameras": sizes.num_cameras,
    }


def pair_colors(
    pairs: Pairs, means: Tensor, colors: Tensor, viewmats: Tensor, sh_degree: int | None, kernels: Kernels
) -> Tensor:
    """Colors (nnz, D) of the pairs, from colors or spherical harmonics that may differ between cameras."""
    if sh_degree is None:
        return pairs.of_gaussians(colors)
    seen = kernels.sh_colors(means, colors, viewmats, *pairs.scenes_and_cameras(), pairs.gaussians, sh_degree)
    if pairs.packed:
        return seen
    total = pairs.sizes.num_images * pairs.sizes.num_gaussians
    return seen.new_zeros(total, 3).index_copy(0, pairs.rows, seen)


def with_depth(colors: Tensor, depths: Tensor, backgrounds: Tensor | None, render_mode: str) -> tuple[Tensor, Tensor | None]:
    """Colors with the depth as last channel, if the mode requires it; the background of a depth is 0."""
    if render_mode == "RGB":
        return colors, backgrounds
    if render_mode in ("D", "ED"):
        return depths[:, None], None
    if backgrounds is not None:
        backgrounds = torch.nn.functional.pad(backgrounds, (0, 1))
    return torch.cat([colors, depths[:, None]], -1), backgrounds


def expected_depth(images: Tensor, alphas: Tensor, render_mode: str) -> Tensor:
    """Divide the last channel by alpha if the mode requires the expected depth."""
    if not render_mode.endswith("ED"):
        return images
    return torch.cat([images[..., :-1], images[..., -1:] / alphas.clamp(min=1e-10)], -1)


class SparseRows:
    """Makes the gradients of leaves sparse (COO), with the rows in `rows` set before the backward pass."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def attach(self, tensor: Tensor) -> Tensor:
        return _SparseGradient.apply(tensor, self)  # pyright: ignore[reportReturnType]


class _SparseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor, sparse: SparseRows) -> Tensor:
        ctx.sparse = sparse
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        rows = ctx.sparse.rows
        return torch.sparse_coo_tensor(rows[None], grad[rows], grad.shape, is_coalesced=True, check_invariants=False), None
