"""Positions of hands in the camera's space where 2D joints tell too little: by the size of a hand in its box."""

import pytest
import torch

from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.stages.hand import HandTemplate
from vision3d.stages.hand.detections import Detections, square_of
from vision3d.stages.hand.joints import ROOT
from vision3d.stages.hand.predict.predictor import Places, positions_of
from vision3d.stages.hand.translation import translation

K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
SMALLEST, LARGEST = 0.06, 0.25


def hands(depths, seed=0):
    """Joints in the camera's space of random hands, off the axis [m]."""
    generator, hand = torch.Generator().manual_seed(seed), HandTemplate.load()
    count = len(depths)
    rotations = haar_rotmats(3, count, generator=generator).float()
    sides = 0.4 * (torch.rand(count, 2, generator=generator) - 0.5)
    at = torch.cat([sides, torch.ones(count, 1)], 1) * torch.as_tensor(depths)[:, None]
    vertices = hand.pose(hand.random_angles(count, generator), rotation=rotations, translation=at).vertices
    return hand.joint_matrix @ vertices


def seen(joints):
    pixels = joints @ K.T
    return pixels[..., :2] / pixels[..., 2:]


def places(joints, pixels, boxes=None, confidence=None):
    """What the predictor knows of joints [m] that the network sees at pixels, in boxes around the true ones."""
    count = len(joints)
    square = square_of(seen(joints) if boxes is None else boxes)
    relative = joints - joints[:, ROOT, None]
    weights = torch.ones(count, 21) if confidence is None else confidence
    found = Detections(square.centers, square.sides, square.angles, torch.ones(count, dtype=torch.bool), torch.ones(count))
    at = translation(relative, pixels, K.expand(count, 3, 3), weights)
    return Places(found, pixels, relative, torch.zeros(count, 778, 3), weights, torch.zeros(count), at)


def bounds(given):
    """Depths at which the smallest and the largest hand fill half of the box and twice of it."""
    near = K[0, 0] * SMALLEST / given.found.sides / 2
    return near, 2 * K[0, 0] * LARGEST / given.found.sides


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_joints_that_determine_the_position_are_believed(noise):
    """Also those of far hands: the noise is a share of the box."""
    joints = hands(torch.linspace(0.25, 8, 200))
    exact = seen(joints)
    sides = square_of(exact).sides[:, None, None]
    given = places(joints, exact + noise * sides * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)))
    at = positions_of(given, K)
    assert torch.equal(at, given.positions)
    ratio = at[:, 2] / joints[:, ROOT, 2]
    assert (ratio - 1).abs().max() < (0.15 if noise else 2e-3)


@pytest.mark.parametrize("spread", [0.3, 0.1, 1e-2, 1e-4])
def test_joints_at_almost_one_place_give_no_far_hand(spread):
    """Their spread is a fraction of what the box shows, so that the equations find a hand 1 / spread times as far."""
    joints = hands(torch.linspace(0.3, 3, 50))
    exact = seen(joints)
    given = places(joints, exact.mean(1, keepdim=True) + spread * (exact - exact.mean(1, keepdim=True)))
    assert not bool((given.positions[:, 2] < 0.6 * joints[:, ROOT, 2] / spread).any())
    at = positions_of(given, K)
    near, far = bounds(given)
    assert at.isfinite().all() and (at[:, 2] >= near).all() and (at[:, 2] <= far).all()
    if spread <= 0.1:  # the box decides
        ratio = at[:, 2] / joints[:, ROOT, 2]
        assert ratio.min() > 0.5 and ratio.max() < 2
        apart = torch.linalg.vector_norm(seen(at[:, None])[:, 0] - given.joints_2d[:, ROOT], dim=1)
        assert (apart < 1e-2).all()  # on the ray of the root joint


def test_joints_far_apart_give_no_hand_at_the_lens():
    joints = hands(torch.linspace(0.5, 3, 50))
    exact = seen(joints)
    given = places(joints, exact.mean(1, keepdim=True) + 40 * (exact - exact.mean(1, keepdim=True)))
    ratio = positions_of(given, K)[:, 2] / joints[:, ROOT, 2]
    assert ratio.min() > 0.5 and ratio.max() < 2


def test_one_joint_or_a_line_with_all_the_confidence():
    joints = hands(torch.linspace(0.3, 3, 40))
    generator = torch.Generator().manual_seed(2)
    pixels = seen(joints) + torch.randn(40, 21, 2, generator=generator)
    for kept in ([0], [5, 6], [5, 6, 7, 8]):
        confidence = torch.full((40, 21), 1e-9)
        confidence[:, kept] = 1
        given = places(joints, pixels, confidence=confidence)
        at = positions_of(given, K)
        near, far = bounds(given)
        assert at.isfinite().all() and (at[:, 2] >= near).all() and (at[:, 2] <= far).all()


def test_hands_beside_their_boxes_and_joints_that_are_not_numbers():
    """The root joint is where the box is, even if its pixel is lost."""
    joints = hands([0.6, 0.6, 0.6])
    pixels = seen(joints)
    pixels[0] += 3000.0
    pixels[1] = torch.nan
    pixels[2, ROOT] = torch.inf
    given = places(joints, pixels)
    at = positions_of(given, K)
    apart = (seen(at[:, None])[:, 0] - given.found.centers).abs().amax(1)
    assert (apart <= given.found.sides * 1.001).all()
    ratio = at[:, 2] / 0.6
    assert ratio.min() > 0.5 and ratio.max() < 2


def test_hands_without_extent_have_the_size_of_hands():
    joints = hands([0.5, 1.0])
    given = places(joints, seen(joints))
    for size in (0.0, 100.0, torch.nan):
        odd = Places(
            given.found,
            given.joints_2d,
            given.joints * size,
            given.vertices,
            given.confidence,
            given.right,
            given.positions * 1e3,
        )
        near, far = bounds(given)
        assert ((positions_of(odd, K)[:, 2] >= near) & (positions_of(odd, K)[:, 2] <= far)).all()
