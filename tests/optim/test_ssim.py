import pytest
import torch

from vision3d.core import native
from vision3d.optim import losses, ssim
from vision3d.optim.reference.ssim import gaussian_window, ssim_maps

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
SHAPES = [(1, 11, 11, 1), (1, 11, 30, 3), (2, 40, 17, 3), (1, 33, 64, 4), (0, 12, 12, 3), (3, 12, 25, 2)]


def images(shape, dtype=torch.float32):
    a = torch.rand(shape, dtype=dtype)
    return a, (a + 0.3 * torch.randn_like(a)).clamp(0, 1)


def dense_ssim(a, b, window, sigma):
    """SSIM of one channel by its definition: weighted variances about the weighted means, window by window."""
    w = gaussian_window(window, sigma).to(a)
    w = w[:, None] * w
    values = torch.empty(a.shape[0] - window + 1, a.shape[1] - window + 1, dtype=a.dtype)
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            x, y = a[i : i + window, j : j + window], b[i : i + window, j : j + window]
            mx, my = (w * x).sum(), (w * y).sum()
            vx, vy, cov = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum(), (w * (x - mx) * (y - my)).sum()
            values[i, j] = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    return values


def test_the_map_equals_the_definition():
    a, b = images((13, 15), torch.float64)
    got = ssim.ssim_map(a[..., None], b[..., None], window=7, sigma=1.2)
    torch.testing.assert_close(got[..., 0], dense_ssim(a, b, 7, 1.2))


# Variances are differences of means near 0.5 and are added to C2 = 9e-4: float32 leaves 1e-7 / 9e-4.
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 4e-4), (torch.float64, 1e-12)])
def test_constant_images_have_their_closed_form(dtype, atol):
    a, b = torch.full((16, 16, 3), 0.25, dtype=dtype), torch.full((16, 16, 3), 0.75, dtype=dtype)
    want = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    torch.testing.assert_close(ssim.ssim_map(a, b), torch.full((6, 6, 3), want, dtype=dtype), atol=atol, rtol=0)


@needs_native
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_native_equals_reference(isa, shape, padding, dtype, atol):
    a, b = images(shape, dtype)
    got_inputs = [x.clone().requires_grad_() for x in (a, b)]
    want_inputs = [x.double().requires_grad_() for x in (a, b)]
    got = ssim.ssim_map(*got_inputs, padding=padding)
    want = ssim_maps(*want_inputs, padding=padding).ssim
    torch.testing.assert_close(got, want.to(dtype), atol=atol, rtol=0)
    v = torch.randn(want.shape, dtype=torch.float64)
    got_grads = torch.autograd.grad((got * v.to(dtype)).sum(), got_inputs)
    want_grads = torch.autograd.grad((want * v).sum(), want_inputs)
    for g, w in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(g, w.to(dtype), atol=50 * atol, rtol=1e-4)


@needs_native
def test_strided_images_are_read_correctly():
    a, b = images((3, 30, 20))
    a, b = a.movedim(0, -1).requires_grad_(), b.movedim(0, -1)
    loss = losses.ssim(a, b)
    torch.testing.assert_close(loss, ssim_maps(a[None], b[None]).ssim.mean())
    assert loss.requires_grad


@needs_native
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("window", [3, 7])
def test_gradient(padding, window):
    a, b = (x.requires_grad_() for x in images((2, 8, 9, 2), torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: ssim.ssim_map(a, b, window=window, padding=padding), (a, b))
    assert torch.autograd.gradcheck(lambda b: ssim.ssim_map(a.detach(), b, window=window), b)


@needs_native
def test_no_gradient_is_stored_if_not_required():
    a, b = images((1, 20, 20, 3))
    for derivatives, count in ((False, 0), (True, 4)):
        assert len(torch.ops.vision3d.ssim(a, b, 11, 1.5, False, 1.0, derivatives)[1]) == count
    with torch.no_grad():
        assert not losses.ssim(a.requires_grad_(), b).requires_grad


@needs_native
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_bitwise_equal_for_any_number_of_threads(padding):
    a, b = images((2, 70, 65, 3))
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            x = a.clone().requires_grad_()
            values = ssim.ssim_map(x, b, padding=padding)
            results.append((values.detach(), *torch.autograd.grad(values, x, torch.ones_like(values))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@needs_native
@pytest.mark.parametrize("same", [False, True])
def test_registered_ops(same):
    a, b = (x.requires_grad_() for x in images((2, 14, 15, 3)))
    torch.library.opcheck(torch.ops.vision3d.ssim.default, (a, b, 11, 1.5, same, 1.0, True))
    values, by_means = torch.ops.vision3d.ssim(a, b, 11, 1.5, same, 1.0, True)
    arguments = a.detach(), b.detach(), torch.rand_like(values), by_means, 11, 1.5, same, True
    torch.library.opcheck(torch.ops.vision3d.ssim_vjp.default, arguments)


def test_without_the_native_module_torch_is_used(monkeypatch):
    a, b = images((20, 20, 3))
    want = losses.ssim(a, b)
    monkeypatch.setattr(native, "module", lambda: None)
    torch.testing.assert_close(losses.ssim(a, b), want)
