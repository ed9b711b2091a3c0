"""Check whether a mesh covers the masks of images before fitting."""

import logging

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.optim import metrics
from vision3d.render.meshes import rasterize, screen_positions
from vision3d.scene import Cameras, Mesh

logger = logging.getLogger("vision3d.animate")

LIKE = 0.9
"""Minimum IoU of the mesh and the masks for a match."""


def covered_pixels(mesh: Mesh, camera: Cameras) -> Bool[Tensor, "h w"]:
    """The pixels of a camera that show the mesh."""
    camera = camera.to(mesh.device)
    positions = screen_positions(mesh.vertices, camera.viewmats.to(mesh.vertices), camera.Ks.to(mesh.vertices), camera.model)
    return (rasterize(positions, mesh.faces, int(camera.width), int(camera.height)).face_ids >= 0)[0].cpu()


@torch.no_grad()
def cover(mesh: Mesh, cameras: Cameras, masks: Bool[Tensor, "c h w"]) -> float:
    """IoU of a mesh and the masks of its images, all of the same size."""
    covered = torch.stack([covered_pixels(mesh, cameras[view]) for view in range(len(cameras))])
    return metrics.mask_iou(covered, masks.cpu())


@torch.no_grad()
def warn_of_cover(mesh: Mesh, cameras: Cameras, masks: Bool[Tensor, "c h w"], what: str, want: str) -> None:
    """Warn if a mesh does not match the masks of its images.

    Args:
        mesh: In the pose of the images.
        cameras: Cameras of the images, all of the same size.
        masks: Masks of the object.
        what: Name of the mask, for the warning.
        want: Possible causes and fixes, for the warning.
    """
    iou = cover(mesh, cameras, masks)
    if iou < LIKE:
        logger.warning("the mesh does not cover the mask of %s (IoU %.2f): %s", what, iou, want)
