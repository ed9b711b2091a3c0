"""The docstring examples run and give the output they show."""

import doctest
import importlib
import importlib.resources
import pkgutil

import pytest
import torch

import vision3d

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NOT_MODULES = ("vision3d._native", "vision3d.viewer", "vision3d.configs", "vision3d.assets", "vision3d.__main__")
TAKE_MINUTES = ("vision3d.stages",)  # run on small data by tests/stages


def examples() -> list[doctest.DocTest]:
    """Docstrings of the package with an example."""
    found = []
    for info in pkgutil.walk_packages(vision3d.__path__, "vision3d."):
        if not info.name.startswith(NOT_MODULES + TAKE_MINUTES):
            found += doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(info.name))
    return [test for test in found if test.examples]


class Checker(doctest.OutputChecker):
    """Accepts any output where the docstring shows none."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files used in the examples."""
    from vision3d.io.video import VideoWriter
    from vision3d.scene import Cameras, GaussianScene, Mesh

    folder = tmp_path_factory.mktemp("examples")
    for name in ("scene.ply", "chair.ply", "room.ply"):
        GaussianScene.from_points(torch.rand(20, 3), torch.rand(20, 3)).save(folder / name)
    Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])).save(folder / "chair.glb")
    viewmats = torch.eye(4).repeat(2, 1, 1)
    viewmats[:, 2, 3] = 3
    Ks = torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]).repeat(2, 1, 1)
    size = torch.full((2,), 16)
    Cameras(viewmats, Ks, size, size).save(folder / "cameras.json")
    with VideoWriter(folder / "orbit.mp4", fps=24) as video:
        for _ in range(3):
            video.append(torch.rand(32, 32, 3))
    (folder / "data").mkdir()
    (folder / "data" / "fox").symlink_to(str(importlib.resources.files("vision3d") / "assets" / "demo"))
    (folder / "runs" / "fox").mkdir(parents=True)
    (folder / "runs" / "fox" / "summary.json").write_text('{"status": "done", "results": {"psnr": 30.0}}')
    return folder


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_example(test, folder, monkeypatch):
    monkeypatch.chdir(folder)
    images = torch.rand(2, 32, 32, 3)
    test.globs.update(images=images, photo=images[0], render=images[1], scene=vision3d.GaussianScene.load("scene.ply"))
    report = []
    failed, tried = doctest.DocTestRunner(Checker(), optionflags=FLAGS).run(test, out=report.append)
    assert tried and not failed, "".join(report)
