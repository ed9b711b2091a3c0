"""Renders images by ray tracing: sun with soft shadows, sky light, highlights and one mirror bounce."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scene import FLOOR_HEIGHT, MATERIALS, NUMBER, TABLE_RADIUS, Hits, blocked, cast
from shapes import Array, rotation_to
from textures import Textures, linear_to_srgb

SUN_DIRECTION = np.array([0.52, -0.44, 0.78]) / np.linalg.norm([0.52, -0.44, 0.78])
SUN_COLOUR = np.array([1.0, 0.93, 0.82]) * 2.35
SUN_RADIUS = 0.035  # tangent of the half angle that the sun subtends: shadows blur with distance
SKY_COLOUR = np.array([0.66, 0.76, 0.90]) * 0.85
BOUNCE_COLOUR = np.array([0.52, 0.40, 0.30]) * 0.62
BRIGHTEST_SAMPLE = 5.0  # clamps single samples, so that tiny highlights do not flicker between views
EXPOSURE = 0.46
RAYS_AT_ONCE = 8192  # keeps the work arrays in the CPU cache

# Spheres that approximate the large objects in the computation of occluded sky light: x, y, z, radius.
_HIDERS = np.array(
    [
        [0.16, -0.10, 0.23, 0.23],
        [-0.50, -0.16, 0.12, 0.18],
        [-0.50, -0.16, 0.28, 0.18],
        [-0.18, 0.42, 0.24, 0.21],
        [-0.18, 0.42, 0.52, 0.08],
        [0.50, -0.42, 0.06, 0.12],
        [0.50, -0.43, 0.184, 0.076],
        [0.17, -0.62, 0.062, 0.065],
        [-0.10, -0.58, 0.07, 0.10],
        [-0.10, -0.58, 0.17, 0.09],
        [0.50, 0.36, 0.34, 0.085],
    ]
)
_OWN_SHARE = 1.15  # occluders only affect points outside this many of their radii: no object shades itself


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        focal: focal length in pixels, the same in x and y.
        size: width and height in pixels; the principal point is the image center.
        pose: camera-to-world matrix (4, 4), OpenGL axes (x right, y up, z backwards), meters.
    """

    focal: float
    size: int
    pose: Array

    def rays(self, columns: Array, rows: Array) -> tuple[Array, Array]:
        """Creates rays through image positions.

        Args:
            columns: horizontal positions (N,), pixels; pixel j spans j to j + 1.
            rows: vertical positions (N,), pixels, downwards.

        Returns:
            Origins (N, 3) and unit directions (N, 3) in the world.
        """
        x = (columns - 0.5 * self.size) / self.focal
        y = -(rows - 0.5 * self.size) / self.focal
        local = np.stack([x, y, -np.ones_like(x)], axis=1)
        directions = local @ self.pose[:3, :3].T
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.broadcast_to(self.pose[:3, 3], directions.shape).copy(), directions


def _albedo(hits: Hits, textures: Textures) -> Array:
    """Looks up the linear color (N, 3) of each hit's surface."""
    colour = np.empty((len(hits.distance), 3))
    for number in np.unique(hits.material):
        rays = np.flatnonzero(hits.material == number)
        paint = getattr(textures, MATERIALS[number].texture)
        colour[rays] = paint(hits.local[rays])
    return colour


def _open_sky(points: Array, normals: Array) -> Array:
    """Fraction (N,) of the sky light that reaches surface points, with soft contact shadows under the objects."""
    share = np.ones(len(points))
    for x, y, z, radius in _HIDERS:
        offset = np.array([x, y, z]) - points
        square = np.einsum("ij,ij->i", offset, offset)
        near = np.flatnonzero((square < (6.0 * radius) ** 2) & (square > (_OWN_SHARE * radius) ** 2))
        cosine = np.einsum("ij,ij->i", offset[near], normals[near]) / np.sqrt(square[near])
        hidden = np.maximum(cosine, 0.0) * radius**2 / square[near]
        # Fade the occluder out near its own surface, where the sphere is a poor approximation of the object.
        inner = (_OWN_SHARE * radius) ** 2
        share[near] *= 1.0 - 0.85 * hidden * np.clip((square[near] - inner) / (0.35 * inner), 0.0, 1.0)
    on_floor = points[:, 2] < FLOOR_HEIGHT + 1e-4
    beside = np.hypot(points[:, 0], points[:, 1]) - TABLE_RADIUS
    share *= np.where(on_floor, 1.0 - 0.6 * np.exp(-np.maximum(beside, 0.0) / 0.07), 1.0)
    grounded = (points[:, 2] > 1e-4) & (np.abs(normals[:, 2]) < 0.95)
    return share * np.where(grounded, 1.0 - 0.45 * np.exp(-np.maximum(points[:, 2], 0.0) / 0.05), 1.0)


def _sunlight(hits: Hits, sun: Array) -> Array:
    """Fraction of the sun (N,) that falls on each hit: its cosine, or 0 in shadow. `sun` contains directions (N, 3)."""
    cosine = np.maximum(np.einsum("ij,ij->i", hits.normal, sun), 0.0)
    lit = np.flatnonzero((cosine > 0.0) & (hits.material != NUMBER["dome"]))
    start = hits.point[lit] + 1e-4 * hits.normal[lit]
    cosine[lit[blocked(start, sun[lit])]] = 0.0
    return cosine


def _matte(hits: Hits, textures: Textures, sunlight: Array) -> tuple[Array, Array]:
    """Diffusely reflected light of each hit, and the surface's color; both (N, 3)."""
    albedo = _albedo(hits, textures)
    up = 0.5 + 0.5 * hits.normal[:, 2:3]
    sky = (SKY_COLOUR * up + BOUNCE_COLOUR * (1.0 - up)) * _open_sky(hits.point, hits.normal)[:, None]
    light = sunlight[:, None] * SUN_COLOUR + sky
    light[hits.material == NUMBER["dome"]] = 1.55
    # The floor fades into the backdrop: its light blends towards the backdrop's even brightness.
    far = np.clip((np.hypot(hits.point[:, 0], hits.point[:, 1]) - 1.8) / 3.0, 0.0, 1.0)[:, None]
    light = np.where((hits.material == NUMBER["floor"])[:, None], light + (1.55 - light) * far * far, light)
    return albedo * light, albedo


def _highlight(hits: Hits, view: Array, sun: Array, sunlight: Array, albedo: Array) -> Array:
    """The sun's glossy reflection (N, 3) after Trowbridge and Reitz (GGX); `view` points to the eye, (N, 3)."""
    rough = np.array([m.roughness for m in MATERIALS])[hits.material]
    base = np.array([m.reflectance for m in MATERIALS])[hits.material]
    metal = np.array([m.metal for m in MATERIALS])[hits.material]
    half = view + sun
    half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-9)
    cos_half = np.einsum("ij,ij->i", hits.normal, half)
    cos_view = np.maximum(np.einsum("ij,ij->i", hits.normal, view), 1e-3)
    alpha = rough * rough
    spread = alpha**2 / (np.pi * (cos_half**2 * (alpha**2 - 1.0) + 1.0) ** 2)
    k = 0.5 * alpha
    masking = 1.0 / ((sunlight * (1.0 - k) + k) * (cos_view * (1.0 - k) + k))
    fresnel = base + (1.0 - base) * (1.0 - np.clip(np.einsum("ij,ij->i", view, half), 0.0, 1.0)) ** 5
    strength = np.where(base > 0.0, 0.25 * np.pi * spread * masking * fresnel * sunlight, 0.0)
    tint = np.where(metal[:, None], albedo * 2.0, 1.0)
    return strength[:, None] * SUN_COLOUR * tint


def radiance(origins: Array, directions: Array, sun: Array, textures: Textures) -> Array:
    """Computes the linear light (N, 3) received along rays.

    Args:
        origins: ray starts, shape (N, 3), meters.
        directions: unit directions, shape (N, 3).
        sun: for each ray, a unit direction to a point of the sun's disc, shape (N, 3).
        textures: the colors of the surfaces.

    Returns:
        Linear RGB of shape (N, 3), capped at `BRIGHTEST_SAMPLE`.
    """
    hits = cast(origins, directions)
    sunlight = _sunlight(hits, sun)
    colour, albedo = _matte(hits, textures, sunlight)
    colour += _highlight(hits, -directions, sun, sunlight, albedo)
    mirror = np.array([m.mirror for m in MATERIALS])[hits.material]
    shiny = np.flatnonzero(mirror > 0.0)
    if len(shiny):
        normal, incoming = hits.normal[shiny], directions[shiny]
        cosine = np.einsum("ij,ij->i", normal, incoming)
        away = incoming - 2.0 * cosine[:, None] * normal
        seen = cast(hits.point[shiny] + 1e-4 * normal, away)
        image, _ = _matte(seen, textures, _sunlight(seen, sun[shiny]))
        base = np.array([m.reflectance for m in MATERIALS])[hits.material[shiny]]
        # The Fresnel rise towards the rim is weaker than the physical one, so that the ball keeps its own color there.
        share = mirror[shiny] * (base + 0.28 * (1.0 - np.abs(cosine)) ** 4)
        colour[shiny] += share[:, None] * image
    return np.minimum(colour, BRIGHTEST_SAMPLE)


def develop(light: Array) -> NDArray[np.uint8]:
    """Maps linear light of any shape to 8-bit sRGB through a film-like curve with a soft shoulder."""
    x = light * EXPOSURE
    curve = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)
    return np.round(255.0 * np.clip(linear_to_srgb(np.clip(curve, 0.0, 1.0)), 0.0, 1.0)).astype(np.uint8)


def _tent(uniform: Array) -> Array:
    """Warps uniform numbers in 0..1 to offsets of -1..1 pixel from the pixel's center, densest in the middle.

    Averaging over this tent instead of the pixel square removes detail above the pixel resolution, which would flicker from
    view to view.
    """
    low = np.sqrt(2.0 * uniform) - 1.0
    return np.where(uniform < 0.5, low, 1.0 - np.sqrt(np.maximum(2.0 - 2.0 * uniform, 0.0)))


def render(camera: Camera, samples: int, textures: Textures, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Renders one image.

    Args:
        camera: the camera.
        samples: rays per pixel, a square number: jittered on a square grid around the pixel.
        textures: the colors of the surfaces.
        rng: source of the jitter.

    Returns:
        8-bit sRGB of shape (size, size, 3).
    """
    side = round(samples**0.5)
    count = camera.size**2
    row, column = (grid.ravel().astype(np.float64) for grid in np.indices((camera.size, camera.size)))
    # Each pixel uses the sun's strata in its own order, so that soft shadows show no pattern.
    order = rng.permuted(np.broadcast_to(np.arange(samples), (count, samples)), axis=1)
    frame = rotation_to(SUN_DIRECTION)
    light = np.zeros((count, 3))
    for sample in range(samples):
        jitter = rng.random((4, count))
        # Half of the full jitter: it still breaks up patterns, and the average is closer to the exact one.
        x = column + 0.5 + _tent((sample % side + 0.25 + 0.5 * jitter[0]) / side)
        y = row + 0.5 + _tent((sample // side + 0.25 + 0.5 * jitter[1]) / side)
        radius = SUN_RADIUS * np.sqrt((order[:, sample] // side + jitter[2]) / side)
        angle = 2.0 * np.pi * (order[:, sample] % side + jitter[3]) / side
        sun = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.ones(count)], axis=1) @ frame.T
        sun /= np.linalg.norm(sun, axis=1, keepdims=True)
        for start in range(0, count, RAYS_AT_ONCE):
            part = slice(start, start + RAYS_AT_ONCE)
            origins, directions = camera.rays(x[part], y[part])
            light[part] += radiance(origins, directions, sun[part], textures)
    return develop(light / samples).reshape(camera.size, camera.size, 3)
