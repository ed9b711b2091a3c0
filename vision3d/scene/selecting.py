"""Selections given as text, and the points that they select."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, FileFormatError, InputError, nearest_names
from vision3d.geometry.neighbors import neighbor_distance
from vision3d.geometry.voxels import connected_parts
from vision3d.scene import Region, Selection

FORMS = {
    "box": "box:CX,CY,CZ,HX,HY,HZ (half extents; optionally a quaternion W,X,Y,Z)",
    "sphere": "sphere:CX,CY,CZ,R",
    "plane": "plane:PX,PY,PZ,NX,NY,NZ",
    "label": "label:N",
    "component": "component or component:N (1 or 0: the largest)",
    "rest": "rest",
    "all": "all",
}
"""Forms of a selection, besides the path of a .json."""


class Selector:
    """Evaluates selections on the points of a scene.

    Args:
        points: Centers of Gaussians, or vertices.
        labels: Labels of the points, if there are any.
        solid: Points considered for connected parts.
        noun: Noun for the points, for messages.
        apart: Points that do not connect others, such as floor and surroundings: their parts come after all others.
        mask_of: Mask of the points in a `Selection`.
        between: Additional surface points between the vertices of a mesh, which has few on flat parts, and a mask of those
            `apart`.
    """

    def __init__(
        self,
        points: Float[Tensor, "n 3"],
        labels: Int64[Tensor, " n"] | None,
        solid: Bool[Tensor, " n"],
        noun: str = "points",
        apart: Bool[Tensor, " n"] | None = None,
        mask_of: Callable[[Selection], Bool[Tensor, " n"]] | None = None,
        between: tuple[Float[Tensor, "m 3"], Bool[Tensor, " m"]] | None = None,
    ) -> None:
        self.points, self.labels, self.solid, self.noun = points, labels, solid, noun
        self._apart = torch.zeros_like(solid) if apart is None else apart
        self._mask_of = mask_of or (lambda selection: selection.mask(points))
        self._between = (points[:0], self._apart[:0]) if between is None else between
        self._parts: Tensor | None = None

    @property
    def parts(self) -> Int64[Tensor, " n"]:
        """The connected part of each solid point, 0 the largest of those that are not `apart`; -1 for others."""
        if self._parts is None:
            found = torch.full((len(self.points),), -1, dtype=torch.int64)
            others, are_apart = self._between
            for is_apart in (False, True):
                rows = (self.solid & (self._apart == is_apart)).nonzero()[:, 0]
                if len(rows):
                    first, places = int(found.max()) + 1, torch.cat([self.points[rows], others[are_apart == is_apart]])
                    parts = connected_parts(places, part_spacing(places))[: len(rows)]
                    found[rows] = first + torch.unique(parts, return_inverse=True)[1]
            self._parts = found
        return self._parts

    def mask(self, texts: Sequence[str], key: str, taken: Bool[Tensor, " n"] | None = None) -> Bool[Tensor, " n"]:
        """Mask of the points in any of the selections.

        Args:
            texts: See `FORMS`.
            key: Key of the configuration, for messages.
            taken: Points of other bodies, for `rest`.

        Raises:
            ConfigError: A text is not a selection.
            InputError: It selects nothing, or uses labels that the scene lacks.
        """
        found = torch.zeros(len(self.points), dtype=torch.bool)
        for text in texts:
            found |= self._one(text.strip(), key, taken)
        if texts and not bool(found.any()):
            verb = "holds" if len(texts) == 1 else "hold"
            raise InputError(f"{key}: {' and '.join(texts)} {verb} none of {len(found)} {self.noun}, want at least one")
        return found

    def _one(self, text: str, key: str, taken: Tensor | None) -> Tensor:
        kind, _, values = text.partition(":")
        if kind in _READERS and values:
            return _READERS[kind](_numbers(values, kind, key)).contains(self.points)
        if kind == "all" and not values:
            return torch.ones(len(self.points), dtype=torch.bool)
        if kind == "rest" and not values:
            return torch.ones(len(self.points), dtype=torch.bool) if taken is None else ~taken
        if kind == "component":
            number = 1 if not values else _whole(values, kind, key)
            if number < 0:
                raise ConfigError(key, f"got {text}, want component:N with N >= 1")
            return self.parts == max(number - 1, 0)
        if kind == "label" and values:
            number = _whole(values, kind, key)
            if self.labels is None:
                raise InputError(f"{key}: {text} needs labels, and the scene has none")
            return self.labels == number
        if text.endswith(".json") or Path(text).is_file():
            selection = Selection.load(text)
            try:
                return self._mask_of(selection.validate())
            except InputError as error:
                raise FileFormatError(text, str(error)) from error
        hint = nearest_names(kind, FORMS)
        hint = f"{hint} " if hint.startswith("did") else ""
        raise ConfigError(key, f"{text!r} is not a selection; {hint}want {'; '.join(FORMS.values())}; or the path of a .json")


def part_spacing(points: Float[Tensor, "n 3"]) -> float:
    """Maximum distance of connected points: a 25th of the longest side of the middle 98 %, or twice the usual distance."""
    sample = points[:: max(1, len(points) // 100_000)].double()
    low, high = torch.quantile(sample, torch.tensor([0.01, 0.99], dtype=torch.float64), dim=0)
    usual = 2 * float(neighbor_distance(points.double()).median()) if len(points) > 3 else 0.0
    return max(float((high - low).max()) / 25, usual) or 1.0


def _numbers(text: str, kind: str, key: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    counts = _COUNTS[kind]
    if len(values) not in counts or not all(abs(value) < float("inf") for value in values):
        raise ConfigError(key, f"got {kind}:{text}, want {FORMS[kind]}")
    lengths = {"box": values[3:6], "sphere": values[3:]}.get(kind, [1.0])
    if min(lengths) <= 0:
        raise ConfigError(key, f"got {kind}:{text}, want lengths > 0")
    return values


def _whole(text: str, kind: str, key: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(key, f"got {kind}:{text}, want {FORMS[kind]}") from None


def _box(values: list[float]) -> Region:
    quat = torch.tensor(values[6:]) if len(values) > 6 else None
    return Region.box(torch.tensor(values[:3]), torch.tensor(values[3:6]), quat)


_COUNTS = {"box": (6, 10), "sphere": (4,), "plane": (6,)}
_READERS: Mapping[str, Callable[[list[float]], Region]] = {
    "box": _box,
    "sphere": lambda values: Region.sphere(torch.tensor(values[:3]), values[3]),
    "plane": lambda values: Region.plane(torch.tensor(values[:3]), torch.tensor(values[3:])),
}
