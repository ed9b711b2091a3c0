"""A colored sphere as a mesh, and images of it."""

from dataclasses import replace
from pathlib import Path

import torch

from tests.support.photos import ring, write_photos
from vision3d.geometry import shapes
from vision3d.io.images import write_image
from vision3d.render import render_scene
from vision3d.scene import Cameras, Mesh


def ball(subdivisions: int = 2, radius: float = 0.6) -> Mesh:
    """A sphere with colors that depend on position."""
    vertices, faces = shapes.icosphere(subdivisions, radius)
    return Mesh(vertices, faces, vertex_colors=0.5 + 0.4 * vertices / radius)


def bare(mesh: Mesh) -> Mesh:
    """Without colors."""
    return replace(mesh, vertex_colors=None)


def photos_of(mesh: Mesh, folder: Path, count: int = 12, size: int = 48, **options) -> Path:
    """A data set of images of a mesh, two of them held out; see `write_photos`."""
    return write_photos(folder, scene=mesh, cameras=ring(count, size), **{"held_out": (2, 7), "with_alpha": True, **options})


def write_cut_out(path: Path, mesh: Mesh, camera: Cameras) -> Path:
    """One image of a mesh with an alpha channel."""
    view = next(render_scene(mesh, camera, shading="none"))
    color = view.image / view.alpha[..., None].clamp(min=1e-3)
    write_image(path, torch.cat([color, view.alpha[..., None]], -1))
    return path
