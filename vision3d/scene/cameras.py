"""Cameras: poses, intrinsics and lens models of photos."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import se3
from vision3d.geometry.cameras import CameraModel, camera_centers, opengl_to_opencv
from vision3d.geometry.interpolation import so3_interpolate
from vision3d.scene import codecs
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table, moved, span
from vision3d.scene.similarity import Similarity

_ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Cameras:
    """A batch of C cameras: OpenCV axes (x right, y down, z forward), pixel centers at +0.5.

    Example:
        >>> camtoworlds = torch.eye(4).repeat(2, 1, 1)
        >>> Ks = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
        >>> cameras = Cameras.from_camtoworlds(camtoworlds, Ks, 640, 480)
        >>> cameras.resized(320, 240).Ks[0, 0, 0]
        tensor(250.)
    """

    viewmats: Float[Tensor, "c 4 4"]
    """World to camera, x_cam = R x_world + t; R is a rotation."""
    Ks: Float[Tensor, "c 3 3"]
    """Intrinsics in pixels; for ortho, fx and fy are pixels per meter."""
    width: Int64[Tensor, " c"]
    """Image width [px]."""
    height: Int64[Tensor, " c"]
    """Image height [px]."""
    model: CameraModel = "pinhole"
    """Projection, the same for all: pinhole, ortho, or fisheye (equidistant)."""
    distortion: Float[Tensor, "c d"] | None = None
    """Coefficients in OpenCV's order: k1 k2 p1 p2 [k3 [k4 k5 k6]] for pinhole, k1 k2 k3 k4 for fisheye."""
    names: tuple[str, ...] | None = None
    """One name per camera, usually the path of the image file within its data set."""
    times: Float[Tensor, " c"] | None = None
    """Time of each view [s]."""

    def __post_init__(self) -> None:
        check_shape("Cameras.viewmats", self.viewmats, ("C", 4, 4))
        count = len(self.viewmats)
        check_shape("Cameras.Ks", self.Ks, (count, 3, 3))
        check_shape("Cameras.width", self.width, (count,), kind="int64")
        check_shape("Cameras.height", self.height, (count,), kind="int64")
        if self.model not in ("pinhole", "ortho", "fisheye"):
            raise InputError(f"Cameras.model: got {self.model!r}, want 'pinhole', 'ortho' or 'fisheye'")
        if self.distortion is not None:
            check_shape("Cameras.distortion", self.distortion, (count, "D"))
            sizes = {"pinhole": (4, 5, 8), "fisheye": (4,), "ortho": ()}[self.model]
            if self.distortion.shape[1] not in sizes:
                want = f"D in {sizes} for {self.model}" if sizes else "none for ortho"
                raise ShapeError("Cameras.distortion", tuple(self.distortion.shape), want)
        if self.times is not None:
            check_shape("Cameras.times", self.times, (count,))
        if self.names is not None and len(self.names) != count:
            raise ShapeError("Cameras.names", f"{len(self.names)} names", f"{count}, one per camera")
        check_device("Cameras", self._tensors())

    @classmethod
    def from_camtoworlds(
        cls,
        camtoworlds: Float[Tensor, "c 4 4"],
        Ks: Float[Tensor, "3 3"] | Float[Tensor, "c 3 3"],
        width: int | Int64[Tensor, " c"],
        height: int | Int64[Tensor, " c"],
        *,
        convention: Literal["opencv", "opengl"] = "opencv",
        model: CameraModel = "pinhole",
        distortion: Float[Tensor, " d"] | Float[Tensor, "c d"] | None = None,
        names: Sequence[str] | None = None,
        times: Float[Tensor, " c"] | None = None,
    ) -> "Cameras":
        """Cameras from their poses in the world; arguments without a leading axis are shared by all.

        Args:
            camtoworlds: Camera to world, rotation and position.
            Ks: Intrinsics [px].
            width: Image width [px].
            height: Image height [px].
            convention: Camera axes of `camtoworlds`: opencv, or opengl (y up, z backward; Blender, transforms.json).
            model: Projection.
            distortion: See the field.
            names: One per camera.
            times: One per camera [s].
        """
        check_shape("camtoworlds", camtoworlds, ("C", 4, 4))
        count, device = len(camtoworlds), camtoworlds.device
        if convention == "opengl":
            camtoworlds = opengl_to_opencv(camtoworlds)
        elif convention != "opencv":
            raise InputError(f"convention: got {convention!r}, want 'opencv' or 'opengl'")
        sizes = [torch.as_tensor(size, dtype=torch.int64, device=device).expand(count).clone() for size in (width, height)]
        return cls(
            viewmats=se3.inverse(camtoworlds),
            Ks=Ks.expand(count, 3, 3).clone(),
            width=sizes[0],
            height=sizes[1],
            model=model,
            distortion=None if distortion is None else distortion.expand(count, -1).clone(),
            names=None if names is None else tuple(names),
            times=times,
        )

    def merge(self, *others: "Cameras") -> "Cameras":
        """These cameras and others in one batch; names, times and distortion are kept if all parts have them.

        Raises:
            InputError: Their models differ, or only some of them have lens distortion.
        """
        parts = (self, *others)
        if len({part.model for part in parts}) > 1:
            raise InputError(f"merge: the models of the cameras differ: {', '.join(sorted({part.model for part in parts}))}")
        if len({None if part.distortion is None else part.distortion.shape[1] for part in parts}) > 1:
            raise InputError("merge: the cameras differ in their number of distortion coefficients")

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        names = [part.names for part in parts]
        tensors = {name: joined(name) for name in self._tensors()}
        all_names = None if any(n is None for n in names) else tuple(n for part in names for n in cast(tuple, part))
        return Cameras(model=self.model, names=all_names, **tensors)  # pyright: ignore[reportArgumentType]

    @classmethod
    def cat(cls, parts: Sequence["Cameras"]) -> "Cameras":
        """The former name of `merge`; it will be removed in the next version.

        Raises:
            InputError: No parts, or as for `merge`.
        """
        warnings.warn("Cameras.cat(parts) is now parts[0].merge(*parts[1:])", DeprecationWarning, stacklevel=2)
        if not parts:
            raise InputError("Cameras.cat: got no parts, want at least one")
        return parts[0].merge(*parts[1:])

    @classmethod
    def load(cls, path: Path | str) -> "Cameras":
        """Cameras of a cameras.json or transforms.json file; the images it refers to need not exist."""
        return codecs.module_for(path, "Cameras").read_cameras(Path(path))

    def save(self, path: Path | str) -> None:
        """Write a cameras.json: a superset of nerfstudio's transforms.json that nerfstudio can read."""
        codecs.save(path, self)

    def at(self, time: float) -> "Cameras":
        """The cameras at a time [s], if `times` are given: for a moving camera the pose interpolated between its neighbors,
        for a rig of several cameras those of the last time stamp before it. Without times all cameras.

        Times before the first and after the last time stamp are clamped.
        """
        if self.times is None or not len(self):
            return self
        moments, counts = self.times.double().unique(return_counts=True)
        after = int(torch.searchsorted(moments, torch.tensor(time, dtype=torch.float64, device=moments.device), right=True))
        if after == 0 or after == len(moments) or bool((counts > 1).any()):
            return self[self.times.double() == moments[max(after - 1, 0)]]
        before, next_one = (self[self.times.double() == moments[k]] for k in (after - 1, after))
        share = float((time - moments[after - 1]) / (moments[after] - moments[after - 1]))
        first, second = before.camtoworlds, next_one.camtoworlds
        poses = first.clone()
        poses[:, :3, :3] = so3_interpolate(first[:, :3, :3], second[:, :3, :3], share)
        poses[:, :3, 3] = torch.lerp(first[:, :3, 3], second[:, :3, 3], share)
        return replace(
            before,
            viewmats=se3.inverse(poses),
            Ks=torch.lerp(before.Ks, next_one.Ks, share),
            times=torch.full_like(before.times, time),  # pyright: ignore[reportArgumentType]
        )

    def validate(self) -> "Cameras":
        """Check the values (shapes and dtypes are checked at construction).

        Raises:
            InputError: A value is not finite, a pose is not a rigid motion, a focal length or size is not positive.
        """
        for name, value in self._tensors().items():
            if value is not None and value.is_floating_point():
                check_finite("Cameras", name, value)
        is_flat = (self.Ks[:, 0, 0] <= 0) | (self.Ks[:, 1, 1] <= 0)
        if bool(is_flat.any()):
            raise InputError(f"{self._label(is_flat)}: focal length is not positive")
        if bool((is_empty := (self.width <= 0) | (self.height <= 0)).any()):
            raise InputError(f"{self._label(is_empty)}: image size is not positive")
        rotmats = self.viewmats[:, :3, :3].detach()
        error = (rotmats @ rotmats.mT - torch.eye(3).to(rotmats)).abs().amax((-2, -1))
        if bool((is_bent := error > _ROTATION_TOLERANCE).any()):
            raise InputError(
                f"{self._label(is_bent)}: viewmat is not a rotation (R R^T is off the identity by {error.max():.2g})"
            )
        if bool((is_mirror := torch.linalg.det(rotmats) < 0).any()):
            raise InputError(f"{self._label(is_mirror)}: viewmat is a reflection (determinant -1)")
        last_rows = self.viewmats[:, 3].detach()
        if bool((is_odd := (last_rows != last_rows.new_tensor([0.0, 0.0, 0.0, 1.0])).any(-1)).any()):
            raise InputError(f"{self._label(is_odd)}: last row of the viewmat is not 0 0 0 1")
        return self

    @property
    def camtoworlds(self) -> Float[Tensor, "c 4 4"]:
        """Camera to world, the inverses of `viewmats`."""
        return se3.inverse(self.viewmats)

    @property
    def centers(self) -> Float[Tensor, "c 3"]:
        """Positions in the world [m]."""
        return camera_centers(self.viewmats)

    @property
    def device(self) -> torch.device:
        return self.viewmats.device

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device."""
        return replace(self, **{name: moved(value, device) for name, value in self._tensors().items()})

    def resized(self, width: int | Tensor, height: int | Tensor) -> "Cameras":
        """Cameras of resized images; intrinsics are scaled by the exact ratios, so that rays do not change.

        Args:
            width: New width [px], for all or one per camera.
            height: New height [px].
        """
        sizes = [torch.as_tensor(size, dtype=torch.int64).to(self.device).expand(len(self)) for size in (width, height)]
        ratio_x, ratio_y = sizes[0] / self.width, sizes[1] / self.height
        ratios = torch.stack([ratio_x, ratio_y, torch.ones_like(ratio_x)], -1).to(self.Ks)
        return replace(self, Ks=self.Ks * ratios[:, :, None], width=sizes[0].clone(), height=sizes[1].clone())

    def scaled(self, factor: float) -> "Cameras":
        """Cameras whose images are scaled by `factor`, rounded to whole pixels (at least 1)."""
        if not factor > 0:
            raise InputError(f"Cameras.scaled: got factor {factor}, want a number > 0")
        sizes = [(size * factor).round().long().clamp(min=1) for size in (self.width, self.height)]
        return self.resized(sizes[0], sizes[1])

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "Cameras":
        """Cameras transformed by a similarity x' = s R x + t: in a world transformed alike, they see the same image.

        Args:
            matrix: World to new world; a rotation times a scale > 0, and a translation.

        Raises:
            InputError: The matrix is not a similarity.
        """
        by, camtoworlds = Similarity(matrix, self.viewmats), self.camtoworlds
        rotmats, centers = by.rotmat @ camtoworlds[:, :3, :3], by.points(camtoworlds[:, :3, 3])
        return replace(self, viewmats=se3.inverse(se3.from_rotation_translation(rotmats, centers)))

    def subset(self, which: int | slice | Tensor | Sequence[int] | Sequence[str]) -> "Cameras":
        """Select cameras, as a batch: by index, slice, mask, index tensor, or names.

        Raises:
            IndexError: An index is out of range.
            InputError: No camera of that name.
        """
        index = self._index(which)
        picked = {name: None if value is None else value[index] for name, value in self._tensors().items()}
        names = None if self.names is None else tuple(self.names[i] for i in index.tolist())
        return replace(self, names=names, **picked)

    def __len__(self) -> int:
        return len(self.viewmats)

    def __getitem__(self, which: int | slice | Tensor | Sequence[int] | Sequence[str]) -> "Cameras":
        return self.subset(which)

    def __iter__(self) -> Iterator["Cameras"]:
        return (self.subset(i) for i in range(len(self)))

    def __repr__(self) -> str:
        lens = "" if self.distortion is None else f", {self.distortion.shape[1]} distortion coefficients"
        return f"Cameras({len(self)} {self.model}, {self._sizes()} px{lens}, {self.device})"

    def _repr_html_(self) -> str:
        rows = [
            ("cameras", len(self)),
            ("model", self.model),
            ("image size [px]", self._sizes()),
            ("focal length x [px]", span(self.Ks[:, 0, 0])),
            *((f"center {axis} [m]", span(self.centers[:, i])) for i, axis in enumerate("xyz")),
            ("distortion", "none" if self.distortion is None else f"{self.distortion.shape[1]} coefficients"),
            ("device", self.device),
        ]
        return html_table("Cameras", rows, codecs.preview(self))

    def _tensors(self) -> dict[str, Tensor | None]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("model", "names")}

    def _sizes(self) -> str:
        sizes = sorted(set(zip(self.width.tolist(), self.height.tolist())))
        return ", ".join(f"{w}x{h}" for w, h in sizes[:3]) + (", ..." if len(sizes) > 3 else "")

    def _index(self, which: int | slice | Tensor | Sequence[int] | Sequence[str]) -> Int64[Tensor, " m"]:
        if isinstance(which, int):
            if not -len(self) <= which < len(self):
                raise IndexError(f"camera {which} of {len(self)}")
            which = slice(which, which + 1 or None)
        elif not isinstance(which, slice | Tensor) and len(which) and isinstance(which[0], str):
            places = {name: i for i, name in enumerate(self.names or ())}
            if missing := [name for name in which if name not in places]:
                raise InputError(f"no camera named {missing[0]!r}")
            which = torch.tensor([places[name] for name in cast(Sequence[str], which)], device=self.device)
        elif not isinstance(which, slice | Tensor):
            which = torch.tensor(which, dtype=torch.int64, device=self.device)
        return torch.arange(len(self), device=self.device)[which]

    def _label(self, is_bad: Tensor) -> str:
        first = int(is_bad.nonzero()[0])
        name = "" if self.names is None else f" ({self.names[first]})"
        return f"camera {first}{name}{f' and {int(is_bad.sum()) - 1} more' if is_bad.sum() > 1 else ''}"
