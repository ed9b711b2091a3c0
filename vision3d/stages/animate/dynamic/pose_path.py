"""Selection of one of several candidate poses per frame, jointly for all frames."""

from collections.abc import Sequence

from jaxtyping import Float, Float64
from torch import Tensor


def smoothest_path(
    times: Float64[Tensor, " t"],
    points: Sequence[Float[Tensor, "_ v 3"]],
    costs: Sequence[Float[Tensor, " _"]],
    weight: float,
) -> list[int]:
    """The path with the smallest sum of costs and of mean squared second differences of points in time (Viterbi 1967).

    Second differences let limbs pass each other; first differences would favor turning back.

    Args:
        times: Times of the frames [s], ascending.
        points: Points of each candidate in each frame.
        costs: Costs of the same candidates.
        weight: Weight of the squared second differences.

    Returns:
        The index of the candidate chosen for each frame.
    """
    if len(times) < 2:
        return [int(cost.argmin()) for cost in costs]
    # Smallest sums over all paths that end in these candidates of two adjacent frames.
    total, before = costs[0][:, None] + costs[1], []
    for i in range(2, len(times)):
        gap = float((times[i] - times[i - 1]) / (times[i - 1] - times[i - 2]))
        ahead = points[i - 1] + gap * (points[i - 1] - points[i - 2][:, None])
        jumps = (points[i] - ahead[:, :, None]).square().sum(-1).mean(-1)
        total, best = (total[..., None] + weight * jumps + costs[i]).min(0)
        before.append(best)
    path = list(divmod(int(total.argmin()), total.shape[1]))
    for best in reversed(before):
        path.insert(0, int(best[path[0], path[1]]))
    return path
