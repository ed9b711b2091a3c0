"""Images with text, drawn with PIL and its built-in font."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene.resample import resize_area

Color = tuple[int, int, int]

PAPER: Color = (255, 255, 255)
INK: Color = (25, 28, 35)
FAINT: Color = (110, 116, 128)
LINE: Color = (215, 219, 226)


class Canvas:
    """A white image to paste images, lines and text on.

    Args:
        width: [px].
        height: [px].
    """

    def __init__(self, width: int, height: int) -> None:
        from PIL import Image, ImageDraw

        self.pil_image = Image.new("RGB", (width, height), PAPER)
        self.draw = ImageDraw.Draw(self.pil_image)

    def paste(self, image: Float[Tensor, "h w 3"], x: int, y: int) -> None:
        """Paste an image with its upper left corner at (x, y)."""
        from PIL import Image

        values = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
        self.pil_image.paste(Image.fromarray(values.numpy()), (x, y))

    def text(
        self, x: float, y: float, words: str, size: int = 13, color: Color = INK, anchor: str = "la", room: int = 0
    ) -> None:
        """Write text at (x, y), placed by `anchor`: l, m, r horizontally and a, m, s vertically; truncated to `room` pixels."""
        if room and text_width(words, size) > room:
            while words and text_width(words + "…", size) > room:
                words = words[:-1]
            words += "…"
        self.draw.text((x, y), words, fill=color, font=_font(size), anchor=anchor)

    def image(self) -> Float[Tensor, "h w 3"]:
        """The canvas as an image in [0, 1]."""
        return torch.from_numpy(np.asarray(self.pil_image).astype(np.float32) / 255)


def text_width(words: str, size: int = 13) -> float:
    """Width of a text [px]."""
    return _font(size).getlength(words)


def fitted(image: Float[Tensor, "h w 3"], width: int, height: int) -> Float[Tensor, "h2 w2 3"]:
    """The image, downscaled if it is larger than a cell; its aspect ratio is kept."""
    rows, columns = image.shape[:2]
    factor = min(width / columns, height / rows, 1.0)
    if factor == 1:
        return image
    return resize_area(image, max(1, round(factor * columns)), max(1, round(factor * rows)))


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)
