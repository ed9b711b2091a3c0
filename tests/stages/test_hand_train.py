"""Training of the network of hands."""

import dataclasses
import json

import pytest
import torch

from tests.support.stopped import stop_once
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.runs import RunFolder
from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.data.batches import AugmentConfig
from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.data.samples import SampleSource
from vision3d.stages.hand.evaluation.crops import crop_errors
from vision3d.stages.hand.network.files import load_hand_model
from vision3d.stages.hand.synth.frames import FrameConfig
from vision3d.stages.hand.train import train_hand
from vision3d.stages.hand.train_config import TrainConfig

NOTHING = AugmentConfig(rotation=0, zoom=0, shift=0, color=0, gray=0, cover=0, mirror=0)
CONFIG = TrainConfig(
    network=NetworkConfig(input_size=64, reduce=32, head="canonical6d", upsampling="template"), frames=FrameConfig(size=64),
    images=16, steps=4, batch_size=8, evaluate_images=16, workers=0, log_every=1, checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path_factory.getbasetemp() / "hands"))


def test_a_training_writes_a_model_with_the_figures_of_its_file(tmp_path):
    result = train_hand(CONFIG, run_folder=tmp_path / "run")
    loaded = load_hand_model(tmp_path / "run" / "hand.safetensors")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.network(images).vertices, result.model.network(images).vertices)
    assert loaded.config == CONFIG.network and loaded.card.figures["pa_mpjpe_mm"] == result.summary["pa_mpjpe_mm"]
    assert 0 < result.summary["pa_mpjpe_mm"] < 60 and result.summary["f15"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]


def test_a_resumed_training_is_bitwise_equal(tmp_path, monkeypatch):
    whole = train_hand(CONFIG, run_folder=tmp_path / "whole")

    stop_once(monkeypatch, tmp_path / "stopped")
    with pytest.raises(MemoryError):
        train_hand(CONFIG, run_folder=tmp_path / "parts")
    resumed = train_hand(CONFIG, run_folder=RunFolder.create(tmp_path / "parts", CONFIG, resume=True))
    for name, value in whole.model.network.state_dict().items():
        assert torch.equal(value, resumed.model.network.state_dict()[name]), name


@pytest.mark.slow
def test_a_network_learns_a_few_images_by_heart():
    config = dataclasses.replace(CONFIG, augment=NOTHING, steps=160, batch_size=16, lr=3e-3, evaluate_images=0, ema=0.9)
    first = train_hand(dataclasses.replace(config, steps=1))
    result = train_hand(config)
    samples = ImageSamples(SampleSource(frames=config.frames, seed=config.seed), 16)
    before, after = (crop_errors(trained.model.network, samples) for trained in (first, result))
    assert after["uv_px"] < 0.3 * before["uv_px"]
    assert after["pa_mpjpe_mm"] < 0.6 * before["pa_mpjpe_mm"]


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match=r"frames\.size: got 128, want network\.input_size, 160"):
        TrainConfig(frames=FrameConfig(size=128))
    with pytest.raises(ConfigError, match="images: got 100, want a multiple of 16"):
        TrainConfig(images=100)
    with pytest.raises(ConfigError, match="ema"):
        TrainConfig(ema=1.0)


def test_weights_of_something_else(tmp_path):
    train_hand(dataclasses.replace(CONFIG, steps=1, evaluate_images=0), run_folder=tmp_path / "run")
    path = tmp_path / "run" / "hand.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match=r"hand\.safetensors"):
        load_hand_model(path)
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(FileFormatError, match=r"x\.safetensors"):
        load_hand_model(tmp_path / "x.safetensors")


def test_a_training_begins_with_given_weights(tmp_path):
    first = train_hand(CONFIG, run_folder=tmp_path / "first")
    config = dataclasses.replace(CONFIG, init=str(tmp_path / "first" / "hand.safetensors"), steps=1, lr=1e-9, ema=0.0)
    result = train_hand(config)
    for name, value in result.model.network.named_parameters():
        assert torch.allclose(value, dict(first.model.network.named_parameters())[name], atol=1e-3), name
    assert result.model.card.about["init"] == config.init
    other = dataclasses.replace(config, network=dataclasses.replace(CONFIG.network, reduce=16))
    result = train_hand(other)  # another network, most of whose layers are the same
    stored = dict(first.model.network.named_parameters())
    for name, value in result.model.network.named_parameters():
        if name in stored and stored[name].shape == value.shape:
            assert torch.allclose(value, stored[name], atol=1e-3), name
