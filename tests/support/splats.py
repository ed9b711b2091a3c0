"""Scenes for tests of file formats, and comparison of two scenes."""

import gzip
from dataclasses import replace

import numpy as np
import torch

from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.scene import GaussianScene


def small_scene(degree=3, count=300, seed=0, **changes):
    """Values of realistic size: within 4 m, scales of 1 mm to 1 m, harmonics within 0.9."""
    generator = torch.Generator().manual_seed(seed + degree)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    sh = (draw(count, (degree + 1) ** 2, 3) - 0.5) * 1.8
    scene = GaussianScene(
        (draw(count, 3) - 0.5) * 8,
        torch.randn(count, 4, generator=generator) * 3,
        draw(count, 3) * 6.9 - 6.9,
        draw(count) * 10 - 5,
        sh,
    )
    return replace(scene, **changes)


def paired(read, scene):
    """`read` in the order of `scene`, matched by centers, as writers may sort."""
    nearest = torch.cdist(scene.means.double(), read.means.double()).argmin(1)
    assert len(nearest.unique()) == len(scene)
    return read[nearest]


def differences(read, scene):
    """Maximum absolute difference of each attribute; for rotations, of their matrices up to flipped axes."""
    a, b = (quat_to_rotmat(s.quats.double()) for s in (read, scene))
    cosines = torch.einsum("nij,nij->nj", a, b).abs()  # between the axes of the ellipsoids
    return {
        "means": float((read.means - scene.means).abs().max()),
        "angle": float(cosines.clamp(max=1).acos().max()),
        "log_scales": float((read.log_scales - scene.log_scales).abs().max()),
        "opacities": float((read.opacities - scene.opacities).abs().max()),
        "sh0": float((read.sh[:, 0] - scene.sh[:, 0]).abs().max()),
        "rest": float((read.sh[:, 1:] - scene.sh[:, 1:]).abs().max()) if scene.sh.shape[1] > 1 else 0.0,
    }


def assert_close(read, scene, **steps):
    """Each attribute agrees within its step; mode and antialiasing are the same."""
    found = differences(read, scene)
    wrong = {name: (found[name], step) for name, step in steps.items() if not found[name] <= step}
    assert not wrong, f"found, step: {wrong}"
    assert (read.mode, read.antialiased) == (scene.mode, scene.antialiased)


def gunzipped(path):
    """Uncompressed bytes of a gzip file, to be changed."""
    return bytearray(gzip.decompress(path.read_bytes()))


def put(path, data):
    """Writes bytes, compressed with gzip for .spz before version 4."""
    path.write_bytes(gzip.compress(bytes(data), 1) if path.suffix == ".spz" else bytes(data))


def words(data, place, kind="<u4"):
    """One number of a file."""
    return np.frombuffer(bytes(data), kind, 1, place)[0]
