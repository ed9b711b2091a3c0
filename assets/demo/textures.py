"""Procedural solid textures: each maps points in an object's own frame (meters) to linear RGB albedo.

Solid textures are functions of the 3D point, so they have no seams. Their finest detail is about 14 mm, which is
1.5 pixels at the typical camera distance, so that several samples per pixel average it well.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LATTICE = 64


def srgb_to_linear(colour: Sequence[float] | Array) -> Array:
    """Decodes sRGB values in 0..1, of any shape, to linear light."""
    value = np.asarray(colour, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(colour: Array) -> Array:
    """Encodes linear light in 0..1, of any shape, as sRGB."""
    return np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * np.maximum(colour, 1e-9) ** (1 / 2.4) - 0.055)


def _colour(code: str) -> Array:
    """Converts a hex color such as "c8a27a" into linear RGB of shape (3,)."""
    return srgb_to_linear([int(code[i : i + 2], 16) / 255.0 for i in (0, 2, 4)])


def _mix(first: Array, second: Array, weight: Array) -> Array:
    """Blends colors (3,) or (N, 3) by weights (N,)."""
    return first + (second - first) * weight[:, None]


def _step(low: float, high: float, value: Array) -> Array:
    """Smooth step from 0 at low to 1 at high, for values of any shape."""
    x = np.clip((value - low) / (high - low), 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _hash_unit(cells: NDArray[np.int64], salt: int) -> Array:
    """Hashes integers of any shape to numbers in 0..1 (32-bit avalanche mixing, the same on every machine)."""
    h = (cells.astype(np.int64) + 7919 * (salt + 1)).astype(np.uint32)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return h.astype(np.float64) / 4294967295.0


class Textures:
    """The textures of every material, all derived from one seed."""

    def __init__(self, seed: int = 0) -> None:
        """Builds the noise lattice.

        Args:
            seed: changes the grain of every texture; shapes and colors stay.
        """
        self._seed = seed
        self._lattice = _hash_unit(np.arange(_LATTICE**3), 1000 + seed)

    def noise(self, points: Array, per_metre: float | Sequence[float], salt: int = 0) -> Array:
        """Value noise in 0..1: random numbers on a grid, blended by a smooth cubic.

        Args:
            points: shape (N, 3), meters.
            per_metre: grid cells in a metre, one number or one per axis.
            salt: shifts the pattern, so that one lattice is used by many textures.

        Returns:
            Values of shape (N,).
        """
        scaled = points * np.asarray(per_metre) + np.array([11.3, 27.1, 5.7]) * (salt + 1)
        cell = np.floor(scaled).astype(np.int64)
        f = scaled - cell
        f = f * f * (3.0 - 2.0 * f)
        low, high = cell % _LATTICE, (cell + 1) % _LATTICE
        x0, x1 = low[:, 0] * _LATTICE**2, high[:, 0] * _LATTICE**2
        y0, y1 = low[:, 1] * _LATTICE, high[:, 1] * _LATTICE
        table = self._lattice

        def along_z(base: NDArray[np.int64]) -> Array:
            lower = table[base + low[:, 2]]
            return lower + (table[base + high[:, 2]] - lower) * f[:, 2]

        front = along_z(x0 + y0)
        front += (along_z(x0 + y1) - front) * f[:, 1]
        back = along_z(x1 + y0)
        back += (along_z(x1 + y1) - back) * f[:, 1]
        return front + (back - front) * f[:, 0]

    def dome(self, p: Array) -> Array:
        """Backdrop: a calm gradient with broad brush marks; `p` are directions times the dome's radius."""
        up = p[:, 2] / np.linalg.norm(p, axis=1)
        base = _mix(_colour("bcc6c5"), _colour("d8c9b4"), _step(0.0, 0.5, up))
        clouds = 0.65 * self.noise(p, 0.9, 1) + 0.35 * self.noise(p, 2.6, 2)
        return base * (0.72 + 0.5 * clouds)[:, None]

    def floor(self, p: Array) -> Array:
        """Plaster floor: mottled near the table, calmer with distance, so that it meets the backdrop softly."""
        radius = np.hypot(p[:, 0], p[:, 1])
        near = 1.0 - _step(1.6, 3.6, radius)
        mottle = 0.6 * self.noise(p, 4.0, 3) + 0.4 * self.noise(p, 11.0, 4) - 0.5
        speckle = self.noise(p, 42.0, 5) - 0.5
        shade = 1.0 + mottle * (0.25 + 0.35 * near) + speckle * 0.26 * near
        base = _mix(_colour("8b9d98"), _colour("bcc5bf"), _step(1.2, 4.5, radius))
        return base * shade[:, None]

    def table(self, p: Array) -> Array:
        """Round wooden table: planks with grain inside an inlaid border of light and dark wedges."""
        radius, angle = np.hypot(p[:, 0], p[:, 1]), np.arctan2(p[:, 1], p[:, 0])
        plank = np.floor(p[:, 1] / 0.13)
        tone = _hash_unit(plank.astype(np.int64), self._seed)
        shifted = p + np.stack([tone * 9.0, tone * 5.0, tone * 3.0], axis=1)
        warp = self.noise(shifted, (2.2, 9.0, 2.0), 6)
        rings = 0.5 + 0.5 * np.sin(2.0 * np.pi * (shifted[:, 1] * 20.0 + warp * 3.2))
        fibre = self.noise(shifted, (9.0, 70.0, 9.0), 7)
        grain = np.clip(0.6 * rings + 0.55 * fibre - 0.1, 0.0, 1.0)
        wood = _mix(_colour("c2905c"), _colour("8e5a33"), grain) * (0.62 + 0.62 * tone)[:, None]
        seam = np.abs(p[:, 1] / 0.13 - np.round(p[:, 1] / 0.13)) * 0.13
        wood = _mix(wood * 0.3, wood, _step(0.002, 0.007, seam))
        wedge = np.floor(angle / (2.0 * np.pi) * 48.0) % 2.0
        fine = 0.78 + 0.44 * self.noise(p, 55.0, 8)
        inlay = _mix(_colour("4a3023"), _colour("d3b283"), wedge) * fine[:, None]
        border = _colour("5a3724") * fine[:, None]
        colour = np.where((radius > 0.88)[:, None], border, wood)
        return np.where(((radius > 0.90) & (radius < 0.985))[:, None], inlay, colour)

    def glaze(self, p: Array) -> Array:
        """Glossy ball: deep teal glaze with drifting lighter veins."""
        flow = 0.65 * self.noise(p, 8.0, 9) + 0.35 * self.noise(p, 21.0, 10)
        vein = 1.0 - _step(0.0, 0.05, np.abs(flow - 0.5))
        base = _mix(_colour("06363f"), _colour("127a80"), _step(0.3, 0.7, flow))
        return _mix(base, _colour("8fd3c0"), 0.75 * vein)

    def terrazzo(self, p: Array) -> Array:
        """Block of terrazzo: pale ground with chips of several colors."""
        colour = _mix(_colour("e6ddd0"), _colour("cfc3b4"), self.noise(p, 60.0, 11))
        chips = ((12, 19.0, "9c4b3b"), (13, 22.0, "35566b"), (14, 25.0, "d29a3a"), (15, 30.0, "2c2a2b"))
        for salt, per_metre, code in chips:
            colour = _mix(colour, _colour(code), _step(0.69, 0.72, self.noise(p, per_metre, salt)))
        return colour

    def ring(self, p: Array) -> Array:
        """Lacquered ring: coral with cream bands that wind around it."""
        angle = np.arctan2(p[:, 1], p[:, 0])
        bands = (angle / (2.0 * np.pi) * 14.0) % 1.0
        base = _mix(_colour("d8432b"), _colour("a82a20"), self.noise(p, 35.0, 16))
        return np.where((bands < 0.32)[:, None], _colour("f0dfc2"), base)

    def vase(self, p: Array) -> Array:
        """Blue and white pottery: rows of chevrons, lozenges and plain rings about the vase's axis."""
        angle, z = np.arctan2(p[:, 1], p[:, 0]) / (2.0 * np.pi), p[:, 2]
        zigzag = np.abs((angle * 16.0) % 1.0 - 0.5) * 0.07
        chevron = ((z + zigzag) / 0.052) % 1.0 < 0.45
        u, v = (angle * 20.0) % 1.0 - 0.5, (z - 0.015) / 0.09
        lozenge = np.abs(u) + np.abs(v) < 0.42
        belly = np.abs(z - 0.015) < 0.055
        edge = (np.abs(np.abs(z - 0.015) - 0.062) < 0.009) | (np.abs(z - 0.165) < 0.010)
        blue = np.where(belly, lozenge, chevron & (z < 0.15)) | edge
        white = _mix(_colour("f1ece0"), _colour("dcd5c6"), self.noise(p, 45.0, 17))
        ink = _mix(_colour("1d3f8a"), _colour("3a66b8"), self.noise(p, 38.0, 18))
        return np.where(blue[:, None], ink, white)

    def neck(self, p: Array) -> Array:
        """Plain upper part of the vase, with one blue ring; its mouth is dark."""
        white = _mix(_colour("f1ece0"), _colour("dcd5c6"), self.noise(p, 45.0, 17))
        colour = np.where((np.abs(p[:, 2]) < 0.012)[:, None], _colour("1d3f8a"), white)
        mouth = (p[:, 2] > 0.0749) & (np.hypot(p[:, 0], p[:, 1]) < 0.08)
        return np.where(mouth[:, None], _colour("1a1614"), colour)

    def stem(self, p: Array) -> Array:
        """Twigs: brownish green."""
        return _mix(_colour("4d5b2f"), _colour("6f6a3c"), self.noise(p, 30.0, 19))

    def leaf(self, p: Array) -> Array:
        """Leaves: green with a light midrib and slanted veins; the leaf's length is local x."""
        base = _mix(_colour("2f6b3a"), _colour("7aa84f"), self.noise(p, (26.0, 50.0, 26.0), 20))
        veins = ((p[:, 0] + 0.7 * np.abs(p[:, 1])) / 0.03) % 1.0 < 0.22
        rib = np.abs(p[:, 1]) < 0.0045
        return np.where((veins | rib)[:, None], _colour("b9cf86"), base)

    def berry(self, p: Array) -> Array:
        """Berries: crimson with a lighter bloom."""
        return _mix(_colour("8d1230"), _colour("d9475a"), _step(0.4, 0.75, self.noise(p, 40.0, 21)))

    def brass(self, p: Array) -> Array:
        """Rods of the stand: dark brass."""
        return _mix(_colour("6a4b1e"), _colour("94703a"), self.noise(p, 25.0, 22))

    def pendant(self, p: Array) -> Array:
        """Hanging ball: golden and violet stripes that swirl."""
        swirl = np.sin(60.0 * p[:, 2] + 3.0 * np.arctan2(p[:, 1], p[:, 0]))
        base = _mix(_colour("e0a326"), _colour("f3cf6b"), self.noise(p, 50.0, 23))
        return np.where((swirl > 0.25)[:, None], _colour("5b2a6b"), base)

    def book(self, p: Array) -> Array:
        """Books: cloth cover with a framed label; the page edges show between the boards (local z)."""
        weave = (0.75 + 0.5 * self.noise(p, 58.0, 24))[:, None]
        cloth = np.broadcast_to(_colour("27496b"), p.shape) * weave
        frame = (np.abs(np.abs(p[:, 0]) - 0.125) < 0.006) & (np.abs(p[:, 1]) < 0.096)
        frame |= (np.abs(np.abs(p[:, 1]) - 0.09) < 0.006) & (np.abs(p[:, 0]) < 0.131)
        label = (np.abs(p[:, 0]) < 0.07) & (np.abs(p[:, 1]) < 0.04)
        cover = np.where((frame | label)[:, None], _colour("d9b45a") * weave, cloth)
        lines = self.noise(p, (14.0, 14.0, 130.0), 25)
        pages = _mix(_colour("efe6d2"), _colour("b8a888"), lines)
        spine = p[:, 0] > 0.1655
        return np.where(((np.abs(p[:, 2]) < 0.026) & ~spine)[:, None], pages, cover)

    def red_book(self, p: Array) -> Array:
        """A smaller book in red cloth with gilt stripes."""
        weave = (0.75 + 0.5 * self.noise(p, 58.0, 26))[:, None]
        stripe = np.abs(np.abs(p[:, 0]) - 0.09) < 0.012
        cover = np.where(stripe[:, None], _colour("e3c77f"), _colour("8c2f2a")) * weave
        pages = _mix(_colour("efe6d2"), _colour("b8a888"), self.noise(p, (14.0, 14.0, 130.0), 27))
        spine = p[:, 0] > 0.1345
        return np.where(((np.abs(p[:, 2]) < 0.016) & ~spine)[:, None], pages, cover)

    def citrus(self, p: Array) -> Array:
        """Orange peel."""
        pores = 0.6 * self.noise(p, 62.0, 28) + 0.4 * self.noise(p, 17.0, 29)
        return _mix(_colour("d96a12"), _colour("f5a02c"), _step(0.25, 0.75, pores))

    def lemon(self, p: Array) -> Array:
        """Lemon peel."""
        pores = 0.6 * self.noise(p, 62.0, 30) + 0.4 * self.noise(p, 15.0, 31)
        return _mix(_colour("c99a12"), _colour("f4d748"), _step(0.2, 0.7, pores))

    def jar(self, p: Array) -> Array:
        """Checked jar: cream and forest green squares about the axis, with a slightly mottled glaze."""
        column = np.floor(np.arctan2(p[:, 1], p[:, 0]) / (2.0 * np.pi) * 14.0)
        checks = (column + np.floor(p[:, 2] / 0.045)) % 2.0
        mottle = (0.8 + 0.4 * self.noise(p, 48.0, 32))[:, None]
        return _mix(_colour("efe3c8"), _colour("2d5b45"), checks) * mottle

    def cork(self, p: Array) -> Array:
        """Cork lid."""
        return _mix(_colour("b98a58"), _colour("6e4a2b"), _step(0.35, 0.8, self.noise(p, 55.0, 33)))
