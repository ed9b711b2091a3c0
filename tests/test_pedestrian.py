"""The bundled pedestrian: a valid mesh of human size, and a walk that loops."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from vision3d import SkinnedMesh
from vision3d.geometry.mesh import is_closed, volume
from vision3d.stages.detect.synth import people
from vision3d.stages.detect.synth.walker import walker

FOLDER = Path(str(files("vision3d") / "assets" / "pedestrian"))


@pytest.fixture(scope="module")
def skin() -> SkinnedMesh:
    return SkinnedMesh.load(FOLDER / "pedestrian.glb").validate()


def test_it_is_small_and_closed(skin: SkinnedMesh):
    assert (FOLDER / "pedestrian.glb").stat().st_size < 200_000
    assert is_closed(skin.mesh.faces)
    # a body weighs about as much as water: 1.74 m and 60 to 90 kg
    assert 0.055 < float(volume(skin.mesh.vertices, skin.mesh.faces)) < 0.095
    size = skin.mesh.vertices.amax(0) - skin.mesh.vertices.amin(0)
    assert float(size[1]) == pytest.approx(1.75, abs=0.01)


def test_walk_loops_and_keeps_a_foot_on_the_ground(skin: SkinnedMesh):
    clip = skin.clip("Walk")
    times = torch.linspace(clip.start, clip.end, 27, dtype=torch.float64)
    frames = skin.posed(clip, times)
    assert (frames[0] - frames[-1]).abs().max() < 1e-4
    lowest = frames[..., 1].amin(1)
    assert lowest.abs().max() < 0.05
    feet = [k for k, name in enumerate(skin.names) if name.startswith("foot")]
    owner = skin.indices.gather(1, skin.weights.argmax(1, keepdim=True))[:, 0]
    along = [frames[:, owner == k, 2].mean(1) for k in feet]
    assert (along[0] - along[1]).amax() > 0.4  # a stride, by either leg
    assert (along[1] - along[0]).amax() > 0.4


@pytest.mark.parametrize("outfit", people.OUTFITS)
@pytest.mark.parametrize("bag", people.BAGS)
def test_walkers_have_the_given_height(outfit: str, bag: str):
    rng = np.random.default_rng(0)
    for _ in range(3):
        parts = walker(1.8, 1.0, outfit, bag, rng)
        points = np.concatenate([part[0] for part in parts])
        assert np.ptp(points[:, 2]) == pytest.approx(1.8, abs=0.04)  # a stride lowers the head
        assert np.isfinite(points).all()
