from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch

from vision3d.core.errors import ConfigError
from vision3d.geometry import triangles
from vision3d.geometry.covariance import quat_scale_to_covar
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats


def edges64(*shape):
    return torch.randn(*shape, 3, 2, dtype=torch.float64)


def flat_gaussians(count, flat_axis, dtype=torch.float64):
    scales = torch.rand(count, 3, dtype=dtype) + 0.1
    scales[:, flat_axis] = 1e-8
    return random_quats(count, dtype=dtype), scales


@pytest.mark.parametrize("flat_axis", [0, 1, 2])
def test_covariance_round_trip(flat_axis):
    quats, scales = flat_gaussians(200, flat_axis)
    edges = triangles.gaussians_to_edges(quats, scales)
    covars = quat_scale_to_covar(quats, scales)
    torch.testing.assert_close(edges @ edges.mT, covars, atol=1e-15, rtol=0)
    back = triangles.edges_to_gaussians(edges, flat_axis=flat_axis)
    torch.testing.assert_close(quat_scale_to_covar(*back), covars, atol=1e-14, rtol=0)
    assert (back[1][:, flat_axis] == 1e-8).all()


@pytest.mark.parametrize("flat_axis", [0, 1, 2])
def test_normal_keeps_its_sign(flat_axis):
    quats, scales = flat_gaussians(200, flat_axis)
    normals = quat_to_rotmat(quats)[..., flat_axis]
    edges = triangles.gaussians_to_edges(quats, scales, flat_axis)
    back, _ = triangles.edges_to_gaussians(edges, flat_axis=flat_axis)
    torch.testing.assert_close(quat_to_rotmat(back)[..., flat_axis], normals)
    torch.testing.assert_close(torch.nn.functional.normalize(torch.linalg.cross(*edges.unbind(-1)), dim=-1), normals)


@pytest.mark.parametrize("strength", [0.1, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 4e-6), (torch.float64, 1e-13)])
def test_affine_maps_move_the_covariance_exactly(strength, dtype, tolerance):
    quats, scales = flat_gaussians(2000, 2)
    maps = torch.eye(3).double() + strength * 0.5 * torch.randn(2000, 3, 3).double()
    want = maps @ quat_scale_to_covar(quats, scales) @ maps.mT
    moved = (maps @ triangles.gaussians_to_edges(quats, scales)).to(dtype)
    found = quat_scale_to_covar(*triangles.edges_to_gaussians(moved)).double()
    error = (found - want).norm(dim=(1, 2)) / want.norm(dim=(1, 2))
    assert error.max() < tolerance
    published = quat_scale_to_covar(*triangles.edges_to_gaussians(moved, method="gram_schmidt")).double()
    assert ((published - want).norm(dim=(1, 2)) / want.norm(dim=(1, 2))).median() > 0.02


def test_simple_shear_has_its_closed_form():
    shear = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    golden = (1 + 5**0.5) / 2
    _, scales = triangles.edges_to_gaussians(shear)
    torch.testing.assert_close(scales, torch.tensor([golden, golden - 1, 1e-8], dtype=torch.float64))
    _, published = triangles.edges_to_gaussians(shear, method="gram_schmidt")
    torch.testing.assert_close(published, torch.tensor([1.0, 1.0, 1e-8], dtype=torch.float64))


def test_slivers_and_tiny_triangles_keep_their_scales():
    for size in (1.0, 1e-12, 1e-18):
        edges = torch.tensor([[1.0, 1.0], [0.0, 1e-5], [0.0, 0.0]]) * size  # short axis: area / long axis
        _, scales = triangles.edges_to_gaussians(edges, thickness=1e-30)
        torch.testing.assert_close(scales[:2] / size, torch.tensor([2**0.5, 1e-5 / 2**0.5]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("method", ["exact", "gram_schmidt"])
def test_degenerate_triangles_are_valid_gaussians(method):
    cases = [[[0, 0], [0, 0], [0, 0]], [[1, 0], [2, 0], [3, 0]], [[0, 1], [0, 2], [0, 3]], [[1, 2], [2, 4], [3, 6]],
             [[1, -1], [1, -1], [0, 0]], [[1, 0], [0, 1], [0, 0]]]  # fmt: skip
    edges = torch.tensor(cases, dtype=torch.float32, requires_grad=True)
    quats, scales = triangles.edges_to_gaussians(edges, method=method)
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(6))
    assert (scales > 0).all()
    for value in (quats, scales, triangles.edges_to_covars(edges, 1e-3)):
        assert torch.autograd.grad(value.sum(), edges, retain_graph=True)[0].isfinite().all()
    if method == "exact":
        torch.testing.assert_close(quat_scale_to_covar(quats, scales), edges @ edges.mT, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("method", ["exact", "gram_schmidt"])
def test_gradients(method):
    edges = edges64(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: triangles.edges_to_gaussians(e, method=method), edges)
    assert torch.autograd.gradcheck(lambda e: triangles.edges_to_covars(e, 0.1), edges)
    quats, scales = flat_gaussians(5, 1)
    assert torch.autograd.gradcheck(triangles.gaussians_to_edges, (quats.requires_grad_(), scales.requires_grad_()))


def test_edges_are_more_precise_than_absolute_vertices():
    quats, scales = flat_gaussians(300, 2, torch.float32)
    scales = 1e-5 * scales
    means = torch.randn(300, 3)
    edges = triangles.gaussians_to_edges(quats, scales)
    want = quat_scale_to_covar(quats.double(), scales.double())

    def error(edges):
        return ((edges.double() @ edges.double().mT - want).norm(dim=(1, 2)) / want.norm(dim=(1, 2))).median()

    _, from_vertices = triangles.vertices_to_edges(triangles.edges_to_vertices(means, edges))
    assert error(edges) < 1e-6
    assert error(from_vertices) > 1e-3


def test_triangle_soup_round_trip():
    quats, scales = flat_gaussians(50, 0)
    means = torch.randn(50, 3, dtype=torch.float64)
    vertices, faces = triangles.gaussians_to_triangles(means, quats, scales)
    assert vertices.shape == (150, 3)
    assert faces[7].tolist() == [21, 22, 23]
    back_means, back_quats, back_scales = triangles.triangles_to_gaussians(vertices, faces, flat_axis=0)
    torch.testing.assert_close(back_means, means)
    torch.testing.assert_close(quat_scale_to_covar(back_quats, back_scales), quat_scale_to_covar(quats, scales))


def test_edges_to_covars_is_the_covariance_with_thickness():
    edges = edges64(20)
    covars = quat_scale_to_covar(*triangles.edges_to_gaussians(edges, thickness=0.05))
    scales = torch.linalg.svdvals(edges)
    is_thick = scales[:, 1] > 0.05
    torch.testing.assert_close(triangles.edges_to_covars(edges, 0.05)[is_thick], covars[is_thick])
    torch.testing.assert_close(triangles.edges_to_covars(edges), edges @ edges.mT)


def test_loss_of_flattening():
    scales = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 0.0], [2.0, 2.0, 2.0]])
    torch.testing.assert_close(triangles.flattening_loss(scales), torch.tensor([1 / 14, 0, 1 / 3]))


def test_unknown_method_is_named():
    with pytest.raises(ConfigError, match="method: 'svd'; valid: exact, gram_schmidt"):
        unwrap(triangles.edges_to_gaussians)(edges64(1), method="svd")
