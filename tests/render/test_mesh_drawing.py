"""Attributes with antialiased silhouettes in one call: bitwise equal to the separate operations, gradients, both backends."""

import pytest
import torch
from torch import Tensor

from tests.support.meshes import grid, random_triangles, sphere
from vision3d.core import native
from vision3d.core.errors import BackendError, InputError, ShapeError
from vision3d.render.meshes import antialias, draw_attributes, edge_neighbors, interpolate, rasterize

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
DTYPES = [torch.float32, torch.float64]


def in_steps(attributes: Tensor, positions: Tensor, faces: Tensor, width: int, height: int, backend: str = "native") -> Tensor:
    fragments = rasterize(positions, faces, width, height, near_plane=0.1, backend=backend)
    colors = interpolate(attributes, faces, fragments, backend=backend)
    return antialias(colors, positions, faces, fragments, backend=backend)


def at_once(attributes: Tensor, positions: Tensor, faces: Tensor, width: int, height: int, backend: str = "native") -> Tensor:
    return draw_attributes(attributes, positions, faces, width, height, near_plane=0.1, backend=backend)


def with_gradients(call, attributes: Tensor, positions: Tensor, *others) -> list[Tensor]:
    leaves = [attributes.clone().requires_grad_(), positions.clone().requires_grad_()]
    image = call(*leaves, *others)
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(image)
    return [image.detach(), *torch.autograd.grad((image * weights).sum(), leaves)]


def scene(name: str) -> tuple[Tensor, Tensor, int, int]:
    """Positions in float64, faces, width, height."""
    if name == "sphere":  # a far side hidden by the near one
        return *sphere(90, 70, torch.float64, subdivisions=3), 90, 70
    if name == "inside out":
        positions, faces = sphere(90, 70, torch.float64, subdivisions=3)
        return positions, faces.flip(1), 90, 70
    if name == "dense":  # more faces than pixels
        return *sphere(20, 14, torch.float64, subdivisions=3), 20, 14
    if name == "triangles":  # boxes of every size, faces behind the camera, two images
        positions, faces = random_triangles(2, 200)
        return positions.double(), faces, 70, 50
    if name == "mixed":  # neighbors with flipped orientation
        positions, faces = sphere(60, 50, torch.float64, subdivisions=2)
        faces = torch.where((torch.arange(len(faces)) % 3 == 0)[:, None], faces.flip(1), faces)
        return positions, faces, 60, 50
    positions, faces = grid(9, 7, 0.5, -3.0, 62.5, 40.5, 1.0)  # centers on edges
    return positions.double(), faces, 50, 33


SCENES = ["sphere", "inside out", "dense", "triangles", "mixed", "grid"]


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", SCENES)
def test_bitwise_equal_to_the_separate_operations(name, channels, dtype):
    positions, faces, *size = scene(name)
    attributes = torch.randn(positions.shape[1], channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = attributes.to(dtype), positions.to(dtype), faces, *size
    (one, *one_grads), (other, *other_grads) = with_gradients(at_once, *given), with_gradients(in_steps, *given)
    assert torch.equal(one, other) and one.abs().max() > 0.1
    for a, b in zip(one_grads, other_grads):
        # Sums in another order, with terms far larger than the result: narrow faces have steep barycentrics.
        atol = float(b.abs().max()) * (1e-5 if dtype == torch.float32 else 1e-10)
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-4 if dtype == torch.float32 else 1e-9)


@needs_native
@pytest.mark.parametrize("name", ["sphere", "triangles", "mixed"])
def test_native_equals_reference(name):
    positions, faces, *size = scene(name)
    attributes = torch.randn(positions.shape[1], 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = (with_gradients(at_once, attributes, positions, faces, *size, backend) for backend in ("native", "reference"))
    for a, b in zip(one, other):
        torch.testing.assert_close(a, b, atol=1e-9 * float(b.abs().max()), rtol=1e-8)


@pytest.mark.parametrize("name", ["triangle", "sphere"])
def test_gradient(backend, name):
    if name == "triangle":
        positions = torch.tensor([[[0.7, 0.9, 1.0, 1.0], [13.1, 3.2, 2.0, 2.0], [5.4, 14.0, 1.5, 2.5]]], dtype=torch.float64)
        faces = torch.tensor([[0, 1, 2]])
    else:
        positions, faces = sphere(8, 6, torch.float64, 0)
    attributes = torch.rand(positions.shape[1], 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    call = lambda a, p: draw_attributes(a, p, faces, 8, 6, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(call, (attributes.requires_grad_(), positions.requires_grad_()), eps=1e-7)


def test_one_set_per_image_and_other_layouts(backend):
    positions, faces = random_triangles(2, 30)
    sets = torch.rand(2, positions.shape[1], 3, generator=torch.Generator().manual_seed(1))
    both = at_once(sets, positions, faces, 30, 20, backend)
    for i in range(2):
        one = at_once(sets[i], positions[i : i + 1], faces, 30, 20, backend)
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-6, rtol=0)
    strided = sets.mT.contiguous().mT, positions.mT.contiguous().mT, faces.int().T.contiguous().T
    assert not any(value.is_contiguous() for value in strided)
    assert torch.equal(at_once(*strided, 30, 20, backend), both)


def test_share_of_the_mesh(backend):
    """An additional attribute of ones composites the image over another background, as if it had been antialiased with it."""
    positions, faces = sphere(40, 30, torch.float64)
    colors = torch.rand(positions.shape[1], 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = at_once(torch.cat([colors, torch.ones_like(colors[:, :1])], 1), positions, faces, 40, 30, backend)
    fragments = rasterize(positions, faces, 40, 30, backend=backend)
    behind = interpolate(colors, faces, fragments, backend=backend) + 0.7 * (fragments.face_ids < 0)[..., None]
    want = antialias(behind, positions, faces, fragments, backend=backend)
    torch.testing.assert_close(drawn[..., :3] + 0.7 * (1 - drawn[..., 3:]), want)


@pytest.mark.parametrize("images, faces, channels", [(1, 0, 3), (0, 2, 3), (1, 2, 0)])
def test_nothing_to_draw(backend, images, faces, channels):
    positions = torch.rand(images, 4, 4)
    leaves = [torch.rand(4, channels).requires_grad_(), positions.requires_grad_()]
    image = draw_attributes(leaves[0], leaves[1], torch.tensor([[0, 1, 2], [1, 2, 3]])[:faces], 5, 3, backend=backend)
    assert image.shape == (images, 3, 5, channels)
    for grad, leaf in zip(torch.autograd.grad(image.sum(), leaves, allow_unused=True, materialize_grads=True), leaves):
        assert grad.shape == leaf.shape and not grad.any()


@needs_native
@pytest.mark.parametrize("name", ["sphere", "triangles"])
def test_bitwise_equal_for_any_number_of_threads(name):
    positions, faces, *size = scene(name)
    attributes = torch.rand(positions.shape[1], 3, generator=torch.Generator().manual_seed(1))
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(with_gradients(at_once, attributes, positions.float(), faces, *size))
    finally:
        torch.set_num_threads(before)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others))


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCENES)
def test_every_instruction_set_gives_the_same_bits(name, dtype):
    positions, faces, *size = scene(name)
    attributes = torch.rand(positions.shape[1], 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    module = native.require()
    results, before = [], module.isa()
    try:
        for isa in module.available_isas():
            module.set_isa(isa)
            results.append(with_gradients(at_once, attributes, positions.to(dtype), faces, *size))
    finally:
        module.set_isa(before)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others))


@needs_native
def test_changed_faces_are_detected():
    positions, faces = sphere(20, 15)
    faces = faces.clone()
    ones = torch.ones(positions.shape[1], 1)
    before = at_once(ones, positions, faces, 20, 15)
    faces[:] = faces[:1].clone()
    after = at_once(ones, positions, faces, 20, 15)
    assert torch.equal(after, in_steps(ones, positions, faces, 20, 15)) and after.sum() < 0.2 * before.sum()


@needs_native
def test_registered_ops():
    positions, faces = sphere(8, 6, torch.float64, 0)
    attributes = torch.rand(positions.shape[1], 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = (attributes[None], positions, faces.int(), edge_neighbors(faces), 8, 6, 0.1, 1e10)
    image, *kept = torch.ops.vision3d.draw_mesh(*inputs)
    torch.library.opcheck(torch.ops.vision3d.draw_mesh_vjp.default, (*inputs[:4], *kept, image))
    inputs[0].requires_grad_(), positions.requires_grad_()
    torch.library.opcheck(torch.ops.vision3d.draw_mesh.default, inputs)


@needs_native
def test_eager_calls_are_bitwise_equal_to_the_op(monkeypatch):
    positions, faces = random_triangles(2, 30)
    attributes = torch.linspace(0, 1, positions.shape[1]).view(-1, 1)
    eager = with_gradients(at_once, attributes, positions, faces, 30, 20)
    monkeypatch.setattr(native, "direct", lambda op, function=None, **_: op)
    assert all(torch.equal(a, b) for a, b in zip(eager, with_gradients(at_once, attributes, positions, faces, 30, 20)))


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"attributes": torch.zeros(3)}, ShapeError, r"attributes: got shape \(3,\), want \(V, D\) or \(I, V, D\)"),
        ({"attributes": torch.zeros(2, 3, 1)}, ShapeError, "one set, or 1 as there are images"),
        ({"attributes": torch.zeros(4, 1)}, ShapeError, r"attributes: got shape \(4, 1\), want shape \(3, 1\)"),
        ({"attributes": torch.zeros(3, 1).double()}, ShapeError, "attributes: got torch.float64, want torch.float32"),
        ({"attributes": torch.zeros(3, 1).int()}, ShapeError, "attributes: got torch.int32, want torch.float32"),
        ({"positions": torch.zeros(1, 3, 3)}, ShapeError, r"positions: got shape \(1, 3, 3\), want \(I, V, 4\)"),
        ({"faces": torch.tensor([[0, 1, 3]])}, InputError, r"face 0 is \[0, 1, 3\], but there are 3 vertices"),
        ({"neighbors": torch.zeros(1, 3).long()}, ShapeError, "neighbors: got torch.int64, want torch.int32"),
        ({"width": 0}, InputError, "width: got 0, want an int >= 1"),
        ({"near_plane": 2.0, "far_plane": 1.0}, InputError, "near_plane, far_plane: got 2.0, 1.0, want near_plane < far_plane"),
        ({"backend": "gsplat"}, BackendError, "gsplat"),
    ],
)
def test_wrong_input_is_named(change, error, text):
    given = {"attributes": torch.zeros(3, 2), "positions": torch.ones(1, 3, 4), "faces": torch.tensor([[0, 1, 2]])}
    with pytest.raises(error, match=text):
        getattr(draw_attributes, "__wrapped__", draw_attributes)(**given | {"width": 4, "height": 4} | change)
