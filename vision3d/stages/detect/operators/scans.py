"""The recurrences of the operators on rows of groups: native on a CPU, by chunks in torch elsewhere.

All take rows (T, ...) and the `Groups` that these belong to, run forward or reversed in time, start from a state for each group
(zero when None) and return the outputs and the last states.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.reference import chunked, selective

State = Tensor


def selective_scan(
    x: Float[Tensor, "t d"],
    delta: Float[Tensor, "t d"],
    A: Float[Tensor, "d n"],
    B: Float[Tensor, "t n"],
    C: Float[Tensor, "t n"],
    groups: Groups,
    *,
    state: Float[Tensor, "g d n"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "t d"], Float[Tensor, "g d n"]]:
    """Mamba (Gu & Dao 2023): h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t, for each channel.

    Args:
        x: Values.
        delta: Step sizes >= 0.
        A: Negative rates.
        B: Input weights.
        C: Output weights.
        groups: Which rows belong together.
        state: h in front of each group.
        reverse: From the last row of each group to the first.

    Raises:
        ShapeError: A shape is wrong.
    """
    groups.check("x", x)
    if state is None:
        state = x.new_zeros((groups.count, *A.shape))
    first = state

    def chunks(x: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        return selective.selective_scan(x, delta, A, B, C, first)

    return _on_padded(chunks, groups, reverse, x, delta, B, C)


def decayed_attention(
    q: Float[Tensor, "t h k"],
    k: Float[Tensor, "t h k"],
    v: Float[Tensor, "t h v"],
    log_decay: Float[Tensor, "t h #k"],
    groups: Groups,
    *,
    state: Float[Tensor, "g h k v"] | None = None,
    reverse: bool = False,
    exclusive: bool = False,
) -> tuple[Float[Tensor, "t h v"], Float[Tensor, "g h k v"]]:
    """Linear attention with decay: S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t, o_t = q_t S_t (row vectors).

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        log_decay: g <= 0, one number for each key channel or for a head.
        groups: Which rows belong together.
        state: S in front of each group.
        reverse: From the last row of each group to the first.
        exclusive: o_t = q_t S_{t-1}, as in RWKV.

    Raises:
        ShapeError: A shape is wrong.
    """
    groups.check("q", q)
    if state is None:
        state = q.new_zeros((groups.count, *q.shape[1:], v.shape[-1]))
    first = state

    def chunks(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
        return chunked.decayed_attention(q, k, v, log_decay, first, exclusive)

    return _on_padded(chunks, groups, reverse, q, k, v, log_decay)


def _on_padded(
    function: Callable[..., tuple[Tensor, Tensor]], groups: Groups, reverse: bool, *rows: Any
) -> tuple[Tensor, Tensor]:
    """Call a function of (groups, L, ...); the zeros behind the end of a group must leave its state as it is."""
    if reverse:
        rows = tuple(groups.flipped(value) for value in rows)
    y, state = function(*(groups.padded(value) for value in rows))
    y = groups.unpadded(y)
    return groups.flipped(y) if reverse else y, state
