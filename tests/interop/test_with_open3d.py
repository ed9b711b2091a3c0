import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.outside import package
from tests.support.scenes import ring_cameras
from tests.support.splats import small_scene
from vision3d.core.errors import InputError
from vision3d.interop import from_open3d, to_open3d
from vision3d.scene import Cameras, Mesh, PointCloud

pytestmark = pytest.mark.viewer


@pytest.fixture
def open3d():
    return package("open3d")


def mesh(**changes):
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 0, 2]])
    texture = torch.randint(0, 256, (4, 6, 3)) / 255
    whole = Mesh(torch.randn(4, 3), faces, torch.randint(0, 9, (3, 3, 2)) / 8, torch.randn(4, 3), texture)
    return replace(whole, **changes)


def assert_same(a, b):
    for name in ("vertices", "faces", "uvs", "normals", "texture", "vertex_colors"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        assert left is None or torch.equal(left, right), name


@pytest.mark.parametrize("kind", ["tensor", "legacy"])
def test_meshes_round_trip_exactly(open3d, kind):
    plain = mesh(uvs=None, texture=None, normals=None)
    for value in (mesh(), mesh(texture=None), plain, mesh(uvs=None, texture=None, vertex_colors=torch.rand(4, 3))):
        assert_same(from_open3d(to_open3d(value, kind=kind)), value)


@pytest.mark.parametrize("kind", ["tensor", "legacy"])
def test_textures_match_its_own_reader(open3d, tmp_path, kind):
    value = mesh()
    value.save(tmp_path / "a.obj")
    read = (open3d.t.io if kind == "tensor" else open3d.io).read_triangle_mesh(str(tmp_path / "a.obj"))
    made = to_open3d(value, kind=kind)
    if kind == "tensor":
        uvs, images = (
            (m.triangle.texture_uvs.numpy() for m in (read, made)),
            (m.material.texture_maps["albedo"].as_tensor().numpy() for m in (read, made)),
        )
    else:
        uvs = (np.asarray(m.triangle_uvs) for m in (read, made))
        images = (next(np.asarray(image) for image in m.textures if np.asarray(image).ndim == 3) for m in (read, made))
    np.testing.assert_allclose(*uvs, atol=1e-6)
    np.testing.assert_array_equal(*images)
    again = from_open3d(read)
    torch.testing.assert_close(again.corner_uvs, value.uvs, rtol=0, atol=1e-6)
    assert torch.equal(again.texture, value.texture)


def test_points(open3d):
    cloud = PointCloud(
        torch.rand(5, 3), torch.rand(5, 3), torch.rand(5, 3), torch.rand(5), {"ring": torch.arange(5), "time": torch.rand(5)}
    )
    again = from_open3d(to_open3d(cloud))
    for name in ("points", "colors", "normals", "intensity"):
        assert torch.equal(getattr(again, name), getattr(cloud, name))
    assert all(torch.equal(again.attributes[name], cloud.attributes[name]) for name in ("ring", "time"))


def test_warning_for_attributes_that_legacy_points_cannot_hold(open3d, caplog):
    cloud = PointCloud(torch.rand(5, 3), torch.rand(5, 3), None, torch.rand(5))
    with caplog.at_level(logging.WARNING, "vision3d"):
        again = from_open3d(to_open3d(cloud, kind="legacy"))
    assert [r.getMessage() for r in caplog.records] == [
        "Open3D's legacy PointCloud cannot hold intensity of a PointCloud; dropped"
    ]
    assert torch.equal(again.points, cloud.points) and torch.equal(again.colors, cloud.colors) and again.intensity is None


@pytest.mark.parametrize("degree", [0, 3])
def test_gaussians_match_its_own_reader(open3d, tmp_path, degree):
    scene = small_scene(degree, 20)
    scene.save(tmp_path / "a.ply")
    made, read = to_open3d(scene), open3d.t.io.read_point_cloud(str(tmp_path / "a.ply"))
    assert set(made.point) == set(read.point)
    for name in read.point:
        assert made.point[name].shape == read.point[name].shape and made.point[name].dtype == read.point[name].dtype, name
        np.testing.assert_allclose(made.point[name].numpy(), read.point[name].numpy(), rtol=1e-6, err_msg=name)
    again = from_open3d(made)
    for name in ("means", "quats", "opacity_logits", "sh"):
        assert torch.equal(getattr(again, name), getattr(scene, name))
    torch.testing.assert_close(again.log_scales, scene.log_scales, rtol=0, atol=1e-6)  # through exp and log


def test_cameras(open3d):
    cameras = replace(ring_cameras(3), names=None)
    made = to_open3d(cameras)
    again = from_open3d(made)
    for name in ("viewmats", "Ks", "width", "height"):
        assert torch.equal(getattr(again, name), getattr(cameras, name))
    # Rays through the centers of its pixels equal ours.
    rays = open3d.t.geometry.RaycastingScene.create_rays_pinhole(
        open3d.core.Tensor(made[1].intrinsic.intrinsic_matrix), open3d.core.Tensor(made[1].extrinsic), 48, 36
    ).numpy()
    points = torch.from_numpy(rays[5, 7, :3] + 3 * rays[5, 7, 3:])
    x = cameras.Ks[1] @ (cameras.viewmats[1, :3, :3] @ points + cameras.viewmats[1, :3, 3])
    torch.testing.assert_close(x[:2] / x[2], torch.tensor([7.5, 5.5]), rtol=0, atol=1e-4)


def test_wrong_input(open3d):
    with pytest.raises(InputError, match="to_open3d: got builtins int, want a Mesh"):
        to_open3d(3)
    with pytest.raises(InputError, match="got kind 'old', want 'tensor' or 'legacy'"):
        to_open3d(mesh(), kind="old")
    with pytest.raises(InputError, match="from_open3d: got builtins list, want a TriangleMesh"):
        from_open3d([])
    cameras = ring_cameras(2)
    wide = Cameras(cameras.viewmats, cameras.Ks, cameras.width, cameras.height, model="fisheye")
    with pytest.raises(InputError, match="cameras are fisheye, want pinhole"):
        to_open3d(wide)
