from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.geometry.cameras import project
from vision3d.scene import Cameras


def pixels(cameras, points):
    """Projections of the points into every camera."""
    points_cam = points @ cameras.viewmats[:, :3, :3].mT + cameras.viewmats[:, None, :3, 3]
    return project(points_cam, cameras.Ks, cameras.model, cameras.distortion)


def test_camtoworlds_and_centers_invert_the_viewmats(cameras):
    eye = torch.eye(4).expand(3, 4, 4)
    torch.testing.assert_close(cameras.camtoworlds @ cameras.viewmats, eye, atol=1e-6, rtol=0)
    torch.testing.assert_close(cameras.centers, torch.tensor([[0.0, 1, 2], [3, 4, 5], [6, 7, 8]]), atol=2e-6, rtol=0)


def test_opengl_poses_look_along_minus_z():
    cameras = Cameras.from_camtoworlds(torch.eye(4)[None], torch.eye(3), 2, 2, convention="opengl")
    point = torch.tensor([[1.0, 2.0, -3.0]])  # in front of a camera that looks along -z with y up
    torch.testing.assert_close(point @ cameras.viewmats[0, :3, :3].T, torch.tensor([[1.0, -2.0, 3.0]]))
    with pytest.raises(InputError, match="convention: got 'blender'"):
        Cameras.from_camtoworlds(torch.eye(4)[None], torch.eye(3), 2, 2, convention="blender")


@pytest.mark.parametrize("width, height", [(32, 24), (64, 96), (37, 11)])
def test_resized_keeps_every_ray(cameras, width, height):
    points = torch.randn(9, 3)
    before, after = pixels(cameras, points), pixels(cameras.resized(width, height), points)
    torch.testing.assert_close(after, before * torch.tensor([width / 64, height / 48]), rtol=1e-4, atol=1e-3)


def test_scaled_uses_the_real_ratio_of_the_rounded_size(cameras):
    small = cameras.scaled(0.3)
    assert small.width.tolist() == [19] * 3 and small.height.tolist() == [14] * 3
    assert small.Ks[0, 0, 0].item() == pytest.approx(50 * 19 / 64)
    assert small.Ks[0, 1, 2].item() == pytest.approx(25 * 14 / 48)
    with pytest.raises(InputError, match="factor 0"):
        cameras.scaled(0)


def test_transform_keeps_projections(cameras, similarity):
    points = torch.randn(9, 3)
    moved = points @ similarity[:3, :3].T + similarity[:3, 3]
    torch.testing.assert_close(pixels(cameras.transform(similarity), moved), pixels(cameras, points), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    "which, names",
    [
        (1, ["b.png"]),
        (-1, ["c.png"]),
        (slice(0, 3, 2), ["a.png", "c.png"]),
        (torch.tensor([True, False, True]), ["a.png", "c.png"]),
        (torch.tensor([2, 0]), ["c.png", "a.png"]),
        ([2, 2], ["c.png", "c.png"]),
        (["b.png", "a.png"], ["b.png", "a.png"]),
    ],
)
def test_indexing(cameras, which, names):
    part = cameras[which]
    assert list(part.names) == names
    assert part.times.tolist() == [cameras.times[cameras.names.index(name)].item() for name in names]
    assert len(part) == len(part.viewmats) == len(part.Ks) == len(part.width)


def test_iteration_ends_and_bad_indices_are_rejected(cameras):
    assert [camera.names[0] for camera in cameras] == ["a.png", "b.png", "c.png"]
    with pytest.raises(IndexError, match="camera 3 of 3"):
        cameras[3]
    with pytest.raises(InputError, match=r"no camera named 'd\.png'"):
        cameras[["d.png"]]


def test_merge(cameras):
    both = cameras[:2].merge(cameras[2])
    assert both.names == cameras.names
    assert torch.equal(both.viewmats, cameras.viewmats) and torch.equal(both.times, cameras.times)
    with pytest.raises(InputError, match="models of the cameras differ: fisheye, pinhole"):
        cameras.merge(replace(cameras, model="fisheye"))
    with pytest.raises(InputError, match="distortion"):
        cameras.merge(replace(cameras, distortion=torch.zeros(3, 4)))
    with pytest.warns(DeprecationWarning, match=r"merge"), pytest.raises(InputError, match="no parts"):
        Cameras.cat([])
    with pytest.warns(DeprecationWarning, match=r"merge"):
        assert len(Cameras.cat([cameras, cameras])) == 6


@pytest.mark.parametrize(
    "model, distortion",
    [
        ("pinhole", None),
        ("pinhole", [0.1, -0.05, 0.001, -0.002]),
        ("pinhole", [0.1, -0.05, 0.001, -0.002, 0.01, 0.02, 0.03, 0.04]),
        ("fisheye", [0.1, -0.05, 0.01, 0.002]),
        ("ortho", None),
    ],
)
def test_file_round_trip(cameras, tmp_path, model, distortion):
    coeffs = None if distortion is None else torch.tensor(distortion).repeat(3, 1)
    cameras = replace(cameras, model=model, distortion=coeffs)
    cameras.save(tmp_path / "cameras.json")
    loaded = Cameras.load(tmp_path / "cameras.json")
    assert (loaded.model, loaded.names) == (model, cameras.names)
    torch.testing.assert_close(loaded.viewmats, cameras.viewmats, atol=2e-6, rtol=0)
    for name in ("Ks", "width", "height", "times", "distortion"):
        assert getattr(loaded, name) is getattr(cameras, name) is None or torch.equal(
            getattr(loaded, name), getattr(cameras, name)
        )


def test_unnamed_cameras_of_different_sizes_round_trip(cameras, tmp_path):
    cameras = replace(cameras, names=None, width=torch.tensor([64, 32, 16]))
    cameras.save(tmp_path / "cameras.json")
    loaded = Cameras.load(tmp_path / "cameras.json")
    assert loaded.names is None and loaded.width.tolist() == [64, 32, 16]


def change(cameras, **changes):
    return lambda: replace(cameras, **changes)


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"viewmats": torch.eye(4)}, ShapeError, r"Cameras.viewmats: got shape \(4, 4\), want shape \(C, 4, 4\)"),
        (
            {"Ks": torch.eye(3).repeat(2, 1, 1)},
            ShapeError,
            r"Cameras.Ks: got shape \(2, 3, 3\), want shape \(3, 3, 3\)",
        ),
        ({"Ks": torch.eye(3).long().repeat(3, 1, 1)}, ShapeError, "Cameras.Ks: got dtype torch.int64, want float32"),
        ({"width": 64}, ShapeError, r"Cameras.width: got int, want a int64 tensor of shape \(3,\)"),
        ({"width": torch.ones(3)}, ShapeError, "Cameras.width: got dtype torch.float32, want dtype torch.int64"),
        ({"names": ("a",)}, ShapeError, "Cameras.names: got 1 names, want 3, one per camera"),
        ({"distortion": torch.zeros(3, 3)}, ShapeError, r"got shape \(3, 3\), want D in \(4, 5, 8\) for pinhole"),
        ({"model": "omni"}, InputError, "Cameras.model: got 'omni', want 'pinhole', 'ortho' or 'fisheye'"),
        ({"Ks": torch.eye(3, device="meta").repeat(3, 1, 1)}, DeviceError, "viewmats on cpu, Ks on meta"),
    ],
)
def test_wrong_shapes_are_rejected_on_construction(cameras, changes, error, message):
    with pytest.raises(error, match=message):
        replace(cameras, **changes)


def edited(value, index, number):
    value = value.clone()
    value[index] = number
    return value


@pytest.mark.parametrize(
    "name, index, number, message",
    [
        ("viewmats", (1, 0, 3), float("nan"), r"viewmats is not finite in 1 of 3 rows \(first: row 1\)"),
        ("viewmats", (1, 0, 0), 5.0, r"camera 1 \(b\.png\): viewmat is not a rotation"),
        ("viewmats", (2, 3, 3), 2.0, r"camera 2 \(c\.png\): last row of the viewmat is not 0 0 0 1"),
        ("Ks", (2, 0, 0), 0.0, r"camera 2 \(c\.png\): focal length is not positive"),
        ("width", (0,), 0, r"camera 0 \(a\.png\): image size is not positive"),
    ],
)
def test_validate_names_the_camera(cameras, name, index, number, message):
    assert cameras.validate() is cameras
    broken = replace(cameras, **{name: edited(getattr(cameras, name), index, number)})
    with pytest.raises(InputError, match=message):
        broken.validate()


def test_validate_rejects_reflections(cameras):
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(InputError, match=r"camera 0 .* and 2 more: viewmat is a reflection"):
        replace(cameras, viewmats=mirror @ cameras.viewmats).validate()


def test_reprs_summarize_the_content(cameras):
    assert repr(cameras) == "Cameras(3 pinhole, 64x48 px, cpu)"
    html = cameras._repr_html_()
    assert "64x48" in html and "<table>" in html


def test_gradients_reach_poses_and_intrinsics(cameras):
    viewmats = cameras.viewmats.clone().requires_grad_()
    part = replace(cameras, viewmats=viewmats)[1].resized(32, 24)
    part.centers.sum().backward()
    assert viewmats.grad[1].abs().sum() > 0 and viewmats.grad[0].abs().sum() == 0
