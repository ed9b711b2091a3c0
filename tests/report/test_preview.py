import base64
import io
import re

import torch

from tests.support.scenes import ring_scene
from vision3d.report import preview


def test_notebook_shows_an_image_of_the_scene():
    from PIL import Image

    html = ring_scene()._repr_html_()
    (data,) = re.findall(r"<img src='data:image/png;base64,([^']+)'>", html)
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (240, 180)
    colors = image.convert("RGB").getcolors(50_000)
    assert any(r > 180 and g < 120 and b < 80 for _, (r, g, b) in colors)  # the ring's stripes
    assert "<b>GaussianScene</b>" in html


def test_scenes_without_an_image(monkeypatch):
    scene = ring_scene(20)
    monkeypatch.setattr(preview, "MAX", 10)
    assert preview.preview(scene) == ""
    monkeypatch.undo()
    assert preview.preview(scene[:0]) == ""
    scene.means[3] = torch.nan
    assert "<img" not in scene._repr_html_()
