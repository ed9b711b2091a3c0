"""Error distribution of each representation, as curves over the percentage of tests."""

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from vision3d.report.canvas import FAINT, INK, LINE, Canvas, Color, text_width
from vision3d.report.curves import log_ticks
from vision3d.scene.resample import resize_area

_COLORS: tuple[Color, ...] = (
    (28, 98, 180), (214, 96, 24), (38, 140, 72), (190, 38, 60), (122, 74, 170), (20, 150, 160), (150, 110, 20), (220, 90, 170),
    (90, 90, 90), (110, 170, 40),
)  # fmt: skip
_WIDTH, _HEIGHT, _SCALE = 760, 440, 2
_LEFT, _TOP, _BOTTOM, _LEGEND = 66, 58, 46, 150
_DECADES = 4  # maximum number shown


def percentile_sheet(
    curves: Mapping[str, Sequence[float]], title: str, unit: str, subtitle: str = ""
) -> Float[Tensor, "h w 3"]:
    """Errors (logarithmic) over the percentage of tests that do not exceed them.

    Args:
        curves: Error quantiles at evenly spaced percentages, 0 to 100, by name.
        title: Title.
        unit: Unit of the errors.
        subtitle: Line below the title.
    """
    s = _SCALE
    canvas = Canvas(s * _WIDTH, s * _HEIGHT)
    left, right = s * _LEFT, s * (_WIDTH - _LEGEND)
    top, bottom = s * _TOP, s * (_HEIGHT - _BOTTOM)
    high = max(max(values) for values in curves.values())
    high = high if high > 0 else 1.0
    # The axis starts at the fifth percentile of the best curve.
    low = min(values[len(values) // 20] for values in curves.values())
    low = max(low, high / 10**_DECADES)
    low = min(low, high / 2)
    span = math.log10(high) - math.log10(low)

    def place(percent: float, error: float) -> tuple[float, float]:
        share = (math.log10(max(error, low)) - math.log10(low)) / span
        return left + (right - left) * percent / 100, bottom - (bottom - top) * share

    canvas.text(s * 14, s * 10, title, s * 16, INK)
    canvas.text(s * 14, s * 33, subtitle, s * 11, FAINT, room=s * (_WIDTH - 28))
    for mark in log_ticks(low, high):
        y = place(0, mark)[1]
        canvas.draw.line([(left, y), (right, y)], fill=LINE, width=s)
        canvas.text(left - s * 6, y, f"{mark:g} {unit}", s * 11, FAINT, "rm")
    for percent in range(0, 101, 10):
        x = place(percent, low)[0]
        canvas.draw.line([(x, bottom), (x, bottom + s * 4)], fill=FAINT, width=s)
        canvas.text(x, bottom + s * 7, f"{percent} %", s * 11, FAINT, "ma")
    canvas.draw.line([(left, bottom), (right, bottom)], fill=FAINT, width=s)
    canvas.text((left + right) / 2, s * _HEIGHT - s * 6, "of the tests have at most this error", s * 11, FAINT, "ms")
    # In the legend the best is at the bottom, as in the chart.
    order = sorted(curves, key=lambda name: -curves[name][len(curves[name]) // 2])
    colors = {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(curves)}
    for name in order:
        values = curves[name]
        points = [place(100 * i / (len(values) - 1), value) for i, value in enumerate(values)]
        canvas.draw.line(points, fill=colors[name], width=2 * s, joint="curve")
    for i, name in enumerate(order):
        y = top + s * (8 + 20 * i)
        canvas.draw.line([(right + s * 12, y), (right + s * 30, y)], fill=colors[name], width=3 * s)
        median = f"  {curves[name][len(curves[name]) // 2]:.3g}"
        canvas.text(right + s * 36, y, name, s * 12, INK, "lm", room=s * (_LEGEND - 84))
        canvas.text(s * (_WIDTH - 8), y, median, s * 11, FAINT, "rm")
    canvas.text(s * (_WIDTH - 8), top - s * 8, "median", s * 10, FAINT, "rm", room=int(s * text_width("median", 12)))
    return resize_area(canvas.image(), _WIDTH, _HEIGHT)
