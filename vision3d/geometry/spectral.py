"""Equations with symmetric matrices, solved in their eigenbasis, with finite gradients of any order everywhere.

Plain autograd of an eigen- or singular value decomposition divides by differences of eigenvalues and gives NaN if two are
equal. Here no decomposition is differentiated: the derivative of each solution follows from the equation, in reverse and in
forward mode.
"""

import functools
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


def lyapunov(symmetric: Float[Tensor, "*batch n n"], right: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """X with S X + X S = A, for the symmetric part of S.

    Pairs of eigenvalues of S with zero sum (up to rounding) have no solution; X is zero in their plane.
    """
    return _Lyapunov.solve((symmetric + symmetric.mT) / 2, right)


def pseudo_solve(symmetric: Float[Tensor, "*batch n n"], right: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """x with S x = b for the symmetric part of S; zero along eigenvectors with eigenvalue zero (up to rounding)."""
    return _PseudoSolve.solve((symmetric + symmetric.mT) / 2, right)


def least_eigenvector(symmetric: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    """Unit eigenvectors of the smallest eigenvalue of the symmetric part, of either sign.

    If that eigenvalue is a double one, any vector of its plane may be returned, and rotations within the plane get no gradient.
    """
    symmetric = (symmetric + symmetric.mT) / 2
    return _LeastEigenvector.solve(symmetric / largest_entry(symmetric))


def sqrt_spd(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Square roots of symmetric positive definite matrices; negative eigenvalues (rounding) count as zero."""
    return _Sqrt.solve((matrices + matrices.mT) / 2)


def log_spd(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Symmetric logarithms of symmetric positive definite matrices; eigenvalues are clamped to the smallest positive float."""
    return _Log.solve((matrices + matrices.mT) / 2)


def matrix_exp(matrices: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Exponentials of square matrices; torch.linalg.matrix_exp, to full precision.

    Torch uses too few terms for a single matrix with a norm of 0.01 to 0.05 (error 1e-11 in float64, seen in 2.13); in a
    batch of two both are accurate.
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
    """Matrices with entries of about 1 whose tiniest entries are set to zero: LAPACK fails or gives NaN near underflow."""
    info = torch.finfo(matrices.dtype)
    return torch.where(matrices.abs() < info.tiny / info.eps, 0, matrices)


def svd(matrices: Float[Tensor, "*batch n n"]) -> tuple[Float[Tensor, "*batch n n"], Float[Tensor, "*batch n n"]]:
    """U and V^T of the singular value decomposition, without gradient; NaN for matrices that are not finite."""
    scaled, is_finite = _for_lapack(matrices, largest_entry(matrices))
    left, _, right = torch.linalg.svd(scaled)
    return torch.where(is_finite, left, torch.nan), torch.where(is_finite, right, torch.nan)


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    scale = largest_entry(symmetric)
    scaled, is_finite = _for_lapack(symmetric, scale)
    values, axes = torch.linalg.eigh(scaled)
    return torch.where(is_finite[..., 0], values * scale[..., 0], torch.nan), torch.where(is_finite, axes, torch.nan)


def _for_lapack(matrices: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices scaled to entries of about 1, and a mask of finite ones: one NaN makes LAPACK reject the batch, or hang."""
    is_finite = matrices.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return without_dust(torch.where(is_finite, matrices / scale, 0)), is_finite


class Solved(torch.autograd.Function):
    """A function whose derivative is an equation in its first argument and its result, both saved for it.

    A subclass has `forward`, `backward` and `tangent`: the tangent of the result, from the first argument, the result, and the
    tangents of the arguments.
    """

    generate_vmap_rule = True
    tangent: ClassVar[Callable[..., Tensor]]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)  # vmap requires the same in both

    @classmethod
    def solve(cls, *arguments: Tensor) -> Tensor:
        """Like `apply`, but also differentiable in forward mode, which the compiler cannot trace in an autograd function."""
        chosen = cls if torch.compiler.is_compiling() else _with_tangents(cls)
        return chosen.apply(*arguments)  # pyright: ignore[reportReturnType]


@functools.cache
def _with_tangents(solved: type[Solved]) -> type[Solved]:
    def jvp(ctx, *tangents: Tensor | None) -> Tensor:
        first, result = ctx.saved_tensors
        like = (first, result)  # a second argument has the shape of the result
        known = [torch.zeros_like(value) if tangent is None else tangent for value, tangent in zip(like, tangents)]
        return solved.tangent(first, result, *known)

    return type(solved.__name__, (solved,), {"jvp": staticmethod(jvp)})


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
        v_right = _Lyapunov.solve(symmetric, v)
        return -(v_right @ solution.mT + solution.mT @ v_right), v_right

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        d_symmetric, d_right = tangents
        return _Lyapunov.solve(first, d_right - d_symmetric @ result - result @ d_symmetric)


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
        v_right = _PseudoSolve.solve(symmetric, v)
        return -v_right[..., :, None] * solution[..., None, :], v_right

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        d_symmetric, d_right = tangents
        return _PseudoSolve.solve(first, d_right - (d_symmetric @ result[..., None]).squeeze(-1))


class _LeastEigenvector(Solved):
    @staticmethod
    def forward(symmetric: Tensor) -> Tensor:
        return _eigh(symmetric)[1][..., 0].clone()  # forward mode does not accept a view

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        symmetric, axis = ctx.saved_tensors
        return -_LeastEigenvector._moved(symmetric, axis, v)[..., :, None] * axis[..., None, :]

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        return -_LeastEigenvector._moved(first, result, (tangents[0] @ result[..., None]).squeeze(-1))

    @staticmethod
    def _moved(symmetric: Tensor, axis: Tensor, v: Tensor) -> Tensor:
        """x orthogonal to the eigenvector with (S - value) x = the orthogonal part of v."""
        value = (axis[..., None, :] @ symmetric @ axis[..., :, None]).squeeze(-1)
        eye = torch.eye(axis.shape[-1], dtype=axis.dtype, device=axis.device)
        across = v - (v * axis).sum(-1, keepdim=True) * axis
        # The eigenvector itself is excluded from the null space, so that only the gap to the next eigenvalue matters.
        shifted = symmetric - value[..., None] * eye + axis[..., :, None] * axis[..., None, :]
        moved = pseudo_solve(shifted, across)
        return moved - (moved * axis).sum(-1, keepdim=True) * axis


class _Sqrt(Solved):
    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        values, axes = _eigh(matrices)
        return (axes * values.clamp(min=0).sqrt()[..., None, :]) @ axes.mT

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return lyapunov(ctx.saved_tensors[1], v)

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        return lyapunov(result, tangents[0])


class _Log(Solved):
    @staticmethod
    def forward(matrices: Tensor) -> Tensor:
        values, axes = _eigh(matrices)
        return (axes * values.clamp(min=torch.finfo(values.dtype).tiny).log()[..., None, :]) @ axes.mT

    @staticmethod
    def backward(ctx, v: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _InverseDexp.solve(ctx.saved_tensors[1], (v + v.mT) / 2)

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        return _InverseDexp.solve(result, tangents[0])


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
        v_right = _InverseDexp.solve(symmetric, (v + v.mT) / 2)
        return -_second_dexp(symmetric, v_right, solution), v_right

    @staticmethod
    def tangent(first: Tensor, result: Tensor, *tangents: Tensor) -> Tensor:
        d_symmetric, d_right = tangents
        return _InverseDexp.solve(first, d_right - _second_dexp(first, d_symmetric, result))


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
