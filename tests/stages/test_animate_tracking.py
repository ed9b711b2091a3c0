"""Node motions that track given vertices: exact where possible; hybrid skinning where few nodes are insufficient."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support.clips import worm
from vision3d.core.errors import InputError, ShapeError
from vision3d.core.progress import silent
from vision3d.geometry import shapes
from vision3d.geometry.rotation import so3_exp
from vision3d.scene import Mesh
from vision3d.stages.animate.dynamic.config import AnimateConfig, FieldConfig
from vision3d.stages.animate.dynamic.motion import all_vertices
from vision3d.stages.animate.dynamic.tracking import fit_vertices


def error(config: AnimateConfig, mesh: Mesh, vertices: Tensor) -> float:
    """Mean distance from the given vertices, relative to the bounding box diagonal."""
    times = torch.arange(len(vertices), dtype=torch.float64)
    found = all_vertices(fit_vertices(config, mesh, vertices, times, progress=silent), times)
    return float((found - vertices).norm(dim=-1).mean() / (mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())


@pytest.mark.parametrize("method", ["lbs", "dqs", "hybrid"])
def test_rigid_motions_are_exact(method):
    """Rotations over 180 degrees between frames do not matter, nor does the skinning method."""
    vertices, faces = shapes.torus()
    angles = torch.tensor([0.0, 1.0, 2.5, 4.0])[:, None] * torch.tensor([0.5, 0.7, -0.2])
    moved = vertices @ so3_exp(angles).mT + torch.tensor([1.0, 2.0, 3.0])
    assert error(AnimateConfig(nodes=9, method=method, steps=0), Mesh(vertices, faces), moved) < 1e-6


def test_a_bend_is_tracked_and_more_nodes_track_it_better():
    clip = worm(frames=4, cameras=1, bend=1.5)
    one, few, many = (error(AnimateConfig(nodes=n, steps=100), clip.mesh, clip.vertices) for n in (1, 8, 64))
    assert many < 0.001 and many < 0.3 * few and few < 0.2 * one


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("kind", ["twist", "bend"])
def test_hybrid_is_as_good_as_the_better_of_both_methods(kind, nodes):
    """With few nodes, twists need dual quaternions and bends need linear skinning."""
    rest, faces = shapes.cylinder(0.5, 4.0, 12, caps=False)
    z = torch.linspace(-2, 2, 31)
    rest = torch.cat([rest[rest[:, 2] < 0][:, :2].repeat(31, 1), z.repeat_interleave(12)[:, None]], -1)
    faces = shapes._grid_faces(31, 12, wrap_rows=False, wrap_columns=True)
    share = ((rest[:, 2] + 1) / 2).clamp(0, 1)
    x, y = rest[:, 0], rest[:, 1]
    if kind == "twist":
        angle = math.radians(150) * share
        target = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos(), rest[:, 2]], -1)
    else:
        full = math.radians(90)
        radius, angle, beyond = 2 / full, full * share, rest[:, 2] - rest[:, 2].clamp(-1, 1)
        along, across = (radius - x) * angle.sin() + beyond * angle.cos(), radius - (radius - x) * angle.cos()
        target = torch.stack([across + beyond * angle.sin(), y, along], -1)
    config = AnimateConfig(nodes=nodes, steps=500)
    found = {m: error(replace(config, method=m), Mesh(rest, faces), target[None]) for m in ("lbs", "dqs", "hybrid")}
    assert found["hybrid"] <= 1.05 * min(found["lbs"], found["dqs"]), found


def test_wrong_input():
    clip = worm(frames=3, cameras=1)
    with pytest.raises(ShapeError, match="vertices"):
        fit_vertices(AnimateConfig(), clip.mesh, clip.vertices[:2], clip.times)
    with pytest.raises(InputError, match=r"motion\.kind: got mlp, want discrete"):
        fit_vertices(replace(AnimateConfig(), motion=FieldConfig(kind="mlp")), clip.mesh, clip.vertices, clip.times)


def test_vertices_with_gradients_are_constants():
    clip = worm(frames=3)
    config = AnimateConfig(nodes=6, steps=3)
    vertices = clip.vertices * torch.ones((), requires_grad=True)
    found = fit_vertices(config, clip.mesh, vertices, clip.times, progress=silent)
    assert torch.equal(
        found.vertices(clip.times), fit_vertices(config, clip.mesh, clip.vertices, clip.times).vertices(clip.times)
    )
