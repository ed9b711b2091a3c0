import builtins
import re

import pytest
import torch

from tests.support.cube import cube_cameras, texture, write_cube
from vision3d.errors import InputError, MissingDependencyError
from vision3d.install import install_command
from vision3d.io.dataset import load_dataset
from vision3d.io.images import read_image, write_image
from vision3d.io.sfm import reconstruct, triangulate
from vision3d.io.video import VideoWriter
from vision3d.scene import PosedImages


@pytest.fixture
def cube(tmp_path):
    return write_cube(tmp_path)


@pytest.mark.slow
def test_triangulated_points_lie_on_the_cube(cube):
    pytest.importorskip("pycolmap")
    points, colors = triangulate(cube)
    assert len(points) > 300
    distance = (points.abs().amax(-1) - 1).abs()
    assert distance.median() < 0.005 and distance.quantile(0.9) < 0.02  # a pixel is 0.01 m wide
    on_cube = texture(points / points.abs().amax(-1, keepdim=True))
    assert (colors - on_cube).abs().mean() < 0.7 * (colors - on_cube[torch.randperm(len(colors))]).abs().mean()
    write_image(cube.image_paths[0], torch.rand(240, 320, 3))
    assert torch.equal(triangulate(cube)[0], points)  # the same seed gives the same, and held-out views leave no trace


@pytest.mark.slow
@pytest.mark.parametrize("is_video", [False, True])
def test_cameras_are_found_again(cube, tmp_path, is_video):
    pytest.importorskip("pycolmap")
    source = tmp_path
    if is_video:
        source = tmp_path / "walk.mp4"
        with VideoWriter(source, fps=10, crf=2) as video:
            for path in cube.image_paths:
                video.append(read_image(path))
    images = load_dataset(source, sfm=True, split_every=0)
    assert len(images) == 6 and len(images.points) > 200
    focal = images.cameras.Ks[0, 0, 0].item()
    assert focal == pytest.approx(420, rel=0.1)
    # Up to a similarity, the centres are the true ones (Umeyama's closed form).
    found, true = images.cameras.centers.double(), cube.cameras.centers.double()
    a, b = found - found.mean(0), true - true.mean(0)
    u, s, vt = torch.linalg.svd(b.T @ a)
    sign = torch.tensor([1.0, 1.0, torch.sign(torch.linalg.det(u @ vt))], dtype=torch.float64)
    R = u @ torch.diag(sign) @ vt
    scale = (s * sign).sum() / a.square().sum()
    assert torch.linalg.vector_norm(scale * a @ R.T - b, dim=-1).max() < 0.05
    folder = tmp_path / "walk_frames" if is_video else tmp_path
    assert (folder / "sparse/0/cameras.bin").is_file()
    assert torch.equal(load_dataset(folder).cameras.viewmats, images.cameras.viewmats)  # read again, not found again


def test_too_few_or_hopeless_photographs(tmp_path):
    pytest.importorskip("pycolmap")
    for i in range(2):
        write_image(tmp_path / f"{i}.png", torch.zeros(64, 64, 3))
    with pytest.raises(InputError, match="got 2 photographs, want at least 3"):
        reconstruct(tmp_path)
    write_image(tmp_path / "2.png", torch.zeros(64, 64, 3))
    with pytest.raises(InputError, match="the 3 photographs do not fit together; want more overlap and texture"):
        load_dataset(tmp_path, sfm=True)
    paths = tuple(tmp_path / f"{i}.png" for i in range(3))
    images = PosedImages(cube_cameras(3).resized(64, 64), paths, torch.tensor([True, True, False]))
    with pytest.raises(InputError, match="got 1 views to triangulate from"):
        triangulate(images)
    with pytest.raises(InputError, match="no point was found in 3 views"):
        triangulate(images, torch.arange(3))


def test_missing_pycolmap(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pycolmap":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    write_image(tmp_path / "a.png", torch.zeros(8, 8))
    with pytest.raises(
        MissingDependencyError, match=r"pycolmap is needed for .*: " + re.escape(install_command("sfm"))
    ) as caught:
        load_dataset(tmp_path, sfm=True)
    assert caught.value.exit_code == 4
