"""What hands wear and hold: sleeves, watches, rings, and simple or given objects."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry import shapes
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.vectors import unit
from vision3d.scene.mesh import Mesh

_AROUND = 16
_RINGED = ((1, 2), (5, 6), (9, 10), (13, 14), (17, 18))
"""Joints at both ends of the bones that wear rings."""


@dataclass(frozen=True, eq=False)
class Part:
    """A surface of a batch of hands; vertices that are NaN are not drawn."""

    vertices: Float[Tensor, "b v 3"]
    """In the camera's frame [m]."""
    faces: Int64[Tensor, "f 3"]
    colors: Float[Tensor, "b v 3"]
    """sRGB."""


def tube(
    start: Float[Tensor, "b 3"],
    end: Float[Tensor, "b 3"],
    across: Float[Tensor, "b 3"],
    radii: Float[Tensor, "b r 2"],
    color: Float[Tensor, "b 3"],
    thickness: float = 0.0,
) -> Part:
    """An open tube of elliptic rings.

    Args:
        start: Center of the first ring [m].
        end: Center of the last ring [m].
        across: Direction of the first half axis, roughly across the tube.
        radii: Half axes of each ring [m].
        color: sRGB.
        thickness: Of the wall at the ends, which are turned inwards [m].
    """
    along = unit(end - start)
    first = unit(across - (across * along).sum(-1, keepdim=True) * along)
    second = torch.linalg.cross(along, first)
    angle = torch.arange(_AROUND) * (2 * torch.pi / _AROUND)
    circle = torch.stack([angle.cos(), angle.sin()], 1).to(start)
    if thickness:  # an inner ring before the first and behind the last
        inner = radii[:, [0, -1]] - thickness
        radii = torch.cat([inner[:, :1], radii, inner[:, 1:]], 1)
    rings = radii.shape[1]
    share = torch.linspace(0, 1, rings - 2 if thickness else rings).to(start)
    if thickness:
        share = torch.cat([share[:1], share, share[-1:]])
    centers = start[:, None] + share[:, None] * (end - start)[:, None]
    offsets = radii[:, :, None] * circle
    points = centers[:, :, None] + offsets[..., :1] * first[:, None, None] + offsets[..., 1:] * second[:, None, None]
    row, column = torch.meshgrid(torch.arange(rings - 1), torch.arange(_AROUND), indexing="ij")
    a, b = row * _AROUND + column, row * _AROUND + (column + 1) % _AROUND
    faces = torch.stack([torch.stack([a, a + _AROUND, b], -1), torch.stack([b, a + _AROUND, b + _AROUND], -1)], -2).view(-1, 3)
    vertices = points.flatten(1, 2)
    return Part(vertices, faces, color[:, None].expand_as(vertices))


def sleeve(wrist: Tensor, rotmats: Tensor, scale: Tensor, generator: torch.Generator) -> Part:
    """A cuff somewhere on the forearm, and what is behind it.

    Args:
        wrist: (B, 3) position of the wrist in the camera's frame [m].
        rotmats: (B, 3, 3) from the template to the camera.
        scale: (B,) size of the hand.
        generator: Random numbers, on the CPU.
    """
    count = len(wrist)
    begin = 0.015 + 0.08 * torch.rand(count, generator=generator)
    at = torch.stack([begin, begin + 0.012, torch.full((count,), 0.14), torch.full((count,), 0.26)], 1)
    wide = 0.031 + 0.075 * (at - 0.01).clamp(0, 0.2)
    loose = 1.1 + 0.45 * torch.rand(count, 1, generator=generator)
    radii = torch.stack([wide * loose, 0.86 * wide * loose], -1) * scale[:, None, None]
    along, across = -rotmats[:, :, 1], rotmats[:, :, 0]
    color = cloth_color(count, generator)
    start, end = (wrist + (scale * at[:, k])[:, None] * along for k in (0, -1))
    return tube(start, end, across, radii, color, 0.003)


def watch(wrist: Tensor, rotmats: Tensor, scale: Tensor, generator: torch.Generator) -> Part:
    """A band around the wrist with a case on its back. Arguments as of `sleeve`."""
    count = len(wrist)
    begin = 0.018 + 0.025 * torch.rand(count, generator=generator)
    width = 0.010 + 0.014 * torch.rand(count, generator=generator)
    radii = torch.tensor([[0.0312, 0.0232]]).expand(count, 2, 2) * scale[:, None, None]
    along, across = -rotmats[:, :, 1], rotmats[:, :, 0]
    start, end = (wrist + (scale * value)[:, None] * along for value in (begin, begin + width))
    band = tube(start, end, across, radii, cloth_color(count, generator), 0.0015)
    size = 0.012 + 0.008 * torch.rand(count, generator=generator)
    back = -rotmats[:, :, 2]
    middle = (start + end) / 2
    lid = torch.stack([size, size], -1)[:, None].expand(count, 2, 2)
    low, high = (middle + (scale * height)[:, None] * back for height in (0.020, 0.031))
    case = tube(low, high, across, torch.cat([lid, torch.full((count, 1, 2), 1e-4)], 1), cloth_color(count, generator))
    return joined([band, case])


def ring(skeleton: Float[Tensor, "b 21 3"], normals: Float[Tensor, "b 3"], scale: Tensor, generator: torch.Generator) -> Part:
    """A ring on one finger.

    Args:
        skeleton: Centers of the joints [m].
        normals: Direction of the palm.
        scale: (B,) size of the fingers.
        generator: Random numbers, on the CPU.
    """
    count = len(skeleton)
    bones = torch.tensor(_RINGED)[torch.randint(1, len(_RINGED), (count,), generator=generator)]
    rows = torch.arange(count)
    start, end = skeleton[rows, bones[:, 0]], skeleton[rows, bones[:, 1]]
    share = 0.45 + 0.25 * torch.rand(count, 1, generator=generator)
    middle, along = start + share * (end - start), unit(end - start)
    half = 0.0012 + 0.002 * torch.rand(count, 1, generator=generator)
    radii = (0.0096 * scale)[:, None, None].expand(count, 2, 2)
    metal = torch.tensor([[0.9, 0.75, 0.35], [0.8, 0.8, 0.82], [0.25, 0.25, 0.28]])
    color = metal[torch.randint(3, (count,), generator=generator)]
    return tube(middle - half * along, middle + half * along, normals, radii, color, 0.0008)


def random_object(generator: torch.Generator) -> Mesh:
    """A box, ball or cylinder of one color, of a size that a hand holds."""
    kind = int(torch.randint(3, (1,), generator=generator))
    size = 0.02 + 0.08 * torch.rand(3, generator=generator)
    if kind == 0:
        vertices, faces = shapes.box((float(size[0]), float(size[1]) * 1.5, float(size[2])))
    elif kind == 1:
        vertices, faces = shapes.icosphere(2, float(size[0]) / 2 + 0.01)
    else:
        vertices, faces = shapes.cylinder(float(size[0]) / 2 + 0.005, float(size[1]) * 2)
    color = torch.rand(3, generator=generator)
    return Mesh(vertices.float(), faces, vertex_colors=color.expand(len(vertices), 3))


def held(mesh: Mesh, palm: Float[Tensor, "b 3"], rotmats: Float[Tensor, "b 3 3"], generator: torch.Generator) -> Part:
    """An object in front of the palm, turned at random about itself; a long one lies across the palm more often than not.

    Args:
        mesh: With vertex colors, its middle anywhere [m].
        palm: A point on the palm in the camera's frame [m].
        rotmats: From the template to the camera.
        generator: Random numbers, on the CPU.
    """
    count = len(palm)
    points = mesh.vertices - (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    _, _, axes = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    lying = points @ axes.mT  # the longest axis is x, across the palm
    turn = haar_rotmats(3, count, generator=generator)
    angle = torch.rand(count, generator=generator) * 2 * torch.pi
    zero, one = torch.zeros(count), torch.ones(count)
    about_x = torch.stack([one, zero, zero, zero, angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos()], 1).view(-1, 3, 3)
    is_free = torch.rand(count, 1, 1, generator=generator) < 0.3
    local = lying @ torch.where(is_free, turn, about_x).mT
    depth = -local[..., 2].amin(1)
    offset = torch.stack(
        [0.015 * torch.randn(count, generator=generator), 0.015 * torch.randn(count, generator=generator), depth], 1
    )
    offset[:, 2] += 0.008
    vertices = (local + offset[:, None]) @ rotmats.mT + palm[:, None]
    colors = mesh.vertex_colors if mesh.vertex_colors is not None else torch.full((mesh.num_vertices, 3), 0.6)
    tint = (0.7 + 0.6 * torch.rand(count, 1, 3, generator=generator)) * colors
    return Part(vertices, mesh.faces, tint.clamp(0, 1))


def body(wrist: Tensor, rotmats: Tensor, scale: Tensor, skin: Float[Tensor, "b 3"], generator: torch.Generator) -> Part:
    """Upper arm, trunk and head behind the forearm, dressed at random. Arguments as of `sleeve`.

    Args:
        skin: sRGB colors of the skin.
    """
    count = len(wrist)

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    elbow = wrist - 0.25 * scale[:, None] * rotmats[:, :, 1]
    toward = unit(-rotmats[:, :, 1] + 1.1 * torch.randn(count, 3, generator=generator) + torch.tensor([0.0, -0.3, 0.4]))
    shoulder = elbow + 0.29 * toward
    cloth = cloth_color(count, generator)
    arm = torch.where(rand(1) < 0.35, skin, cloth)
    parts = [_spindle(elbow - 0.02 * toward, shoulder, rotmats[:, :, 0], 0.044, 0.055, arm)]
    up = unit(torch.tensor([0.0, -1.0, 0.0]) + 0.25 * torch.randn(count, 3, generator=generator))
    side = unit(torch.tensor([1.0, 0, 0]) + 0.4 * torch.randn(count, 3, generator=generator)) * torch.where(
        rand(1) < 0.5, 1, -1
    )
    neck = shoulder + 0.19 * side + 0.05 * up
    parts.append(_spindle(neck - 0.6 * up, neck, side, 0.17, 0.15, cloth))
    parts.append(_spindle(neck - 0.05 * up, neck + 0.1 * up, side, 0.055, 0.055, skin))
    parts.append(_spindle(neck + 0.06 * up, neck + 0.30 * up, side, 0.075, 0.08, skin))
    hair = 0.35 * rand(1) * torch.tensor([1.0, 0.8, 0.6])
    back = torch.linalg.cross(up, side)
    away = torch.where(back[:, 2:] < 0, -back, back)
    lifted = neck + 0.025 * away
    parts.append(_spindle(lifted + 0.12 * up, lifted + 0.32 * up, side, 0.08, 0.085, hair))
    return joined(parts)


def _spindle(
    start: Float[Tensor, "b 3"], end: Float[Tensor, "b 3"], across: Tensor, first: float, second: float, color: Tensor
) -> Part:
    """A tube with rounded ends that is as wide as given [m]."""
    share = torch.linspace(0, 1, 7).to(start)
    wide = (first + (second - first) * share) * (1 - (2 * share - 1).abs() ** 4).clamp(min=1e-4).sqrt()
    radii = torch.stack([wide, 0.8 * wide], 1).expand(len(start), 7, 2)
    return tube(start, end, across, radii, color)


def joined(parts: list[Part]) -> Part:
    """All parts as one."""
    offsets = [0]
    for part in parts:
        offsets.append(offsets[-1] + part.vertices.shape[1])
    faces = torch.cat([part.faces + offset for part, offset in zip(parts, offsets)])
    return Part(torch.cat([part.vertices for part in parts], 1), faces, torch.cat([part.colors for part in parts], 1))


def shown(part: Part, visible: Tensor) -> Part:
    """The part in some images of the batch only."""
    return Part(torch.where(visible[:, None, None], part.vertices, torch.nan), part.faces, part.colors)


def cloth_color(count: int, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """sRGB colors of cloth: grays and dark tones more often than bright ones."""
    value = torch.rand(count, 1, generator=generator) ** 1.3
    hue = torch.rand(count, 3, generator=generator)
    strength = torch.rand(count, 1, generator=generator) ** 2
    return (value * (1 - strength + strength * hue / hue.amax(1, keepdim=True))).clamp(0, 1)
