import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.support.band import assert_close_outside_band, assert_same_gradients
from vision3d.render.splats.kernels import kernels
from vision3d.render.splats.records import Grid, Pixels, Projected, TileLists


class Splats(NamedTuple):
    means2d: Tensor
    conics: Tensor
    colors: Tensor
    opacities: Tensor
    depths: Tensor

    def to(self, dtype: torch.dtype) -> "Splats":
        return Splats(*(value.to(dtype, copy=True) for value in self))


def random_splats(count: int, width: int, height: int, *, channels: int = 3, seed: int = 0, size: float = 4.0) -> Splats:
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    angle = 2 * math.pi * rand(count)
    major, minor = size * (0.5 + rand(count)), size * (0.2 + 0.3 * rand(count))
    cos, sin = angle.cos(), angle.sin()
    a, c = (cos / major) ** 2 + (sin / minor) ** 2, (sin / major) ** 2 + (cos / minor) ** 2
    b = cos * sin * (major**-2 - minor**-2)
    means = rand(count, 2) * torch.tensor([width, height])
    return Splats(means, torch.stack([a, b, c], -1), rand(count, channels), 0.1 + 0.85 * rand(count), 1 + rand(count))


def projected(s: Splats, radii: Tensor | None = None) -> Projected:
    radii = torch.ones(len(s.depths), 2, dtype=torch.int32) if radii is None else radii
    return Projected(radii, s.means2d, s.depths, s.conics, torch.ones_like(s.depths))


def tile_lists(s: Splats, width: int, height: int, tile_size: int = 16, image_ids: Tensor | None = None, images: int = 1):
    """Offsets and ids from the boxes, by the reference."""
    det = s.conics[:, 0] * s.conics[:, 2] - s.conics[:, 1] ** 2
    radii = torch.ceil(3.4 * torch.stack([s.conics[:, 2], s.conics[:, 0]], -1).div(det[:, None]).sqrt()).int()
    image_ids = torch.zeros(len(radii), dtype=torch.int64) if image_ids is None else image_ids
    grid = Grid(images, width, height, tile_size)
    lists = kernels("reference").intersect(projected(s, radii), s.opacities, image_ids, grid).lists
    return lists.isect_offsets, lists.flatten_ids


def blend(s: Splats, width: int, height: int, *, backend: str, tile_size: int = 16, lists=None, **options):
    offsets, ids = lists or tile_lists(s, width, height, tile_size)
    pixels = Pixels(options.pop("backgrounds", None), options.pop("masks", None))
    lists = TileLists(width, height, tile_size, offsets, ids)
    return kernels(backend).blend(projected(s), s.colors, s.opacities, lists, pixels, **{"alpha_max": 0.99, **options})


def pixel_by_pixel(s: Splats, width: int, height: int, alpha_max: float = 0.99) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, one pixel and one Gaussian at a time; also the number of Gaussians blended at each pixel."""
    order = torch.argsort(s.depths, stable=True).tolist()
    image = torch.zeros(height, width, s.colors.shape[1], dtype=torch.float64)
    transmittance, count = torch.ones(height, width, dtype=torch.float64), torch.zeros(height, width, dtype=torch.int64)
    means, conics, opacities = s.means2d.tolist(), s.conics.tolist(), s.opacities.tolist()
    for row in range(height):
        for column in range(width):
            T = 1.0
            for i in order:
                dx, dy = means[i][0] - column - 0.5, means[i][1] - row - 0.5
                a, b, c = conics[i]
                alpha = min(alpha_max, opacities[i] * math.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy)))
                if alpha < 1 / 255:
                    continue
                if T * (1 - alpha) <= 1e-4:
                    break
                image[row, column] += alpha * T * s.colors[i]
                count[row, column] += 1
                T *= 1 - alpha
            transmittance[row, column] = T
    return image, transmittance, count


def test_one_gaussian_has_its_closed_form(backend):
    s = Splats(*map(torch.tensor, ([[8.5, 6.5]], [[0.08, 0.02, 0.05]], [[0.2, 0.5, 0.9]], [0.7], [1.0])))
    image, transmittance, last = blend(s, 20, 14, backend=backend)
    alpha = 1 - transmittance[0]
    assert alpha[6, 8].item() == pytest.approx(0.7, abs=1e-6)
    want = 0.7 * math.exp(-(0.5 * (0.08 * 4 + 0.05 * 9) - 0.02 * 6))  # two columns left, three rows down
    assert alpha[9, 6].item() == pytest.approx(want, abs=1e-6)
    torch.testing.assert_close(image[0], alpha[..., None] * s.colors[0], atol=1e-6, rtol=1e-6)
    assert torch.equal(last[0] >= 0, alpha > 0)


def test_two_gaussians_are_composited_front_to_back(backend):
    s = Splats(
        torch.tensor([[4.0, 4.0], [5.0, 4.5]]), torch.tensor([[0.1, 0, 0.1], [0.05, 0, 0.2]]),
        torch.tensor([[1.0, 0], [0, 1.0]]), torch.tensor([0.8, 0.6]), torch.tensor([2.0, 1.0]),
    )  # fmt: skip
    image, transmittance, _ = blend(s, 8, 8, backend=backend)
    # The second is closer. Pixel (row 4, column 3) has its center at (3.5, 4.5).
    near, far = 0.6 * math.exp(-0.5 * 0.05 * 1.5**2), 0.8 * math.exp(-0.5 * 0.1 * (0.5**2 + 0.5**2))
    want = torch.tensor([(1 - near) * far, near])
    torch.testing.assert_close(image[0, 4, 3], want, atol=1e-6, rtol=1e-6)
    assert transmittance[0, 4, 3].item() == pytest.approx((1 - near) * (1 - far), abs=1e-6)


@pytest.mark.parametrize("alpha_max", [0.99, 0.999])
def test_image_is_that_of_the_definition(backend, alpha_max):
    s = random_splats(120, 37, 21, size=6.0)
    s.opacities[::4] = 1.0  # some pixels saturate and some stop
    want, want_T, count = pixel_by_pixel(s, 37, 21, alpha_max)
    assert (want_T < 0.01).any()
    image, transmittance, last = blend(s.to(torch.float32), 37, 21, alpha_max=alpha_max, backend=backend)
    assert_close_outside_band(image[0], want, band=0.005)
    assert_close_outside_band(transmittance[0, ..., None], want_T[..., None], band=0.005)
    assert torch.equal(last[0] >= 0, count > 0)


def test_last_ids_are_the_list_index_of_the_last_blended_gaussian(backend):
    s = random_splats(60, 40, 30)
    offsets, ids = tile_lists(s, 40, 30)
    *_, last = blend(s.to(torch.float32), 40, 30, lists=(offsets, ids), backend=backend)
    ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(ids)])]).view(offsets.shape)
    for row in range(0, 30, 4):
        for column in range(0, 40, 3):
            tile = (0, row // 16, column // 16)
            d = s.means2d - torch.tensor([column + 0.5, row + 0.5])
            a, b, c = s.conics.unbind(-1)
            q = 0.5 * (a * d[:, 0] ** 2 + c * d[:, 1] ** 2) + b * d[:, 0] * d[:, 1]
            alpha = (s.opacities * torch.exp(-q)).clamp(max=0.99)
            T, want = 1.0, -1
            for place in range(int(offsets[tile]), int(ends[tile])):
                i = int(ids[place])
                if alpha[i] < 1 / 255:
                    continue
                if T * (1 - alpha[i]) <= 1e-4:
                    break
                T, want = T * float(1 - alpha[i]), place
            assert last[0, row, column] == want


def test_a_hundred_thousand_opaque_layers_blend_as_many_pairs_as_ten(backend):
    """Opaque means alpha_max: the second layer would reduce T to 1e-4, so each pixel blends one and stops."""
    for count in (10, 100_000):
        s = Splats(
            torch.full((count, 2), 8.0), torch.tensor([1e-9, 0, 1e-9]).repeat(count, 1), torch.rand(count, 3),
            torch.ones(count), torch.arange(count) + 1.0,
        )  # fmt: skip
        lists = (torch.zeros(1, 1, 1, dtype=torch.int32), torch.arange(count, dtype=torch.int32))
        image, transmittance, last = blend(s, 16, 16, lists=lists, backend=backend)
        assert (last == 0).all()
        torch.testing.assert_close(transmittance, torch.full((1, 16, 16), 0.01), atol=1e-6, rtol=0)
        torch.testing.assert_close(image, (0.99 * s.colors[0]).expand(1, 16, 16, 3), atol=1e-6, rtol=0)


def test_the_gaussian_that_would_cross_the_limit_is_skipped_with_all_behind_it(backend):
    """Alphas 0.9, 0.9, 0.9, 0.95, 0.5: T = 1e-3 after three, the fourth would bring 5e-5; the fifth is not tried."""
    opacities = torch.tensor([0.9, 0.9, 0.9, 0.95, 0.5], requires_grad=True)
    s = Splats(
        torch.full((5, 2), 0.5),
        torch.tensor([1e-3, 0, 1e-3]).repeat(5, 1),
        torch.eye(5),
        opacities,
        torch.arange(5) + 1.0,
    )
    image, transmittance, last = blend(s, 1, 1, backend=backend)
    torch.testing.assert_close(image[0, 0, 0].detach(), torch.tensor([0.9, 0.09, 0.009, 0, 0]), atol=1e-6, rtol=1e-5)
    assert transmittance.item() == pytest.approx(1e-3, rel=1e-4)
    assert last.item() == 2
    (grad,) = torch.autograd.grad(image.sum() + transmittance.sum(), opacities)
    assert grad[3:].count_nonzero() == 0


def test_no_gradient_through_a_saturated_alpha_except_for_colors(backend):
    s = Splats(*map(torch.tensor, ([[0.7, 0.4]], [[0.05, 0.01, 0.05]], [[0.2, 0.5, 0.9]], [0.999], [1.0])))
    leaves = Splats(*(value.requires_grad_() for value in s))
    image, transmittance, _ = blend(leaves, 1, 1, backend=backend)
    assert transmittance.item() == pytest.approx(0.01, rel=1e-4)
    grads = torch.autograd.grad(image.sum() + transmittance.sum(), leaves[:4])
    for grad, is_zero in zip(grads, (True, True, False, True)):
        assert (grad.count_nonzero() == 0) == is_zero
    torch.testing.assert_close(grads[2], torch.full((1, 3), 0.99))
    # With a higher limit, the same pixel is below it and gets a gradient.
    image, transmittance, _ = blend(leaves, 1, 1, alpha_max=0.9999, backend=backend)
    grads = torch.autograd.grad(image.sum() + transmittance.sum(), leaves[:4])
    assert all(grad.count_nonzero() > 0 for grad in grads)


def test_backgrounds_are_visible_and_get_the_transmittance_as_gradient(backend):
    s = random_splats(30, 20, 24).to(torch.float32)
    backgrounds = torch.tensor([[0.3, 0.6, 0.1]], requires_grad=True)
    image, transmittance, _ = blend(s, 20, 24, backgrounds=backgrounds, backend=backend)
    bare, *_ = blend(s, 20, 24, backend=backend)
    torch.testing.assert_close(image, bare + transmittance[..., None] * backgrounds[0], atol=1e-6, rtol=1e-6)
    weights = torch.rand_like(image)
    (grad,) = torch.autograd.grad((image * weights).sum(), backgrounds)
    torch.testing.assert_close(grad[0], (transmittance[..., None] * weights).sum((0, 1, 2)), atol=1e-4, rtol=1e-5)


def test_masked_tiles_show_the_background(backend):
    s = random_splats(30, 40, 20).to(torch.float32)
    masks = torch.tensor([[[True, False, True], [False, True, True]]])
    backgrounds = torch.tensor([[0.3, 0.6, 0.1]])
    image, transmittance, last = blend(s, 40, 20, backgrounds=backgrounds, masks=masks, backend=backend)
    whole, whole_T, whole_last = blend(s, 40, 20, backgrounds=backgrounds, backend=backend)
    shown = masks[0].repeat_interleave(16, 0).repeat_interleave(16, 1)[:20, :40]
    for got, full, hidden in ((image, whole, backgrounds[0]), (transmittance, whole_T, 1.0), (last, whole_last, -1)):
        assert torch.equal(got[0][shown], full[0][shown])
        assert (got[0][~shown] == hidden).all()


def test_images_of_a_batch_are_independent(backend):
    a, b = random_splats(40, 33, 17, seed=1), random_splats(50, 33, 17, seed=2)
    both = Splats(*(torch.cat(values).float() for values in zip(a, b)))
    ids = torch.tensor([0] * 40 + [1] * 50)
    together = blend(both, 33, 17, lists=tile_lists(both, 33, 17, image_ids=ids, images=2), backend=backend)
    for i, part in enumerate((a, b)):
        alone = blend(part.to(torch.float32), 33, 17, backend=backend)
        for got, want in zip(together[:2], alone[:2]):
            torch.testing.assert_close(got[i], want[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 33])
def test_any_number_of_channels(backend, channels):
    s = random_splats(60, 20, 20, channels=channels)
    image, *_ = blend(s.to(torch.float32), 20, 20, backend=backend)
    want, *_ = blend(s, 20, 20, backend="reference")
    assert image.shape == (1, 20, 20, channels)
    assert_close_outside_band(image, want)


def test_absgrad_is_the_sum_of_absolute_pixel_gradients(backend):
    s = random_splats(25, 18, 15)
    lists = tile_lists(s, 18, 15)
    weights = torch.randn(15, 18, 3, dtype=torch.float64)
    want, plain = torch.zeros(25, 2, dtype=torch.float64), torch.zeros(25, 2, dtype=torch.float64)
    leaf = s.means2d.clone().requires_grad_()
    image, *_ = blend(s._replace(means2d=leaf), 18, 15, lists=lists, backend="reference")
    for row in range(15):
        for column in range(18):
            loss = (image[0, row, column] * weights[row, column]).sum()
            (grad,) = torch.autograd.grad(loss, leaf, retain_graph=True)
            want, plain = want + grad.abs(), plain + grad
    single = s.to(torch.float32)
    means2d, sums = single.means2d.requires_grad_(), torch.zeros(25, 2)
    image, *_ = blend(single, 18, 15, lists=lists, absgrad=sums, backend=backend)
    (image[0] * weights.float()).sum().backward()
    torch.testing.assert_close(sums.double(), want, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(means2d.grad.double(), plain, atol=1e-3, rtol=1e-3)
    assert (want > 1.5 * plain.abs()).any()


def away_from_thresholds(s: Splats, width: int, height: int, margin: float) -> bool:
    """Whether no alpha is within `margin` of 1/255 or alpha_max and no transmittance is near its limit."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx, dy = (s.means2d[:, i, None, None] - grid for i, grid in enumerate((x, y)))
    a, b, c = s.conics[:, :, None, None].unbind(1)
    alpha = s.opacities[:, None, None] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    counted = torch.where(alpha > 1 / 255, alpha, 0)
    clear = ((alpha - 1 / 255).abs() > margin).all() and (alpha < 0.98).all()
    return bool(clear and (torch.prod(1 - counted, 0) > 2e-4).all())


def test_gradcheck_of_fifty_gaussians():
    seed = next(i for i in range(1000) if away_from_thresholds(random_splats(50, 32, 32, seed=i, size=3.0), 32, 32, 2e-7))
    s = random_splats(50, 32, 32, seed=seed, size=3.0)
    lists = tile_lists(s, 32, 32)
    backgrounds = torch.rand(1, 3, dtype=torch.float64)

    def images(means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor, backgrounds: Tensor):
        splats = Splats(means2d, conics, colors, opacities, s.depths)
        return blend(splats, 32, 32, lists=lists, backgrounds=backgrounds, backend="reference")[:2]

    inputs = [value.clone().requires_grad_() for value in (*s[:4], backgrounds)]
    assert torch.autograd.gradcheck(images, inputs, eps=1e-7, atol=1e-6, rtol=1e-6, fast_mode=True)
    # Fast mode compares one projection of the Jacobian; here, some complete columns.
    weights = torch.randn(1, 32, 32, 3, dtype=torch.float64)
    loss = lambda *values: (images(*values)[0] * weights).sum()  # noqa: E731
    grads = torch.autograd.grad(loss(*inputs), inputs)
    with torch.no_grad():
        for which, value in enumerate(inputs):
            for place in range(0, value.numel(), 1 + value.numel() // 7):
                shifted = []
                for sign in (1, -1):
                    moved = value.detach().clone()
                    moved.view(-1)[place] += sign * 1e-7
                    shifted.append(loss(*inputs[:which], moved, *inputs[which + 1 :]))
                slope = (shifted[0] - shifted[1]) / 2e-7
                assert slope.item() == pytest.approx(grads[which].flatten()[place].item(), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("with_alpha", [False, True])
def test_single_precision_gradients_agree_with_double(backend, with_alpha):
    s = random_splats(200, 64, 48)
    lists = tile_lists(s, 64, 48)
    weights, alpha_weights = torch.randn(1, 48, 64, 3), torch.randn(1, 48, 64)

    def gradients(dtype: torch.dtype, backend: str) -> dict[str, Tensor]:
        leaves = Splats(*(value.requires_grad_() for value in s.to(dtype)))
        backgrounds = torch.tensor([[0.1, 0.5, 0.8]], dtype=dtype, requires_grad=True)
        image, transmittance, _ = blend(leaves, 64, 48, lists=lists, backgrounds=backgrounds, backend=backend)
        ((image * weights).sum() + with_alpha * (transmittance * alpha_weights).sum()).backward()
        names = Splats._fields[:4]
        return {**{name: getattr(leaves, name).grad for name in names}, "backgrounds": backgrounds.grad}

    assert_same_gradients(gradients(torch.float32, backend), gradients(torch.float64, "reference"))


def test_an_image_without_gaussians_can_be_differentiated(backend):
    s = Splats(*(value[:0].float().requires_grad_() for value in random_splats(1, 8, 8)))
    image, transmittance, last = blend(s, 8, 8, lists=(torch.zeros(1, 1, 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)), backend=backend)  # fmt: skip  # noqa: E501
    image.sum().backward()
    assert s.colors.grad.shape == (0, 3)
    assert (transmittance == 1).all()
    assert (last == -1).all()
