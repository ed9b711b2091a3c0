import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vision3d.core import checkpoints
from vision3d.core.checkpoints import Checkpoint, CheckpointFolder, HiddenCodeError, load_checkpoint, save_checkpoint
from vision3d.core.errors import FileFormatError, MissingFileError


def make(step: int = 3, **state) -> Checkpoint:
    return Checkpoint(step, {"steps": 5}, state, checkpoints.capture_rng(), 1.5)


class Payload:
    """Runs code when unpickled by a reader that trusts the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.makedirs, (str(self.path),))


def test_round_trip(tmp_path):
    adam = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    adam.param_groups[0]["params"][0].sum().backward()
    adam.step()
    state = {"means": torch.randn(5, 3), "adam": adam.state_dict(), "flags": [True, None, 2.5, "text", (1, 2)]}
    save_checkpoint(tmp_path / "a.pt", make(**state))
    got = load_checkpoint(tmp_path / "a.pt")
    assert (got.step, got.config, got.wall_s) == (3, {"steps": 5}, 1.5)
    assert torch.equal(got.state["means"], state["means"])
    assert got.state["flags"] == state["flags"]
    adam.load_state_dict(got.state["adam"])


def test_random_generators_resume_their_state():
    def draw():
        return random.random(), np.random.rand(3).tolist(), torch.rand(3).tolist()  # noqa: NPY002

    checkpoints.seed_everything(7)
    draw()
    state = checkpoints.capture_rng()
    first = draw()
    assert draw() != first
    checkpoints.restore_rng(state)
    assert draw() == first
    checkpoints.seed_everything(7)
    draw()
    assert draw() == first


def test_state_with_an_object_is_rejected_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"checkpoint\['state'\]\['a'\]\[1\] is Path|PosixPath; a checkpoint holds"):
        save_checkpoint(tmp_path / "a.pt", make(a=[1, tmp_path]))
    with pytest.raises(TypeError, match="is float64; a checkpoint holds"):
        save_checkpoint(tmp_path / "a.pt", make(a=np.float64(1)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "bare pickle"])
def test_hidden_code_is_not_executed(tmp_path, kind):
    path, trace = tmp_path / "step_000009.pt", tmp_path / "executed"
    payload = {"format": 1, "step": 9, "config": {}, "state": {"a": Payload(trace)}, "rng": {}, "wall_s": 0.0}
    if kind == "zip":
        torch.save(payload, path)
        assert zipfile.is_zipfile(path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(FileFormatError, match=r"nothing was executed|not a checkpoint") as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert not trace.exists()
    if kind == "zip":  # the payload does run in a reader that trusts it
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert trace.exists()


def test_folder_with_hidden_code_does_not_fall_back(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(make(1))
    torch.save({"format": 1, "state": Payload(tmp_path / "executed")}, tmp_path / "step_000002.pt")
    with pytest.raises(HiddenCodeError, match="could run code"):
        folder.latest()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_newest_falls_back(tmp_path, caplog, share):
    folder = CheckpointFolder(tmp_path)
    folder.save(make(1, a=torch.ones(1000)))
    path = folder.save(make(2, a=torch.ones(1000)))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    got = folder.latest()
    assert got is not None and got.step == 1
    assert "step_000002.pt: is truncated or not a checkpoint; using the previous" in caplog.text


def test_any_damaged_byte_of_the_newest_falls_back(tmp_path):
    """Torch reads files with wrong checksums, and reports damaged structures as code or with exceptions of Python."""
    folder = CheckpointFolder(tmp_path)
    folder.save(make(1, a=torch.ones(100)))
    path = folder.save(make(2, a=torch.ones(100)))
    data = path.read_bytes()
    generator = random.Random(0)
    steps = []
    for _ in range(300):
        changed = bytearray(data)
        changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        got = folder.latest()
        assert torch.equal(got.state["a"], torch.ones(100))
        steps.append(got.step)
    assert steps.count(1) > 200  # the others change the padding between the parts


@pytest.mark.parametrize("name, value", [("step", "7"), ("config", []), ("state", None), ("rng", 3), ("wall_s", "1")])
def test_values_of_other_types_fall_back(tmp_path, name, value):
    folder = CheckpointFolder(tmp_path)
    folder.save(make(1))
    payload = {"format": 1, "step": 2, "config": {}, "state": {}, "rng": {}, "wall_s": 0.0} | {name: value}
    torch.save(payload, tmp_path / "step_000002.pt")
    assert folder.latest().step == 1


@pytest.mark.parametrize("content", [pickle.dumps({"step": 3}), b"", b"PK\3\4"], ids=["pickle", "empty", "torn"])
def test_a_run_whose_only_checkpoint_is_damaged_does_not_start_anew(tmp_path, content):
    folder = CheckpointFolder(tmp_path)
    (tmp_path / "step_000003.pt").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"step_000003\.pt: .*; no older checkpoint is left\. Start .* --overwrite"):
        folder.latest()


def test_damaged_bytes_are_detected(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, make(a=torch.ones(1000)))
    data = path.read_bytes()
    where = data.index(b"\x80\x02}")  # the pickle of the structure
    path.write_bytes(data[:where] + b"\xff" * 40 + data[where + 40 :])
    with pytest.raises(FileFormatError, match=r"a\.pt"):
        load_checkpoint(path)


def test_other_files(tmp_path):
    with pytest.raises(MissingFileError, match="does not exist; want a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"weights": torch.ones(3)}, tmp_path / "a.pt")
    with pytest.raises(FileFormatError, match="is not a checkpoint of vision3d"):
        load_checkpoint(tmp_path / "a.pt")


def test_folder_keeps_the_newest_by_number(tmp_path):
    folder = CheckpointFolder(tmp_path / "new", keep=2)
    assert folder.latest() is None
    for step in (5, 999_999, 1_000_000, 1_000_001):
        folder.save(make(step))
    (folder.path / "step_notes.pt").write_text("not ours")
    assert [path.name for path in folder.paths()] == ["step_1000000.pt", "step_1000001.pt"]
    assert folder.latest().step == 1_000_001


def test_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "a.pt", make(1))

    def fail(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError):
        save_checkpoint(tmp_path / "a.pt", make(2))
    assert load_checkpoint(tmp_path / "a.pt").step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
