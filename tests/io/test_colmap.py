import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, Vision3DError
from vision3d.io import colmap_dataset
from vision3d.io.colmap import (
    MODELS,
    NO_POINT,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
    read_model,
    write_model,
)
from vision3d.io.dataset import load_dataset
from vision3d.io.images import write_image
from vision3d.scene import PosedImages, load

TRACK = [("image_id", "<u4"), ("point2d_idx", "<u4")]
PARAMS = {
    "SIMPLE_PINHOLE": [40, 16, 12],
    "PINHOLE": [40, 41, 15, 13],
    "SIMPLE_RADIAL": [40, 16, 12, 0.01],
    "RADIAL": [40, 16, 12, 0.01, -0.02],
    "OPENCV": [40, 41, 15, 13, 0.01, -0.02, 0.001, 0.002],
    "OPENCV_FISHEYE": [40, 41, 15, 13, 0.01, -0.02, 0.001, 0.002],
    "FULL_OPENCV": [40, 41, 15, 13, 0.01, -0.02, 0.001, 0.002, 0.03, 0.01, 0.02, 0.005],
    "SIMPLE_RADIAL_FISHEYE": [40, 16, 12, 0.01],
    "RADIAL_FISHEYE": [40, 16, 12, 0.01, -0.02],
    "FOV": [40, 41, 15, 13, 0.1],
    "THIN_PRISM_FISHEYE": [40, 41, 15, 13, *[0.01] * 8],
}


def make_model(camera="PINHOLE", count=5, num_points=6):
    random = np.random.default_rng(0)
    images = {}
    for i in range(count):
        qvec = random.normal(size=4)
        seen = random.random((num_points, 2)) * [32, 24]
        ids = np.array([*range(10, 10 + num_points - 1), NO_POINT], np.uint64)
        name = f"view_{count - i}.png"
        images[i + 3] = ColmapImage(name, 1, qvec / np.linalg.norm(qvec), random.normal(size=3), seen, ids)
    tracks = [np.array([(key, i) for key in images], TRACK) for i in range(num_points - 1)]
    points = ColmapPoints(
        np.arange(10, 10 + num_points - 1).astype(np.uint64),
        random.normal(size=(num_points - 1, 3)),
        random.integers(0, 256, (num_points - 1, 3)).astype(np.uint8),
        random.random(num_points - 1),
        tracks,
    )
    return ColmapModel({1: ColmapCamera(camera, 32, 24, np.array(PARAMS[camera], np.float64))}, images, points)


def make_folder(folder, model, *, binary=True, place="sparse/0"):
    write_model(folder / place, model, binary=binary)
    for image in model.images.values():
        write_image(folder / "images" / image.name, torch.rand(24, 32, 3))
    return folder


def assert_same_model(a, b):
    assert a.cameras.keys() == b.cameras.keys() and a.images.keys() == b.images.keys()
    for key, camera in a.cameras.items():
        other = b.cameras[key]
        assert (camera.model, camera.width, camera.height) == (other.model, other.width, other.height)
        assert np.array_equal(camera.params, other.params)
    for key, image in a.images.items():
        other = b.images[key]
        assert (image.name, image.camera_id) == (other.name, other.camera_id)
        for name in ("qvec", "tvec", "xys", "point_ids"):
            assert np.array_equal(getattr(image, name), getattr(other, name)), name
    for name in ("ids", "xyz", "rgb", "errors"):
        assert np.array_equal(getattr(a.points, name), getattr(b.points, name)), name
    assert all(np.array_equal(x, y) for x, y in zip(a.points.tracks, b.points.tracks, strict=True))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("camera", list(PARAMS))
def test_round_trip_is_exact(tmp_path, camera, binary):
    model = make_model(camera)
    write_model(tmp_path, model, binary=binary)
    assert_same_model(read_model(tmp_path), model)


def test_names_with_spaces_need_binary_files(tmp_path):
    model = make_model()
    model.images[3].name = "my view.png"
    write_model(tmp_path, model)
    assert_same_model(read_model(tmp_path), model)
    with pytest.raises(InputError, match=r"image name 'my view\.png' has a space"):
        write_model(tmp_path, model, binary=False)


def test_images_without_points(tmp_path):
    model = make_model(num_points=1)
    for image in model.images.values():
        image.xys, image.point_ids = np.zeros((0, 2)), np.zeros(0, np.uint64)
    for binary in (True, False):
        write_model(tmp_path / str(binary), model, binary=binary)
        assert_same_model(read_model(tmp_path / str(binary)), model)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("camera", [name for name in PARAMS if name != "THIN_PRISM_FISHEYE"])
def test_pycolmap_reads_what_we_write(tmp_path, camera, binary):
    pycolmap = pytest.importorskip("pycolmap")
    model = make_model(camera)
    write_model(tmp_path, model, binary=binary)
    read = pycolmap.Reconstruction(tmp_path)
    assert read.cameras[1].model.name == camera and read.cameras[1].params.tolist() == PARAMS[camera]
    for key, image in model.images.items():
        other = read.images[key]
        assert other.name == image.name
        x, y, z, w = other.cam_from_world().rotation.quat
        np.testing.assert_allclose([w, x, y, z], image.qvec, atol=1e-12)
        np.testing.assert_allclose(other.cam_from_world().translation, image.tvec, atol=1e-12)
        np.testing.assert_allclose([point.xy for point in other.points2D], image.xys, atol=1e-12)
    assert read.num_points3D() == 5
    np.testing.assert_allclose([read.points3D[int(key)].xyz for key in model.points.ids], model.points.xyz, atol=1e-12)


@pytest.mark.parametrize("binary", [True, False])
def test_we_read_what_pycolmap_writes(tmp_path, binary):
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions(num_rigs=2, num_frames_per_rig=3, num_points3D=20)
    written = pycolmap.synthesize_dataset(options)
    (written.write_binary if binary else written.write_text)(tmp_path)
    model = read_model(tmp_path)
    assert len(model.images) == len(written.images) and len(model.points) == 20
    for key, image in model.images.items():
        other = written.images[key]
        assert image.name == other.name and image.camera_id == other.camera_id
        np.testing.assert_allclose(np.roll(image.qvec, -1), other.cam_from_world().rotation.quat, atol=1e-12)
        lens = colmap_dataset.lens_of(model.cameras[image.camera_id])
        assert lens.fx == other.camera.focal_length_x and lens.cx == other.camera.principal_point_x
    np.testing.assert_allclose(model.points.xyz, [written.points3D[int(i)].xyz for i in model.points.ids], atol=1e-12)
    assert [len(track) for track in model.points.tracks] == [written.points3D[int(i)].track.length() for i in model.points.ids]


@pytest.mark.parametrize("camera", [name for name in PARAMS if name not in ("FOV", "THIN_PRISM_FISHEYE")])
def test_lenses_project_as_pycolmap_does(camera):
    pycolmap = pytest.importorskip("pycolmap")
    from vision3d.geometry.cameras import project

    lens = colmap_dataset.lens_of(make_model(camera).cameras[1])
    coeffs = torch.zeros(8 if lens.model == "pinhole" else 4, dtype=torch.float64)
    coeffs[: len(lens.coeffs)] = torch.tensor(lens.coeffs)
    points = torch.tensor([[0.1, 0.2, 1.0], [-0.3, 0.25, 1.2], [0.0, 0.0, 2.0]], dtype=torch.float64)
    ours = project(points, torch.tensor(lens.K(), dtype=torch.float64), lens.model, coeffs)
    theirs = pycolmap.Camera(model=camera, width=32, height=24, params=PARAMS[camera]).img_from_cam(points.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-9)


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
@pytest.mark.parametrize("binary", [True, False])
def test_layouts(tmp_path, place, binary):
    model = make_model()
    images = load_dataset(make_folder(tmp_path, model, binary=binary, place=place))
    assert images.names == tuple(f"view_{i}.png" for i in range(1, 6))  # by name, not by id
    assert images.test.tolist() == [0] and isinstance(load(tmp_path), PosedImages)
    np.testing.assert_allclose(images.points.numpy(), model.points.xyz, atol=1e-6)
    np.testing.assert_allclose(images.point_colors.numpy(), model.points.rgb / 255, atol=1e-6)
    first = next(image for image in model.images.values() if image.name == "view_1.png")
    np.testing.assert_allclose(images.cameras.viewmats[0, :3, 3].numpy(), first.tvec, atol=1e-6)
    if place != ".":
        assert len(load_dataset(tmp_path / place)) == 5  # the model's own folder is accepted too


def test_photos_next_to_the_model(tmp_path):
    make_folder(tmp_path, make_model())
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "images").rmdir()
    assert len(load_dataset(tmp_path)) == 5


def test_masks_next_to_the_images(tmp_path):
    make_folder(tmp_path, make_model())
    write_image(tmp_path / "masks" / "view_2.png.png", torch.ones(24, 32))
    images = load_dataset(tmp_path)
    assert images.read(1)[1].all() and images.read(0)[1] is None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_downscaled_images_of_the_data_set_are_used(tmp_path, suffix):
    make_folder(tmp_path, make_model("OPENCV"))
    for path in (tmp_path / "images").iterdir():
        write_image((tmp_path / "images_4" / path.name).with_suffix(suffix), torch.full((6, 8, 3), 0.25))
    images = load_dataset(tmp_path, downscale=4)
    assert all(path.parent.name == "images_4" for path in images.image_paths)
    assert images.read(0)[0].shape == (6, 8, 3)
    torch.testing.assert_close(images.read(0)[0], torch.full((6, 8, 3), 0.25), atol=0.01, rtol=0)
    torch.testing.assert_close(images.raw_cameras.Ks[0, 0], torch.tensor([10, 0, 3.75]))
    (tmp_path / "images_4" / images.image_paths[0].name).unlink()
    assert load_dataset(tmp_path, downscale=4).image_paths[0].parent.name == "images"


@pytest.mark.parametrize("camera", ["FOV", "THIN_PRISM_FISHEYE"])
def test_unsupported_models_are_named(tmp_path, camera):
    make_folder(tmp_path, make_model(camera))
    with pytest.raises(FileFormatError, match=rf"camera 1: camera model {camera} is not supported; want .*OPENCV"):
        load_dataset(tmp_path)


def test_unknown_models_are_named(tmp_path):
    write_model(tmp_path, make_model())
    data = bytearray((tmp_path / "cameras.bin").read_bytes())
    data[12] = 77
    (tmp_path / "cameras.bin").write_bytes(data)
    with pytest.raises(FileFormatError, match=r"cameras\.bin at byte 8: camera 1 has the unknown model 77; want SIMPLE_PIN"):
        read_model(tmp_path)
    write_model(tmp_path / "text", make_model(), binary=False)
    path = tmp_path / "text" / "cameras.txt"
    path.write_text(path.read_text().replace("PINHOLE", "PINHOLES"))
    with pytest.raises(FileFormatError, match=r"cameras\.txt at line 2: camera 1 has the unknown model PINHOLES"):
        read_model(tmp_path / "text")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_truncated_binary_files_name_the_byte(tmp_path, name):
    write_model(tmp_path, make_model(count=2, num_points=3))
    path = tmp_path / f"{name}.bin"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError, match=rf"{name}\.bin at byte \d+: is truncated: \d+ bytes expected"):
            read_model(tmp_path)
    path.write_bytes(data + b"\0")
    with pytest.raises(FileFormatError, match="has 1 bytes more than it announces"):
        read_model(tmp_path)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_damaged_files_are_format_errors_or_read(tmp_path, name, binary):
    write_model(tmp_path, make_model(count=2, num_points=3), binary=binary)
    path = tmp_path / f"{name}.{'bin' if binary else 'txt'}"
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for length in range(0, len(data), 3):
        broken = bytearray(data[:length] if not binary else data)
        if broken:
            broken[random.integers(0, len(broken))] = random.integers(0, 256)
        path.write_bytes(broken)
        with contextlib.suppress(FileFormatError):
            read_model(tmp_path)


def test_wrong_lines_are_named(tmp_path):
    write_model(tmp_path, make_model(count=3, num_points=2), binary=False)
    for name, message in (("cameras", "line 2: is not: camera id"), ("points3D", "line 2: is not: point id")):
        path = tmp_path / f"{name}.txt"
        text = path.read_text()
        path.write_text(text.replace("\n1", "\none", 1) if name == "cameras" else text.replace("\n10", "\nten", 1))
        with pytest.raises(FileFormatError, match=rf"{name}\.txt at {message}"):
            read_model(tmp_path)
        path.write_text(text)
    path = tmp_path / "images.txt"
    path.write_text(path.read_text().replace(" 1 view", " x view", 1))
    with pytest.raises(FileFormatError, match=r"images\.txt at line 3: is not: image id"):
        read_model(tmp_path)


def test_images_of_unknown_cameras(tmp_path):
    model = make_model()
    model.images[4].camera_id = 9
    write_model(tmp_path, model)
    with pytest.raises(FileFormatError, match=r"image 4 \(view_4\.png\) refers to camera 9, which is missing"):
        read_model(tmp_path)


@pytest.mark.parametrize("qvec, message", [([0, 0, 0, 0], "NaN or infinity"), ([float("nan"), 0, 0, 1], "NaN or infinity")])
def test_wrong_poses_are_named(tmp_path, qvec, message):
    model = make_model()
    model.images[4].qvec = np.array(qvec, np.float64)
    make_folder(tmp_path, model)
    with pytest.raises(FileFormatError, match=rf"image 4 \(view_4\.png\): the pose holds {message}"):
        load_dataset(tmp_path)


def test_quaternions_are_normalized(tmp_path):
    model = make_model()
    expected = make_folder(tmp_path / "a", model)
    for image in model.images.values():
        image.qvec = image.qvec * 3
    scaled = make_folder(tmp_path / "b", model)
    torch.testing.assert_close(load_dataset(scaled).cameras.viewmats, load_dataset(expected).cameras.viewmats)


def test_missing_images_are_named(tmp_path):
    make_folder(tmp_path, make_model())
    (tmp_path / "images" / "view_2.png").unlink()
    with pytest.raises(FileFormatError, match=r"image 6 names view_2\.png, which does not exist \(4 of 5 images found\)"):
        load_dataset(tmp_path)


def test_missing_model(tmp_path):
    with pytest.raises(MissingFileError, match=r"cameras\.bin: does not exist; want cameras and images as \.bin or \.txt"):
        read_model(tmp_path)
    with pytest.raises(MissingFileError, match="want a COLMAP model in sparse/0"):
        load_dataset(tmp_path, format="colmap")
    write_model(tmp_path, make_model(count=0))
    with pytest.raises(FileFormatError, match="has no images"):
        load_dataset(tmp_path, format="colmap")


def test_points_are_optional_and_dropped_if_not_finite(tmp_path):
    model = make_model()
    model.points.xyz[1, 2] = np.nan
    assert len(load_dataset(make_folder(tmp_path, model)).points) == 4
    (tmp_path / "sparse/0/points3D.bin").unlink()
    assert load_dataset(tmp_path).points is None


def test_a_full_disk_keeps_the_previous_model(tmp_path, monkeypatch):
    write_model(tmp_path, make_model())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Vision3DError, match="could not be written"):
        write_model(tmp_path, make_model("OPENCV"))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_model_table_is_colmaps():
    pycolmap = pytest.importorskip("pycolmap")
    for name, (number, count) in MODELS.items():
        camera = pycolmap.Camera.create_from_model_id(1, getattr(pycolmap.CameraModelId, name), 40.0, 32, 24)
        assert int(camera.model) == number and len(camera.params) == count


def test_mixed_projections(tmp_path):
    model = make_model()
    model.cameras[2] = ColmapCamera("OPENCV_FISHEYE", 32, 24, np.array(PARAMS["OPENCV_FISHEYE"], np.float64))
    model.images[4].camera_id = 2
    with pytest.raises(InputError, match="mixes fisheye and pinhole cameras"):
        load_dataset(make_folder(tmp_path, model))
