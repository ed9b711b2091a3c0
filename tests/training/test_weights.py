"""Weights with a card: round trips and rejected files."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.training.weights import Card, bundled_weights, find_weights, load_strictly, load_weights, save_weights

CARD = Card("boxes", {"width": 4}, "10 rooms", 0, 0.5, "vision3d detect train", {"mAP": 61.2}, about={"classes": ["car"]})


def test_card_and_tensors_round_trip(tmp_path):
    network = nn.Linear(3, 4)
    save_weights(tmp_path / "a.safetensors", CARD, network.state_dict())
    card, tensors = load_weights(tmp_path / "a.safetensors", "boxes")
    assert card == CARD
    other = nn.Linear(3, 4)
    load_strictly(other, tensors, "a")
    assert torch.equal(other.weight, network.weight)
    text = card.markdown()
    assert "| figures | mAP 61.2 |" in text and "| cpu_hours | 0.5 |" in text and "git" not in text


def test_the_card_of_this_process():
    card = Card.of_now("boxes", config={}, data="rooms", seed=1, cpu_hours=0.0)
    assert card.command and card.licence == "Apache-2.0"


def test_differences_are_listed(tmp_path):
    tensors = nn.Sequential(*[nn.Linear(3, 4) for _ in range(4)]).state_dict()
    tensors["0.bias"] = torch.zeros(5)
    with pytest.raises(FileFormatError) as error:
        load_strictly(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 1, 1)), tensors, "w.safetensors")
    assert str(error.value) == (
        "w.safetensors: does not match its network; has unexpected keys: 2.bias, 2.weight, 3.bias, 3.weight; "
        "has different shapes: "
        "0.bias (5,) for (4,), 1.bias (4,) for (1,), 1.weight (4, 3) for (1, 1, 1, 1)"
    )
    with pytest.raises(FileFormatError, match=r"lacks: bias, weight; has unexpected keys: x0, x1, x2, x3, x4 and 3 more"):
        load_strictly(nn.Linear(1, 1), {f"x{i}": torch.zeros(1) for i in range(8)}, "w")


def test_invalid_weights_files_are_rejected(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(path, CARD, {"w": torch.zeros(1)})
    with pytest.raises(FileFormatError, match="holds weights of 'boxes', want 'hand'"):
        load_weights(path, "hand")
    for card in (7, {"kind": "boxes"}, {**json.loads(json.dumps(vars(CARD))), "config": 3}):
        own = {"type": "weights", "version": 1, "card": card}
        save_file({"w": torch.zeros(1)}, path, {"vision3d": json.dumps(own)})
        with pytest.raises(FileFormatError, match="has an unknown card"):
            load_weights(path, "boxes")
    with pytest.raises(MissingFileError, match=r"nothing: does not exist; want weights .*, or the name of bundled ones"):
        load_weights("nothing", "boxes")


def test_bundled_weights_are_found_by_name():
    for name, path in bundled_weights().items():
        assert find_weights(name) == path
    assert "digits" in bundled_weights()


def test_large_weights_are_spread_over_files(tmp_path):
    tensors = {f"layer{number}": torch.randn(20_000, generator=torch.Generator().manual_seed(number)) for number in range(5)}
    card = replace(CARD, kind="thing")
    most = 200_000
    save_weights(tmp_path / "w.safetensors", card, tensors, most_bytes=most)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["w.safetensors", *(f"w.safetensors.part{number}" for number in (2, 3, 4, 5))]
    assert all(path.stat().st_size <= most for path in tmp_path.iterdir())
    loaded, found = load_weights(tmp_path / "w.safetensors", "thing")
    assert loaded == card and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    with pytest.raises(InputError, match="layer0"):
        save_weights(tmp_path / "w.safetensors", card, tensors, most_bytes=70_000)
    save_weights(tmp_path / "v.safetensors", card, {**tensors, "layer0": torch.zeros(20_000)}, most_bytes=most)
    (tmp_path / "v.safetensors.part3").replace(tmp_path / "w.safetensors.part3")
    with pytest.raises(FileFormatError, match="other weights"):
        load_weights(tmp_path / "w.safetensors", "thing")
    (tmp_path / "w.safetensors.part3").unlink()
    with pytest.raises(MissingFileError, match="part3"):
        load_weights(tmp_path / "w.safetensors", "thing")
