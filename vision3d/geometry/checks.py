"""Shape checks with one clear line, for the entrances of the geometry functions."""

from torch import Tensor

from vision3d.errors import ShapeError


def check_trailing(name: str, tensor: Tensor, *sizes: int) -> None:
    """Raises ShapeError unless the tensor holds floats and its last axes have these sizes."""
    if tuple(tensor.shape[-len(sizes) :]) != sizes:
        raise ShapeError(name, tensor.shape, f"(..., {', '.join(map(str, sizes))})")
    if not tensor.is_floating_point():
        raise ShapeError(name, tensor.dtype, "torch.float32 or torch.float64")
