"""trimesh, kornia and PyTorch3D."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.scenes import ring_cameras
from tests.support.splats import small_scene
from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.geometry.se3 import similarity
from vision3d.interop import from_kornia, from_pytorch3d, from_trimesh, to_kornia, to_open3d, to_pytorch3d, to_trimesh
from vision3d.scene import Cameras, Mesh, PointCloud, Scene


def mesh(**changes):
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 0, 2]])
    texture = torch.randint(0, 256, (4, 6, 3)) / 255
    normals = torch.nn.functional.normalize(torch.randn(4, 3), dim=-1)
    return replace(Mesh(torch.randn(4, 3), faces, torch.randint(0, 9, (4, 2)) / 8, normals, texture), **changes)


def assert_same(a, b, **tolerance):
    for name in ("vertices", "faces", "uvs", "normals", "texture", "vertex_colors"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            torch.testing.assert_close(left, right, **{"rtol": 0, "atol": 0, **tolerance})


@pytest.mark.parametrize(
    "package, call",
    [("trimesh", to_trimesh), ("kornia.geometry.camera", to_kornia), ("open3d", to_open3d), ("pytorch3d", to_pytorch3d)],
)
def test_missing_packages_are_named(monkeypatch, package, call):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, package.partition(".")[0], None)
    value = ring_cameras(2) if "kornia" in package else mesh(uvs=None, texture=None)
    with pytest.raises(MissingDependencyError, match=rf"{package.partition('.')[0]} is needed for exchange with .*\[interop\]"):
        call(value)


class TestTrimesh:
    @pytest.fixture(autouse=True)
    def _trimesh(self):
        self.trimesh = pytest.importorskip("trimesh")

    def test_meshes_round_trip_exactly(self):
        colors = torch.randint(0, 256, (4, 4)) / 255
        for value in (
            mesh(),
            mesh(texture=None),
            mesh(texture=torch.randint(0, 256, (4, 6, 4)) / 255),
            mesh(uvs=None, texture=None, normals=None),
            mesh(uvs=None, texture=None, vertex_colors=colors),
            mesh(uvs=None, texture=None, vertex_colors=colors[:, :3].contiguous()),
        ):
            assert_same(from_trimesh(to_trimesh(value)), value)

    def test_seams_are_split(self):
        value = mesh(uvs=torch.rand(3, 3, 2))
        again = from_trimesh(to_trimesh(value))
        torch.testing.assert_close(again.corner_uvs, value.uvs, rtol=0, atol=1e-7)
        assert torch.equal(again.vertices[again.faces], value.vertices[value.faces])

    def test_textures_match_its_own_reader(self, tmp_path):
        value = mesh()
        value.save(tmp_path / "a.glb")
        read = self.trimesh.load_mesh(str(tmp_path / "a.glb"), process=False)
        made = to_trimesh(value)
        np.testing.assert_allclose(read.visual.uv, made.visual.uv, atol=1e-7)
        images = (np.asarray(m.visual.material.baseColorTexture.convert("RGB")) for m in (read, made))
        np.testing.assert_array_equal(*images)
        assert made.volume == pytest.approx(read.volume) and made.area == pytest.approx(read.area)

    def test_points(self, caplog):
        cloud = PointCloud(torch.rand(5, 3), torch.randint(0, 256, (5, 3)) / 255, intensity=torch.rand(5))
        with caplog.at_level(logging.WARNING, "vision3d"):
            again = from_trimesh(to_trimesh(cloud))
        assert "trimesh's PointCloud cannot hold intensity of a PointCloud; dropped" in caplog.text
        assert torch.equal(again.points, cloud.points) and torch.equal(again.colors, cloud.colors)
        assert from_trimesh(to_trimesh(PointCloud(cloud.points))).colors is None

    def test_scenes(self):
        matrix = similarity(torch.tensor(2.0), torch.eye(3), torch.tensor([1.0, 2, 3]))
        scene = Scene().add("house", mesh(), matrix).add("dust", PointCloud(torch.rand(5, 3)))
        made = to_trimesh(scene)
        assert isinstance(made, self.trimesh.Scene)
        low, high = torch.from_numpy(made.bounds.copy()).float()
        moved = torch.cat([scene["house"].transform(matrix).vertices, scene["dust"].points])
        torch.testing.assert_close(low, moved.amin(0))
        torch.testing.assert_close(high, moved.amax(0))
        again = from_trimesh(made)
        assert set(again.objects) == {"house", "dust"} and torch.equal(again.transforms["house"], matrix)
        assert_same(again["house"], scene["house"])
        with pytest.raises(InputError, match="to_trimesh: splats is a GaussianScene, want meshes and points"):
            to_trimesh(scene.add("splats", small_scene(0, 3)))

    def test_wrong_input(self):
        with pytest.raises(InputError, match="to_trimesh: got torch Tensor, want a Mesh, a PointCloud or a Scene"):
            to_trimesh(torch.zeros(3))
        with pytest.raises(InputError, match="from_trimesh: got builtins str"):
            from_trimesh("a")


class TestKornia:
    @pytest.fixture(autouse=True)
    def _kornia(self):
        pytest.importorskip("kornia")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_cameras(self, dtype):
        cameras = replace(ring_cameras(3), names=None)
        cameras = replace(cameras, viewmats=cameras.viewmats.to(dtype), Ks=cameras.Ks.to(dtype))
        made = to_kornia(cameras)
        again = from_kornia(made)
        for name in ("viewmats", "Ks", "width", "height"):
            assert torch.equal(getattr(again, name), getattr(cameras, name))
        points = torch.rand(3, 7, 3, dtype=dtype)
        x = (cameras.viewmats[:, None, :3, :3] @ points[..., None])[..., 0] + cameras.viewmats[:, None, :3, 3]
        x = (cameras.Ks[:, None] @ x[..., None])[..., 0]
        theirs = torch.stack([made.project(points[:, i : i + 1]) for i in range(7)], 1).reshape(3, 7, 2)
        torch.testing.assert_close(theirs, x[..., :2] / x[..., 2:], rtol=1e-5, atol=1e-4)

    def test_wrong_input(self):
        cameras = ring_cameras(2)
        skewed = cameras.Ks.clone()
        skewed[:, 0, 1] = 1
        with pytest.raises(InputError, match="to_kornia: cameras have skew"):
            to_kornia(replace(cameras, Ks=skewed))
        bent = Cameras(cameras.viewmats, cameras.Ks, cameras.width, cameras.height, distortion=torch.full((2, 4), 0.1))
        with pytest.raises(InputError, match="to_kornia: cameras have lens distortion, want undistorted ones"):
            to_kornia(bent)
        with pytest.raises(InputError, match="from_kornia: got builtins int, want a PinholeCamera of kornia"):
            from_kornia(3)

    def test_lost_names_are_reported(self, caplog):
        with caplog.at_level(logging.WARNING, "vision3d"):
            to_kornia(ring_cameras(2))
        assert "to_kornia cannot hold names of a Cameras; dropped" in caplog.text


class TestPytorch3D:
    def test_with_its_python_side(self):
        """Runs in the environment whose interpreter is VISION3D_PYTORCH3D: easypytorch3d has no CPU-only wheel."""
        python = os.environ.get("VISION3D_PYTORCH3D")
        if not python:
            pytest.skip("VISION3D_PYTORCH3D is not set: the interpreter of an environment with pytorch3d")
        root = Path(__file__).parents[2]
        command = [python, "-W", "ignore", str(Path(__file__).with_name("check_pytorch3d.py"))]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": str(root)}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        errors = json.loads(done.stdout.splitlines()[-1])
        assert errors.pop("exact") == {"screen": True, "meshes": True, "uvs by corner": True, "colours": True}
        assert errors and {name: error for name, error in errors.items() if not error < 1e-5} == {}

    def test_wrong_input(self):
        with pytest.raises(InputError, match="to_pytorch3d: got builtins int, want a Mesh, a list of them or Cameras"):
            to_pytorch3d(3)
        with pytest.raises(InputError, match="from_pytorch3d: got builtins int, want Meshes or PerspectiveCameras"):
            from_pytorch3d(3)
        with pytest.raises(InputError, match="got space 'pixels', want 'screen' or 'ndc'"):
            to_pytorch3d(replace(ring_cameras(1), names=None), space="pixels")
