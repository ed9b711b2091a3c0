"""`vision3d.view`: Python objects on a page; windows and notebooks are replaced by stand-ins."""

import sys
from types import ModuleType

import pytest
import torch

import vision3d
from tests.support.balls import ball as ball_mesh
from vision3d.core.errors import ConfigError, InputError
from vision3d.scene import FrameSequence, PointCloud, Scene, SkinnedMesh
from vision3d.viewer import show
from vision3d.viewer.layers import Layers


def moving():
    mesh = ball_mesh()
    return FrameSequence(mesh, torch.tensor([0.0, 1.0]), {"vertices": torch.stack([mesh.vertices, mesh.vertices + 1])})


def opened(monkeypatch, *objects, **options):
    """The layers that a window would get."""
    found = []
    module = ModuleType("vision3d.viewer.window")
    module.open_window = lambda layers, **given: found.append((layers, given))
    monkeypatch.setitem(sys.modules, "vision3d.viewer.window", module)
    assert vision3d.view(*objects, web=False, **options) is None
    return found[0]


def test_values_and_paths_become_layers(monkeypatch, tmp_path):
    ball_mesh().save(tmp_path / "ball.ply")
    matrix = torch.eye(4)
    matrix[0, 3] = 2
    skin = SkinnedMesh.from_frames(ball_mesh(), moving().vertices(), [0.0, 1.0])
    scene = Scene().add("moving", moving(), matrix).add("skin", skin)
    layers, given = opened(
        monkeypatch, PointCloud(torch.rand(4, 3)), PointCloud(torch.rand(4, 3)), tmp_path / "ball.ply", world=scene, up="z"
    )
    assert isinstance(layers, Layers) and given["size"] == (1280, 720)
    assert {layer.name: layer.kind for layer in layers} == {
        "pointcloud": "points", "pointcloud_1": "points", "ball": "mesh", "moving": "mesh", "skin": "mesh",
    }  # fmt: skip
    assert torch.equal(layers["moving"].transform, matrix) and layers["skin"].rig is not None
    assert layers.times[[0, -1]].tolist() == [0, 1] and layers.up.tolist() == [0, 0, 1]


def test_values_that_cannot_be_shown_are_named():
    with pytest.raises(InputError, match=r"tensor: got Tensor, want a path or one of the types of vision3d\.scene"):
        vision3d.view(torch.zeros(3), web=False)
    with pytest.raises(InputError, match="is an empty scene"):
        vision3d.view(Scene(), web=False)
    with pytest.raises(ConfigError, match="up: got 'w', want x"):
        vision3d.view(PointCloud(torch.rand(4, 3)), up="w")


def test_a_page_is_served_in_the_background():
    pytest.importorskip("viser")
    viewer = vision3d.view(ball_mesh(), web=True, wait=False)
    try:
        assert viewer.url.startswith("http://127.0.0.1:") and not viewer.is_closed
    finally:
        viewer.close()
    assert viewer.is_closed


def test_a_notebook_shows_the_page(monkeypatch):
    pytest.importorskip("viser")
    shown = []
    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: type("ZMQInteractiveShell", (), {})()
    module.IFrame, module.display = (lambda *values: values), shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    viewer = vision3d.view(ball_mesh())
    viewer.close()
    assert shown == [(viewer.url, "100%", 600)]


def test_without_a_window_there_is_a_page(monkeypatch):
    from vision3d.core.errors import BackendError
    from vision3d.viewer import probe

    class Broken:
        def result(self):
            raise BackendError("no display")

        def close(self):
            pass

    monkeypatch.setattr(probe, "Probe", Broken)
    assert not show._can_open_window()
