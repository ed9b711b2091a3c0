"""Real spherical harmonics of a direction, degrees 0 to 4, in plain torch.

Order inside a band m = -l .. l, with the signs that Gaussian scenes use: band 1 is (-y, z, -x) * sqrt(3 / 4 pi).
Source: P.-P. Sloan, Efficient Spherical Harmonic Evaluation, JCGT 2013 (the same functions, there with a recurrence).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def _norm(degree: int, order: int) -> float:
    """Normalisation of the real harmonic (l, m), with sqrt(2) for m > 0."""
    ratio = math.factorial(degree - order) / math.factorial(degree + order)
    return math.sqrt((2 if order else 1) * (2 * degree + 1) / (4 * math.pi) * ratio)


# Factors of the polynomials in `basis`, row l holds m = 0 .. l.
_NORMS = [[_norm(degree, order) for order in range(degree + 1)] for degree in range(5)]


def basis(directions: Float[Tensor, "*n 3"], degree: int) -> Float[Tensor, "*n k"]:
    """The (degree + 1)^2 basis functions at unit directions.

    Y_lm = N_lm P_l^m(z) / sin^m * Im or Re (x + i y)^m, with the Condon-Shortley sign (-1)^m that P_l^m carries.
    """
    x, y, z = directions.unbind(-1)
    # Derivatives of Legendre polynomials, P_l^m / sin^m without its sign.
    legendre = {
        (0, 0): torch.ones_like(z),
        (1, 0): z,
        (1, 1): torch.ones_like(z),
        (2, 0): 0.5 * (3 * z * z - 1),
        (2, 1): 3 * z,
        (2, 2): torch.full_like(z, 3),
        (3, 0): 0.5 * z * (5 * z * z - 3),
        (3, 1): 1.5 * (5 * z * z - 1),
        (3, 2): 15 * z,
        (3, 3): torch.full_like(z, 15),
        (4, 0): 0.125 * (35 * z**4 - 30 * z * z + 3),
        (4, 1): 2.5 * z * (7 * z * z - 3),
        (4, 2): 7.5 * (7 * z * z - 1),
        (4, 3): 105 * z,
        (4, 4): torch.full_like(z, 105),
    }
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]  # Re and Im of (x + i y)^m
    for _ in range(degree):
        cosines, sines = (
            [*cosines, x * cosines[-1] - y * sines[-1]],
            [*sines, x * sines[-1] + y * cosines[-1]],
        )
    columns = []
    for l in range(degree + 1):
        for m in range(-l, l + 1):
            order = abs(m)
            wave = sines[order] if m < 0 else cosines[order]
            columns.append((-1) ** order * _NORMS[l][order] * legendre[l, order] * wave)
    return torch.stack(columns, -1)
