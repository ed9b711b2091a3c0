"""Contact sheets: photos next to renders and difference images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.io.images import read_image, write_image
from vision3d.report.canvas import FAINT, Canvas, fitted, text_width

ERROR_TOP = 0.25
"""Difference that is shown in the brightest color, relative to the range of the image."""

MAX = 24
"""Maximum number of views on a sheet."""

# Colors at 0, 1/4, .. 1 of the error ramp: black, violet, red, orange, pale yellow.
_RAMP = ((0.0, 0.0, 0.0), (0.27, 0.06, 0.42), (0.71, 0.16, 0.32), (0.96, 0.51, 0.11), (0.99, 1.0, 0.72))
_GAP, _TEXT, _LINE, _MARGIN = 4, 22, 17, 14

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Pair:
    """A photo and the render from its camera."""

    photo: Float[Tensor, "h w 3"]
    """In [0, 1]."""
    render: Float[Tensor, "h w 3"]
    """In [0, 1] (clamped)."""
    caption: str = ""
    """For example name and metrics."""


def error_to_rgb(
    photo: Float[Tensor, "h w 3"], render: Float[Tensor, "h w 3"], top: float = ERROR_TOP
) -> Float[Tensor, "h w 3"]:
    """Colors for the mean absolute difference over the channels: black for none, pale yellow from `top` on.

    Raises:
        ShapeError: The images differ in size.
    """
    if photo.shape != render.shape:
        raise ShapeError("render", render.shape, photo.shape)
    place = ((photo - render.clamp(0, 1)).abs().mean(-1) / top).clamp(0, 1) * (len(_RAMP) - 1)
    ramp = photo.new_tensor(_RAMP)
    lower = place.floor().clamp(max=len(_RAMP) - 2)
    return torch.lerp(ramp[lower.long()], ramp[lower.long() + 1], (place - lower)[..., None])


def spread(items: Sequence[ItemT], most: int = MAX) -> list[ItemT]:
    """All items, or every N-th if there are more than `most`."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]


def contact_sheet(
    pairs: Sequence[Pair], *, title: str = "", subtitle: str = "", cell: int = 256, most: int = MAX
) -> Float[Tensor, "h w 3"]:
    """A sheet of photo, render and difference for each view, in one column or two.

    Args:
        pairs: The views; sizes may differ.
        title: Large title.
        subtitle: Line below it.
        cell: Longest side of an image on the sheet [px]; smaller ones are not scaled.
        most: Maximum number of views; of more, every N-th is shown.

    Raises:
        InputError: No pairs.

    Example:
        >>> write_image("sheet.png", contact_sheet([Pair(photo, render, "003.jpg  28.1 dB")], title="Fox"))
    """
    if not pairs:
        raise InputError("pairs: got none, want at least one")
    chosen = spread(pairs, most)
    rows = [[fitted(image, cell, cell) for image in (p.photo, p.render, error_to_rgb(p.photo, p.render))] for p in chosen]
    width = max(image.shape[1] for row in rows for image in row)
    height = max(image.shape[0] for row in rows for image in row)
    num_columns = 2 if len(chosen) > 4 else 1
    num_rows = -(-len(chosen) // num_columns)
    strip, line = 3 * width + 2 * _GAP, height + _TEXT + _GAP
    head = _MARGIN + (34 if title else 0) + (24 if subtitle else 0)
    total = 2 * _MARGIN + num_columns * strip + (num_columns - 1) * 2 * _MARGIN
    canvas = Canvas(total, head + _TEXT + num_rows * line + _MARGIN)
    room = total - 2 * _MARGIN
    if title:
        canvas.text(_MARGIN, _MARGIN, title, 22, room=room)
    if subtitle:
        canvas.text(_MARGIN, head - 24, subtitle, 14, FAINT, room=room)
    for column in range(num_columns):
        left = _MARGIN + column * (strip + 2 * _MARGIN)
        for i, heading in enumerate(("photograph", "render", f"difference, 0 to {ERROR_TOP:g}")):
            canvas.text(left + i * (width + _GAP), head + 2, heading, 13, FAINT, room=width)
        for row in range(num_rows):
            index = column * num_rows + row
            if index >= len(chosen):
                break
            top = head + _TEXT + row * line
            for i, image in enumerate(rows[index]):
                canvas.paste(image, left + i * (width + _GAP) + (width - image.shape[1]) // 2, top)
            canvas.text(left, top + height + 3, chosen[index].caption, 13, room=strip)
    return canvas.image()


def frame_sheet(
    images: Sequence[Float[Tensor, "h w 3"]], captions: Sequence[str], *, lines: int = 1
) -> Float[Tensor, "h2 w2 3"]:
    """Images of the same size in rows of up to four, each with a caption below.

    Args:
        images: The images.
        captions: Of each image.
        lines: Maximum number of lines of a caption, broken at spaces; the last one is truncated.

    Raises:
        InputError: No images.
    """
    if not images:
        raise InputError("frame_sheet: got no images, want at least one")
    columns = min(4, len(images))
    height, width = images[0].shape[:2]
    wrapped = [broken(caption, width, lines) for caption in captions]
    below = _TEXT + _LINE * (max(map(len, wrapped)) - 1)
    canvas = Canvas(columns * (width + _GAP), -(-len(images) // columns) * (height + below))
    for place, (image, rows) in enumerate(zip(images, wrapped)):
        x, y = place % columns * (width + _GAP), place // columns * (height + below)
        canvas.paste(image, x, y)
        for row, text in enumerate(rows):
            canvas.text(x + 2, y + height + 3 + _LINE * row, text, 13, FAINT, room=width)
    return canvas.image()


def broken(text: str, room: int, lines: int) -> list[str]:
    """A text in up to `lines` lines of `room` pixels; what does not fit stays in the last one."""
    words = text.split(" ")
    found: list[str] = []
    while words and len(found) < lines - 1:
        count = 1
        while count < len(words) and text_width(" ".join(words[: count + 1])) <= room:
            count += 1
        found.append(" ".join(words[:count]))
        words = words[count:]
    return [*found, " ".join(words)] if words or not found else found


def read_pairs(folder: Path | str, captions: Mapping[str, str] | None = None) -> list[Pair]:
    """The pairs written by an evaluation: images with the photo in the left half and the render in the right.

    Args:
        folder: The folder of the images.
        captions: Caption of each file to read; None: all .png, with their names.

    Raises:
        InputError: No images, or one is missing.
    """
    if captions is None:
        captions = {path.name: path.stem for path in sorted(Path(folder).glob("*.png"))}
    if not captions:
        raise InputError(f"{folder}: got no .png files, want at least one")
    pairs = []
    for name, caption in captions.items():
        image = read_image(Path(folder) / name, background=(1.0, 1.0, 1.0))
        half = image.shape[1] // 2
        pairs.append(Pair(image[:, :half], image[:, half : 2 * half], caption))
    return pairs


def write_contact_sheet(
    path: Path | str, pairs: Sequence[Pair], *, title: str = "", subtitle: str = "", cell: int = 256
) -> None:
    """Write a `contact_sheet` as an image file, atomically."""
    write_image(path, contact_sheet(pairs, title=title, subtitle=subtitle, cell=cell))
