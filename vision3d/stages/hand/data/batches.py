"""Batches of crops with their targets, changed at random each time they are seen."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vision3d.geometry.rotation import so3_exp
from vision3d.stages.hand.config import AugmentConfig
from vision3d.stages.hand.data.samples import HandBatch
from vision3d.stages.hand.detections import square_of
from vision3d.stages.hand.joints import ROOT
from vision3d.stages.hand.losses import HandTargets


def training_batch(
    batch: HandBatch, config: AugmentConfig, generator: torch.Generator, upright: bool = False
) -> tuple[Float[Tensor, "n 3 s s"], HandTargets]:
    """Changed images in [0, 1] and what the network shall predict from them.

    Args:
        batch: Images and their truth.
        config: Changes.
        generator: Random numbers, on the CPU.
        upright: Turn the images first so that the fingers point up.
    """
    count, size = len(batch.images), batch.images.shape[1]

    def uniform(most: float, *shape: int) -> Tensor:
        return most * (2 * torch.rand(count, *shape, generator=generator) - 1)

    images = batch.images.permute(0, 3, 1, 2).float() / 255
    first = square_of(batch.uvs).angles if upright else torch.zeros(count)
    angle, zoom, shift = first + uniform(math.radians(config.rotation)), uniform(config.zoom).exp(), uniform(config.shift, 2)
    images, changed = turned(images, batch, angle, zoom, size * shift)
    images = _hues_turned(images, uniform(math.radians(config.hue))).clamp(0, 1) ** uniform(config.gamma, 1, 1, 1).exp()
    images = images * (1 + uniform(config.color, 1, 1, 1)) * (1 + uniform(config.color / 3, 3, 1, 1))
    images = 0.5 + (images - 0.5) * (1 + uniform(config.color, 1, 1, 1))
    is_gray = torch.rand(count, 1, 1, 1, generator=generator) < config.gray
    images = torch.where(is_gray, images.mean(1, keepdim=True), images)
    images, targets = _covered(images, config.cover, generator).clamp(0, 1), targets_of(changed, size)
    is_left = torch.rand(count, generator=generator) < config.mirror
    images = torch.where(is_left[:, None, None, None], images.flip(3), images)
    return images, replace(targets, in_crop=targets.in_crop & ~is_left[:, None], is_right=~is_left)


def targets_of(batch: HandBatch, size: int) -> HandTargets:
    """What the network shall predict of images of this side [px]."""
    uv = batch.uvs / size
    root = batch.joints[:, ROOT]
    Ks = batch.Ks.clone()
    Ks[:, :2] /= size
    return HandTargets(
        uv, ((uv >= 0) & (uv <= 1)).all(-1), batch.joints - root[:, None], batch.vertices - root[:, None],
        is_hand=batch.is_hand, root=root, Ks=Ks,
    )  # fmt: skip


def turned(
    images: Float[Tensor, "n 3 s s"],
    batch: HandBatch,
    angle: Float[Tensor, " n"],
    zoom: Float[Tensor, " n"],
    shift: Float[Tensor, "n 2"],
) -> tuple[Float[Tensor, "n 3 s s"], HandBatch]:
    """Images of cameras that are turned about their axes, with another focal length and principal point; exact in 3D.

    Args:
        images: In [0, 1].
        batch: Their truth.
        angle: From right to down [rad].
        zoom: Factor of the focal length.
        shift: Of the principal point [px].
    """
    size = images.shape[-1]
    zero = torch.zeros_like(angle)
    rotation = so3_exp(torch.stack([zero, zero, angle], 1))
    center = batch.Ks[:, :2, 2]
    moved = center + shift
    # To each pixel of the result the one of the image: about the principal points.
    back = rotation[:, :2, :2].mT / zoom[:, None, None]
    offset = center - (back @ moved[..., None])[..., 0]
    scale = 2 / size  # from pixels with centers at half-integers to [-1, 1]
    matrix = torch.cat([back, (scale * (offset + (back * (size / 2)).sum(-1)) - 1)[..., None]], -1)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    changed = functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    Ks = batch.Ks.clone()
    Ks[:, :2, :2] *= zoom[:, None, None]
    Ks[:, :2, 2] = moved
    joints, vertices = (points @ rotation.mT for points in (batch.joints, batch.vertices))
    projected = joints @ Ks.mT
    return changed, batch._replace(Ks=Ks, uvs=projected[..., :2] / projected[..., 2:], joints=joints, vertices=vertices)


def _hues_turned(images: Float[Tensor, "n 3 s s"], angle: Float[Tensor, " n"]) -> Tensor:
    """Colors turned about the axis of grays [rad]."""
    axis = torch.full((3,), 3**-0.5)
    return torch.einsum("nij,njhw->nihw", so3_exp(angle[:, None] * axis), images)


def _covered(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A rectangle over some images, half of them of one color, half with what the next image shows there."""
    count, _, height, width = images.shape
    low = torch.rand(count, 2, generator=generator)
    high = low + 0.1 + 0.25 * torch.rand(count, 2, generator=generator)
    y, x = torch.arange(height) / height, torch.arange(width) / width
    inside_y = (y >= low[:, :1]) & (y < high[:, :1])
    inside_x = (x >= low[:, 1:]) & (x < high[:, 1:])
    is_covered = torch.rand(count, generator=generator) < share
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :] & is_covered[:, None, None, None]
    is_plain = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    cover = torch.where(is_plain, torch.rand(count, 3, 1, 1, generator=generator), images.roll(1, 0))
    return torch.where(inside, cover, images)
