"""Attention, interaction and upsampling of tokens of the hand network."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from tests.support.hands import count, template
from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.joints import BONES, hand_adjacency
from vision3d.stages.hand.network.attention import Attention, CoordinateAttention
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.network.interaction import (
    BoneTokens,
    GraphLayer,
    NodeUpsampling,
    ReleasedBlock,
    SelfBlock,
    SkeletonBlock,
    upsampling_matrices,
)


def test_coordinate_attention_of_a_constant_map_is_constant():
    layer = CoordinateAttention(16).eval()
    found = layer(torch.randn(2, 16, 1, 1).expand(2, 16, 5, 7))
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found))


def test_coordinate_attention_commutes_with_the_exchange_of_axes():
    layer = CoordinateAttention(16).eval()
    image = torch.randn(2, 16, 5, 7)
    want = layer(image).mT
    layer.rows, layer.columns = layer.columns, layer.rows
    torch.testing.assert_close(layer(image.mT), want)


def test_coordinate_attention_has_the_published_size():
    layer = CoordinateAttention(256)
    assert layer.rows.in_channels == 8 and 6_000 < count(layer) < 7_000
    assert CoordinateAttention(1024).rows.in_channels == 32


def test_attention_is_that_of_torch():
    own, other = Attention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([own.query.weight, own.key.weight, own.value.weight]))
        other.in_proj_bias.copy_(torch.cat([own.query.bias, own.key.bias, own.value.bias]))
        other.out_proj.load_state_dict(own.output.state_dict())
    x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(own(x, context), other(x, context, context)[0])
    torch.testing.assert_close(own(x), other(x, x, x)[0])


@pytest.mark.parametrize("make", [lambda: ReleasedBlock(16, 4), lambda: SelfBlock(16, 4, 2)])
def test_blocks_commute_with_the_order_of_tokens(make):
    block, x, order = make(), torch.randn(2, 9, 16), torch.randperm(9)
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])


def test_skeleton_block_commutes_with_the_order_of_joints_and_adjacency():
    block, order = SkeletonBlock(16, 4, 2), torch.randperm(21)
    joints, bones = torch.randn(2, 21, 16), torch.randn(2, 20, 16)
    want = block(joints, bones)
    torch.testing.assert_close(block(joints, bones[:, torch.randperm(20)]), want)
    assert not torch.allclose(block(joints[:, order], bones), want[:, order], atol=1e-3)
    block.graph.adjacency = hand_adjacency()[order][:, order]
    torch.testing.assert_close(block(joints[:, order], bones), want[:, order])


def test_released_block_is_the_published_formula():
    block, x = ReleasedBlock(16, 4), torch.randn(2, 9, 16)
    y = block.attention(block.first(x))
    torch.testing.assert_close(block(x), torch.relu(block.last(y + x) + x))


def test_graph_layer_reaches_neighbors_only():
    layer = GraphLayer(4, hand_adjacency())
    x = torch.zeros(1, 21, 4)
    base = layer(x)
    x[0, 6] = 1
    assert (layer(x) - base).abs().sum((0, 2)).nonzero().flatten().tolist() == [5, 6, 7]


def test_points_and_directions_of_bones():
    tokens, uv = BoneTokens(8, samples=4), torch.rand(3, 21, 2)
    points = tokens.points(uv)
    assert points.shape == (3, 80, 2)
    parent, child = BONES[6]
    for k in range(4):
        torch.testing.assert_close(points[:, 24 + k], uv[:, parent] + (k + 1) / 5 * (uv[:, child] - uv[:, parent]))
    with torch.no_grad():
        tokens.linear.weight.zero_()
        tokens.linear.bias.zero_()
        tokens.linear.weight[:3, 8:] = torch.eye(3)
    found = tokens(torch.randn(3, 80, 8), uv)[:, 6]
    between = uv[:, child] - uv[:, parent]
    torch.testing.assert_close(found[:, :2] * found[:, 2:3], between)
    torch.testing.assert_close(found[:, 2], between.norm(dim=1))
    assert bool(tokens(torch.randn(3, 80, 8), torch.zeros(3, 21, 2)).isfinite().all())


def test_node_upsampling_is_a_matrix_product():
    layer, x = NodeUpsampling(5, 9), torch.randn(2, 5, 3)
    torch.testing.assert_close(layer(x), layer.linear.weight @ x + layer.linear.bias[:, None])
    torch.testing.assert_close(layer(x).mT, layer.linear(x.mT))


@given(st.integers(0, 2**16))
def test_upsampling_matrices_are_means_of_near_points(seed):
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.rand(60, 3, generator=generator)
    matrix = torch.rand(21, 60, generator=generator)
    joints = matrix / matrix.sum(1, keepdim=True) @ vertices
    found = upsampling_matrices(vertices, joints, (30, 40))
    assert [tuple(weights.shape) for weights in found] == [(30, 21), (40, 30), (60, 40)]
    for weights in found:
        assert float(weights.min()) >= 0
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    # The vertices of the step before come back as they are.
    assert int((found[2].max(1).values > 0.999).sum()) >= 40
    assert float((found[2] @ (found[1] @ (found[0] @ joints)) - vertices).norm(dim=1).mean()) < 0.5


def test_upsampling_from_the_template():
    config = NetworkConfig(dims=(32, 16, 16), tokens=(21, 30, 40), heads=4, upsampling="template")
    network = HandNet(config, *template(60))
    joints = network.joint_matrix @ network.template
    want = upsampling_matrices(network.template, joints, (30, 40))
    for layer, matrix in zip(network.upsampling, want):
        torch.testing.assert_close(layer.linear.weight, matrix)
