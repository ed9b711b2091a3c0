"""Energy and momentum plots of a simulation."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vision3d.report.canvas import FAINT, INK, LINE, Canvas, Color
from vision3d.report.curves import ticks
from vision3d.scene.resample import resize_area

_CHARTS: tuple[tuple[str, dict[str, str], float], ...] = (
    (
        "energies since the start [J]",
        {"kinetic_J": "kinetic", "elastic_J": "elastic", "potential_J": "potential", "total_J": "total", "work_J": "work"},
        1.0,
    ),
    ("height of the center of mass [m]", {"height_m": ""}, 1.0),
    ("momentum [kg m/s]", {"momentum_kg_m_s": ""}, 1.0),
    ("shortest time step [ms]", {"dt_s": ""}, 1000.0),
    ("steps per frame", {"steps": ""}, 1.0),
    ("particles clamped to the grid", {"kept": ""}, 1.0),
)
_FROM_START = {"potential_J", "total_J"}  # quantities with an arbitrary zero
_COLORS: tuple[Color, ...] = ((28, 98, 180), (214, 96, 24), (38, 140, 72), (40, 40, 40), (122, 74, 170))
_WIDTH, _HEIGHT, _SCALE, _COLUMNS = 420, 260, 2, 3
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 52, 32


def energy_plot(lines: Sequence[Mapping[str, Any]]) -> Float[Tensor, "h w 3"]:
    """Energies, height, momentum, time steps and clamped particles over the simulated time.

    Args:
        lines: Lines of metrics.jsonl, each with time_s; at least two.
    """
    rows = -(-len(_CHARTS) // _COLUMNS)
    canvas = Canvas(_SCALE * _WIDTH * _COLUMNS, _SCALE * _HEIGHT * rows)
    times = [float(line["time_s"]) for line in lines]
    for place, (title, names, factor) in enumerate(_CHARTS):
        curves = {}
        for name, label in names.items():
            values = [factor * float(line.get(name, 0.0)) for line in lines]
            if name == "dt_s" and len(values) > 1:
                values[0] = values[1]  # the first frame has no step
            base = values[0] if name in _FROM_START else 0.0
            curves[label] = [value - base for value in values]
        corner = (_SCALE * _WIDTH * (place % _COLUMNS), _SCALE * _HEIGHT * (place // _COLUMNS))
        _draw(canvas, corner, title, times, curves)
    return resize_area(canvas.image(), _WIDTH * _COLUMNS, _HEIGHT * rows)


def _draw(
    canvas: Canvas, corner: tuple[int, int], title: str, times: list[float], curves: Mapping[str, Sequence[float]]
) -> None:
    s = _SCALE
    left, right = corner[0] + s * _LEFT, corner[0] + s * (_WIDTH - _RIGHT)
    top, bottom = corner[1] + s * _TOP, corner[1] + s * (_HEIGHT - _BOTTOM)
    low = min(0.0, *(min(values) for values in curves.values()))
    high = max(0.0, *(max(values) for values in curves.values()))
    pad = 0.05 * (high - low) or 1.0
    low, high = low - (pad if low < 0 else 0), high + pad

    def place(time: float, value: float) -> tuple[float, float]:
        return left + (right - left) * time / times[-1], bottom - (bottom - top) * (value - low) / (high - low)

    canvas.text(left, corner[1] + s * 10, title, s * 14, INK)
    for mark in ticks(low, high):
        y = place(0.0, mark)[1]
        canvas.draw.line([(left, y), (right, y)], fill=LINE, width=s)
        canvas.text(left - s * 6, y, f"{mark:.4g}", s * 11, FAINT, "rm")
    for mark in ticks(0.0, times[-1]):
        x = place(mark, low)[0]
        canvas.draw.line([(x, bottom), (x, bottom + s * 4)], fill=FAINT, width=s)
        canvas.text(x, bottom + s * 6, f"{mark:.4g} s", s * 11, FAINT, "ma")
    canvas.draw.line([(left, bottom), (right, bottom)], fill=FAINT, width=s)
    x = left
    for color, (label, values) in zip(_COLORS, curves.items()):
        canvas.draw.line([place(t, v) for t, v in zip(times, values)], fill=color, width=2 * s, joint="curve")
        if label:
            canvas.draw.line([(x, corner[1] + s * 38), (x + s * 12, corner[1] + s * 38)], fill=color, width=3 * s)
            canvas.text(x + s * 15, corner[1] + s * 38, label, s * 11, FAINT, "lm")
            x += s * (24 + 6 * len(label))
