"""Output files when the disk becomes full during a write, simulated by a limit on file sizes."""

import errno
import json
import shutil
import subprocess
import sys

import pytest

from tests.support.photos import ring, write_photos
from vision3d.core import atomic
from vision3d.core.progress import silent
from vision3d.core.runs import RunFolder
from vision3d.stages.fit import FitConfig, fit

LIMIT = 30_000  # bytes

WRITERS = """
import resource, sys
from pathlib import Path

import numpy as np
import torch

from tests.support.photos import blobs
from vision3d.core.atomic import atomic_write
from vision3d.core.checkpoints import Checkpoint, save_checkpoint
from vision3d.core.errors import Vision3DError
from vision3d.io.images import write_image
from vision3d.core.runs import RunFolder
from vision3d.stages.fit.config import FitConfig


def write(folder, size):
    def npy():
        with atomic_write(folder.path / "a.npy") as temporary:
            np.save(temporary, np.zeros(100 * size))

    yield "scene.ply", lambda: blobs(10 * size).save(folder.path / "scene.ply")
    checkpoint = Checkpoint(1, {}, {"a": torch.rand(1000 * size)}, {})
    yield "a.pt", lambda: save_checkpoint(folder.path / "a.pt", checkpoint)
    for suffix in ("png", "jpg", "webp", "tif", "bmp"):
        yield f"a.{suffix}", lambda suffix=suffix: write_image(folder.path / f"a.{suffix}", torch.rand(3 * size, size, 3))
    yield "a.npy", npy
    yield "summary.json", lambda: folder.write_summary({"values": list(range(50 * size))})
    yield "metrics.jsonl", lambda: [folder.log(i, loss=0.5) for i in range(10 * size)]


folder = RunFolder.create(sys.argv[1], FitConfig())
for name, action in write(folder, 4):
    action()
before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
for name, action in write(folder, 150):
    try:
        action()
    except Vision3DError as error:
        print(error)
    else:
        print(name, "was written")
    now = (folder.path / name).read_bytes()
    assert now.startswith(before[name]) if name == "metrics.jsonl" else now == before[name], name
assert {path.name for path in folder.path.iterdir()} == set(before)
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "run"
    process = subprocess.run(
        [sys.executable, "-c", WRITERS, folder, str(LIMIT)], capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


@pytest.mark.parametrize("name", ["scene.ply", "a.pt", "a.png", "a.jpg", "a.webp", "a.tif", "a.bmp", "a.npy", "summary.json"])
def test_the_previous_file_is_intact_and_named(messages, name):
    (line,) = [line for line in messages if f"run/{name}:" in line]
    assert "could not be written (" in line and line.endswith("); the previous file is unchanged")


def test_previous_lines_of_the_metrics_are_kept(messages):
    assert any(
        line.endswith("metrics.jsonl: could not be written (File too large); the lines before are unchanged")
        for line in messages
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Photos, a run on them, and its options."""
    photos = write_photos(tmp_path_factory.mktemp("photos") / "set", cameras=ring(6), held_out=(2,))
    config = FitConfig(steps=2, max_gaussians=50, sh_degree=0)
    folder = RunFolder.create(tmp_path_factory.mktemp("done") / "run", config)
    folder.write_summary(fit(config, photos, run_folder=folder, progress=silent).summary)
    return photos, folder.path, ["--steps", "2", "--max-gaussians", "50", "--sh-degree", "0", "--quiet"]


@pytest.mark.parametrize(
    "name", ["checkpoints/step_000002.pt", "scene.ply", "cameras.json", "renders/000_002.png", "summary.json"]
)
def test_fit_on_a_full_disk(cli, fitted, tmp_path, monkeypatch, name):
    """A resumed run, so that every file has a previous version, which must be kept."""
    photos, done, options = fitted
    out = tmp_path / "run"
    shutil.copytree(done, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    flush = atomic._flush

    def full(path):
        if path.name.startswith(f".{(out / name).stem}.") and path.suffix == (out / name).suffix:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(atomic, "_flush", full)
    code, _, err = cli("fit", photos, "--out", out, "--resume", *options)
    assert code == 1
    assert f"error: {out / name}: could not be written (No space left on device); the previous file is unchanged\n" in err
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after.keys() == before.keys() and after[out / name] == before[out / name]
    if name != "summary.json":
        assert json.loads(after[out / "summary.json"])["status"] == "failed"
