"""The recurrences as written, one token after the other: what all other forms are compared with.

Sequences are (groups, L, ...); a state S has one axis for keys and one for values, and o_t = q_t S_t as row vectors.
"""

import torch
from torch import Tensor


def selective_scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Mamba (Gu & Dao 2023): h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t, a state for each channel.

    Args:
        x: (g, L, D).
        delta: (g, L, D) step sizes >= 0.
        A: (D, N), negative.
        B: (g, L, N) input weights.
        C: (g, L, N) output weights.
        state: (g, D, N).

    Returns:
        y (g, L, D) and the last state.
    """
    outputs = []
    for t in range(x.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        outputs.append((state * C[:, t, None]).sum(-1))
    return _stacked(outputs, x), state


def decayed_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor, exclusive: bool = False
) -> tuple[Tensor, Tensor]:
    """Linear attention with decay: S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t.

    o_t = q_t S_t, or q_t S_{t-1} if exclusive. RetNet (Sun et al. 2023) has a constant g, GLA (Yang et al. 2023) one for each
    token and channel, RWKV-6 (Peng et al. 2024) too, exclusive, with a bonus added outside; mLSTM (Beck et al. 2024) one for
    each token and head.

    Args:
        q: (g, L, H, K).
        k: (g, L, H, K).
        v: (g, L, H, V).
        log_decay: (g, L, H, K), or (g, L, H, 1) for a decay per head; <= 0.
        state: (g, H, K, V).
    """
    outputs = []
    for t in range(q.shape[1]):
        before = state
        state = torch.exp(log_decay[:, t, ..., None]) * state + k[:, t, ..., None] * v[:, t, :, None]
        outputs.append((q[:, t, ..., None] * (before if exclusive else state)).sum(-2))
    return _stacked(outputs, v), state


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """DeltaNet (Yang et al. 2024): S <- S + beta k^T (v - k S), n steps a token (DeltaProduct, Siems et al. 2025).

    The state is scaled by exp(g_t) before a token's first step (Gated DeltaNet, Yang et al. 2025).

    Args:
        q: (g, L, H, K).
        k: (g, L, n, H, K), of length 1.
        v: (g, L, n, H, V).
        beta: (g, L, n, H), 0 to 2.
        log_decay: (g, L, H), <= 0.
        state: (g, H, K, V).
    """
    outputs = []
    for t in range(q.shape[1]):
        state = torch.exp(log_decay[:, t, :, None, None]) * state
        for j in range(k.shape[2]):
            key = k[:, t, j, :, :, None]
            error = v[:, t, j] - (key * state).sum(-2)
            state = state + key * (beta[:, t, j, :, None] * error)[:, :, None]
        outputs.append((q[:, t, ..., None] * state).sum(-2))
    return _stacked(outputs, v[:, :, 0]), state


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, log_forget: Tensor, state: Tensor, n: Tensor, m: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """mLSTM (Beck et al. 2024) with its stabilizer m.

    m_t = max(log f_t + m_{t-1}, log i_t), f' = exp(log f_t + m_{t-1} - m_t), i' = exp(log i_t - m_t), C_t = f' C_{t-1} +
    i' k_t^T v_t / sqrt(K), n_t = f' n_{t-1} + i' k_t / sqrt(K), h_t = q_t C_t / max(|q_t n_t|, exp(-m_t)).

    Args:
        q: (g, L, H, K).
        k: (g, L, H, K).
        v: (g, L, H, V).
        input_gate: (g, L, H), log i.
        log_forget: (g, L, H), log f.
        state: C (g, H, K, V).
        n: (g, H, K).
        m: (g, H).
    """
    outputs = []
    for t in range(q.shape[1]):
        now = torch.maximum(log_forget[:, t] + m, input_gate[:, t])
        fade, write = torch.exp(log_forget[:, t] + m - now)[..., None], torch.exp(input_gate[:, t] - now)[..., None]
        key, m = k[:, t] * k.shape[-1] ** -0.5 * write, now
        state = fade[..., None] * state + key[..., None] * v[:, t, :, None]
        n = fade * n + key
        length = torch.maximum((q[:, t] * n).sum(-1).abs(), torch.exp(-m))
        outputs.append((q[:, t, ..., None] * state).sum(-2) / length[..., None])
    return _stacked(outputs, v), (state, n, m)


def _stacked(outputs: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(outputs, 1) if outputs else like.new_zeros(like.shape)
