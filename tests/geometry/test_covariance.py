import torch

from vision3d.geometry import covariance
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats


def gaussians(count, dtype=torch.float64):
    return random_quats(count, dtype=dtype), torch.rand(count, 3, dtype=dtype) + 0.05


def test_covariance_has_the_scales_along_the_axes():
    quats, scales = gaussians(20)
    covars = covariance.quat_scale_to_covar(3 * quats, scales)
    axes = quat_to_rotmat(quats)
    torch.testing.assert_close(covars @ axes, axes * scales[:, None].square())
    precisions = covariance.quat_scale_to_precision(quats, scales)
    torch.testing.assert_close(covars @ precisions, torch.eye(3).double().expand(20, 3, 3))


def test_round_trip_is_right_handed():
    covars = covariance.quat_scale_to_covar(*gaussians(200))
    quats, scales = covariance.covar_to_quat_scale(covars)
    torch.testing.assert_close(covariance.quat_scale_to_covar(quats, scales), covars)
    torch.testing.assert_close(torch.linalg.det(quat_to_rotmat(quats)), torch.ones(200).double())
    assert (scales.diff(dim=-1) >= 0).all()


def test_round_trip_in_single_precision():
    covars = covariance.quat_scale_to_covar(*gaussians(200, torch.float32))
    back = covariance.quat_scale_to_covar(*covariance.covar_to_quat_scale(covars))
    torch.testing.assert_close(back, covars, atol=2e-6, rtol=0)


def test_special_covariances_are_finite():
    covars = torch.stack([torch.zeros(3, 3), torch.eye(3), torch.diag(torch.tensor([1.0, 1, 0])), -1e-9 * torch.eye(3)])
    covars.requires_grad_()
    quats, scales = covariance.covar_to_quat_scale(covars)
    torch.testing.assert_close(scales[1:3].detach(), torch.tensor([[1.0, 1, 1], [0, 1, 1]]))
    assert (scales[3] == 0).all()
    assert torch.autograd.grad(quats.sum() + scales.sum(), covars)[0].isfinite().all()


def test_gradients():
    quats, scales = (x.requires_grad_() for x in gaussians(4))
    assert torch.autograd.gradcheck(covariance.quat_scale_to_covar, (quats, scales))
    covars = covariance.quat_scale_to_covar(quats, scales).detach().requires_grad_()
    assert torch.autograd.gradcheck(covariance.covar_to_quat_scale, covars)
    # The scales of an isotropic Gaussian are proportional to its size.
    round_covar = torch.eye(3).double().requires_grad_()
    (grad,) = torch.autograd.grad(covariance.covar_to_quat_scale(round_covar)[1].sum(), round_covar)
    torch.testing.assert_close(grad, torch.eye(3).double() / 2)


def test_six_values_are_the_upper_triangle():
    matrix = torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    assert covariance.symmetric_to_vec6(matrix).tolist() == [1, 2, 3, 4, 5, 6]
    torch.testing.assert_close(covariance.vec6_to_symmetric(covariance.symmetric_to_vec6(matrix)), matrix)
