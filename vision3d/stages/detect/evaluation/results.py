"""The table of an evaluation."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from vision3d.core.errors import InputError, nearest_names
from vision3d.stages.detect.evaluation.average_precision import POINTS


@dataclass(frozen=True)
class Row:
    """Average precision of one class, metric and difficulty, in percent; NaN if no label counts."""

    name: str
    metric: str
    """2d, bev, 3d, or aos (orientation similarity of the 2D matches)."""
    difficulty: str
    min_overlap: float
    """A true positive has a larger IoU."""
    valid: int
    """Number of labels that count."""
    r11: float
    r40: float
    exact: float
    """Without interpolation: see `average_precision.Averages`."""

    @property
    def is_reliable(self) -> bool:
        """Whether r11 and r40 can reach 100: with fewer than 41 labels the curve ends early, even for a perfect detector."""
        return self.valid >= POINTS


@dataclass(frozen=True)
class Evaluation:
    """Rows by class, metric and difficulty."""

    rows: tuple[Row, ...]

    def get(self, name: str, metric: str, difficulty: str) -> Row:
        """One row.

        Raises:
            InputError: There is none; the message has similar ones.
        """
        found = {f"{row.name} {row.metric} {row.difficulty}": row for row in self.rows}
        key = f"{name} {metric} {difficulty}"
        if key not in found:
            raise InputError(f"{key} was not evaluated; {nearest_names(key, found)}")
        return found[key]

    def table(self) -> str:
        """All rows as text; `*` marks r11 and r40 of fewer than 41 labels, which are too low."""
        lines = [("class", "metric", "difficulty", "IoU >", "objects", "AP R11", "AP R40", "AP exact")]
        for row in self.rows:
            mark = "" if row.is_reliable or row.valid == 0 else "*"
            values = _percent(row.r11) + mark, _percent(row.r40) + mark, _percent(row.exact)
            lines.append((row.name, row.metric, row.difficulty, f"{row.min_overlap:g}", str(row.valid), *values))
        widths = [max(map(len, column)) for column in zip(*lines)]
        return "\n".join(
            "  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
            for line in lines
        )

    def records(self) -> list[dict[str, Any]]:
        """The rows for JSON; None in place of NaN."""
        return [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(row).items()}
            for row in self.rows
        ]


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
