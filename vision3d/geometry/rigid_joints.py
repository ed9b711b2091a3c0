"""Few rigid joints with sparse weights that reproduce moving vertices: smooth skinning decomposition (Le and Deng 2012).

Joints begin as clusters of vertices that move rigidly together, split where they fit worst. Then in turns the weights of each
vertex are solved with the joints held (at most K of them, none negative, sum 1), and the rigid motion of each joint with the
weights and the other joints held, which is a weighted Procrustes problem of its own for every frame.
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
"""Joints that are tried for a vertex: those that would move it best by themselves."""
_LEAST_WEIGHT = 1e-3
_GAIN = 1 - 1e-6
"""Less than this of the error is better."""
_SEED = 20
"""Vertices that the first motion of a new joint is fitted to."""
_ROUNDS = 3
"""Of clustering after each split."""
_FRAMES = 64
"""The most frames that clusters are judged by."""
_LEAST_COST = 1e-14
"""Squared share of the diagonal, summed over a cluster, that is rounding."""
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class RigidJoints:
    """J rigid joints of T frames: v' = sum_j w_j (R_j (v - g_j) + g_j + T_j)."""

    weights: Float[Tensor, "v k"]
    """Rows that sum to 1, none below 0."""
    indices: Int64[Tensor, "v k"]
    """Joints of each vertex."""
    centers: Float[Tensor, "j 3"]
    """Where the joints stand at rest: the mean of the vertices that follow them [m]."""
    quats: Float[Tensor, "t j 4"]
    """Rotations about the centres, wxyz."""
    translations: Float[Tensor, "t j 3"]
    """Shifts of the centres [m]."""


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
    """Joints, weights and motions whose linear blend is nearest to the frames, found by turns on the CPU.

    The same numbers every time; without gradients.

    Args:
        rest: Vertices at rest [m].
        frames: Vertices in each frame [m].
        count: The most joints; fewer where there are fewer vertices or clusters are rigid already.
        influences: The most joints a vertex, K.
        rounds: Of weights and motions in turns.
        weights: Given ones, such as those of a deformation graph; then the motions alone are fitted.
        indices: The joints of given weights.

    Raises:
        InputError: There are no vertices or frames, something is not finite, a count is below 1, or of weights and indices one
            is missing.
        ShapeError: The shapes do not match.
    """
    check_trailing("frames", frames, *rest.shape)
    if not frames.numel() or min(count, influences) < 1:
        text = f"got {len(frames)} frames of {len(rest)} vertices, {count} joints, {influences} a vertex"
        raise InputError(f"fit_rigid_joints: {text}; want at least one of each")
    if not bool(torch.isfinite(rest).all() and torch.isfinite(frames).all()):
        raise InputError("fit_rigid_joints: vertices are not finite")
    points, targets = rest.detach().cpu().double(), frames.detach().cpu().double()
    middle = points.mean(0)
    scale = float((points.amax(0) - points.amin(0)).norm()) or 1.0
    points, targets = (points - middle) / scale, (targets - middle) / scale
    if (weights is None) != (indices is None):
        raise InputError(f"fit_rigid_joints: got {'indices' if weights is None else 'weights'} alone; want both, or neither")
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
    """Rigid motions (T, 3, 4) of the vertices that have weight."""
    rows = weights.nonzero()[:, 0]
    source = points[rows].expand(len(targets), -1, -1)
    rotmats, shifts = kabsch(source, targets[:, rows], weights[rows].expand(len(targets), -1))
    return torch.cat([rotmats, shifts[..., None]], -1)


def _clustered(points: Tensor, targets: Tensor, count: int) -> Tensor:
    """Motions (T, J, 3, 4) of clusters, each vertex in the one whose motion brings it nearest to where it goes.

    One cluster after the other is split, the worst first: together they would all be split where the same part is to blame.
    """
    some = targets[:: -(-len(targets) // _FRAMES)]
    labels = torch.zeros(len(points), dtype=torch.int64)
    motions = _rigid(points, some, torch.ones(len(points), dtype=torch.float64))[:, None]
    is_whole = torch.zeros(len(points), dtype=torch.bool)  # of these a split made no more clusters
    while motions.shape[1] < count:
        errors = _costs(points, some, motions).gather(1, labels[:, None])[:, 0].masked_fill(is_whole, 0)
        sums = errors.new_zeros(motions.shape[1]).index_add_(0, labels, errors)
        worst = int(sums.argmax())
        if float(sums[worst]) <= _LEAST_COST * len(some):
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
    """The rigid motion (T, J, 3, 4) of each of J parts of the vertices."""
    members = torch.nn.functional.one_hot(labels).double()
    return torch.stack([_rigid(points, targets, own) for own in members.T], 1)


def _seeded(points: Tensor, targets: Tensor, seed: int) -> Tensor:
    """The motion (T, 3, 4) of a vertex and those nearest to it at rest."""
    nearest = knn(points, points[seed : seed + 1], min(_SEED, len(points)))[1][0]
    return _rigid(points, targets, torch.zeros(len(points), dtype=torch.float64).index_fill_(0, nearest, 1.0))


def _moments(points: Tensor, targets: Tensor, motions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over the frames of M_j^T M_l (J, J, 4, 4), of M_j^T y (V, J, 4) and of y^2 (V,), and vertices with a 1 behind."""
    count, joints = len(targets), motions.shape[1]
    columns = motions.permute(0, 2, 1, 3).reshape(3 * count, 4 * joints)
    places = targets.permute(1, 0, 2).reshape(-1, 3 * count)
    pairs = (columns.T @ columns).view(joints, 4, joints, 4).transpose(1, 2)
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    return pairs, (places @ columns).view(-1, joints, 4), places.square().sum(1), homogeneous


def _costs(points: Tensor, targets: Tensor, motions: Tensor) -> Tensor:
    """Squared distances (V, J), summed over the frames, between the vertices and where each joint would bring them."""
    pairs, mixed, squares, rows = _moments(points, targets, motions)
    own = torch.einsum("va,jab,vb->vj", rows, pairs.diagonal(dim1=0, dim2=1).permute(2, 0, 1), rows)
    return own - 2 * torch.einsum("vja,va->vj", mixed, rows) + squares[:, None]


def _solved_weights(points: Tensor, targets: Tensor, motions: Tensor, influences: int) -> tuple[Tensor, Tensor]:
    """The best weights with the joints held, by greedy choice of one joint after the other among the nearest."""
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
    """Few entries of w that make w^T G w (V, C, C) small, w >= 0 with sum 1: the weights (V, K) and which entries.

    One entry after the other is added, the one that helps most; then each is exchanged where another helps more. Where none
    helps, the first stands there again with weight 0.
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
        kept = torch.cat([others, chosen[:, :1] if is_exchange else first[:, None]], 1)  # in turn, so that each is tried
        kept_weights = weights.roll(-1, 1) if is_exchange else torch.nn.functional.pad(weights, (0, 1))
        chosen = torch.where(is_better, torch.cat([others, entry[:, None]], 1), kept)
        weights = torch.where(is_better, found, kept_weights)
    weights = torch.where(weights < _LEAST_WEIGHT, 0, weights)
    return weights / weights.sum(1, keepdim=True), chosen


def _best_addition(gram: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entry that lowers w^T G w most beside `others` (V, K - 1): the cost, the entry and the weights (V, K)."""
    count, width = gram.shape[:2]
    rows, entries = torch.arange(count), torch.arange(width).expand(count, -1)
    sets = torch.cat([others[:, None].expand(-1, width, -1), entries[..., None]], -1)
    parts = gram[rows[:, None, None, None], sets[..., :, None], sets[..., None, :]]
    # The least of w^T G w with sum w = 1 is at w = G^-1 1 / (1^T G^-1 1).
    is_new = (others[:, None] != entries[..., None]).all(-1) & (others.sort(1).values.diff(dim=1) != 0).all(1)[:, None]
    parts = torch.where(is_new[..., None, None], parts, torch.eye(parts.shape[-1], dtype=gram.dtype))
    solved = torch.linalg.solve(parts, torch.ones_like(parts[..., 0]))
    sums = solved.sum(-1)
    costs, entry = torch.where(is_new & (solved >= 0).all(-1) & (sums > 0), 1 / sums, torch.inf).min(1)
    return costs, entry, solved[rows, entry] / sums[rows, entry, None]


def _solved_motions(points: Tensor, targets: Tensor, weights: Tensor, motions: Tensor, *, reseed: bool = True) -> Tensor:
    """Each joint's best motion with the weights (V, J) and the other joints held, one joint after the other."""
    motions = motions.clone()
    left = targets.clone()
    for joint in range(motions.shape[1]):
        rows = weights[:, joint].nonzero()[:, 0]
        left[:, rows] -= weights[rows, joint, None] * _moved(points[rows], motions[:, joint])
    for joint in range(motions.shape[1]):
        rows = weights[:, joint].nonzero()[:, 0]
        if len(rows) < 3:
            if reseed:  # nobody wants it: it starts again where the others fit worst
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
