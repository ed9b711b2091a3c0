"""Modules under their names of earlier versions."""

import importlib
import subprocess
import sys

import pytest
import torch

from vision3d.stages.animate import Footage
from vision3d.stages.animate.dynamic.evaluation import MotionEvaluation
from vision3d.stages.simulate import Frame


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fitting", "fit"),
        ("meshing.config", "mesh.config"),
        ("animation.rig", "animate.rig"),
        ("rotations", "rotation"),
        ("physics", "simulate"),
        ("physics.particles", "simulate.world.particles"),
        ("physics.reference.mpm", "simulate.engines.mpm"),
        ("animate.static.pictures", "animate.static.images"),
        ("animate.rig.pictures", "animate.rig.images"),
        ("simulate.output.course", "simulate.output.plots"),
    ],
)
def test_old_names_of_stages_are_the_same_modules(old, new):
    check_same(f"vision3d.stages.{old}", f"vision3d.stages.{new}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("errors", "core.errors"),
        ("scene.retarget", "optim.motion.retarget"),
        ("optim.evaluation", "training.evaluation"),
        ("stages.mesh.atlas", "render.baking.atlas"),
        ("render.meshes.pictures", "render.meshes.drawing"),
        ("viewer.picture", "viewer.drawing"),
    ],
)
def test_old_names_are_the_same_modules(old, new):
    check_same(f"vision3d.{old}", f"vision3d.{new}")


def check_same(old, new):
    for name in [name for name in sys.modules if name == old]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match="is now") as told:
        found = importlib.import_module(old)
    assert f"{old} is now {new}" in {str(warning.message) for warning in told}
    right = importlib.import_module(new)
    assert found is right
    assert right.__spec__ is not None and right.__spec__.name == new == right.__name__


def test_names_in_old_modules_import_in_a_fresh_process():
    code = (
        "from vision3d.stages.physics.config import SimulateConfig as Old; from vision3d.stages.physics import Material\n"
        "from vision3d.stages.simulate.config import SimulateConfig\n"
        "assert Old is SimulateConfig and Material().law == 'corotated'"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_that_never_existed_are_missing():
    with pytest.raises(ModuleNotFoundError, match=r"vision3d\.stages\.nothing"):
        importlib.import_module("vision3d.stages.nothing")
    with (
        pytest.raises(ModuleNotFoundError, match=r"vision3d\.stages\.simulate\.nothing"),
        pytest.warns(DeprecationWarning, match="physics"),
    ):
        importlib.import_module("vision3d.stages.physics.nothing")


@pytest.mark.parametrize("package", ["vision3d", "vision3d.scene"])
@pytest.mark.parametrize(("old", "new"), [("Skin", "SkinnedMesh"), ("Sequence", "FrameSequence")])
def test_old_names_of_types_are_the_same_types(package, old, new):
    module = importlib.import_module(package)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {package}.{new}"):
        assert getattr(module, old) is getattr(module, new)


def test_old_names_of_attributes_have_the_same_values():
    frame = Frame(0, 0.0, {}, {"steps": 3.0})
    with pytest.warns(DeprecationWarning, match="Frame.figures is now Frame.metrics"):
        assert frame.figures is frame.metrics
    images, times = torch.zeros(2, 4, 4, 4, dtype=torch.uint8), torch.arange(2, dtype=torch.float64)
    footage = Footage(images, None, ("camera", "camera"), torch.arange(2), times)
    with pytest.warns(DeprecationWarning, match="Footage.pictures is now Footage.images"):
        assert footage.pictures is footage.images
    evaluation = MotionEvaluation((), 0)
    with pytest.warns(DeprecationWarning, match="MotionEvaluation.pictures is now MotionEvaluation.views"):
        assert evaluation.pictures is evaluation.views
