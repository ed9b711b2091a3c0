"""TTT-Linear (Sun et al. 2024): one token after the other, and the form that takes a batch of tokens at a time.

Sequences are (groups, L, ...). The state of a head is a linear layer W, b in front of a batch of tokens and the sums of the
gradients G of the batch's tokens so far. The learning rate of token s for a reader t is rates_s places_t, so that
W_t = W - places_t sum_{s <= t} rates_s k_s^T G_s. G is the gradient of |LN(k W + b) - (v - k)|^2 / 2 by k W + b, at the state
in front of the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_EPSILON = 1e-6


class Layer(NamedTuple):
    """State of all heads."""

    weight: Tensor
    """(g, H, f, f)."""
    bias: Tensor
    """(g, H, f)."""
    v_weight: Tensor
    """(g, H, f, f), sum of the gradients in this batch."""
    v_bias: Tensor
    """(g, H, f)."""
    place: Tensor
    """(g,) int64, tokens of this batch so far."""


class Tokens(NamedTuple):
    """Inputs of all tokens."""

    q: Tensor
    """(g, L, H, f)."""
    k: Tensor
    """(g, L, H, f)."""
    v: Tensor
    """(g, L, H, f)."""
    rates: Tensor
    """(g, L, H) learning rates."""
    valid: Tensor
    """(g, L) bool, False behind the end of a group."""


def by_token(tokens: Tokens, places: Tensor, norm: tuple[Tensor, Tensor], layer: Layer) -> tuple[Tensor, Layer]:
    """One token after the other, from any state.

    Args:
        tokens: Inputs.
        places: (B,) factor of each place in a batch of B tokens.
        norm: Weight and bias (H, f) of the normalization.
        layer: State in front of the sequences.
    """
    q, k, v, rates, valid = tokens
    W, b, v_W, v_b, place = layer
    outputs = []
    for t in range(q.shape[1]):
        query, key, used = rotated(q[:, t], place), rotated(k[:, t], place), valid[:, t]
        G = _gradient(torch.einsum("ghi,ghij->ghj", key, W) + b, v[:, t] - key, *norm)
        step = (rates[:, t] * used[:, None])[..., None] * G
        v_W, v_b = v_W + key[..., None] * step[:, :, None], v_b + step
        factor = places[place][:, None, None]
        now, shift = W - factor[..., None] * v_W, b - factor * v_b
        outputs.append(query + _normed(torch.einsum("ghi,ghij->ghj", query, now) + shift, *norm))
        full = used & (place == len(places) - 1)
        of_W, of_b = full[:, None, None, None], full[:, None, None]
        W, b, v_W, v_b = torch.where(of_W, now, W), torch.where(of_b, shift, b), v_W * ~of_W, v_b * ~of_b
        place = (place + used.long()) % len(places)
    y = torch.stack(outputs, 1) if outputs else torch.zeros_like(q)
    return y, Layer(W, b, v_W, v_b, place)


def by_batch(tokens: Tokens, places: Tensor, norm: tuple[Tensor, Tensor], layer: Layer) -> tuple[Tensor, Layer]:
    """The same from a state in front of a batch: matrix products over the tokens of a batch, the paper's dual form.

    What depends on no state is computed for all batches together; only gradients and states follow one another.
    """
    size, length = len(places), tokens.q.shape[1]
    scale, shift = (value[:, None] for value in norm)
    W, b, v_W, v_b, _ = layer
    ends = tokens.valid.sum(1)
    if not length:
        return torch.zeros_like(tokens.q), Layer(W, b, v_W, v_b, ends % size)
    count = -(-length // size)

    def in_batches(x: Tensor) -> Tensor:
        """(g, L, ...) as (g, batches, B, ...), with zeros behind the end."""
        missing = x.new_zeros(len(x), count * size - length, *x.shape[2:])
        return torch.cat([x, missing], 1).unflatten(1, (count, size))

    index = torch.arange(size, device=places.device)
    weights = places[:, None] * (index[:, None] >= index)
    q, k, v = (in_batches(value) for value in tokens[:3])
    query, key = (rotated(value, index).transpose(2, 3) for value in (q, k))
    target = v.transpose(2, 3) - key
    rate = in_batches(tokens.rates * tokens.valid[..., None].to(tokens.rates.dtype)).transpose(2, 3)
    eta = weights * rate[:, :, :, None]
    shortest = int(ends.min()) if len(ends) else 0
    Ws, bs, Gs = [], [], []
    for number, (its_key, its_target, its_rate) in enumerate(zip(key.unbind(1), target.unbind(1), rate.unbind(1))):
        G = _gradient(its_key @ W + b[:, :, None], its_target, scale, shift)
        Ws.append(W)
        bs.append(b)
        Gs.append(G)
        step = its_rate[..., None] * G
        sums, shifts = its_key.mT @ step, step.sum(2)
        next_W, next_b = W - places[-1] * sums, b - places[-1] * shifts
        end = (number + 1) * size
        if end > shortest:  # some groups end in this batch or before
            full, last = ends >= end, (ends >= end - size) & (ends < end)
            next_W, next_b = torch.where(full[:, None, None, None], next_W, W), torch.where(full[:, None, None], next_b, b)
            v_W, v_b = torch.where(last[:, None, None, None], sums, v_W), torch.where(last[:, None, None], shifts, v_b)
        W, b = next_W, next_b
    z = query @ torch.stack(Ws, 1) + torch.stack(bs, 1)[..., None, :] - (eta * (query @ key.mT) + eta) @ torch.stack(Gs, 1)
    y = (query + _normed(z, scale, shift)).transpose(2, 3).flatten(1, 2)[:, :length]
    return y, Layer(W, b, v_W, v_b, ends % size)


def rotated(x: Tensor, place: Tensor) -> Tensor:
    """Channels i and i + f / 2 of x (..., H, f) turned by place 10000^(-2 i / f); place has the axes in front of H."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)
    angle = place.to(x.dtype)[..., None, None] * rates
    a, b = x.split(half, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def _normed(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centered = z - z.mean(-1, keepdim=True)
    return centered * torch.rsqrt(centered.square().mean(-1, keepdim=True) + _EPSILON) * weight + bias


def _gradient(z: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The gradient of |LN(z) - target|^2 / 2 by z."""
    centered = z - z.mean(-1, keepdim=True)
    inverse = torch.rsqrt(centered.square().mean(-1, keepdim=True) + _EPSILON)
    unit = centered * inverse
    v_unit = (unit * weight + bias - target) * weight
    return inverse * (v_unit - v_unit.mean(-1, keepdim=True) - unit * (v_unit * unit).mean(-1, keepdim=True))
