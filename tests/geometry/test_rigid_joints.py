"""Joints from moving vertices: rigid parts are found exactly, weights are sparse and a partition of unity, errors decrease."""

import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import quaternion, shapes
from vision3d.geometry.rigid_joints import fit_rigid_joints
from vision3d.geometry.skinning import skin

F64 = {"dtype": torch.float64}


def boxes(frames=9):
    """Three boxes in a row, each with its own rigid motion in every frame."""
    one = shapes.box((0.8, 1.0, 1.5), 3, torch.float64)[0]
    rest = torch.cat([one + torch.tensor([2.0 * i, 0, 0], **F64) for i in range(3)])
    rotmats = quaternion.quat_to_rotmat(quaternion.random_quats(frames, 3).double())
    shifts = torch.randn(frames, 3, 3, **F64)
    moved = torch.cat([one @ rotmats[:, i].mT + shifts[:, i, None] for i in range(3)], 1)
    return rest, moved


def beam(joints=4, frames=8):
    """A beam whose slices are blended linearly between two joints each; small random rotations."""
    rest = shapes.box((4.0, 1.0, 1.0), 12, torch.float64)[0]
    place = (rest[:, 0] + 2) / 4 * (joints - 1)
    rest = rest + 0.05 * torch.rand(rest.shape, **F64)  # breaks symmetries
    low = place.floor().clamp(max=joints - 2)
    indices = torch.stack([low, low + 1], 1).long()
    weights = torch.stack([1 - (place - low), place - low], 1)
    quats = quaternion.normalize(torch.tensor([3.0, 0, 0, 0], **F64) + 0.7 * torch.randn(frames, joints, 4, **F64))
    shifts = 0.2 * torch.randn(frames, joints, 3, **F64)
    return rest, skin(rest, weights, indices, quats, shifts, method="lbs"), weights, indices


def placed(rest, found):
    return skin(rest, found.weights, found.indices, found.quats, found.translations, centers=found.centers, method="lbs")


def worst(rest, moved, found):
    return float((placed(rest, found) - moved).norm(dim=-1).max())


def test_rigid_parts_are_found():
    rest, moved = boxes()
    found = fit_rigid_joints(rest, moved, 3)
    assert len(found.centers) == 3 and worst(rest, moved, found) <= 1e-7
    owners = found.indices.gather(1, found.weights.argmax(1, keepdim=True)).view(3, -1)
    assert (owners == owners[:, :1]).all() and len(owners[:, 0].unique()) == 3
    torch.testing.assert_close(found.centers.sort(0).values[:, 0], torch.tensor([0.0, 2, 4], **F64), atol=1e-3, rtol=0)


def test_no_more_joints_than_needed():
    rest, moved = boxes()
    assert len(fit_rigid_joints(rest, moved, 20).centers) == 3


@pytest.mark.parametrize("influences", [1, 2, 4, 6])
def test_weights_are_sparse_and_a_partition(influences):
    rest, moved, _, _ = beam()
    found = fit_rigid_joints(rest, moved, 8, influences=influences)
    assert found.weights.shape[1] <= influences and (found.weights >= 0).all()
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(rest), **F64))
    assert found.indices.min() >= 0 and found.indices.max() < len(found.centers)


def test_more_joints_influences_and_rounds_fit_better():
    """A beam that twists evenly by up to 360 degrees; no part of it is rigid."""
    rest, _, _, _ = beam()
    angles = torch.linspace(0, 2 * torch.pi, 9, **F64)[:, None] * (rest[:, 0] + 2) / 4
    cos, sin, (x, y, z) = angles.cos(), angles.sin(), rest.T
    moved = torch.stack([x.expand_as(cos), cos * y - sin * z, sin * y + cos * z], -1)

    def error(count, **options):
        return float((placed(rest, fit_rigid_joints(rest, moved, count, **options)) - moved).square().sum())

    assert error(8, influences=2) < 0.5 * error(8, influences=1)
    assert error(12) < 0.2 * error(4)
    assert error(6, rounds=12) < 0.9 * error(6, rounds=1)


def test_joints_that_blend_are_found():
    rest, moved, _, _ = beam()
    found = fit_rigid_joints(rest, moved, 4, rounds=30)
    assert worst(rest, moved, found) <= 0.02 * float((moved - rest).norm(dim=-1).max())


def test_given_weights_give_their_joints_motion():
    rest, moved, weights, indices = beam()
    found = fit_rigid_joints(rest, moved, weights=weights, indices=indices, rounds=60)
    assert torch.equal(found.indices, indices) and torch.equal(found.weights, weights)
    assert worst(rest, moved, found) <= 1e-3


def test_the_frames_world_does_not_matter():
    """Applying another rigid motion and scale to each frame gives the same weights."""
    rest, moved, _, _ = beam()
    turn = quaternion.quat_to_rotmat(quaternion.random_quats(len(moved)).double())
    found = fit_rigid_joints(rest, moved, 6, rounds=3)
    other = fit_rigid_joints(7 * rest + 100, 7 * (moved @ turn.mT + torch.randn(len(moved), 1, 3, **F64)), 6, rounds=3)
    torch.testing.assert_close(other.weights, found.weights, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.centers, 7 * found.centers + 100, atol=1e-4, rtol=0)


def test_deterministic_and_in_float32():
    rest, moved, _, _ = beam()
    first, second = (fit_rigid_joints(rest.float(), moved.float(), 6) for _ in range(2))
    assert torch.equal(first.weights, second.weights) and torch.equal(first.quats, second.quats)
    assert first.weights.dtype == torch.float32


@pytest.mark.parametrize(("vertices", "frames", "count"), [(1, 1, 1), (1, 3, 5), (2, 1, 2), (5, 2, 9)])
def test_few_vertices(vertices, frames, count):
    rest, moved = torch.randn(vertices, 3, **F64), torch.randn(frames, vertices, 3, **F64)
    found = fit_rigid_joints(rest, moved, count)
    assert all(bool(torch.isfinite(value).all()) for value in vars(found).values() if value.is_floating_point())
    assert len(found.centers) <= min(vertices, count)


def test_coincident_points():
    found = fit_rigid_joints(torch.ones(6, 3), torch.rand(2, 1, 3).expand(2, 6, 3), 3)
    assert len(found.centers) == 1


@pytest.mark.wrong_types
def test_wrong_input():
    rest, moved = torch.rand(4, 3), torch.rand(2, 4, 3)
    with pytest.raises(InputError, match=r"^fit_rigid_joints: got 0 frames of 4 vertices, 32 joints, 4 per vertex; want"):
        fit_rigid_joints(rest, moved[:0])
    with pytest.raises(InputError, match="0 per vertex"):
        fit_rigid_joints(rest, moved, influences=0)
    with pytest.raises(InputError, match="are not finite"):
        fit_rigid_joints(rest, moved / 0)
    with pytest.raises(ShapeError, match="frames"):
        fit_rigid_joints(rest, moved[:, :3])
    weights, indices = torch.ones(4, 1), torch.zeros(4, 1, dtype=torch.int64)
    with pytest.raises(InputError, match=r"^fit_rigid_joints: got weights only; want both or neither$"):
        fit_rigid_joints(rest, moved, weights=weights)
    with pytest.raises(ShapeError, match="indices"):
        fit_rigid_joints(rest, moved, weights=weights, indices=indices[:3])
    with pytest.raises(InputError, match=r"indices go down to -1, want 0 or more$"):
        fit_rigid_joints(rest, moved, weights=weights, indices=indices - 1)
