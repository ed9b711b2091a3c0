"""Light on hands: lamps with a shadow of the first one, and light from all around."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry.vectors import any_orthogonal, unit
from vision3d.render.meshes import rasterize

_SHADOW_SIZE, _BIAS = 56, 0.004
_DIRECTIONS, _CLOSED = 2, 0.25  # light that comes into every crease, from skin beside it


@dataclass(frozen=True, eq=False)
class Lamps:
    """Lights at infinity, of a batch of images."""

    directions: Float[Tensor, "b n 3"]
    """Unit vectors to them, in the camera's frame."""
    colors: Float[Tensor, "b n 3"]
    """Linear."""
    ambient: Float[Tensor, "b 2 3"]
    """Linear light from above and from below."""
    up: Float[Tensor, "b 3"]
    """Where above is."""
    gloss: Float[Tensor, " b"]
    """Strength of highlights."""

    @classmethod
    def sample(cls, count: int, generator: torch.Generator) -> "Lamps":
        """One to three lamps, most of them in front of the hand."""

        def rand(*shape: int) -> Tensor:
            return torch.rand(count, *shape, generator=generator)

        directions = unit(torch.randn(count, 3, 3, generator=generator) + torch.tensor([0.0, -0.5, -0.7]))
        number = torch.randint(1, 4, (count,), generator=generator)
        is_on = torch.arange(3) < number[:, None]
        warmth = rand(3, 1) - 0.5
        tint = torch.cat([1 + 0.35 * warmth, torch.ones_like(warmth), 1 - 0.45 * warmth], -1)
        strength = (0.25 + 0.75 * rand(3)) * is_on
        ambient = (0.10 + 0.45 * rand(2, 1)) * (0.85 + 0.3 * rand(2, 3))
        up = unit(torch.randn(count, 3, generator=generator) * 0.5 + torch.tensor([0.0, -1.0, 0.0]))
        return cls(directions, strength[..., None] * tint, ambient, up, 0.35 * rand() ** 2)

    def shade(
        self,
        albedo: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
        lit: Float[Tensor, "n 2"],
        image: Int64[Tensor, " n"],
        gloss: Float[Tensor, " n"],
    ) -> Float[Tensor, "n 3"]:
        """Linear light of some pixels to a camera far away along -z.

        Args:
            albedo: Linear.
            normals: Unit vectors.
            lit: Shares of the first lamp, and of light from all around, that reach the surface.
            image: Image of each pixel.
            gloss: Factor of the highlights.
        """
        above = 0.5 + 0.5 * (normals * self.up[image]).sum(-1, keepdim=True)
        lit, around = lit.split(1, 1)
        received = around * torch.lerp(self.ambient[image, 1], self.ambient[image, 0], above)
        for k in range(self.directions.shape[1]):
            cosine = (normals * self.directions[image, k]).sum(-1, keepdim=True).clamp(min=0)
            received += cosine * (lit if k == 0 else around) * self.colors[image, k]
        half = unit(self.directions[:, 0] - torch.tensor([0.0, 0, 1]))
        shine = (normals * half[image]).sum(-1, keepdim=True).clamp(min=0) ** 24
        return albedo * received + (self.gloss[:, None] * self.colors[:, 0])[image] * (shine * lit * gloss[:, None])


def open_share(
    vertices: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], up: Float[Tensor, "b 3"], generator: torch.Generator
) -> Float[Tensor, "b v 1"]:
    """Share of the light from all around that reaches each vertex, roughly: by shadows of a few directions above and in front.

    Args:
        vertices: As for `vertex_shadows`.
        faces: All surfaces.
        up: Unit vectors.
        generator: Random numbers, on the CPU.
    """
    front = unit(torch.randn(_DIRECTIONS, len(up), 3, generator=generator) * 0.8 + torch.tensor([0.0, 0.0, -1.0]))
    shares = [vertex_shadows(vertices, faces, toward) for toward in (up, *front)]
    return _CLOSED + (1 - _CLOSED) * torch.stack(shares).mean(0)


def vertex_shadows(
    vertices: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], toward: Float[Tensor, "b 3"]
) -> Float[Tensor, "b v 1"]:
    """Share of a lamp that reaches each vertex: a shadow map with percentage-closer filtering (Reeves et al. 1987).

    Args:
        vertices: [m]; those that are NaN cast no shadow.
        faces: All surfaces.
        toward: Unit vectors to the lamp.
    """
    size = _SHADOW_SIZE
    first = any_orthogonal(toward)
    basis = torch.stack([first, torch.linalg.cross(toward, first), -toward], 1)
    points = vertices @ basis.mT
    finite = torch.nan_to_num(points, nan=0.0)
    low, high = finite.amin(1, keepdim=True), finite.amax(1, keepdim=True)
    scale = (size - 4) / (high - low)[..., :2].amax(2, keepdim=True).clamp(min=1e-3)
    pixels = (points[..., :2] - low[..., :2]) * scale + 2
    depth = points[..., 2:] - low[..., 2:] + 0.1
    positions = torch.cat([pixels, depth, torch.ones_like(depth)], 2)
    nearest = rasterize(positions, faces, size, size).depths
    nearest = torch.where(nearest > 0, nearest, 1e3)
    at = torch.nan_to_num(pixels - 0.5, nan=0.0)
    corner = at.floor().long()
    share = at - corner
    rows = torch.arange(len(vertices))[:, None]
    lit = torch.zeros_like(depth[..., 0])
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = (corner[..., 0] + dx).clamp(0, size - 1), (corner[..., 1] + dy).clamp(0, size - 1)
            weight = (share[..., 0] if dx else 1 - share[..., 0]) * (share[..., 1] if dy else 1 - share[..., 1])
            lit = lit + weight * (nearest[rows, y, x] > depth[..., 0] - _BIAS)
    return lit[..., None]
