"""Textures: bilinear values, pyramids, levels of detail, gradients."""

import pytest
import torch

from tests.support.meshes import grid
from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.render.meshes import interpolate, mip_pyramid, rasterize, screen_positions, texture, texture_lods

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
def test_texels_are_exact_at_their_centers(backend, wrap):
    board = random(3, 5, 2)
    y, x = torch.meshgrid((torch.arange(3) + 0.5) / 3, (torch.arange(5) + 0.5) / 5, indexing="ij")
    uvs = torch.stack([x, y], -1)[None].double()
    torch.testing.assert_close(texture(board, uvs, wrap=wrap, backend=backend)[0], board, atol=1e-6, rtol=0)
    moved = texture(board, uvs + torch.tensor([2.0, -3.0]), wrap=wrap, backend=backend)[0]
    want = board if wrap == "repeat" else board[:1, 4:].expand(3, 5, 2)
    torch.testing.assert_close(moved, want, atol=1e-5, rtol=0)


def test_clamped_sampling_equals_grid_sample(backend):
    board, uvs = random(7, 4, 3), random(1, 20, 30, 2, seed=1) * 1.6 - 0.3
    want = torch.nn.functional.grid_sample(
        board.permute(2, 0, 1)[None], uvs.clamp(0, 1) * 2 - 1, padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(texture(board, uvs, wrap="clamp", backend=backend), want.permute(0, 2, 3, 1))


def test_the_seam_of_a_repeated_texture_is_smooth(backend):
    board = random(4, 4, 1)
    sides = texture(board, torch.tensor([[[[1 - 1e-9, 0.375], [1e-9, 0.375]]]], dtype=torch.float64), backend=backend)
    torch.testing.assert_close(sides.flatten(), (board[1, :1, 0] + board[1, 3, 0]).expand(2) / 2, atol=1e-7, rtol=0)


def test_masks_and_nan_give_zero_and_no_gradient(backend):
    board, uvs = random(4, 4, 3).requires_grad_(), random(1, 2, 3, 2)
    uvs[0, 1, 2, 0] = float("nan")
    masks = torch.tensor([[[True, False, True], [True, True, True]]])
    uvs.requires_grad_()
    values = texture(board, uvs, masks=masks, backend=backend)
    values.sum().backward()
    assert not values[0, 0, 1].any() and not values[0, 1, 2].any() and values[0, 0, 0].all()
    assert not uvs.grad[0, 0, 1].any() and not uvs.grad[0, 1, 2].any() and board.grad.isfinite().all()
    torch.testing.assert_close(board.grad.sum(), torch.tensor(12.0).double())  # 4 pixels of 3 channels


def test_pyramid_keeps_the_mean():
    board = random(1, 16, 8, 2)
    levels = mip_pyramid(board)
    assert [tuple(level.shape[1:3]) for level in levels] == [(16, 8), (8, 4), (4, 2), (2, 1), (1, 1)]
    for level in levels:
        torch.testing.assert_close(level.mean((1, 2)), board.mean((1, 2)))
    assert [tuple(level.shape[1:3]) for level in mip_pyramid(random(1, 5, 3, 1))] == [(5, 3), (2, 1), (1, 1)]


def test_levels_are_interpolated(backend):
    board, uvs = random(8, 8, 2), random(1, 1, 6, 2)
    lods = torch.tensor([[[-1.0, 0.0, 1.0, 1.25, 3.0, 7.0]]], dtype=torch.float64)
    values = texture(board, uvs, lods=lods, backend=backend)[0, 0]
    alone = [texture(level[0], uvs, backend=backend)[0, 0] for level in mip_pyramid(board[None])]
    want = [alone[0][0], alone[0][1], alone[1][2], 0.75 * alone[1][3] + 0.25 * alone[2][3], alone[3][4], alone[3][5]]
    torch.testing.assert_close(values, torch.stack(want))


@pytest.mark.parametrize("scale, lod", [(1.0, 0.0), (0.25, 2.0), (2.0, -1.0)])
def test_lod_of_an_image_seen_head_on(scale, lod):
    positions, faces = grid(1, 1, 0.0, 0.0, 16.0, 16.0)
    uvs = positions[0, :, :2] / 16
    fragments = rasterize(positions, faces, 16, 16)
    lods = texture_lods(positions, faces, fragments, uvs, faces, (int(16 / scale), int(16 / scale)))
    torch.testing.assert_close(lods, torch.full((1, 16, 16), lod), atol=1e-5, rtol=0)


def test_lod_of_a_floor_equals_finite_differences():
    vertices = torch.tensor([[-9.0, 1, 1], [9, 1, 1], [9, 1, 30], [-9, 1, 30]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uvs = vertices[:, ::2] / 30
    lods, reads = [], []
    for shift in ((0.0, 0.0), (1e-4, 0.0), (0.0, 1e-4)):
        K = torch.tensor([[[20.0, 0, 10 - shift[0]], [0, 20, 4 - shift[1]], [0, 0, 1]]], dtype=torch.float64)
        positions = screen_positions(vertices, torch.eye(4, dtype=torch.float64)[None], K)
        fragments = rasterize(positions, faces, 20, 16)
        reads.append(interpolate(uvs, faces, fragments) * 64)
        lods.append(texture_lods(positions, faces, fragments, uvs, faces, (64, 64)))
    steps = torch.stack([torch.linalg.vector_norm(moved - reads[0], dim=-1) / 1e-4 for moved in reads[1:]]).amax(0)
    seen = (fragments.face_ids >= 0) & (lods[0] != 0)
    torch.testing.assert_close(lods[0][seen], steps.log2()[seen], atol=2e-3, rtol=0)


@needs_native
@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
@pytest.mark.parametrize("sets, mip", [(1, False), (1, True), (2, True)])
def test_native_equals_reference(dtype, rtol, wrap, sets, mip):
    results = []
    for backend in ("native", "reference"):
        board = random(sets, 13, 6, 3, dtype=dtype).requires_grad_()
        uvs = (random(2, 9, 8, 2, seed=1, dtype=dtype) * 3 - 1).requires_grad_()
        lods = (random(2, 9, 8, seed=2, dtype=dtype) * 5 - 1).requires_grad_() if mip else None
        masks = random(2, 9, 8, seed=3) > 0.2
        values = texture(board, uvs, lods=lods, masks=masks, wrap=wrap, backend=backend)
        (values * random(2, 9, 8, 3, seed=4, dtype=dtype)).sum().backward()
        results.append([values.detach(), board.grad, uvs.grad, *([] if lods is None else [lods.grad])])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


@pytest.mark.parametrize("wrap", ["repeat", "clamp"])
def test_gradient(backend, wrap):
    board, uvs = random(4, 3, 2).requires_grad_(), (random(1, 3, 4, 2, seed=1) * 3 - 1).requires_grad_()
    lods = (random(1, 3, 4, seed=2) * 3 - 0.5).requires_grad_()
    call = lambda b, u, lod: texture(b, u, lods=lod, wrap=wrap, backend=backend)  # noqa: E731
    assert torch.autograd.gradcheck(call, (board, uvs, lods), eps=1e-7)


@needs_native
def test_bitwise_equal_for_any_number_of_threads():
    grads, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            board = random(32, 32, 3, dtype=torch.float32).requires_grad_()
            uvs, lods = random(2, 90, 80, 2, dtype=torch.float32), random(2, 90, 80, dtype=torch.float32) * 3
            texture(board, uvs, lods=lods, backend="native").square().sum().backward()
            grads.append(board.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*grads)


@needs_native
def test_registered_ops():
    texels, uvs, lods = random(1, 20, 3).requires_grad_(), random(2, 3, 4, 2).requires_grad_(), random(2, 3, 4).requires_grad_()
    sizes, masks = torch.tensor([[4, 4], [2, 2]]), torch.ones(2, 3, 4, dtype=torch.bool)
    for optional in ((lods, masks), (None, None)):
        torch.library.opcheck(torch.ops.vision3d.texture_mesh.default, (texels, sizes, uvs, *optional, True))
    plain = (texels.detach(), sizes, uvs.detach(), lods.detach(), masks, False, random(2, 3, 4, 3))
    torch.library.opcheck(torch.ops.vision3d.texture_mesh_vjp.default, plain)


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"textures": torch.zeros(2, 2)}, ShapeError, r"textures: got shape \(2, 2\), want \(H, W, D\)"),
        ({"textures": torch.zeros(0, 2, 1)}, ShapeError, "at least one texel"),
        ({"textures": torch.zeros(3, 2, 2, 1)}, ShapeError, "one, or 1 as there are images"),
        ({"uvs": torch.zeros(1, 2, 2, 3)}, ShapeError, r"uvs: got shape \(1, 2, 2, 3\), want shape \(1, 2, 2, 2\)"),
        ({"lods": torch.zeros(1, 2, 3)}, ShapeError, r"lods: got shape \(1, 2, 3\)"),
        ({"masks": torch.zeros(1, 2, 2)}, ShapeError, "masks: got torch.float32, want torch.bool"),
        ({"wrap": "mirror"}, InputError, "wrap: got 'mirror'"),
    ],
)
def test_wrong_input_is_named(change, error, text):
    given = {"textures": torch.zeros(2, 2, 1), "uvs": torch.zeros(1, 2, 2, 2)} | change
    with pytest.raises(error, match=text):
        getattr(texture, "__wrapped__", texture)(**given)
