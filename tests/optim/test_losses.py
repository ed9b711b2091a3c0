import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.optim import losses


def images(*shape, dtype=torch.float64):
    a = torch.rand(shape, dtype=dtype)
    return a, (a + 0.2 * torch.randn_like(a)).clamp(0, 1)


def test_l1_is_the_mean_absolute_difference():
    a, b = torch.zeros(4, 5, 3), torch.full((4, 5, 3), 0.25)
    assert losses.l1(a, b).item() == pytest.approx(0.25)


def test_photometric_mixes_the_terms():
    a, b = images(20, 20, 3)
    want = 0.7 * losses.l1(a, b) + 0.3 * (1 - losses.ssim(a, b))
    torch.testing.assert_close(losses.photometric(a, b, 0.3), want)
    torch.testing.assert_close(losses.photometric(a, b, 0.0), losses.l1(a, b))
    assert losses.photometric(a, a).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("filler", [0.0, 7.0, float("nan")])
def test_masked_pixels_have_no_influence(padding, filler):
    a, b = images(2, 24, 20, 3)
    mask = torch.rand(2, 24, 20) > 0.3
    want = losses.photometric(a, b, mask=mask, padding=padding)
    spoiled = torch.where(mask.unsqueeze(-1), a, filler).requires_grad_()
    loss = losses.photometric(spoiled, b, mask=mask, padding=padding)
    torch.testing.assert_close(loss, want)
    (grad,) = torch.autograd.grad(loss, spoiled)
    assert grad.isfinite().all()
    assert (grad[~mask] == 0).all()
    assert (grad[mask] != 0).any()


def test_full_mask_changes_nothing_and_empty_mask_gives_zero():
    a, b = images(16, 16, 3)
    full = torch.ones(16, 16, dtype=torch.bool)
    torch.testing.assert_close(losses.photometric(a, b, mask=full), losses.photometric(a, b))
    assert losses.l1(a, b, ~full).item() == 0


def test_regularizers_have_their_closed_form():
    assert losses.opacity_loss(torch.zeros(3)).item() == pytest.approx(0.5)
    assert losses.scale_loss(torch.tensor([[0.0, 1, 2]])).item() == pytest.approx((1 + 2.718281828 + 7.389056099) / 3)
    distortions = torch.arange(4.0).reshape(2, 2, 1)
    assert losses.distortion_loss(distortions).item() == pytest.approx(1.5)
    assert losses.distortion_loss(distortions, torch.tensor([[True, True], [False, False]])).item() == pytest.approx(0.5)


def plane_depths(normal, offset, K, height, width):
    """Depth of the plane normal . x = offset seen by a camera at the origin."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)], -1).double()
    return (offset / (rays @ normal)).unsqueeze(-1)


def test_normals_of_a_plane_are_its_normal():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, -1.0], dtype=torch.float64), dim=0)
    K = torch.tensor([[30.0, 0, 8], [0, 25, 6], [0, 0, 1]], dtype=torch.float64)
    depths = plane_depths(normal, -3.0, K, 12, 16)
    normals = losses.depth_to_normals(depths, K)
    torch.testing.assert_close(normals[1:-1, 1:-1], normal.expand(10, 14, 3))
    assert (normals[0] == 0).all()
    assert (normals[:, -1] == 0).all()
    # a camera rotated about z: camera = R world, so the world normal is R^T times the camera's
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:2, :2] = torch.tensor([[0.0, -1], [1, 0]])
    world = losses.depth_to_normals(depths[None], K[None], viewmat[None])[0]
    torch.testing.assert_close(world[5, 5], viewmat[:3, :3].T @ normal)


def test_normal_consistency_is_zero_for_aligned_splats_and_grows_with_the_angle():
    surface = torch.zeros(6, 6, 3)
    surface[1:-1, 1:-1, 2] = -1
    alphas = torch.rand(6, 6, 1)
    assert losses.normal_consistency_loss(alphas * surface, surface, alphas).item() == pytest.approx(0, abs=1e-7)
    tilted = torch.tensor([0.6, 0, -0.8]).expand(6, 6, 3)
    loss = losses.normal_consistency_loss(alphas * tilted, surface, alphas)
    assert loss.item() == pytest.approx(0.2 * alphas[1:-1, 1:-1].mean().item(), rel=1e-5)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(8, 8, 3), torch.rand(8, 9, 3)), r"second image: got shape \(8, 9, 3\), want shape \(8, 8, 3\)"),
        ((torch.rand(8, 8), torch.rand(8, 8)), r"image: got shape \(8, 8\), want .*height, width, channels"),
        ((torch.rand(8, 8, 3), torch.rand(8, 8, 3).double()), "dtypes torch.float32 and torch.float64"),
        (
            (torch.rand(8, 8, 3), torch.rand(8, 8, 3), torch.ones(8, 8)),
            r"mask: got torch.float32 .* want bool of \(8, 8\)",
        ),
    ],
)
@pytest.mark.wrong_types
def test_wrong_images_are_rejected(arguments, message):
    with pytest.raises(ShapeError, match=message):
        losses.l1(*arguments)


@pytest.mark.wrong_types
def test_wrong_input_of_ssim():
    a = torch.rand(10, 40, 3)
    with pytest.raises(ShapeError, match="image: got 10x40 pixels, want at least 11x11"):
        losses.ssim(a, a)
    with pytest.raises(ShapeError, match="image: got 10x40 pixels, want at least 11x11"):
        losses.ssim(a, a, padding="same")
    a = torch.rand(20, 20, 3)
    with pytest.raises(InputError, match="window: got 10, want an odd number"):
        losses.ssim(a, a, window=10)
    with pytest.raises(InputError, match='padding: got \'reflect\', want "valid" or "same"'):
        losses.ssim(a, a, padding="reflect")
    with pytest.raises(InputError, match=r"sigma and data_range: got 0\.0"):
        losses.ssim(a, a, sigma=0.0)
    with pytest.raises(InputError, match=r"ssim_weight: got 1\.5"):
        losses.photometric(a, a, 1.5)
    with pytest.raises(ShapeError, match=r"alphas: got shape \(20, 20\)"):
        losses.normal_consistency_loss(a, a, a[..., 0])
