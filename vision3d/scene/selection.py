"""Selections of points or Gaussians: regions of space, or indices."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.scene import codecs
from vision3d.scene.checks import check_finite, check_shape, html_table


@dataclass(frozen=True, eq=False)
class Region:
    """A region of space: a rotated box, a sphere (`size` holds its radius three times), or the half space in front of a plane.

    Example:
        >>> Region.sphere(torch.zeros(3), 2.0).contains(torch.eye(3)).tolist()
        [True, True, True]
    """

    kind: Literal["box", "sphere", "plane"]
    center: Float[Tensor, " 3"]
    """Center, or a point of the plane [m]."""
    size: Float[Tensor, " 3"]
    """Half extents of a box [m]; the normal of a plane, towards the inside."""
    quat: Float[Tensor, " 4"]
    """Rotation of a box, wxyz, any length > 0."""

    def __post_init__(self) -> None:
        if self.kind not in ("box", "sphere", "plane"):
            raise InputError(f"Region.kind: got {self.kind!r}, want 'box', 'sphere' or 'plane'")
        check_shape("Region.center", self.center, (3,))
        check_shape("Region.size", self.size, (3,))
        check_shape("Region.quat", self.quat, (4,))

    @classmethod
    def box(cls, center: Tensor, half_size: Tensor, quat: Tensor | None = None) -> "Region":
        """A box with half extents `half_size` [m], rotated by `quat` (wxyz)."""
        return cls("box", center, half_size, center.new_tensor([1.0, 0, 0, 0]) if quat is None else quat)

    @classmethod
    def sphere(cls, center: Tensor, radius: float) -> "Region":
        """A ball [m]."""
        return cls("sphere", center, torch.full_like(center, radius), center.new_tensor([1.0, 0, 0, 0]))

    @classmethod
    def plane(cls, point: Tensor, normal: Tensor) -> "Region":
        """The half space in front of the plane through `point`: (x - point) . normal >= 0."""
        return cls("plane", point, normal, point.new_tensor([1.0, 0, 0, 0]))

    def contains(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Mask of the points inside, border included."""
        offsets = points - self.center.to(points)
        size = self.size.to(points)
        if self.kind == "plane":
            return offsets @ size >= 0
        if self.kind == "sphere":
            return torch.linalg.vector_norm(offsets, dim=-1) <= size[0]
        return ((offsets @ quat_to_rotmat(self.quat.to(points))).abs() <= size).all(-1)


@dataclass(frozen=True, eq=False)
class Selection:
    """Points inside the regions (any or all of them), and points selected by index.

    Example:
        >>> points = torch.rand(100, 3)
        >>> selection = Selection.of(points, torch.tensor([3, 5]))
        >>> selection.mask(points).sum()
        tensor(2)
    """

    regions: tuple[Region, ...] = ()
    combine: Literal["any", "all"] = "any"
    """Whether a point must be inside any of the regions, or inside all of them."""
    indices: Int64[Tensor, " i"] | None = None
    """Indices of the selected points or Gaussians, in any order."""
    points_hash: str = ""
    """`hash_points` of the points that `indices` refers to; empty to skip the check."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "regions", tuple(self.regions))
        if self.combine not in ("any", "all"):
            raise InputError(f"Selection.combine: got {self.combine!r}, want 'any' or 'all'")
        if self.indices is not None:
            check_shape("Selection.indices", self.indices, ("I",), kind="int64")

    @classmethod
    def of(cls, points: Float[Tensor, "n 3"], which: Tensor) -> "Selection":
        """Select rows of `points` by index or mask, and store the hash of the points."""
        indices = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        return cls(indices=indices, points_hash=hash_points(points))

    @classmethod
    def load(cls, path: Path | str) -> "Selection":
        """Load the selection of a .json file.

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a .json atomically."""
        codecs.save(path, self)

    def mask(self, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Mask of the selected points.

        Raises:
            InputError: The indices refer to other points.
        """
        check_shape("points", points, ("N", 3))
        selected = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        if self.regions:
            inside = torch.stack([region.contains(points) for region in self.regions])
            selected |= inside.any(0) if self.combine == "any" else inside.all(0)
        if self.indices is not None and len(self.indices):
            if self.points_hash and self.points_hash != hash_points(points):
                raise InputError(f"Selection: its indices refer to other points than these {len(points)} (their hashes differ)")
            if int(self.indices.min()) < 0 or int(self.indices.max()) >= len(points):
                raise InputError(f"Selection: names row {int(self.indices.max())}, but there are {len(points)} points")
            selected[self.indices.to(points.device)] = True
        return selected

    def validate(self) -> "Selection":
        """Check the values.

        Raises:
            InputError: A value is not finite, a size is negative, a normal or quaternion is zero, an index is negative.
        """
        for i, region in enumerate(self.regions):
            for name in ("center", "size", "quat"):
                check_finite(f"Selection.regions[{i}]", name, getattr(region, name))
            is_wrong = not bool(region.size.any()) if region.kind == "plane" else bool((region.size < 0).any())
            if is_wrong or not bool(region.quat.any()):
                raise InputError(
                    f"Selection.regions[{i}]: {region.kind} has size {region.size.tolist()}, quat {region.quat.tolist()}"
                )
        if self.indices is not None and bool((self.indices < 0).any()):
            raise InputError(f"Selection: names row {int(self.indices.min())}, want 0 and above")
        return self

    def to(self, device: torch.device | str) -> "Selection":
        """The same selection with its tensors on another device."""
        regions = [replace(r, center=r.center.to(device), size=r.size.to(device), quat=r.quat.to(device)) for r in self.regions]
        return replace(self, regions=tuple(regions), indices=None if self.indices is None else self.indices.to(device))

    def __repr__(self) -> str:
        kinds = ", ".join(region.kind for region in self.regions) or "no regions"
        return f"Selection({self.combine} of {kinds}; {0 if self.indices is None else len(self.indices)} indices)"

    def _repr_html_(self) -> str:
        rows = [(region.kind, region.center.tolist()) for region in self.regions]
        rows += [("indices", 0 if self.indices is None else len(self.indices))]
        return html_table("Selection", rows, codecs.preview(self))


def hash_points(points: Float[Tensor, "n 3"]) -> str:
    """SHA-256 of the number of points and of their float32 bits."""
    values = points.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(f"{len(values)}:".encode() + values.astype("<f4").tobytes()).hexdigest()


Rows = Selection | Tensor
"""Argument of `crop`: a `Selection`, a mask, lower and upper corner of an axis-aligned box (2, 3) [m], inclusive, or
indices."""


def rows_of(which: Rows, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """Mask of the points that `Rows` selects.

    Raises:
        InputError: It is for a different number of points.
    """
    if isinstance(which, Selection):
        return which.mask(points)
    if which.dtype == torch.bool:
        check_shape("mask", which, (len(points),), kind="bool")
        return which
    if which.is_floating_point():
        check_shape("box", which, (2, 3))
        low, high = which.to(points)
        return ((points >= low) & (points <= high)).all(-1)
    check_shape("indices", which, ("M",), kind="int64")
    return torch.zeros(len(points), dtype=torch.bool, device=points.device).index_fill(0, which.to(points.device), True)
