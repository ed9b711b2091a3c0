"""Hands drawn over the image: mesh and joints."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vision3d.geometry.mesh import vertex_normals
from vision3d.render.meshes import interpolate, rasterize, screen_positions
from vision3d.stages.hand.joints import PARENTS
from vision3d.stages.hand.predict.result import HandResult

_COLORS = ((235, 64, 52), (245, 170, 30), (70, 180, 75), (40, 150, 235), (155, 80, 220))
"""Of thumb to little finger."""
_MESH = {"right": (0.35, 0.62, 0.95), "left": (0.95, 0.62, 0.35)}
_OPACITY = 0.55


def overlay(image: UInt8[Tensor, "h w 3"], hands: Sequence[HandResult], *, mesh: bool = True) -> UInt8[Tensor, "h w 3"]:
    """The image with the hands over it; right ones blue, left ones orange.

    Args:
        image: sRGB.
        hands: Of this image.
        mesh: Draw their surfaces as well.
    """
    from PIL import Image, ImageDraw

    pixels = _with_meshes(image, hands) if mesh and hands else image
    picture = Image.fromarray(pixels.numpy())
    draw = ImageDraw.Draw(picture)
    for hand in hands:
        _draw_joints(draw, hand)
    return torch.from_numpy(np.array(picture))


def _draw_joints(draw, hand: HandResult) -> None:
    size = max(hand.box[2:])
    width, radius = max(1, round(size / 70)), max(1.0, size / 55)
    spots = [(x - 0.5, y - 0.5) for x, y in hand.joints_2d.tolist()]  # PIL has pixel centers at integers
    if not bool(hand.joints_2d.isfinite().all()) or max(map(abs, sum(spots, ()))) > 1e5:
        return
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            draw.line((*spots[parent], *spots[joint]), fill=_COLORS[(joint - 1) // 4], width=width)
    for joint, (x, y) in enumerate(spots):
        color = (255, 255, 255) if joint == 0 else _COLORS[(joint - 1) // 4]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color, outline=(20, 20, 20))


def _with_meshes(image: Tensor, hands: Sequence[HandResult]) -> Tensor:
    height, width = image.shape[:2]
    vertices = torch.cat([hand.vertices for hand in hands])
    faces = torch.cat([hand.template.faces + row * len(hand.vertices) for row, hand in enumerate(hands)])
    colors = torch.cat([torch.tensor(_MESH[hand.side]).expand(len(hand.vertices), 3) for hand in hands])
    lit = -vertex_normals(vertices, faces)[:, 2:]  # by a lamp at the camera
    positions = screen_positions(vertices, torch.eye(4)[None], hands[0].K[None])
    found = rasterize(positions, faces, width, height)
    covered = found.face_ids[0] >= 0
    if not bool(covered.any()):
        return image
    values = interpolate(torch.cat([colors, lit], 1)[None], faces, found)[0][covered]
    shade = values[:, :3] * (0.35 + 0.65 * values[:, 3:].clamp(0, 1))
    pixels = image.clone()
    pixels[covered] = (pixels[covered] * (1 - _OPACITY) + 255 * _OPACITY * shade).round().clamp(0, 255).byte()
    return pixels
