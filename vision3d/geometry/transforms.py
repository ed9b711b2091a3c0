"""Rigid motions and similarities as objects that compose, invert and apply, instead of raw matrices."""

import abc
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.geometry import se3
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.groups import sim3
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat

Points = Float[Tensor, "*#batch 3"]


class _Transform(abc.ABC):
    """Base of both classes: a batch of x' = A x + t that is indexed, broadcast and moved between devices as one."""

    rotmats: Float[Tensor, "*batch 3 3"]
    translations: Float[Tensor, "*batch 3"]

    @classmethod
    @abc.abstractmethod
    def from_matrix(cls, matrices: Float[Tensor, "*batch 4 4"]) -> Self:
        """From 4x4 matrices. The values are not checked, so this works under `torch.compile` and `vmap`."""

    @abc.abstractmethod
    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        """The 4x4 matrices [A t; 0 1]."""

    @property
    def shape(self) -> torch.Size:
        """Batch shape; () for a single transform."""
        return self.translations.shape[:-1]

    @property
    def quats(self) -> Float[Tensor, "*batch 4"]:
        """Unit quaternions of the rotations."""
        return rotmat_to_quat(self.rotmats)

    def apply(self, points: Points) -> Points:
        """A x + t, one point per transform: axes broadcast, `T[:, None].apply(points)` applies each of T to n points."""
        check_trailing("points", points, 3)
        return self.apply_vectors(points) + self.translations

    @abc.abstractmethod
    def apply_vectors(self, vectors: Points) -> Points:
        """A x: transforms differences of points."""

    def __getitem__(self, index: Any) -> Self:
        """Part of the batch; indexed like a tensor of shape `shape`."""
        index = index if isinstance(index, tuple) else (index,)
        index = index if Ellipsis in index else (*index, Ellipsis)
        return type(self)(*(value[(*index, *[slice(None)] * own)] for value, own in zip(self._values(), (2, 1, 0))))

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Like `torch.Tensor.to`: another device or dtype."""
        return type(self)(*(value.to(*args, **kwargs) for value in self._values()))

    def _values(self) -> tuple[Tensor, ...]:
        return (self.rotmats, self.translations)

    def __repr__(self) -> str:
        value = self.translations
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={value.dtype}, device={str(value.device)!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Rigid(_Transform):
    """Rigid motions x' = R x + t.

    Attributes:
        rotmats: R.
        translations: t [m].

    Raises:
        ShapeError: The batch axes do not broadcast.

    Example:
        >>> turn = Rigid.exp(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, torch.pi / 2]))
        >>> move = Rigid(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
        >>> (move @ turn).apply(torch.tensor([1.0, 0.0, 0.0])).round(decimals=3)
        tensor([1., 1., 0.])
    """

    rotmats: Float[Tensor, "*#batch 3 3"]
    translations: Float[Tensor, "*#batch 3"]

    def __post_init__(self) -> None:
        _broadcast(self, rotmats=2, translations=1)

    @classmethod
    def identity(cls, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Self:
        """A batch of identity transforms."""
        return cls(torch.eye(3, dtype=dtype, device=device), torch.zeros(*shape, 3, dtype=dtype, device=device))

    @classmethod
    def from_quat(cls, quats: Float[Tensor, "*#batch 4"], translations: Points) -> Self:
        """From quaternions (wxyz) of any length > 0."""
        return cls(quat_to_rotmat(quats), translations)

    @classmethod
    def from_matrix(cls, matrices: Float[Tensor, "*batch 4 4"]) -> Self:
        check_trailing("matrices", matrices, 4, 4)
        return cls(matrices[..., :3, :3].clone(), matrices[..., :3, 3].clone())

    @classmethod
    def exp(cls, tangents: Float[Tensor, "*batch 6"]) -> Self:
        """Exponential of tangent vectors (rho, phi); see `geometry.se3`."""
        return cls.from_matrix(se3.exp(tangents))

    def log(self) -> Float[Tensor, "*batch 6"]:
        """Tangent vectors (rho, phi), |phi| <= pi."""
        return se3.log(self.matrix())

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        return se3.from_rotation_translation(self.rotmats, self.translations)

    def inverse(self) -> Self:
        """x = R^T (x' - t)."""
        rotmats = self.rotmats.mT
        return type(self)(rotmats, -_times(rotmats, self.translations))

    def apply_vectors(self, vectors: Points) -> Points:
        check_trailing("vectors", vectors, 3)
        return _times(self.rotmats, vectors)

    def __matmul__(self, other: "Rigid") -> "Rigid":
        """The composition that applies `other` first. With a similarity the result is a similarity."""
        if not isinstance(other, Rigid):
            return NotImplemented
        return Rigid(self.rotmats @ other.rotmats, self.apply(other.translations))


@dataclass(frozen=True, eq=False, repr=False)
class Similarity(_Transform):
    """Similarities x' = s R x + t.

    Attributes:
        rotmats: R.
        translations: t [m].
        scales: s > 0.

    Raises:
        ShapeError: The batch axes do not broadcast.

    Example:
        >>> double = Similarity(torch.eye(3), torch.zeros(3), torch.tensor(2.0))
        >>> double.inverse().apply(torch.tensor([2.0, 4.0, 6.0]))
        tensor([1., 2., 3.])
    """

    rotmats: Float[Tensor, "*#batch 3 3"]
    translations: Float[Tensor, "*#batch 3"]
    scales: Float[Tensor, "*#batch"]

    def __post_init__(self) -> None:
        _broadcast(self, rotmats=2, translations=1, scales=0)

    @classmethod
    def identity(cls, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Self:
        """A batch of identity transforms."""
        return cls.from_rigid(Rigid.identity(*shape, dtype=dtype, device=device))

    @classmethod
    def from_rigid(cls, motions: Rigid, scales: Float[Tensor, "*#batch"] | float = 1.0) -> Self:
        """Rigid motions applied after a scaling about the origin."""
        scales = torch.as_tensor(scales, dtype=motions.translations.dtype, device=motions.translations.device)
        return cls(motions.rotmats, motions.translations, scales)

    @classmethod
    def from_matrix(cls, matrices: Float[Tensor, "*batch 4 4"]) -> Self:
        check_trailing("matrices", matrices, 4, 4)
        scales, rotmats, translations = sim3.split(matrices)
        return cls(rotmats, translations.clone(), scales)

    @classmethod
    def exp(cls, tangents: Float[Tensor, "*batch 7"]) -> Self:
        """Exponential of tangent vectors (rho, phi, sigma); see `geometry.groups.sim3`."""
        return cls.from_matrix(sim3.exp(tangents))

    def log(self) -> Float[Tensor, "*batch 7"]:
        """Tangent vectors (rho, phi, sigma), |phi| <= pi."""
        return sim3.log(self.matrix())

    def matrix(self) -> Float[Tensor, "*batch 4 4"]:
        return se3.similarity(self.scales, self.rotmats, self.translations)

    def inverse(self) -> Self:
        """x = R^T (x' - t) / s."""
        rotmats, scales = self.rotmats.mT, 1 / self.scales
        return type(self)(rotmats, -scales[..., None] * _times(rotmats, self.translations), scales)

    def apply_vectors(self, vectors: Points) -> Points:
        check_trailing("vectors", vectors, 3)
        return self.scales[..., None] * _times(self.rotmats, vectors)

    def __matmul__(self, other: "Rigid | Similarity") -> "Similarity":
        """The composition that applies `other` first."""
        if not isinstance(other, Rigid | Similarity):
            return NotImplemented
        other = Similarity.from_rigid(other) if isinstance(other, Rigid) else other
        return Similarity(self.rotmats @ other.rotmats, self.apply(other.translations), self.scales * other.scales)

    def __rmatmul__(self, other: Rigid) -> "Similarity":
        return Similarity.from_rigid(other) @ self

    def _values(self) -> tuple[Tensor, ...]:
        return (self.rotmats, self.translations, self.scales)


def _times(rotmats: Tensor, vectors: Tensor) -> Tensor:
    return (rotmats @ vectors[..., None]).squeeze(-1)


def _broadcast(transform: _Transform, **axes: int) -> None:
    """Expand all values to the batch shape, each with its own trailing axes."""
    values = {name: getattr(transform, name) for name in axes}
    for name, value in values.items():
        if axes[name]:
            check_trailing(name, value, *[3] * axes[name])
    shapes = {name: value.shape[: value.ndim - axes[name]] for name, value in values.items()}
    try:
        batch = torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        last = list(values)[-1]
        want = " and ".join(f"{tuple(shape)} of {name}" for name, shape in shapes.items() if name != last)
        raise ShapeError(last, shapes[last], f"a batch that broadcasts with {want}") from error
    for name, value in values.items():
        own = value.shape[value.ndim - axes[name] :]
        object.__setattr__(transform, name, value.expand((*batch, *own)))
