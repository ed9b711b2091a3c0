"""Metrics of hands against the algorithm of the published evaluator, closed forms, and invariances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import KDTree

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.stages.hand.evaluation.metrics import (
    aligned,
    f_scores,
    hand_errors,
    mpjpe,
    pa_error,
    pck_auc,
    scale_error,
)


def hands(count: int, points: int = 21, noise: float = 0.01):
    """Pairs of predictions and truth: similar up to noise, each anywhere, of any size and orientation [m]."""
    truth = 0.05 * torch.randn(count, points, 3, dtype=torch.float64)
    rotations = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64))[0]
    rotations = rotations * torch.linalg.det(rotations)[:, None, None]
    scales = 0.5 + torch.rand(count, 1, 1, dtype=torch.float64)
    noisy = truth + noise * torch.randn_like(truth)
    return scales * noisy @ rotations.mT + torch.randn(count, 1, 3, dtype=torch.float64), truth


def official(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Alignment of one prediction as in the published evaluator: norms, then orthogonal Procrustes, reflections included."""
    center, target_center = points.mean(0), targets.mean(0)
    inner, outer = points - center, targets - target_center
    size, target_size = np.linalg.norm(inner), np.linalg.norm(outer)
    matrix, total = orthogonal_procrustes(outer / target_size, inner / size)
    return inner / size @ matrix.T * total * target_size + target_center


def official_metrics(points: np.ndarray, targets: np.ndarray) -> tuple[float, float, float]:
    """Mean distance [mm] and F-scores at 5 and 15 mm of one prediction, by k-d trees."""
    found = official(points, targets)
    distances = np.linalg.norm(found - targets, axis=1)
    precision, recall = KDTree(targets).query(found)[0], KDTree(found).query(targets)[0]
    scores = []
    for limit in (0.005, 0.015):
        p, r = (precision < limit).mean(), (recall < limit).mean()
        scores.append(2 * p * r / (p + r) if p + r > 0 else 0.0)
    return 1000 * distances.mean(), scores[0], scores[1]


def test_a_thousand_pairs_as_the_published_evaluator():
    torch.manual_seed(0)
    joints, true_joints = hands(1000, 21, 0.006)
    vertices, true_vertices = hands(1000, 100, 0.006)
    found = hand_errors(joints, true_joints, vertices, true_vertices, "official")
    want = np.array([official_metrics(*pair) for pair in zip(joints.numpy(), true_joints.numpy())])
    np.testing.assert_allclose(found.pa_mpjpe, want[:, 0], rtol=1e-6)
    want = np.array([official_metrics(*pair) for pair in zip(vertices.numpy(), true_vertices.numpy())])
    np.testing.assert_allclose(found.pa_mpvpe, want[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.f5, want[:, 1], rtol=1e-12)
    np.testing.assert_allclose(found.f15, want[:, 2], rtol=1e-12)
    assert 0.05 < float(found.f5.mean()) < 0.99
    limits = np.linspace(0, 50, 100)
    pairs = zip(joints.numpy(), true_joints.numpy())
    distances = np.array([1000 * np.linalg.norm(official(*pair) - pair[1], axis=1) for pair in pairs])
    curve = np.array([(distances <= limit).mean() for limit in limits])
    assert found.joint_auc == pytest.approx(np.trapezoid(curve, limits) / np.trapezoid(np.ones(100), limits), rel=1e-6)
    proper = hand_errors(joints, true_joints, vertices, true_vertices)
    assert float((proper.pa_mpjpe - found.pa_mpjpe).abs().max()) < 0.01


@given(st.integers(0, 2**16))
def test_a_similarity_is_aligned_exactly(seed):
    torch.manual_seed(seed)
    points, targets = hands(4, noise=0)
    for alignment in ("proper", "official"):
        assert float(pa_error(points, targets, alignment).max()) < 1e-6


def test_a_mirrored_hand_does_not_align():
    _, targets = hands(50)
    mirrored = targets * torch.tensor([-1, 1, 1])
    assert float(pa_error(mirrored, targets).min()) > 5
    assert float(pa_error(mirrored, targets, "official").max()) < 1e-6


@pytest.mark.parametrize("alignment", ["proper", "official"])
def test_a_prediction_of_zeros_is_the_centroid(alignment):
    _, targets = hands(5)
    found = pa_error(torch.zeros_like(targets), targets, alignment)
    torch.testing.assert_close(found, 1000 * (targets - targets.mean(1, keepdim=True)).norm(dim=-1).mean(1))


def test_the_alignment_is_the_best_one():
    torch.manual_seed(1)
    points, targets = hands(1, noise=0.02)
    best = float((aligned(points, targets) - targets).square().sum())
    for _ in range(200):
        change = torch.linalg.matrix_exp(0.1 * torch.randn(3, 3).double() * torch.rand(1))
        change = torch.linalg.qr(change)[0]
        change = change * torch.linalg.det(change) * (1 + 0.05 * torch.randn(1))
        other = aligned(points, targets) @ change.T + 0.002 * torch.randn(3)
        assert float((other - targets).square().sum()) >= best


def test_root_relative_error_and_size():
    points, targets = hands(6, noise=0)
    torch.testing.assert_close(mpjpe(targets + 0.3, targets), torch.zeros(6).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(mpjpe(1.1 * targets, targets), 100 * (targets - targets[:, 9, None]).norm(dim=-1).mean(1))
    torch.testing.assert_close(scale_error(1.1 * targets, targets), torch.full((6,), 0.1).double())
    moved = targets.clone()
    moved[:, 4, 2] += 0.021
    torch.testing.assert_close(mpjpe(moved, targets), torch.ones(6).double())
    assert float(mpjpe(points, targets).min()) > 10


def test_f_scores_of_moved_and_exchanged_sets():
    points = 0.05 * torch.randn(3, 200, 3, dtype=torch.float64)
    assert [score.tolist() for score in f_scores(points, points, (5, 15))] == [[1] * 3] * 2
    moved = points + torch.tensor([0.004, 0, 0])
    assert f_scores(moved, points, (5,))[0].tolist() == [1] * 3
    far = f_scores(points + 10, points, (5, 15))
    assert [score.tolist() for score in far] == [[0] * 3] * 2
    # Half of the points are right, and all of the others' points are found: P = 1/2, R = 1.
    half = torch.cat([points, points + 10], 1)
    torch.testing.assert_close(f_scores(half, points, (5,))[0], torch.full((3,), 2 / 3).double())
    torch.testing.assert_close(f_scores(points, half, (5,))[0], torch.full((3,), 2 / 3).double())
    # A distance of exactly the limit does not count.
    one, limit = torch.zeros(1, 1, 3).double(), torch.tensor([0, 0, 5e-3], dtype=torch.float64)
    assert float(f_scores(one, one + limit, (5,))[0]) == 0


def test_f_scores_in_blocks(monkeypatch):
    points, targets = hands(7, 50, 0.004)
    want = f_scores(points, targets, (5, 15))
    monkeypatch.setattr("vision3d.stages.hand.evaluation.metrics._BLOCK", 6000)
    for a, b in zip(f_scores(points, targets, (5, 15)), want):
        assert torch.equal(a, b)


def test_area_under_pck():
    assert pck_auc(torch.zeros(10)) == pytest.approx(1)
    assert pck_auc(torch.full((10,), 60.0)) == 0
    assert pck_auc(torch.full((4, 5), 25.0)) == pytest.approx(0.5, abs=0.01)
    assert pck_auc(50 * torch.rand(200_000)) == pytest.approx(0.5, abs=0.005)
    assert pck_auc(torch.tensor([0.0, math.nan])) == pytest.approx(0.5)
    assert pck_auc(torch.zeros(0)) == 0


def test_nan_is_not_hidden():
    points, targets = hands(3)
    points[1, 2, 0] = torch.nan
    for alignment in ("proper", "official"):
        found = hand_errors(points, targets, points, targets, alignment)
        assert found.pa_mpjpe.isnan().tolist() == found.mpjpe.isnan().tolist() == [False, True, False]
        assert float(found.f15[1]) == 0 and math.isnan(found.summary()["pa_mpjpe"])


def test_summary_has_the_means():
    points, targets = hands(5)
    found = hand_errors(points, targets, points, targets)
    values = found.summary()
    assert values["pa_mpjpe"] == float(found.pa_mpjpe.mean()) and values["scale"] == float(found.scale.abs().mean())
    assert values["joint_auc"] == found.joint_auc and 0.5 < values["joint_auc"] < 1


def test_wrong_arguments():
    points, targets = hands(3)
    with pytest.raises(
        ShapeError, match=r"points: got shape \(3, 20, 3\), want that of the targets, \(N, P, 3\), here \(3, 21, 3\)"
    ):
        pa_error(points[:, :20], targets)
    with pytest.raises(ConfigError, match="alignment: got 'best', want proper or official"):
        pa_error(points, targets, "best")
