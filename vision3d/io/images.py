"""Images: PNG, JPEG, WebP, TIFF and BMP with 8 or 16 bits, and the first frame of GIF, read as floats in [0, 1].

Camera poses refer to the stored pixels: an EXIF orientation is not applied, as in COLMAP and nerfstudio, unless the image
matches its camera's size only after the rotation.
"""

import io
import os
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.io.guards import check_pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

READ_ONLY = (".gif",)
"""Suffixes of images that are read but not written."""
_FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]
_ORIENTATION = 0x0112  # EXIF tag
_MAKER, _LENS = (0x010F, 0x0110), (0x920A, 0xA405)  # EXIF tags: camera model, and focal lengths in a table of their own
_LENS_TABLE = 0x8769
_STRIPS, _TILES = (273, 279), (324, 325)  # TIFF tags: offsets of strips or tiles, and their bytes
_WRITE_OPTIONS = {
    ".png": {"compress_level": 4},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
    ".tif": {"compression": "tiff_deflate"},
    ".tiff": {"compression": "tiff_deflate"},
    ".bmp": {},
}


def image_size(path: Path | str) -> tuple[int, int]:
    """Width and height of the stored pixels; reads only the header.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It cannot be read as an image.
    """
    with open_image(Path(path)) as image:
        return image.size


def upright_size(path: Path | str) -> tuple[int, int]:
    """Width and height after the EXIF orientation is applied."""
    with open_image(Path(path)) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(_ORIENTATION, 1) >= 5 else (width, height)


def has_alpha(path: Path | str) -> bool:
    """Whether an image has an alpha channel; reads only the header."""
    with open_image(Path(path)) as image:
        return image.has_transparency_data


def check_whole(path: Path | str, *, decode: bool = False) -> None:
    """Check that an image is not truncated: by the end of its file, and by decoding only if that is inconclusive.

    Args:
        path: The image.
        decode: Always decode it, which also detects damage in the middle.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is truncated, or is not a readable image.
    """
    path = Path(path)
    with open_image(path) as image:
        _check_bits(path, image)
        has_end = _has_end(path, image)
    if decode or not has_end:
        _read_values(path)


def read_image(
    path: Path | str,
    *,
    size: tuple[int, int] | None = None,
    background: tuple[float, float, float] | None = None,
) -> Float[Tensor, "h w c"]:
    """Read an image as red, green, blue (and alpha) in [0, 1]; gray and palette images become color.

    Args:
        path: The file.
        size: Width and height of its camera. Stored pixels that do not match are rotated according to the EXIF orientation, and
            raise an error if that does not help. None: the stored pixels without changes.
        background: Background color in [0, 1] for an image with an alpha channel; the result has three channels. None:
            four channels if there is alpha.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It cannot be read, or is truncated.
        InputError: Its size differs from `size`.
    """
    path = Path(path)
    values = _turned(path, _read_values(path), size)
    image = torch.from_numpy(values)
    if image.shape[2] == 4 and background is not None:
        color, alpha = image[..., :3], image[..., 3:]
        image = color * alpha + torch.tensor(background) * (1 - alpha)
    return image.contiguous()


def read_photo(path: Path | str) -> UInt8[Tensor, "h w 3"]:
    """Read an image as a viewer shows it: its EXIF orientation is applied, transparency is on white, gray becomes color.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It cannot be read, or is truncated.
    """
    path = Path(path)
    values = _read_values(path)
    with open_image(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + (1 - values[..., 3:])
    values = _upright(values, orientation)
    return torch.from_numpy(np.ascontiguousarray((255 * values).round().astype(np.uint8)))


def decode_image(path: Path | str, data: bytes, where: object = None) -> np.ndarray:
    """Decode an image (H, W, 3 or 4) in [0, 1] with 8 bits per channel from the bytes of its file.

    Args:
        path: The file that `data` is from, for messages.
        data: A complete PNG, JPEG, WebP, TIFF, BMP or GIF file.
        where: Position in the file, for messages.

    Raises:
        FileFormatError: It cannot be read, or has too many pixels.
    """
    return _read_values(Path(path), data, where)


def read_mask(path: Path | str, *, size: tuple[int, int] | None = None) -> Bool[Tensor, "h w"]:
    """Read a mask: pixels brighter than half in any channel are set, or opaque ones if there is alpha."""
    image = read_image(path, size=size)
    if image.shape[2] == 4 and bool((image[..., 3] < 1).any()):
        return image[..., 3] > 0.5
    return image[..., :3].amax(-1) > 0.5


def write_image(path: Path | str, image: Tensor, *, bits: int = 8) -> None:
    """Write an image in the format of its suffix atomically; WebP and TIFF lossless, JPEG at quality 95.

    Args:
        path: The file.
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); floats in [0, 1] (clamped), bytes, or bools.
        bits: 8, or 16 for gray PNG and TIFF.

    Raises:
        ShapeError: Wrong shape.
        InputError: The suffix is unknown, `bits` is not supported by it, or values are not finite.
    """
    from PIL import Image

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: no image format for {path.suffix!r}; want {', '.join(SUFFIXES)}")
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (3, 4))) or not image.numel():
        raise ShapeError("image", tuple(image.shape), "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not empty")
    if bits not in (8, 16) or (bits == 16 and (image.ndim != 2 or suffix not in (".png", ".tif", ".tiff"))):
        raise InputError(f"{path}: bits={bits} is not supported; 16 is for gray .png and .tif")
    values = image.detach().cpu()
    if values.dtype != torch.uint8:
        values = values.float()
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"{path}: {int((~torch.isfinite(values)).sum())} values of the image are not finite")
        top = 255 if bits == 8 else 65535
        values = (values.clamp(0, 1) * top).round().to(torch.uint8 if bits == 8 else torch.int32)
    array = values.numpy() if bits == 8 else values.numpy().astype(np.uint16)
    if array.ndim == 3 and array.shape[2] == 4 and suffix in (".jpg", ".jpeg", ".bmp"):
        raise InputError(f"{path}: {suffix} holds no alpha channel; want .png, .webp or .tif")
    with atomic_write(path) as temporary:
        Image.fromarray(array).save(temporary, **_WRITE_OPTIONS[suffix])


@dataclass(frozen=True)
class PhotoCopy:
    """Result of `write_copy`."""

    size: tuple[int, int]
    """Width and height of the original, rotated like the copy."""
    copy_size: tuple[int, int]
    lens: tuple[str, ...]
    """Camera and focal length from the original's EXIF data."""


def write_copy(path: Path | str, target: Path | str, max_side: int) -> PhotoCopy:
    """Write a photo as a JPEG of limited size, keeping the EXIF data about the lens.

    It is rotated like `read_image` does, so that a camera of the copy is one of the photo, and composited on white if it is
    transparent.

    Args:
        path: An image in any supported format.
        target: A .jpg.
        max_side: Longer sides are downscaled to this many pixels.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It cannot be read as an image.
    """
    from PIL import Image

    path = Path(path)
    with open_image(path) as image:
        size = image.size
        _check_bits(path, image)
        factor = min(1.0, max_side / max(size))
        reduced = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                photo = _eight_bits(path, image, reduced).resize(reduced, Image.Resampling.BICUBIC, reducing_gap=3.0)
                exif = image.getexif()
                lens = exif.get_ifd(_LENS_TABLE)
        except FileFormatError:
            raise
        except Exception as error:  # PIL's decoders raise arbitrary exceptions on damaged files
            raise FileFormatError(path, f"cannot be decoded ({error})") from error
    turn = exif.get(_ORIENTATION, 1) if size[0] != size[1] else 1
    ways = Image.Transpose
    way = {5: ways.TRANSPOSE, 6: ways.ROTATE_270, 7: ways.TRANSVERSE, 8: ways.ROTATE_90}.get(turn)
    if way is not None:
        photo, size = photo.transpose(way), (size[1], size[0])
    kept = Image.Exif()
    kept.update({tag: exif[tag] for tag in _MAKER if tag in exif})
    kept.get_ifd(_LENS_TABLE).update({tag: lens[tag] for tag in _LENS if tag in lens})
    with atomic_write(Path(target)) as temporary:
        photo.save(temporary, "JPEG", quality=95, subsampling=0, exif=kept)
    words = [*(str(exif.get(tag, "")) for tag in _MAKER), *(str(lens.get(tag, "")) for tag in _LENS)]
    return PhotoCopy(size, photo.size, tuple(words))


def _eight_bits(path: Path, image, size: tuple[int, int]):
    """The PIL image as RGB, of at least this size, on white if it is transparent."""
    from PIL import Image

    if image.mode.startswith("I;16") or _is_deep_color(image):
        result = Image.fromarray((255 * _read_values(path)).round().astype(np.uint8))
    else:
        image.draft("RGB", size)  # JPEG: decoded at a fraction of its size
        result = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if result.mode == "RGBA":
        result = Image.alpha_composite(Image.new("RGBA", result.size, (255, 255, 255, 255)), result)
    return result.convert("RGB")


def load(path: Path) -> Float[Tensor, "h w c"]:
    """Codec: read an image."""
    return read_image(path)


def save(path: Path, value: Float[Tensor, "h w c"]) -> None:
    """Codec: write an image."""
    write_image(path, value)


def open_image(path: Path, data: bytes | None = None, where: object = None):
    """Open the PIL image of a file, or of `data` from it: nothing is decoded, and its size is checked.

    All image files are opened here.
    """
    from PIL import Image, UnidentifiedImageError

    if data is None and not path.is_file():
        raise MissingFileError(path, "an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about large images; the size is checked below
            image = Image.open(path if data is None else io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:  # its message may contain a memory address
        raise FileFormatError(path, "is not an image that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF)", where) from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise FileFormatError(path, f"is not an image that can be read ({error})", where) from error
    try:
        check_pixels(path, *image.size, path.stat().st_size if data is None else len(data), where)
    except FileFormatError:
        image.close()
        raise
    return image


def _has_end(path: Path, image) -> bool:
    """Whether the file certainly has all of its pixels; with trailing bytes this is inconclusive."""
    with path.open("rb") as file:
        head = file.read(8)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 12))
        tail = file.read()
    if image.format == "PNG":
        return tail[4:8] == b"IEND"
    if image.format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size  # length in the RIFF container
    if image.format == "GIF":
        return tail.endswith(b";")
    if image.format == "BMP":
        return 0 < int.from_bytes(head[2:6], "little") <= size
    if image.format == "TIFF":
        tags = image.tag_v2
        starts, counts = tags.get(_STRIPS[0]) or tags.get(_TILES[0], ()), tags.get(_STRIPS[1]) or tags.get(_TILES[1], ())
        return len(starts) == len(counts) > 0 and max(map(sum, zip(starts, counts))) <= size
    return tail.endswith(b"\xff\xd9")  # JPEG end of image


def _read_values(path: Path, data: bytes | None = None, where: object = None) -> np.ndarray:
    with open_image(path, data, where) as image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _check_bits(path, image)
                if data is None and _is_deep_color(image):
                    return _read_deep_color(path, *image.size, has_alpha=image.mode == "RGBA")
                if image.mode.startswith("I;16"):
                    return _gray(_scaled(np.asarray(image), 65535))
                return _scaled(np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB")), 255)
        except FileFormatError:
            raise
        except Exception as error:  # PIL's decoders raise arbitrary exceptions on damaged files
            raise FileFormatError(path, f"cannot be decoded ({error})", where) from error


def _scaled(values: np.ndarray, top: int) -> np.ndarray:
    scaled = values.astype(np.float32)
    scaled /= top
    return scaled


def _check_bits(path: Path, image) -> None:
    if image.mode in ("I", "F"):
        raise FileFormatError(path, f"holds {image.mode} pixels of 32 bits; want 8 or 16 bits per channel")


def _gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, -1)


def _is_deep_color(image) -> bool:
    """Whether the file has 16-bit colors, which PIL would truncate to 8 bits."""
    if image.format == "TIFF":
        return image.mode in ("RGB", "RGBA") and max(image.tag_v2.get(258, (8,))) == 16  # BitsPerSample
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA"):
        return False
    with Path(image.filename).open("rb") as file:
        return file.read(25)[24:] == b"\x10"  # bit depth in IHDR, which PNG puts first


def _read_deep_color(path: Path, width: int, height: int, *, has_alpha: bool) -> np.ndarray:
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-noautorotate", "-i", f"file:{path}", "-frames:v", "1"]
    result = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgba64le", "-"], capture_output=True, check=False)
    if result.returncode or len(result.stdout) != width * height * 8:
        message = result.stderr.decode("utf-8", "replace").strip().splitlines()
        raise FileFormatError(path, f"cannot be decoded ({message[-1] if message else 'too few pixels'})")
    values = np.frombuffer(result.stdout, "<u2").reshape(height, width, 4)
    return _scaled(values if has_alpha else values[..., :3], 65535)


def _turned(path: Path, values: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    height, width = values.shape[:2]
    if size is None or (width, height) == size:
        return values
    with open_image(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
    if (height, width) != size or orientation < 5:
        raise InputError(f"{path}: has {width}x{height} px, its camera {size[0]}x{size[1]}")
    return np.ascontiguousarray(_upright(values, orientation))


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    # EXIF 5..8: transposed; then mirrored along x for 2, 3, 6 and 7, along y for 3, 4, 7 and 8.
    if orientation >= 5:
        values = values.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def is_image(path: Path) -> bool:
    """Whether a file name has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
