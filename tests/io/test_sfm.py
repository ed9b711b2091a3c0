import builtins

import numpy as np
import pytest
import torch

from vision3d.errors import InputError, MissingDependencyError
from vision3d.geometry.cameras import camera_rays
from vision3d.io.dataset import load_dataset
from vision3d.io.images import read_image, write_image
from vision3d.io.sfm import reconstruct, triangulate
from vision3d.io.video import VideoWriter
from vision3d.scene import Cameras, PosedImages


def texture(points, seed=0, size=96):
    """Blotches on a cube of side 2, sharp enough for features, by its hit points."""
    random = np.random.default_rng(seed)
    noise = torch.from_numpy(random.random((6, size, size, 3)).astype(np.float32))
    axis = points.abs().argmax(-1)
    face = axis * 2 + (points.gather(-1, axis[..., None])[..., 0] > 0).long()
    others = torch.stack([(axis + 1) % 3, (axis + 2) % 3], -1)
    uv = ((points.gather(-1, others) * 0.5 + 0.5).clamp(0, 0.9999) * size).long()
    return noise[face, uv[..., 0] // 2 * 2, uv[..., 1] // 2 * 2]


def cube_view(camera):
    """Picture of a textured cube seen from the camera, by casting rays; 2 by 2 samples a pixel."""
    fine = camera.scaled(2)
    width, height = int(fine.width), int(fine.height)
    origins, directions = camera_rays(camera.camtoworlds[0], fine.Ks[0], width, height)
    with np.errstate(divide="ignore"):
        near = ((-directions.sign() - origins) / directions).amax(-1, keepdim=True)
    points = origins + near * directions
    is_hit = (points.abs().amax(-1) < 1 + 1e-4) & (near[..., 0] > 0)
    colors = torch.where(is_hit[..., None], texture(points), torch.tensor(0.5))
    return colors.unflatten(0, (height // 2, 2)).unflatten(2, (width // 2, 2)).mean((1, 3))


def cube_cameras(count, span=0.8):
    from vision3d.geometry.cameras import look_at

    angles = torch.linspace(-span / 2, span / 2, count) + 0.6
    eyes = torch.stack([4 * angles.cos(), 4 * angles.sin(), 1.5 + 0.3 * torch.sin(5 * angles)], -1)
    poses = look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    K = torch.tensor([[420.0, 0, 160], [0, 420, 120], [0, 0, 1]])
    return Cameras.from_camtoworlds(poses, K, 320, 240)


@pytest.fixture
def cube(tmp_path):
    cameras = cube_cameras(6)
    paths = []
    for i, camera in enumerate(cameras):
        paths.append(tmp_path / "images" / f"{i}.png")
        write_image(paths[-1], cube_view(camera))
    is_test = torch.zeros(6, dtype=torch.bool)
    is_test[0] = True
    return PosedImages(cameras, tuple(paths), is_test, source=tmp_path)


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
    with pytest.raises(MissingDependencyError, match=r"pycolmap is needed for .*: pip install 'vision3d\[sfm\]'") as caught:
        load_dataset(tmp_path, sfm=True)
    assert caught.value.exit_code == 4
