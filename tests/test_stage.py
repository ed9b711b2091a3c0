"""Properties common to all stages, except for the run folder (`test_runs.py`)."""

import importlib
import inspect
from dataclasses import dataclass

import pytest
import torch

from vision3d.core.errors import ConfigError
from vision3d.stage import stage


@dataclass(frozen=True)
class Options:
    device: str = "cpu"


def _different_gradients() -> int:
    """Number of repeated gradients of a sum over repeated indices that differ from the first in any bit."""
    random = torch.Generator().manual_seed(0)
    values = torch.randn(4000, 3, generator=random, requires_grad=True)
    rows, factors = torch.randint(4000, (60_000,), generator=random), torch.randn(60_000, 3, generator=random)
    found = []
    for _ in range(40):
        values.grad = None
        (values[rows] * factors).sum().backward()
        assert values.grad is not None
        found.append(values.grad.clone())
    return sum(not torch.equal(found[0], gradient) for gradient in found)


def test_a_stage_is_bitwise_deterministic_with_any_threads():
    @stage("fit", {}, results=lambda result: {})
    def gradients(config, *, run_folder=None):
        return _different_gradients()

    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert gradients(Options()) == 0
    finally:
        torch.set_num_threads(threads)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]


STAGES = {
    "fit:fit": "FitConfig",
    "mesh:mesh_scene": "MeshConfig",
    "simulate:simulate": "SimulateConfig",
    "animate:animate": "AnimateConfig",
    "animate:bind_gaussians": "StaticConfig",
    "animate:play_skin": "RigConfig",
    "animate:evaluate_clips": "EvalConfig",
    "equivariant:reproduce_affnist": "AffnistConfig",
    "rotation:reproduce_rotation_sanity": "SanityConfig",
    "rotation:reproduce_rotation_pointcloud": "PointCloudConfig",
    "rotation:reproduce_rotation_ik": "IkConfig",
}


@pytest.mark.parametrize("name", STAGES)
def test_an_input_instead_of_the_configuration_is_named(name, tmp_path):
    module, function = name.split(":")
    call = getattr(importlib.import_module(f"vision3d.stages.{module}"), function)
    places = [each for each in inspect.signature(call).parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    needed = sum(each.default is each.empty for each in places)
    with pytest.raises(ConfigError, match=rf"config: .*: got PosixPath, want {STAGES[name]}: \w+\(config"):
        call(*[tmp_path] * needed, run_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
