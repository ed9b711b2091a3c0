"""Digits on backgrounds and with noise not seen in training, and the range of input values."""

import pytest
import torch
from torch.nn import functional

from tests.support.digits import drawn_digits
from vision3d.core.errors import ConfigError, InputError, ShapeError
from vision3d.stages.equivariant import AffnistConfig, ModelConfig, load_classifier
from vision3d.stages.equivariant.canonical import moments
from vision3d.stages.equivariant.foreground import MAX_GRAY, foreground, prepared, with_background


@pytest.fixture(scope="module")
def digits():
    drawn = drawn_digits(100)
    return functional.pad(drawn.images, (6,) * 4), drawn.labels


def over(images, background):
    return background + (1 - background) * images


def slope(images):
    return over(images, torch.linspace(0, 0.4, images.shape[-1]))


def salt_and_pepper(images):
    chance = torch.rand_like(images)
    return torch.where(chance < 0.02, 0, torch.where(chance > 0.98, 1, images))


def vignette(images):
    along = torch.linspace(-1, 1, images.shape[-1]).square()
    return over(images, 0.3 * (1 - (along[:, None] + along) / 2))


BACKGROUNDS = {
    "black": lambda x: x,
    "gray 0.05": lambda x: over(x, 0.05),
    "gray 0.3": lambda x: over(x, 0.3),
    "noise 0.05": lambda x: (x + 0.05 * torch.randn_like(x)).clamp(0, 1),
    "noise 0.1": lambda x: (x + 0.1 * torch.randn_like(x)).clamp(0, 1),
    "gray and noise": lambda x: (over(x, 0.05) + 0.05 * torch.randn_like(x)).clamp(0, 1),
    "slope": slope,
    "vignette": vignette,
    "salt and pepper": salt_and_pepper,
    "low contrast": lambda x: 0.2 + 0.4 * x,
}


@pytest.mark.parametrize("name", list(BACKGROUNDS))
def test_the_bundled_classifier_handles_backgrounds(digits, name):
    images, labels = digits
    classifier = load_classifier()
    right = (classifier.predict(images) == labels).float().mean()
    seen = (classifier.predict(BACKGROUNDS[name](images)) == labels).float().mean()
    assert right > 0.75, "drawn digits differ from its training set"
    assert seen >= right - 0.03


@pytest.mark.parametrize("name", ["gray 0.05", "gray 0.3", "slope", "vignette", "low contrast"])
def test_a_smooth_background_does_not_change_the_moments(digits, name):
    images, _ = digits
    (centers, second), (others, other_second) = (moments(foreground(x)) for x in (images, BACKGROUNDS[name](images)))
    assert float((centers - others).norm(dim=-1).quantile(0.95)) < 0.4
    assert float(((second - other_second).flatten(1).norm(dim=1) / second.flatten(1).norm(dim=1)).quantile(0.95)) < 0.1


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_uniform_images_become_empty(level):
    assert torch.equal(foreground(torch.full((2, 28, 40), level)), torch.zeros(2, 28, 40))


def test_a_stroke_is_kept_and_a_single_bright_pixel_removed():
    image = torch.zeros(1, 28, 28)
    image[0, 5:23, 12:15] = 0.8
    image[0, 3, 3] = 1.0
    found = foreground(image)
    assert torch.equal(found[0, 6:22, 12:15], torch.ones(16, 3))
    assert found[0, 3, 3] == 0 and found[0, :, :10].sum() == 0


def test_backgrounds_of_the_training():
    images = torch.rand(400, 12, 12).round()
    assert torch.equal(with_background(images, 0.0), images)
    noisy = with_background(images, 0.5)
    share = float((noisy != images).flatten(1).any(1).float().mean())
    assert 0.4 < share < 0.6
    assert noisy.min() >= 0 and noisy.max() <= 1
    levels = with_background(torch.zeros(400, 12, 12), 1.0).flatten(1).mean(1)
    assert 0.1 < float(levels.mean()) < 0.25 and float(levels.max()) < MAX_GRAY + 0.1


def test_a_model_for_black_backgrounds_uses_images_unchanged():
    images = torch.rand(2, 28, 28)
    assert torch.equal(prepared(images, ModelConfig(background="black")), images)


@pytest.mark.parametrize(
    ("images", "error", "text"),
    [
        (
            255 * torch.rand(2, 28, 28),
            InputError,
            r"values from .* to 25.*; want 0 \(black\) to 1 \(white\), all finite",
        ),
        (torch.rand(2, 28, 28) - 0.5, InputError, "images: values from -0.*; want 0"),
        (torch.full((2, 28, 28), torch.nan), InputError, "images: values from nan to nan; want 0"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), ShapeError, r"images: got torch.uint8, want .*; divide bytes by 255"),
    ],
)
@pytest.mark.wrong_types
def test_the_range_of_images_is_checked(images, error, text):
    with pytest.raises(error, match=text):
        load_classifier().predict(images)


def test_the_fraction_of_backgrounds_is_checked():
    with pytest.raises(ConfigError, match=r"backgrounds: got 2, want a number in \[0, 1\]"):
        AffnistConfig(backgrounds=2)
