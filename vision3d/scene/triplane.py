"""Triplanes: a field of density and color in a cube, held by three planes of features and a small decoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene import codecs
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table
from vision3d.scene.similarity import Similarity

AXES = ((0, 1), (0, 2), (1, 2))
"""Axes of the cube along the columns and rows of each plane: (x, y), (x, z), (y, z)."""


@dataclass(frozen=True, eq=False)
class Triplane:
    """Planes of features over the cube [-1, 1]^3 of an object, and the layers that decode them.

    A point takes the bilinear features of its three projections; texel centers lie half a texel inside the border (grid_sample
    with align_corners=False). The first `num_density` channels give the density, the others color and material. See
    `render.triplanes.query`.
    """

    planes: Float[Tensor, "3 c h w"]
    """Features of the planes (x, y), (x, z), (y, z); the first axis runs along the columns."""
    decoder: Mapping[str, Float[Tensor, "..."]] = field(repr=False)
    """Weights of the layers, `density.N.weight`, `density.N.bias`, `color.N.weight` and so on, N = 0, 1, ..."""
    num_density: int
    """Number of channels of which the density is made."""
    matrix: Float[Tensor, "4 4"]
    """The cube to the world [m]: a similarity. The cube has z up."""

    def __post_init__(self) -> None:
        check_shape("Triplane.planes", self.planes, (3, "C", "H", "W"))
        check_shape("Triplane.matrix", self.matrix, (4, 4))
        channels = self.planes.shape[1]
        if not 0 < self.num_density < channels:
            raise InputError(f"Triplane.num_density: got {self.num_density}, want 1 to {channels - 1}")
        for name, count in (("density", self.num_density), ("color", channels - self.num_density)):
            first = self.decoder.get(f"{name}.0.weight")
            if first is None or first.ndim != 2 or first.shape[1] != 3 * count:
                got = "none" if first is None else f"shape {tuple(first.shape)}"
                raise InputError(f"Triplane.decoder: {name}.0.weight: got {got}, want (N, {3 * count})")
        object.__setattr__(self, "decoder", MappingProxyType(dict(self.decoder)))
        check_device("Triplane", dict(self._tensors()))

    @classmethod
    def load(cls, path: Path | str) -> "Triplane":
        """Load a .safetensors file.

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a .safetensors file, atomically."""
        codecs.save(path, self)

    def validate(self) -> "Triplane":
        """Check the values (shapes and dtypes are checked at construction).

        Raises:
            InputError: A value is not finite, or the matrix is not a similarity.
        """
        for name, value in self._tensors().items():
            check_finite("Triplane", name, value)
        Similarity(self.matrix, self.planes)
        return self

    @property
    def device(self) -> torch.device:
        return self.planes.device

    def to(self, device: torch.device | str) -> "Triplane":
        """The same triplane on another device."""
        decoder = {name: value.to(device) for name, value in self.decoder.items()}
        return replace(self, planes=self.planes.to(device), matrix=self.matrix.to(device), decoder=decoder)

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "Triplane":
        """The object transformed by a similarity x' = s R x + t.

        Args:
            matrix: World to new world.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        Similarity(matrix, self.planes)
        return replace(self, matrix=matrix.to(self.matrix) @ self.matrix)

    def __repr__(self) -> str:
        _, channels, height, width = self.planes.shape
        return f"Triplane({channels} channels of {height} x {width}, {self.device})"

    def _repr_html_(self) -> str:
        _, channels, height, width = self.planes.shape
        size = float(torch.linalg.vector_norm(self.matrix[:3, 0])) * 2
        rows = [
            ("planes", f"3 x {channels} x {height} x {width}"),
            ("channels of the density", self.num_density),
            ("side of the cube [m]", f"{size:.4g}"),
            ("device", self.device),
        ]
        return html_table("Triplane", rows, codecs.preview(self))

    def _tensors(self) -> dict[str, Tensor]:
        return {"planes": self.planes, "matrix": self.matrix, **{f"decoder.{k}": v for k, v in self.decoder.items()}}
