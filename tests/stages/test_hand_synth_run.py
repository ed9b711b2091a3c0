"""Folders of generated images: interrupted, killed and extended runs give the files of an uninterrupted one."""

import json
from dataclasses import replace

import pytest

from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.runs import RunFolder
from vision3d.stages.hand import SynthConfig, synthesize_hands
from vision3d.stages.hand.config import FrameConfig
from vision3d.stages.hand.data.samples import SampleSource

CONFIG = SynthConfig(FrameConfig(size=32, objects=0.0, sleeves=0.0), images=40)


class Killed(Exception):
    pass


def run(config, path, resume=False):
    folder = RunFolder.create(path, config, resume=resume, grows={"images"})
    try:
        return synthesize_hands(config, run_folder=folder, progress=lambda *_, **__: None).summary
    finally:
        folder.unlock()


def files(path):
    """Contents of all files of the data set."""
    found = [*path.glob("training_*.json"), *(file for file in path.glob("training/**/*") if file.is_file())]
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "data"
    assert run(CONFIG, path)["written"] == 40
    return files(path)


@pytest.fixture
def killing(monkeypatch):
    """Makes the batch with a number fail; counts the batches that are made."""
    made, own, at = [], SampleSource.made, [-1]

    def counted(self, index):
        if index == at[0]:
            raise Killed
        made.append(index)
        return own(self, index)

    monkeypatch.setattr(SampleSource, "made", counted)
    return made, at


def test_a_killed_run_is_resumed(tmp_path, whole, killing):
    made, at = killing
    at[0] = 2
    with pytest.raises(Killed):
        run(CONFIG, tmp_path / "data")
    assert made == [0, 1] and not (tmp_path / "data" / "training_K.json").exists()
    at[0] = -1
    summary = run(CONFIG, tmp_path / "data", resume=True)
    assert made == [0, 1, 2] and summary["written"] == 8 and summary["images"] == 40
    assert files(tmp_path / "data") == whole
    assert run(CONFIG, tmp_path / "data", resume=True)["written"] == 0 and made == [0, 1, 2]


def test_a_batch_without_its_labels_is_made_again(tmp_path, whole, killing):
    """Killed between the images of a batch and its labels."""
    made, at = killing
    at[0] = 2
    with pytest.raises(Killed):
        run(CONFIG, tmp_path / "data")
    (tmp_path / "data" / "training" / "labels" / "00000016.json").unlink()
    at[0] = -1
    assert run(CONFIG, tmp_path / "data", resume=True)["written"] == 24
    assert made == [0, 1, 1, 2] and files(tmp_path / "data") == whole


def test_a_finished_run_is_extended(tmp_path, whole, killing):
    made, _ = killing
    run(replace(CONFIG, images=18), tmp_path / "data")
    assert run(CONFIG, tmp_path / "data", resume=True)["written"] == 22
    assert made == [0, 1, 1, 2] and files(tmp_path / "data") == whole
    with pytest.raises(ConfigError, match="images"):
        run(replace(CONFIG, images=18), tmp_path / "data", resume=True)


def test_labels_that_were_not_joined_yet(tmp_path, whole, killing):
    """Killed while an extended run writes its tables: some have the new rows."""
    run(replace(CONFIG, images=16), tmp_path / "data")
    _, at = killing
    at[0] = 2
    with pytest.raises(Killed):
        run(CONFIG, tmp_path / "data", resume=True)
    table = tmp_path / "data" / "training_scale.json"
    part = json.loads((tmp_path / "data" / "training" / "labels" / "00000016.json").read_text())
    table.write_text(json.dumps(json.loads(table.read_text()) + part["scale"]))
    at[0] = -1
    assert run(CONFIG, tmp_path / "data", resume=True)["written"] == 8
    assert files(tmp_path / "data") == whole


def test_damaged_labels_are_named(tmp_path, killing):
    _, at = killing
    at[0] = 1
    with pytest.raises(Killed):
        run(CONFIG, tmp_path / "data")
    part = tmp_path / "data" / "training" / "labels" / "00000000.json"
    for text, message in (("{", "is not JSON"), ('{"K": []}', "is not a file of labels")):
        part.write_text(text)
        with pytest.raises(FileFormatError, match=f"00000000.json: {message}.*--overwrite"):
            run(CONFIG, tmp_path / "data", resume=True)
