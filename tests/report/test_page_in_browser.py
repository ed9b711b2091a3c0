"""report.html of a run in headless Chromium, opened as a file."""

import pytest
import torch

from tests.support.browser import Browser
from tests.support.datasets import write_ring_photographs
from vision3d.core.progress import silent
from vision3d.core.runs import RunFolder
from vision3d.io.images import read_image
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
