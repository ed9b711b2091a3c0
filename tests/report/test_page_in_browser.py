"""report.html of a run in headless Chromium, opened as a file."""

import json

import pytest
import torch

from tests.support.browser import Browser
from tests.support.datasets import write_ring_photographs
from vision3d.core.progress import silent
from vision3d.core.runs import RunFolder
from vision3d.io.images import read_image, write_image
from vision3d.report import write_report
from vision3d.stages.fit import FitConfig, fit

pytestmark = [pytest.mark.viewer, pytest.mark.slow]


def test_the_page_is_self_contained(tmp_path):
    photos = write_ring_photographs(tmp_path / "photos", width=192, height=144)
    config = FitConfig(steps=60, max_gaussians=500, sh_degree=0)
    folder = RunFolder.create(tmp_path / "run", config)
    result = fit(config, photos, run_folder=folder, progress=silent)
    folder.write_summary(result.summary)
    page = write_report(folder.path)
    shots = [str(tmp_path / f"{name}.png") for name in ("left", "right")]
    width = "getComputedStyle(document.querySelector('.pair')).getPropertyValue('--at')"
    place = "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.pair').getBoundingClientRect())"
    visit = Browser(page.as_uri(), [
        ["eval", "document.querySelectorAll('.pair').length"],
        ["eval", "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"],
        ["eval", "document.querySelector('.pair').scrollIntoView()"],
        ["set", ".pair input", "0"], ["eval", width], ["shot", shots[0]],
        ["set", ".pair input", "100"], ["eval", width], ["shot", shots[1]],
        ["eval", place],
    ], tmp_path).visit()  # fmt: skip
    assert visit.errors == []
    assert [url for url in visit.requests if not url.startswith((page.as_uri(), "data:"))] == []
    count, are_loaded, _, left, right, (x, y, w, h) = visit.values
    assert count == 2 and are_loaded and (left, right) == ("0%", "100%")
    # One end of the slider shows the photo, the other the render: each equals its file.
    both = read_image(sorted((folder.path / "renders").glob("*.png"))[0])
    half = both.shape[1] // 2
    photo, render = (both[:, i * half : (i + 1) * half].permute(2, 0, 1)[None] for i in range(2))
    height, width, top, left = (round(value) for value in (h, w, y, x))
    for path, side in zip(shots, (render, photo)):
        want = torch.nn.functional.interpolate(side, size=(height, width), mode="bilinear")[0].permute(1, 2, 0)
        seen = read_image(path)[top : top + height, left : left + width, :3]
        error = (seen - want)[8:-8, 8:-8]  # without the outline
        assert float(error.square().mean()) < 1e-3  # 30 dB; differences by WebP and scaling
    assert float((read_image(shots[0]) - read_image(shots[1])).square().mean()) > 1e-3


def write_wide_run(folder):
    """A run with everything that could be wider than a phone: long words, many columns, curves, wide images, options."""
    word = "a_name_without_spaces_" * 8
    summary = {
        "status": "done", "command": ["x", "detect", "eval", f"/data/{word}", "--out", word], "vision3d": "0.1.0",
        "git": "0f" * 20, "platform": "Linux-6.8.0-45-generic-x86_64-with-glibc2.39", "processor": word,
        "results": {
            "psnr": 30.26672, "checkpoint": word, "warnings": [f"the file {word} has no colors"],
            "average_precision": [{"class name": "car"} | {f"column {i}": 0.1234 for i in range(14)}],
        },
    }  # fmt: skip
    (folder / "figures").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = ({"step": i, "wall_s": i, "loss": 1 / i, "gaussians": 9 * i, "eval_psnr": i} for i in range(1, 9))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "config.yaml").write_text(f"name: {word}\n")
    write_image(folder / "figures" / "wide.png", torch.rand(200, 1600, 3))
    write_image(folder / "renders" / "000.png", torch.rand(200, 1600, 3))
    view = {"name": f"images/{word}.png", "file": "000.png", "psnr": 20.0}
    (folder / "eval.json").write_text(json.dumps({"mean": {"psnr": 20.0}, "views": [view]}))
    return write_report(folder)


def test_a_phone_shows_the_page_without_scrolling_sideways(tmp_path):
    page = write_wide_run(tmp_path / ("run_" * 30))
    visible = """[...document.querySelectorAll("body *")].filter((e) => {
        const box = e.parentElement.closest(".scroll, pre");
        return box === null && e.getBoundingClientRect().right > innerWidth;
    }).map((e) => e.tagName)"""
    visit = Browser(page.as_uri(), [
        ["size", 390, 800], ["eval", "document.querySelectorAll('details').forEach((e) => e.open = true)"],
        ["eval", "[innerWidth, document.documentElement.scrollWidth]"], ["eval", visible],
        ["eval", "[...document.images].map((image) => image.getBoundingClientRect().width)"],
        ["eval", "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])(document.querySelector('.scroll'))"],
        ["shot", str(tmp_path / "phone.png")],
    ], tmp_path).visit()  # fmt: skip
    _, (inner, scroll), outside, widths, (table, seen) = visit.values
    assert inner == scroll == 390 and outside == []
    assert len(widths) == 6 and all(300 < width <= 390 for width in widths)  # three curves, a pair and a figure
    assert table > seen  # the table has a scroll bar of its own
