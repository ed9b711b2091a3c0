"""The backends of the rasterizer behind one protocol."""

import sys
from types import SimpleNamespace

import pytest
import torch

from tests.support.gaussians import cameras, random_gaussians
from vision3d import rasterize, rasterize_2dgs
from vision3d.core.errors import BackendError
from vision3d.render.splats import backends, kernels

CPU = torch.device("cpu")


class _Called(Exception):
    pass


def _stand_in(**given):
    raise _Called(given)


def test_both_implementations_have_every_operation(backend):
    assert isinstance(kernels.kernels(backend), kernels.Kernels)
    assert isinstance(backends.backend(backend, CPU), backends.Backend)
    assert isinstance(backends.Gsplat(), backends.Backend)


def test_gsplat_without_a_gpu_is_one_error_line():
    with pytest.raises(BackendError, match=r"^backend gsplat needs a CUDA device and the gsplat package: .*install") as caught:
        backends.backend("gsplat", CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("function", "name"), [(rasterize, "rasterization"), (rasterize_2dgs, "rasterization_2dgs")])
def test_gsplat_gets_the_arguments_under_its_names(function, name, monkeypatch):
    """Arguments only, with a stand-in for the package, which needs CUDA."""
    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(**{name: _stand_in}))
    monkeypatch.setattr(kernels, "resolve", lambda backend, device: "gsplat")
    g, (viewmats, Ks) = random_gaussians(5), cameras(2, 24, 20)
    options = {"near_plane": 0.2, "render_mode": "RGB+ED", "packed": True, "tile_size": 8, "backgrounds": torch.ones(2, 3)}
    with pytest.raises(_Called) as caught:
        function(**g, viewmats=viewmats, Ks=Ks, width=24, height=20, **options, backend="gsplat")
    (given,) = caught.value.args
    for key, value in {**g, "viewmats": viewmats, "Ks": Ks, **options}.items():
        assert given[key] is value, key
    assert given["width"] == 24 and given["height"] == 20 and given["far_plane"] == 1e10 and given["eps2d"] == 0.3
