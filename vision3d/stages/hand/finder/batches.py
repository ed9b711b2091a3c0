"""Batches of whole images with what the finder shall predict, changed at random each time they are seen."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vision3d.stages.hand.finder.scenes import SceneBatch
from vision3d.stages.hand.finder.targets import FinderTargets, targets_of

_TURN = math.radians(40)
_ZOOM = (0.55, 1.6)
_COLOR, _GRAY = 0.3, 0.08


def training_batch(batch: SceneBatch, generator: torch.Generator) -> tuple[Float[Tensor, "n 3 s s"], FinderTargets]:
    """Mirrored, turned, zoomed, shifted and recolored images in [0, 1], black outside, and their targets.

    Args:
        batch: Images and their truth.
        generator: Random numbers, on the CPU.
    """
    count, size = len(batch.images), batch.images.shape[1]

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    images = batch.images.permute(0, 3, 1, 2).float() / 255
    zoom = torch.exp(math.log(_ZOOM[0]) + rand() * math.log(_ZOOM[1] / _ZOOM[0]))
    angle = _TURN * (2 * rand() - 1) * (rand() < 0.7)
    mirror = torch.where(rand() < 0.5, -1.0, 1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    # x -> turned (mirrored x) about the middle, then shifted, such that most of the image stays.
    linear = torch.stack([torch.stack([cos * mirror, -sin], -1), torch.stack([sin * mirror, cos], -1)], -2)
    shift = (rand(2) - 0.5) * (0.2 + (1 - zoom).abs())[:, None]
    images = _moved(images, linear, shift)
    middle = size / 2
    uvs = torch.einsum("nij,nkpj->nkpi", linear, batch.uvs - middle) + middle + size * shift[:, None, None]
    is_right = batch.is_right ^ (mirror < 0)[:, None]
    inside = ((uvs >= 0) & (uvs < size)).all(-1).float().mean(-1) >= 0.5
    state = torch.where((batch.state == 1) & ~inside, 2, batch.state)
    images = images * (1 + _COLOR * (2 * rand(1, 1, 1) - 1)) * (1 + _COLOR / 3 * (2 * rand(3, 1, 1) - 1))
    images = 0.5 + (images - 0.5) * (1 + _COLOR * (2 * rand(1, 1, 1) - 1))
    images = torch.where(rand(1, 1, 1) < _GRAY, images.mean(1, keepdim=True), images)
    return images.clamp(0, 1), targets_of(uvs, is_right, state, size)


def _moved(images: Float[Tensor, "n 3 s s"], linear: Float[Tensor, "n 2 2"], shift: Float[Tensor, "n 2"]) -> Tensor:
    """Images whose pixel x, relative to the middle and in image sides, comes to linear x + shift."""
    back = torch.linalg.inv(linear)
    offset = -(back @ (2 * shift)[..., None])
    grid = functional.affine_grid(torch.cat([back, offset], -1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
