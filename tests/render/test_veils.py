"""Alpha cutouts and transparency: alphaMode MASK and BLEND of glTF, from the file to the image."""

import pytest
import torch

from tests.support.gltf_reader import Animated
from vision3d.geometry.cameras import look_at
from vision3d.io.gltf_builder import glb_bytes
from vision3d.render import render_scene
from vision3d.scene import Cameras, GaussianScene, Mesh

RED, GREEN, BLUE = (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)


def opened(path):
    file = Animated(path)
    return file.json, file.binary


def camera(size=32):
    K = torch.tensor([[30.0, 0, size / 2], [0, 30, size / 2], [0, 0, 1]])
    pose = look_at(torch.tensor([[0.0, 0, -4]]), torch.zeros(3), torch.tensor([0.0, -1, 0]))
    return Cameras.from_camtoworlds(pose, K, size, size)


def card(depth, texture=None, colors=None, side=1.0):
    corners = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    vertices = torch.cat([side * corners, torch.full((4, 1), float(depth))], 1)
    uvs = None if texture is None else (corners + 1) / 2
    return Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs=uvs, texture=texture, vertex_colors=colors)


def painted(color, alpha, size=8):
    """A texture of one color with a different alpha in each half."""
    texture = torch.tensor([*color, 1.0]).repeat(size, size, 1)
    texture[:, : size // 2, 3], texture[:, size // 2 :, 3] = alpha
    return texture


def image(*objects, **options):
    (view,) = render_scene(list(objects), camera(), shading="none", **options)
    return view


def test_objects_behind_a_cutout_are_visible_through_it():
    front, back = card(0, painted(RED, (0.0, 1.0))), card(1, painted(BLUE, (1.0, 1.0))[..., :3], side=2.0)
    view = image(front, back, render_mode="RGB+ED")
    left, right = view.image[16, 11], view.image[16, 20]
    torch.testing.assert_close(left, torch.tensor(BLUE), atol=1e-3, rtol=0)
    torch.testing.assert_close(right, torch.tensor(RED), atol=1e-3, rtol=0)
    assert view.depth[16, 11] == pytest.approx(5, abs=1e-3) and view.depth[16, 20] == pytest.approx(4, abs=1e-3)
    alone = image(front, backgrounds=(0.0, 1.0, 0.0))
    torch.testing.assert_close(alone.image[16, 11], torch.tensor(GREEN), atol=1e-3, rtol=0)
    assert alone.alpha[16, 11] == 0 and alone.alpha[16, 20] == pytest.approx(1, abs=1e-3)


def test_glass_is_blended_from_far_to_near_in_any_order():
    near, far = card(0, painted(RED, (0.25, 0.25))), card(1, painted(GREEN, (0.5, 0.5)), side=2.0)
    want = 0.25 * torch.tensor(RED) + 0.75 * (0.5 * torch.tensor(GREEN) + 0.5 * torch.tensor(BLUE))
    for objects in ((near, far), (far, near)):
        view = image(*objects, backgrounds=BLUE)
        torch.testing.assert_close(view.image[16, 16], want, atol=1e-3, rtol=0)
        assert view.alpha[16, 16] == pytest.approx(0.625, abs=1e-3)
    wall = card(-1, painted(BLUE, (1.0, 1.0)), side=0.3)
    torch.testing.assert_close(image(near, wall).image[16, 16], torch.tensor(BLUE), atol=1e-3, rtol=0)  # behind the wall


def test_alpha_of_vertex_colors():
    colors = torch.tensor([[1.0, 0, 0, 0.5]]).repeat(4, 1)
    torch.testing.assert_close(image(card(0, colors=colors)).image[16, 16], torch.tensor([0.5, 0, 0]), atol=1e-3, rtol=0)


def test_gaussians_in_front_of_glass():
    dot = GaussianScene.from_points(torch.tensor([[0.0, 0, -1]]), torch.tensor([GREEN]), opacity=0.9, scale_factor=0.5)
    view = image(card(0, painted(RED, (0.5, 0.5))), dot, backgrounds=BLUE)
    alone = image(dot, backgrounds=(0.5, 0.0, 0.5))
    torch.testing.assert_close(view.image[16, 16], alone.image[16, 16], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("material", "alphas"),
    [
        ({"alphaMode": "OPAQUE"}, None),
        ({}, None),
        ({"alphaMode": "MASK"}, (0, 1)),
        ({"alphaMode": "MASK", "alphaCutoff": 0.25}, (1, 1)),
        ({"alphaMode": "MASK", "alphaCutoff": 0.75}, (0, 0)),
        ({"alphaMode": "BLEND"}, (0.4, 0.6)),
    ],
)
def test_alpha_modes(tmp_path, material, alphas):
    card(0, painted(RED, (0.4, 0.6))).save(tmp_path / "a.glb")
    content, binary = opened(tmp_path / "a.glb")
    assert content["materials"][0].pop("alphaMode") == "BLEND"
    content["materials"][0] |= material
    (tmp_path / "b.glb").write_bytes(glb_bytes(content, bytes(binary)))
    mesh = Mesh.load(tmp_path / "b.glb")
    if alphas is None:
        assert mesh.texture.shape[2] == 3
    else:
        assert mesh.texture[0, [0, -1], 3].tolist() == pytest.approx(alphas, abs=0.003)
    mesh.save(tmp_path / "c.glb")
    mode = opened(tmp_path / "c.glb")[0]["materials"][0].get("alphaMode", "OPAQUE")
    assert mode == material.get("alphaMode", "OPAQUE")
    again = Mesh.load(tmp_path / "c.glb")
    torch.testing.assert_close(again.texture, mesh.texture, atol=0.003, rtol=0)


def test_the_alpha_factor_is_applied_before_the_cutoff(tmp_path):
    card(0, painted(RED, (0.4, 0.6))).save(tmp_path / "a.glb")
    content, binary = opened(tmp_path / "a.glb")
    content["materials"][0] |= {"alphaMode": "MASK", "alphaCutoff": 0.25}
    content["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [1, 1, 1, 0.5]
    (tmp_path / "b.glb").write_bytes(glb_bytes(content, bytes(binary)))
    assert Mesh.load(tmp_path / "b.glb").texture[0, [0, -1], 3].tolist() == [0, 1]  # 0.2 and 0.3
