"""Stages and codecs of other packages: the stage of CONTRIBUTING.md, installed next to vision3d."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.datasets import write_ring_photographs
from vision3d import FitConfig, PointCloud, fit, render_scene
from vision3d.core import plugins
from vision3d.core.errors import ConfigError, InputError, MissingFileError, PluginError
from vision3d.scene import codecs
from vision3d.stages.animate.guidance import SdsConfig, load_guidance
from vision3d.stages.fit.config import LossConfig
from vision3d.stages.simulate.engines import choose_engine

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text("utf-8")
ENTRIES = """[vision3d.stages]
plane = toy_plane:plane
broken = toy_plane:missing
bare = toy_plane:Trainer.step
[vision3d.codecs]
.toy = toy_files:CODEC
[vision3d.losses]
green = toy_files:green
[vision3d.guidance]
still = toy_files:still
[vision3d.engines]
slow = toy_files:SlowEngine
wrong = toy_files:Still
"""
FILES = """from vision3d import PointCloud
from vision3d.scene.codecs import Codec

CODEC = Codec("toy_files", reads=("PointCloud",))


from vision3d.stages.simulate.engines.reference import ReferenceEngine


class SlowEngine(ReferenceEngine):
    name = "slow"


def green(image, target, mask):
    return -image[..., 1].mean()


class Still:
    label = "a guide that wants white"

    def loss(self, frames, views, generator):
        return (1 - frames).square().mean()


def still(references, config, device):
    return Still()


def load(path):
    import torch

    return PointCloud(torch.tensor([[float(word) for word in line.split()] for line in path.read_text().splitlines()]))
"""


def block(heading: str) -> str:
    """The first Python code block below a heading."""
    found = re.search(r"```python\n(.*?)```", TEXT.split(f"## {heading}\n")[1], re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder on the path with a distribution that adds a stage and a codec."""
    folder = tmp_path / "site"
    info = folder / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "toy_plane.py").write_text(block("A new stage"))
    (folder / "toy_files.py").write_text(FILES)
    (info / "entry_points.txt").write_text(ENTRIES)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    plugins.names.cache_clear()
    yield folder
    plugins.names.cache_clear()
    for name in ("toy_plane", "toy_files"):
        sys.modules.pop(name, None)


def cloud() -> PointCloud:
    """Points within 1 mm of the plane x + 2 z = 0."""
    generator = torch.Generator().manual_seed(0)
    u, v, off = torch.randn(3, 500, generator=generator)
    normal = torch.tensor([1.0, 0, 2]) / 5**0.5
    return PointCloud(
        u[:, None] * torch.tensor([0.0, 1, 0]) + v[:, None] * torch.tensor([2.0, 0, -1]) + 1e-3 * off[:, None] * normal
    )


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vision3d", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_the_stage_of_the_guide_is_a_command(package, tmp_path):
    cloud().save(tmp_path / "cloud.ply")
    assert "plane      from toy_plane" in program("--help").stdout
    told = program("plane", "--help").stdout
    assert "Find the plane through a point cloud." in told and "Point cloud (.ply, .bin)." in told and "Steps of Adam." in told
    done = program("plane", tmp_path / "cloud.ply", "--steps", 300, "--out", tmp_path / "whole", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert abs(result["normal"][0] * 1 + result["normal"][2] * 2) / 5**0.5 > 0.9999 and result["rms"] < 2e-3
    assert {"summary.json", "report.html", "metrics.jsonl", "config.yaml"} <= {
        path.name for path in (tmp_path / "whole").iterdir()
    }

    half = program("plane", tmp_path / "cloud.ply", "--steps", 150, "--out", tmp_path / "half")
    assert half.returncode == 0, half.stderr
    rest = program("plane", "--resume", "--steps", 300, "--out", tmp_path / "half", "--json")
    assert rest.returncode == 0, rest.stderr
    assert json.loads(rest.stdout.splitlines()[-1])["normal"] == result["normal"]
    missing = program("plane", tmp_path / "none.ply", "--out", tmp_path / "no")
    assert missing.returncode == 3 and missing.stderr.startswith("error: ") and not (tmp_path / "no").exists()
    wrong = program("plane", tmp_path / "cloud.ply", "--stepz", 3)
    assert wrong.returncode == 2 and "unknown option of vision3d plane" in wrong.stderr
    broken = program("broken")
    assert broken.returncode == 4 and "toy_plane:missing (vision3d.stages 'broken' of another package)" in broken.stderr
    assert program("bare").returncode == 4


def test_the_stage_of_the_guide_in_python(package, tmp_path):
    import toy_plane

    result = toy_plane.plane(toy_plane.PlaneConfig(steps=300), cloud(), run_folder=tmp_path / "run")
    assert result.summary["rms"] < 2e-3 and (tmp_path / "run" / "report.html").is_file()
    assert toy_plane.plane(toy_plane.PlaneConfig(steps=3), cloud()).run_folder is None


def test_codecs_of_other_packages(package, tmp_path):
    (tmp_path / "a.toy").write_text("1 2 3\n4 5 6\n")
    assert PointCloud.load(tmp_path / "a.toy").points.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert ".toy" in codecs.suffixes() and ".toy" in codecs.suffixes("PointCloud") and ".toy" not in codecs.suffixes("Mesh")
    with pytest.raises(InputError, match=r"b\.toy: \.toy can be read but not written"):
        cloud().save(tmp_path / "b.toy")


def test_broken_packages(package):
    with pytest.raises(
        PluginError, match=r"toy_plane:missing \(vision3d\.stages 'broken' of another package\) cannot be loaded"
    ):
        plugins.load("vision3d.stages", "broken", object)
    with pytest.raises(PluginError, match=r"toy_files:CODEC .*got Codec, want str"):
        plugins.load("vision3d.codecs", ".toy", str)
    assert plugins.load("vision3d.stages", "none", object) is None
    assert "broken" not in plugins.load_all("vision3d.stages", object)


def test_a_loss_of_another_package(package, tmp_path):
    data = write_ring_photographs(tmp_path / "photos")
    config = FitConfig(steps=60, max_gaussians=60, loss=LossConfig(extra=("green=3",)), device="cpu")
    plain = replace(config, loss=LossConfig())
    results = [fit(some, data) for some in (plain, config)]
    views = [next(render_scene(result.scene, result.cameras)).image for result in results]
    greens = [float(image[..., 1].mean()) for image in views if image is not None]
    assert greens[1] > greens[0] + 0.05
    with pytest.raises(
        ConfigError, match=r"no installed package provides a loss 'red' \(entry points vision3d\.losses: green\)"
    ):
        fit(replace(config, loss=LossConfig(extra=("red=1",))), data)
    with pytest.raises(ConfigError, match=r"extra.*got 'green', want NAME=WEIGHT"):
        LossConfig(extra=("green",))


def test_a_guidance_of_another_package(package):
    found = load_guidance("still", torch.ones(1, 8, 8, 3), SdsConfig(), torch.device("cpu"))
    assert found.label == "a guide that wants white"
    with pytest.raises(MissingFileError, match="none: does not exist"):
        load_guidance("none", torch.ones(1, 8, 8, 3), SdsConfig(), torch.device("cpu"))


def test_an_engine_of_another_package(package):
    assert choose_engine("slow").name == "slow"
    for name in ("wrong", "none"):
        with pytest.raises(
            ConfigError, match=rf"got '{name}', want one of auto, native, taichi, reference, slow, wrong, or MODULE"
        ):
            choose_engine(name)


def test_objects_of_a_module_in_the_current_folder_need_no_package(tmp_path, monkeypatch):
    """Their names are `module:name`; what cannot be loaded is one line."""
    (tmp_path / "my_parts.py").write_text(
        "from vision3d.stages.simulate.engines import Engine\n"
        "from vision3d.stages.simulate.engines.reference import ReferenceEngine\n"
        "class Mine(ReferenceEngine):\n    name = 'mine'\n"
        "class Half(Engine):\n    def advance(self, duration, time=0.0, max_dt=1.0): ...\n"
        "def dark(image, target, mask):\n    return image.mean()\n"
    )
    (tmp_path / "broken_parts.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert choose_engine("my_parts:Mine").name == "mine"
    for name, error, text in (
        ("my_parts:Half", ConfigError, "my_parts:Half lacks particles, update of Engine"),
        ("my_parts:dark", PluginError, r"my_parts:dark \(vision3d\.engines\): got function, want type"),
        ("my_parts:none", PluginError, "cannot be loaded: AttributeError: module 'my_parts' has no attribute 'none'"),
        ("no_parts:Mine", PluginError, "cannot be loaded: ModuleNotFoundError: No module named 'no_parts'"),
        ("broken_parts:Mine", PluginError, "cannot be loaded: ZeroDivisionError: division by zero"),
    ):
        with pytest.raises(error, match=text):
            choose_engine(name)
    assert sys.path == before
    data = write_ring_photographs(tmp_path / "photos")
    config = FitConfig(steps=40, max_gaussians=60, loss=LossConfig(extra=("my_parts:dark=3",)), device="cpu")
    plain = replace(config, loss=LossConfig())
    results = [fit(some, data) for some in (plain, config)]
    shades = [float(next(render_scene(result.scene, result.cameras)).image.mean()) for result in results]
    assert shades[1] < shades[0] - 0.05
    sys.modules.pop("my_parts")
