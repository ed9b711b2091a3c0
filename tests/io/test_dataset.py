import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, OutputExistsError
from vision3d.geometry.cameras import project
from vision3d.io.colmap import ColmapCamera, ColmapImage, ColmapModel, ColmapPoints, write_model
from vision3d.io.dataset import load_dataset, normalized
from vision3d.io.images import read_image, write_image
from vision3d.io.ply import write_points
from vision3d.scene import Cameras, PosedImages


def nerf_synthetic(folder, ring_folder, splits=("train", "val", "test")):
    frames = json.loads((ring_folder / "transforms.json").read_text())["frames"]
    for number, split in enumerate(splits):
        chosen = frames[number * 4 : number * 4 + 4]
        for i, frame in enumerate(chosen):
            image = torch.zeros(20, 20, 4)
            image[5:15, 5:15] = torch.tensor([1.0, 0.0, 0.0, 1.0])
            write_image(folder / split / f"r_{i}.png", image)
            frame["file_path"] = f"./{split}/r_{i}"
        content = {"camera_angle_x": 0.7, "frames": chosen}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def test_nerf_synthetic(ring, tmp_path):
    folder = nerf_synthetic(tmp_path / "lego", ring(12))
    images = load_dataset(folder)
    assert len(images) == 8 and len(images.train) == 4  # validation views are not used
    assert all("test" in images.names[i] for i in images.test.tolist())
    assert all("train" in images.names[i] for i in images.train.tolist())
    assert images.cameras.Ks[0, 0, 0].item() == pytest.approx(10 / np.tan(0.35))
    image, mask, _ = images.read(0)
    assert mask is None and image[0, 0].tolist() == [1, 1, 1] and image[10, 10].tolist() == [1, 0, 0]
    black = load_dataset(folder, background=(0.0, 0.0, 0.0)).read(0)[0]
    assert black[0, 0].tolist() == [0, 0, 0]


def test_nerf_synthetic_without_test_views(ring, tmp_path):
    images = load_dataset(nerf_synthetic(tmp_path / "lego", ring(12), ("train", "val")))
    assert len(images) == 8 and all("val" in images.names[i] for i in images.test.tolist())
    with pytest.raises(MissingFileError, match=r"transforms_train\.json: does not exist"):
        load_dataset(ring(12), format="nerf-synthetic")


def test_nerf_synthetic_names_the_frame(ring, tmp_path):
    folder = nerf_synthetic(tmp_path / "lego", ring(12))
    (folder / "test/r_2.png").unlink()
    with pytest.raises(FileFormatError, match=r"lego: test frame 2 names \./test/r_2, which does not exist \(7 of 8"):
        load_dataset(folder)


def test_folders_without_cameras_list_the_searched_files(tmp_path):
    with pytest.raises(MissingFileError, match=r"none: does not exist; want a folder of photos"):
        load_dataset(tmp_path / "none")
    with pytest.raises(InputError, match=r"found 0 photos .*searched for transforms\.json, .*sparse/0/cameras\.bin"):
        load_dataset(tmp_path)
    write_image(tmp_path / "images" / "a.png", torch.zeros(4, 4))
    with pytest.raises(InputError, match=r"found 1 photos without cameras .*; run with --sfm to find their cameras"):
        load_dataset(tmp_path)
    (tmp_path / "v.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"v\.mp4: is a video; run with --sfm"):
        load_dataset(tmp_path / "v.mp4")
    (tmp_path / "notes.txt").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"notes\.txt: is neither a transforms\.json nor a video"):
        load_dataset(tmp_path / "notes.txt")


@pytest.mark.wrong_types
def test_unknown_format(tmp_path):
    with pytest.raises(InputError, match="format: got 'blender', want auto, transforms"):
        load_dataset(tmp_path, format="blender")


@pytest.mark.parametrize("downscale", [1, 2, 3, 2.5])
def test_downscale_keeps_every_ray(ring, downscale):
    full, small = load_dataset(ring()), load_dataset(ring(), downscale=downscale)
    width, height = round(32 / downscale), round(24 / downscale)
    assert small.cameras.width[0] == width and small.read(0)[0].shape == (height, width, 3)
    ratio = torch.tensor([[width / 32], [height / 24], [1.0]])
    torch.testing.assert_close(small.cameras.Ks[0], full.cameras.Ks[0] * ratio)
    with pytest.raises(InputError, match=r"downscale: got 0\.5"):
        load_dataset(ring(), downscale=0.5)


def test_reading_at_half_size_is_reading_and_averaging(ring):
    images = load_dataset(ring())
    full, half = images.read(2)[0], images.read(2, downscale=2)
    expected = full.unflatten(0, (12, 2)).unflatten(2, (16, 2)).mean((1, 3))
    torch.testing.assert_close(half[0], expected)
    assert half[2].width[0] == 16 and half[2].names == ("images/002.png",)


def test_normalized_world(ring):
    folder = ring()
    write_points(folder / "p.ply", torch.randn(20, 3))
    content = json.loads((folder / "transforms.json").read_text())
    content["ply_file_path"] = "p.ply"
    for frame in content["frames"]:
        for row, shift in enumerate((5.0, -7.0, 2.0)):
            frame["transform_matrix"][row][3] += shift
    (folder / "transforms.json").write_text(json.dumps(content))
    before, after = load_dataset(folder), load_dataset(folder, normalize=True)
    # The ring of radius 4 around (5, -7, 2) is mapped to the unit circle.
    torch.testing.assert_close(torch.linalg.vector_norm(after.cameras.centers, dim=-1), torch.ones(10), atol=1e-5, rtol=0)
    expected = torch.diag(torch.tensor([0.25, 0.25, 0.25, 1.0]))
    expected[:3, 3] = -torch.tensor([5.0, -7.0, 2.0]) / 4
    torch.testing.assert_close(after.normalization, expected, atol=1e-5, rtol=1e-5)

    def pixels(images):
        cameras = images.cameras
        points_cam = images.points @ cameras.viewmats[:, :3, :3].mT + cameras.viewmats[:, None, :3, 3]
        return project(points_cam, cameras.Ks)

    torch.testing.assert_close(pixels(after), pixels(before), rtol=1e-3, atol=1e-2)
    twice = normalized(after)
    torch.testing.assert_close(twice.normalization, after.normalization, atol=1e-5, rtol=1e-5)


def test_normalizing_parallel_or_coincident_cameras(ring):
    images = load_dataset(ring())
    poses = torch.eye(4).repeat(10, 1, 1)
    poses[:, 0, 3] = torch.arange(10.0)
    Ks = images.cameras.Ks
    parallel = replace(images, cameras=Cameras.from_camtoworlds(poses, Ks, 32, 24), raw_cameras=None)
    assert normalized(parallel).cameras.centers.mean(0).abs().max() < 1e-6
    poses[:, 0, 3] = 1
    with pytest.raises(InputError, match="all cameras are at one position"):
        normalized(replace(images, cameras=Cameras.from_camtoworlds(poses, Ks, 32, 24), raw_cameras=None))


def test_saved_photos_are_unchanged(ring):
    folder = ring(k1=-0.1)
    write_points(folder / "p.ply", torch.randn(20, 3), torch.rand(20, 3))
    write_image(folder / "mask.png", torch.ones(24, 32))
    content = json.loads((folder / "transforms.json").read_text())
    content["ply_file_path"] = "p.ply"
    content["frames"][1]["mask_path"] = "mask.png"
    (folder / "transforms.json").write_text(json.dumps(content))
    images = load_dataset(folder)
    out = folder.parent / "out"
    images.save(out)
    again = PosedImages.load(out)
    assert again.cameras.distortion is None and again.raw_cameras is again.cameras
    torch.testing.assert_close(again.cameras.Ks, images.cameras.Ks)
    assert torch.equal(again.is_test, images.is_test) and torch.equal(again.points, images.points)
    for i in range(3):
        torch.testing.assert_close(again.read(i)[0], images.read(i)[0], atol=0.51 / 255, rtol=0)
    assert again.read(1)[1].all() and again.read(0)[1] is None
    with pytest.raises(OutputExistsError, match=r"transforms\.json: exists"):
        images.save(out)


def test_every_format_gives_the_same_asymmetric_cameras(ring):
    """A camera rotated by 90 degrees about z, then translated, through transforms.json and through COLMAP."""
    folder = ring(3)
    camtoworld = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])  # OpenCV axes
    opengl = camtoworld @ np.diag([1.0, -1, -1, 1])
    content = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(content["frames"]):
        opengl[0, 3] = i
        frame["transform_matrix"] = opengl.tolist()
    (folder / "transforms.json").write_text(json.dumps(content))
    images = {}
    for i in range(3):
        camtoworld[0, 3] = i
        viewmat = np.linalg.inv(camtoworld)
        half = np.sqrt(0.5)
        # World to camera rotates by -90 degrees about z.
        images[i + 1] = ColmapImage(f"{i:03d}.png", 1, np.array([half, 0, 0, -half]), viewmat[:3, 3])
    camera = ColmapCamera("PINHOLE", 32, 24, np.array([40.0, 41, 15, 13]))
    write_model(folder / "sparse/0", ColmapModel({1: camera}, images, ColmapPoints()))
    a, b = load_dataset(folder).cameras, load_dataset(folder, format="colmap").cameras
    torch.testing.assert_close(a.viewmats, b.viewmats, atol=1e-6, rtol=0)
    torch.testing.assert_close(a.Ks, b.Ks)
    torch.testing.assert_close(a.camtoworlds[1, :3, 3], torch.tensor([1.0, 2.0, 3.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(a.camtoworlds[1, :3, 0], torch.tensor([0.0, 1.0, 0.0]), atol=1e-6, rtol=0)


def test_exif_rotated_photos_match_upright_cameras(ring):
    from PIL import Image

    folder = ring(4)
    for path in (folder / "images").iterdir():
        stored = Image.open(path).transpose(Image.Transpose.ROTATE_90)  # 24x32 stored, 32x24 after orientation 6
        exif = Image.Exif()
        exif[0x0112] = 6
        upright = read_image(path)
        stored.save(path, exif=exif)
        if path.name == "002.png":
            expected = upright
    images = load_dataset(folder)
    assert images.raw_cameras.width[2] == 32
    assert torch.equal(images.read(2)[0], expected)
