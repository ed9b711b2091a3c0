"""Random numbers by counter: known answers, law, the same bits natively and in torch, and the noise of MCMC."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats

from vision3d.core import native
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.optim.densification import noise
from vision3d.optim.reference import noise as reference

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
MAX_LOGIT = math.log(noise.NOISE_OPACITY / (1 - noise.NOISE_OPACITY))


def native_normals(seed, step, count):
    out = torch.empty(count, 3)
    native.require().normals(seed, step, out)
    return out


@pytest.mark.parametrize(
    ("word", "seed", "want"),
    [
        (0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFF, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_known_answers_of_philox(word, seed, want):
    assert tuple(reference.philox(torch.full((1, 4), word), seed)[0].tolist()) == want


@needs_native
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 3000))
def test_both_give_the_same_bits(seed, step, count):
    assert torch.equal(native_normals(seed, step, count), reference.normals(seed, step, count))


@needs_native
def test_numbers_depend_on_seed_step_and_row_only():
    threads = torch.get_num_threads()
    found = native_normals(3, 5, 20_000)
    try:
        torch.set_num_threads(3)
        assert torch.equal(native_normals(3, 5, 20_000), found)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(native_normals(3, 5, 100), found[:100])
    for seed, step in ((4, 5), (3, 6)):
        other = native_normals(seed, step, 20_000)
        assert abs(float(torch.corrcoef(torch.stack([found.flatten(), other.flatten()]))[0, 1])) < 0.02


def test_law():
    values = reference.normals(1, 2, 200_000).double()
    assert torch.isfinite(values).all()
    for column in values.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    assert (torch.corrcoef(values.T) - torch.eye(3)).abs().max() < 0.01
    assert abs(float(values[1:].flatten() @ values[:-1].flatten()) / values.numel()) < 0.01  # neighboring rows
    radii = stats.kstest(values.square().sum(1).numpy(), "chi2", args=(3,))
    assert radii.pvalue > 1e-3


def test_extreme_uniform_numbers():
    u = torch.tensor([2.0**-24, 1 - 2.0**-24])
    want = (-2 * u.double().log()).sqrt()
    assert torch.allclose(reference._radius(u).double(), want, rtol=1e-6)
    for v in (0.0, 0.125, 0.25, 0.5, 0.75, 1 - 2.0**-24):
        found = torch.stack(reference._circle(torch.tensor([v])))[:, 0]
        assert torch.allclose(
            found.double(), torch.tensor([math.cos(2 * math.pi * v), math.sin(2 * math.pi * v)]).double(), atol=3e-7
        )


def gaussians(count, dtype):
    generator = torch.Generator().manual_seed(0)
    parts = {
        "means": torch.randn(count, 3, generator=generator),
        "log_scales": torch.randn(count, 3, generator=generator) - 2,
        "quats": torch.randn(count, 4, generator=generator),
        "opacity_logits": 3 * torch.randn(count, generator=generator) - 3,
    }
    return {name: value.to(dtype) for name, value in parts.items()}


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_the_kernel_equals_the_reference(dtype, count):
    params, other = gaussians(count, dtype), gaussians(count, dtype)
    before = params["means"].clone()
    noise.add_noise(params, 7, 11, 0.3)
    reference.add_noise(*other.values(), 7, 11, 0.3, MAX_LOGIT)
    assert torch.allclose(params["means"], other["means"], rtol=1e-5 if dtype == torch.float32 else 1e-12)
    opaque = params["opacity_logits"] >= MAX_LOGIT
    assert torch.equal(params["means"][opaque], before[opaque])
    assert count < 2 or not torch.equal(params["means"][~opaque], before[~opaque])


def test_noise_has_the_covariance_of_the_gaussian_squared():
    """Sigma n and R s^2 n have covariance Sigma^2."""
    count = 100_000
    quat, scales = torch.tensor([0.8, 0.2, -0.4, 0.4]), torch.tensor([0.5, 1.0, 2.0])
    params = {
        "means": torch.zeros(count, 3),
        "log_scales": scales.log().expand(count, 3).contiguous(),
        "quats": quat.expand(count, 4).contiguous(),
        "opacity_logits": torch.full((count,), -20.0),
    }
    noise.add_noise(params, 0, 0, 1.0)
    rotmat = quat_to_rotmat(quat)
    covariance = rotmat @ torch.diag(scales**4) @ rotmat.T * torch.sigmoid(torch.tensor(0.5)) ** 2
    assert torch.allclose(torch.cov(params["means"].T), covariance, atol=0.05, rtol=0.03)


@needs_native
def test_invalid_values():
    params = gaussians(4, torch.float32)
    params["opacity_logits"][0] = torch.nan
    noise.add_noise(params, 0, 0, 1.0)
    assert params["means"][0].isnan().all() and params["means"][1:].isfinite().all()
    with pytest.raises(ValueError, match=r"quats: got shape \(4, 3\), want \(n, 4\)"):
        noise.add_noise(params | {"quats": torch.zeros(4, 3)}, 0, 0, 1.0)
