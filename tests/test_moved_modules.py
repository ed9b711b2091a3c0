"""Modules under their names of earlier versions."""

import importlib
import subprocess
import sys

import pytest


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
