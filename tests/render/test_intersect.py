import pytest
import torch
from torch import Tensor

from tests.support.gaussians import cameras, random_gaussians
from vision3d.render.splats.kernels import kernels
from vision3d.render.splats.records import Camera, Gaussians, Grid, Intersections, Projected

WIDTH, HEIGHT = 75, 50


def pairs(backend: str, seed: int = 0) -> dict[str, Tensor]:
    """Two images of long thin Gaussians, all pairs flattened, including invisible ones."""
    g = random_gaussians(150, seed=seed, size=0.05)
    g["means"] *= 1.5
    g["scales"][:, 0] *= 4
    viewmats, Ks = cameras(2, WIDTH, HEIGHT)
    gaussians = Gaussians(g["means"][None], g["quats"][None], g["scales"][None], None, g["opacities"][None])
    camera = Camera(viewmats[None], Ks[None], WIDTH, HEIGHT, "pinhole", 0.01, 1e10, 0.0)
    _, projected = kernels(backend).project(gaussians, camera, eps2d=0.3)
    flat = {name: value.flatten(0, 2) for name, value in projected._asdict().items()}
    return {**flat, "opacities": g["opacities"].repeat(2), "image_ids": torch.arange(2).repeat_interleave(150)}


def intersect(p: dict[str, Tensor], grid: Grid, backend: str) -> Intersections:
    projected = Projected(*(p[name] for name in Projected._fields))
    return kernels(backend).intersect(projected, p["opacities"], p["image_ids"], grid)


def exponents(p: dict[str, Tensor]) -> Tensor:
    """q of every pair at every pixel, (pairs, HEIGHT, WIDTH)."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    dx, dy = (p["means2d"][:, i, None, None].double() - grid for i, grid in enumerate((x, y)))
    a, b, c = p["conics"].double()[:, :, None, None].unbind(1)
    return 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy


def lists(offsets: Tensor, ids: Tensor) -> list[list[int]]:
    ends = [*offsets.flatten().tolist()[1:], len(ids)]
    return [ids[a:b].tolist() for a, b in zip(offsets.flatten().tolist(), ends)]


@pytest.mark.parametrize("tile_size", [8, 16, 33])
def test_a_tile_lists_its_visible_gaussians_and_few_others(backend, tile_size):
    p = pairs(backend)
    per_pair, _, (*_, offsets, ids) = intersect(p, Grid(2, WIDTH, HEIGHT, tile_size), backend)
    tiles_y, tiles_x = -(-HEIGHT // tile_size), -(-WIDTH // tile_size)
    assert offsets.shape == (2, tiles_y, tiles_x)
    q, cut = exponents(p), torch.log(255 * p["opacities"].double())
    seen = p["radii"][:, 0] > 0
    shows = (q <= cut[:, None, None] - 1e-4) & seen[:, None, None]
    extra = 0
    for tile, listed in enumerate(lists(offsets, ids)):
        image, row, column = tile // (tiles_x * tiles_y), tile // tiles_x % tiles_y, tile % tiles_x
        window = (slice(row * tile_size, (row + 1) * tile_size), slice(column * tile_size, (column + 1) * tile_size))
        must = torch.nonzero(shows[:, *window].flatten(1).any(1) & (p["image_ids"] == image))[:, 0].tolist()
        assert set(must) <= set(listed)
        extra += len(listed) - len(must)
        assert p["depths"][listed].diff().ge(0).all()
        # The smallest exponent over the rectangle of pixel centers, here by dense sampling, is below the threshold.
        for i in set(listed) - set(must):
            low = torch.tensor([column, row]) * tile_size + 0.5
            high = torch.minimum(low + tile_size - 1, torch.tensor([WIDTH, HEIGHT]) - 0.5)
            u, v = torch.meshgrid(torch.linspace(0, 1, 400), torch.linspace(0, 1, 400), indexing="ij")
            dx = p["means2d"][i, 0] - (low[0] + u * (high - low)[0])
            dy = p["means2d"][i, 1] - (low[1] + v * (high - low)[1])
            a, b, c = p["conics"][i]
            least = (0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy).min()
            assert least <= cut[i] + 0.02
    assert 0 <= extra < 0.1 * len(ids)
    counts = torch.bincount(ids.long(), minlength=len(seen)).int()
    assert torch.equal(per_pair, counts)
    assert not per_pair[~seen].any()


def test_the_exact_test_drops_corners_of_boxes(backend):
    p = pairs(backend)
    grid = Grid(2, WIDTH, HEIGHT, 16)
    *_, exact_offsets, exact = intersect(p, grid, backend).lists
    *_, box_offsets, boxes = intersect({**p, "conics": None}, grid, backend).lists
    for few, many in zip(lists(exact_offsets, exact), lists(box_offsets, boxes)):
        assert set(few) <= set(many)
    assert len(exact) < 0.9 * len(boxes)


def test_ids_hold_image_tile_and_depth(backend):
    p = pairs(backend)
    _, isect_ids, (*_, offsets, ids) = intersect(p, Grid(2, WIDTH, HEIGHT, 16), backend)
    num_tiles = offsets[0].numel()
    tile_bits = num_tiles.bit_length()
    assert torch.equal(isect_ids >> (32 + tile_bits), p["image_ids"][ids.long()])
    tile = (isect_ids >> 32) & ((1 << tile_bits) - 1)
    flat = (isect_ids >> (32 + tile_bits)) * num_tiles + tile
    assert flat.diff().ge(0).all()
    assert torch.equal(torch.bincount(flat, minlength=2 * num_tiles).cumsum(0)[:-1], offsets.flatten()[1:].long())
    depth = (isect_ids & 0xFFFFFFFF).int().view(torch.float32)
    assert torch.equal(depth, p["depths"][ids.long()])


def test_equal_depths_are_sorted_by_index(backend):
    count = 300
    p = {
        "means2d": torch.full((count, 2), 8.0),
        "radii": torch.full((count, 2), 4, dtype=torch.int32),
        "depths": torch.tensor([2.0, 1.0, 3.0]).repeat(100),
        "conics": torch.tensor([0.5, 0, 0.5]).repeat(count, 1),
        "opacities": torch.full((count,), 0.5),
        "image_ids": torch.zeros(count, dtype=torch.int64),
        "compensations": torch.ones(count),
    }
    ids = intersect(p, Grid(1, 16, 16, 16), backend).lists.flatten_ids
    want = [i for first in (1, 0, 2) for i in range(first, count, 3)]
    assert ids.tolist() == want


def test_nothing_to_intersect(backend):
    p = {name: value[:0] for name, value in pairs(backend).items()}
    per_pair, isect_ids, (*_, offsets, ids) = intersect(p, Grid(3, 20, 10, 16), backend)
    assert per_pair.shape == isect_ids.shape == ids.shape == (0,)
    assert offsets.shape == (3, 1, 2)
    assert not offsets.any()
