"""A small number of rigid joints with sparse weights for moving vertices: smooth skinning decomposition (Le and Deng 2012).

Joints start as clusters of vertices that move rigidly together, split where they fit worst. Then alternating steps solve for
the weights of each vertex with fixed joints (at most K joints, non-negative, sum 1), and for the rigid motion of each joint
with fixed weights and other joints, which is a weighted Procrustes problem for each frame.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.neighbors import knn
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.registration import kabsch

_CANDIDATES = 12
"""Number of candidate joints for a vertex: those that alone move it best."""
_MIN_WEIGHT = 1e-3
_GAIN = 1 - 1e-6
"""Improvements below this fraction of the error are ignored."""
_SEED = 20
"""Number of vertices that the initial motion of a new joint is fitted to."""
_ROUNDS = 3
"""Rounds of clustering after each split."""
_FRAMES = 64
"""Maximum number of frames used for clustering."""
_MIN_COST = 1e-14
"""Squared fraction of the diagonal, summed over a cluster, that counts as rounding."""
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class RigidJoints:
    """J rigid joints of T frames: v' = sum_j w_j (R_j (v - g_j) + g_j + T_j)."""

    weights: Float[Tensor, "v k"]
    """Rows that sum to 1, none below 0."""
    indices: Int64[Tensor, "v k"]
    """Joints of each vertex."""
    centers: Float[Tensor, "j 3"]
    """Joint positions in the rest pose: the mean of the vertices that follow them [m]."""
    quats: Float[Tensor, "t j 4"]
    """Rotations about the centers, wxyz."""
    translations: Float[Tensor, "t j 3"]
    """Translations of the centers [m]."""


def fit_rigid_joints(
    rest: Float[Tensor, "v 3"],
    frames: Float[Tensor, "t v 3"],
    count: int = 32,
    *,
    influences: int = 4,
    rounds: int = 10,
    weights: Float[Tensor, "v k"] | None = None,
    indices: Int64[Tensor, "v k"] | None = None,
) -> RigidJoints:
    """Joints, weights and motions whose linear blend is closest to the frames, by alternating minimization on the CPU.

    Deterministic; without gradients.

    Args:
        rest: Vertices in the rest pose [m].
        frames: Vertices in each frame [m].
        count: Maximum number of joints; fewer if there are fewer vertices or the clusters are already rigid.
        influences: Maximum number of joints per vertex, K.
        rounds: Number of alternations between weights and motions.
        weights: Fixed weights, such as those of a deformation graph; then only the motions are fitted.
        indices: The joints of the fixed weights.

    Raises:
        InputError: No vertices or frames, a value is not finite, a count is below 1, or only one of weights and
            indices is given.
        ShapeError: The shapes do not match.
    """
    check_trailing("frames", frames, *rest.shape)
    if not frames.numel() or min(count, influences) < 1:
        text = f"got {len(frames)} frames of {len(rest)} vertices, {count} joints, {influences} per vertex"
        raise InputError(f"fit_rigid_joints: {text}; want at least one of each")
    if not bool(torch.isfinite(rest).all() and torch.isfinite(frames).all()):
        raise InputError("fit_rigid_joints: vertices are not finite")
    points, targets = rest.detach().cpu().double(), frames.detach().cpu().double()
    middle = points.mean(0)
    scale = float((points.amax(0) - points.amin(0)).norm()) or 1.0
    points, targets = (points - middle) / scale, (targets - middle) / scale
    if (weights is None) != (indices is None):
        raise InputError(f"fit_rigid_joints: got {'indices' if weights is None else 'weights'} only; want both or neither")
    if weights is None or indices is None:
        motions = _clustered(points, targets, min(count, len(points)))
        for _ in range(rounds):
            kept, places = _solved_weights(points, targets, motions, influences)
            motions = _solved_motions(points, targets, _dense(kept, places, motions.shape[1]), motions)
        kept, places = _solved_weights(points, targets, motions, influences)
    else:
        check_trailing("weights", weights, len(points), weights.shape[-1])
        if indices.shape != weights.shape:
            raise ShapeError("indices", indices.shape, f"that of the weights, {tuple(weights.shape)}")
        if int(indices.min()) < 0:
            raise InputError(f"fit_rigid_joints: indices go down to {int(indices.min())}, want 0 or more")
        kept, places = weights.detach().cpu().double(), indices.cpu()
        dense = _dense(kept, places, int(places.max()) + 1)
        motions = torch.stack([_rigid(points, targets, own) for own in dense.T], 1)
        for _ in range(rounds):
            motions = _solved_motions(points, targets, dense, motions, reseed=False)
    dense = _dense(kept, places, motions.shape[1])
    used = dense.sum(0) > 0
    dense, motions, places = dense[:, used], motions[:, used], (used.cumsum(0) - 1)[places].clamp(min=0)
    centers = (dense.T @ points) / dense.sum(0)[:, None]
    shifts = (motions[..., :3] @ centers[:, :, None])[..., 0] + motions[..., 3] - centers
    return RigidJoints(
        kept.to(rest),
        places.to(rest.device),
        (centers * scale + middle).to(rest),
        rotmat_to_quat(motions[..., :3]).to(rest),
        (shifts * scale).to(rest),
    )


def _rigid(points: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Rigid motions (T, 3, 4) of the vertices with non-zero weight."""
    rows = weights.nonzero()[:, 0]
    source = points[rows].expand(len(targets), -1, -1)
    rotmats, shifts = kabsch(source, targets[:, rows], weights[rows].expand(len(targets), -1))
    return torch.cat([rotmats, shifts[..., None]], -1)


def _clustered(points: Tensor, targets: Tensor, count: int) -> Tensor:
    """Motions (T, J, 3, 4) of clusters, each vertex in the cluster whose motion fits it best.

    Clusters are split one at a time, worst first: if split together, all would be split because of the same part.
    """
    some = targets[:: -(-len(targets) // _FRAMES)]
    labels = torch.zeros(len(points), dtype=torch.int64)
    motions = _rigid(points, some, torch.ones(len(points), dtype=torch.float64))[:, None]
    is_whole = torch.zeros(len(points), dtype=torch.bool)  # splitting these gave no more clusters
    while motions.shape[1] < count:
        errors = _costs(points, some, motions).gather(1, labels[:, None])[:, 0].masked_fill(is_whole, 0)
        sums = errors.new_zeros(motions.shape[1]).index_add_(0, labels, errors)
        worst = int(sums.argmax())
        if float(sums[worst]) <= _MIN_COST * len(some):
            break
        before, members = motions.shape[1], labels == worst
        seed = int(torch.where(members, errors, -1).argmax())
        motions = torch.cat([motions, _seeded(points, some, seed)[:, None]], 1)
        for _ in range(_ROUNDS):
            _, labels = _costs(points, some, motions).argmin(1).unique(return_inverse=True)
            motions = _rigid_parts(points, some, labels)
        is_whole |= members & (motions.shape[1] <= before)
    return _rigid_parts(points, targets, labels)


def _rigid_parts(points: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """The rigid motion (T, J, 3, 4) of each of J groups of vertices."""
    members = torch.nn.functional.one_hot(labels).double()
    return torch.stack([_rigid(points, targets, own) for own in members.T], 1)


def _seeded(points: Tensor, targets: Tensor, seed: int) -> Tensor:
    """The motion (T, 3, 4) of a vertex and its nearest neighbors in the rest pose."""
    nearest = knn(points, points[seed : seed + 1], min(_SEED, len(points)))[1][0]
    return _rigid(points, targets, torch.zeros(len(points), dtype=torch.float64).index_fill_(0, nearest, 1.0))


def _moments(points: Tensor, targets: Tensor, motions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over the frames of M_j^T M_l (J, J, 4, 4), of M_j^T y (V, J, 4) and of y^2 (V,), and homogeneous vertices."""
    count, joints = len(targets), motions.shape[1]
    columns = motions.permute(0, 2, 1, 3).reshape(3 * count, 4 * joints)
    places = targets.permute(1, 0, 2).reshape(-1, 3 * count)
    pairs = (columns.T @ columns).view(joints, 4, joints, 4).transpose(1, 2)
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    return pairs, (places @ columns).view(-1, joints, 4), places.square().sum(1), homogeneous


def _costs(points: Tensor, targets: Tensor, motions: Tensor) -> Tensor:
    """Squared distances (V, J), summed over the frames, between the vertices and their positions under each joint."""
    pairs, mixed, squares, rows = _moments(points, targets, motions)
    own = torch.einsum("va,jab,vb->vj", rows, pairs.diagonal(dim1=0, dim2=1).permute(2, 0, 1), rows)
    return own - 2 * torch.einsum("vja,va->vj", mixed, rows) + squares[:, None]


def _solved_weights(points: Tensor, targets: Tensor, motions: Tensor, influences: int) -> tuple[Tensor, Tensor]:
    """Optimal weights for fixed joints, by greedy selection of joints among the nearest."""
    pairs, mixed, squares, rows = _moments(points, targets, motions)
    near = _costs(points, targets, motions).topk(min(_CANDIDATES, motions.shape[1]), 1, largest=False).indices
    kept, places = [], []
    for some in torch.arange(len(points)).split(_ROWS):
        own, row = near[some], rows[some]
        cross = torch.einsum("vja,va->vj", mixed[some].gather(1, own[..., None].expand(-1, -1, 4)), row)
        products = torch.einsum("va,vjlab,vb->vjl", row, pairs[own[:, :, None], own[:, None, :]], row)
        # Since the weights sum to 1 the error is w^T G w with G_jl = (x_j - y) . (x_l - y).
        gram = products - cross[:, :, None] - cross[:, None, :] + squares[some, None, None]
        found, chosen = _sparse_simplex(gram, influences, 1e-12 * len(targets))
        kept.append(found)
        places.append(own.gather(1, chosen))
    return torch.cat(kept), torch.cat(places)


def _sparse_simplex(gram: Tensor, influences: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Few entries of w that make w^T G w (V, C, C) small, w >= 0 with sum 1: the weights (V, K) and the indices of the entries.

    Entries are added greedily, the best one first; then each is exchanged if another one is better. If none improves the cost,
    the first entry is repeated with weight 0.
    """
    count, width = gram.shape[:2]
    gram = gram + ridge * torch.eye(width, dtype=gram.dtype)
    best, first = gram.diagonal(dim1=1, dim2=2).min(1)
    chosen, weights = first[:, None], torch.ones(count, 1, dtype=gram.dtype)
    most = min(influences, width)
    for step in range(2 * most - 1 if most > 1 else 0):
        is_exchange = step >= most - 1
        others = chosen[:, 1:] if is_exchange else chosen
        costs, entry, found = _best_addition(gram, others)
        is_better = (costs < _GAIN * best)[:, None]
        best = torch.where(is_better[:, 0], costs, best)
        kept = torch.cat([others, chosen[:, :1] if is_exchange else first[:, None]], 1)  # rotated, so that each entry is tried
        kept_weights = weights.roll(-1, 1) if is_exchange else torch.nn.functional.pad(weights, (0, 1))
        chosen = torch.where(is_better, torch.cat([others, entry[:, None]], 1), kept)
        weights = torch.where(is_better, found, kept_weights)
    weights = torch.where(weights < _MIN_WEIGHT, 0, weights)
    return weights / weights.sum(1, keepdim=True), chosen


def _best_addition(gram: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entry that together with `others` (V, K - 1) lowers w^T G w most: the cost, the entry and the weights (V, K)."""
    count, width = gram.shape[:2]
    rows, entries = torch.arange(count), torch.arange(width).expand(count, -1)
    sets = torch.cat([others[:, None].expand(-1, width, -1), entries[..., None]], -1)
    parts = gram[rows[:, None, None, None], sets[..., :, None], sets[..., None, :]]
    # The minimum of w^T G w with sum w = 1 is at w = G^-1 1 / (1^T G^-1 1).
    is_new = (others[:, None] != entries[..., None]).all(-1) & (others.sort(1).values.diff(dim=1) != 0).all(1)[:, None]
    parts = torch.where(is_new[..., None, None], parts, torch.eye(parts.shape[-1], dtype=gram.dtype))
    solved = torch.linalg.solve(parts, torch.ones_like(parts[..., 0]))
    sums = solved.sum(-1)
    costs, entry = torch.where(is_new & (solved >= 0).all(-1) & (sums > 0), 1 / sums, torch.inf).min(1)
    return costs, entry, solved[rows, entry] / sums[rows, entry, None]


def _solved_motions(points: Tensor, targets: Tensor, weights: Tensor, motions: Tensor, *, reseed: bool = True) -> Tensor:
    """Optimal motion of each joint, one after another, with fixed weights (V, J) and other joints."""
    motions = motions.clone()
    left = targets.clone()
    for joint in range(motions.shape[1]):
        rows = weights[:, joint].nonzero()[:, 0]
        left[:, rows] -= weights[rows, joint, None] * _moved(points[rows], motions[:, joint])
    for joint in range(motions.shape[1]):
        rows = weights[:, joint].nonzero()[:, 0]
        if len(rows) < 3:
            if reseed:  # unused: restart it where the others fit worst
                seed = int(left.square().sum((0, 2)).argmax())
                motions[:, joint] = _seeded(points, targets, seed)
            continue
        share = weights[rows, joint, None]
        own = left[:, rows] + share * _moved(points[rows], motions[:, joint])
        source, squares = points[rows].expand(len(targets), -1, -1), share[:, 0].square().expand(len(targets), -1)
        rotmats, shifts = kabsch(source, own / share, squares)
        motions[:, joint] = torch.cat([rotmats, shifts[..., None]], -1)
        left[:, rows] = own - share * _moved(points[rows], motions[:, joint])
    return motions


def _moved(points: Tensor, motions: Tensor) -> Tensor:
    return points @ motions[..., :3].mT + motions[:, None, :, 3]


def _dense(weights: Tensor, indices: Tensor, joints: int) -> Tensor:
    return weights.new_zeros(len(weights), joints).scatter_add_(1, indices, weights)
