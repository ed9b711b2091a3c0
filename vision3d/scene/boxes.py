"""Bounding boxes of objects, as detectors predict them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene import codecs, similarity
from vision3d.scene.checks import check_device, check_finite, check_shape, html_table, moved, span
from vision3d.scene.selection import Rows, rows_of


@dataclass(frozen=True, eq=False)
class Boxes:
    """B upright boxes: vertical axis z (x forward, y left, as in LiDAR data sets).

    Example:
        >>> boxes = Boxes(torch.tensor([[10.0, 2, -1, 4, 1.8, 1.5, 0]]), torch.tensor([0]), classes=("Car",))
        >>> boxes.save("boxes.json")
        >>> Boxes.load("boxes.json")
        Boxes(1 boxes, Car, cpu)
    """

    boxes: Float[Tensor, "b 7"]
    """x y z of the center [m], length, width and height [m], yaw [rad]: counter-clockwise about z; at 0 the length is along
    x and the width along y."""
    labels: Int64[Tensor, " b"] | None = None
    """Class of each box, an index into `classes` if given."""
    scores: Float[Tensor, " b"] | None = None
    """Confidence in [0, 1]."""
    classes: tuple[str, ...] = ()
    """Names of the classes."""

    def __post_init__(self) -> None:
        check_shape("Boxes.boxes", self.boxes, ("B", 7))
        count = len(self.boxes)
        if self.labels is not None:
            check_shape("Boxes.labels", self.labels, (count,), kind="int64")
        if self.scores is not None:
            check_shape("Boxes.scores", self.scores, (count,))
        object.__setattr__(self, "classes", tuple(self.classes))
        check_device("Boxes", self._tensors())

    @classmethod
    def of_names(cls, boxes: Float[Tensor, "b 7"], names: Sequence[str], scores: Float[Tensor, " b"] | None = None) -> "Boxes":
        """Boxes with the name of the class of each; the classes are numbered in order of appearance."""
        classes = tuple(dict.fromkeys(names))
        labels = torch.tensor([classes.index(name) for name in names], dtype=torch.int64, device=boxes.device)
        return cls(boxes, labels, scores, classes)

    @property
    def names(self) -> list[str]:
        """Name of the class of each box; empty without labels."""
        return [] if self.labels is None else [self.classes[label] for label in self.labels.tolist()]

    @classmethod
    def load(cls, path: Path | str) -> "Boxes":
        """Load the boxes of a .json, or of a KITTI label .txt in `label_2` whose calibration is in the sibling folder `calib`.

        Raises:
            InputError: The file contains something else, or cannot be read.
        """
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a .json atomically (for KITTI's .txt see `vision3d.io.kitti.write_labels`)."""
        codecs.save(path, self)

    def validate(self) -> "Boxes":
        """Check the values; zero boxes are valid.

        Raises:
            InputError: A value is not finite, a size is not positive, a score is not in [0, 1], or a label has no name.
        """
        for name, value in self._tensors().items():
            if value is not None and value.is_floating_point() and len(value):
                check_finite("Boxes", name, value)
        if bool((is_flat := (self.boxes[:, 3:6] <= 0).any(1)).any()):
            raise InputError(f"Boxes: box {int(is_flat.nonzero()[0])} has a size that is not positive")
        if self.scores is not None and bool(((self.scores < 0) | (self.scores > 1)).any()):
            raise InputError(f"Boxes: scores go from {span(self.scores)}, want 0 to 1")
        if self.labels is not None and len(self.labels):
            low, high = int(self.labels.min()), int(self.labels.max())
            if low < 0 or (self.classes and high >= len(self.classes)):
                raise InputError(f"Boxes: labels go from {low} to {high}, want 0 to {max(len(self.classes) - 1, 0)}")
        return self

    @property
    def corners(self) -> Float[Tensor, "b 8 3"]:
        """Corners [m]: the four of the bottom face counter-clockwise from front left, then those of the top face."""
        signs = [(1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1)]
        local = self.boxes.new_tensor(signs) / 2 * self.boxes[:, None, 3:6]
        cosine, sine = self.boxes[:, 6].cos()[:, None], self.boxes[:, 6].sin()[:, None]
        x, y, z = local.unbind(-1)
        return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], -1) + self.boxes[:, None, :3]

    @property
    def device(self) -> torch.device:
        return self.boxes.device

    def to(self, device: torch.device | str) -> "Boxes":
        """The same boxes on another device."""
        return replace(self, **{name: moved(value, device) for name, value in self._tensors().items()})

    def transform(self, matrix: Float[Tensor, "4 4"]) -> "Boxes":
        """The boxes transformed by x' = s R x + t, where R rotates about z.

        Raises:
            InputError: The matrix shears, reflects or is singular, or tilts z.
        """
        return similarity.transform_boxes(self, matrix)

    def crop(self, which: Rows) -> "Boxes":
        """The boxes whose centers are selected, in their order.

        Args, errors: as for `selection.rows_of`.
        """
        return self[rows_of(which, self.boxes[:, :3])]

    def merge(self, *others: "Boxes") -> "Boxes":
        """These boxes and others; labels are matched by class name, and fields that not all have are dropped.

        Raises:
            InputError: Only some of them have class names.
        """
        parts = (self, *others)
        if len({bool(part.classes) for part in parts}) > 1:
            raise InputError("merge: some of the boxes have names of classes, some have none")
        classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
        labels = [
            torch.tensor([classes.index(name) for name in part.classes], device=part.device)[part.labels]
            if part.classes
            else part.labels
            for part in parts
            if part.labels is not None
        ]
        scores = [part.scores for part in parts if part.scores is not None]
        boxes = torch.cat([part.boxes for part in parts])
        have_labels, have_scores = (len(found) == len(parts) for found in (labels, scores))
        return Boxes(boxes, torch.cat(labels) if have_labels else None, torch.cat(scores) if have_scores else None, classes)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, which: int | slice | Tensor) -> "Boxes":
        """Some of the boxes: an index, slice, mask or index tensor."""
        rows = [which] if isinstance(which, int) else which
        return replace(self, **{name: None if value is None else value[rows] for name, value in self._tensors().items()})

    def __repr__(self) -> str:
        extras = (f", {' '.join(self.classes)}" if self.classes else "") + (", scores" if self.scores is not None else "")
        return f"Boxes({len(self)} boxes{extras}, {self.device})"

    def _repr_html_(self) -> str:
        rows = [("boxes", len(self)), ("classes", ", ".join(self.classes) or "-")]
        rows += [(f"{name} [m]", span(self.boxes[:, i])) for i, name in enumerate(("x", "y", "z", "length", "width", "height"))]
        rows += [("scores", "-" if self.scores is None else span(self.scores)), ("device", self.device)]
        return html_table("Boxes", rows, codecs.preview(self))

    def _tensors(self) -> dict[str, Tensor | None]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "classes"}
