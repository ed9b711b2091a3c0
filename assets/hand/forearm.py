"""A forearm that goes on from the wrist, for rendering: rings of 16 vertices and a round end."""

import numpy as np
from anatomy import Array, Ints

RINGS = ((0.012, 29.0, 19.5), (0.030, 29.5, 20.5), (0.055, 31.5, 23.5), (0.085, 35.0, 28.0), (0.120, 39.0, 33.0),
         (0.160, 42.5, 37.5), (0.200, 44.0, 40.0), (0.225, 42.5, 39.0), (0.238, 34.0, 31.0))  # fmt: skip
"""Distance from the wrist's border [m], half the breadth and half the thickness [mm]."""


def forearm(vertices: Array, ring: Ints) -> tuple[Array, Ints, Array]:
    """Vertices beyond those of the hand, faces that index the hand's vertices and then these, and uvs of their corners.

    Args:
        vertices: Of the hand.
        ring: Its border, counter-clockwise seen from the fingers.
    """
    border, count = vertices[ring], len(ring)
    middle = np.array([(border[:, 0].max() + border[:, 0].min()) / 2, border[0, 1], border[:, 2].mean()])
    offset = border - middle
    angles = np.arctan2(offset[:, 2] / np.ptp(border[:, 2]), offset[:, 0] / np.ptp(border[:, 0]))
    points = []
    for along, breadth, thickness in RINGS:
        share = min(1.0, along / 0.04)  # from the border's own outline to an ellipse
        half = np.stack([breadth * np.cos(angles), np.zeros(count), thickness * np.sin(angles)], -1) / 1000
        points.append(middle + (1 - share) * offset * [1, 0, 1] + share * half - [0, along, 0])
    points.append(middle[None] - [0, RINGS[-1][0] + 0.006, 0])
    rows = np.concatenate([ring[None], len(vertices) + np.arange(count * len(RINGS)).reshape(len(RINGS), count)])
    lengths = np.array([0.0, *(along for along, *_ in RINGS)]) / (RINGS[-1][0] + 0.006)
    faces, uvs = [], []
    for level in range(len(RINGS)):
        for k in range(count):
            after = (k + 1) % count
            a, b, c, d = rows[level, k], rows[level, after], rows[level + 1, after], rows[level + 1, k]
            u0, u1, v0, v1 = k / count, (k + 1) / count, lengths[level], lengths[level + 1]
            faces += [(a, c, b), (a, d, c)]
            uvs += [((u0, v0), (u1, v1), (u1, v0)), ((u0, v0), (u0, v1), (u1, v1))]
    end = len(vertices) + count * len(RINGS)
    for k in range(count):
        u0, u1 = k / count, (k + 1) / count
        faces.append((rows[-1, k], end, rows[-1, (k + 1) % count]))
        uvs.append(((u0, lengths[-1]), ((u0 + u1) / 2, 1.0), (u1, lengths[-1])))
    return np.concatenate(points), np.array(faces), np.array(uvs)
