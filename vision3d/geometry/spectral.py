"""Equations with symmetric matrices, solved in their eigenbasis, with gradients of any order that are finite everywhere.

Plain autograd of an eigen- or singular value decomposition divides by differences of eigenvalues, and is not a number where
two are equal. What is differentiated here never is a decomposition: each solution gives its own derivative by the equation.
Forward mode (jvp) is not written.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def lyapunov(symmetric: Float[Tensor, "*batch n n"], right: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """X with S X + X S = A, for the symmetric part of S.

    Pairs of eigenvalues of S whose sum is zero (to rounding) have no solution, and there X is zero in their plane.
    """
    return _Lyapunov.apply((symmetric + symmetric.mT) / 2, right)


def pseudo_solve(symmetric: Float[Tensor, "*batch n n"], right: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """x with S x = b for the symmetric part of S; zero along eigenvectors whose eigenvalue is zero (to rounding)."""
    return _PseudoSolve.apply((symmetric + symmetric.mT) / 2, right)


def least_eigenvector(symmetric: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    """Unit eigenvectors of the smallest eigenvalue of the symmetric part, of either sign.

    Where that eigenvalue is a double one the vector is any one of its plane, and turns within it get no gradient.
    """
    symmetric = (symmetric + symmetric.mT) / 2
    return _LeastEigenvector.apply(symmetric / largest_entry(symmetric))


def sqrt_spd(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Square roots of symmetric positive definite matrices; negative eigenvalues (rounding) count as zero."""
    return _Sqrt.apply((matrices + matrices.mT) / 2)


def log_spd(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Symmetric logarithms of symmetric positive definite matrices; eigenvalues below the least float count as that."""
    return _Log.apply((matrices + matrices.mT) / 2)


def matrix_exp(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Exponentials of square matrices; torch.linalg.matrix_exp, to full precision.

    Torch takes too few terms for a matrix that is alone and has a norm of 0.01 to 0.05 (1e-11 wrong in float64, seen in 2.13);
    of two, both are right.
    """
    if matrices[..., 0, 0].numel() != 1:
        return torch.linalg.matrix_exp(matrices)
    return torch.linalg.matrix_exp(torch.stack([matrices, matrices]))[0]


def exp_symmetric(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Symmetric positive definite exponentials of symmetric matrices."""
    matrices = (matrices + matrices.mT) / 2
    found = matrix_exp(matrices)
    return (found + found.mT) / 2


def largest_entry(matrices: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch 1 1"]:
    """The largest entry of each matrix, without gradient; 1 where its inverse would be infinite."""
    scale = matrices.detach().abs().amax((-2, -1), keepdim=True)
    return torch.where(scale < 4 * torch.finfo(scale.dtype).tiny, 1, scale)


def without_dust(matrices: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
    """Matrices with entries of about 1 whose tiniest entries are zero: LAPACK gives NaN, or up, on numbers near underflow."""
    info = torch.finfo(matrices.dtype)
    return torch.where(matrices.abs() < info.tiny / info.eps, 0, matrices)


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    scale = largest_entry(symmetric)
    values, axes = torch.linalg.eigh(without_dust(symmetric / scale))
    return values * scale[..., 0], axes


class Solved(torch.autograd.Function):
    """A function whose derivative is an equation of its first argument and its result, of which it keeps both."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0], output)


class _Lyapunov(Solved):
    @staticmethod
    def forward(symmetric: Tensor, right: Tensor) -> Tensor:
        values, axes = _eigh(symmetric)
        sums = values[..., :, None] + values[..., None, :]
        is_singular = _is_zero(sums, values)
        inner = torch.where(is_singular, 0, axes.mT @ right @ axes / torch.where(is_singular, 1, sums))
        return axes @ inner @ axes.mT

    @staticmethod
    def backward(ctx, v: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        symmetric, solution = ctx.saved_tensors
        v_right = _Lyapunov.apply(symmetric, v)
        return -(v_right @ solution.mT + solution.mT @ v_right), v_right


class _PseudoSolve(Solved):
    @staticmethod
    def forward(symmetric: Tensor, right: Tensor) -> Tensor:
        values, axes = _eigh(symmetric)
        is_singular = _is_zero(values, values)
        inner = (axes.mT @ right[..., None]).squeeze(-1)
        inner = torch.where(is_singular, 0, inner / torch.where(is_singular, 1, values))
        return (axes @ inner[..., None]).squeeze(-1)

    @staticmethod
    def backward(ctx, v: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        symmetric, solution = ctx.saved_tensors
        v_right = _PseudoSolve.apply(symmetric, v)
        return -v_right[..., :, None] * solution[..., None, :], v_right


class _LeastEigenvector(Solved):
    @staticmethod
    def forward(symmetric: Tensor) -> Tensor:
        return _eigh(symmetric)[1][..., 0]

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        symmetric, axis = ctx.saved_tensors
        value = (axis[..., None, :] @ symmetric @ axis[..., :, None]).squeeze(-1)
        eye = torch.eye(axis.shape[-1], dtype=axis.dtype, device=axis.device)
        across = v - (v * axis).sum(-1, keepdim=True) * axis
        # The vector itself is taken out of the null space, so that the gap of the next eigenvalue decides alone.
        shifted = symmetric - value[..., None] * eye + axis[..., :, None] * axis[..., None, :]
        moved = pseudo_solve(shifted, across)
        moved = moved - (moved * axis).sum(-1, keepdim=True) * axis
        return -moved[..., :, None] * axis[..., None, :]


class _Sqrt(Solved):
    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        values, axes = _eigh(matrices)
        return (axes * values.clamp(min=0).sqrt()[..., None, :]) @ axes.mT

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return lyapunov(ctx.saved_tensors[1], v)


class _Log(Solved):
    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        values, axes = _eigh(matrices)
        return (axes * values.clamp(min=torch.finfo(values.dtype).tiny).log()[..., None, :]) @ axes.mT

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _InverseDexp.apply(ctx.saved_tensors[1], (v + v.mT) / 2)


class _InverseDexp(Solved):
    """X with Dexp(Y)[X] = A, the derivative of the exponential at the symmetric Y."""

    @staticmethod
    def forward(symmetric: Tensor, right: Tensor) -> Tensor:
        values, axes = _eigh(symmetric)
        half = (values[..., :, None] - values[..., None, :]) / 2
        mean = (values[..., :, None] + values[..., None, :]) / 2
        is_small = half.abs() < 1e-4
        safe = torch.where(is_small, 1, half)
        ratio = torch.where(is_small, 1 + half.square() / 6, safe.sinh() / safe)
        return axes @ (axes.mT @ right @ axes / (ratio * mean.exp())) @ axes.mT

    @staticmethod
    def backward(ctx, v: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        symmetric, solution = ctx.saved_tensors
        v_right = _InverseDexp.apply(symmetric, (v + v.mT) / 2)
        return -_second_dexp(symmetric, v_right, solution), v_right


def _second_dexp(symmetric: Tensor, first: Tensor, second: Tensor) -> Tensor:
    # D^2 exp(Y)[A, B] is the corner of the exponential of [[Y, A, .], [., Y, B], [., ., Y]], plus that with A, B swapped.
    n = symmetric.shape[-1]
    zero = torch.zeros_like(symmetric)

    def corner(a: Tensor, b: Tensor) -> Tensor:
        rows = [
            torch.cat([symmetric, a, zero], -1),
            torch.cat([zero, symmetric, b], -1),
            torch.cat([zero, zero, symmetric], -1),
        ]
        return matrix_exp(torch.cat(rows, -2))[..., :n, 2 * n :]

    return corner(first, second) + corner(second, first)


def _is_zero(numbers: Tensor, values: Tensor) -> Tensor:
    largest = values.abs().amax(-1)[(..., *[None] * (numbers.ndim - values.ndim + 1))]
    return numbers.abs() <= 4 * torch.finfo(values.dtype).eps * largest
