"""Lighting of surfaces: ambient, headlight, directional, and an environment in spherical harmonics."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.spherical_harmonics import eval_sh, sh_basis
from vision3d.geometry.vectors import unit

# Irradiance of degree l divided by pi and the environment's coefficient (Ramamoorthi and Hanrahan 2001, eq. 8).
_CLAMPED_COSINE = (1.0, 2 / 3, 1 / 4)

Color = float | Sequence[float] | Float[Tensor, "3"]


@dataclass(frozen=True, eq=False)
class Lights:
    """Lights of a scene, in linear light. A light of strength 1 makes a white surface facing it appear white.

    Example:
        >>> sun = Lights(ambient=0.2, headlight=0.0, directions=[(0.0, 0.0, 1.0)], colors=[(1.0, 0.95, 0.9)])
    """

    ambient: Color = 0.15
    """Ambient light, uniform."""
    headlight: Color = 0.85
    """Light at the camera."""
    directions: Float[Tensor, "n 3"] | Sequence[Sequence[float]] = ()
    """Directions to lights at infinity, in the world, of any length > 0."""
    colors: Float[Tensor, "n 3"] | Sequence[Sequence[float]] | None = None
    """Color of each directional light; white when None."""
    environment: Float[Tensor, "9 3"] | None = None
    """Radiance from each direction: spherical harmonics of degree 2, as from `project_environment`."""
    specular: Color = 0.0
    """Specular fraction of the headlight and the directional lights."""
    shininess: float = 32.0
    """Exponent of the highlights; larger values make them smaller."""
    highlights: str = "blinn"
    """blinn or phong: angle to the half vector (Blinn 1977), or of the reflected light to the camera (Phong 1975)."""

    def __post_init__(self) -> None:
        count = len(self.directions)
        for name, shape in (("directions", (count, 3)), ("colors", (count, 3)), ("environment", (9, 3))):
            value = getattr(self, name)
            if value is not None and len(value) + count and tuple(torch.as_tensor(value).shape) != shape:
                raise ShapeError(f"Lights.{name}", tuple(torch.as_tensor(value).shape), shape)
        for name in ("ambient", "headlight", "specular"):
            color = torch.as_tensor(getattr(self, name))
            if color.shape not in ((), (3,)):
                raise ShapeError(f"Lights.{name}", tuple(color.shape), "a number, or red, green and blue")
            if not bool((color >= 0).all()):
                raise InputError(f"Lights.{name}: got {getattr(self, name)}, want >= 0")
        if not 0 < self.shininess < math.inf:
            raise InputError(f"Lights.shininess: got {self.shininess}, want a number > 0")
        if self.highlights not in ("blinn", "phong"):
            raise InputError(f"Lights.highlights: got {self.highlights!r}, want blinn or phong")


def light(
    linear_colors: Float[Tensor, "*batch 3"],
    normals: Float[Tensor, "*batch 3"],
    to_camera: Float[Tensor, "*batch 3"],
    lights: Lights,
) -> Float[Tensor, "*batch 3"]:
    """Linear light from surfaces to the camera: Lambert's cosine law plus highlights.

    color (ambient + irradiance / pi + sum_j light_j max(n.l_j, 0)) + specular sum_j light_j highlight_j, where the headlight
    is one of the lights. No shadows. Differentiable.

    Args:
        linear_colors: Colors of the surface, in linear light.
        normals: Unit normals in the world.
        to_camera: Unit directions from the surface to the camera, in the world.
        lights: The lights.
    """
    received = _color(lights.ambient, normals).expand_as(normals)
    if lights.environment is not None:
        received = received + irradiance(lights.environment.to(normals), normals).clamp(min=0) / math.pi
    directions = unit(torch.as_tensor(lights.directions, dtype=normals.dtype, device=normals.device).view(-1, 3))
    strengths = torch.ones_like(directions) if lights.colors is None else torch.as_tensor(lights.colors).to(directions)
    sources = [(to_camera, _color(lights.headlight, normals))]
    sources += [(direction.expand_as(normals), strength) for direction, strength in zip(directions, strengths)]
    mirrored = torch.zeros_like(normals)
    has_highlights = bool((torch.as_tensor(lights.specular) != 0).any())
    for toward, strength in sources:
        cosine = (normals * toward).sum(-1, keepdim=True)
        received = received + cosine.clamp(min=0) * strength
        if has_highlights:
            if lights.highlights == "blinn":
                match = (normals * unit(toward + to_camera)).sum(-1, keepdim=True)
            else:
                match = ((2 * cosine * normals - toward) * to_camera).sum(-1, keepdim=True)
            shine = torch.where((cosine > 0) & (match > 0), match.clamp(min=1e-6) ** lights.shininess, 0)
            mirrored = mirrored + shine * strength
    return linear_colors * received + _color(lights.specular, normals) * mirrored


def irradiance(environment: Float[Tensor, "9 3"], normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Irradiance of surfaces: the integral of radiance times clamped cosine over the sphere, to degree 2.

    E(n) = sum_lm A_l L_lm Y_lm(n) with A = pi, 2 pi / 3, pi / 4: exact for an environment of degree 2 (Ramamoorthi and
    Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps"). A white surface reflects E / pi of it.

    Args:
        environment: Coefficients of the radiance from each direction.
        normals: Unit normals.
    """
    factors = [math.pi * _CLAMPED_COSINE[l] for l in range(3) for _ in range(2 * l + 1)]
    return eval_sh(environment * environment.new_tensor(factors)[:, None], normals, 2)


def project_environment(
    radiance: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]], *, rows: int = 32
) -> Float[Tensor, "9 3"]:
    """Spherical harmonics of degree 2 of an environment: the integrals of radiance times each function.

    Uses Gauss-Legendre quadrature in height and uniform steps in azimuth: exact if the radiance is a polynomial of degree
    2 rows - 4 in the direction.

    Args:
        radiance: Radiance from unit directions, in float64.
        rows: Number of circles of directions, with 2 rows directions on each.

    Example:
        >>> sky = project_environment(lambda directions: (directions[:, 2:] > 0) * directions.new_tensor([0.5, 0.7, 1.0]))
        >>> Lights(environment=sky.float())
    """
    import numpy as np

    heights, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(rows))
    angles = torch.arange(2 * rows, dtype=torch.float64) * (math.pi / rows)
    radii = (1 - heights * heights).sqrt()[:, None]
    circle = torch.stack([radii * angles.cos(), radii * angles.sin(), heights[:, None].expand(-1, 2 * rows)], -1).flatten(0, 1)
    areas = (weights * (math.pi / rows)).repeat_interleave(2 * rows)
    return torch.einsum("n,nk,nc->kc", areas, sh_basis(circle, 2), radiance(circle).expand(len(circle), 3).double())


def _color(value: Color, like: Tensor) -> Tensor:
    return torch.as_tensor(value).to(like).expand(3)
