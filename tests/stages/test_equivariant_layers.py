"""Layers against closed forms and symmetries. Each error of the published code is reproduced as a failing control."""

import math

import pytest
import torch

from tests.support.digits import drawn_digits
from vision3d.core.errors import ConfigError, ShapeError
from vision3d.geometry.groups import so2
from vision3d.geometry.groups.haar import GroupSamples, sample_group
from vision3d.geometry.groups.planar import polar2
from vision3d.stages.equivariant import layers
from vision3d.stages.equivariant.config import ModelConfig
from vision3d.stages.equivariant.equivariance import lift_error
from vision3d.stages.equivariant.layers import GroupConv, LiftConv, ProjectConv, SeparableGroupConv
from vision3d.stages.equivariant.networks import PlanarNet, _pooled
from vision3d.stages.equivariant.reference.kernels import grid_points, mask_values

F64 = torch.float64
LAYERS = [GroupConv, SeparableGroupConv]


def samples_of(maps, group="gl2", weights=None):
    log_p, angles = polar2(maps)
    return GroupSamples(group, log_p, angles, torch.ones(len(maps), dtype=maps.dtype) if weights is None else weights)


def quarter_turns(dtype=torch.float32):
    return GroupSamples(
        "so2", torch.zeros(4, 2, 2, dtype=dtype), torch.arange(4, dtype=dtype) * math.pi / 2, torch.ones(4, dtype=dtype)
    )


# ---------------------------------------------------------------- closed forms


def gaussian(points, covariance):
    """Normal density in the plane at points (..., 2) for covariances (n, 2, 2): (n, ...)."""
    inverse, det = torch.linalg.inv(covariance), torch.linalg.det(covariance)
    exponent = torch.einsum("...i,nij,...j->n...", points, inverse, points)
    return torch.exp(-exponent / 2) / (2 * math.pi * det.sqrt()).view(-1, *[1] * (points.ndim - 1))


SIZE, EXTENT = 31, 4.0  # kernel grid: cells of 8/31
KERNEL_COV = torch.tensor([[0.30, 0.05], [0.05, 0.20]], dtype=F64)
IMAGE_COV = torch.tensor([[0.5, -0.1], [-0.1, 0.4]], dtype=F64)
MAPS = torch.tensor([[[2.0, 0], [0, 2]], [[1.2, 0.3], [-0.2, 0.9]], [[0.8, 0.0], [0.5, 1.3]]], dtype=F64)


def on_group(log_p):
    """The factor of a kernel or an image on the group."""
    return torch.exp(-log_p.square().sum((-2, -1)))


def analytic_kernel(monkeypatch, swap_determinants=False):
    """Replaces the kernel network by N(q; 0, KERNEL_COV) exp(-|Y|^2)."""

    def build(group, kind, mask, inverses, elements, out_factors, in_factors, parameters, channels, size, extent):
        points = torch.einsum("nij,pj->npi", inverses, grid_points(size, extent, inverses))
        values = gaussian(points.flatten(0, 1), KERNEL_COV[None])[0].view(len(inverses), 1, -1)
        if elements is not None:
            values = values * on_group(polar2(inverses[:, None] @ elements[None])[0])[..., None]
        if swap_determinants:  # the released code divides by det g along the output sample axis
            values = values * in_factors[:, None, None] * out_factors[None, :, None]
        else:
            values = values * out_factors[:, None, None] * in_factors[None, :, None]
        cell = (2 * extent / size) ** 2
        return cell * values.view(1, len(inverses), 1, -1, size, size)

    monkeypatch.setattr(layers, "build_kernel", build)


def image_grid(side=81):
    along = (torch.arange(side, dtype=F64) - (side - 1) / 2) * (2 * EXTENT / SIZE)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y], -1)


def worst(found, exact, margin=SIZE // 2):
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    return float((found[inner] - exact[inner]).abs().max() / exact.abs().max())


def test_lift_of_a_gaussian(monkeypatch):
    """A Gaussian image and kernel give N(x; 0, Sigma_f + h Sigma_k h^T) at every h."""
    analytic_kernel(monkeypatch)
    grid, samples = image_grid(), samples_of(MAPS)
    layer = LiftConv("gl2", 1, 1, SIZE, extent=EXTENT, padding=SIZE // 2).double()
    found = layer(gaussian(grid, IMAGE_COV[None])[None], samples)[0, 0]
    exact = gaussian(grid, IMAGE_COV + MAPS @ KERNEL_COV @ MAPS.mT)
    assert worst(found, exact) < 1e-3
    plain = found * samples.determinants()[:, None, None]  # control: without the division by det h
    assert worst(plain, exact) > 0.1


@pytest.mark.parametrize("group", ["gl2", "sl2"])
def test_group_convolution_of_gaussians(monkeypatch, group):
    """The plane in closed form, the mean over the group with the layer's own samples."""
    maps = MAPS if group == "gl2" else MAPS / torch.linalg.det(MAPS).sqrt()[:, None, None]
    inputs = samples_of(maps, group, torch.tensor([0.7, 1.1, 1.6], dtype=F64))
    outputs = samples_of(so2.exp(torch.tensor([0.3, -1.0, 2.0], dtype=F64)) @ maps.flip(0), group)
    grid = image_grid()
    features = (gaussian(grid, IMAGE_COV[None]) * on_group(inputs.log_p)[:, None, None])[None, None]
    h, g = outputs.matrices(), inputs.matrices()
    relative = on_group(polar2(outputs.inverses()[:, None] @ g[None])[0])
    scale = (relative * inputs.weights * on_group(inputs.log_p) / torch.linalg.det(g)).mean(1)
    exact = gaussian(grid, IMAGE_COV + h @ KERNEL_COV @ h.mT) * (torch.linalg.det(h) * scale)[:, None, None]
    layer = GroupConv(group, 1, 1, SIZE, extent=EXTENT, padding=SIZE // 2).double()

    def error(swap):
        analytic_kernel(monkeypatch, swap)
        return worst(layer(features, inputs, outputs)[0, 0], exact)

    assert error(swap=False) < 1e-3
    if group == "gl2":
        assert error(swap=True) > 0.1  # control: the published axis; unnoticed because N_in = N_out


def test_projection_of_gaussians(monkeypatch):
    analytic_kernel(monkeypatch)
    inputs, grid = samples_of(MAPS, weights=torch.tensor([0.7, 1.1, 1.6], dtype=F64)), image_grid()
    features = (gaussian(grid, IMAGE_COV[None]) * on_group(inputs.log_p)[:, None, None])[None, None]
    g = inputs.matrices()
    scale = inputs.weights * on_group(inputs.log_p) / 3
    exact = (gaussian(grid, IMAGE_COV + g @ KERNEL_COV @ g.mT) * scale[:, None, None]).sum(0)
    layer = ProjectConv("gl2", 1, 1, SIZE, extent=EXTENT, padding=SIZE // 2).double()
    assert worst(layer(features, inputs)[0, 0], exact) < 1e-3


def test_mean_over_4096_samples_is_the_integral_over_the_group():
    """The sum of a group convolution at one position, against quadrature in the chart."""
    generator = torch.Generator().manual_seed(0)
    spread = 0.3
    samples = sample_group("sl2", 4096, spread=spread, generator=generator, dtype=F64)
    found = (samples.weights * on_group(samples.log_p)).mean()
    r = (torch.arange(4000, dtype=F64) + 0.5) / 4000 * spread * 2
    y = r / math.sqrt(2)
    exact = (2 * r * torch.sinh(2 * y) / (2 * y) * torch.exp(-r.square())).sum() / 4000 / (spread * 2)
    assert float(found / exact) == pytest.approx(1, abs=0.01)
    without = on_group(samples.log_p).mean()
    assert abs(float(without / exact) - 1) > 0.02  # control: without weights of the invariant measure


# ---------------------------------------------------------------- symmetries


def rotated_features(features):
    """The action of a rotation by 90 degrees on features (B, C, 4, H, W): on the plane and on the group."""
    return torch.rot90(features, -1, (-2, -1)).roll(1, 2)


@pytest.mark.parametrize("kind", ["siren", "wire"])
@pytest.mark.parametrize("mask", ["smooth", "disk", "bump"])
def test_rotations_by_90_degrees_are_exact_layer_by_layer(kind, mask):
    """rot90 by -1 rotates x towards y, which points down: the direction of so2.exp."""
    torch.manual_seed(1)
    options = {"kind": kind, "mask": mask, "padding": 1}
    samples, image = quarter_turns(F64), torch.randn(2, 1, 12, 12, dtype=F64)
    lift = LiftConv("so2", 1, 3, 5, **options).double()
    first, turned = lift(image, samples), lift(torch.rot90(image, -1, (-2, -1)), samples)
    assert float(turned.detach().std()) > 1e-3
    torch.testing.assert_close(turned, rotated_features(first), atol=1e-12, rtol=1e-10)
    for make in LAYERS:
        conv = make("so2", 3, 2, 5, **options).double()
        second = conv(first, samples, samples)
        torch.testing.assert_close(conv(turned, samples, samples), rotated_features(second), atol=1e-12, rtol=1e-10)
    project = ProjectConv("so2", 3, 2, 5, **options).double()
    plane = project(first, samples)
    torch.testing.assert_close(project(turned, samples), torch.rot90(plane, -1, (-2, -1)), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("method", ["full", "separable"])
def test_rotations_by_90_degrees_are_exact_end_to_end(method, pooling):
    torch.manual_seed(2)
    network = PlanarNet(ModelConfig(method=method, group="se2", channels=4, pooling=pooling)).eval()
    images = torch.rand(3, 40, 40)
    with torch.no_grad():
        plain = network(images, quarter_turns())
        for turns in (1, 2, 3):
            turned = network(torch.rot90(images, turns, (-2, -1)), quarter_turns())
            torch.testing.assert_close(turned, plain, atol=1e-6, rtol=0)
        eighth = quarter_turns()
        eighth = GroupSamples("so2", eighth.log_p, eighth.angles * 0.9, eighth.weights)  # control: not a group
        assert float((network(torch.rot90(images, 1, (-2, -1)), eighth) - network(images, eighth)).abs().max()) > 1e-4


def test_the_kernel_is_smooth_at_the_identity():
    """Samples slightly on both sides of h give the same kernel; with an angle in [0, 2 pi) as input, as published, it jumps."""
    torch.manual_seed(0)
    conv = GroupConv("so2", 1, 1, 3).double()
    near = GroupSamples(
        "so2", torch.zeros(2, 2, 2, dtype=F64), torch.tensor([-1e-6, 1e-6], dtype=F64), torch.ones(2, dtype=F64)
    )
    at = GroupSamples("so2", torch.zeros(1, 2, 2, dtype=F64), torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
    ones = torch.ones(2, dtype=F64)
    kernel = conv._build(at, near, ones[:1], ones).detach()
    size = kernel.abs().max()
    assert float((kernel[:, :, :, 0] - kernel[:, :, :, 1]).abs().max() / size) < 1e-3
    published = torch.remainder(near.angles, 2 * math.pi) * math.sqrt(2)
    inputs = torch.stack([torch.zeros(2), torch.zeros(2), published, torch.zeros(2)], -1)
    values = conv.net(inputs.double()).detach()
    assert float((values[0] - values[1]).abs().max() / values.abs().max()) > 0.1


def test_one_norm_masks_kernels_of_every_group():
    squares = torch.tensor([0.0, 0.5, 1.0, 1.5])
    torch.testing.assert_close(mask_values("disk", squares), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(mask_values("bump", squares), torch.tensor([1.0, 0.25, 0.0, 0.0]))
    smooth = mask_values("smooth", squares)
    assert float(smooth[2]) == pytest.approx(0.5) and bool((smooth.diff() < 0).all())
    slope = squares.clone().requires_grad_()
    mask_values("smooth", slope).sum().backward()
    assert slope.grad is not None and bool(slope.grad.isfinite().all())


@pytest.mark.slow
def test_error_decreases_with_the_square_root_of_the_number_of_samples():
    """Independent rotations and stretches for both images, so that the whole error is that of the group average."""
    torch.manual_seed(0)
    layer = LiftConv("gl2", 1, 4, 5, mask="bump", extent=1.4, padding=2)
    y, x = torch.meshgrid(torch.linspace(-3, 3, 24), torch.linspace(-3, 3, 24), indexing="ij")
    blobs = [
        torch.exp(-((x - a) ** 2) * c - (y + a) ** 2 * d) for a, c, d in ((0.1, 1, 3), (0.6, 4, 1), (-0.5, 2, 2), (0.0, 5, 0.8))
    ]
    turn = so2.exp(torch.tensor(math.radians(20), dtype=F64))
    generator = torch.Generator().manual_seed(3)
    counts, errors = [4, 16, 64, 256], []
    for count in counts:
        found = [
            lift_error(layer, torch.stack(blobs), turn, count, angles="uniform", generator=generator) ** 2
            for _ in range(1024 // count)
        ]
        errors.append(math.sqrt(sum(found) / len(found)))
    logs = torch.tensor(counts, dtype=F64).log()
    values = torch.tensor(errors, dtype=F64).log()
    slope = float(((logs - logs.mean()) * (values - values.mean())).sum() / (logs - logs.mean()).square().sum())
    assert slope == pytest.approx(-0.5, abs=0.15)
    same = lift_error(layer, torch.stack(blobs), turn, 256, same_samples=True, angles="uniform", generator=generator)
    assert same < errors[-1], "one set for both images hides the error"


@pytest.mark.parametrize("group", ["so2", "gl2"])
def test_lift_hardly_changes_with_128_samples(group):
    torch.manual_seed(0)
    layer = LiftConv(group, 1, 4, 5, padding=2)
    y, x = torch.meshgrid(torch.linspace(-3, 3, 40), torch.linspace(-3, 3, 40), indexing="ij")
    blobs = torch.stack([torch.exp(-(x**2) * c - y**2 * d) for c, d in ((1, 3), (4, 1), (2, 2))])
    turn = so2.exp(torch.tensor(math.radians(20), dtype=F64))
    assert lift_error(layer, blobs, turn, 128, generator=torch.Generator().manual_seed(0)) < 0.08


def test_error_decreases_with_the_resolution():
    torch.manual_seed(0)
    errors = []
    for side, size in ((28, 5), (56, 9), (112, 17)):
        torch.manual_seed(0)
        layer = LiftConv("so2", 1, 3, size, mask="bump", extent=1.4, padding=size // 2)
        along = (torch.arange(side) + 0.5) / side * 6 - 3
        y, x = torch.meshgrid(along, along, indexing="ij")
        blobs = torch.stack([torch.exp(-(x**2) * c - y**2 * d) for c, d in ((1, 3), (4, 1), (2, 2))])
        turn = so2.exp(torch.tensor(math.radians(20), dtype=F64))
        same = {"same_samples": True, "generator": torch.Generator().manual_seed(0)}
        errors.append(lift_error(layer, blobs, turn, 64, plane="max", **same))
    assert errors[0] > errors[1] > errors[2]


# ---------------------------------------------------------------- other properties of layers


@pytest.mark.parametrize("group", ["so2", "sl2", "gl2"])
def test_gradients(group):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    samples, others = (sample_group(group, n, generator=generator, dtype=F64) for n in (2, 3))
    images = torch.randn(1, 1, 3, 3, dtype=F64, requires_grad=True)
    features = torch.randn(1, 2, 2, 3, 3, dtype=F64, requires_grad=True)
    lift = LiftConv(group, 1, 2, 3).double()
    assert torch.autograd.gradcheck(lambda x: lift(x, samples), images)
    for make in LAYERS:
        conv = make(group, 2, 1, 3, padding=1).double()
        assert torch.autograd.gradcheck(lambda x, conv=conv: conv(x, samples, others), features)
    project = ProjectConv(group, 2, 1, 3).double()
    assert torch.autograd.gradcheck(lambda x: project(x, samples), features)
    for layer, call in ((lift, lambda: lift(images, samples)), (project, lambda: project(features, samples))):
        call().square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())


@pytest.mark.parametrize("method", ["full", "separable"])
@pytest.mark.parametrize("group", ["se2", "sl2", "affine"])
def test_network_is_deterministic_by_seed_and_does_not_mix_images(method, group):
    torch.manual_seed(0)
    network = PlanarNet(ModelConfig(method=method, group=group, channels=3, samples=3)).eval()
    images = torch.rand(4, 40, 40)
    with torch.no_grad():
        network.seed_samples(5)
        first = network(images)
        assert not torch.equal(first, network(images)), "new samples are drawn"
        network.seed_samples(5)
        assert torch.equal(first, network(images))
        samples = network.draw()
        whole = network(images, samples)
        for i in range(4):
            torch.testing.assert_close(network(images[i : i + 1], samples), whole[i : i + 1], atol=1e-5, rtol=1e-5)
        network.num_samples = 7
        assert network.draw().angles.shape == (7,)
        assert network(images).shape == (4, 10)


def test_separable_kernel_is_the_product():
    """A full kernel built from the two factors gives the result of the separable layer."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = (sample_group("gl2", n, generator=generator, dtype=F64) for n in (3, 4))
    conv = SeparableGroupConv("gl2", 2, 5, 3, padding=1).double()
    features = torch.randn(2, 2, 3, 7, 7, dtype=F64)
    mix = conv.mix._build(outputs, inputs, torch.ones(4, dtype=F64), layers._in_factors(inputs))
    plane = conv.plane._build(outputs, None, torch.ones(4, dtype=F64), torch.ones(1, dtype=F64))
    kernel = mix * plane
    want = torch.nn.functional.conv2d(features.flatten(1, 2), kernel.flatten(2, 3).flatten(0, 1), padding=1).unflatten(
        1, (5, 4)
    )
    torch.testing.assert_close(conv(features, inputs, outputs), want)


def test_a_padded_network_is_shift_invariant_up_to_the_border():
    """A shift by multiples of the pooling changes nothing, even if the image then touches the corner of the frame."""
    digit = torch.zeros(1, 40, 40, dtype=F64)
    digit[0, 12:28, 12:28] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    moved = torch.roll(digit, (-12, 12), (1, 2))

    def change(**options) -> float:
        torch.manual_seed(0)
        network = PlanarNet(ModelConfig(method="full", channels=3, samples=3, head_norm=False, **options)).eval().double()
        samples = network.draw().to(digit)
        with torch.no_grad():
            return float((network(digit, samples) - network(moved, samples)).abs().max())

    assert change(margin=20) < 1e-9
    for control in ({"margin": 0}, {"padded": False}):
        assert change(**control) > 1e-3, control


def test_pooling_is_the_same_with_and_without_gradients():
    for shape in ((2, 3, 4, 8, 6), (1, 2, 2, 7, 9)):
        features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        want = torch.nn.functional.max_pool3d(features, (1, 2, 2))
        assert torch.equal(_pooled(features, 2), want)
        with torch.no_grad():
            assert torch.equal(_pooled(features, 2), want)


@pytest.mark.parametrize("norm", ["scale", "layer"])
def test_black_stays_black(norm):
    image = torch.zeros(1, 40, 40)
    image[0, 2:6, 2:6] = 1
    network = PlanarNet(ModelConfig(method="full", channels=3, samples=3, norm=norm)).eval()
    with torch.no_grad():
        features = network.features(image, network.draw())
    assert all((float(f[..., -3:, -3:].abs().max()) == 0) == (norm == "scale") for f in features)


def test_a_margin_does_not_change_centered_images():
    digit = torch.zeros(1, 40, 40, dtype=F64)
    digit[0, 18:22, 18:22] = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    told = []
    for margin in (0, 8):
        torch.manual_seed(0)
        network = PlanarNet(ModelConfig(method="full", channels=3, samples=3, margin=margin)).eval().double()
        network.seed_samples(0)
        with torch.no_grad():
            told.append(network(digit))
    torch.testing.assert_close(told[0], told[1])


def test_the_window_of_rotations_drifts_in_training_only():
    config = ModelConfig(method="full", group="so2", channels=2, samples=6, window_deg=60, drift_deg=20)
    network = PlanarNet(config)
    network.seed_samples(0)

    def reach() -> float:
        return max(float(network.draw().angles.abs().max()) for _ in range(200))

    assert math.radians(60) < reach() <= math.radians(80)
    network.eval()
    assert math.radians(55) < reach() <= math.radians(60) + 1e-6


def test_number_of_parameters_equals_that_of_the_published_network():
    """Counted from the published shapes; cos and sin replace the angle, so one more input: 60 weights per layer."""
    network = PlanarNet(ModelConfig(method="full", group="sl2", channels=40, samples=10, head_norm=False, last_channels=0))
    count = sum(p.numel() for p in network.parameters())
    assert count - 3 * 60 == 339_102
    network = PlanarNet(ModelConfig(method="full", group="gl2", channels=40, samples=10, head_norm=False, last_channels=0))
    assert sum(p.numel() for p in network.parameters()) - 3 * 60 == 339_282


def test_wrong_arguments():
    samples = sample_group("sl2", 3)
    with pytest.raises(ConfigError, match="size: got 4, want an odd number"):
        LiftConv("so2", 1, 1, 4)
    with pytest.raises(ConfigError, match="group: 'e2' is not a group of planar maps"):
        LiftConv("e2", 1, 1)
    with pytest.raises(ConfigError, match="kernel: got 'spline', want siren or wire"):
        LiftConv("so2", 1, 1, kind="spline")
    with pytest.raises(ConfigError, match="mask: got 'square', want smooth, disk, bump"):
        LiftConv("so2", 1, 1, mask="square")(torch.zeros(1, 1, 8, 8), sample_group("so2", 2))
    with pytest.raises(ShapeError, match=r"features: got shape \(1, 2, 8, 8\), want \(B, 1, H, W\)"):
        LiftConv("sl2", 1, 1)(torch.zeros(1, 2, 8, 8), samples)
    with pytest.raises(ShapeError, match=r"features: got shape \(1, 2, 4, 8, 8\), want \(B, 2, 3, H, W\)"):
        GroupConv("sl2", 2, 2)(torch.zeros(1, 2, 4, 8, 8), samples, samples)
    with pytest.raises(ConfigError, match="group: samples are of sl2, the layer has gl2"):
        GroupConv("gl2", 2, 2)(torch.zeros(1, 2, 3, 8, 8), samples, samples)


def test_the_default_mask_is_the_most_equivariant():
    images = torch.nn.functional.pad(drawn_digits(8).images, (6,) * 4)
    turn = so2.exp(torch.tensor(math.radians(20), dtype=torch.float64))

    def error(**options):
        found = []
        for seed in range(3):
            torch.manual_seed(seed)
            layer = LiftConv("gl2", 1, 8, 5, padding=2, **options)
            generator = torch.Generator().manual_seed(seed)
            found += [lift_error(layer, images, turn, 8, generator=generator) ** 2 for _ in range(4)]
        return math.sqrt(sum(found) / len(found))

    default = error()
    assert default == error(mask=ModelConfig().mask, extent=ModelConfig().extent)
    for mask in ("smooth", "disk"):
        assert default < 0.75 * error(mask=mask), mask
