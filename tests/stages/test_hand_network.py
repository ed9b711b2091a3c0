"""The network of hands."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from tests.support.hands import BlockMeans, count, shake, template
from vision3d.core.errors import ConfigError, ShapeError
from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.joints import BONES, NAMES, PARENTS, hand_adjacency
from vision3d.stages.hand.network.expansion import (
    Expansion,
    SampledExpansion,
)
from vision3d.stages.hand.network.hand_net import POOLED, HandNet
from vision3d.stages.hand.network.heads import HeatmapUv, soft_argmax

SMALL = NetworkConfig(dims=(32, 16, 16), tokens=(21, 30, 40), heads=4)


def small_net(config: NetworkConfig = SMALL, **options) -> HandNet:
    network = HandNet(config, *template(60), backbone=BlockMeans(24), **options)
    shake(network)
    return network


def test_parameters_and_shapes_are_those_of_the_released_network():
    network = HandNet(NetworkConfig(logits=False), *template(), backbone=BlockMeans(1216))
    parts = (
        network.uv_head,
        network.expansion,
        network.projections,
        network.blocks,
        network.upsampling,
        network.positions,
        network.vertex_head,
    )
    assert [count(part) for part in parts] == [51_114, 4_981_248, 106_944, 518_784, 292_594, 69_888, 195]
    assert count(network) == 6_020_767

    shapes = {}
    for name, part in network.named_modules():
        part.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: getattr(out, "shape", None)}))
    network(torch.rand(2, 3, 224, 224))
    assert shapes["expansion"] == (2, 256, 28, 28)
    assert [shapes[f"blocks.{stage}"] for stage in range(3)] == [(2, 21, 256), (2, 84, 128), (2, 336, 64)]
    assert [shapes[f"upsampling.{stage}"] for stage in range(3)] == [(2, 84, 256), (2, 336, 128), (2, 778, 64)]


@pytest.mark.slow
def test_the_published_backbone():
    pytest.importorskip("timm")
    network = HandNet(NetworkConfig(backbone="fastvit_ma36", logits=False), *template())
    assert round(count(network) / 1e6, 2) == 48.87
    with torch.no_grad():
        outputs = network.eval()(torch.rand(1, 3, 224, 224))
    assert outputs.uv.shape == (1, 21, 2) and outputs.vertices.shape == (1, 778, 3)


@pytest.mark.parametrize("interaction", ["released", "skeleton"])
@pytest.mark.parametrize("head", ["direct", "canonical6d"])
@pytest.mark.parametrize("uv_head", ["linear", "heatmap"])
@pytest.mark.parametrize("reduce", [0, 8])
def test_every_parameter_learns_and_joints_are_those_of_the_mesh(interaction, head, uv_head, reduce):
    config = dataclasses.replace(SMALL, interaction=interaction, head=head, uv_head=uv_head, reduce=reduce)
    network = small_net(config)
    outputs = network(torch.rand(3, 3, 96, 64))
    assert outputs.uv.shape == (3, 21, 2) and outputs.vertices.shape == (3, 60, 3) and outputs.confidence.shape == (3, 21)
    assert outputs.side.shape == outputs.presence.shape == (3,)
    torch.testing.assert_close(outputs.joints, network.joint_matrix @ outputs.vertices)
    sum(value.square().sum() for value in vars(outputs).values() if value is not None).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())]
    # A shift of all keys does not change a softmax, nor one of a whole heat map.
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 160)])
@pytest.mark.parametrize("interaction", ["released", "skeleton"])
@pytest.mark.parametrize("attention", [False, True])
def test_the_copy_for_inference_gives_the_same(size, interaction, attention):
    config = dataclasses.replace(SMALL, interaction=interaction, coordinate_attention=attention, reduce=8, uv_head="heatmap")
    network = small_net(config).eval()
    fast = network.for_inference()
    assert isinstance(fast.expansion, Expansion if attention else SampledExpansion)
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        want, got = network(images), fast(images)
    for name, value in vars(want).items():
        torch.testing.assert_close(getattr(got, name), value, rtol=1e-4, atol=1e-5, msg=name)


PYRAMID = dataclasses.replace(SMALL, pyramid=16, uv_head="heatmap", head="canonical6d")


@pytest.mark.parametrize("interaction", ["released", "skeleton"])
def test_every_parameter_of_a_pyramid_learns(interaction):
    network = HandNet(dataclasses.replace(PYRAMID, interaction=interaction), *template(60))
    shake(network)
    outputs = network(torch.rand(3, 3, 96, 64))
    assert outputs.uv.shape == (3, 21, 2) and outputs.heat.shape == (3, 21, 24, 16) and outputs.vertices.shape == (3, 60, 3)
    sum(value.square().sum() for value in vars(outputs).values() if value is not None).backward()
    still = [name for name, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())]
    assert [name for name in still if not name.endswith("key.bias")] == []


def test_joints_of_a_pyramid_move_with_the_image():
    """Convolutions only: shifted by a cell of stride 32, the image has the same heat maps, shifted, away from its borders."""
    network = HandNet(PYRAMID, *template(60))
    shake(network)
    for module in network.modules():  # squeeze-and-excitation sees the whole image
        if type(module).__name__ == "_SqueezeExcite":
            module.forward = lambda x: x
    network.eval()
    image = torch.rand(1, 3, 32, 32).repeat(1, 1, 1, 16)
    levels = network.backbone.levels(image)
    assert [tuple(level.shape[1:]) for level in levels] == [(24, 4, 64), (48, 2, 32), (576, 1, 16)]
    with torch.no_grad():
        heat = network.pyramid.heat(network.pyramid(levels))
    assert heat.shape == (1, 21, 8, 128)
    torch.testing.assert_close(heat[..., 56:64], heat[..., 64:72], rtol=1e-4, atol=1e-4)
    assert heat[..., 56:64].std() > 1e-3


def test_a_pyramid_replaces_other_options():
    with pytest.raises(ConfigError, match="pyramid: replaces reduce"):
        dataclasses.replace(PYRAMID, reduce=8)
    with pytest.raises(ConfigError, match="one stride; want the backbone mobilenetv3_small_100"):
        HandNet(PYRAMID, *template(60), backbone=BlockMeans(24))


@pytest.mark.parametrize("config", [dataclasses.replace(SMALL, reduce=16), PYRAMID], ids=["expansion", "pyramid"])
def test_the_copy_for_inference_with_its_own_backbone(config):
    network = HandNet(config, *template(60))
    shake(network)
    network.eval()
    fast = network.for_inference()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(fast(images).vertices, network(images).vertices, rtol=1e-4, atol=1e-5)


def test_canonical_vertices_start_at_the_rotated_template():
    network = small_net(dataclasses.replace(SMALL, head="canonical6d")).eval()
    with torch.no_grad():
        outputs = network(torch.rand(4, 3, 64, 64)).rooted()
    assert float((outputs.vertices - network.template).abs().max()) < 0.05
    with torch.no_grad():
        rotation = network.rotation
        rotation.linear.weight.zero_()
        rotation.linear.bias.copy_(torch.tensor([0.0, 1, 0, -1, 0, 0]))  # a quarter about z
        network.vertex_head.weight.zero_()
        network.log_scale.weight.zero_()
        network.log_scale.bias.fill_(math.log(1.5))
        outputs = network(torch.rand(1, 3, 64, 64))
    x, y, z = (1.5 * network.template).unbind(1)
    torch.testing.assert_close(outputs.vertices[0], torch.stack([-y, x, z], 1))
    torch.testing.assert_close(outputs.joints[0, 9], torch.zeros(3), rtol=0, atol=1e-7)


@pytest.mark.slow
def test_an_exported_graph_has_no_native_operations():
    network = small_net(dataclasses.replace(SMALL, head="canonical6d", uv_head="heatmap", interaction="skeleton")).eval()
    images = torch.rand(1, 3, 64, 64)
    program = torch.export.export(Vertices(network), (images,))
    assert not [node.target for node in program.graph.nodes if "vision3d" in str(node.target)]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), network(images).vertices)


class Vertices(torch.nn.Module):
    """A network with one output."""

    def __init__(self, network: HandNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).vertices


def test_rotations_are_those_of_training():
    network, pooled = small_net(dataclasses.replace(SMALL, head="canonical6d")), 9 * torch.randn(5, 24)
    torch.testing.assert_close(network.eval()._rotmats(pooled), network.train()._rotmats(pooled))


def test_rooted_outputs():
    outputs = small_net()(torch.rand(2, 3, 64, 64))
    rooted = outputs.rooted()
    assert not bool(rooted.joints[:, 9].any())
    torch.testing.assert_close(rooted.vertices - rooted.joints[:, :1], outputs.vertices - outputs.joints[:, :1])


@pytest.mark.parametrize("where", ["image", "features"])
def test_nan_in_nan_out(where):
    network = small_net().eval()
    images = torch.rand(2, 3, 64, 64)
    images[1, 0, 3, 3] = torch.nan
    for version in (network, network.for_inference()):
        with torch.no_grad():
            outputs = version(images)
        assert bool(outputs.vertices[1].isnan().all() & outputs.uv[1].isnan().all())
        assert bool(outputs.vertices[0].isfinite().all())


def test_wrong_arguments_of_the_network():
    matrix, vertices = template(60)
    with pytest.raises(ShapeError, match=r"joint_matrix: got shape \(21, 59\), want \(21, 60\), as the template"):
        HandNet(SMALL, matrix[:, 1:], vertices, backbone=BlockMeans(8))
    with pytest.raises(ShapeError, match=r"template_vertices: got shape \(3, 60\)"):
        HandNet(SMALL, matrix, vertices.T, backbone=BlockMeans(8))
    with pytest.raises(ShapeError, match=r"images: got shape \(3, 64, 64\), want \(N, 3, H, W\)"):
        small_net()(torch.rand(3, 64, 64))
    with pytest.raises(ShapeError, match="sides of at least 32"):
        small_net()(torch.rand(1, 3, 16, 64))
    with pytest.raises(ShapeError, match=r"matrix: got shape \(30, 20\), want \(30, 21\)"):
        small_net(upsampling=[torch.zeros(30, 20), torch.zeros(40, 30), torch.zeros(60, 40)])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"input_size": 100}, "input_size: got 100, want a multiple of 32"),
        ({"input_size": 0}, "input_size: got 0"),
        ({"dims": (256, 128, 60)}, r"dims: got \[256, 128, 60\], want three multiples of the number of heads, 8"),
        ({"dims": (30, 30, 30), "heads": 5}, "dims: got 30 features of the map, want a multiple of 4"),
        ({"tokens": (20, 84, 336)}, "tokens: got .* the first of them the 21 joints"),
        ({"heads": 0}, "heads: got 0, want at least 1"),
        ({"reduce": -1}, "reduce: got -1"),
        ({"backbone": ""}, "backbone: got none"),
        ({"head": "6d"}, "head: got '6d', want direct or canonical6d"),
        ({"interaction": "none"}, "interaction: got 'none', want released or skeleton"),
    ],
)
def test_wrong_configurations(values, text):
    with pytest.raises(ConfigError, match=text):
        NetworkConfig(**values)


def test_size_of_the_map():
    assert [NetworkConfig(input_size=size).map_size for size in (128, 160, 224)] == [16, 20, 28]


def test_joints_of_a_hand():
    assert len(NAMES) == len(PARENTS) == 21 and len(BONES) == 20
    assert NAMES[9] == "middle_mcp" and NAMES[4] == "thumb_tip" and NAMES[20] == "little_tip"
    assert [PARENTS[joint] for joint in (0, 1, 4, 5, 8, 17)] == [-1, 0, 3, 0, 7, 0]
    adjacency = hand_adjacency()
    torch.testing.assert_close(adjacency, adjacency.T)
    assert float(torch.linalg.eigvalsh(adjacency).max()) == pytest.approx(1)
    assert int((adjacency > 0).sum()) == 21 + 2 * 20


def test_soft_argmax_of_a_peak_and_of_nothing():
    logits = torch.zeros(1, 2, 4, 8)
    logits[0, 0, 1, 6] = 100
    torch.testing.assert_close(soft_argmax(logits)[0], torch.tensor([[6.5 / 8, 1.5 / 4], [0.5, 0.5]]))


def test_heat_maps_move_with_the_features():
    head = HeatmapUv(6, 3).eval()
    with torch.no_grad():
        head.layers[6].weight.mul_(100)
    features = torch.zeros(1, 6, 9, 9)
    features[0, :, 3, 4] = 3
    moved = features.roll((2, -1), (2, 3))
    a, b = (head.layers(x) for x in (features, moved))
    torch.testing.assert_close(a[0, :, 4:24, 8:28], b[0, :, 12:32, 4:24], rtol=1e-4, atol=1e-4)
    uv, heat = head(features, features.mean((2, 3)))
    assert uv.shape == (1, 3, 2) and torch.equal(heat, a)


@pytest.mark.parametrize("config", [SMALL, PYRAMID, dataclasses.replace(SMALL, uv_head="heatmap", head="canonical6d")])
def test_layers_on_pooled_features_are_known(config):
    """They learn slower; one that did not made a training diverge."""
    network = HandNet(config, *template(60), backbone=None if config.pyramid else BlockMeans(24))
    found = set()
    for name, part in network.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_hook(lambda _, inputs, __, name=name: found.add(name) if inputs[0].ndim == 2 else None)
    network(torch.rand(3, 3, 96, 64))
    assert found and {name for name in found if not name.startswith(POOLED)} == set()
