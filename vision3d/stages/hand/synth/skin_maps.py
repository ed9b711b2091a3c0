"""Maps in the texture of the hand: where nails, creases, veins and redness are, to color any skin with."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.vectors import unit
from vision3d.render.meshes import interpolate, rasterize
from vision3d.stages.hand.template import HandTemplate

NAMES = ("nail", "knuckle", "crease", "vein", "palm", "red", "fine", "coarse")
SIZE = 256


@functools.cache
def skin_maps() -> Float[Tensor, "256 256 8"]:
    """A map of each of `NAMES`, in [0, 1]; the last two are noise in [-1, 1]."""
    hand = HandTemplate.load("right")
    places, normals, inside = _surface(hand)
    palmar = normals[..., 2]
    maps = torch.zeros(SIZE, SIZE, len(NAMES))
    keypoints = hand.keypoints
    for finger in range(5):
        joints = keypoints[1 + 4 * finger : 5 + 4 * finger]
        last = unit(joints[3] - joints[2])
        along = ((places - joints[2]) * last).sum(-1) / torch.linalg.vector_norm(joints[3] - joints[2])
        dorsal = _dorsal(hand, finger)
        facing = (normals * dorsal).sum(-1)
        near = torch.linalg.vector_norm(places - (joints[2] + joints[3]) / 2, dim=-1) < 0.022
        maps[..., 0] = torch.maximum(
            maps[..., 0], torch.sigmoid((along - 0.42) * 40) * torch.sigmoid((facing - 0.62) * 18) * near
        )
        for joint in joints[1:3]:
            offset = places - joint
            close = torch.exp(-(offset.square().sum(-1)) / (2 * 0.009**2))
            stripes = 0.5 + 0.5 * torch.sin((offset * last).sum(-1) * 2600)
            maps[..., 1] = torch.maximum(maps[..., 1], close * stripes * torch.sigmoid((facing - 0.2) * 10))
            line = torch.exp(-((offset * last).sum(-1) ** 2) / (2 * 0.0009**2))
            maps[..., 2] = torch.maximum(maps[..., 2], close * line * torch.sigmoid((-facing - 0.2) * 10))
            maps[..., 5] = torch.maximum(maps[..., 5], close)
        maps[..., 5] = torch.maximum(maps[..., 5], torch.exp(-(places - joints[3]).square().sum(-1) / (2 * 0.010**2)))
    noise = _noise(3)
    is_back = torch.sigmoid((-palmar - 0.3) * 8) * (places[..., 1] < keypoints[9, 1] + 0.01)
    maps[..., 3] = is_back * torch.exp(-((noise[..., 0] / 0.12) ** 2))
    bent = places[..., 1] + 0.010 * noise[..., 1]
    lines = sum(torch.exp(-((bent - height) ** 2) / (2 * 0.0011**2)) for height in (0.042, 0.063, 0.078))
    is_palm = torch.sigmoid((palmar - 0.3) * 8)
    maps[..., 2] = torch.maximum(maps[..., 2], lines * is_palm * (places[..., 1] < keypoints[9, 1]))
    maps[..., 4] = is_palm
    maps[..., 6], maps[..., 7] = _noise(5)[..., 0], noise[..., 2]
    return _filled(maps, inside)


def _dorsal(hand: HandTemplate, finger: int) -> Tensor:
    """Direction away from the pad of a finger: flexion turns the bone towards the pad."""
    joints = hand.keypoints[1 + 4 * finger : 5 + 4 * finger]
    return -torch.linalg.cross(hand.axes[3 + 3 * finger, 0], unit(joints[3] - joints[2]))


def _surface(hand: HandTemplate) -> tuple[Tensor, Tensor, Tensor]:
    """Position and normal at rest of each texel, and whether it belongs to the hand."""
    corners = hand.faces.flatten()
    normals = vertex_normals(hand.vertices, hand.faces)
    uvs = hand.uvs.reshape(-1, 2) * SIZE
    positions = torch.cat([uvs, torch.ones(len(uvs), 2)], 1)[None]
    faces = torch.arange(len(uvs)).view(-1, 3)
    found = rasterize(positions, faces, SIZE, SIZE)
    values = interpolate(torch.cat([hand.vertices, normals], 1)[corners], faces, found)[0]
    return values[..., :3], unit(values[..., 3:]), found.face_ids[0] >= 0


def _noise(octaves: int) -> Float[Tensor, "256 256 3"]:
    """Smooth noise of standard deviation about 0.4, from coarse to fine."""
    generator = torch.Generator().manual_seed(7 + octaves)
    total = torch.zeros(1, 3, SIZE, SIZE)
    for octave in range(octaves):
        cells = 6 * 2**octave
        grid = torch.randn(1, 3, cells, cells, generator=generator)
        total += torch.nn.functional.interpolate(grid, (SIZE, SIZE), mode="bicubic") * 0.7**octave
    return (total / total.std() * 0.4)[0].permute(1, 2, 0)


def _filled(maps: Tensor, inside: Tensor) -> Tensor:
    """Texels outside of the hand take the mean of their neighbors inside, so that filtering does not mix in zeros."""
    weight = inside.float()[None, None]
    values = maps.permute(2, 0, 1)[None] * weight
    for _ in range(6):
        around = torch.nn.functional.avg_pool2d(weight, 3, 1, 1) * 9
        mean = torch.nn.functional.avg_pool2d(values, 3, 1, 1) * 9 / around.clamp(min=1)
        values = torch.where(weight > 0, values, mean)
        weight = torch.maximum(weight, (around > 0).float())
    return values[0].permute(1, 2, 0).contiguous()
