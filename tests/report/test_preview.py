import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.clouds import drawn_motion
from tests.support.scenes import ring_cameras, ring_scene
from tests.support.skins import arm
from vision3d.geometry import shapes
from vision3d.report import preview
from vision3d.scene import Boxes, FrameSequence, Mesh, MeshGaussians, PointCloud, Scene, Selection
from vision3d.scene.selection import Region


def image_of(value) -> np.ndarray:
    """The image of a value in a notebook, (H, W, 3) in [0, 255]."""
    (data,) = re.findall(r"<img src='data:image/png;base64,([^']+)'>", value._repr_html_())
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def ball() -> Mesh:
    return Mesh(*shapes.icosphere(2))


def values():
    skin = arm(4)
    frames = {"vertices": skin.mesh.vertices.expand(3, -1, -1)}
    return {
        "mesh": ball(),
        "mesh_gaussians": MeshGaussians.from_mesh(ball(), 1),
        "skin": skin,
        "sequence": FrameSequence(base=skin.mesh, times=torch.arange(3.0), channels=frames),
        "points": PointCloud(ring_scene(400).means),
        "cameras": ring_cameras(),
        "boxes": Boxes(torch.tensor([[0.0, 0, 0, 4, 2, 1.5, 0.3], [6.0, 1, 0, 4, 2, 1.5, 1.0]])),
        "motion": drawn_motion(poses=4),
        "selection": Selection((Region.box(torch.zeros(3), torch.tensor([1.0, 2.0, 0.5])),)),
        "scene": Scene().add("ring", ring_scene(400)).add("ball", ball()),
    }


def test_notebook_shows_an_image_of_the_scene():
    image = image_of(ring_scene())
    assert image.shape == (180, 240, 3)
    r, g, b = np.moveaxis(image, -1, 0)
    assert ((r > 180) & (g < 120) & (b < 80)).any()  # the ring's stripes
    assert "<b>GaussianScene</b>" in ring_scene()._repr_html_()


@pytest.mark.parametrize("name", sorted(values()))
def test_all_types_have_an_image(name):
    image = image_of(values()[name])
    drawn = (image < 250).any(-1)
    assert image.shape == (180, 240, 3)
    assert 0.003 < drawn.mean() < 0.9
    if name not in ("points", "scene"):  # of Gaussians, the camera shows the bulk
        assert not drawn[0].any() and not drawn[-1].any()


def test_scenes_without_an_image(monkeypatch):
    scene = ring_scene(20)
    monkeypatch.setattr(preview, "MAX", 10)
    assert preview.preview(scene) == preview.preview(ball()) == ""
    monkeypatch.undo()
    assert preview.preview(scene[:0]) == preview.preview(Scene()) == preview.preview(PointCloud(torch.zeros(0, 3))) == ""
    assert preview.preview(ring_cameras()[:0]) == ""
    scene.means[3] = torch.nan
    assert "<img" not in scene._repr_html_()
    mesh = ball()
    mesh.vertices[0, 0] = torch.inf
    assert "<img" not in mesh._repr_html_()
