"""Errors of a network on crops with a known truth."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.hand.data.batches import targets_of, turned
from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.data.samples import HandBatch
from vision3d.stages.hand.detections import square_of
from vision3d.stages.hand.evaluation.metrics import hand_errors
from vision3d.stages.hand.network.hand_net import HandNet

CROP_PX = 224
"""Side of the crop in which errors in pixels are given."""


@torch.no_grad()
def crop_errors(network: HandNet, samples: ImageSamples[HandBatch], batch_size: int = 32) -> dict[str, float]:
    """Means over images: PA-MPJPE, PA-MPVPE, MPJPE [mm], F-scores, and the error of 2D joints inside [px of 224].

    Images are turned by the truth so that the fingers point up if the network wants them so.

    Args:
        network: In evaluation mode.
        samples: The images.
        batch_size: Images at a time.
    """
    device = next(network.parameters()).device
    parts: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(samples)).split(batch_size):
        batch = samples.take(rows)
        images = batch.images.permute(0, 3, 1, 2).float() / 255
        if network.config.upright:
            images, batch = upright(images, batch)
        outputs = network(images.to(device)).rooted()
        targets = targets_of(batch, images.shape[-1])
        errors = hand_errors(outputs.joints.cpu(), targets.joints, outputs.vertices.cpu(), targets.vertices)
        off = CROP_PX * torch.linalg.vector_norm(outputs.uv.cpu() - targets.uv, dim=-1)
        found = {
            "pa_mpjpe_mm": errors.pa_mpjpe, "pa_mpvpe_mm": errors.pa_mpvpe, "mpjpe_mm": errors.mpjpe, "f5": errors.f5,
            "f15": errors.f15, "uv_px": off[targets.in_crop],
        }  # fmt: skip
        for name, values in found.items():
            parts.setdefault(name, []).append(values.double())
    return {name: round(float(torch.cat(values).mean()), 4) for name, values in parts.items()}


def upright(images: Float[Tensor, "n 3 s s"], batch: HandBatch) -> tuple[Float[Tensor, "n 3 s s"], HandBatch]:
    """Images turned about their principal points, by the truth, so that the fingers point up."""
    still = torch.ones(len(images))
    return turned(images, batch, square_of(batch.uvs).angles, still, torch.zeros(len(images), 2))
