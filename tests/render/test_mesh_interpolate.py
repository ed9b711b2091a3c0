"""Interpolated mesh attributes at pixels."""

import pytest
import torch

from tests.support.meshes import grid, random_triangles, sphere
from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.render.meshes import Fragments, interpolate, rasterize

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def test_a_linear_attribute_stays_linear(backend):
    positions, faces = grid(3, 2, 0.0, 0.0, 12.0, 8.0)
    fragments = rasterize(positions, faces, 12, 8, backend=backend)
    values = interpolate(positions[0, :, :2], faces, fragments, backend=backend)
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(12) + 0.5, indexing="ij")
    torch.testing.assert_close(values[0], torch.stack([x, y], -1))


def test_homogeneous_positions_interpolate_to_the_pixel(backend):
    positions, faces = random_triangles(2, 30, dtype=torch.float64)
    fragments = rasterize(positions, faces, 20, 16, near_plane=0.1, backend=backend)
    values = interpolate(positions, faces, fragments, backend=backend)
    seen = fragments.face_ids >= 0
    y, x = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(20) + 0.5, indexing="ij")
    want = torch.stack([x, y], -1).double().expand(2, 16, 20, 2)
    torch.testing.assert_close((values[..., :2] / values[..., 3:])[seen], want[seen], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(values[..., 2], fragments.depths)
    assert not values[~seen].any()


@pytest.mark.parametrize("shape", [(12, 0), (12, 1), (12, 5), (2, 12, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@needs_native
def test_native_equals_reference(shape, dtype):
    positions, faces = random_triangles(2, 4, dtype=dtype)
    fragments = rasterize(positions, faces, 20, 16, near_plane=0.1)
    results = []
    for backend in ("native", "reference"):
        attributes = (
            torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype).requires_grad_()
        )
        weights = fragments.barycentrics.clone().requires_grad_()
        values = interpolate(attributes, faces, fragments._replace(barycentrics=weights), backend=backend)
        factors = torch.randn(values.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        (values * factors).sum().backward()
        results.append((values, attributes.grad, weights.grad))
    for a, b in zip(*results):
        torch.testing.assert_close(
            a, b, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=2e-5 if dtype == torch.float32 else 1e-10
        )


def test_gradient(backend):
    positions, faces = random_triangles(2, 3, dtype=torch.float64)
    fragments = rasterize(positions, faces, 6, 5, near_plane=0.1, backend=backend)
    attributes = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    weights = fragments.barycentrics.detach().requires_grad_()
    call = lambda a, w: interpolate(a, faces, fragments._replace(barycentrics=w), backend=backend)  # noqa: E731
    assert (fragments.face_ids >= 0).any()
    assert torch.autograd.gradcheck(call, (attributes, weights))


@needs_native
def test_registered_ops():
    positions, faces = sphere(8, 6, torch.float64, subdivisions=0)
    ids, weights, _ = rasterize(positions, faces, 8, 6)
    inputs = (positions.requires_grad_(), faces.int(), ids, weights.requires_grad_())
    torch.library.opcheck(torch.ops.vision3d.interpolate_mesh.default, inputs)
    plain = (positions.detach(), faces.int(), ids, weights.detach(), torch.randn(1, 6, 8, 4, dtype=torch.float64))
    torch.library.opcheck(torch.ops.vision3d.interpolate_mesh_vjp.default, plain)


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"attributes": torch.zeros(3)}, ShapeError, r"attributes: got shape \(3,\), want \(V, D\) or \(I, V, D\)"),
        ({"attributes": torch.zeros(2, 3, 1)}, ShapeError, "one set, or 1 as there are images"),
        ({"attributes": torch.zeros(2, 1)}, InputError, r"face 0 is \[0, 1, 2\], but there are 2 vertices"),
        (
            {"attributes": torch.zeros(3, 1).double()},
            ShapeError,
            "fragments.barycentrics: got torch.float32, want torch.float64",
        ),
        ({"faces": torch.zeros(0, 3).long()}, InputError, "a pixel has face 0, but there are 0 faces"),
        (
            {"fragments": Fragments(torch.zeros(2, 2).int(), torch.zeros(2, 2, 3), torch.zeros(2, 2))},
            ShapeError,
            r"\(I, H, W\)",
        ),
    ],
)
def test_wrong_input_is_named(change, error, text):
    fragments = Fragments(torch.zeros(1, 2, 2).int(), torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2))
    given = {"attributes": torch.zeros(3, 2), "faces": torch.tensor([[0, 1, 2]]), "fragments": fragments} | change
    with pytest.raises(error, match=text):
        getattr(interpolate, "__wrapped__", interpolate)(**given)
