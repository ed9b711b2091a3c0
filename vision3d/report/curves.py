"""Training curves as small charts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.runs import read_metrics
from vision3d.io.images import write_image
from vision3d.report.canvas import FAINT, INK, LINE, Canvas
from vision3d.scene.resample import resize_area

_CURVE = (28, 98, 180)
_WIDTH, _HEIGHT = 420, 250  # size of a chart [px]
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 18, 34, 34  # margins around the axes [px]
_SCALE = 2  # supersampling, for smooth lines


@dataclass(frozen=True)
class Curve:
    """One quantity over time."""

    title: str
    times: Sequence[float]
    """[s]."""
    values: Sequence[float]
    is_log: bool = False
    """Whether the axis is logarithmic; then all values must be > 0."""


def run_curves(metrics: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """The curves of a fit from the lines of its metrics.jsonl: loss, Gaussians, PSNR of held-out views."""
    curves = []
    for key, title, is_log in (
        ("loss", "loss", True),
        ("train_accuracy", "training accuracy [%]", False),
        ("gaussians", "Gaussians", False),
        ("eval_psnr", "PSNR of held-out views [dB]", False),
    ):
        lines = [line for line in metrics if isinstance(line.get(key), int | float)]
        if len(lines) > 1:
            values = [float(line[key]) for line in lines]
            curves.append(Curve(title, [line["wall_s"] for line in lines], values, is_log and min(values) > 0))
    return curves


def draw_curves(curves: Sequence[Curve]) -> Float[Tensor, "h w 3"]:
    """Charts side by side, time on the horizontal axis.

    Raises:
        InputError: No curves are given.
    """
    if not curves:
        raise InputError("curves: got none, want at least one with two points")
    canvas = Canvas(_SCALE * _WIDTH * len(curves), _SCALE * _HEIGHT)
    for i, curve in enumerate(curves):
        _draw(canvas, curve, _SCALE * _WIDTH * i)
    return resize_area(canvas.image(), _WIDTH * len(curves), _HEIGHT)


def write_run_curves(path: Path | str, run_folder: Path | str) -> bool:
    """Write the charts of a run folder as an image.

    Returns:
        False if its metrics.jsonl has too few lines for a chart, and nothing was written.
    """
    curves = run_curves(read_metrics(Path(run_folder) / "metrics.jsonl"))
    if curves:
        write_image(path, draw_curves(curves))
    return bool(curves)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two values: multiples of 1, 2 or 5 times a power of ten, at most `most`."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if math.floor(span / (power * factor) + 2e-9) + 1 <= most)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two values > 0, evenly spaced on a logarithmic axis: 1, 2, 5 of each power of ten, or fewer."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        marks = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(marks) <= 6:
            break
    return marks if len(marks) > 1 else ticks(low, high)


def _draw(canvas: Canvas, curve: Curve, offset: int) -> None:
    s = _SCALE
    left, right = offset + s * _LEFT, offset + s * (_WIDTH - _RIGHT)
    top, bottom = s * _TOP, s * (_HEIGHT - _BOTTOM)
    values = [math.log10(value) for value in curve.values] if curve.is_log else list(curve.values)
    low, high = min(values), max(values)
    if not curve.is_log:
        low = min(low, 0.0) if low < 0.4 * high else low
    pad = 0.05 * (high - low) or 0.05 * max(abs(high), 1.0)
    low, high = low - (0 if low == 0 else pad), high + pad
    end = max(max(curve.times), 1e-9)

    def across(time: float) -> float:
        return left + (right - left) * time / end

    def down(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    canvas.text(left, s * 10, curve.title, s * 14, INK)
    marks = log_ticks(10**low, 10**high) if curve.is_log else ticks(low, high)
    for mark in marks:
        y = down(math.log10(mark)) if curve.is_log else down(mark)
        canvas.draw.line([(left, y), (right, y)], fill=LINE, width=s)
        canvas.text(left - s * 6, y, _label(mark), s * 11, FAINT, "rm")
    for mark in ticks(0, end):
        canvas.draw.line([(across(mark), bottom), (across(mark), bottom + s * 4)], fill=FAINT, width=s)
        canvas.text(across(mark), bottom + s * 6, f"{_label(mark)} s", s * 11, FAINT, "ma")
    canvas.draw.line([(left, bottom), (right, bottom)], fill=FAINT, width=s)
    points = [(across(time), down(value)) for time, value in zip(curve.times, values)]
    canvas.draw.line(points, fill=_CURVE, width=2 * s, joint="curve")


def _label(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.6g}"
