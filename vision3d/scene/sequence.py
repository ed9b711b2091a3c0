"""Animated objects: a base object and its changes, frame by frame."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.covariance import covar_to_quat_scale
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.spherical_harmonics import rotate_sh
from vision3d.geometry.triangles import edges_to_gaussians
from vision3d.scene import codecs, similarity
from vision3d.scene.boxes import Boxes
from vision3d.scene.checks import check_finite, check_shape, html_table
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_gaussians import MeshGaussians
from vision3d.scene.points import PointCloud

Base = GaussianScene | Mesh | MeshGaussians | PointCloud | Boxes
_FIELDS: dict[type, tuple[str, ...]] = {
    GaussianScene: ("means", "quats", "log_scales", "opacity_logits", "sh"),
    Mesh: ("vertices", "normals", "vertex_colors"),
    MeshGaussians: (),
    PointCloud: ("points", "colors", "normals", "intensity"),
    Boxes: ("boxes", "scores"),
}
_MIN_SCALE = 1e-8  # meters
_SLACK = 1e-9  # s: rounding of computed times, such as 3 * 0.1
_ROWS = 1 << 15


class Channel(Protocol):
    """Values of all frames, first axis T: a tensor, or a store that reads frames on demand."""

    @property
    def shape(self) -> Any: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """A base object and T frames of it.

    Example:
        >>> base = PointCloud(torch.rand(5, 3))
        >>> moving = FrameSequence(base, torch.tensor([0.0, 0.5]), {"points": torch.rand(2, 5, 3)})
        >>> moving.frame(1)
        PointCloud(5 points, cpu)
    """

    base: Base
    """The base object; fields without a channel keep its values in every frame."""
    times: Float[Tensor, " t"]
    """Time of each frame [s], ascending."""
    channels: Mapping[str, Channel] = field(default_factory=dict)
    """Values by name, (T, ...) with the shape of the base's field of that name: means, quats, log_scales, opacity_logits, sh;
    vertices, normals, vertex_colors; points, colors, intensity; boxes, scores. Instead of quats and log_scales, Gaussians can
    have `edges` (T, N, 3, 2), flat ones with covariance E E^T, or `covar_factors` (T, N, 3, 3), with A A^T; instead of sh
    `turns` (T, N, 4), the rotations (wxyz) of their harmonics relative to the base. Gaussians on a mesh have `vertices`
    (T, V, 3) and become a GaussianScene."""

    def __post_init__(self) -> None:
        if type(self.base) not in _FIELDS:
            want = ", ".join(kind.__name__ for kind in _FIELDS)
            raise InputError(f"FrameSequence.base: got {type(self.base).__name__}, want {want}")
        check_shape("FrameSequence.times", self.times, ("T",))
        shapes = channel_shapes(self.base)
        for name, channel in self.channels.items():
            if name not in shapes:
                raise InputError(f"FrameSequence: {type(self.base).__name__} has no channel {name!r}; want {', '.join(shapes)}")
            want = (len(self.times), *shapes[name])
            if tuple(channel.shape) != want:
                raise ShapeError(f"FrameSequence.channels[{name!r}]", tuple(channel.shape), f"shape {want}")
        names = {"edges", "covar_factors"} & set(self.channels)
        if len(names) == 2 or (names and {"quats", "log_scales"} & set(self.channels)):
            raise InputError("FrameSequence: edges, covar_factors, and quats with log_scales exclude each other")
        if {"sh", "turns"} <= set(self.channels):
            raise InputError("FrameSequence: sh and turns exclude each other")
        object.__setattr__(self, "channels", MappingProxyType(dict(self.channels)))

    @classmethod
    def load(cls, path: Path | str) -> "FrameSequence":
        """Load the complete frames of a .zarr folder; each is read on demand.

        Raises:
            InputError: The folder contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a .zarr folder; to write during a run, use `vision3d.io.zarr_store.SequenceWriter`."""
        codecs.save(path, self)

    def frame(self, index: int) -> Base:
        """The object in a frame, on the device of the base.

        Raises:
            InputError: The index is out of range, or values are not finite.
        """
        if not -len(self) <= index < len(self):
            raise InputError(f"FrameSequence: no frame {index}, there are {len(self)}")
        index %= len(self)
        values = {name: channel[index].to(self.base.device) for name, channel in self.channels.items()}
        for name, value in values.items():
            check_finite(f"FrameSequence, frame {index}", name, value)
        if isinstance(self.base, MeshGaussians):
            return self.base.to_gaussians(values["vertices"]) if "vertices" in values else self.base.to_gaussians()
        if "edges" in values:
            values["quats"], scales = edges_to_gaussians(values.pop("edges"))
            values["log_scales"] = scales.log()
        if "covar_factors" in values:
            factors = values.pop("covar_factors")
            values["quats"], scales = covar_to_quat_scale(factors @ factors.mT)
            values["log_scales"] = scales.clamp(min=_MIN_SCALE).log()
        if "turns" in values:
            values["sh"] = _turned(self.base.sh, values.pop("turns"))  # pyright: ignore[reportAttributeAccessIssue]
        return replace(self.base, **values)  # pyright: ignore[reportArgumentType]

    @property
    def span(self) -> tuple[float, float]:
        """Times of the first and of the last frame [s]; (0, 0) without frames."""
        return (float(self.times[0]), float(self.times[-1])) if len(self) else (0.0, 0.0)

    def at(self, time: float, *, loop: bool = False) -> Base:
        """The object at any time [s]: the last frame that has started; normals of meshes rotate with their faces.

        Args:
            time: Clamped to the first and last frame.
            loop: Repeat after the last frame, which is shown for the mean frame time.

        Raises:
            InputError: No frames, or values are not finite.
        """
        if not len(self):
            raise InputError("FrameSequence: has 0 frames, want at least one")
        start, end = self.span
        if loop and end > start:
            time = start + (time - start) % ((end - start) * len(self) / (len(self) - 1))
        index = max(0, int(torch.searchsorted(self.times.double(), time + _SLACK, right=True)) - 1)
        return self.mesh_at(index) if isinstance(self.base, Mesh) else self.frame(index)

    def mesh_at(self, index: int) -> Mesh:
        """The mesh in a frame, also the mesh under Gaussians; its normals rotate with its faces.

        Raises:
            InputError: The base is not a mesh, or as for `frame`.
        """
        if isinstance(self.base, MeshGaussians):
            return replace(self, base=self.base.mesh).mesh_at(index)
        mesh = self.frame(index)
        if not isinstance(mesh, Mesh):
            raise InputError(
                f"FrameSequence: holds frames of {type(self.base).__name__}, want those of a Mesh or MeshGaussians"
            )
        if mesh.normals is not None and "vertices" in self.channels and "normals" not in self.channels:
            mesh = replace(mesh, normals=vertex_normals(mesh.vertices, mesh.faces))
        return mesh

    def vertices(self) -> Float[Tensor, "t v 3"]:
        """Vertices of the mesh (or the mesh under Gaussians) in every frame [m]; all frames are read.

        Raises:
            InputError: As for `mesh_at`, or the sequence is empty.
        """
        if not len(self):
            raise InputError("FrameSequence: has 0 frames, want at least one")
        return torch.stack([self.mesh_at(i).vertices for i in range(len(self))])

    def validate(self) -> "FrameSequence":
        """Check the base, the times, and channels that are tensors; values read on demand are checked when they are read.

        Raises:
            InputError: A value is not finite, or the times do not ascend.
        """
        self.base.validate()
        if len(self.times):
            check_finite("FrameSequence", "times", self.times)
        if bool((is_back := self.times.diff() <= 0).any()):
            raise InputError(f"FrameSequence: times do not ascend after frame {int(is_back.nonzero()[0])}")
        for name, channel in self.channels.items():
            if isinstance(channel, Tensor) and len(channel):
                check_finite("FrameSequence", name, channel)
        return self

    @property
    def device(self) -> torch.device:
        return self.base.device

    def to(self, device: torch.device | str) -> "FrameSequence":
        """The same frames on another device; values read on demand are moved there when read."""
        channels = {name: c.to(device) if isinstance(c, Tensor) else c for name, c in self.channels.items()}
        return replace(self, base=self.base.to(device), times=self.times.to(device), channels=channels)

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "FrameSequence":
        """The base and all frames transformed by a similarity x' = s R x + t; the frames are read into memory.

        Raises:
            InputError: The matrix shears, reflects or is singular.
        """
        return similarity.transform_sequence(self, matrix)

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[Base]:
        return (self.frame(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"FrameSequence({len(self)} frames of {', '.join(self.channels) or 'nothing'}, {self.base!r})"

    def _repr_html_(self) -> str:
        span = f"{float(self.times[0]):.4g} to {float(self.times[-1]):.4g}" if len(self) else "-"
        rows = [("frames", len(self)), ("time [s]", span), ("base", self.base), *self.channels.items()]
        return html_table("FrameSequence", rows, codecs.preview(self))


def channel_shapes(base: Base) -> dict[str, tuple[int, ...]]:
    """The channels that a base supports, with the shape of one frame."""
    found = {name: getattr(base, name) for name in _FIELDS[type(base)]}
    shapes = {name: tuple(value.shape) for name, value in found.items() if value is not None}
    if isinstance(base, GaussianScene):
        shapes |= {"edges": (len(base), 3, 2), "covar_factors": (len(base), 3, 3), "turns": (len(base), 4)}
    if isinstance(base, MeshGaussians):
        shapes = {"vertices": (base.mesh.num_vertices, 3)}
    return shapes


def _turned(sh: Float[Tensor, "n k 3"], quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n k 3"]:
    """Rotated harmonics; unrotated ones stay bit-identical."""
    if sh.shape[1] == 1:
        return sh
    result = sh.clone()
    rows = (quats[:, 1:] != 0).any(-1).nonzero()[:, 0]
    for some in rows.split(_ROWS):  # all matrices at once would need ten times the memory of the scene
        result[some] = rotate_sh(sh[some], quat_to_rotmat(quats[some]))
    return result
