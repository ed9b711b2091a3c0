import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.dataset import load_dataset
from vision3d.io.ply import write_points
from vision3d.io.transforms_json import read_cameras, read_frames, write_cameras
from vision3d.scene import Cameras, PosedImages, load, save


def frame_of(content, i):
    return content["frames"][i]


def test_opengl_poses_become_opencv(ring):
    images = load_dataset(ring())
    # The ring looks at the origin from 4 m: in camera axes it is straight ahead; the world's z is up in the image.
    center, up = torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])
    R, t = images.cameras.viewmats[:, :3, :3], images.cameras.viewmats[:, :3, 3]
    torch.testing.assert_close(center @ R.mT + t, torch.tensor([0.0, 0.0, 4.0]).expand(10, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(up @ R.mT, torch.tensor([0.0, -1.0, 0.0]).expand(10, 3), atol=1e-5, rtol=0)
    assert images.cameras.Ks[0].tolist() == [[40, 0, 15], [0, 41, 13], [0, 0, 1]]
    assert images.raw_cameras is images.cameras and images.cameras.names[3] == "images/003.png"


def test_frames_override_the_file(ring):
    images = load_dataset(ring(frame={"fl_x": 50.0, "w": 32.0}))
    assert images.cameras.Ks[0, 0, 0] == 50 and images.cameras.Ks[0, 1, 1] == 41


def test_angle_and_missing_values(ring):
    folder = ring(fl_x=None, fl_y=None, cx=None, cy=None, w=None, h=None, camera_angle_x=0.8)
    K = load_dataset(folder).cameras.Ks[0]
    focal = 16 / math.tan(0.4)
    torch.testing.assert_close(K, torch.tensor([[focal, 0, 16], [0, focal, 12], [0, 0, 1]]))


@pytest.mark.parametrize(
    "content, model, coeffs",
    [
        ({"k1": 0.1}, "pinhole", [0.1, 0, 0, 0]),
        ({"k1": 0.1, "k2": 0.2, "p1": 0.03, "p2": 0.04, "camera_model": "OPENCV"}, "pinhole", [0.1, 0.2, 0.03, 0.04]),
        ({"k1": 0.1, "k3": 0.2}, "pinhole", [0.1, 0, 0, 0, 0.2, 0, 0, 0]),
        ({"k1": 0.1, "k2": 0.2, "camera_model": "SIMPLE_RADIAL"}, "pinhole", [0.1, 0, 0, 0]),
        ({"k1": 0.1, "k4": 0.2, "camera_model": "FULL_OPENCV"}, "pinhole", [0.1, 0, 0, 0, 0, 0.2, 0, 0]),
        ({"k1": 0.1, "k4": 0.2, "camera_model": "OPENCV_FISHEYE"}, "fisheye", [0.1, 0, 0, 0.2]),
        ({"k1": 0.1, "is_fisheye": True}, "fisheye", [0.1, 0, 0, 0]),
        ({"k1": 0.1, "camera_model": "PINHOLE"}, "pinhole", None),
        ({"camera_model": "SIMPLE_PINHOLE"}, "pinhole", None),
    ],
)
def test_lens_models(ring, content, model, coeffs):
    cameras = read_cameras(ring(**content) / "transforms.json")
    assert cameras.model == model
    if coeffs is None:
        assert cameras.distortion is None
    else:
        torch.testing.assert_close(cameras.distortion[0], torch.tensor(coeffs, dtype=torch.float32))


def test_fisheye_without_coefficients_is_still_made_a_pinhole(ring):
    images = load_dataset(ring(camera_model="OPENCV_FISHEYE"))
    assert images.raw_cameras.model == "fisheye" and images.cameras.model == "pinhole"
    image, _, camera = images.read(0)
    assert image.shape == (24, 32, 3) and camera.model == "pinhole"


def test_points_masks_and_times(ring, edit):
    folder = ring()
    write_points(folder / "sparse.ply", torch.randn(30, 3), torch.rand(30, 3))
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[:, :16] = True
    from vision3d.io.images import write_image

    write_image(folder / "mask.png", mask)

    def change(content):
        content["ply_file_path"] = "sparse.ply"
        for i, frame in enumerate(content["frames"]):
            frame["time"] = i / 10
        content["frames"][2]["mask_path"] = "mask.png"

    edit(folder / "transforms.json", change)
    images = load_dataset(folder)
    assert images.points.shape == images.point_colors.shape == (30, 3)
    torch.testing.assert_close(images.cameras.times, torch.arange(10) / 10)
    assert torch.equal(images.read(2)[1], mask) and images.read(0)[1] is None
    small = images.read(2, downscale=2)[1]
    assert small.shape == (12, 16) and small[:, :8].all() and not small[:, 8:].any()
    edit(folder / "transforms.json", lambda content: content["frames"][2].update(mask_path="gone.png"))
    with pytest.raises(FileFormatError, match=r"frame 2 names the mask .*gone\.png, which does not exist"):
        load_dataset(folder)


@pytest.mark.parametrize("prefix", ["/home/someone/data/", "../data/", "C:\\data\\", "all/"])
def test_images_of_a_moved_folder_are_found_by_the_ends_of_their_paths(ring, edit, caplog, prefix):
    folder = ring()
    before = load_dataset(folder)

    def move(content):
        for frame in content["frames"]:
            frame["file_path"] = prefix + frame["file_path"].replace("/", "\\" if "\\" in prefix else "/")

    edit(folder / "transforms.json", move)
    images = load_dataset(folder)
    assert set(images.image_paths) == set(before.image_paths)
    assert f"{folder / 'transforms.json'}: 10 of 10 images are not at the given path" in caplog.text


def test_ambiguous_images_are_not_guessed(ring, edit):
    folder = ring()
    edit(folder / "transforms.json", lambda content: content["frames"][2].update(file_path="/elsewhere/images/001.png"))
    with pytest.raises(FileFormatError, match=r"frame 2 names /elsewhere/images/001\.png, which does not exist"):
        load_dataset(folder)


def test_splits_of_the_file(ring, edit):
    folder = ring()
    names = [f"images/{i:03d}.png" for i in range(10)]
    content = {"train_filenames": names[:6], "val_filenames": names[6:8], "test_filenames": names[8:9]}
    edit(folder / "transforms.json", lambda c: c.update(content))
    images = load_dataset(folder)
    assert images.names == tuple(names[:9])  # the last one is not in any list
    assert images.test.tolist() == [6, 7, 8] and images.train.tolist() == list(range(6))


def test_every_eighth_view_by_name_is_held_out(ring, edit):
    folder = ring(18)
    edit(folder / "transforms.json", lambda content: content["frames"].reverse())
    images = load_dataset(folder)
    assert images.names[0] == "images/000.png" and images.test.tolist() == [0, 8, 16]
    assert load_dataset(folder, split_every=5).test.tolist() == [0, 5, 10, 15]
    assert load_dataset(folder, split_every=0).test.tolist() == []
    with pytest.raises(InputError, match="split_every: got 1"):
        load_dataset(folder, split_every=1)


@pytest.mark.parametrize("spelling", ["images\\{}.png", "images/{}", "./images/{}.png", "images/{}.png"])
def test_spellings_of_file_names(ring, edit, spelling):
    folder = ring(4)

    def change(content):
        for i, frame in enumerate(content["frames"]):
            frame["file_path"] = spelling.format(f"{i:03d}")

    edit(folder / "transforms.json", change)
    assert [path.name for path in load_dataset(folder).image_paths] == [f"{i:03d}.png" for i in range(4)]


def test_missing_images(ring):
    folder = ring()
    (folder / "images/004.png").unlink()
    with pytest.raises(FileFormatError) as caught:
        load_dataset(folder)
    expected = (
        "transforms.json: frame 4 names images/004.png, which does not exist (9 of 10 images found). "
        "Run with --skip-missing to skip it."
    )
    assert str(caught.value).endswith(expected) and caught.value.exit_code == 3
    images = load_dataset(folder, skip_missing=True)
    assert len(images) == 9 and "images/004.png" not in images.names


@pytest.mark.parametrize("end", ["no image", "cut off"])
def test_unreadable_images(ring, end):
    folder = ring()
    path = folder / "images/004.png"
    path.write_bytes(path.read_bytes()[:-40] if end == "cut off" else b"\x89PNG no more")
    problem = "cannot be decoded (" if end == "cut off" else "is not an image that can be read (PNG, "
    with pytest.raises(FileFormatError) as caught:
        load_dataset(folder)
    text = str(caught.value)
    assert f"transforms.json: frame 4 names images/004.png: {path}: {problem}" in text
    assert text.endswith(". Run with --skip-missing to skip it.")
    images = load_dataset(folder, skip_missing=True)
    assert len(images) == 9 and "images/004.png" not in images.names


def test_complete_images_are_not_decoded_when_listed(ring, monkeypatch):
    folder = ring()

    def decode(path):
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr("vision3d.io.images._read_values", decode)
    assert len(load_dataset(folder)) == 10


def test_damage_between_a_valid_header_and_end_is_named_on_reading(ring):
    folder = ring()
    path = folder / "images/004.png"
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(100) + data[160:])
    images = load_dataset(folder)
    with pytest.raises(FileFormatError, match=r"images/004\.png: view 4 \(images/004\.png\): cannot be decoded"):
        images.read(4)


def test_fewer_than_three_views(ring):
    with pytest.raises(InputError, match=r"transforms\.json: got 2 views with images, want at least 3"):
        load_dataset(ring(2))


def test_wrong_sizes(ring, edit):
    folder = ring()
    edit(folder / "transforms.json", lambda content: frame_of(content, 3).update(w=33))
    with pytest.raises(FileFormatError, match=r"frame 3 names images/003\.png, which has 32x24 px; its camera has 33x24"):
        load_dataset(folder)


def test_images_downscaled_by_an_integer_are_accepted(ring):
    folder = ring(w=97, h=71, fl_x=120.0, cx=45.0)  # the files have 32x24
    images = load_dataset(folder)
    assert images.cameras.width[0] == 32
    torch.testing.assert_close(images.cameras.Ks[0, 0], torch.tensor([120 * 32 / 97, 0, 45 * 32 / 97]))
    assert images.read(0)[0].shape == (24, 32, 3)


def set_pose(function):
    def change(content):
        function(frame_of(content, 5)["transform_matrix"])

    return change


def put(row, column, value):
    return set_pose(lambda matrix: matrix[row].__setitem__(column, value))


@pytest.mark.parametrize(
    "change, message",
    [
        (put(0, 3, float("nan")), r"frame 5 \(images/005\.png\): the pose holds NaN or infinity"),
        (put(0, 0, float("inf")), r"frame 5 \(images/005\.png\): the pose holds NaN or infinity"),
        (set_pose(lambda m: [row.__setitem__(0, 0.0) for row in m]), "frame 5 .*: the pose is singular"),
        (set_pose(lambda m: [row.__setitem__(0, -row[0]) for row in m]), r"frame 5 .* not a rotation .*determinant -1"),
        (
            set_pose(lambda m: [row.__setitem__(0, 2 * row[0]) for row in m]),
            r"frame 5 .* not a rotation .*determinant 2",
        ),
        (set_pose(lambda m: m.pop()), None),
        (set_pose(lambda m: [m.pop(), m.pop()]), r"frame 5 .*: transform_matrix has shape \(2, 4\), want \(4, 4\)"),
        (put(0, 0, "one"), "frame 5 .*: transform_matrix is not made of numbers"),
        (lambda c: frame_of(c, 5).pop("transform_matrix"), r"frame 5 .*: transform_matrix has shape \(\)"),
        (lambda c: frame_of(c, 5).pop("file_path"), "frame 5 has no file_path"),
        (lambda c: c["frames"].__setitem__(5, 7), "frame 5 has no file_path"),
        (lambda c: c.update(fl_x="wide"), "frame 0 .*: fl_x is 'wide', want a finite number"),
        (lambda c: c.update(fl_x=10**400), "is not JSON .an integer has 401 digits, want at most 308"),
        (lambda c: frame_of(c, 0)["transform_matrix"][0].__setitem__(3, -(10**400)), "an integer has 401 digits"),
        (lambda c: frame_of(c, 0).update(time=10**400), "an integer has 401 digits"),
        (lambda c: c.update(fl_x=5000 * "9"), r"fl_x is '9{12}\.\.\.9{13}', want a finite number"),
        (lambda c: c.update(k1=float("nan")), "frame 0 .*: k1 is nan, want a finite number"),
        (lambda c: c.pop("fl_x"), "frame 0 .*: neither fl_x nor camera_angle_x is given"),
        (lambda c: c.update(fl_x=-3.0), r"frame 0 .*: the camera has 32x24 px, focal length -3"),
        (lambda c: c.update(camera_model="FOV"), "camera_model FOV is not supported; want PINHOLE, SIMPLE_PINHOLE"),
        (lambda c: c.update(camera_model=["OPENCV"]), r"camera_model \['OPENCV'\] is not supported; want PINHOLE"),
        (lambda c: c.update(k4=0.1), "k4 is given for camera_model OPENCV"),
        (lambda c: c.update(camera_model="ORTHOPHOTO"), "has ortho cameras"),
        (lambda c: frame_of(c, 5).update(camera_model="OPENCV_FISHEYE"), "mixes fisheye and pinhole cameras"),
        (lambda c: c.pop("frames"), "has no list 'frames'"),
        (lambda c: c.update(frames=[]), "has no frames"),
        (lambda c: c.update(train_filenames=3), "train_filenames is not a list of names"),
        (lambda c: c.update(train_filenames=["a.png"]), "none of the 1 names in train_filenames is the file_path of a frame"),
        (lambda c: c.update(k1=-5.0), r"camera 0 \(images/000\.png\): distortion: "),
    ],
)
def test_wrong_values_are_named(ring, edit, change, message):
    folder = ring()
    edit(folder / "transforms.json", change)
    if message is None:
        assert len(load_dataset(folder)) == 10  # three rows are sufficient
        return
    with pytest.raises(InputError, match=message):
        load_dataset(folder)


def test_missing_point_cloud(ring):
    with pytest.raises(MissingFileError, match=r"points\.ply: does not exist"):
        load_dataset(ring(ply_file_path="points.ply"))


def test_truncated_json_is_a_format_error(ring):
    path = ring(3) / "transforms.json"
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            read_frames(path)


def test_nearly_orthonormal_rotations_are_orthonormalized(ring, edit):
    folder = ring()
    edit(folder / "transforms.json", set_pose(lambda m: m[0].__setitem__(0, m[0][0] + 2e-4)))
    R = load_dataset(folder).cameras.viewmats[5, :3, :3]
    torch.testing.assert_close(R @ R.T, torch.eye(3), atol=1e-6, rtol=0)


def test_write_and_read_with_split_and_masks(ring, tmp_path):
    images = load_dataset(ring())
    path = images.source.parent / "again.json"
    write_cameras(path, images.cameras, is_test=images.is_test)
    again = load_dataset(path)
    torch.testing.assert_close(again.cameras.viewmats, images.cameras.viewmats, atol=1e-6, rtol=0)
    assert torch.equal(again.is_test, images.is_test) and again.names == images.names


def test_load_distinguishes_cameras_from_photos(ring, tmp_path):
    folder = ring()
    assert isinstance(load(folder / "transforms.json"), PosedImages) and isinstance(load(folder), PosedImages)
    images = load_dataset(folder)
    images.cameras.save(tmp_path / "cameras.json")
    assert isinstance(load(tmp_path / "cameras.json"), Cameras)  # its images are not there
    replace(images.cameras, names=None).save(folder / "unnamed.json")
    assert isinstance(load(folder / "unnamed.json"), Cameras)
    with pytest.raises(InputError, match=r"a \.json file holds cameras, boxes, a selection or a Gaussian scene, got Tensor"):
        save(tmp_path / "x.json", torch.zeros(3))


def test_our_own_data_sets_are_photos(ring, tmp_path):
    images = load_dataset(ring())
    images.cameras.save(images.source.parent / "transforms.json")
    assert isinstance(load(images.source.parent / "transforms.json"), PosedImages)
    images.save(tmp_path / "saved")
    path = tmp_path / "saved" / "transforms.json"
    assert isinstance(load(path), PosedImages) and PosedImages.load(path).names == PosedImages.load(path.parent).names
    assert isinstance(Cameras.load(path), Cameras)
    for image in (tmp_path / "saved" / "images").iterdir():
        image.unlink()
    with pytest.raises(FileFormatError, match=r"frame 0 names images/.*, which does not exist \(0 of 10 images found\)"):
        PosedImages.load(path)


def test_cameras_need_sizes(ring):
    with pytest.raises(FileFormatError, match="frame 0: w and h are missing"):
        Cameras.load(ring(w=None) / "transforms.json")


def test_fox(fox):
    with pytest.raises(FileFormatError, match=r"names images/0005\.jpg, .*\(50 of 67 images found\)\. Run with --skip-mis"):
        load_dataset(fox)
    images = load_dataset(fox, skip_missing=True, downscale=8)
    assert len(images) == 50 and len(images.test) == 7
    image, mask, camera = images.read(1)
    assert image.shape == (240, 135, 3) and mask is None and camera.width == 135
    assert 0.2 < image.mean() < 0.8 and images.raw_cameras.distortion.shape == (50, 4)


def test_more_than_one_size_is_allowed(ring, edit):
    folder = ring()
    from vision3d.io.images import write_image

    write_image(folder / "images/000.png", torch.rand(48, 64, 3))
    edit(folder / "transforms.json", lambda c: frame_of(c, 0).update(w=64, h=48, fl_x=80.0, fl_y=82.0, cx=30.0, cy=26.0))
    images = load_dataset(folder)
    assert images.cameras.width.tolist() == [64] + [32] * 9
    assert replace(images).read(0)[0].shape == (48, 64, 3)


def test_poses_beyond_float32(ring, edit):
    folder = ring()
    edit(folder / "transforms.json", lambda content: content["frames"][3]["transform_matrix"][0].__setitem__(3, 1e308))
    with pytest.raises(FileFormatError, match=r"frame 3 .*the pose holds 1e\+308, want at most 1e\+30"):
        load_dataset(folder)
