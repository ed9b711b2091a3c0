"""Depth maps of data sets: files, units, undistortion, sizes, and the loss of a fit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.photos import blobs, ring, write_photos
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.core.progress import silent
from vision3d.geometry.cameras import camera_rays
from vision3d.geometry.distortion import undistorted_K
from vision3d.io.dataset import load_dataset, normalized
from vision3d.io.depth_maps import read_depth, write_depth
from vision3d.io.images import write_image
from vision3d.optim import losses
from vision3d.optim.training_views import TrainingViews
from vision3d.render import render_views
from vision3d.scene import PosedImages
from vision3d.stages.fit import FitConfig, fit
from vision3d.stages.fit.config import LossConfig


def true_depths(scene, cameras):
    """Expected depth of each view, 0 where less than half is covered [m]."""
    views = render_views(scene, cameras, render_mode="RGB+ED")
    return [torch.where(view.alpha > 0.5, view.depth, 0) for view in views]


def with_depths(folder, depths, *, millimeters=False, unit=None):
    """Adds depth maps to a data set of `write_photos`."""
    content = json.loads((folder / "transforms.json").read_text())
    for i, (frame, depth) in enumerate(zip(content["frames"], depths)):
        name = f"depths/{i:03d}.{'png' if millimeters else 'npy'}"
        if millimeters:
            write_image(folder / name, (depth * 1000).round() / 65535, bits=16)
        else:
            write_depth(folder / name, depth)
        frame["depth_file_path"] = name
    if unit is not None:
        content["depth_unit_scale_factor"] = unit
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


# Files.


def test_integers_are_millimeters_and_floats_are_meters(tmp_path):
    depth = torch.tensor([[0.0, 1.234], [2.5, 65.0]])
    write_image(tmp_path / "a.png", (depth * 1000).round() / 65535, bits=16)
    write_depth(tmp_path / "a.npy", depth)
    np.save(tmp_path / "b.npy", (depth * 1000).round().to(torch.int32).numpy()[..., None])
    for name in ("a.png", "a.npy", "b.npy"):
        torch.testing.assert_close(read_depth(tmp_path / name), depth, atol=1e-4, rtol=0)
    torch.testing.assert_close(read_depth(tmp_path / "a.png", 0.01), 10 * depth, atol=1e-3, rtol=0)
    torch.testing.assert_close(read_depth(tmp_path / "a.npy", 0.5), depth / 2)


def test_what_was_not_measured_is_zero(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[np.nan, np.inf], [-1.0, 2.0]]))
    assert read_depth(tmp_path / "a.npy").tolist() == [[0, 0], [0, 2]]


def test_wrong_files(tmp_path):
    np.save(tmp_path / "names.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "objects.npy", np.array([[None, None]]), allow_pickle=True)
    np.save(tmp_path / "colors.npy", np.zeros((4, 4, 3)))
    np.save(tmp_path / "flat.npy", np.zeros(9))
    np.save(tmp_path / "empty.npy", np.zeros((0, 4)))
    (tmp_path / "text.npy").write_text("1 2 3")
    write_image(tmp_path / "colors.png", torch.rand(4, 4, 3))
    write_image(tmp_path / "preview.png", torch.rand(4, 4))
    assert read_depth(tmp_path / "preview.png", 0.01).max() < 2.56
    (tmp_path / "cut.png").write_bytes((tmp_path / "colors.png").read_bytes()[:20])
    for name, text in (
        ("names.npy", r"holds <U1 of shape \(1, 2\), want depths of shape \(H, W\)"),
        ("objects.npy", "is not an array of numbers"),
        ("colors.npy", r"of shape \(4, 4, 3\), want depths"),
        ("flat.npy", r"of shape \(9,\), want depths"),
        ("empty.npy", r"of shape \(0, 4\), want depths"),
        ("text.npy", "is not an array of numbers"),
        ("colors.png", r"has colors \(mode RGB\), want depths: one channel of 16 bits"),
        ("cut.png", "is not an image that can be read"),
        ("preview.png", "has 8 bits, want depths of 16 bits; for 8 bits, depth_unit_scale_factor has to be in transforms.json"),
    ):
        with pytest.raises(FileFormatError, match=text):
            read_depth(tmp_path / name)
    for name in ("gone.png", "gone.npy"):
        with pytest.raises(MissingFileError):
            read_depth(tmp_path / name)


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(4, 4), }      ", b"(900000, 900000"))
    with pytest.raises(FileFormatError):
        read_depth(tmp_path / "a.npy")


# Data sets.


@pytest.mark.parametrize("millimeters", [False, True])
def test_depth_maps_of_a_data_set(tmp_path, millimeters):
    depths = true_depths(blobs(), ring())
    folder = with_depths(write_photos(tmp_path / "set"), depths, millimeters=millimeters)
    images = load_dataset(folder)
    assert len(images.depth_paths) == 12
    for i in (0, 5):
        torch.testing.assert_close(images.read_depth(i), depths[i], atol=6e-4, rtol=0)
    part = images.subset([5])
    torch.testing.assert_close(part.read_depth(0), depths[5], atol=6e-4, rtol=0)
    scaled = normalized(images)
    distance = torch.linalg.vector_norm(images.cameras.centers, dim=-1).median()
    torch.testing.assert_close(scaled.read_depth(5), depths[5] / distance, atol=6e-4, rtol=0)
    scaled.save(tmp_path / "saved")
    torch.testing.assert_close(PosedImages.load(tmp_path / "saved").read_depth(5), scaled.read_depth(5))


def test_the_unit_is_read(tmp_path):
    depths = true_depths(blobs(), ring())
    images = load_dataset(with_depths(write_photos(tmp_path / "set"), depths, millimeters=True, unit=0.002))
    torch.testing.assert_close(images.read_depth(3), 2 * depths[3], atol=2e-3, rtol=0)


def renamed(folder, scale):
    """The keys of instant-ngp, whose scale is meters per unit, too."""
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        frame["depth_path"] = frame.pop("depth_file_path", frame.get("depth_path"))
    content["integer_depth_scale"] = scale
    (folder / "transforms.json").write_text(json.dumps(content))


def test_depth_maps_of_instant_ngp(tmp_path, caplog):
    depths = true_depths(blobs(), ring())
    folder = with_depths(write_photos(tmp_path / "set"), depths, millimeters=True)
    renamed(folder, 0.002)
    torch.testing.assert_close(load_dataset(folder).read_depth(3), 2 * depths[3], atol=2e-3, rtol=0)
    with_depths(folder, depths, millimeters=True, unit=0.003)  # now both: nerfstudio's maps and their unit are used
    torch.testing.assert_close(load_dataset(folder).read_depth(3), 3 * depths[3], atol=3e-3, rtol=0)
    assert not caplog.records
    renamed(folder, 0.0)  # instant-ngp reads no depth maps then
    assert load_dataset(folder).depth_paths is None
    (record,) = caplog.records
    text = "12 frames with a depth_path, which is not read: integer_depth_scale is 0, want meters per unit"
    assert record.getMessage() == f"{folder / 'transforms.json'}: {text}"
    renamed_content = json.loads((folder / "transforms.json").read_text()) | {"integer_depth_scale": "mm"}
    (folder / "transforms.json").write_text(json.dumps(renamed_content))
    with pytest.raises(FileFormatError, match="integer_depth_scale is 'mm', want a finite number"):
        load_dataset(folder)


def test_depth_maps_may_be_smaller_or_missing(tmp_path):
    depths = [depth[::2, ::2] for depth in true_depths(blobs(), ring())]
    folder = with_depths(write_photos(tmp_path / "set"), depths)
    content = json.loads((folder / "transforms.json").read_text())
    del content["frames"][4]["depth_file_path"]
    (folder / "transforms.json").write_text(json.dumps(content))
    images = load_dataset(folder)
    assert images.read_depth(4) is None
    assert torch.equal(images.read_depth(3), depths[3].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_wrong_depth_maps_of_a_data_set(tmp_path):
    folder = with_depths(write_photos(tmp_path / "set"), true_depths(blobs(), ring()))
    write_depth(folder / "depths/003.npy", torch.ones(48, 30))
    images = load_dataset(folder)
    with pytest.raises(FileFormatError, match=r"003\.npy: view 3 \(images/003.png\): depth map has 30x48 px, its image 48x48"):
        images.read_depth(3)
    (folder / "depths/003.npy").unlink()
    with pytest.raises(FileFormatError, match=r"frame 3 names the depth map .*003\.npy, which does not exist"):
        load_dataset(folder)
    content = json.loads((folder / "transforms.json").read_text())
    for unit, text in ((0, "is 0, want a number > 0"), ("mm", "is 'mm', want a finite number")):
        (folder / "transforms.json").write_text(json.dumps({**content, "depth_unit_scale_factor": unit}))
        with pytest.raises(FileFormatError, match=f"depth_unit_scale_factor {text}"):
            load_dataset(folder)
    with pytest.raises(ShapeError, match=r"PosedImages\.depth_paths: got 1 paths, want 12, one per camera"):
        replace(images, depth_paths=(None,))


def test_depth_maps_are_undistorted_like_their_images(tmp_path):
    """The depth along z is a function of the ray, which undistortion keeps."""

    def surface(rays):
        return 2 + rays[..., 0] / rays[..., 2] + 0.5 * rays[..., 1] / rays[..., 2]

    raw = replace(ring(3, size=128), distortion=torch.tensor([0.3, -0.2, -0.001, 0.0002]).repeat(3, 1))
    paths = []
    for i, camera in enumerate(raw):
        _, rays = camera_rays(torch.eye(4), camera.Ks[0], 128, 128, "pinhole", camera.distortion[0])
        write_image(tmp_path / f"{i}.png", torch.rand(128, 128, 3))
        paths.append(tmp_path / f"{i}.npy")
        write_depth(paths[-1], surface(rays))
    Ks = torch.stack([undistorted_K(c.Ks[0], c.distortion[0], 128, 128, c.model) for c in raw])
    images = PosedImages(
        replace(raw, Ks=Ks, distortion=None), tuple(tmp_path / f"{i}.png" for i in range(3)), torch.zeros(3, dtype=torch.bool),
        depth_paths=tuple(paths), raw_cameras=raw,
    )  # fmt: skip
    for width in (128, 32):
        part = replace(images, cameras=images.cameras.resized(width, width))
        _, rays = camera_rays(torch.eye(4), part.cameras.Ks[1], width, width)
        error = (part.read_depth(1) - surface(rays)).abs()
        assert error.max() < 2 / (1.5 * 128)  # one pixel of the file


# The loss.


def test_training_views_have_depths_at_their_size(tmp_path):
    depths = true_depths(blobs(), ring(size=64))
    images = load_dataset(with_depths(write_photos(tmp_path / "set", cameras=ring(size=64)), depths))
    options = {"masks": True, "with_alpha": False, "cache_bytes": 1e9, "device": torch.device("cpu")}
    views = TrainingViews(images, images.train, depth_scale=0.5, **options)
    views.read_all(lambda done: None)
    index = int(images.train[3])
    torch.testing.assert_close(views.get(3, 1).depth, depths[index] / 2)
    torch.testing.assert_close(views.get(3, 2).depth, depths[index][1::2, 1::2] / 2)
    assert TrainingViews(images, images.train, **options).get(3, 1).depth is None


@pytest.mark.wrong_types
def test_the_loss_is_the_relative_error_of_what_is_drawn():
    alphas = torch.rand(6, 5, 1)
    measured = 1 + torch.rand(6, 5)
    loss = losses.depth_loss(1.1 * alphas * measured[..., None], alphas, measured)
    torch.testing.assert_close(loss, 0.1 * alphas.mean())
    holes = torch.where(torch.rand(6, 5) > 0.5, measured, 0)
    drawn = (1.1 * alphas * measured[..., None]).requires_grad_()
    loss = losses.depth_loss(drawn, alphas, holes)
    torch.testing.assert_close(loss.detach(), 0.1 * alphas[holes > 0].mean())
    loss.backward()
    assert bool((drawn.grad[holes == 0] == 0).all()) and bool((drawn.grad[holes > 0] > 0).all())
    assert float(losses.depth_loss(drawn.detach(), alphas, torch.zeros(6, 5))) == 0
    with pytest.raises(ShapeError, match="measured"):
        losses.depth_loss(alphas, alphas, measured[None])


@pytest.mark.parametrize("mode, steps, ratio", [("3dgs", 200, 0.5), pytest.param("2dgs", 800, 0.75, marks=pytest.mark.slow)])
def test_depth_maps_improve_the_geometry_of_few_views(tmp_path, mode, steps, ratio):
    """Four views on one side: photos alone leave the depth open."""
    scene, cameras = blobs(), ring(24)[[0, 1, 2, 3, 4, 12]]
    depths = true_depths(scene, cameras)
    folder = write_photos(tmp_path / "set", cameras=cameras, held_out=(2, 5), with_points=False)
    with_depths(folder, depths, millimeters=True)
    config = FitConfig(steps=steps, max_gaussians=300, init_count=300, sh_degree=0, resolution_start=1, mode=mode)
    errors, psnr = {}, {}
    for weight in (0.0, 0.5):
        result = fit(replace(config, loss=LossConfig(depth=weight)), folder, progress=silent)
        view = next(iter(render_views(result.scene, cameras[[2]], render_mode="RGB+ED")))  # held out
        known = depths[2] > 0
        errors[weight] = float((view.depth - depths[2])[known].abs().mean())
        psnr[weight] = result.evaluation.views[0].psnr
    assert errors[0.5] < ratio * errors[0.0], errors
    assert psnr[0.5] > psnr[0.0] + 3


def test_a_weight_without_depth_maps_is_refused(tmp_path):
    folder = write_photos(tmp_path / "set")
    config = FitConfig(steps=2, loss=LossConfig(depth=0.2))
    with pytest.raises(ConfigError, match=r"loss.depth: got 0.2, but no training view of .* has a depth map"):
        fit(config, folder, progress=silent)
    depths = [torch.zeros(48, 48)] * 12
    with pytest.raises(InputError, match="all depth maps are empty"):
        fit(config, with_depths(folder, depths), progress=silent)


def test_depth_maps_that_are_not_used_are_mentioned(tmp_path, caplog):
    folder = with_depths(write_photos(tmp_path / "set"), true_depths(blobs(), ring()))
    with caplog.at_level("INFO", logger="vision3d.fit"):
        fit(FitConfig(steps=2, max_gaussians=60), folder, progress=silent)
    assert "10 training views have depth maps, which are not used (--loss.depth 0.5)" in caplog.text
