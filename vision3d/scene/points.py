"""Point clouds: positions with colors, normals, intensity and other per-point values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene import codecs
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table, span
from vision3d.scene.selection import Rows, rows_of
from vision3d.scene.similarity import Similarity

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = {"x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "intensity"}


@dataclass(frozen=True, eq=False)
class PointCloud:
    """N points.

    Example:
        >>> cloud = PointCloud(torch.rand(100, 3), intensity=torch.rand(100))
        >>> cloud.save("cloud.ply")
        >>> PointCloud.load("cloud.ply")
        PointCloud(100 points, intensity, cpu)
    """

    points: Float[Tensor, "n 3"]
    """Positions [m]."""
    colors: Float[Tensor, "n 3"] | None = None
    """In [0, 1], sRGB; bytes in files."""
    normals: Float[Tensor, "n 3"] | None = None
    """Unit normals."""
    intensity: Float[Tensor, " n"] | None = None
    """Intensity of LiDAR returns, usually in [0, 1]."""
    attributes: Mapping[str, Float[Tensor, " n"] | Int64[Tensor, " n"]] = field(default_factory=dict)
    """Other values by name (letters, digits, `_`): one float or integer (32 bits in files) per point."""

    def __post_init__(self) -> None:
        check_shape("PointCloud.points", self.points, ("N", 3))
        count = len(self.points)
        for name, shape in (("colors", (count, 3)), ("normals", (count, 3)), ("intensity", (count,))):
            if getattr(self, name) is not None:
                check_shape(f"PointCloud.{name}", getattr(self, name), shape)
        for name, value in self.attributes.items():
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise InputError(
                    f"PointCloud: attribute name {name!r}; want letters, digits and _, and none of the fields' names"
                )
            is_whole = isinstance(value, Tensor) and value.dtype == torch.int64
            check_shape(f"PointCloud.attributes[{name!r}]", value, (count,), kind="int64" if is_whole else "float")
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        check_device("PointCloud", self._tensors())

    @classmethod
    def load(cls, path: Path | str) -> "PointCloud":
        """Load the points of a .ply file, or of a KITTI .bin (x y z intensity, float32).

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a file in the format of its suffix, atomically; one warning lists what the format cannot store."""
        codecs.save(path, self)

    def validate(self) -> "PointCloud":
        """Check the values (shapes and dtypes are checked at construction).

        Raises:
            InputError: No points, or a value is not finite.
        """
        if not len(self.points):
            raise InputError("PointCloud: got 0 points, want at least one")
        for name, value in self._tensors().items():
            if value is not None and value.is_floating_point():
                check_finite("PointCloud", name, value)
        return self

    @property
    def num_points(self) -> int:
        return len(self.points)

    @property
    def device(self) -> torch.device:
        return self.points.device

    def to(self, device: torch.device | str) -> "PointCloud":
        """The same points on another device."""
        return self._mapped(lambda value: value.to(device))

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "PointCloud":
        """The points transformed by a similarity x' = s R x + t.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        by = Similarity(matrix, self.points)
        normals = None if self.normals is None else by.directions(self.normals)
        return replace(self, points=by.points(self.points), normals=normals)

    def crop(self, which: Rows) -> "PointCloud":
        """The selected points, in their order.

        Args, errors: as for `selection.rows_of`.
        """
        return self[rows_of(which, self.points)]

    def merge(self, *others: "PointCloud") -> "PointCloud":
        """These points and others as one cloud; fields that not all have are dropped."""
        clouds = (self, *others)
        fields = {name: [getattr(cloud, name) for cloud in clouds] for name in ("points", "colors", "normals", "intensity")}
        joined = {name: None if any(v is None for v in values) else torch.cat(values) for name, values in fields.items()}
        names = [name for name in self.attributes if all(name in cloud.attributes for cloud in others)]
        attributes = {name: torch.cat([cloud.attributes[name] for cloud in clouds]) for name in names}
        return PointCloud(attributes=attributes, **joined)  # pyright: ignore[reportArgumentType]

    def __len__(self) -> int:
        return self.num_points

    def __getitem__(self, which: int | slice | Tensor | Sequence[int]) -> "PointCloud":
        """Select points by an index, slice, mask or index tensor."""
        rows = [which] if isinstance(which, int) else which
        return self._mapped(lambda value: value[rows])

    def __repr__(self) -> str:
        extras = "".join(f", {name}" for name, value in self._tensors().items() if name != "points" and value is not None)
        return f"PointCloud({self.num_points} points{extras}, {self.device})"

    def _repr_html_(self) -> str:
        rows = [
            ("points", self.num_points),
            *((f"{axis} [m]", span(self.points[:, i])) for i, axis in enumerate("xyz")),
            *((name, span(value)) for name, value in self._tensors().items() if name != "points" and value is not None),
            ("device", self.device),
        ]
        return html_table("PointCloud", rows, codecs.preview(self))

    def _mapped(self, change) -> "PointCloud":
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "attributes"}
        changed = {name: None if value is None else change(value) for name, value in own.items()}
        return replace(self, attributes={name: change(value) for name, value in self.attributes.items()}, **changed)

    def _tensors(self) -> dict[str, Tensor | None]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "attributes"}
        return {**own, **self.attributes}
