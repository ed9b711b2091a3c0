import numpy as np
import pytest
import torch
from PIL import Image

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError, Vision3DError
from vision3d.io.images import check_whole, has_alpha, image_size, read_image, read_mask, upright_size, write_image
from vision3d.scene import codecs, load


def random_image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("suffix, error", [(".png", 0.5), (".webp", 0.5), (".tif", 0.5), (".bmp", 0.5), (".jpg", 6)])
def test_round_trip(tmp_path, suffix, error):
    smooth = torch.linspace(0, 1, 40)[:, None, None] * torch.tensor([1.0, 0.5, 0.2]) + torch.zeros(40, 30, 1)
    write_image(tmp_path / f"p{suffix}", smooth)
    image = load(tmp_path / f"p{suffix}")
    assert image.dtype == torch.float32 and image.shape == (40, 30, 3)
    torch.testing.assert_close(image, smooth, atol=error / 255 + 1e-6, rtol=0)
    assert image_size(tmp_path / f"p{suffix}") == (30, 40)


def test_alpha_is_kept_or_composited(tmp_path):
    image = random_image(8, 9, 4)
    write_image(tmp_path / "p.png", image)
    read = read_image(tmp_path / "p.png")
    torch.testing.assert_close(read, image, atol=0.5 / 255 + 1e-6, rtol=0)
    expected = read[..., :3] * read[..., 3:] + torch.tensor([1.0, 0.5, 0.0]) * (1 - read[..., 3:])
    torch.testing.assert_close(read_image(tmp_path / "p.png", background=(1.0, 0.5, 0.0)), expected)
    write_image(tmp_path / "q.png", image[..., :3])
    assert read_image(tmp_path / "q.png", background=(0.0, 0.0, 0.0)).shape[2] == 3


def test_gray_palette_and_palette_with_transparency(tmp_path):
    gray = (np.arange(30).reshape(5, 6) * 8).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    read = read_image(tmp_path / "gray.png")
    assert read.shape == (5, 6, 3) and torch.equal(read[..., 1], torch.from_numpy(gray) / 255)
    palette = Image.fromarray(gray, "P")
    palette.putpalette([255, 0, 0] + [0, 255, 0] * 255)
    palette.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[0, :2].tolist() == [[1, 0, 0], [0, 1, 0]]
    palette.save(tmp_path / "clear.png", transparency=0)
    assert read_image(tmp_path / "clear.png")[0, :2, 3].tolist() == [0, 1]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_of_gray(tmp_path, suffix):
    image = random_image(7, 5)
    write_image(tmp_path / f"g{suffix}", image, bits=16)
    read = read_image(tmp_path / f"g{suffix}")
    torch.testing.assert_close(read[..., 0], image, atol=0.5 / 65535 + 1e-7, rtol=0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("pixels, channels", [("rgb48le", 3), ("rgba64le", 4)])
def test_sixteen_bits_of_color(tmp_path, suffix, pixels, channels):
    import subprocess

    from imageio_ffmpeg import get_ffmpeg_exe

    values = np.random.default_rng(0).integers(0, 65536, (6, 8, channels)).astype("<u2")
    raw = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", "8x6", "-i", "-"]
    path = tmp_path / f"deep{suffix}"
    subprocess.run([get_ffmpeg_exe(), "-v", "error", *raw, path], input=values.tobytes(), check=True)
    expected = torch.from_numpy(values.astype(np.float32)) / 65535
    torch.testing.assert_close(read_image(path), expected, atol=1e-7, rtol=0)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_used_only_to_match_the_camera(tmp_path, orientation):
    stored = (np.random.default_rng(0).random((6, 8, 3)) * 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "p.png"
    Image.fromarray(stored).save(path, exif=exif)
    from PIL import ImageOps

    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert upright_size(path) == (upright.shape[1], upright.shape[0])
    assert np.array_equal(read_image(path).numpy(), stored.astype(np.float32) / 255)
    assert np.array_equal(read_image(path, size=(8, 6)).numpy(), stored.astype(np.float32) / 255)
    if orientation >= 5:
        assert np.array_equal(read_image(path, size=(6, 8)).numpy(), upright.astype(np.float32) / 255)
    else:
        with pytest.raises(InputError, match=r"p\.png: has 8x6 px, its camera 6x8"):
            read_image(path, size=(6, 8))


def test_masks(tmp_path):
    mask = random_image(5, 6) > 0.5
    write_image(tmp_path / "m.png", mask)
    assert torch.equal(read_mask(tmp_path / "m.png"), mask)
    rgba = torch.ones(5, 6, 4)
    rgba[..., 3] = mask
    write_image(tmp_path / "a.png", rgba)
    assert torch.equal(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_images_are_format_errors(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    write_image(path, random_image(20, 30, 3))
    data = path.read_bytes()
    for length in [0, 1, 5, 20, *range(30, len(data) - 30, max(1, len(data) // 40))]:
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError, match=rf"p\{suffix}"):
            read_image(path)
        with pytest.raises(FileFormatError, match=rf"p\{suffix}"):
            check_whole(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.parametrize("size", [(20, 30), (300, 257)])
def test_complete_images_are_recognized_by_their_ends(tmp_path, monkeypatch, suffix, size):
    path = tmp_path / f"p{suffix}"
    write_image(path, random_image(*size, 3))
    with monkeypatch.context() as patched:
        patched.setattr("vision3d.io.images._read_values", None)
        check_whole(path)
    path.write_bytes(path.read_bytes() + b"appended by a telephone")
    check_whole(path)


def test_files_that_are_not_images(tmp_path):
    (tmp_path / "p.png").write_text("hello")
    with pytest.raises(FileFormatError, match=r"p\.png: is not an image that can be read \(PNG, JPEG"):
        image_size(tmp_path / "p.png")
    with pytest.raises(MissingFileError, match="want an image"):
        read_image(tmp_path / "q.png")


def test_writing_rejects_invalid_images(tmp_path):
    with pytest.raises(ShapeError, match=r"image: got shape \(4, 5, 2\), want \(H, W\)"):
        write_image(tmp_path / "p.png", torch.zeros(4, 5, 2))
    with pytest.raises(InputError, match="1 values of the image are not finite"):
        write_image(tmp_path / "p.png", torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(InputError, match=r"no image format for '\.gif'"):
        write_image(tmp_path / "p.gif", torch.zeros(4, 5))
    with pytest.raises(InputError, match=r"\.jpg holds no alpha channel"):
        write_image(tmp_path / "p.jpg", torch.zeros(4, 5, 4))
    with pytest.raises(InputError, match="bits=16 is not supported"):
        write_image(tmp_path / "p.png", torch.zeros(4, 5, 3), bits=16)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_previous_image(tmp_path, monkeypatch):
    write_image(tmp_path / "p.png", torch.zeros(4, 5, 3))

    def full(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(Vision3DError, match=r"p\.png: could not be written .*previous file is unchanged"):
        write_image(tmp_path / "p.png", torch.ones(4, 5, 3))
    assert read_image(tmp_path / "p.png").max() == 0 and len(list(tmp_path.iterdir())) == 1


def test_values_are_clamped_and_rounded(tmp_path):
    write_image(tmp_path / "p.png", torch.tensor([[-1.0, 0.4999, 0.5019, 2.0]]))
    assert (read_image(tmp_path / "p.png")[0, :, 0] * 255).round().tolist() == [0, 127, 128, 255]


def gif(path, frames=2, transparent=False):
    """A GIF of 4 x 3 pixels: red, then blue; its first pixel is transparent."""
    pages = []
    for color in ((255, 0, 0), (0, 0, 255))[:frames]:
        page = Image.new("RGBA", (4, 3), (*color, 255))
        if transparent:
            page.putpixel((0, 0), (0, 0, 0, 0))
        pages.append(page)
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def test_the_first_frame_of_a_gif(tmp_path):
    for frames in (1, 2):
        image = read_image(gif(tmp_path / "a.gif", frames))
        assert image.shape == (3, 4, 3) and torch.equal(image, torch.tensor([1.0, 0, 0]).expand(3, 4, 3))
    assert read_image(gif(tmp_path / "b.gif", transparent=True))[0, :2, 3].tolist() == [0, 1]
    assert image_size(tmp_path / "b.gif") == (4, 3) and has_alpha(tmp_path / "b.gif")
    assert torch.equal(codecs.load(tmp_path / "a.gif"), image)
    with pytest.raises(InputError, match=r"a\.gif: \.gif can be read but not written; want \.png"):
        codecs.save(tmp_path / "a.gif", image)
    check_whole(tmp_path / "a.gif")
    data = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(data[: len(data) // 3])
    with pytest.raises(FileFormatError, match=r"a\.gif: (cannot be decoded|is not an image)"):
        check_whole(tmp_path / "a.gif")


def test_an_obj_whose_texture_is_a_gif(tmp_path, caplog):
    gif(tmp_path / "t.gif")
    (tmp_path / "a.mtl").write_text("newmtl one\nmap_Kd t.gif\n")
    lines = ["mtllib a.mtl", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 0 1", "usemtl one", "f 1/1 2/2 3/3"]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    mesh = load(tmp_path / "a.obj")
    assert mesh.texture.shape == (3, 4, 3) and mesh.texture[0, 0].tolist() == [1, 0, 0] and caplog.text == ""
