import math

import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import paths, se3
from vision3d.geometry.cameras import look_at
from vision3d.geometry.rotation import geodesic_distance

UP = torch.tensor([0.0, 0, 1])


def is_rigid(poses):
    rotmats = poses[:, :3, :3]
    torch.testing.assert_close(rotmats.mT @ rotmats, torch.eye(3).to(poses).expand_as(rotmats), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotmats) > 0).all()
    assert (poses[:, 3] == torch.tensor([0.0, 0, 0, 1])).all()


def test_orbit_is_a_circle_that_looks_at_its_center():
    center, up = torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 2, 0])
    poses = paths.orbit(center, 4.0, elevation=0.5, num=12, up=up, start=torch.tensor([1.0, 5, 0]))
    is_rigid(poses)
    offsets = poses[:, :3, 3] - center
    torch.testing.assert_close(offsets.norm(dim=-1), torch.full((12,), 4.0))
    torch.testing.assert_close(offsets[:, 1], torch.full((12,), 4 * math.sin(0.5)))
    torch.testing.assert_close(poses[:, :3, 2], -offsets / 4)
    assert (poses[:, 1, 1] < 0).all()  # the image's down is not the world's up
    torch.testing.assert_close(offsets[0], 4 * torch.tensor([math.cos(0.5), math.sin(0.5), 0]))
    # Counter-clockwise seen from above, equal steps, the last one closes the loop.
    steps = torch.linalg.cross(offsets, offsets.roll(-1, 0))
    torch.testing.assert_close(steps[:, 1], torch.full((12,), (4 * math.cos(0.5)) ** 2 * math.sin(math.pi / 6)))


def test_spiral_looks_at_one_point_and_loops():
    middle = look_at(torch.tensor([0.0, -3, 1]), torch.zeros(3), UP)
    poses = paths.spiral(middle, 2.0, (0.3, 0.2, 0.1), num=24)
    is_rigid(poses)
    focus = se3.transform_points(middle, torch.tensor([[0.0, 0, 2]]))
    directions = torch.nn.functional.normalize(focus - poses[:, :3, 3], dim=-1)
    torch.testing.assert_close(poses[:, :3, 2], directions)
    local = se3.transform_points(se3.inverse(middle), poses[:, :3, 3])
    torch.testing.assert_close((local[:, :2] / torch.tensor([0.3, 0.2])).norm(dim=-1), torch.ones(24))
    assert (local.diff(dim=0).norm(dim=-1) < 0.3).all()
    assert (local[0] - local[-1]).norm() < 0.3


@pytest.mark.parametrize("is_loop", [False, True])
def test_flight_passes_through_all_poses(is_loop):
    keys = se3.exp(torch.randn(6, 6, dtype=torch.float64))
    path = paths.interpolate_poses(keys, 4000, is_loop)
    is_rigid(path)
    for key in keys:
        near = (path[:, :3, 3] - key[:3, 3]).norm(dim=-1) + geodesic_distance(path[:, :3, :3], key[:3, :3])
        assert near.min() < 0.01
    torch.testing.assert_close(path[0], keys[0])
    if is_loop:
        assert (path[-1] - path[0]).abs().max() < 0.02
    else:
        torch.testing.assert_close(path[-1], keys[-1])
    # No jumps and no corners in the positions: the second difference is small compared to the first.
    velocity = path[:, :3, 3].diff(dim=0)
    assert velocity.diff(dim=0).norm(dim=-1).max() < 0.05 * velocity.norm(dim=-1).max()


def test_flight_along_a_line_has_even_speed():
    keys = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    keys[:, 0, 3] = torch.tensor([0.0, 1, 10, 12])  # uneven spacing
    path = paths.interpolate_poses(keys, 25)
    torch.testing.assert_close(path[:, 0, 3], torch.linspace(0, 12, 25).double())


def test_flight_passes_equal_and_purely_rotating_poses():
    keys = torch.eye(4).repeat(3, 1, 1)
    keys[2, 0, 3] = 1
    assert paths.interpolate_poses(keys, 10).isfinite().all()
    turning = se3.exp(torch.tensor([[0.0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]]))
    path = paths.interpolate_poses(turning, 11)
    torch.testing.assert_close(path[5], se3.exp(torch.tensor([0.0, 0, 0, 0, 0, 0.5])))


def test_focus_point_is_where_rays_meet():
    target, origins = torch.tensor([0.5, -1.0, 2.0]), torch.randn(8, 3)
    torch.testing.assert_close(paths.focus_point(origins, 3 * (target - origins)), target, atol=1e-5, rtol=0)
    # Two skew lines: the midpoint of the shortest segment between them.
    origins, directions = torch.tensor([[0.0, 5, 0], [7, 0, 2]]), torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    torch.testing.assert_close(paths.focus_point(origins, directions), torch.tensor([0.0, 0, 1]), atol=1e-6, rtol=0)
    parallel = paths.focus_point(origins, torch.tensor([[0.0, 0, 1], [0, 0, 1]]))
    torch.testing.assert_close(parallel, origins.mean(0))


def test_mean_up_of_upright_cameras():
    poses = paths.orbit(torch.zeros(3), 2.0, 0.7, 16)
    torch.testing.assert_close(paths.mean_up(poses), UP, atol=1e-6, rtol=0)
    opposed = torch.stack([torch.eye(4), torch.diag(torch.tensor([-1.0, -1, 1, 1]))])
    torch.testing.assert_close(paths.mean_up(opposed), UP)


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match=r"camtoworlds: got shape \(1, 4, 4\), want at least 2 poses"):
        paths.interpolate_poses(torch.eye(4)[None])
    with pytest.raises(InputError, match="all poses are the same"):
        paths.interpolate_poses(torch.eye(4).repeat(3, 1, 1))
    with pytest.raises(InputError, match="num: got 0"):
        paths.orbit(torch.zeros(3), 1.0, num=0)
    with pytest.raises(InputError, match=r"focus: got 0\.05, want more than the forward radius 0.1"):
        paths.spiral(torch.eye(4), 0.05)
    with pytest.raises(ShapeError, match="at least 2 lines"):
        paths.focus_point(torch.zeros(1, 3), torch.ones(1, 3))
