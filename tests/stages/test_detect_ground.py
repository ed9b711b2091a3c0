"""The ground of a sweep: planes with vehicles and walls on them, real sweeps, and degenerate ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.stages.detect.config import GROUND
from vision3d.stages.detect.data.sweeps import LabelledSweep
from vision3d.stages.detect.ground import ground_plane, level_transform, levelled


def street(slope=(0.0, 0.0), height=1.7, seed=0, hidden=0.3):
    """Rings on a plane, some hidden below boxes of 1.5 m, with a wall on one side and points below the ground."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(3, 40, 20_000)
    angle = rng.uniform(-math.pi, math.pi, 20_000)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    z = slope[0] * x + slope[1] * y - height + rng.normal(0, 0.02, len(x))
    block = (np.floor(x / 4) * 31 + np.floor(y / 4) * 17) % 100
    z[block < 100 * hidden] += rng.uniform(0.5, 1.5, int((block < 100 * hidden).sum()))
    z[y > 15] += rng.uniform(0, 4, int((y > 15).sum()))
    z[:40] -= 2
    return torch.from_numpy(np.column_stack([x, y, z])).float()


@given(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05), st.floats(0.3, 3), st.integers(0, 5))
def test_planes_are_found(a, b, height, seed):
    plane = ground_plane(street((a, b), height, seed))
    assert math.hypot(plane[0] - a, plane[1] - b) < 0.01
    assert abs(plane[2] + height) < 0.08


def test_levelling_takes_the_ground_to_its_height():
    points = street((0.03, -0.04), 2.1)
    matrix = level_transform((0.03, -0.04, -2.1))
    assert torch.allclose(matrix[:3, :3] @ matrix[:3, :3].T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    x, y = torch.meshgrid(
        torch.linspace(-9, 9, 5, dtype=torch.float64), torch.linspace(-9, 9, 5, dtype=torch.float64), indexing="ij"
    )
    ground = torch.stack([x, y, 0.03 * x - 0.04 * y - 2.1], -1).reshape(-1, 3)
    assert torch.allclose((ground @ matrix[:3, :3].T + matrix[:3, 3])[:, 2], torch.tensor(GROUND, dtype=torch.float64))
    sweep = LabelledSweep(torch.cat([points, points[:, :1]], 1), torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
    assert abs(ground_plane(levelled(sweep).points[:, :3])[2] - GROUND) < 0.05


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_points_have_a_level_ground(count):
    points = torch.rand(count, 3) * 5 + 2
    a, b, c = ground_plane(points)
    assert (a, b) == (0, 0)
    assert c == GROUND if count == 0 else c >= 2


@pytest.mark.parametrize("name, height", [("kitti/velodyne/000000.bin", 1.73), ("kitti/velodyne/000001.bin", 1.73)])
def test_the_sensor_of_kitti_is_where_it_is_mounted(shared_data, name, height):
    points = np.fromfile(shared_data / name, "<f4").reshape(-1, 4)[:, :3]
    a, b, c = ground_plane(torch.from_numpy(points))
    assert abs(c + height) < 0.1
    assert math.degrees(math.hypot(a, b)) < 2.5
