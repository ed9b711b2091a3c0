"""Clips with masks: supported layouts, and every kind of invalid one."""

from dataclasses import replace

import pytest
import torch

from tests.support.clips import worm
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter
from vision3d.optim.metrics import mask_iou
from vision3d.scene import Cameras
from vision3d.stages.animate.dynamic.cropping import Crop
from vision3d.stages.animate.dynamic.footage import hold_out, read_footage
from vision3d.stages.animate.dynamic.painters import MeshPainter
from vision3d.stages.animate.masks import mask_of_background


def test_one_folder_per_camera(tmp_path):
    clip = worm(frames=3, cameras=2)
    found, want = read_footage(clip.write(tmp_path), fps=24), clip.footage()
    assert found.size == (32, 32) and found.camera_names == want.camera_names
    assert torch.equal(found.frames, want.frames)
    torch.testing.assert_close(found.times, want.times)
    opaque = want.images[..., 3] > 0
    assert torch.equal(found.images[..., 3], want.images[..., 3])
    assert int((found.images[opaque].int() - want.images[opaque].int()).abs().max()) <= 1
    torch.testing.assert_close(found.cameras.viewmats, want.cameras.viewmats, atol=1e-6, rtol=0)


def test_one_folder_of_images_sorted_by_number(tmp_path):
    clip = worm(frames=12, cameras=1)
    found = read_footage(clip.write(tmp_path), fps=12)
    assert found.cameras is None and len(found) == 12
    assert torch.equal(found.images[..., 3], clip.footage().images[..., 3])  # 10.png after 9.png
    assert float(found.times[-1]) == pytest.approx(11 / 12)
    clip.cameras.save(tmp_path / "one.json")
    with_camera = read_footage(tmp_path, cameras=tmp_path / "one.json")
    assert len(with_camera.cameras) == 12


def test_images_with_their_own_times(tmp_path):
    clip = worm(frames=3, cameras=2)
    clip.write(tmp_path)
    rows, names, times = [0, 1, 0], ["cam0/0.png", "cam1/1.png", "cam0/2.png"], torch.tensor([0.0, 0.25, 1.0])
    views = Cameras(
        clip.cameras.viewmats[rows], clip.cameras.Ks[rows], clip.cameras.width[rows], clip.cameras.height[rows],
        names=tuple(names), times=times,
    )  # fmt: skip
    views.save(tmp_path / "cameras.json")
    found = read_footage(tmp_path)
    assert found.times.tolist() == [0.0, 0.25, 1.0] and found.frames.tolist() == [0, 1, 2]
    assert found.camera_names == ("cam0", "cam1", "cam0")


def test_images_are_downscaled_without_transparent_colors(tmp_path):
    """Colors under alpha 0 do not bleed in."""
    image = torch.zeros(8, 8, 4)
    image[..., :3] = torch.tensor([0.0, 1.0, 0.0])
    image[2:6, 2:6] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    image[2, 2, 3] = 0.0
    for i in range(2):
        write_image(tmp_path / f"{i}.png", image)
    found = read_footage(tmp_path, resolution=4)
    assert found.size == (4, 4)
    is_seen = found.images[..., 3] > 0
    assert bool((found.images[is_seen][:, :3] == torch.tensor([255, 0, 0])).all())
    assert found.images[0, 1, 1, 3] == 191  # three quarters
    smaller, alphas = found.read(torch.tensor([0, 1]), 2)
    assert smaller.shape == (2, 2, 2, 3) and float(alphas[0].mean()) == pytest.approx(15 / 64, abs=1e-2)


def test_a_video_with_masks(tmp_path):
    clip = worm(frames=4, cameras=1)
    footage = clip.footage()
    images, alphas = footage.read(torch.arange(4))
    with VideoWriter(tmp_path / "worm.mp4", fps=12, crf=4) as video:
        for image in images:
            video.append(image)
    for i, alpha in enumerate(alphas):
        write_image(tmp_path / "masks" / f"{i}.png", alpha)
    found = read_footage(tmp_path / "worm.mp4", masks=tmp_path / "masks")
    assert len(found) == 4 and float(found.times[1]) == pytest.approx(1 / 12)
    assert torch.equal(found.read(torch.tensor([3]))[1][0] > 0.5, alphas[3] > 0.5)
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(InputError, match="got 3 masks for the 4 frames"):
        read_footage(tmp_path / "worm.mp4", masks=tmp_path / "masks")


def test_masks_next_to_images(tmp_path):
    clip = worm(frames=2, cameras=2)
    clip.write(tmp_path / "images", alpha=False)
    alphas = clip.footage().read(torch.arange(4))[1]
    for i, alpha in enumerate(alphas):
        write_image(tmp_path / "masks" / f"cam{i // 2}" / f"{i % 2}.png", (alpha > 0.5).float())
    found = read_footage(tmp_path / "images", masks=tmp_path / "masks")
    assert torch.equal(found.images[..., 3] > 127, alphas > 0.5)
    (tmp_path / "masks" / "cam1" / "1.png").unlink()
    with pytest.raises(InputError, match=r"got 1 masks for the 2 frames of .*cam1; want one each"):
        read_footage(tmp_path / "images", masks=tmp_path / "masks")


def test_masks_of_images_in_another_order(tmp_path):
    """They are matched by name, and each camera has its own."""
    clip = worm(frames=3, cameras=2)
    folder = clip.write(tmp_path / "images")
    names = ["cam0/0.png", "cam1/1.png", "cam0/2.png", "cam1/0.png"]
    for name in names:
        alpha = torch.zeros(32, 32)
        alpha[: 2 + 3 * names.index(name)] = 1
        write_image(tmp_path / "masks" / name, alpha)
    write_image(tmp_path / "masks" / "cam0" / "1.png", torch.ones(32, 32))  # for an image that is not listed
    rows, times = [0, 1, 0, 1], torch.tensor([0.0, 0.25, 1.0, 0.0])
    views = Cameras(
        clip.cameras.viewmats[rows], clip.cameras.Ks[rows], clip.cameras.width[rows], clip.cameras.height[rows],
        names=tuple(names), times=times,
    )  # fmt: skip
    views.save(folder / "cameras.json")
    found = read_footage(folder, masks=tmp_path / "masks")
    assert (found.images[..., 0, 3] == 255).sum(1).tolist() == [2, 5, 8, 11]


def test_masks_counted_for_each_camera(tmp_path):
    clip = worm(frames=2, cameras=2)
    for name in ("cam0/a.png", "cam0/b.png", "cam0/c.png", "cam1/a.png"):
        write_image(tmp_path / "masks" / name, torch.ones(32, 32))
    with pytest.raises(InputError, match=r"got 3 masks for the 2 frames of .*cam0; want one each"):
        read_footage(clip.write(tmp_path / "images"), masks=tmp_path / "masks")


def test_masks_from_a_plain_background(tmp_path, caplog):
    clip = worm(frames=2, cameras=1, size=48)
    with caplog.at_level("INFO", "vision3d"):
        found = read_footage(clip.write(tmp_path, alpha=False))
    assert "masks from the background color #ffffff" in caplog.text
    want = clip.footage().images[..., 3] > 8  # pixels with any of the object differ from white
    overlap = (found.images[..., 3] > 127) & want
    assert int(overlap.sum()) >= 0.98 * int(want.sum()) and int((found.images[..., 3] > 127).sum()) <= 1.02 * int(want.sum())


def test_unsuitable_backgrounds():
    image = torch.ones(16, 16, 3)
    image[4:12, 4:12] = torch.tensor([0.2, 0.5, 0.1])
    masks, color = mask_of_background([image])
    assert color == "#ffffff" and int(masks[0].sum()) == 64
    image[7, 7] = 1.0  # a spot of the background color on the object is kept
    assert int(mask_of_background([image])[0][0].sum()) == 64
    striped = image.clone()
    striped[0, :8] = 0.0
    assert mask_of_background([striped]) == (None, "the border has several colors")
    pale = image.clone()
    pale[4:8, 4:12] = 0.96
    assert mask_of_background([pale]) == (None, "the object has almost the color of the background")


def frames(folder, *images):
    for i, image in enumerate(images):
        write_image(folder / f"{i}.png", image)
    return folder


def rgba(size=(16, 16), alpha=1.0):
    image = torch.zeros(*size, 4)
    image[4:12, 4:12] = torch.tensor([0.5, 0.2, 0.1, alpha])
    return image


def test_frames_of_different_sizes(tmp_path):
    frames(tmp_path, rgba(), rgba((16, 20)))
    with pytest.raises(InputError, match=r"1\.png has 20x16 px, 0\.png 16x16; want frames of one size"):
        read_footage(tmp_path)


def test_frames_without_alpha(tmp_path):
    noise = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    frames(tmp_path, noise, noise)
    with pytest.raises(InputError, match=r"0\.png has no alpha and no plain background .*; want RGBA frames"):
        read_footage(tmp_path)


def test_one_frame_of_many_without_alpha(tmp_path):
    frames(tmp_path, rgba(), torch.rand(16, 16, 3), rgba())
    with pytest.raises(InputError, match=r"1.png has no alpha \(1 of 3 frames\); want RGBA frames, or --masks for all"):
        read_footage(tmp_path)


def test_an_empty_mask(tmp_path):
    frames(tmp_path, rgba(), rgba(alpha=0.0))
    with pytest.raises(InputError, match=r"the mask of 1\.png is empty; want the object in every frame"):
        read_footage(tmp_path)


def test_wrong_counts(tmp_path):
    with pytest.raises(InputError, match="images of 1 time, want at least 2 frames"):
        read_footage(frames(tmp_path / "one", rgba()))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="has no images"):
        read_footage(tmp_path / "none")
    clip = worm(frames=3, cameras=2)
    clip.write(tmp_path / "rig")
    (tmp_path / "rig" / "cam1" / "2.png").unlink()
    with pytest.raises(InputError, match="cam1 has 2 images, cam0 has 3; want as many of each camera"):
        read_footage(tmp_path / "rig")


def test_unsuitable_cameras(tmp_path):
    clip = worm(frames=2, cameras=2)
    clip.write(tmp_path)
    (tmp_path / "cameras.json").rename(tmp_path / "other.json")
    with pytest.raises(InputError, match=r"has folders of images \(cam0, cam1\) but no cameras.json that names them"):
        read_footage(tmp_path)
    Cameras(*(getattr(clip.cameras, n) for n in ("viewmats", "Ks", "width", "height")), names=("a.png", "b.png")).save(
        tmp_path / "cameras.json"
    )
    with pytest.raises(MissingFileError, match=r"a\.png"):
        read_footage(tmp_path)
    for name in "ab":
        write_image(tmp_path / f"{name}.png", rgba())
    with pytest.raises(InputError, match="names images without times"):
        read_footage(tmp_path)


def test_wrong_paths(tmp_path):
    with pytest.raises(MissingFileError, match="nothing"):
        read_footage(tmp_path / "nothing")
    (tmp_path / "text.txt").write_text("words")
    with pytest.raises(FileFormatError, match="neither a folder nor a video"):
        read_footage(tmp_path / "text.txt")
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(FileFormatError, match="is not a video"):
        read_footage(tmp_path / "broken.mp4")
    (tmp_path / "cut").mkdir()
    frames(tmp_path / "cut", rgba(), rgba())
    whole = (tmp_path / "cut" / "1.png").read_bytes()
    (tmp_path / "cut" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"1\.png"):
        read_footage(tmp_path / "cut")


def test_holding_out():
    footage = worm(frames=7, cameras=3).footage()
    splits = hold_out(footage, 2, 3, ["cam1"])
    seen, cameras, late = (splits[name] for name in ("fitted", "unseen_cameras", "unseen_frames"))
    assert footage.frames[late].unique().tolist() == [5]  # 2 is the reference
    assert {footage.camera_names[i] for i in cameras.tolist()} == {"cam1"}
    assert footage.frames[seen].unique().tolist() == [0, 1, 2, 3, 4, 6]
    assert not set(seen.tolist()) & set(cameras.tolist()) | set(seen.tolist()) & set(late.tolist())
    assert len(hold_out(footage, 0, 0, [])["fitted"]) == len(footage)
    with pytest.raises(ConfigError, match="there is no camera 'cam9'; there are cam0, cam1, cam2"):
        hold_out(footage, 0, 0, ["cam9"])
    with pytest.raises(ConfigError, match="holds out all 3 cameras"):
        hold_out(footage, 0, 0, ["cam0", "cam1", "cam2"])


def test_larger_images_are_cropped_to_the_object(tmp_path):
    """The mesh, rendered with the cropped cameras, covers the masks, and is larger than in the whole images."""
    clip = worm(frames=3, cameras=2, size=96)
    far = replace(clip, cameras=replace(clip.cameras, Ks=clip.cameras.Ks * torch.tensor([0.5, 0.5, 1.0])[:, None]))
    far.cameras.Ks[:, :2, 2] = torch.tensor([30.0, 60.0])  # off-center
    footage = read_footage(far.write(tmp_path / "rig"), resolution=32)
    assert max(footage.size) == 32 and footage.cameras is not None
    masks = footage.images[..., 3] > 127
    _, alphas = MeshPainter.of(clip.mesh).paint(clip.vertices, footage.frames, replace(footage.cameras, names=None, times=None))
    assert mask_iou(alphas > 0.5, masks) > 0.9
    whole = read_footage(tmp_path / "rig")
    assert whole.size == (96, 96)
    assert masks.float().mean() > 2 * (whole.images[..., 3] > 127).float().mean()
    # A mask that fills the image leaves nothing to crop.
    assert Crop.around([torch.ones(8, 8)], ["a"]) is None and Crop.around([torch.zeros(8, 8)], ["a"]) is None
