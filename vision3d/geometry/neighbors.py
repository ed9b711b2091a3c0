"""Nearest neighbors of points: a k-d tree on the CPU, exact brute force in blocks on other devices."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, DeviceError, InputError, ShapeError

Method = Literal["auto", "kdtree", "brute"]


def knn(
    points: Float[Tensor, "n d"], queries: Float[Tensor, "m d"] | None = None, k: int = 1, method: Method = "auto"
) -> tuple[Float[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """The k points nearest to each query, nearest first.

    Distances carry gradients to points and queries (zero at distance zero).

    Args:
        queries: The points themselves when None; then a point is not its own neighbor, but a duplicate of it is.
        method: `kdtree` (scipy, CPU), `brute` (torch, any device), `auto`: the tree on the CPU.

    Returns:
        Distances and indices of points.

    Raises:
        ShapeError: There are fewer than k (other) points.
        InputError: A coordinate is not finite.
    """
    others = points if queries is None else queries
    available = len(points) - (queries is None)
    if points.ndim != 2 or others.ndim != 2 or points.shape[1] != others.shape[1]:
        raise ShapeError("queries", others.shape, f"shape (M, D) to match points {tuple(points.shape)}")
    if not 1 <= k <= available:
        other = "other " if queries is None else ""
        raise ShapeError("points", f"{len(points)} points", f"at least k = {k} {other}points, k >= 1")
    if points.device != others.device:
        raise DeviceError(f"points are on {points.device}, queries on {others.device}; want one device")
    if method not in ("auto", "kdtree", "brute"):
        raise ConfigError("method", f"{method!r}; valid: auto, kdtree, brute")
    for name, values in (("points", points), ("queries", others)):
        if not bool(values.isfinite().all()):
            row = int((~values.isfinite()).any(1).nonzero()[0])
            raise InputError(f"{name}: row {row} is not finite: {values[row].tolist()}")
    use_tree = method == "kdtree" or (method == "auto" and points.device.type == "cpu")
    with torch.no_grad():
        search = _tree if use_tree else _brute
        idx = search(points.detach(), others.detach(), k, queries is None)
    return torch.linalg.vector_norm(points[idx] - others[:, None], dim=-1), idx


def neighbor_distance(points: Float[Tensor, "n d"], k: int = 3) -> Float[Tensor, " n"]:
    """Root mean square distance of each point to its k nearest neighbors: the initial scale of a Gaussian.

    If there are fewer than k other points, all of them are used; fewer than two points are a ShapeError.
    """
    distances, _ = knn(points, k=max(1, min(k, len(points) - 1)))
    return torch.linalg.vector_norm(distances, dim=-1) / distances.shape[-1] ** 0.5


def _tree(points: Tensor, queries: Tensor, k: int, skip_self: bool) -> Tensor:
    from scipy.spatial import KDTree

    tree = KDTree(points.cpu().numpy())
    count = k + skip_self
    _, found = tree.query(queries.cpu().numpy(), count, workers=torch.get_num_threads())
    idx = torch.from_numpy(found.reshape(len(queries), count)).to(points.device)
    return _without_self(idx) if skip_self else idx


def _without_self(idx: Tensor) -> Tensor:
    # Row i drops i itself, or its farthest neighbor if duplicates of point i displaced i from the result.
    is_self = idx == torch.arange(len(idx), device=idx.device)[:, None]
    is_self[:, -1] |= ~is_self.any(1)
    return idx[~is_self].view(len(idx), -1)


def _brute(points: Tensor, queries: Tensor, k: int, skip_self: bool, block_numbers: int = 1 << 24) -> Tensor:
    rows = max(1, block_numbers // max(1, len(points)))
    found = []
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        # Without the matrix product, which loses half of the digits.
        distances = torch.cdist(block, points, compute_mode="donot_use_mm_for_euclid_dist")
        if skip_self:
            own = torch.arange(len(block), device=points.device)
            distances[own, start + own] = torch.inf
        found.append(distances.topk(k, largest=False).indices)
    return torch.cat(found) if found else torch.empty(0, k, dtype=torch.int64, device=points.device)
