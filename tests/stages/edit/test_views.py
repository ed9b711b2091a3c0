"""Images of edited objects: the object fills them and is not cut off."""

import pytest
import torch

from vision3d.geometry.shapes import icosphere
from vision3d.io.images import read_image
from vision3d.scene import GaussianScene, Mesh
from vision3d.stages.edit.run_config import EditConfig
from vision3d.stages.edit.views import images_of, orbit, write_variants

CONFIG = EditConfig(views=4, view_size=96)


def stick(kind: str, length: float = 3.0) -> Mesh | GaussianScene:
    """A long object along x, off the origin."""
    vertices, faces = icosphere(3)
    points = vertices * torch.tensor([length, 0.5, 0.5]) + torch.tensor([5.0, -2, 1])
    if kind == "mesh":
        return Mesh(points, faces, vertex_colors=torch.zeros_like(points))
    return GaussianScene.from_points(points, torch.zeros_like(points), opacity=0.9)


@pytest.mark.parametrize("kind", ["mesh", "gaussians"])
@pytest.mark.parametrize("length", [0.5, 3.0])
def test_an_object_fills_the_images_and_is_whole(kind, length):
    images = torch.stack(images_of(stick(kind, length), orbit(stick(kind, length), "z", CONFIG)))
    dark = (images < 0.9).any(-1)
    assert not dark[:, [0, -1]].any() and not dark[:, :, [0, -1]].any()
    spans = dark.any(0).any(0).nonzero()[:, 0], dark.any(0).any(1).nonzero()[:, 0]
    assert max(int(span[-1] - span[0]) for span in spans) > 0.75 * 96


def test_surroundings_do_not_shrink_an_object():
    ground = GaussianScene.from_points(60 * torch.randn(4000, 3), torch.zeros(4000, 3), opacity=0.9)
    cameras = orbit(stick("gaussians").merge(ground), "z", CONFIG)
    assert float((cameras.centers - torch.tensor([5.0, -2, 1])).norm(dim=1).max()) < 400


def test_the_sheet_of_variants_has_all_and_their_texts(tmp_path):
    dark, light = stick("mesh"), stick("mesh")
    light = Mesh(light.vertices, light.faces, vertex_colors=torch.full_like(light.vertices, 0.6))
    text = "stripes: red on cream (darker shade, wider, shifted)"
    write_variants(tmp_path / "a.png", [(dark, text), (light, text), (dark, "c")], dark, "z", CONFIG)
    sheet = read_image(tmp_path / "a.png")
    third = sheet.shape[1] // 3
    means = [float(sheet[:, k * third : (k + 1) * third].mean()) for k in range(3)]
    assert means[1] > means[0] + 0.02 and means[1] > means[2]
    assert sheet.shape[1] >= 600  # narrow images have room for their captions
