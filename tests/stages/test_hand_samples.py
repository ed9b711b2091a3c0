"""Generated hands on disk."""

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.io.images import write_image
from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.data.samples import BATCH, SampleSource
from vision3d.stages.hand.synth.frames import FrameConfig, frames

CONFIG = FrameConfig(size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hands")


@pytest.fixture(scope="module")
def samples(folder):
    made = ImageSamples(SampleSource(frames=CONFIG, seed=4), 2 * BATCH, folder=folder)
    made.samples.prepare()
    return made


def test_batches_have_the_truth_of_their_images(samples):
    rows = torch.tensor([30, 3, 17, 3])
    batch = samples.take(rows)
    made = [frames(4, index, BATCH, CONFIG) for index in range(2)]
    for place, row in enumerate(rows.tolist()):
        frame, at = made[row // BATCH], row % BATCH
        assert torch.allclose(batch.vertices[place], frame.vertices[at], atol=1e-5)
        assert torch.allclose(batch.joints[place], frame.joints[at], atol=1e-5)
        assert torch.allclose(batch.uvs[place], frame.uvs[at], atol=0.02)
        assert torch.equal(batch.visible[place], frame.visible[at]) and torch.equal(batch.Ks[place], frame.Ks[at])
        difference = (batch.images[place].float() - frame.images[at].float()).abs().mean()
        assert float(difference) < 16


def test_images_are_made_once(samples, folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = ImageSamples(SampleSource(frames=CONFIG, seed=4), 2 * BATCH, folder=folder)
    monkeypatch.setattr(SampleSource, "make", lambda self, index: pytest.fail("made again"))
    again.samples.prepare()
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert torch.equal(again.take(torch.tensor([5])).images, samples.take(torch.tensor([5])).images)


def test_a_million_images_take_less_than_ten_gigabytes(samples, folder):
    at_128 = sum(path.stat().st_size for path in folder.iterdir()) / len(samples) * (128 / 64) ** 2
    assert at_128 < 10_000


def test_photographs_are_an_option(tmp_path):
    write_image(tmp_path / "green.png", torch.tensor([0.0, 1, 0]).expand(64, 64, 3))
    images = SampleSource(frames=CONFIG, backgrounds=tmp_path).make(0)
    assert images["jpegs"].shape[0] == BATCH
    assert SampleSource(frames=CONFIG, backgrounds=tmp_path).options != SampleSource(frames=CONFIG).options


@pytest.mark.parametrize("count", [0, 15, 17, -16])
def test_counts_are_whole_batches(count):
    with pytest.raises(InputError, match=f"count: got {count}, want a positive multiple of 16"):
        ImageSamples(SampleSource(), count)
