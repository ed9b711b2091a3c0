"""Scenes of unusual shapes and sizes with random options move and stay finite."""

import logging
import random

import pytest
import torch

from vision3d.core.errors import ConfigError
from vision3d.scene import FrameSequence, GaussianScene
from vision3d.stages.simulate import SimulateConfig, load_material
from vision3d.stages.simulate.scene.representations import represent
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.simulation import Simulation

SHAPES = ("ball", "shell", "plane", "line", "same", "far")


def scene_of(shape, rng):
    """1 to 2000 Gaussians, 1 mm to 30 m large, some far from the origin."""
    count = rng.choice([1, 2, 3, 5, 30, 300, 2000])
    points = torch.rand(count, 3)
    if shape == "shell":
        points = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    elif shape == "plane":
        points[:, 2] = 0
    elif shape == "line":
        points[:, 1:] = 0
    elif shape == "same":
        points[:] = 0.3
    elif shape == "far":
        points[0] = 1e4
    points = points * rng.choice([1e-3, 1.0, 30.0]) + rng.choice([0.0, 100.0])
    options = {
        "opacity": rng.choice([0.03, 0.9]),
        "sh_degree": rng.choice([0, 2]),
        "mode": rng.choice(["3dgs", "2dgs", "flat"]),
    }
    return GaussianScene.from_points(points, **options)


def config_of(rng):
    return SimulateConfig(
        load_material(rng.choice(["jelly", "sand", "water", "snow", "metal", "foam", "rubber"])),
        frames=3,
        fps=100.0,
        cells=rng.choice([None, 2, 9]),
        floor=rng.choice(["auto", "below", "none"]),
        drop=rng.choice([0.0, 0.3]),
        share=rng.choice([1.0, 0.3]),
        grouping=rng.choice(["followers", "hierarchy", "auto", "tracers"]),
        representation=rng.choice(["auto", "auto", "points3"]),
        max_particles=rng.choice([None, 50]),
        flatten=rng.choice([True, False]),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_unusual_scenes_move(shape, caplog):
    caplog.set_level(logging.CRITICAL, "vision3d.physics")
    moved = 0
    for seed in range(16):
        torch.manual_seed(seed)
        rng = random.Random(f"{shape}{seed}")
        scene, config = scene_of(shape, rng), config_of(rng)
        if config.representation == "points3" and config.grouping in ("hierarchy", "tracers"):
            with pytest.raises(ConfigError, match="grouping: "):
                set_up(scene, config)
            continue
        setup = set_up(scene, config)
        low, high = setup.world.grid.bounds(setup.particles.x)
        assert ((setup.particles.x >= low) & (setup.particles.x <= high)).all(), seed
        frames = list(Simulation(setup, config).frames())
        base = represent(scene, config).base
        last = FrameSequence(base, torch.zeros(1), {name: value[None] for name, value in frames[-1].channels.items()}).frame(0)
        assert isinstance(last, GaussianScene) and len(last.validate()) == len(scene), seed
        moved += 1
    assert moved >= 8
