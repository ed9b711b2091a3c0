import enum
from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch

from tests.support.gaussians import cameras, random_gaussians, random_sh
from vision3d import rasterize, rasterize_2dgs
from vision3d.core.errors import BackendError, DeviceError, InputError, ShapeError

pytestmark = pytest.mark.wrong_types


def call(function=rasterize, **changes) -> None:
    """A valid call with some arguments changed."""
    viewmats, Ks = cameras(2, 20, 16)
    arguments = {
        **random_gaussians(5),
        "viewmats": viewmats,
        "Ks": Ks,
        "width": 20,
        "height": 16,
        "backend": "reference",
    }
    unwrap(function)(**{**arguments, **changes})


def test_the_unchanged_call_is_valid():
    call()
    call(rasterize_2dgs)


SHAPES = [
    ("means", torch.rand(5, 4), r"means: got shape \(5, 4\), want \[\.\.\., N, 3\]"),
    ("quats", torch.rand(4, 4), r"quats: got shape \(4, 4\), want shape \(5, 4\)"),
    ("quats", None, r"quats: got NoneType, want a torch\.Tensor of shape \(5, 4\)"),
    ("scales", torch.rand(5, 1), r"scales: got shape \(5, 1\), want shape \(5, 3\)"),
    ("opacities", torch.rand(5, 1), r"opacities: got shape \(5, 1\), want shape \(5,\)"),
    ("colors", torch.rand(6, 3), r"colors: got shape \(6, 3\), want \[5, D\] or \[2, 5, D\]"),
    ("colors", random_sh(5, 2), r"colors: got shape \(5, 9, 3\), want .*give sh_degree"),
    ("colors", torch.rand(5, 0), r"colors: got shape \(5, 0\), want at least one channel"),
    ("viewmats", torch.eye(4), r"viewmats: got shape \(4, 4\), want \[\.\.\., C, 4, 4\]"),
    ("viewmats", torch.rand(0, 4, 4), r"viewmats: got shape \(0, 4, 4\), want at least one camera"),
    ("Ks", torch.rand(3, 3), r"Ks: got shape \(3, 3\), want shape \(2, 3, 3\)"),
    ("backgrounds", torch.rand(3), r"backgrounds: got shape \(3,\), want shape \(2, 3\)"),
    ("masks", torch.ones(2, 2, 2, dtype=torch.bool), r"masks: got shape \(2, 2, 2\), want shape \(2, 1, 2\)"),
    ("masks", torch.ones(2, 1, 2), r"masks: got torch\.float32, want torch\.bool"),
    ("means", [[0.0, 0, 1]], r"means: got list, want a torch\.Tensor"),
    ("means", torch.rand(5, 3).half(), r"means: got torch\.float16, want torch\.float32 or torch\.float64"),
    ("scales", torch.rand(5, 3).double(), r"scales: got torch\.float64, want torch\.float32 as means"),
    ("Ks", torch.ones(2, 3, 3, dtype=torch.int64), r"Ks: got torch\.int64, want torch\.float32 as means"),
]


@pytest.mark.parametrize(("name", "value", "message"), SHAPES)
@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
def test_wrong_tensors_are_named_with_got_and_want(function, name, value, message):
    with pytest.raises(ShapeError, match=message):
        call(function, **{name: value})


def test_covars_are_checked_instead_of_quats_and_scales():
    call(quats=None, scales=None, covars=torch.eye(3).repeat(5, 1, 1))
    with pytest.raises(ShapeError, match=r"covars: got shape \(5, 6\), want shape \(5, 3, 3\)"):
        call(covars=torch.rand(5, 6))


def test_batch_dimensions_must_agree():
    with pytest.raises(ShapeError, match=r"viewmats: got shape \(2, 4, 4\), want shape \(3, 2, 4, 4\)"):
        call(means=torch.rand(3, 5, 3))


def test_harmonics_must_be_enough_for_the_degree():
    call(colors=random_sh(5, 2), sh_degree=2)
    with pytest.raises(ShapeError, match=r"colors: got shape \(5, 9, 3\), want at least 16 coefficients of 3 channels"):
        call(colors=random_sh(5, 2), sh_degree=3)
    with pytest.raises(ShapeError, match=r"colors: got shape \(5, 9\), want \[5, K, 3\] or \[2, 5, K, 3\]"):
        call(colors=torch.rand(5, 9), sh_degree=2)
    with pytest.raises(InputError, match="sh_degree: got 5, want 0 to 4"):
        call(colors=torch.rand(5, 36, 3), sh_degree=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width: got 0, want an int >= 1"),
        ({"height": 2.5}, r"height: got 2\.5, want an int >= 1"),
        ({"tile_size": -1}, "tile_size: got -1, want an int >= 1"),
        ({"near_plane": 0.0}, r"near_plane, far_plane: got 0\.0, .* want 0 < near_plane < far_plane"),
        ({"near_plane": 3, "far_plane": 2}, "near_plane, far_plane: got 3, 2"),
        ({"alpha_max": 1.5}, r"alpha_max: got 1\.5, want a number above 0 and below 0.9999"),
        ({"eps2d": -1}, "eps2d: got -1"),
        ({"render_mode": "rgb"}, "render_mode: got 'rgb'; "),
        ({"sparse_grad": True, "packed": False}, "sparse_grad: needs packed=True and no batch dimensions"),
    ],
)
@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
def test_numbers_and_names_out_of_range(function, changes, message):
    with pytest.raises(InputError, match=message):
        call(function, **changes)


def test_options_of_3d_gaussians():
    with pytest.raises(InputError, match=r"rasterize_mode: got 'antialias'; did you mean antialiased"):
        call(rasterize_mode="antialias")
    with pytest.raises(InputError, match=r"camera_model: got 'fish-eye'; did you mean fisheye"):
        call(camera_model="fish-eye")


class RollingShutter(enum.Enum):
    TOP_TO_BOTTOM = 0
    GLOBAL = 4


@pytest.mark.parametrize(
    ("option", "value", "advice"),
    [
        ("with_ut", True, "with_ut=False"),
        ("with_eval3d", True, "with_eval3d=False"),
        ("distributed", True, "one camera a process"),
        ("radial_coeffs", torch.zeros(2, 4), "undistort the photos first"),
        ("tangential_coeffs", torch.zeros(2, 2), "undistort the photos first"),
        ("thin_prism_coeffs", torch.zeros(2, 4), "undistort the photos first"),
        ("ftheta_coeffs", object(), "undistort the photos first"),
        ("rolling_shutter", RollingShutter.TOP_TO_BOTTOM, "global shutter"),
        ("viewmats_rs", torch.eye(4).repeat(2, 1, 1), "global shutter"),
        ("camera_model", "ftheta", "use fisheye"),
    ],
)
def test_options_only_in_gsplat_are_rejected_with_advice(option, value, advice):
    with pytest.raises(BackendError, match=f"^{option}: .*not supported.*{advice}.* backend='gsplat' on CUDA"):
        call(**{option: value})


def test_a_global_shutter_of_gsplat_is_accepted():
    call(rolling_shutter=RollingShutter.GLOBAL)


def test_backends_are_named():
    with pytest.raises(BackendError, match="backend cuda: unknown; want auto, native, reference or gsplat"):
        call(backend="cuda")
    with pytest.raises(BackendError, match="backend gsplat needs a CUDA device"):
        call(backend="gsplat")


def test_devices_must_agree():
    with pytest.raises(DeviceError, match="quats: got device meta, want cpu as means"):
        call(quats=torch.rand(5, 4, device="meta"))
