"""The recurrences of the operators on rows of groups: native on a CPU, by chunks in torch elsewhere.

All take rows (T, ...) and the `Groups` that these belong to, run forward or reversed in time, start from a state for each group
(zero when None) and return the outputs and the last states.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core import native
from vision3d.stages.detect.operators import native_scans
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.reference import chunked, selective

Last = TypeVar("Last")


def selective_scan(
    x: Float[Tensor, "t d"],
    delta: Float[Tensor, "t d"],
    A: Float[Tensor, "d n"],
    B: Float[Tensor, "t n"],
    C: Float[Tensor, "t n"],
    groups: Groups,
    *,
    skip: Float[Tensor, " d"] | None = None,
    state: Float[Tensor, "g d n"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "t d"], Float[Tensor, "g d n"]]:
    """Mamba (Gu & Dao 2023): h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t + skip x_t, for each channel.

    Args:
        x: Values.
        delta: Step sizes >= 0.
        A: Negative rates.
        B: Input weights.
        C: Output weights.
        groups: Which rows belong together.
        skip: Weight of x in the output; none when None.
        state: h in front of each group.
        reverse: From the last row of each group to the first.

    Raises:
        ShapeError: A shape is wrong.
    """
    groups.check("x", x)
    if state is None:
        state = x.new_zeros((groups.count, *A.shape))
    first = state
    if _is_native(x):
        weights = x.new_zeros(x.shape[1]) if skip is None else skip
        return native_scans.selective_scan(x, delta, A, B, C, weights, first, groups.starts, reverse)

    def chunks(x: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        return selective.selective_scan(x, delta, A, B, C, first)

    y, last = on_padded(chunks, groups, reverse, x, delta, B, C)
    return y if skip is None else torch.addcmul(y, x, skip), last


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
    if _is_native(q):
        return native_scans.decayed_attention(q, k, v, log_decay, first, groups.starts, reverse, exclusive)

    def chunks(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
        return chunked.decayed_attention(q, k, v, log_decay, first, exclusive)

    return on_padded(chunks, groups, reverse, q, k, v, log_decay)


def delta_rule(
    q: Float[Tensor, "t h k"],
    k: Float[Tensor, "t n h k"],
    v: Float[Tensor, "t n h v"],
    beta: Float[Tensor, "t n h"],
    log_decay: Float[Tensor, "t h"] | None,
    groups: Groups,
    *,
    state: Float[Tensor, "g h k v"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "t h v"], Float[Tensor, "g h k v"]]:
    """DeltaNet (Yang et al. 2024): S <- S + beta k^T (v - k S), n steps a token (DeltaProduct), then o = q S (row vectors).

    Args:
        q: Queries.
        k: Keys of length 1.
        v: Values.
        beta: Step sizes from 0 to 2: 1 replaces what S has for the key, 2 reflects.
        log_decay: S is scaled by exp of it in front of each token (Gated DeltaNet); <= 0, no decay when None.
        groups: Which rows belong together.
        state: S in front of each group.
        reverse: From the last row of each group to the first; the steps of a token keep their order.

    Raises:
        ShapeError: A shape is wrong.
    """
    groups.check("q", q)
    if state is None:
        state = q.new_zeros((groups.count, *q.shape[1:], v.shape[-1]))
    first, gate = state, q.new_zeros(q.shape[:2]) if log_decay is None else log_decay
    if _is_native(q):
        return native_scans.delta_rule(q, k, v, beta, gate, first, groups.starts, reverse)

    def chunks(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        return chunked.delta_rule(q, k, v, beta, gate, first)

    return on_padded(chunks, groups, reverse, q, k, v, beta, gate)


def running_max(
    values: Float[Tensor, "t h"],
    log_decay: Float[Tensor, "t h"],
    groups: Groups,
    first: Float[Tensor, "g h"] | None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "t h"], Float[Tensor, "t h"], Float[Tensor, "g h"]]:
    """m_t = max(g_t + m_{t-1}, x_t) of each row, m of the row before (m_t where there is none), and the last of each group.

    Args:
        values: x.
        log_decay: g.
        groups: Which rows belong together.
        first: m in front of each group; -inf when None.
        reverse: From the last row of each group to the first.
    """
    if first is None:
        first = values.new_full((groups.count, values.shape[1]), -torch.inf)
    start = first.double()[:, None]

    def scan(valid: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        sums = torch.cat([torch.zeros_like(start), g.double().cumsum(1)], 1)  # double: differences of large sums
        x = torch.where(valid > 0, x.double() - sums[:, 1:], -torch.inf)
        m = torch.cat([start, x], 1).cummax(1).values + sums
        return torch.cat([m[:, 1:], m[:, :-1]], -1), m[:, -1]

    both, last = on_padded(scan, groups, reverse, torch.ones_like(values[:, :1]), values, log_decay)
    m, before = both.to(values.dtype).chunk(2, -1)
    return m, torch.where(before.isfinite(), before, m), last.to(values.dtype)


def _is_native(rows: Tensor) -> bool:
    return rows.dtype in (torch.float32, torch.float64) and native.is_plain(rows)


def on_padded(function: Callable[..., tuple[Tensor, Last]], groups: Groups, reverse: bool, *rows: Any) -> tuple[Tensor, Last]:
    """Call a function of (groups, L, ...); the zeros behind the end of a group must leave its state as it is."""
    if reverse:
        rows = tuple(groups.flipped(value) for value in rows)
    y, state = function(*(groups.padded(value) for value in rows))
    y = groups.unpadded(y)
    return groups.flipped(y) if reverse else y, state
