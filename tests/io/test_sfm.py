import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from tests.support.cube import cube_cameras, texture, write_cube
from vision3d.core.errors import InputError, MissingDependencyError, Vision3DError
from vision3d.core.install import install_command
from vision3d.core.progress import silent
from vision3d.io import sfm
from vision3d.io.colmap import ColmapCamera, ColmapImage, ColmapModel, ColmapPoints
from vision3d.io.dataset import load_dataset
from vision3d.io.images import image_size, read_image, write_copy, write_image
from vision3d.io.sfm import find_cameras, triangulate
from vision3d.io.sfm_job import run_job, work_folder
from vision3d.io.sfm_worker import choose_pairs
from vision3d.io.video import VideoWriter
from vision3d.scene import PosedImages


@pytest.fixture
def cube(tmp_path):
    return write_cube(tmp_path / "photos")


@pytest.fixture
def pycolmap():
    return pytest.importorskip("pycolmap")


def noise_photos(folder, count, size=(64, 48)):
    for i in range(count):
        write_image(folder / f"{i}.png", torch.rand(size[1], size[0], 3, generator=torch.Generator().manual_seed(i)))
    return folder


def names_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def distance_of_centers(found, true):
    """Largest distance of camera centers after optimal similarity alignment (Umeyama's closed form)."""
    found, true = found.centers.double(), true.centers.double()
    a, b = found - found.mean(0), true - true.mean(0)
    u, s, vt = torch.linalg.svd(b.T @ a)
    sign = torch.tensor([1.0, 1.0, torch.sign(torch.linalg.det(u @ vt))], dtype=torch.float64)
    R = u @ torch.diag(sign) @ vt
    scale = (s * sign).sum() / a.square().sum()
    return float(torch.linalg.vector_norm(scale * a @ R.T - b, dim=-1).max())


@pytest.mark.slow
def test_triangulated_points_lie_on_the_cube(pycolmap, cube):
    points, colors = triangulate(cube, progress=silent)
    assert len(points) > 300
    distance = (points.abs().amax(-1) - 1).abs()
    assert distance.median() < 0.005 and distance.quantile(0.9) < 0.02  # a pixel is 0.01 m wide
    on_cube = texture(points / points.abs().amax(-1, keepdim=True))
    assert (colors - on_cube).abs().mean() < 0.7 * (colors - on_cube[torch.randperm(len(colors))]).abs().mean()
    write_image(cube.image_paths[0], torch.rand(240, 320, 3))
    assert torch.equal(triangulate(cube, progress=silent)[0], points)  # the same seed; held-out views have no influence


@pytest.mark.slow
@pytest.mark.parametrize("is_video", [False, True])
def test_cameras_are_found_once_and_nothing_is_written_next_to_the_photos(pycolmap, cube, tmp_path, is_video, monkeypatch):
    source = tmp_path / "photos"
    if is_video:
        source = tmp_path / "walk.mp4"
        with VideoWriter(source, fps=10, crf=2) as video:
            for path in cube.image_paths:
                video.append(read_image(path))
    before, folder = names_below(tmp_path), tmp_path / "found"
    images = load_dataset(source, sfm=True, sfm_folder=folder, split_every=0, progress=silent)
    assert [name for name in names_below(tmp_path) if not name.startswith("found")] == before
    assert len(images) == 6 and len(images.points) > 200
    assert images.cameras.Ks[0, 0, 0].item() == pytest.approx(420, rel=0.1)
    assert distance_of_centers(images.cameras, cube.cameras) < 0.05
    assert sfm.read_summary(folder)["registered"] == 6
    monkeypatch.setattr(sfm, "run_job", None)  # read from the cache, not found again
    again = load_dataset(source, sfm=True, sfm_folder=folder, split_every=0)
    assert torch.equal(again.cameras.viewmats, images.cameras.viewmats)
    alone = load_dataset(folder, split_every=0)  # a complete COLMAP data set
    assert torch.equal(alone.cameras.viewmats, images.cameras.viewmats) and torch.equal(alone.read(3)[0], images.read(3)[0])


@pytest.mark.slow
def test_rotated_and_larger_photos_without_order(pycolmap, cube, tmp_path):
    """Two of them are rotated with an EXIF orientation, one has half the size; names are unordered."""
    from PIL import Image

    source, order = tmp_path / "mixed", [3, 0, 5, 1, 4, 2]
    source.mkdir()
    for place, i in enumerate(order):
        photo = Image.open(cube.image_paths[i])
        exif = Image.Exif()
        if i in (1, 4):
            photo, exif[0x0112] = photo.transpose(Image.Transpose.ROTATE_90), 6
        if i == 5:
            photo = photo.resize((160, 120), Image.Resampling.BOX)
        photo.save(source / f"{place}.png", exif=exif)
    (source / "notes.txt").write_text("no photo")
    images = load_dataset(source, sfm=True, sfm_folder=tmp_path / "found", split_every=0, progress=silent)
    assert len(images) == 6
    assert distance_of_centers(images.cameras, cube.cameras[order]) < 0.1
    for place, i in enumerate(order):
        image = images.read(place)[0]
        assert image.shape[1] == (160 if i == 5 else 320) and image.shape[0] < image.shape[1]


@pytest.mark.slow
def test_a_signal_while_cameras_are_searched_is_one_line(pycolmap, tmp_path):
    photos, out = noise_photos(tmp_path / "photos", 24, (320, 240)), tmp_path / "run"
    command = [sys.executable, "-m", "vision3d", "fit", str(photos), "--sfm", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True) as process:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "temporary").glob("vision3d-sfm-*/database.db")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    lines = [line for line in errors.splitlines() if not line.startswith(("read photos", "find features"))]
    assert lines == [f"stopped during the search for cameras; resume with --resume --out {out}"]
    assert process.returncode == 130
    assert not list((tmp_path / "temporary").glob("vision3d-sfm-*"))  # the worker and its files are removed


def test_a_worker_that_fails_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(Vision3DError, match="pycolmap failed: KeyError: 'nothing'"):
        run_job({"kind": "nothing", "folder": str(tmp_path)}, silent)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Vision3DError, match=r"^pycolmap ended with code 1$"):
        run_job({"kind": "reconstruct", "folder": str(tmp_path)}, silent)


def test_pairs_share_features_in_any_order():
    """Photos around a circle overlap with their neighbors; each is matched with these, not with all."""
    random = np.random.default_rng(0)
    count, seen, step = 40, 200, 20
    features = random.random((count * step, 128)).astype(np.float32)
    order = random.permutation(count)
    photos = [features[(np.arange(seen) + step * place) % len(features)] for place in order]
    photos = [(255 * (rows + 0.02 * random.random(rows.shape))).clip(0, 255).astype(np.uint8) for rows in photos]
    pairs = choose_pairs(photos, lambda done: None)
    place = {int(name): number for number, name in enumerate(order)}
    for here in range(count):
        for apart in (1, 2, 3, 4, 5):
            there = (here + apart) % count
            assert tuple(sorted((place[here], place[there]))) in pairs
    assert len(pairs) < 0.75 * count * (count - 1) / 2
    assert len(choose_pairs(photos[:20], lambda done: None)) == 190  # all pairs if there are few


def test_intrinsics_and_observations_are_in_pixels_of_the_photos(tmp_path):
    """Against OpenCV's projection: position x in a copy of half the size is 2 x in the photo."""
    camera = ColmapCamera("OPENCV", 320, 240, np.array([300.0, 310, 160, 120, 0.1, 0.01, 0, 0]))
    image = ColmapImage("000000.jpg", 1, np.array([1.0, 0, 0, 0]), np.zeros(3), np.array([[10.0, 20.0]]))
    model = ColmapModel({1: camera}, {1: image}, ColmapPoints())
    moved = sfm._in_photos(model, {"000000.jpg": (tmp_path / "a photo.png", (640, 481))})
    assert moved.cameras[1].params[:4] == pytest.approx([600, 310 * 481 / 240, 320, 120 * 481 / 240])
    assert moved.cameras[1].params[4:] == pytest.approx([0.1, 0.01, 0, 0])  # of normalized coordinates
    assert moved.images[1].name == "a photo.png" and moved.images[1].xys[0] == pytest.approx([20, 20 * 481 / 240])
    simple = ColmapModel(
        {1: ColmapCamera("SIMPLE_RADIAL", 320, 240, np.array([300.0, 160, 120, 0.1]))}, {1: image}, ColmapPoints()
    )
    moved = sfm._in_photos(simple, {"000000.jpg": (tmp_path / "a.png", (640, 480))})
    assert moved.cameras[1].params == pytest.approx([600, 320, 240, 0.1])


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_copies_have_the_orientation_of_the_photos(tmp_path, orientation):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = orientation, "a camera"
    exif.get_ifd(0x8769)[0x920A] = 28.0
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 6), size=(40, 60), mode="bicubic")[0].clamp(0, 1)
    image = Image.fromarray((255 * smooth.permute(1, 2, 0)).byte().numpy())
    image.save(tmp_path / "photo.png", exif=exif)
    made = write_copy(tmp_path / "photo.png", tmp_path / "copy.jpg", 100)
    assert made.size == made.copy_size == image_size(tmp_path / "copy.jpg")
    apart = (read_image(tmp_path / "copy.jpg") - read_image(tmp_path / "photo.png", size=made.size)).abs()
    assert apart.mean() < 0.02
    assert made.lens == ("", "a camera", "28.0", "")
    with Image.open(tmp_path / "copy.jpg") as copy:
        assert copy.getexif().get_ifd(0x8769)[0x920A] == 28.0
    half = write_copy(tmp_path / "photo.png", tmp_path / "half.jpg", 30)
    assert half.size == made.size and max(half.copy_size) == 30


def test_too_few_photos(tmp_path):
    noise_photos(tmp_path, 2)
    with pytest.raises(InputError, match="got 2 photos, want at least 3"):
        find_cameras(tmp_path, tmp_path / "found")
    for i in range(5):
        (tmp_path / f"copy {i}.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "1.png").unlink()
    with pytest.raises(InputError, match="only 1 of 6 photos differ, want at least 3"):
        find_cameras(tmp_path, tmp_path / "found")
    assert not (tmp_path / "found").exists()


def test_photos_that_cannot_be_registered(pycolmap, tmp_path):
    for i in range(3):
        write_image(tmp_path / "flat" / f"{i}.png", torch.full((64, 64, 3), i / 4))
    with pytest.raises(InputError, match="the 3 photos do not fit together: half of them have fewer than 1 features"):
        load_dataset(tmp_path / "flat", sfm=True, sfm_folder=tmp_path / "found", progress=silent)
    noise_photos(tmp_path / "noise", 3, (320, 240))
    with pytest.raises(InputError, match="the 3 photos do not fit together: no two of them show the same surface"):
        find_cameras(tmp_path / "noise", tmp_path / "found", progress=silent)
    paths = tuple(tmp_path / "flat" / f"{i}.png" for i in range(3))
    images = PosedImages(cube_cameras(3).resized(64, 64), paths, torch.tensor([True, True, False]))
    with pytest.raises(InputError, match="got 1 views to triangulate from"):
        triangulate(images)
    with pytest.raises(InputError, match="no point was found in 3 views"):
        triangulate(images, torch.arange(3), progress=silent)


def test_photos_that_cannot_be_read(tmp_path, monkeypatch):
    noise_photos(tmp_path, 4)
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:500])
    with pytest.raises(InputError, match=r"3\.png: cannot be decoded .*; run with --skip-missing to skip it"):
        find_cameras(tmp_path, tmp_path / "found", progress=silent)
    jobs = []
    monkeypatch.setattr(sfm, "check_pycolmap", lambda: None)
    monkeypatch.setattr(
        sfm, "run_job", lambda job, progress: jobs.append(job) or {"registered": 0, "features": 500, "pairs": 2}
    )
    with pytest.raises(InputError, match="the 3 photos do not fit together: 2 pairs overlap; want more overlap, and a camera"):
        find_cameras(tmp_path, tmp_path / "found", skip_missing=True, progress=silent)
    assert jobs[0]["groups"] == [["000000.jpg", "000001.jpg", "000002.jpg"]]


def test_without_a_folder_the_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = noise_photos(tmp_path / "photos", 3)
    files = sfm._listed(sfm._photo_files(photos))
    folder = sfm._cache_folder(photos, files)
    assert folder.parent == tmp_path / "cache" / "vision3d" / "sfm"
    write_image(photos / "0.png", torch.rand(70, 70, 3))
    assert sfm._cache_folder(photos, sfm._listed(sfm._photo_files(photos))) != folder  # other photos have another cache


def test_work_folder_is_removed():
    with work_folder() as work:
        assert (work / "images").is_dir()
    assert not work.exists()


def test_missing_pycolmap(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pycolmap" else real(name, *rest))
    write_image(tmp_path / "a.png", torch.zeros(8, 8))
    with pytest.raises(
        MissingDependencyError, match=r"pycolmap is needed for .*: " + re.escape(install_command("sfm"))
    ) as caught:
        load_dataset(tmp_path, sfm=True, sfm_folder=tmp_path / "found")
    assert caught.value.exit_code == 4
