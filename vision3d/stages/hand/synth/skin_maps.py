"""Maps in the texture of the hand: where nails, creases, veins and redness are, to color any skin with, and its relief."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.vectors import unit
from vision3d.render.meshes import interpolate, rasterize
from vision3d.stages.hand.template import HandTemplate

NAMES = ("nail", "rim", "knuckle", "crease", "vein", "palm", "red", "fine", "coarse")
"""Nail plates and their outlines, folds over the joints of the back, lines of the palm side, veins, the palm side, redness."""
SIZE = 512
_PALM_LINES = (
    ((-41, 57), (-26, 66), (-9, 72), (7, 83)),
    ((27, 69), (10, 64), (-12, 54), (-29, 40)),
    ((26, 67), (13, 53), (6, 36), (6, 17), (11, 4)),
    ((-24, -4), (0, -6), (24, -4)),
    ((-22, 3), (0, 1), (22, 3)),
)
"""Lines of the palm: heart, head, life, and two of the wrist; x to the thumb, y to the fingers [mm]."""
_FOLDS = ((-0.0036, 0.0, 0.0036), (-0.0018, 0.0018))
"""Folds of the back of a finger's middle and last joint, along the finger [m]."""


@functools.cache
def skin_maps() -> Float[Tensor, "512 512 9"]:
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
        nail = torch.sigmoid((along - 0.42) * 60) * torch.sigmoid((facing - 0.62) * 28) * near
        maps[..., 0] = torch.maximum(maps[..., 0], nail)
        maps[..., 1] = torch.maximum(maps[..., 1], 4 * nail * (1 - nail))
        for number, joint in enumerate(joints[:3]):
            offset = places - joint
            close = torch.exp(-(offset.square().sum(-1)) / (2 * 0.009**2))
            shift = (offset * last).sum(-1)
            if number:
                folds = sum(torch.exp(-((shift - fold) ** 2) / (2 * 0.0008**2)) for fold in _FOLDS[number - 1])
                maps[..., 2] = torch.maximum(maps[..., 2], (close * folds * torch.sigmoid((facing - 0.2) * 10)).clamp(max=1))
                maps[..., 6] = torch.maximum(maps[..., 6], close)
            elif finger == 0:
                continue
            else:  # where the finger leaves the palm
                shift = shift - 0.024
                close = torch.exp(-(offset - 0.024 * last).square().sum(-1) / (2 * 0.009**2))
            line = torch.exp(-(shift**2) / (2 * 0.0010**2))
            maps[..., 3] = torch.maximum(maps[..., 3], close * line * torch.sigmoid((-facing - 0.2) * 10))
        maps[..., 6] = torch.maximum(maps[..., 6], torch.exp(-(places - joints[3]).square().sum(-1) / (2 * 0.010**2)))
    noise = _noise(3)
    is_back = torch.sigmoid((-palmar - 0.3) * 8) * (places[..., 1] < keypoints[9, 1] + 0.01)
    maps[..., 4] = is_back * torch.exp(-((noise[..., 0] / 0.12) ** 2))
    bent = places[..., :2] + 0.003 * noise[..., 1:]
    is_palm = torch.sigmoid((palmar - 0.3) * 8)
    for line in _PALM_LINES:
        distance = _distance(bent, torch.tensor(line) / 1000)
        maps[..., 3] = torch.maximum(maps[..., 3], is_palm * torch.exp(-(distance**2) / (2 * 0.0011**2)))
    maps[..., 5] = is_palm
    maps[..., 7], maps[..., 8] = _noise(5)[..., 0], noise[..., 2]
    return _filled(maps, inside)


@functools.cache
def relief_maps() -> Float[Tensor, "512 512 2"]:
    """How far the skin is raised [m]: by lines, folds and nails; by knuckles, tendons and veins."""
    hand = HandTemplate.load("right")
    places, normals, inside = _surface(hand)
    nail, rim, folds, lines, veins, _, _, fine, coarse = skin_maps().unbind(-1)
    sharp = 0.0004 * nail - 0.0007 * rim - 0.0008 * folds - 0.0009 * lines + 0.00012 * fine
    is_back = torch.sigmoid((-normals[..., 2] - 0.2) * 8)
    soft = 0.0005 * veins + 0.0002 * coarse
    for knuckle in hand.keypoints[[5, 9, 13, 17]]:
        bump = torch.exp(-(places - knuckle)[..., :2].square().sum(-1) / (2 * 0.0065**2))
        start = knuckle[:2] * torch.tensor([0.4, 0.1])
        tendon = torch.exp(-(_distance(places[..., :2], torch.stack([start, knuckle[:2]])) ** 2) / (2 * 0.0022**2))
        soft = soft + is_back * (0.0024 * bump + 0.0011 * tendon * (1 - bump))
    for finger in range(5):
        joint = hand.keypoints[2 + 4 * finger]
        back = torch.sigmoid(((normals * _dorsal(hand, finger)).sum(-1) - 0.1) * 10)
        soft = soft + 0.0010 * back * torch.exp(-(places - joint).square().sum(-1) / (2 * 0.007**2))
    return _filled(torch.stack([sharp, soft], -1), inside)


def _distance(points: Float[Tensor, "*batch 2"], corners: Float[Tensor, "n 2"]) -> Float[Tensor, "*batch"]:
    """Distance to a line with these corners."""
    starts, steps = corners[:-1], corners.diff(dim=0)
    offsets = points[..., None, :] - starts
    share = ((offsets * steps).sum(-1) / steps.square().sum(-1)).clamp(0, 1)
    return torch.linalg.vector_norm(offsets - share[..., None] * steps, dim=-1).amin(-1)


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


def _noise(octaves: int) -> Float[Tensor, "512 512 3"]:
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
