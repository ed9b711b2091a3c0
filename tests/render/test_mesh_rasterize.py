"""The mesh rasterizer: coverage, depth, difficult inputs, gradients, and both backends."""

import pytest
import torch

from tests.support.meshes import grid, random_triangles, sphere
from vision3d.core import native
from vision3d.core.errors import BackendError, InputError, ShapeError
from vision3d.render.meshes import interpolate, rasterize, screen_positions

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
NAN, INF = float("nan"), float("inf")


def triangle(*corners: tuple[float, ...], dtype: torch.dtype = torch.float32):
    return torch.tensor([corners], dtype=dtype), torch.tensor([[0, 1, 2]])


def draws(positions, faces, width, height, backend) -> torch.Tensor:
    """Number of times each pixel is drawn when every face is drawn separately."""
    alone = [rasterize(positions, faces[f : f + 1], width, height, backend=backend).face_ids >= 0 for f in range(len(faces))]
    return torch.stack(alone).sum(0)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_triangle_has_its_closed_form(backend, dtype):
    corners = [(0.0, 0.0, 1.0, 1.0), (16.0, 0.0, 2.0, 2.0), (0.0, 24.0, 3.0, 3.0)]  # at (0, 0), (8, 0), (0, 8) px
    fragments = rasterize(*triangle(*corners, dtype=dtype), 8, 8, backend=backend)
    y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
    inside = x + y < 8
    assert torch.equal(fragments.face_ids[0] == 0, inside)
    flat = torch.stack([1 - x / 8 - y / 8, x / 8, y / 8], -1)
    depth = 1 / (flat @ (1 / torch.tensor([1.0, 2.0, 3.0])))
    want = flat / torch.tensor([1.0, 2.0, 3.0]) * depth[..., None]
    torch.testing.assert_close(fragments.barycentrics[0][inside], want[inside].to(dtype))
    torch.testing.assert_close(fragments.depths[0][inside], depth[inside].to(dtype))
    assert not fragments.barycentrics[0][~inside].any() and not fragments.depths[0][~inside].any()


@pytest.mark.parametrize("jitter, seed", [(0.0, 0), (0.4, 1), (0.4, 2), (0.9, 3)])
def test_a_grid_covers_each_pixel_once(backend, jitter, seed):
    # Without jitter, every vertex is on a pixel center and every edge passes through centers.
    positions, faces = grid(6, 5, 0.5, 0.5, 12.5, 10.5, jitter, seed)
    count = draws(positions, faces, 14, 12, backend)
    want = torch.zeros(12, 14, dtype=torch.int64)
    want[:10, :12] = 1  # top-left rule: centers on the left and top edges belong to it
    assert torch.equal(count, want)
    assert torch.equal(rasterize(positions, faces, 14, 12, backend=backend).face_ids[0] >= 0, want.bool())


@pytest.mark.parametrize("center", [(6.5, 5.5), (6.25, 5.75), (7.0, 5.0)])
def test_a_fan_covers_each_pixel_once(backend, center):
    angles = torch.arange(11) * (2 * torch.pi / 11)
    ring = torch.stack([6.5 + 40 * angles.cos(), 5.5 + 40 * angles.sin()], -1)
    points = torch.cat([torch.tensor([center]), ring])
    positions = torch.cat([points, torch.ones(12, 2)], -1)[None]
    faces = torch.tensor([[0, 1 + i, 1 + (i + 1) % 11] for i in range(11)])
    flipped = torch.where(torch.arange(11)[:, None] % 2 == 0, faces, faces.flip(1))  # both orientations
    assert torch.equal(draws(positions, flipped, 13, 11, backend), torch.ones(11, 13, dtype=torch.int64))


def test_perspective_keeps_shared_edges(backend):
    positions, faces = sphere(24, 20, subdivisions=1)
    count = draws(positions, faces, 24, 20, backend)
    assert set(count.unique().tolist()) == {0, 2}  # a closed surface is crossed twice, or not at all


def test_closer_faces_hide_those_behind(backend):
    near, far = (
        [(0.0, 0.0, 1.0, 1.0), (9.0, 0.0, 1.0, 1.0), (0.0, 9.0, 1.0, 1.0)],
        [(0.0, 0.0, 2.0, 2.0), (30.0, 0.0, 2.0, 2.0)],
    )
    positions = torch.tensor([[*near, *far, (0.0, 30.0, 2.0, 2.0)]])
    for order in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        fragments = rasterize(positions, torch.tensor(order), 10, 10, backend=backend)
        assert fragments.face_ids[0, 0, 0] == order.index([0, 1, 2])
        assert fragments.depths[0, 0, 0] == 1 and fragments.depths[0, 0, 9] == 2
    twice = rasterize(positions, torch.tensor([[3, 4, 5], [0, 1, 2], [2, 1, 0]]), 10, 10, backend=backend)
    assert twice.face_ids[0, 0, 0] == 1  # the lower index of two at the same depth


@pytest.mark.parametrize("camera_model", ["pinhole", "ortho"])
def test_floor_through_the_camera(backend, camera_model):
    # A floor 1 m below the camera that starts 5 m behind it: rows below the horizon have depth focal / (y - cy).
    vertices = torch.tensor([[-50.0, 1, -5], [50, 1, -5], [50, 1, 50], [-50, 1, 50]])
    K = torch.tensor([[[10.0, 0, 8], [0, 10, 8], [0, 0, 1]]])
    positions = screen_positions(vertices, torch.eye(4)[None], K, camera_model)
    fragments = rasterize(
        positions, torch.tensor([[0, 1, 2], [0, 2, 3]]), 16, 16, near_plane=1.5, far_plane=40, backend=backend
    )
    if camera_model == "ortho":  # seen from the side it has no area
        assert (fragments.face_ids == -1).all()
        return
    depth = 10 / (torch.arange(16) + 0.5 - 8)
    seen = (depth >= 1.5) & (depth <= 40)
    assert torch.equal(fragments.face_ids[0] >= 0, seen[:, None].expand(16, 16))
    torch.testing.assert_close(fragments.depths[0][seen], depth[seen, None].expand(-1, 16))


def test_ortho_draws_depths_of_a_slope(backend):
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 4], [1, 1, 4], [-1, 1, 2]])
    K = torch.tensor([[[4.0, 0, 4], [0, 4, 4], [0, 0, 1]]])
    positions = screen_positions(vertices, torch.eye(4)[None], K, "ortho")
    depths = rasterize(positions, torch.tensor([[0, 1, 2], [0, 2, 3]]), 8, 8, backend=backend).depths
    torch.testing.assert_close(depths[0], (2 + (torch.arange(8) + 0.5) / 4).expand(8, 8))


@pytest.mark.parametrize(
    "corners",
    [
        [(1.0, 1, 1, 1), (5, 1, 1, 1), (9, 1, 1, 1)],  # a line
        [(1.5, 1.5, 1, 1)] * 3,  # a point on a pixel center
        [(0.0, 0, -1, -1), (-8, 0, -1, -1), (0, -8, -1, -1)],  # behind
        [(0.0, 0, 0, 0)] * 3,
        [(NAN, 0.0, 1, 1), (8, 0, 1, 1), (0, 8, 1, 1)],
        [(0.0, 0, 1, 1), (8, 0, NAN, 1), (0, 8, 1, 1)],
        [(0.0, 0, 1, 1), (8, 0, 1, NAN), (0, 8, 1, 1)],
        [(0.0, 0, 1, 1), (INF, 0, 1, 1), (0, 8, 1, 1)],
        [(0.0, 0, 1e11, 1), (8, 0, 1e11, 1), (0, 8, 1e11, 1)],  # beyond the far plane
    ],
)
def test_invisible_faces_are_not_drawn(backend, corners):
    positions, faces = triangle(*corners)
    positions.requires_grad_()
    fragments = rasterize(positions, faces, 8, 8, backend=backend)
    assert (fragments.face_ids == -1).all()
    (fragments.barycentrics.sum() + fragments.depths.sum()).backward()
    assert (positions.grad == 0).all()


def test_one_bad_vertex_does_not_affect_the_rest(backend):
    positions, faces = sphere(16, 16)
    whole = rasterize(positions, faces, 16, 16, backend=backend)
    broken = torch.cat([positions, torch.full((1, 1, 4), NAN)], 1)
    more = torch.cat([faces, torch.tensor([[0, 1, positions.shape[1]]])])
    for a, b in zip(whole, rasterize(broken, more, 16, 16, backend=backend)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("images, faces, size", [(1, 0, (4, 3)), (0, 2, (4, 3)), (2, 1, (1, 1)), (3, 40, (33, 65))])
def test_odd_sizes(backend, images, faces, size):
    positions, triangles = random_triangles(images, max(faces, 1))
    fragments = rasterize(positions, triangles[:faces], *size, backend=backend)
    assert fragments.face_ids.shape == (images, *size[::-1]) and fragments.face_ids.dtype == torch.int32
    if faces == 0:
        assert (fragments.face_ids == -1).all()
    for i in range(images):
        alone = rasterize(positions[i : i + 1], triangles[:faces], *size, backend=backend)
        assert all(torch.equal(a[i], b[0]) for a, b in zip(fragments, alone))


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_native_equals_reference(dtype, seed):
    positions, faces = random_triangles(2, 60, seed, dtype)
    a = rasterize(positions, faces, 40, 30, near_plane=0.1, backend="native")
    b = rasterize(positions, faces, 40, 30, near_plane=0.1, backend="reference")
    differ = a.face_ids != b.face_ids
    assert differ.float().mean() < 1e-3  # ties in depth
    assert (a.face_ids >= 0).float().mean() > 0.3
    torch.testing.assert_close(a.barycentrics[~differ], b.barycentrics[~differ], atol=1e-5, rtol=0)
    torch.testing.assert_close(a.depths[~differ], b.depths[~differ], atol=1e-5, rtol=1e-5)


def loss_of(positions, faces, backend):
    fragments = rasterize(positions, faces, 12, 10, near_plane=0.1, backend=backend)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(fragments.barycentrics.shape, generator=generator, dtype=torch.float64).to(positions.dtype)
    return (fragments.barycentrics * weights).sum() + (fragments.depths * weights[..., 0]).sum()


@pytest.mark.parametrize("near", [0.05, 1.0])
def test_gradient(backend, near):
    """Gradcheck of barycentrics and depths, including a face that crosses the near plane."""
    corners = [(1.0, 0.3, 1.0, 1.0), (24.0, 1.1, 2.0, 2.0), (3.0, 21.0, 3.0, 3.0), (-2.0, -4.0, 0.02, 0.02)]
    positions = torch.tensor([corners], dtype=torch.float64, requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [0, 1, 3]])

    def outputs(moved):
        fragments = rasterize(moved, faces, 9, 7, near_plane=near, backend=backend)
        return fragments.barycentrics, fragments.depths

    assert len(rasterize(positions, faces, 9, 7, near_plane=near, backend=backend).face_ids.unique()) >= 2
    assert torch.autograd.gradcheck(outputs, positions, eps=1e-7)


@needs_native
@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_gradients_of_both_backends(dtype, rtol):
    positions, faces = sphere(12, 10, dtype)
    grads = []
    for backend in ("native", "reference"):
        leaf = positions.clone().requires_grad_()
        loss_of(leaf, faces, backend).backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=rtol, atol=rtol * float(grads[1].abs().max()))


@needs_native
def test_bitwise_equal_for_any_number_of_threads():
    positions, faces = random_triangles(2, 3000)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaf = positions.clone().requires_grad_()
            fragments = rasterize(leaf, faces, 150, 140, near_plane=0.1, backend="native")
            values = interpolate(leaf, faces, fragments, backend="native")
            (fragments.barycentrics.square().sum() + fragments.depths.sum() + values.square().sum()).backward()
            results.append((*fragments, values, leaf.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results))


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_draws_the_same_bits(dtype):
    module = native.require()
    scenes = [random_triangles(2, 300, dtype=dtype), sphere(70, 50, dtype, 3), grid(6, 5, 0.5, 0.5, 62.5, 40.5, 0.4)]
    drawn, before = [], module.isa()
    try:
        for name in module.available_isas():
            module.set_isa(name)
            drawn.append([rasterize(p.to(dtype), faces, 70, 50, near_plane=0.1) for p, faces in scenes])
    finally:
        module.set_isa(before)
    for others in drawn[1:]:
        assert all(torch.equal(a, b) for one, other in zip(drawn[0], others) for a, b in zip(one, other))


@needs_native
def test_registered_ops():
    positions, faces = random_triangles(2, 5, dtype=torch.float64)
    triangles = faces.int()
    inputs = (positions.requires_grad_(), triangles, 8, 6, 0.1, 1e10)
    torch.library.opcheck(torch.ops.vision3d.rasterize_mesh.default, inputs)
    ids, weights, depths = rasterize(positions, faces, 8, 6, near_plane=0.1, backend="native")
    given = (positions.detach(), triangles, ids, weights.detach(), depths.detach())
    torch.library.opcheck(torch.ops.vision3d.rasterize_mesh_vjp.default, given)


def test_strided_positions(backend):
    positions, faces = random_triangles(2, 20)
    strided = positions.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    a, b = (rasterize(p, faces, 20, 20, backend=backend) for p in (positions, strided))
    assert all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"positions": torch.zeros(3, 4)}, ShapeError, r"positions: got shape \(3, 4\), want \(I, V, 4\)"),
        (
            {"positions": torch.zeros(1, 3, 4).int()},
            ShapeError,
            "positions: got torch.int32, want torch.float32 or torch.float64",
        ),
        ({"positions": [1]}, ShapeError, "positions: got list, want a torch.Tensor"),
        ({"faces": torch.zeros(3).long()}, ShapeError, r"faces: got shape \(3,\), want \(F, 3\)"),
        ({"faces": torch.zeros(1, 3)}, ShapeError, "faces: got torch.float32, want torch.int64 or torch.int32"),
        (
            {"faces": torch.tensor([[0, 1, 2], [0, 1, 3]])},
            InputError,
            r"faces: face 1 is \[0, 1, 3\], but there are 3 vertices",
        ),
        ({"width": 0}, InputError, "width: got 0, want an int >= 1"),
        ({"near_plane": 2.0, "far_plane": 1.0}, InputError, "near_plane, far_plane: got 2.0, 1.0"),
        ({"backend": "fast"}, BackendError, "backend fast: unknown"),
        ({"backend": "gsplat"}, BackendError, "gsplat"),
    ],
)
def test_wrong_input_is_named(change, error, text):
    given = {"positions": torch.zeros(1, 3, 4), "faces": torch.tensor([[0, 1, 2]]), "width": 4, "height": 4} | change
    with pytest.raises(error, match=text):
        unchecked(rasterize)(**given)


def unchecked(function):
    """Without the shape checks of the tests, which would raise first."""
    return getattr(function, "__wrapped__", function)


def test_screen_positions_are_those_of_the_camera():
    viewmat, K = torch.eye(4)[None].repeat(2, 1, 1), torch.tensor([[[10.0, 0.5, 8], [0, 12, 6], [0, 0, 1]]]).repeat(2, 1, 1)
    viewmat[1, 2, 3] = 1
    vertices = torch.tensor([[1.0, 2, 4]])
    pinhole, ortho = (screen_positions(vertices, viewmat, K, model) for model in ("pinhole", "ortho"))
    assert pinhole.tolist() == [[[43.0, 48.0, 4.0, 4.0]], [[51.0, 54.0, 5.0, 5.0]]]
    assert ortho.tolist() == [[[19.0, 30.0, 4.0, 1.0]], [[19.0, 30.0, 5.0, 1.0]]]
    with pytest.raises(ShapeError, match=r"Ks: got shape \(1, 3, 3\), want shape \(2, 3, 3\)"):
        unchecked(screen_positions)(vertices, viewmat, K[:1])
    with pytest.raises(InputError, match="camera_model: got 'fish'"):
        screen_positions(vertices, viewmat, K, "fish")
