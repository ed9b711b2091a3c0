"""Heads, networks and the maximum over points."""

import pytest
import torch
from torch.nn import functional

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.heads import RotationHead
from vision3d.geometry.representations import REPRESENTATIONS, dimension
from vision3d.geometry.rotation import geodesic_distance
from vision3d.stages.rotation.networks import PoseNet, SanityNet, SiamesePointNet, max_over_points

NAMES = sorted(REPRESENTATIONS)
IDENTITY = torch.eye(3)


@pytest.mark.parametrize("rep", NAMES)
def test_heads_start_at_the_identity_and_have_a_gradient_there(rep):
    head = RotationHead(rep, 16)
    features = torch.randn(32, 16)
    if rep != "hopf":  # it has no gradient at the identity, so it starts next to it
        torch.testing.assert_close(head(torch.zeros(2, 16)), IDENTITY.expand(2, 3, 3), atol=1e-6, rtol=0)
        assert float(torch.rad2deg(geodesic_distance(head.eval()(features).detach(), IDENTITY)).max()) < 70
    predicted = head.train()(features)
    (predicted - haar_rotmats(3, 32)).square().mean().backward()
    assert head.linear is not None and head.linear.weight.grad is not None
    assert float(head.linear.weight.grad.norm()) > 1e-3


@pytest.mark.parametrize("rep", NAMES)
def test_any_raw_values_give_rotations_with_finite_gradients(rep):
    head = RotationHead(rep).eval()
    numbers = torch.cat([torch.zeros(1, head.numbers), torch.ones(1, head.numbers), 1e4 * torch.randn(20, head.numbers)])
    numbers.requires_grad_()
    rotmats = head(numbers)
    torch.testing.assert_close(rotmats @ rotmats.mT, IDENTITY.expand(22, 3, 3), atol=2e-5, rtol=0)
    assert bool((torch.linalg.det(rotmats.detach()) > 0).all())
    rotmats.sum().backward()
    assert numbers.grad is not None and bool(numbers.grad.isfinite().all())


def test_unprojected_matrices_are_projected_after_training():
    head = RotationHead("9d_direct")
    numbers = torch.randn(5, 9)
    torch.testing.assert_close(head(numbers), numbers.unflatten(-1, (3, 3)))
    assert head.is_projected is False
    rotmats = head.eval()(numbers)
    torch.testing.assert_close(rotmats @ rotmats.mT, IDENTITY.expand(5, 3, 3), atol=1e-5, rtol=0)
    assert not RotationHead("6d").eval().is_projected


def test_6d_does_not_depend_on_lengths_nor_9d_on_scale():
    numbers = torch.randn(10, 6)
    head = RotationHead("6d")
    longer = numbers * torch.tensor([7.0, 7, 7, 0.2, 0.2, 0.2])
    added = numbers + torch.cat([torch.zeros(10, 3), 3 * numbers[:, :3]], -1)  # adds the first column to the second
    for other in (longer, added):
        torch.testing.assert_close(head(other), head(numbers), atol=1e-5, rtol=0)
    nine = torch.randn(10, 9)
    torch.testing.assert_close(RotationHead("9d_svd")(5 * nine), RotationHead("9d_svd")(nine), atol=1e-5, rtol=0)


def test_9d_is_equivariant_to_rotations_on_both_sides():
    left, right = haar_rotmats(3, 2)
    numbers = torch.randn(10, 3, 3)
    head = RotationHead("9d_svd")
    turned = (left @ numbers @ right).flatten(-2)
    torch.testing.assert_close(head(turned), left @ head(numbers.flatten(-2)) @ right, atol=1e-5, rtol=0)


def test_counts_and_half_precision():
    head = RotationHead("6d", 8, count=5)
    assert head(torch.zeros(2, 3, 8)).shape == (2, 3, 5, 3, 3)
    assert RotationHead("quat", count=2)(torch.randn(4, 8)).shape == (4, 2, 3, 3)
    assert RotationHead("9d_svd")(torch.randn(4, 9).half()).dtype == torch.float32
    assert "rep='6d', count=5" in repr(head)
    again = RotationHead("6d", 8, count=5)
    again.load_state_dict(head.state_dict())


def test_wrong_arguments_of_heads():
    with pytest.raises(ConfigError, match=r"rep: '6dd' is not a representation of a rotation; did you mean 6d"):
        RotationHead("6dd")
    with pytest.raises(ConfigError, match="in_features: got 0, want at least 1, or None"):
        RotationHead("6d", 0)
    with pytest.raises(ConfigError, match="count: got 0"):
        RotationHead("6d", 4, 0)
    with pytest.raises(ShapeError, match=r"features: got shape \(2, 5\), want \(\.\.\., 6\)"):
        RotationHead("6d")(torch.zeros(2, 5))


def test_sizes_of_the_paper():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(SiamesePointNet("6d")) == 1_192_838
    assert count(SanityNet("6d")) == 10 * 128 + 2 * 129 * 128 + 129 * 6
    assert count(PoseNet("quat", 57, 57)) == 172 * 1024 + 2 * 1025 * 1024 + 1025 * 57 * dimension("quat")


def test_only_maximal_points_have_a_gradient_equal_to_the_plain_layer():
    hidden, weight, bias = torch.randn(3, 50, 128), torch.randn(200, 128), torch.randn(200)
    ways = (max_over_points, lambda h, w, b: functional.linear(h, w, b).amax(-2))
    found = []
    for way in ways:
        inputs = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
        value = way(*inputs)
        grads = torch.autograd.grad((value * torch.arange(200.0).sin()).sum(), inputs)
        found.append((value.detach(), *grads))
    for got, want in zip(*found):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(
            max_over_points(hidden.double(), weight.double(), bias.double()).float(), found[0][0], atol=2e-5, rtol=1e-5
        )


def test_clouds_may_be_shuffled_and_are_encoded_once_for_all_copies():
    network = SiamesePointNet("6d").eval()
    clouds = torch.randn(2, 30, 3)
    copies = clouds[:, None] @ haar_rotmats(3, 2, 4).mT
    predicted = network(clouds, copies)
    assert predicted.shape == (2, 4, 3, 3)
    shuffled = network(clouds[:, torch.randperm(30)], copies[:, :, torch.randperm(30)])
    torch.testing.assert_close(shuffled, predicted, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(clouds[1:], copies[1:, 2:3]), predicted[1:, 2:3], atol=1e-5, rtol=0)
