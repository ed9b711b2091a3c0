"""Pictures of models as backgrounds: surfaces under lamps, in one image, and sets of such pictures in the cache."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vision3d.geometry.rotation import so3_exp
from vision3d.geometry.vectors import unit
from vision3d.render.meshes import Lights, Surface, base_colors, interpolate, light, rasterize, screen_positions
from vision3d.scene.colors import linear_to_srgb
from vision3d.stages.hand.synth.objects import Split
from vision3d.training.samples import GeneratedSamples, Sample

WIDTH, HEIGHT = 256, 192
_VERSION = 1  # changes with the pictures, so that older ones are not used
_FRONT = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # world (z up) to a camera that looks along x

Models = tuple[Surface, ...]


@dataclass(frozen=True)
class PictureSource:
    """Makes pictures of the models in a folder; picklable."""

    folder: Path
    """Contains .sh3f files, at any depth."""
    split: Split
    models: Callable[[Path, Split], Models]
    """Reads the models."""
    draw: Callable[[Models, torch.Generator], UInt8[Tensor, "3 192 256"]]
    """Draws a picture of some of them."""

    def __call__(self, index: int) -> Sample:
        return {"image": self.draw(self.models(self.folder, self.split), torch.Generator().manual_seed(index))}

    def kept(self, name: str, count: int) -> UInt8[Tensor, "count 3 192 256"]:
        """Pictures, made once and kept in the cache under this name; none without models.

        Raises:
            MissingFileError: The folder does not exist, or has no .sh3f file.
            FileFormatError: An archive is damaged.
        """
        models = self.models(self.folder, self.split)
        if not models:
            return torch.zeros(0, 3, HEIGHT, WIDTH, dtype=torch.uint8)
        options = {"split": self.split, "models": len(models)}
        samples = GeneratedSamples(self, count, name=name, version=_VERSION, options=options, shard_size=64)
        samples.prepare()
        return samples.take(range(count))["image"]


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """A random number between two."""
    return low + (high - low) * float(torch.rand(1, generator=generator))


def view(camera: Float[Tensor, " 3"], pitch: float, yaw: float = 0.0) -> Float[Tensor, "4 4"]:
    """From the world, whose z is up, to a camera at this place, which looks along x but for these angles [rad]."""
    turn = so3_exp(torch.tensor([pitch, 0.0, 0.0])).mT @ _FRONT @ so3_exp(torch.tensor([0.0, 0.0, yaw])).mT
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = turn, -turn @ camera
    return viewmat


def placed(model: Surface, yaw: float, shift: Float[Tensor, " 3"], origin: Float[Tensor, " 3"] | None = None) -> Surface:
    """A model turned about the vertical through the origin [rad], which is zero when None, and moved [m]."""
    about = so3_exp(torch.tensor([0.0, 0.0, yaw]))
    points = model.mesh.vertices if origin is None else model.mesh.vertices - origin
    return replace(
        model,
        mesh=replace(model.mesh, vertices=points @ about.mT + shift, normals=None),
        normals=model.normals @ about.mT,
    )


def lamps(
    toward: tuple[float, float, float],
    generator: torch.Generator,
    *,
    ambient: tuple[float, float],
    headlight: float,
    specular: float,
) -> Lights:
    """Two lamps around a direction, light from all around within a range, and at most so much headlight and highlights."""
    return Lights(
        directions=unit(torch.randn(2, 3, generator=generator) + torch.tensor(toward)),
        colors=torch.rand(2, 1, generator=generator) * (0.8 + 0.4 * torch.rand(2, 3, generator=generator)),
        ambient=uniform(*ambient, generator), headlight=uniform(0, headlight, generator),
        specular=uniform(0, specular, generator),
    )  # fmt: skip


def picture(
    parts: list[Surface],
    viewmat: Float[Tensor, "4 4"],
    focal: float,
    lights: Lights,
    behind: Float[Tensor, "192 256 3"] | None = None,
) -> UInt8[Tensor, "3 192 256"]:
    """Surfaces as a camera sees them, both sides of each, sRGB.

    Args:
        parts: Surfaces in the world [m].
        viewmat: From the world to the camera.
        focal: Focal length [px]; the principal point is the middle.
        lights: Lamps in the world.
        behind: What is behind them, sRGB in [0, 1]; black when None.
    """
    K = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    turn = viewmat[:3, :3]
    albedo, normals, nearest = (
        torch.zeros(HEIGHT, WIDTH, 3),
        torch.zeros(HEIGHT, WIDTH, 3),
        torch.full((HEIGHT, WIDTH), torch.inf),
    )
    for part in parts:
        positions = screen_positions(part.mesh.vertices[None], viewmat[None], K[None])
        found = rasterize(positions, part.mesh.faces, WIDTH, HEIGHT, near_plane=0.05)
        is_front = (found.face_ids[0] >= 0) & (found.depths[0] < nearest)
        if bool(is_front.any()):
            albedo[is_front] = base_colors(part, positions, found)[0][is_front]
            normals[is_front] = interpolate(part.normals, part.mesh.faces, found)[0][is_front]
            nearest[is_front] = found.depths[0][is_front]
    x, y = torch.meshgrid(torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5, indexing="xy")
    rays = torch.stack([(x - K[0, 2]) / focal, (y - K[1, 2]) / focal, torch.ones_like(x)], -1)
    to_camera = unit(-rays @ turn)
    normals = unit(normals)
    normals = torch.where((normals * to_camera).sum(-1, keepdim=True) < 0, -normals, normals)
    image = linear_to_srgb(light(albedo, normals, to_camera, lights).clamp(0, 1))
    if behind is not None:
        image = torch.where(nearest.isfinite()[..., None], image, behind)
    return (image * 255).round().byte().permute(2, 0, 1)
