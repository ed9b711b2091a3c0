"""Filling of hollow bodies with particles: volumes against closed forms, and none outside."""

import math
from dataclasses import replace

import pytest
import torch

from vision3d.geometry import shapes
from vision3d.geometry.mesh import volume
from vision3d.scene import GaussianScene, Mesh, MeshGaussians
from vision3d.stages.simulate import simulate_frames
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.scene import filling
from vision3d.stages.simulate.scene.filling import Surface, _samples, fill_mesh, fill_surface
from vision3d.stages.simulate.setup.builder import set_up

SPHERE = shapes.icosphere(4), 4 / 3 * math.pi, lambda p: p.norm(dim=-1) - 1
TORUS = (
    shapes.torus(1.0, 0.35, 72, 36),
    2 * math.pi**2 * 0.35**2,
    lambda p: ((p[:, :2].norm(dim=-1) - 1).square() + p[:, 2].square()).sqrt() - 0.35,
)


def shell(mesh) -> GaussianScene:
    return MeshGaussians.from_mesh(Mesh(*mesh), 6).to_gaussians()


def surface(scene, shift=0.0):
    return Surface(scene.means.double() + shift, scene.quats, scene.scales, scene.opacities)


@pytest.mark.parametrize(("body", "cells"), [(SPHERE, 12), (SPHERE, 32), (TORUS, 20), (TORUS, 40)])
def test_shells_are_filled_to_their_volume(body, cells):
    """Within 3 % for any offset of the lattice; no particle outside, 8 per cell."""
    mesh, want, outside = body
    scene = shell(mesh)
    spacing = float((mesh[0].amax(0) - mesh[0].amin(0)).max()) / cells
    for shift in (0.0, 0.37 * spacing, 5.21 * spacing):
        found = fill_surface(surface(scene, shift), spacing)
        assert found is not None
        assert abs(found.volume / want - 1) < 0.03
        beyond = outside(found.points - shift)
        assert beyond.max() < 0.02 * spacing  # for discs that touch the surface
        assert (beyond > -0.05 * spacing).sum() < 0.02 * len(beyond)
        assert (found.surface_volumes > 0).all()
        share = found.point_volumes * 8 / spacing**3  # a few cells also contain a splat center
        assert share.max() < 1 + 1e-9 and share.median() > 1 - 1e-9


@pytest.mark.parametrize(("body", "cells"), [(SPHERE, 16), (TORUS, 24)])
def test_meshes_are_filled_to_their_volume(body, cells):
    mesh, _, outside = body
    spacing = float((mesh[0].amax(0) - mesh[0].amin(0)).max()) / cells
    found = fill_mesh(mesh[0].double(), mesh[1], spacing)
    assert found is not None
    assert found.volume == pytest.approx(float(volume(*mesh)), rel=1e-6)
    assert outside(found.points).max() < 0.01 * spacing  # chords of the mesh
    assert found.num_enclosed * spacing**3 / 8 == pytest.approx(found.volume, rel=0.05)


def test_the_number_of_lattice_cells_is_limited(monkeypatch):
    """However fine the grid: memory is bounded, and the volume unchanged."""
    monkeypatch.setattr(filling, "_MAX_CELLS", 40_000)
    mesh, want, outside = SPHERE
    for found in (fill_surface(surface(shell(mesh)), 0.01), fill_mesh(mesh[0].double(), mesh[1], 0.01)):
        assert found is not None and 5_000 < len(found.points) < 40_000
        assert abs(found.volume / want - 1) < 0.03 and outside(found.points).max() < 0.01


def test_the_volume_does_not_depend_on_the_number_of_splats():
    coarse, fine = (shell(shapes.icosphere(n)) for n in (3, 5))
    assert len(fine) == 16 * len(coarse)
    volumes = [fill_surface(surface(scene), 2 / 16).volume for scene in (coarse, fine)]
    assert abs(volumes[0] / volumes[1] - 1) < 0.03


def test_small_gaps_are_closed_and_large_ones_prevent_filling():
    scene, spacing = shell(shapes.icosphere(4)), 2 / 16
    height = scene.means[:, 2]
    whole = fill_surface(surface(scene), spacing).volume
    small = fill_surface(surface(scene[height < math.cos(0.06)]), spacing)
    assert abs(small.volume / whole - 1) < 0.03
    assert small.num_enclosed > 0
    assert fill_surface(surface(scene[height < math.cos(1.0)]), spacing).num_enclosed == 0


def test_the_floor_closes_bodies_on_it():
    scene, spacing = shell(shapes.icosphere(4)), 2 / 16
    half = scene[scene.means[:, 2] > 0.02]
    up = torch.tensor([0.0, 0, 1]).double()
    assert fill_surface(surface(half), spacing).num_enclosed == 0
    found = fill_surface(surface(half), spacing, (up, 0.0))
    assert found.volume == pytest.approx(2 / 3 * math.pi, rel=0.06)
    assert found.points[:, 2].min() > 0 and found.points.norm(dim=-1).max() < 1


def test_transparent_splats_enclose_nothing():
    scene = shell(shapes.icosphere(3))
    faint = replace(scene, opacity_logits=torch.full_like(scene.opacity_logits, -6.0), means=scene.means * 3)
    assert fill_surface(surface(faint), 1.0) is None


def test_a_splat_extends_to_two_standard_deviations():
    """The number of its samples is bounded, whatever its size."""
    scene = shell(shapes.icosphere(3))
    huge = replace(scene, log_scales=scene.log_scales.clone().index_fill_(0, torch.tensor([0]), math.log(50.0)))
    found = list(_samples(surface(huge), 1 / 16))
    assert sum(len(points) for points, _, _ in found) <= 81 * len(scene) + 33**2
    reach = torch.cat([(points - huge.means[0].double()).norm(dim=-1) for points, _, _ in found])
    assert 50 < reach.max() < 2 * 2**0.5 * 50 + 2


def test_splats_that_extend_far_create_nothing_outside_a_body():
    """Samples outside the lattice must not be counted in its outermost cells, which would create walls and outer particles."""
    scene, spacing = shell(SPHERE[0]), 2 / 16
    lowest = scene.means[:, 2].argmin()
    log_scales, quats, opacity_logits = scene.log_scales.clone(), scene.quats.clone(), scene.opacity_logits.clone()
    log_scales[lowest], quats[lowest] = torch.tensor([0.0, -3.0, 0.0]), torch.tensor([1.0, 0, 0, 0])
    opacity_logits[lowest] = 4.0
    long = replace(scene, log_scales=log_scales, quats=quats, opacity_logits=opacity_logits)
    found, want = fill_surface(surface(long), spacing), fill_surface(surface(scene), spacing)
    assert found is not None and want is not None
    assert found.points.abs().max() < 1 + spacing
    assert found.volume < 1.1 * want.volume
    config = SimulateConfig(frames=1, cells=16, up=(0.0, 0.0, 1.0), floor="below", engine="native")
    assert len(list(simulate_frames(config, long))) == 1


def test_a_filled_shell_keeps_its_shape_and_a_hollow_one_collapses():
    """Height of a sphere of jelly placed on the floor after half a second.

    The wall of a shell is one grid cell thick. With 8 cells across the sphere it supports it, with 10 it yields slowly after
    half a second, and with 12 and more it collapses at once.
    """
    scene = shell(shapes.icosphere(4, 0.15))
    config = SimulateConfig(frames=12, cells=12, up=(0.0, 0.0, 1.0), floor="below", engine="auto", max_particles=4000)
    heights = {}
    for fill in ("none", "density"):
        means = list(simulate_frames(replace(config, fill=fill), scene))[-1].channels["means"]
        heights[fill] = float(means[:, 2].max() - means[:, 2].min()) / 0.3
    assert heights["density"] > 0.8
    assert heights["none"] < 0.6


def test_filled_particles_are_not_rendered():
    scene = shell(shapes.icosphere(3))
    setup = set_up(scene, SimulateConfig(cells=16, up=(0.0, 0.0, 1.0), floor="below"))
    assert setup.num_inside > 1000
    assert len(setup.particles) == setup.num_inside + len(scene)
    assert len(setup.core_rows) + len(setup.followers.rows) == len(scene)
    mass = float(setup.particles.mass.double().sum())
    assert mass == pytest.approx(1000 * 4 / 3 * math.pi, rel=0.03)


def test_a_rod_thinner_than_a_cell_has_approximately_its_volume():
    """Diameter 0.2 h: its lattice cells have 8 times its volume."""
    spacing, radius, length = 0.1, 0.01, 1.0
    count = 60
    means = torch.zeros(count, 3)
    means[:, 2] = torch.linspace(0, length, count)
    scale = torch.tensor([radius / 2, radius / 2, length / count])
    rod = Surface(means, torch.tensor([1.0, 0, 0, 0]).expand(count, 4), scale.expand(count, 3), torch.full((count,), 0.95))
    found = fill_surface(rod, spacing)
    assert 0.5 < found.volume / (math.pi * radius**2 * length) < 2
    assert found.thin_share == 1.0


def test_points_thinner_than_a_cell_are_counted():
    """A sphere with a stick: only the stick."""
    scene, spacing = shell(shapes.icosphere(4)), 2 / 16
    assert fill_surface(surface(scene), spacing).thin_share < 0.01
    line = torch.zeros(500, 3)
    line[:, 2] = torch.linspace(1.0, 2.5, 500)
    stick = GaussianScene.from_points(line, opacity=0.9, mode=scene.mode)
    both = replace(scene, sh=scene.sh[:, :1]).merge(stick)
    assert fill_surface(surface(both), spacing).thin_share == pytest.approx(500 / len(both), rel=0.2)
