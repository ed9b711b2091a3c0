"""Linear attention and the delta rule by chunks of tokens: matrix products instead of a loop over tokens.

No exponent is positive: the decay between two tokens is always summed over the tokens between them, so strong decays underflow
to zero instead of overflowing (a cumulative sum over the whole chunk would need exp of its negative).
"""

import torch
from torch import Tensor

CHUNK = 32
_SMALL = 4  # tokens up to which all pairs are formed


def decayed_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, exclusive: bool = False, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The same as `recurrent.decayed_attention`; gradients of any order by torch.

    Args:
        chunk: Tokens of a chunk, a power of two of at least 4.
    """
    length = q.shape[1]
    if length == 0:
        return torch.zeros_like(v), state
    if exclusive:  # o_t = q_t S_{t-1}: the query of the next token reads the state of this one
        first = torch.einsum("ghk,ghkv->ghv", q[:, 0], state)[:, None]
        q = torch.nn.functional.pad(q[:, 1:], (0, 0, 0, 0, 0, 1))
    q, k, v, g = (_chunks(value, chunk) for value in (q, k, v, log_decay))  # (g, H, chunks, c, X)
    within = g.cumsum(-2)
    after = _sums_after(g)
    outputs = _scores(q, k, g) @ v
    from_start, to_end, total = q * within.exp(), (k * after.exp()).mT, within[..., -1, :].exp()[..., None]
    parts = []
    for i in range(q.shape[2]):
        parts.append(from_start[:, :, i] @ state)
        state = total[:, :, i] * state + to_end[:, :, i] @ v[:, :, i]
    o = _unchunked(outputs + torch.stack(parts, 2), length)
    if exclusive:
        o = torch.cat([first, o[:, :-1]], 1)
    return o, state


def _scores(q: Tensor, k: Tensor, g: Tensor) -> Tensor:
    """q_i k_j exp(g_{j+1} + ... + g_i) for j <= i, else 0: (..., c, c) from (..., c, K).

    The halves of the tokens are done in the same way; for a query of the second half and a key of the first, the decay is split
    at the border of the halves.
    """
    size = q.shape[-2]
    if size <= _SMALL:
        return torch.einsum("...ik,...jk,...ijk->...ij", q, k, pair_decay(g).expand(*q.shape[:-1], *k.shape[-2:]))
    halves = [value.unflatten(-2, (2, size // 2)) for value in (q, k, g)]
    same = _scores(*halves)
    q, k, g = halves
    late = q[..., 1, :, :] * g[..., 1, :, :].cumsum(-2).exp()
    early = k[..., 0, :, :] * _sums_after(g[..., 0, :, :]).exp()
    crossing = late @ early.mT
    upper = torch.cat([same[..., 0, :, :], torch.zeros_like(crossing)], -1)
    return torch.cat([upper, torch.cat([crossing, same[..., 1, :, :]], -1)], -2)


def pair_decay(g: Tensor) -> Tensor:
    """exp(g_{j+1} + ... + g_i) for j <= i, else 0: (..., c, c, K) from (..., c, K). One sum for each pair: no cancellation."""
    size = g.shape[-2]
    index = torch.arange(size, device=g.device)
    later = (index[:, None] > index)[..., None]
    sums = torch.where(later, g[..., :, None, :], 0).cumsum(-3)
    return torch.where((index[:, None] >= index)[..., None], sums.exp(), 0)


def _sums_after(g: Tensor) -> Tensor:
    """g_{j+1} + ... + g_c of each token j."""
    return torch.nn.functional.pad(g[..., 1:, :], (0, 0, 0, 1)).flip(-2).cumsum(-2).flip(-2)


def _chunks(value: Tensor, chunk: int) -> Tensor:
    """(g, L, H, X) -> (g, H, chunks, c, X), zeros behind the end."""
    count = -(-value.shape[1] // chunk)
    value = torch.nn.functional.pad(value, (0, 0, 0, 0, 0, count * chunk - value.shape[1]))
    return value.unflatten(1, (count, chunk)).permute(0, 3, 1, 2, 4).contiguous()


def _unchunked(value: Tensor, length: int) -> Tensor:
    return value.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length]


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """The same as `recurrent.delta_rule`; gradients of any order by torch.

    Inside a chunk the errors e_i = beta_i (v_i - k_i S) solve a unit lower triangular system (Yang et al. 2024, section 3.2),
    whose right side is linear in the state in front of the chunk.

    Args:
        chunk: Steps of a chunk: tokens times steps of a token, at least one token.
    """
    steps, length = k.shape[2], q.shape[1]
    if length == 0:
        return torch.zeros_like(v[:, :, 0]), state
    tokens = max(1, chunk // steps)
    log_decay = torch.nn.functional.pad(log_decay[:, :, None], (0, 0, 0, steps - 1))  # in front of a token's first step
    q = _chunks(q, tokens)
    rows = (k, v, beta[..., None], log_decay[..., None])
    k, v, beta, g = (_chunks(value.flatten(1, 2), tokens * steps) for value in rows)
    decay = pair_decay(g)[..., 0]  # (g, H, chunks, c, c)
    system = torch.tril(beta * (k @ k.mT) * decay, -1)
    from_start = g.cumsum(-2).exp()
    solved = torch.linalg.solve_triangular(
        system, torch.cat([beta * v, beta * from_start * k], -1), upper=False, unitriangular=True
    )  # fmt: skip
    own, by_state = solved.split([v.shape[-1], k.shape[-1]], -1)
    scores = (q @ k.mT) * decay[..., steps - 1 :: steps, :]
    reading = q * from_start[..., steps - 1 :: steps, :]
    adding, total = (k * _sums_after(g).exp()).mT, from_start[..., -1:, :]
    parts = []
    for i in range(q.shape[2]):
        errors = own[:, :, i] - by_state[:, :, i] @ state
        parts.append(reading[:, :, i] @ state + scores[:, :, i] @ errors)
        state = total[:, :, i] * state + adding[:, :, i] @ errors
    return _unchunked(torch.stack(parts, 2), length), state
