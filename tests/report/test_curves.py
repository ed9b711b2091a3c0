import itertools
import json

import pytest
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError
from vision3d.io.images import read_image
from vision3d.report.curves import Curve, draw_curves, log_ticks, run_curves, ticks, write_run_curves


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low, span):
    high = low + span
    marks = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-3)
    assert marks and len(marks) <= 5
    assert all(low - slack <= mark <= high + slack for mark in marks)
    steps = {round((b - a) / (marks[1] - marks[0]), 6) for a, b in itertools.pairwise(marks)}
    assert steps <= {1.0}


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 10, [0, 5, 10]), (0, 1, [0, 0.5, 1]), (17, 31, [20, 25, 30]), (3, 3, [3])],
)
def test_ticks_by_hand(low, high, want):
    assert ticks(low, high) == pytest.approx(want)


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0.015, 0.3, [0.02, 0.05, 0.1, 0.2]),
        (0.9, 1.1e4, [1, 10, 100, 1000, 10000]),
        (0.11, 0.19, [0.12, 0.14, 0.16, 0.18]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low, high, want):
    assert log_ticks(low, high) == pytest.approx(want)


def test_curves_of_a_run():
    metrics = [
        {"step": 1, "wall_s": 0.5, "loss": 0.4, "gaussians": 100},
        {"step": 2, "wall_s": 1.0, "loss": None, "gaussians": 150},
        {"step": 2, "wall_s": 1.1, "eval_psnr": 20.0},
        {"step": 3, "wall_s": 1.5, "loss": 0.2, "gaussians": 150},
    ]
    loss, gaussians = run_curves(metrics)
    assert loss == Curve("loss", [0.5, 1.5], [0.4, 0.2], is_log=True)
    assert gaussians == Curve("Gaussians", [0.5, 1.0, 1.5], [100, 150, 150])


def test_line_follows_the_values():
    times = list(range(11))
    image = draw_curves([Curve("up", times, [2.0 * t for t in times]), Curve("down", times, [2.0**-t for t in times], True)])
    assert image.shape == (250, 840, 3)
    is_blue = (image[..., 2] - image[..., 0]) > 0.3
    for left, sign in ((0, -1), (420, 1)):  # rows count downwards
        rows = [is_blue[:, left + x].nonzero()[:, 0].float().mean() for x in (100, 200, 300)]
        assert sign * (rows[1] - rows[0]) > 20
        assert abs((rows[1] - rows[0]) - (rows[2] - rows[1])) < 3  # straight lines, the second on a logarithmic axis


def test_written_charts(tmp_path):
    assert not write_run_curves(tmp_path / "curves.png", tmp_path)
    assert not (tmp_path / "curves.png").exists()
    lines = [json.dumps({"step": i, "wall_s": i, "loss": 1 / i}) for i in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert write_run_curves(tmp_path / "curves.png", tmp_path)
    assert read_image(tmp_path / "curves.png").shape == (250, 420, 3)


def test_constant_values_have_an_axis():
    assert draw_curves([Curve("flat", [0.0, 1.0], [5.0, 5.0])]).min() < 0.5


def test_no_curves():
    with pytest.raises(InputError, match="curves: got none"):
        draw_curves([])
