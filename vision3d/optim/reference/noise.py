"""Noise of MCMC in plain torch: counter-based normal numbers (Philox) and their addition to the means, in place."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.quaternion import quat_to_rotmat

_MASK = 0xFFFFFFFF


def philox(counter: Int64[Tensor, "n 4"], seed: int) -> Int64[Tensor, "n 4"]:
    """Philox 4x32-10 (Salmon et al. 2011): 32 random bits for each word of the counter, key: 64 bits of the seed."""
    key0, key1 = seed & _MASK, seed >> 32 & _MASK
    c0, c1, c2, c3 = counter.unbind(1)
    for _ in range(10):
        (high0, low0), (high1, low1) = _product(c0, 0xD2511F53), _product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0, key1 = (key0 + 0x9E3779B9) & _MASK, (key1 + 0xBB67AE85) & _MASK
    return torch.stack([c0, c1, c2, c3], 1)


def normals(seed: int, step: int, count: int, device: torch.device | str = "cpu") -> Float[Tensor, "n 3"]:
    """Standard normal numbers of rows 0 to `count` - 1 (Box and Muller 1958), float32, with the bits of the native kernel."""
    rows = torch.arange(count, device=device)
    words = (rows & _MASK, rows >> 32, torch.full_like(rows, step & _MASK), torch.full_like(rows, step >> 32))
    u = ((philox(torch.stack(words, 1), seed) >> 9).float() + 0.5) * 1.1920929e-7
    cosine, sine = _circle(u[:, 1])
    other, _ = _circle(u[:, 3])
    first, second = _radius(u[:, 0]), _radius(u[:, 2])
    return torch.stack([cosine * first, sine * first, other * second], 1)


def add_noise(
    means: Float[Tensor, "n 3"],
    log_scales: Float[Tensor, "n 3"],
    quats: Float[Tensor, "n 4"],
    opacity_logits: Float[Tensor, " n"],
    seed: int,
    step: int,
    strength: float,
    max_logit: float,
) -> None:
    """means += R diag(s^2) n strength sigmoid(-100 (opacity - 0.005)) except where the logit is at least `max_logit`."""
    factors = strength * torch.sigmoid(-100 * (torch.sigmoid(opacity_logits) - 0.005))
    noise = normals(seed, step, len(means), means.device).to(means)
    local = factors[:, None] * (2 * log_scales).exp() * noise
    moves = (quat_to_rotmat(quats) * local[:, None]).sum(-1)
    means += torch.where((opacity_logits >= max_logit)[:, None], 0, moves)


def _product(a: Int64[Tensor, " n"], b: int) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """High and low 32 bits of products of 32-bit numbers; int64 has no room for all 64 bits."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    middle = high + (low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | low & 0xFFFF


def _radius(u: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """sqrt(-2 ln u), by the series of 2 atanh; one operation after another, so that no compiler contracts them."""
    m, exponent = torch.frexp(u)
    m, exponent = 2 * m, exponent - 1
    is_upper = m > 1.41421356
    m, exponent = torch.where(is_upper, 0.5 * m, m), torch.where(is_upper, exponent + 1, exponent)
    s = (m - 1) / (m + 1)
    ss, series = s * s, torch.full_like(s, 1 / 9)
    for divisor in (7, 5, 3, 1):
        series = series * ss
        series = series + 1 / divisor
    log = exponent.float() * 0.69314718
    log = log + 2 * s * series
    return (-2 * log.clamp(max=0)).double().sqrt().float()  # torch.sqrt of float32 is off by one bit where it uses MKL


def _circle(v: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """cos and sin of 2 pi v, by Taylor series on an eighth of the circle."""
    quarter = (4 * v + 0.5).int()
    x = (4 * v - quarter) * 1.57079633
    sine, cosine = (_polynomial(x * x, terms) for terms in (range(9, 0, -2), range(10, -1, -2)))
    sine = x * sine
    is_odd, is_far = quarter % 2 == 1, (quarter & 2) == 2
    across, along = torch.where(is_odd, sine, cosine), torch.where(is_odd, cosine, sine)
    return torch.where(is_odd == is_far, across, -across), torch.where(is_far, -along, along)


def _polynomial(xx: Float[Tensor, " n"], degrees: range) -> Float[Tensor, " n"]:
    value = torch.zeros_like(xx)
    for index, degree in enumerate(degrees):
        sign = -1 if degree // 2 % 2 else 1
        value = value * xx if index else value
        value = value + sign / math.factorial(degree)
    return value
