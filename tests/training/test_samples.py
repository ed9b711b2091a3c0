"""Generated samples: the same on every machine, in any order and with any number of processes."""

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError
from vision3d.core.progress import silent
from vision3d.training.samples import GeneratedSamples


def drawn(index):
    return {"image": torch.rand(2, 3), "index": torch.tensor(index)}


def made(tmp_path, count=20, make=drawn, **options):
    return GeneratedSamples(make, count, name="noise", shard_size=8, folder=tmp_path / "shards", **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_follows_from_seed_and_index(tmp_path, workers):
    samples = made(tmp_path, workers=workers)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    samples.prepare(silent)
    assert torch.equal(torch.get_rng_state(), before), "generating does not use the caller's random state"
    rows = [19, 0, 7, 8, 0]
    batch = samples.take(rows)
    assert batch["index"].tolist() == rows and batch["image"].shape == (5, 2, 3)
    torch.manual_seed(19)  # seed 0: 0 * 1e9+7 + 19
    assert torch.equal(batch["image"][0], torch.rand(2, 3))
    other = GeneratedSamples(drawn, 20, name="noise", shard_size=5, folder=tmp_path / "other")
    other.prepare(silent)
    assert torch.equal(other.take(rows)["image"], batch["image"]), "for any shard size"
    seeded = made(tmp_path / "b", seed=1)
    seeded.prepare(silent)
    assert not torch.equal(seeded.take([0])["image"], batch["image"][1:2])


def test_options_may_be_tuples(tmp_path):
    """They are lists in the shards."""
    options = {"sizes": (1, 2), "more": {"limits": (0.5, (1,))}}
    samples = made(tmp_path, options=options)
    samples.prepare(silent)
    again = made(tmp_path, make=lambda index: pytest.fail("made again"), options=options)
    again.prepare(silent)
    assert torch.equal(again.take([3])["image"], samples.take([3])["image"])
    with pytest.raises(FileFormatError, match="holds other samples"):
        made(tmp_path, options={**options, "sizes": (1, 3)}).take([3])


def test_a_stopped_generation_is_resumed_and_a_set_may_grow(tmp_path):
    def failing(index):
        if index == 12:
            raise MemoryError
        return drawn(index)

    with pytest.raises(MemoryError):
        made(tmp_path, make=failing).prepare(silent)
    assert [path.name for path in sorted((tmp_path / "shards").iterdir())] == ["shard_000000.safetensors"]
    with pytest.raises(InputError, match=r"shard_000001\.safetensors: is not prepared; call prepare\(\) first"):
        made(tmp_path).take([9])
    calls = []
    samples = made(tmp_path, make=lambda index: (calls.append(index), drawn(index))[1])
    samples.prepare(silent)
    assert calls == list(range(8, 20))
    calls.clear()
    samples.prepare(silent)
    assert calls == []
    whole = samples.take(range(20))
    longer = made(tmp_path, 23)
    longer.prepare(silent)
    assert torch.equal(longer.take(range(20))["image"], whole["image"]) and longer.take([22])["index"] == 22


def test_batches_cover_all_samples_and_can_be_resumed(tmp_path):
    samples = made(tmp_path)
    steps = list(samples.batches(6, epochs=3, seed=2))
    assert [step for step, _ in steps] == list(range(9)) and all(len(rows) == 6 for _, rows in steps)
    for epoch in range(3):
        rows = torch.cat([rows for step, rows in steps if step // 3 == epoch])
        assert len(set(rows.tolist())) == 18
    assert not torch.equal(steps[0][1], steps[3][1])
    rest = list(samples.batches(6, epochs=3, seed=2, first=4))
    assert [step for step, _ in rest] == list(range(4, 9)) and torch.equal(rest[0][1], steps[4][1])
    with pytest.raises(InputError, match="got batches of 21 of 20 samples"):
        next(samples.batches(21, epochs=1))


def test_other_and_damaged_shards_are_rejected(tmp_path):
    made(tmp_path).prepare(silent)
    with pytest.raises(FileFormatError, match="holds other samples"):
        made(tmp_path, version=2).prepare(silent)
    with pytest.raises(InputError, match="rows: got 0 to 20, want 0 to 19"):
        made(tmp_path).take([0, 20])
    path = tmp_path / "shards" / "shard_000001.safetensors"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FileFormatError, match=r"shard_000001\.safetensors at header: is damaged"):
        made(tmp_path).take([9])
    with pytest.raises(InputError, match="count: got 0, want at least 1"):
        made(tmp_path, 0)


def test_shards_are_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path))
    one, other = (GeneratedSamples(drawn, 3, name="noise", options={"size": size}) for size in (1, 2))
    assert one.folder.parent == tmp_path / "samples" and one.folder != other.folder
    assert one.folder == GeneratedSamples(drawn, 9, name="noise", options={"size": 1}).folder, "the set may grow"
