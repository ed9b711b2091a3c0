"""Antialiasing of silhouettes: coverage, gradients against finite differences, and both backends."""

import pytest
import torch

from tests.support.meshes import grid, random_triangles, sphere
from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.render.meshes import antialias, edge_neighbors, interpolate, native_ops, rasterize, screen_positions

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def draw(positions, faces, width, height, backend, channels: int = 1) -> torch.Tensor:
    """White on black, antialiased."""
    fragments = rasterize(positions, faces, width, height, near_plane=0.1, backend=backend)
    seen = (fragments.face_ids >= 0)[..., None].expand(-1, -1, -1, channels)
    return antialias(seen.to(positions.dtype), positions, faces, fragments, backend=backend)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.45, 0.55, 0.9])
def test_a_vertical_edge_has_exact_coverage(backend, shift):
    positions, faces = grid(2, 2, 2.0 + shift, -3.0, 30.0, 30.0)
    image = draw(positions.double(), faces, 8, 6, backend)[0, :, :, 0]
    want = torch.ones(8, dtype=torch.float64)
    want[:2], want[2] = 0, 1 - shift
    torch.testing.assert_close(image, want.expand(6, 8), atol=1e-6, rtol=0)
    turned = draw(positions.double()[..., [1, 0, 2, 3]], faces, 6, 8, backend)[0, :, :, 0]
    torch.testing.assert_close(turned, image.T)


def test_the_area_of_a_disc(backend):
    positions, faces = sphere(40, 40, torch.float64, subdivisions=3)
    image = draw(positions, faces, 40, 40, backend)
    hard = (rasterize(positions, faces, 40, 40).face_ids >= 0).double().sum()
    # The outline of the sphere at distance 3 has radius focal / sqrt(8); the mesh is slightly inside.
    area = torch.pi * 44**2 / 8
    assert abs(float(image.sum()) / area - 1) < 0.006 and image.amin() >= 0 and image.amax() <= 1
    assert abs(float(hard) / area - 1) < 0.03 and ((image > 0.01) & (image < 0.99)).sum() > 60


def box(low, high, camera_model, dtype=torch.float64):
    """A box of 8 vertices and 12 faces, its front at depth 2, seen along z: positions for 16 x 12 pixels."""
    vertices = torch.cartesian_prod(*(torch.tensor([a, b], dtype=dtype) for a, b in zip((*low, 2.0), (*high, 3.0))))
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([part for a, b, c, d in quads for part in ((a, b, c), (a, c, d))])
    K = torch.tensor([[[8.0, 0, 8.1], [0, 8, 6.3], [0, 0, 1]]], dtype=dtype)
    return lambda moved: screen_positions(vertices + moved, torch.eye(4, dtype=dtype)[None], K, camera_model), faces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("camera_model", ["ortho", "pinhole"])
def test_a_box_seen_from_the_front(backend, camera_model, dtype):
    """Its sides are edge-on in ortho; in pinhole, the left and upper one are, as the camera is in both planes."""
    low, high = ((-0.53, -0.31), (0.44, 0.37)) if camera_model == "ortho" else ((0.0, 0.0), (1.33, 1.07))
    positions, faces = box(low, high, camera_model, dtype)
    scale = 8.0 if camera_model == "ortho" else 4.0  # px per meter at the front
    x0, x1 = (8.1 + scale * value for value in (low[0], high[0]))
    y0, y1 = (6.3 + scale * value for value in (low[1], high[1]))

    def covered(begin, end, count):
        start = torch.arange(count, dtype=dtype)
        return (torch.clamp(start + 1, max=end) - torch.clamp(start, min=begin)).clamp(min=0)

    image = draw(positions(torch.zeros(3, dtype=dtype)), faces, 16, 12, backend)[0, :, :, 0]
    want = covered(y0, y1, 12)[:, None] * covered(x0, x1, 16)
    inner_x, inner_y = ((value == 1) for value in (covered(x0, x1, 16), covered(y0, y1, 12)))
    for mask in (inner_y[:, None].expand(12, 16), inner_x.expand(12, 16)):  # rows and columns without a corner of the outline
        assert mask.any() and ((want > 0.01) & (want < 0.99) & mask).any()
        torch.testing.assert_close(image[mask], want[mask], atol=2e-5, rtol=0)


@pytest.mark.parametrize("camera_model", ["ortho", "pinhole"])
def test_gradient_of_a_moved_box_is_the_change_of_its_area(backend, camera_model):
    low, high = ((-0.53, -0.31), (0.44, 0.37)) if camera_model == "ortho" else ((0.0, 0.0), (1.33, 1.07))
    positions, faces = box(low, high, camera_model)
    weights = torch.linspace(0, 1, 16, dtype=torch.float64) + torch.linspace(0, 2, 12, dtype=torch.float64)[:, None]
    loss = lambda moved: (draw(positions(moved), faces, 16, 12, backend)[0, :, :, 0] * weights).sum()  # noqa: E731
    moved = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss(moved).backward()
    for axis in range(2):
        step = 1e-4 * torch.eye(3, dtype=torch.float64)[axis]
        # In pinhole, the other direction uncovers a side whose far edge becomes the outline: a kink.
        ends = (step, -step) if camera_model == "ortho" else (0 * step, -step)
        slope = (loss(ends[0]) - loss(ends[1])) / (ends[0] - ends[1]).norm()
        assert abs(float(slope)) > 1
        torch.testing.assert_close(moved.grad[axis], slope, rtol=1e-3, atol=0)


def test_inner_edges_are_unchanged(backend):
    positions, faces = grid(6, 5, -1.0, -1.0, 20.0, 20.0, jitter=1.0)
    fragments = rasterize(positions, faces, 16, 16, backend=backend)
    colors = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(antialias(colors, positions, faces, fragments, backend=backend), colors)


def test_gradient_of_the_area_is_the_length_of_the_outline(backend):
    positions, faces = grid(1, 1, 3.3, 2.2, 9.7, 11.4)
    positions = positions.double().requires_grad_()
    draw(positions, faces, 16, 16, backend).sum().backward()
    # Moving the right side by 1 px adds one pixel per covered row.
    right = positions.detach()[0, :, 0] > 5
    torch.testing.assert_close(positions.grad[0, right, 0].sum(), torch.tensor(9.0).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(positions.grad[0, ~right, 0].sum(), torch.tensor(-9.0).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scene", ["sphere", "triangles"])
def test_gradient(backend, scene):
    """Gradcheck with fixed faces per pixel: colors and positions."""
    positions, faces = sphere(6, 5, torch.float64, 0) if scene == "sphere" else random_triangles(1, 6, 1, torch.float64)
    if scene == "triangles":
        positions = positions * positions.new_tensor([0.15, 0.15, 1, 1])
    fragments = rasterize(positions, faces, 6, 5, near_plane=0.1)
    colors = torch.rand(1, 5, 6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    call = lambda c, p: antialias(c, p, faces, fragments, backend=backend)  # noqa: E731
    assert not torch.equal(call(colors, positions), colors)
    assert torch.autograd.gradcheck(call, (colors, positions.requires_grad_()), eps=1e-7)


def test_silhouettes_against_finite_differences(backend):
    """Rasterized again at every step, so that pixels change their faces."""
    positions, faces = sphere(40, 40, torch.float64, 3)
    weights = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]  # a smooth loss
    direction = positions.new_tensor([1.0, 0.7, 0.0, 0.0]) * positions[..., 3:]  # all move right and down
    loss = lambda p: (draw(p, faces, 40, 40, backend)[..., 0] * weights).sum()  # noqa: E731
    leaf = positions.clone().requires_grad_()
    loss(leaf).backward()
    slope = (loss(positions + 0.5 * direction) - loss(positions - 0.5 * direction)) / 1.0
    assert abs(float((leaf.grad * direction).sum()) / float(slope) - 1) < 0.01


@needs_native
@pytest.mark.parametrize("dtype, atol", [(torch.float32, 2e-4), (torch.float64, 1e-9)])
def test_native_equals_reference(dtype, atol):
    positions, faces = random_triangles(2, 30, 1, dtype)
    fragments = rasterize(positions, faces, 30, 20, near_plane=0.1)
    results = []
    for backend in ("native", "reference"):
        generator = torch.Generator().manual_seed(0)
        colors = torch.rand(2, 20, 30, 3, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        leaf = positions.clone().requires_grad_()
        out = antialias(colors, leaf, faces, fragments, backend=backend)
        (out * torch.rand(out.shape, generator=generator, dtype=torch.float64).to(dtype)).sum().backward()
        results.append((out.detach(), colors.grad, leaf.grad))
    assert (results[0][0] != colors).sum() > 50
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, atol=atol * float(b.abs().max()), rtol=atol)


@needs_native
def test_native_equals_reference_where_a_surface_folds_between_two_pixels():
    found = 0
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        positions, faces = sphere(24, 24, torch.float64, subdivisions=3)
        positions[..., :2] += 1.5 * torch.randn(*positions.shape[:2], 2, generator=generator)
        fragments = rasterize(positions, faces, 24, 24, near_plane=0.1)
        colors = torch.rand(1, 24, 24, 2, generator=generator, dtype=torch.float64)
        blended = [antialias(colors, positions, faces, fragments, backend=backend) for backend in ("native", "reference")]
        torch.testing.assert_close(blended[0], blended[1], atol=1e-9, rtol=0)
        found += int((blended[0] != colors).any(-1).sum())
    assert found > 500


@needs_native
def test_bitwise_equal_for_any_number_of_threads():
    positions, faces = random_triangles(2, 12)
    grads, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaf = positions.clone().requires_grad_()
            draw(leaf, faces, 120, 110, "native", channels=3).square().sum().backward()
            grads.append(leaf.grad)
    finally:
        torch.set_num_threads(before)
    assert grads[0].any() and torch.equal(*grads)


@needs_native
def test_registered_ops():
    positions, faces = sphere(8, 6, torch.float64, 0)
    ids, _, depths = rasterize(positions, faces, 8, 6)
    colors = torch.rand(1, 6, 8, 2, dtype=torch.float64)
    inputs = (positions, faces.int(), edge_neighbors(faces), ids, depths, colors)
    _, pairs = torch.ops.vision3d.antialias_mesh(*inputs)
    torch.library.opcheck(torch.ops.vision3d.antialias_mesh_vjp.default, (*inputs, pairs, colors))
    positions.requires_grad_(), colors.requires_grad_()
    torch.library.opcheck(torch.ops.vision3d.antialias_mesh.default, inputs)


@needs_native
def test_eager_calls_are_bitwise_equal_to_the_ops(monkeypatch):
    """Images and gradients of rasterize, interpolate and antialias, with and without the bypass of `torch.library`."""
    positions, faces = random_triangles(2, 30)
    results = []
    for way in ("eager", "ops"):
        if way == "ops":
            monkeypatch.setattr(native, "direct", lambda op, function=None, **_: op)
        leaves = [positions.clone().requires_grad_(), torch.linspace(0, 1, positions.shape[1]).view(-1, 1).requires_grad_()]
        fragments = rasterize(leaves[0], faces, 30, 20, near_plane=0.1, backend="native")
        values = interpolate(leaves[1], faces, fragments, backend="native")
        out = antialias(values, leaves[0], faces, fragments, backend="native")
        name = out.grad_fn.next_functions[0][0].name() + out.grad_fn.name()
        assert ("eager" in name) == (way == "eager"), name
        results.append([out, *torch.autograd.grad((out * out).sum() + fragments.depths.sum(), leaves)])
        with torch.no_grad():
            assert torch.equal(antialias(values, leaves[0], faces, fragments, backend="native"), out)
    assert all(torch.equal(a, b) and a.any() for a, b in zip(*results))


@needs_native
def test_traces_contain_the_ops():
    from torch.fx.experimental.proxy_tensor import make_fx

    positions, faces = sphere(8, 6, torch.float32, 0)
    fragments = rasterize(positions, faces, 8, 6, backend="native")
    colors, edges = torch.rand(1, 6, 8, 2), edge_neighbors(faces)
    call = lambda c: native_ops.antialias(positions, faces.int(), edges, fragments.face_ids, fragments.depths, c)  # noqa: E731
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            assert "vision3d.antialias_mesh" in make_fx(call)(colors).code


def test_edge_neighbors():
    _, faces = sphere(4, 4, subdivisions=1)
    neighbors = edge_neighbors(faces)
    for f, k in ((0, 0), (7, 1), (30, 2)):
        edge = {int(faces[f, (k + 1) % 3]), int(faces[f, (k + 2) % 3])}
        assert [int(neighbors[f, k])] == [g for g, row in enumerate(faces.tolist()) if g != f and edge <= set(row)]
    assert edge_neighbors(torch.zeros(0, 3).long()).shape == (0, 3)
    assert (edge_neighbors(torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])) == -1).all()  # three faces at one edge


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"colors": torch.zeros(2, 2, 3)}, ShapeError, r"colors: got shape \(2, 2, 3\), want \(I, H, W, D\)"),
        ({"colors": torch.zeros(1, 2, 3, 3)}, ShapeError, r"colors: got shape \(1, 2, 3, 3\), want shape \(1, 2, 2, 3\)"),
        ({"positions": torch.zeros(2, 3, 4)}, ShapeError, "2 images as positions"),
        ({"neighbors": torch.zeros(1, 3).long()}, ShapeError, "neighbors: got torch.int64, want torch.int32"),
        ({"faces": torch.zeros(0, 3).long()}, InputError, "a pixel has face 0, but there are 0 faces"),
    ],
)
def test_wrong_input_is_named(change, error, text):
    positions, faces = torch.tensor([[[0.0, 0, 1, 1], [9, 0, 1, 1], [0, 9, 1, 1]]]), torch.tensor([[0, 1, 2]])
    fragments = rasterize(positions, faces, 2, 2)
    given = {"colors": torch.zeros(1, 2, 2, 3), "positions": positions, "faces": faces, "fragments": fragments} | change
    with pytest.raises(error, match=text):
        getattr(antialias, "__wrapped__", antialias)(**given)
