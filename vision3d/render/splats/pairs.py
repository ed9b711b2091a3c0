"""The (image, Gaussian) pairs of one call, dense or packed, and what both kinds of Gaussians do with them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vision3d.render.splats import ops
from vision3d.render.splats.checks import Sizes


@dataclass(frozen=True)
class Pairs:
    """Pairs in the caller's layout: [..., C, N, *] dense, or [nnz, *] packed, the visible ones alone."""

    sizes: Sizes
    packed: bool
    images: Tensor
    """Image (scene * C + camera) of each visible pair, ascending."""
    gaussians: Tensor
    """Gaussian of each visible pair, ascending within an image."""

    @classmethod
    def of(cls, radii: Tensor, sizes: Sizes, packed: bool) -> "Pairs":
        """The pairs whose (B, C, N, 2) radii are not zero."""
        return cls(sizes, packed, *ops.visible_pairs(radii))

    @property
    def rows(self) -> Tensor:
        """Place of each visible pair among all (image, Gaussian) pairs."""
        return self.gaussians if self.sizes.num_images == 1 else self.images * self.sizes.num_gaussians + self.gaussians

    def layout(self, dense: Tensor) -> Tensor:
        """A (B, C, N, *) tensor in the caller's layout."""
        if self.packed:
            return dense.flatten(0, 2).index_select(0, self.rows)
        return dense.reshape(*self.sizes.batch, *dense.shape[1:])

    def flat(self, value: Tensor) -> Tensor:
        """A tensor in the caller's layout as (nnz, *), the order in which `flatten_ids` counts."""
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


def by_scene(tensor: Tensor, sizes: Sizes) -> Tensor:
    """Batch dimensions flattened into one."""
    return tensor.reshape(sizes.num_batches, *tensor.shape[len(sizes.batch) :])


def pair_colors(
    pairs: Pairs, means: Tensor, colors: Tensor, viewmats: Tensor, sh_degree: int | None, backend: ops.Backend
) -> Tensor:
    """Colours (nnz, D) of the pairs, from colours or spherical harmonics that may differ between cameras."""
    if sh_degree is None:
        return pairs.of_gaussians(colors)
    seen = ops.sh_colors(means, colors, viewmats, *pairs.scenes_and_cameras(), pairs.gaussians, sh_degree, backend=backend)
    if pairs.packed:
        return seen
    total = pairs.sizes.num_images * pairs.sizes.num_gaussians
    return seen.new_zeros(total, 3).index_copy(0, pairs.rows, seen)


def with_depth(colors: Tensor, depths: Tensor, backgrounds: Tensor | None, render_mode: str) -> tuple[Tensor, Tensor | None]:
    """Colours with the depth as their last channel, as the mode asks; the background of a depth is 0."""
    if render_mode == "RGB":
        return colors, backgrounds
    if render_mode in ("D", "ED"):
        return depths[:, None], None
    if backgrounds is not None:
        backgrounds = torch.nn.functional.pad(backgrounds, (0, 1))
    return torch.cat([colors, depths[:, None]], -1), backgrounds


def expected_depth(images: Tensor, alphas: Tensor, render_mode: str) -> Tensor:
    """The last channel divided by alpha where the mode asks for the expected depth."""
    if not render_mode.endswith("ED"):
        return images
    return torch.cat([images[..., :-1], images[..., -1:] / alphas.clamp(min=1e-10)], -1)


class SparseRows:
    """Makes the gradients of leaves sparse (COO), with the rows that `rows` names before the backward pass."""

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
