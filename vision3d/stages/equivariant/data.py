"""Training digits, and test digits that are never trained on."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.io.digits import Digits, read_digits, split_digits
from vision3d.stages.equivariant.config import AffnistConfig
from vision3d.stages.equivariant.warps import FRAME, WarpedDigits, affnist_like, homnist_like, pad_to_frame


@dataclass(frozen=True)
class TestSet:
    """Warped images for evaluation, generated or read."""

    digits: WarpedDigits | Digits
    is_generated: bool
    description: str

    def __len__(self) -> int:
        return len(self.digits)

    def batch(self, rows: slice) -> tuple[Float32[Tensor, "m h w"], Int64[Tensor, " m"]]:
        """Images and labels."""
        if isinstance(self.digits, WarpedDigits):
            return self.digits.batch(rows)
        return self.digits.images[rows], self.digits.labels[rows]


@dataclass(frozen=True)
class DigitData:
    """The data of a run. All images are FRAME x FRAME."""

    train: Digits
    """Upright and centered in the frame."""
    centred: Digits
    """Held out, upright."""
    test: TestSet
    """Warped copies of the held-out digits, or a given data set."""


def load_data(path: Path | str, config: AffnistConfig, test: Path | str | None = None) -> DigitData:
    """Read, split and pad the digits, and prepare the test set.

    Args:
        path: As for `vision3d.io.digits.read_digits`.
        config: Number of held-out digits, and kind of warps.
        test: A file of affNIST (.mat) to evaluate on instead; then `path` must not contain its source digits.

    Raises:
        InputError: The images do not fit into the frame, or there are too few.
    """
    digits = read_digits(path)
    if digits.transforms is not None:
        raise InputError(f"{path}: holds warped digits of affNIST; want upright ones for training, and this file as --test")
    train, held_out = split_digits(digits, config.test_digits, config.seed)
    if len(train) < config.batch_size:
        raise InputError(f"{path}: {len(train)} training digits, fewer than a batch of {config.batch_size}")
    make = affnist_like if config.warps == "affine" else homnist_like
    if test is None:
        warped = make(held_out, config.copies)
        images: WarpedDigits | Digits = warped
        description, is_generated = warped.description, True
    else:
        images = read_digits(test)
        if images.images.shape[-1] != FRAME:
            side = images.images.shape[-1]
            raise InputError(f"{test}: images of {side} x {side}; want {FRAME} x {FRAME}, as affNIST has them")
        description, is_generated = f"read from {images.source}", False
    return DigitData(_framed(train), _framed(held_out), TestSet(images, is_generated, description))


def epoch_order(count: int, epoch: int, seed: int) -> Int64[Tensor, " n"]:
    """The order of the digits in an epoch, independent of interruptions."""
    return torch.randperm(count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))


def unpadded(digits: Digits, side: int = 28) -> Digits:
    """The center of images made by `pad_to_frame`."""
    border = (digits.images.shape[-1] - side) // 2
    inner = slice(border, border + side)
    return Digits(digits.images[:, inner, inner], digits.labels, digits.source)


def _framed(digits: Digits) -> Digits:
    return Digits(pad_to_frame(digits.images), digits.labels, digits.source)
