"""What an engine of the user's may leave out: the table of docs/simulate.md on engines that only move points."""

import math
from dataclasses import replace

import pytest
import torch

from tests.stages.test_simulate import QUICK, cube, frames_of
from vision3d.geometry import shapes
from vision3d.geometry.rotation import so3_exp
from vision3d.scene import Mesh
from vision3d.stages.simulate.engines import Engine
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.simulation import Simulation
from vision3d.stages.simulate.world.world import Advance

TURN = math.pi / 2  # a second, about the vertical through the origin


class Turning(Engine):
    """Turns positions, and leaves velocities and deformations as they are."""

    name = "turning"
    particles = None

    def __init__(self, particles, world):
        super().__init__(particles, world)
        self.particles, self.calls = particles, 0

    def update(self, **values):
        self.particles = self.particles.replace(**values)

    def advance(self, duration, time=0.0, max_dt=math.inf):
        self.calls += 1
        assert self.calls == 1  # one call a frame here: each frame has a new engine, which knows only the particles
        self.update(x=self.particles.x @ rotation(duration).to(self.particles.x).T)
        return Advance(1, duration, duration, num_kept=0)


def rotation(seconds):
    return so3_exp(torch.tensor([0.0, 0.0, TURN * seconds], dtype=torch.float64))


def config(**more):
    module = f"{__name__}:Turning"
    return replace(QUICK, engine=module, up=(0.0, 0.0, 1.0), floor="none", drop=0.0, room=3.0, **more)


def covariances(frame):
    return frame.channels["covar_factors"].double() @ frame.channels["covar_factors"].double().mT


@pytest.mark.parametrize("representation", ["fdrive", "points3"])
def test_gaussians_turn_only_with_their_corners(representation):
    """Shapes follow F_total, of points3 the positions of corners."""
    scene = cube(side=5)
    first, *_, last = frames_of(scene, config(representation=representation))
    turn = rotation(last.time)
    torch.testing.assert_close(last.channels["means"].double(), scene.means.double() @ turn.T, atol=1e-4, rtol=0)
    before, after = covariances(first), covariances(last)
    want = turn @ before @ turn.T if representation == "points3" else before
    assert (after - want).abs().amax() < 1e-3 * before.abs().amax() < 0.1 * (turn @ before @ turn.T - before).abs().amax()
    quats = last.channels["turns"]  # view-dependent colors do not turn
    assert torch.equal(quats, torch.tensor([1.0, 0, 0, 0]).expand_as(quats))


def test_meshes_follow_positions():
    vertices, faces = shapes.icosphere(2)
    last = frames_of(Mesh(0.5 * vertices, faces), config())[-1]
    want = 0.5 * vertices.double() @ rotation(last.time).T
    torch.testing.assert_close(last.channels["vertices"].double(), want, atol=1e-4, rtol=0)


def test_energies_and_impulses_need_velocities_and_deformations():
    for frame in frames_of(cube(side=5), config(velocity=(1.0, 0.0, 0.0))):
        mass = frame.metrics["kinetic_J"] * 2  # at 1 m/s
        assert frame.metrics["momentum_kg_m_s"] == pytest.approx(mass, rel=1e-4) and mass > 0  # those of the start
        assert frame.metrics["elastic_J"] == 0


def test_a_run_without_hidden_state_resumes():
    scene = cube(side=5)
    whole = frames_of(scene, config())
    first, second = (Simulation(set_up(scene, config()), config()) for _ in range(2))
    for _ in range(2):
        first.step()
    second.restore(first.state())
    assert torch.equal(second.step().channels["means"], whole[2].channels["means"])
