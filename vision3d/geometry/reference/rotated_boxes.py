"""Plain torch versions of the operations on rotated boxes: the reference of the tests and the fallback without kernels."""

import torch
from torch import Tensor

LARGEST = 1e75  # beyond, volumes are not finite


def box_iou(first: Tensor, second: Tensor, is_3d: bool) -> Tensor:
    """IoU of boxes (..., 7) that broadcast; in float64, returned in the dtype of `first`."""
    a, b = torch.broadcast_tensors(first.double(), second.double())
    height = torch.ones_like(a[..., 0])
    sizes = [box[..., 3] * box[..., 4] for box in (a, b)]
    if is_3d:
        sizes = [size * box[..., 5] for size, box in zip(sizes, (a, b))]
        top = torch.minimum(a[..., 2] + a[..., 5] / 2, b[..., 2] + b[..., 5] / 2)
        height = (top - torch.maximum(a[..., 2] - a[..., 5] / 2, b[..., 2] - b[..., 5] / 2)).clamp(min=0)
    shared = height * _shared_area(a, b)
    both = sizes[0] + sizes[1] - shared
    iou = (shared / torch.where(both > 0, both, 1)).clamp(max=1)
    is_valid = (a.abs().sum(-1) < LARGEST) & (b.abs().sum(-1) < LARGEST) & (torch.minimum(a, b)[..., 3:6] >= 0).all(-1)
    return torch.where(is_valid, torch.where(both > 0, iou, 0), torch.nan).to(first.dtype)


def box_nms(boxes: Tensor, groups: Tensor, threshold: float, is_3d: bool, max_kept: int) -> Tensor:
    """Which boxes, ordered by decreasing score, no kept box before them suppresses."""
    suppresses = box_iou(boxes[:, None], boxes[None], is_3d) > threshold
    suppresses &= groups[:, None] == groups[None]
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        kept[i] = int(kept.sum()) < max_kept and not bool((suppresses[:i, i] & kept[:i]).any())
    return kept


def _shared_area(a: Tensor, b: Tensor) -> Tensor:
    """Area of the intersection seen from above.

    Clamping a polygon, with a corner added where it crosses the border, to each side of the first box gives the intersection
    and parts without area along the border.
    """
    x, y = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]
    c, s = a[..., 6].cos(), a[..., 6].sin()
    x, y = c * x + s * y, c * y - s * x
    c, s = (b[..., 6] - a[..., 6]).cos(), (b[..., 6] - a[..., 6]).sin()
    u = b[..., 3, None] * b.new_tensor([0.5, 0.5, -0.5, -0.5])
    v = b[..., 4, None] * b.new_tensor([-0.5, 0.5, 0.5, -0.5])
    corners = x[..., None] + c[..., None] * u - s[..., None] * v, y[..., None] + s[..., None] * u + c[..., None] * v
    for axis in (0, 1):
        limit = a[..., 3 + axis, None] / 2
        for sign in (1, -1):
            along, across = corners[axis] * sign, corners[1 - axis]
            step, turn = along.roll(-1, -1) - along, across.roll(-1, -1) - across
            t = ((limit - along) / torch.where(step == 0, 1, step)).clamp(0, 1)
            along = sign * torch.stack([along, along + t * step], -1).flatten(-2).clamp(max=limit)
            across = torch.stack([across, across + t * turn], -1).flatten(-2)
            corners = (across, along) if axis else (along, across)
    x, y = corners[0] - corners[0][..., :1], corners[1] - corners[1][..., :1]
    return ((x * y.roll(-1, -1) - x.roll(-1, -1) * y).sum(-1) / 2).clamp(min=0)
