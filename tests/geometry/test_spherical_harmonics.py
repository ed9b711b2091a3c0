import math

import numpy as np
import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import spherical_harmonics as sph
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats, rotate


def unit_directions(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, 3, dtype=torch.float64), dim=-1)


def test_agrees_with_scipy():
    special = pytest.importorskip("scipy.special")
    directions = unit_directions(100)
    polar, azimuth = torch.acos(directions[:, 2]).numpy(), torch.atan2(directions[:, 1], directions[:, 0]).numpy()
    basis = sph.sh_basis(directions, 4).numpy()
    for l in range(5):
        for m in range(-l, l + 1):
            value = special.sph_harm_y(l, abs(m), polar, azimuth)
            want = value.real if m == 0 else math.sqrt(2) * (value.real if m > 0 else value.imag)
            assert np.abs(basis[:, l * l + l + m] - want).max() < 1e-13


def test_low_degrees_follow_the_convention_of_splats():
    x, y, z = unit_directions(10).unbind(-1)
    basis = sph.sh_basis(torch.stack([x, y, z], -1), 2)
    want = [
        torch.full_like(x, 0.28209479177387814),
        -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x,
        1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
    ]  # fmt: skip
    torch.testing.assert_close(basis, torch.stack(want, -1))


def test_functions_are_orthonormal():
    # Gauss-Legendre in z and equal steps in azimuth integrate polynomials of degree 8 exactly.
    nodes, weights = np.polynomial.legendre.leggauss(6)
    z, angle = torch.from_numpy(nodes)[:, None], torch.arange(12, dtype=torch.float64)[None] * math.pi / 6
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * angle.cos(), radius * angle.sin(), z.expand(6, 12)], -1)
    basis = sph.sh_basis(directions, 4)
    gram = torch.einsum("ijk,ijl,i->kl", basis, basis, torch.from_numpy(weights)) * math.pi / 6
    torch.testing.assert_close(gram, torch.eye(25, dtype=torch.float64), atol=1e-13, rtol=0)


def test_length_of_the_direction_does_not_matter():
    directions = unit_directions(5)
    torch.testing.assert_close(sph.sh_basis(1e-3 * directions, 4), sph.sh_basis(directions, 4))
    zero = torch.zeros(3, requires_grad=True)
    basis = sph.sh_basis(zero, 4)
    torch.testing.assert_close(basis.detach(), sph.sh_basis(torch.tensor([0.0, 0, 1]), 4))
    assert (torch.autograd.grad(basis.sum(), zero)[0] == 0).all()


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-5), (torch.float64, 1e-13)])
def test_rotated_coefficients_give_the_rotated_function(degree, dtype, atol):
    quats, directions = random_quats(40, dtype=torch.float64), unit_directions(40)
    sh = torch.randn(40, (degree + 1) ** 2, 3, dtype=torch.float64)
    turned = sph.rotate_sh(sh.to(dtype), quat_to_rotmat(quats).to(dtype))
    values = sph.eval_sh(turned, rotate(quats, directions).to(dtype))
    torch.testing.assert_close(values.double(), sph.eval_sh(sh, directions), atol=atol, rtol=0)


def test_rotation_matrices_are_a_representation():
    a, b = quat_to_rotmat(random_quats(2, 10, dtype=torch.float64))
    w_a, w_b = sph.sh_rotation(a, 4), sph.sh_rotation(b, 4)
    torch.testing.assert_close(sph.sh_rotation(a @ b, 4), w_a @ w_b, atol=1e-13, rtol=0)
    torch.testing.assert_close(w_a @ w_a.mT, torch.eye(25, dtype=torch.float64).expand(10, 25, 25), atol=1e-13, rtol=0)


def test_one_rotation_for_all_gaussians_or_one_each():
    rotmats, sh = quat_to_rotmat(random_quats(6)), torch.randn(6, 16, 3)
    own = sph.rotate_sh(sh, rotmats)
    torch.testing.assert_close(sph.rotate_sh(sh, rotmats[2])[2], own[2])
    torch.testing.assert_close(own[:, :4], sph.rotate_sh(sh[:, :4], rotmats))


def test_gradients():
    sh = torch.randn(3, 25, 2, dtype=torch.float64, requires_grad=True)
    directions = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sph.eval_sh, (sh, directions))
    rotmats = quat_to_rotmat(random_quats(3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(sph.rotate_sh, (sh, rotmats))


def test_higher_coefficients_are_ignored_at_a_lower_degree():
    sh, directions = torch.randn(5, 16, 3), torch.randn(5, 3)
    torch.testing.assert_close(sph.eval_sh(sh, directions, 1), sph.eval_sh(sh[:, :4], directions))


def test_colors():
    rgb = torch.rand(4, 3)
    torch.testing.assert_close(sph.sh0_to_rgb(sph.rgb_to_sh0(rgb)), rgb)
    torch.testing.assert_close(sph.eval_sh(sph.rgb_to_sh0(rgb)[:, None], torch.randn(4, 3)) + 0.5, rgb)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="degree: got 5, want 0 to 4"):
        sph.sh_basis(torch.zeros(3), 5)
    with pytest.raises(ShapeError, match=r"sh: got shape \(2, 4, 3\), want at least 9 coefficients .*degree 2"):
        sph.eval_sh(torch.zeros(2, 4, 3), torch.zeros(2, 3), 2)
    with pytest.raises(ShapeError, match="7 coefficients, want 1, 4, 9, 16 or 25"):
        sph.rotate_sh(torch.zeros(2, 7, 3), torch.eye(3))
