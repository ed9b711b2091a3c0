"""Batches of generated images of right hands, with their truth."""

import functools
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.vectors import unit
from vision3d.render.meshes import Fragments, antialias, edge_neighbors, interpolate, rasterize, screen_positions, texture
from vision3d.scene.colors import linear_to_srgb, srgb_to_linear
from vision3d.scene.mesh import Mesh
from vision3d.stages.hand.config import FrameConfig
from vision3d.stages.hand.shape import HandShape
from vision3d.stages.hand.synth import props
from vision3d.stages.hand.synth.backgrounds import Backgrounds
from vision3d.stages.hand.synth.cameras import place, place_anywhere, sample_rotations
from vision3d.stages.hand.synth.crowd import crowded
from vision3d.stages.hand.synth.grips import gripped
from vision3d.stages.hand.synth.light import Lamps, open_share, vertex_shadows
from vision3d.stages.hand.synth.poses import sample_angles
from vision3d.stages.hand.synth.relief import raised
from vision3d.stages.hand.synth.sensor import photographed
from vision3d.stages.hand.synth.skin_maps import NAMES, relief_maps, skin_maps
from vision3d.stages.hand.template import HandTemplate, PosedHand
from vision3d.stages.hand.tone import skin_color

_DEPTH_MARGIN = 0.022
"""A joint lies this far behind the skin in front of it, at most [m]."""


_CHANGES = (
    (0.40, 0.32, 0.34), (-0.35, -0.45, -0.45), (-0.35, -0.45, -0.45), (-0.40, -0.52, -0.52), (-0.14, -0.05, 0.02),
    (0.25, 0.16, 0.18), (0.20, -0.15, -0.15), (0.12, 0.12, 0.12), (0.14, 0.12, 0.12),
)  # fmt: skip
"""Largest relative change of red, green and blue by each map of `skin_maps`."""
_NOISE = 7
"""The first map that is noise."""
_RELIEF = 1.6
"""Largest factor of the heights of `relief_maps`."""


class Subject(Protocol):
    """Whose hand is drawn: `HandTemplate`, or a hand of another topology that takes the same poses."""

    @property
    def faces(self) -> Int64[Tensor, "f 3"]: ...
    @property
    def uvs(self) -> Float[Tensor, "f 3 2"]: ...
    @property
    def forearm_faces(self) -> Int64[Tensor, "g 3"]: ...
    @property
    def forearm_uvs(self) -> Float[Tensor, "g 3 2"]: ...
    def pose(self, angles: Tensor, *, rotation: Tensor, shape: HandShape) -> PosedHand:
        """The hand in poses, with its wrist at the origin."""
        ...

    def joints(self, vertices: Tensor) -> Tensor:
        """The 21 joints of the hand's vertices."""
        ...


@dataclass(frozen=True, eq=False)
class Posing:
    """Poses and places that are given instead of drawn at random, as in a video."""

    angles: Float[Tensor, "b 20"]
    """[rad]."""
    rotation: Float[Tensor, "b 3 3"]
    """From the template to the camera."""
    translation: Float[Tensor, "b 3"]
    """Of the wrist [m]."""
    Ks: Float[Tensor, "b 3 3"]
    """[px]."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true of images of right hands, in the camera's frame."""

    Ks: Float[Tensor, "b 3 3"]
    """[px]; pixel centers at half-integers."""
    joints: Float[Tensor, "b 21 3"]
    """[m], `HandTemplate.joints` of the vertices."""
    vertices: Float[Tensor, "b v 3"]
    """[m], 778 of the template."""
    angles: Float[Tensor, "b 20"]
    """Of `HandTemplate.pose` [rad]."""
    shape: HandShape
    rotation: Float[Tensor, "b 3 3"]
    """From the template to the camera."""
    translation: Float[Tensor, "b 3"]
    """Of the wrist [m]."""
    masks: Bool[Tensor, "b s s"]
    """Pixels of the hand, without the forearm."""
    depths: Float[Tensor, "b s s"]
    """Of whatever is in front [m]; zero where there is only background."""
    is_hand: Bool[Tensor, " b"]
    """Whether there is a hand; without one the rest means nothing."""

    @property
    def uvs(self) -> Float[Tensor, "b 21 2"]:
        """Joints in the image [px]."""
        projected = self.joints @ self.Ks.mT
        return projected[..., :2] / projected[..., 2:]

    @property
    def visible(self) -> Bool[Tensor, "b 21"]:
        """Whether a joint is in the image, and nothing but its own skin in front of it."""
        size = self.depths.shape[1]
        column, row = self.uvs.floor().long().unbind(-1)
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        images = torch.arange(len(row))[:, None]
        at = (images, row.clamp(0, size - 1), column.clamp(0, size - 1))
        return inside & self.masks[at] & (self.depths[at] > self.joints[..., 2] - _DEPTH_MARGIN)


@dataclass(frozen=True, eq=False)
class Frames(Truth):
    """Images of right hands, and their truth."""

    images: UInt8[Tensor, "b s s 3"]
    """sRGB."""


@dataclass(frozen=True, eq=False)
class Drawing(Truth):
    """A batch of images before the camera's effects, and their truth."""

    images: Float[Tensor, "b s s 3"]
    """sRGB in [0, 1]."""


def frames(
    seed: int,
    index: int,
    count: int = 16,
    config: FrameConfig | None = None,
    *,
    backgrounds: Backgrounds | None = None,
    objects: tuple[Mesh, ...] = (),
    hand: Subject | None = None,
) -> Frames:
    """Generate a batch; the same arguments always give the same images.

    Args:
        seed: Of all batches.
        index: Of this batch.
        count: Number of images.
        config: What they show.
        backgrounds: Photographs; procedural when None.
        objects: Meshes with vertex colors that a hand can hold, one for each batch; simple shapes when empty.
        hand: Whose hand; the template's when None.
    """
    config = config or FrameConfig()
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**62)
    made = draw(count, config, generator, backgrounds=backgrounds, objects=objects, hand=hand)
    images = (photographed(made.images, generator) * 255).round().byte()
    return Frames(**{**vars(made), "images": images})


def draw(
    count: int,
    config: FrameConfig,
    generator: torch.Generator,
    *,
    backgrounds: Backgrounds | None = None,
    objects: tuple[Mesh, ...] = (),
    canvas: Float[Tensor, "b s s 3"] | None = None,
    hand: Subject | None = None,
    posing: Posing | None = None,
) -> Drawing:
    """One right hand in each image.

    Args:
        count: Number of images.
        config: What they show.
        generator: Random numbers, on the CPU.
        backgrounds: As for `frames`.
        objects: As for `frames`.
        canvas: What is behind the hands, sRGB in [0, 1], in place of backgrounds.
        hand: As for `frames`.
        posing: Poses and places, in place of random ones; everything else stays as it would be without.
    """
    template = HandTemplate.load("right")
    hand = template if hand is None else hand
    angles = sample_angles(template, count, generator, gestures=config.gestures, together=config.together)
    shape = HandShape.random(count, generator)
    rotation = sample_rotations(count, generator, config.views)
    if posing is not None:
        angles, rotation = posing.angles, posing.rotation
    turned = hand.pose(angles, rotation=rotation, shape=shape)
    if config.whole:
        translation, Ks = place_anywhere(hand.joints(turned.vertices), config.size, generator)
    else:
        translation, Ks = place(hand.joints(turned.vertices), config.size, generator, margins=config.margins)
    if posing is not None:
        translation, Ks = posing.translation, posing.Ks
    vertices, skeleton = turned.vertices + translation[:, None], turned.skeleton + translation[:, None]
    forearm = turned.forearm + translation[:, None]
    is_hand = torch.rand(count, generator=generator) >= config.empty
    *worn, held = _props(config, skeleton, rotation, shape, objects, generator)
    tone = None
    if config.whole:
        tone = _tone(count, generator)
        person = props.body(skeleton[:, 0], rotation, shape.scale, skin_color(*tone), generator)
        worn.append(props.shown(person, torch.rand(count, generator=generator) < 0.8))
    scene = props.joined([*(props.shown(part, is_hand) for part in (_skin(hand, vertices, forearm), *worn)), held])
    lamps = Lamps.sample(count, generator)
    positions = screen_positions(scene.vertices, torch.eye(4).expand(count, 4, 4), Ks)
    found = rasterize(positions, scene.faces, config.size, config.size)
    lit = torch.cat(
        [
            vertex_shadows(scene.vertices, scene.faces, lamps.directions[:, 0]),
            open_share(scene.vertices, scene.faces, lamps.up, generator),
        ],
        2,
    )
    normals = vertex_normals(scene.vertices, scene.faces)
    attributes = interpolate(torch.nan_to_num(torch.cat([normals, lit, scene.colors], 2)), scene.faces, found)
    image, row, column = (found.face_ids >= 0).nonzero(as_tuple=True)  # most pixels are background
    pixels, face = attributes[image, row, column], found.face_ids[image, row, column]
    skin, heights, gloss = _skin_at(hand, found, (image, row, column), generator, tone)
    is_skin = face < len(hand.faces) + len(hand.forearm_faces)
    albedo = torch.where(is_skin[:, None], skin, srgb_to_linear(pixels[:, 5:]))
    smooth = unit(pixels[:, :3])
    bumpy = raised(smooth, heights, is_skin, found.depths, Ks, (image, row, column))
    shaded = lamps.shade(albedo, bumpy, pixels[:, 3:5], image, torch.where(is_skin, gloss, 1.0))
    if canvas is None:
        with_people = None if config.whole else is_hand
        images = (backgrounds or Backgrounds()).sample(count, config.size, generator, with_people)
    else:
        images = canvas.clone()
    drawn = torch.zeros(count, config.size, config.size, 4)
    drawn[image, row, column] = torch.cat([linear_to_srgb(shaded.clamp(0, 1)), torch.ones(len(image), 1)], 1)
    if config.crowd and not config.whole:
        images = crowded(images, drawn, is_hand & (torch.rand(count, generator=generator) < config.crowd), generator)
    images[image, row, column] = drawn[image, row, column, :3]
    masks = (found.face_ids >= 0) & (found.face_ids < len(hand.faces))
    images = antialias(images, positions, scene.faces, found, neighbors=edge_neighbors(scene.faces))
    return Drawing(
        Ks, hand.joints(vertices), vertices, angles, shape, rotation, translation, masks, found.depths, is_hand, images
    )


def _skin(hand: Subject, vertices: Tensor, forearm: Tensor) -> props.Part:
    surface = torch.cat([vertices, forearm], 1)
    return props.Part(surface, torch.cat([hand.faces, hand.forearm_faces]), torch.zeros_like(surface))


def _props(
    config: FrameConfig,
    skeleton: Tensor,
    rotation: Tensor,
    shape: HandShape,
    objects: tuple[Mesh, ...],
    generator: torch.Generator,
) -> list[props.Part]:
    count = len(skeleton)

    def chance(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    wrist = skeleton[:, 0]
    parts = [
        props.shown(props.sleeve(wrist, rotation, shape.scale, generator), chance(config.sleeves)),
        props.shown(props.watch(wrist, rotation, shape.scale, generator), chance(0.15)),
        props.shown(props.ring(skeleton, rotation[:, :, 2], shape.scale * shape.thicknesses.mean(1), generator), chance(0.2)),
    ]
    mesh = objects[int(torch.randint(len(objects), (1,), generator=generator))] if objects else props.random_object(generator)
    palm = wrist + (rotation @ torch.tensor([0.0, 0.075, 0.012])[:, None])[..., 0] * shape.scale[:, None]
    held = props.held(mesh, palm, rotation, generator)
    if config.grips:
        held = gripped(held, mesh, skeleton, chance(config.grips), generator)
    parts.append(props.shown(held, chance(config.objects)))
    return parts


def _skin_at(
    hand: Subject,
    fragments: Fragments,
    pixels: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator,
    tone: tuple[Tensor, Tensor] | None,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Linear albedo of the skin at some pixels, how far it is raised [m], and a factor of its highlights."""
    count = len(fragments.face_ids)
    image = pixels[0]

    def rand(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    melanin, blood = _tone(count, generator) if tone is None else tone
    linear = srgb_to_linear(skin_color(melanin, blood))
    weights = rand(len(NAMES), 1) * torch.tensor(_CHANGES)
    weights[:, NAMES.index("palm")] *= 0.4 + 2.5 * melanin[:, None]  # palms have little melanin
    varnish = 2 * rand(3) - 1
    weights[:, 0] = torch.where(rand(1) < 0.12, varnish, weights[:, 0])
    uvs = torch.cat([hand.uvs, hand.forearm_uvs])
    face = fragments.face_ids[pixels].long().clamp(max=len(uvs) - 1)
    at = torch.einsum("nc,nck->nk", fragments.barycentrics[pixels], uvs[face])
    maps = texture(_all_maps(), at.view(1, 1, -1, 2))[0, 0]
    relief, colors = maps.split([maps.shape[1] - len(NAMES), len(NAMES)], 1)
    maps[face >= len(hand.faces), : -len(NAMES) + _NOISE] = 0  # the texture of the forearm has neither nails nor creases
    change = torch.einsum("nc,ncd->nd", colors, weights[image])
    heights = (relief * (_RELIEF * rand(2))[image]).sum(1)
    return (linear[image] * (1 + change)).clamp(0.005, 1), heights, 1 + (3 * rand())[image] * colors[:, 0]


@functools.cache
def _all_maps() -> Tensor:
    return torch.cat([relief_maps(), skin_maps()], -1)


def _tone(count: int, generator: torch.Generator) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Melanin and hemoglobin of skin."""
    melanin = 0.05 + 0.75 * torch.rand(count, generator=generator) ** 1.6
    return melanin, torch.rand(count, generator=generator)
