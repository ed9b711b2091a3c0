"""Shared by the native operations: checks, memory for gradients, plain tensors."""

import threading

import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import BackendError

NATIVE_TILE_SIZES = (4, 8, 16)
_MAX_KEPT = 64 << 20  # bytes
_kept = threading.local()


def check_tile_size(tile_size: int) -> None:
    """Raise BackendError for tile sizes that the blending kernels do not support."""
    if tile_size not in NATIVE_TILE_SIZES:
        raise BackendError(f"tile_size: got {tile_size}, the native kernels take 4, 8 or 16")


def image_offsets(image_ids: Tensor, num_images: int) -> Tensor:
    """Start index of the pairs of each image, (images + 1,) int64."""
    if num_images == 1 and image_ids.device.type == "cpu":
        return torch.tensor([0, len(image_ids)])
    return torch.searchsorted(image_ids, torch.arange(num_images + 1, device=image_ids.device))


def pair_sums(like: Tensor, num_images: int, count: int, width: int) -> Tensor:
    """Zeros for the partial sums over the pairs of each image, (images, chunks, width)."""
    return like.new_zeros((num_images, max(1, -(-count // native.require().PAIR_CHUNK)), width))


def record_sums(like: Tensor, count: int, records: int, width: int) -> Tensor:
    """Memory for sums over pixels: one per (tile, Gaussian) on a CPU; one per Gaussian, zeroed, on a GPU.

    On a CPU it is kept for the next call of the thread: otherwise the system would clear and map megabytes in every call.
    """
    if not native.is_on_cpu(like):
        return like.new_zeros((count, width))
    size = records * width
    spare = getattr(_kept, "sums", None)
    if spare is None or spare.dtype != like.dtype or spare.numel() < size:
        spare = like.new_empty(size)
        _kept.sums = spare if spare.nbytes <= _MAX_KEPT else None
    return spare[:size].view(records, width)


def view_gradient(v_views: Tensor | None, viewmats: Tensor) -> Tensor:
    """Gradient of the (b, c, 4, 4) matrices from (b c, chunks, 12) sums for R and t; zero without chunks."""
    v_viewmats = zeros(viewmats)
    if v_views is not None:
        total = v_views.sum(1).unflatten(0, viewmats.shape[:2])
        v_viewmats[..., :3, :3] = total[..., :9].unflatten(-1, (3, 3))
        v_viewmats[..., :3, 3] = total[..., 9:]
    return v_viewmats


def background_gradient(transmittances: Tensor, v_colors: Tensor) -> Tensor:
    """Gradient of the (i, d) background colors, sum of transmittance times v_colors over (i, h, w) pixels.

    Summed in float64: in float32, one pixel after another, a sum over 8 million pixels is off by 0.6 %.
    """
    images, height, width, channels = v_colors.shape
    total = v_colors.new_zeros((images, channels), dtype=torch.float64)
    rows = max(1, 2**18 // max(width, 1))  # at a time, as they are copied
    for begin in range(0, height, rows):
        part = (slice(None), slice(begin, begin + rows))
        total += torch.einsum("ihw,ihwd->id", transmittances[part].double(), v_colors[part].double())
    return total.to(v_colors)


def zeros(like: Tensor) -> Tensor:
    """Contiguous zeros of the same shape, for gradients."""
    return torch.zeros_like(like, memory_format=torch.contiguous_format)


def plain(tensor: Tensor) -> Tensor:
    """The tensor in the format of the kernels: contiguous, detached."""
    return tensor.detach().contiguous()


def plain_or_none(tensor: Tensor | None) -> Tensor | None:
    """Like `plain`, for optional inputs."""
    return None if tensor is None else plain(tensor)
