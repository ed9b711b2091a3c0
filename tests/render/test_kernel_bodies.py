"""The GPU kernels, executed as loops on the CPU, against the vector kernels and the torch reference.

float32: kernel bodies against the vector kernels. float64, which has no vector kernels: the native backend, which runs the
bodies, against the reference. Marked `gpu`: the same on a device.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.band import assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians, random_sh
from tests.support.sides import SIDES, Side, assert_same
from vision3d.core import native
from vision3d.core.errors import BackendError
from vision3d.render import rasterize, rasterize_2dgs
from vision3d.render.splats import native_tiles
from vision3d.render.splats.kernels import kernels
from vision3d.render.splats.records import (
    Blended,
    Camera,
    Gaussians,
    Grid,
    Intersections,
    Pixels,
    Projected,
    Projected2dgs,
    TileLists,
)

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.gpu if "cuda" in name else ()) for name in SIDES])
def sides(request: pytest.FixtureRequest) -> tuple[Side, Side]:
    if "cuda" in request.param and not native.has_cuda():
        pytest.skip("the native module is built without CUDA")
    return SIDES[request.param]


def scene(count: int, num_cameras: int, *, model: str = "pinhole", width: int = 60, height: int = 44) -> dict[str, Tensor]:
    """Gaussians of two scenes and their cameras, float64."""
    g = random_gaussians(count, batch=(2,), size=0.1, dtype=torch.float64)
    viewmats, Ks = cameras(num_cameras, width, height, model=model, dtype=torch.float64)
    return {**g, "viewmats": viewmats.repeat(2, 1, 1, 1), "Ks": Ks.repeat(2, 1, 1, 1)}


def project(
    g: dict[str, Tensor], backend: str, model: str, *, radius_clip: float = 0.0, antialiased: bool = False
) -> Projected:
    covars = g.get("covars")
    quats, scales = (None, None) if covars is not None else (g["quats"], g["scales"])
    gaussians = Gaussians(g["means"], quats, scales, covars, g["opacities"])
    camera = Camera(g["viewmats"], g["Ks"], 60, 44, model, 0.01, 1e10, radius_clip)
    return kernels(backend).project(gaussians, camera, eps2d=0.3, antialiased=antialiased)[1]


@pytest.mark.parametrize("form", ["scales", "covars"])
@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_projection(sides, model, form):
    g = scene(300, 3, model=model)
    del g["colors"]
    if form == "covars":
        factors = torch.randn(2, 300, 3, 3, dtype=torch.float64) * 0.1
        g["covars"] = (factors @ factors.mT)[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
        del g["quats"], g["scales"]
    # The determinant of a given covariance is a difference of products, and float32 loses digits.
    atol = 1e-4 if form == "covars" else 1e-5
    assert_same(lambda g, backend: project(g, backend, model, antialiased=True, radius_clip=2.0), g, sides, atol=atol)


def test_projection_of_invisible_gaussians(sides):
    g = scene(12, 2)
    g["means"][:, 0] = torch.nan
    g["means"][:, 1, 2] = -50.0
    g["scales"][:, 2] = torch.inf
    g["quats"][:, 3] = 0.0
    g["opacities"][:, 4] = 0.0
    g["opacities"][:, 5] = torch.nan
    g["scales"][:, 6] = 0.0
    g["means"][:, 7] = 1e30
    assert_same(lambda g, backend: project(g, backend, "pinhole"), g, sides)


@pytest.mark.parametrize("per_camera", [False, True])
@pytest.mark.parametrize("degree", range(5))
def test_harmonics(sides, degree, per_camera):
    g = scene(60, 2)
    sh = random_sh(2 * 2 * 60, degree, dtype=torch.float64).unflatten(0, (2, 2, 60))
    inputs = {"means": g["means"], "viewmats": g["viewmats"], "sh": sh if per_camera else sh[:, 0]}
    seen = torch.rand(2, 2, 60) < 0.7
    inputs |= dict(zip(("batch", "camera", "gaussian"), torch.nonzero(seen, as_tuple=True)))
    assert_same(
        lambda g, backend: (
            kernels(backend).sh_colors(g["means"], g["sh"], g["viewmats"], g["batch"], g["camera"], g["gaussian"], degree),
        ),
        inputs,
        sides,
    )


def pairs(count: int, num_images: int, width: int, height: int, *, channels: int = 3) -> dict[str, Tensor]:
    """Projected Gaussians of several images, some invisible and some at the same depth, float64."""
    rand = lambda *shape: torch.rand(num_images * count, *shape, dtype=torch.float64)  # noqa: E731
    angle, sigma = 3.2 * rand(), 0.5 + 7 * rand(2) ** 2
    axes = torch.stack([torch.stack([angle.cos(), angle.sin()], -1), torch.stack([-angle.sin(), angle.cos()], -1)], -1)
    cov = axes * sigma[:, None] ** 2 @ axes.mT
    conics = torch.linalg.inv(cov).flatten(1)[:, [0, 1, 3]]
    radii = torch.ceil(3.33 * cov.diagonal(dim1=1, dim2=2).sqrt()).int()
    radii[rand() < 0.1] = 0
    depths = torch.where(rand() < 0.2, 2.0, 1 + rand())
    # All depths must be the same in both precisions, as they determine the order of the lists.
    return {
        "means2d": rand(2) * torch.tensor([width + 20.0, height + 20.0]) - 10,
        "radii": radii,
        "depths": depths.float().double(),
        "conics": conics,
        "opacities": torch.where(rand() < 0.1, 1.0, 0.02 + 0.97 * rand()),
        "image_ids": torch.arange(num_images).repeat_interleave(count),
        "colors": rand(channels),
    }


LISTED = ("means2d", "radii", "depths", "conics", "opacities", "image_ids")


def projected(p: dict[str, Tensor]) -> Projected:
    """Inputs of `blend` and `intersect`; radii are unknown where lists are given."""
    radii = p.get("radii", torch.ones_like(p["means2d"], dtype=torch.int32))
    depths = p.get("depths", torch.ones_like(p["opacities"]))
    return Projected(radii, p["means2d"], depths, p["conics"], torch.ones_like(p["opacities"]))


def intersect(p: dict[str, Tensor], grid: Grid, listing: Callable[..., Intersections]) -> Intersections:
    return listing(projected(p), p["opacities"], p["image_ids"], grid)


@pytest.mark.parametrize("tile_size", [4, 8, 16, 33])
@pytest.mark.parametrize("exact", [True, False])
def test_tile_lists(sides, tile_size, exact):
    p = {name: value for name, value in pairs(200, 3, 70, 45).items() if name in LISTED}
    p["depths"][:9] *= -1
    results = []
    for side in sides:
        given = {name: side.place(value) for name, value in p.items()}
        if not exact:
            given["conics"] = None
        listing = native_tiles.intersect_by_sorting if side.bodies or side.emulated else kernels(side.backend).intersect
        with side.chosen():
            found = intersect(given, Grid(3, 70, 45, tile_size), listing)
        results.append([value.cpu() for value in (*found[:2], *found.lists[3:])])
    for got, want in zip(*results):
        assert torch.equal(got, want)


def test_empty_tile_lists(sides):
    empty = {name: value[:0] for name, value in pairs(5, 1, 20, 20).items() if name in LISTED}
    side = sides[0]
    given = {name: side.place(value) for name, value in empty.items()}
    with side.chosen():
        found = intersect(given, Grid(2, 20, 20, 8), native_tiles.intersect_by_sorting)
    counts, isect_ids, (*_, offsets, ids) = found
    assert counts.shape == isect_ids.shape == ids.shape == (0,)
    assert offsets.shape == (2, 3, 3)
    assert not offsets.any()


def with_lists(p: dict[str, Tensor], num_images: int, width: int, height: int, tile_size: int) -> dict[str, Tensor]:
    """The Gaussians with tile lists shared by both sides."""
    lists = intersect(p, Grid(num_images, width, height, tile_size), kernels("reference").intersect).lists
    rest = {name: value for name, value in p.items() if name not in ("radii", "depths", "image_ids")}
    return {**rest, "offsets": lists.isect_offsets, "ids": lists.flatten_ids}


def blend(p: dict[str, Tensor], width: int, height: int, tile_size: int, backend: str, **options: Any) -> Blended:
    pixels = Pixels(p.get("backgrounds"), p.get("masks"), options.pop("max_depths", None))
    lists = TileLists(width, height, tile_size, p["offsets"], p["ids"])
    return kernels(backend).blend(projected(p), p["colors"], p["opacities"], lists, pixels, alpha_max=0.99, **options)


@pytest.mark.parametrize(("channels", "tile_size"), [(1, 16), (2, 4), (3, 8), (3, 16), (4, 16), (7, 8), (32, 16)])
def test_blending(sides, channels, tile_size):
    p = with_lists(pairs(150, 2, 53, 37, channels=channels), 2, 53, 37, tile_size)
    p["backgrounds"] = torch.rand(2, channels, dtype=torch.float64)
    p["masks"] = torch.rand(p["offsets"].shape) < 0.8

    def case(p: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return blend(p, 53, 37, tile_size, backend)

    assert_same(case, p, sides)


@pytest.mark.parametrize(("channels", "tile_size"), [(3, 16), (4, 4), (7, 8)])
def test_blending_before_limits(sides, channels, tile_size):
    p = pairs(150, 2, 53, 37, channels=channels)
    depths = p["depths"].float().double()  # so that both precisions compare the same values
    p = {**with_lists({**p, "depths": depths}, 2, 53, 37, tile_size), "depths": depths}
    p["limits"] = depths.quantile(torch.rand(2 * 37 * 53, generator=torch.Generator().manual_seed(5)).double()).float().double()

    def case(p: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return blend(p, 53, 37, tile_size, backend, max_depths=p["limits"].view(2, 37, 53))

    assert_same(case, p, sides)


@pytest.mark.parametrize("channels", [3, 5])
def test_absolute_gradients(sides, channels):
    p = with_lists(pairs(80, 1, 40, 40, channels=channels), 1, 40, 40, 16)
    weights = torch.randn(1, 40, 40, channels, dtype=torch.float64)
    sums = []
    for side in sides:
        given = {name: side.place(value) for name, value in p.items()}
        means2d = given["means2d"] = given["means2d"].clone().requires_grad_()
        absgrad = torch.zeros_like(means2d)
        with side.chosen():
            image, *_ = blend(given, 40, 40, 16, side.backend, absgrad=absgrad)
            (image * side.place(weights)).sum().backward()
        sums.append(absgrad.cpu())
        assert (absgrad >= means2d.grad.abs() * 0.999 - 1e-6).all()
    assert_same_gradients({"absgrad": sums[0]}, {"absgrad": sums[1]})


def test_a_pixel_stops_at_the_same_gaussian(sides):
    """A stack of opaque Gaussians, longer than a batch of a block."""
    count = 700
    p = pairs(count, 1, 16, 16)
    p["opacities"][:] = 0.04
    p["means2d"][:] = 8.0
    p["radii"][:] = 40
    p["conics"][:] = torch.tensor([1e-4, 0.0, 1e-4])
    p["depths"] = torch.linspace(1, 2, count).double()
    p = with_lists(p, 1, 16, 16, 8)

    def case(p: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return blend(p, 16, 16, 8, backend)

    assert_same(case, p, sides)
    _, _, last = case({name: sides[1].place(value) for name, value in p.items()}, sides[1].backend)
    assert 200 < int(last[0, 0, 0]) < count - 100


def project_2dgs(g: dict[str, Tensor], backend: str) -> Projected2dgs:
    gaussians = Gaussians(g["means"], g["quats"], g["scales"], None, g["opacities"])
    camera = Camera(g["viewmats"], g["Ks"], 60, 44, "pinhole", 0.01, 1e10, 0.0)
    return kernels(backend).project_2dgs(gaussians, camera)[1]


def test_projection_of_2dgs(sides):
    g = scene(200, 2)
    g["means"][:, 0] = torch.nan
    g["means"][:, 1, 2] = -50.0
    g["means"][:, 2] = torch.tensor([0.1, 0.1, -3.7])
    g["scales"][:, 2] = 1.0  # crosses the plane of a camera
    inputs = {name: g[name] for name in ("means", "quats", "scales", "opacities", "viewmats", "Ks")}
    assert_same(project_2dgs, inputs, sides)


@pytest.mark.parametrize("distloss", [False, True])
@pytest.mark.parametrize(("channels", "tile_size"), [(1, 4), (4, 16), (9, 8)])
def test_blending_of_2dgs(sides, channels, tile_size, distloss):
    g = {name: value[:1] for name, value in scene(120, 2).items()}
    made = project_2dgs(g, "reference")
    seen = made.radii.flatten(0, 2)[:, 0] > 0
    flat = Projected2dgs(*(value.flatten(0, 2)[seen] for value in made))
    image_ids = torch.arange(2).repeat_interleave(120)[seen]
    opacities = g["opacities"].repeat(2, 1).flatten()[seen]
    lists = kernels("reference").intersect(flat, opacities, image_ids, Grid(2, 60, 44, tile_size)).lists
    inputs = {
        "means2d": flat.means2d,
        "transforms": flat.transforms,
        "colors": torch.cat([torch.rand(len(opacities), channels - 1, dtype=torch.float64), flat.depths[:, None]], -1),
        "opacities": opacities,
        "normals": flat.normals,
        "densify": torch.zeros(len(opacities), 2, dtype=torch.float64),
        "backgrounds": torch.rand(2, channels, dtype=torch.float64),
        "masks": torch.rand(lists.isect_offsets.shape) < 0.8,
        "offsets": lists.isect_offsets,
        "ids": lists.flatten_ids,
    }

    def case(p: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        radii, depths = torch.ones_like(p["means2d"], dtype=torch.int32), torch.ones_like(p["opacities"])
        given = Projected2dgs(radii, p["means2d"], depths, p["transforms"], p["normals"])
        return kernels(backend).blend_2dgs(
            given, p["colors"], p["opacities"], TileLists(60, 44, tile_size, p["offsets"], p["ids"]),
            Pixels(p["backgrounds"], p["masks"]), alpha_max=0.99, distloss=distloss, densify=p["densify"],
        )  # fmt: skip

    assert_same(case, inputs, sides)


def rasterized(g: dict[str, Tensor], backend: str, **options: object) -> tuple[Tensor, Tensor]:
    names = ("means", "quats", "scales", "opacities", "sh", "viewmats", "Ks")
    return rasterize(
        *(g[name] for name in names), 40, 32, sh_degree=2, backgrounds=g["backgrounds"], backend=backend, **options
    )[:2]


def small_scene() -> dict[str, Tensor]:
    g = random_gaussians(40, size=0.12, dtype=torch.float64)
    viewmats, Ks = cameras(2, 40, 32, dtype=torch.float64)
    del g["colors"]
    sh, backgrounds = random_sh(40, 2, dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)
    return {**g, "sh": sh, "viewmats": viewmats, "Ks": Ks, "backgrounds": backgrounds}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
def test_the_whole_rasterizer(sides, packed, mode):
    options = {"packed": packed, "render_mode": mode, "rasterize_mode": "antialiased"}
    assert_same(lambda g, backend: rasterized(g, backend, **options), small_scene(), sides)


def test_the_whole_rasterizer_of_2dgs(sides):
    g = small_scene()
    names = ("means", "quats", "scales", "opacities", "sh", "viewmats", "Ks")

    def case(g: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        image, alpha, normals, _, distortion, median, _ = rasterize_2dgs(
            *(g[name] for name in names), 40, 32, sh_degree=2, render_mode="RGB+D", distloss=True, backend=backend
        )
        return image, alpha, normals, distortion, median

    del g["backgrounds"]
    assert_same(case, g, sides)


# float64 on the native backend


@pytest.mark.parametrize("form", ["scales", "covars"])
@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_gradcheck_of_projection(model, form):
    g = scene(3, 2, model=model)
    names = ["means", "quats", "scales", "viewmats"]
    if form == "covars":
        factors = torch.randn(2, 3, 3, 3, dtype=torch.float64) * 0.2
        g["covars"] = (factors @ factors.mT)[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]]
        names = ["means", "covars", "viewmats"]
    leaves = [g[name].requires_grad_() for name in names]
    run = lambda *values: project({**g, **dict(zip(names, values))}, "native", model, antialiased=True)[1:]  # noqa: E731
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def test_gradcheck_of_the_rasterizers():
    g = small_scene()
    g["opacities"] *= 0.5  # no pixel may reach alpha_max or stop
    names = ["means", "quats", "scales", "opacities", "sh", "viewmats"]
    leaves = [g[name].requires_grad_() for name in names]

    def both(*values: Tensor) -> tuple[Tensor, ...]:
        given = {**g, **dict(zip(names, values))}
        image, alpha, _ = rasterize(
            *(given[name] for name in names), given["Ks"], 40, 32, sh_degree=2, render_mode="RGB+D", backend="native"
        )
        flat, coverage, *_ = rasterize_2dgs(
            *(given[name] for name in names), given["Ks"], 40, 32, sh_degree=2, render_mode="RGB+D", backend="native"
        )
        # The threshold at 1/255 is a step, so the sum is weighted smoothly to keep the step below the tolerance.
        return image.mean(), alpha.mean(), flat.mean(), coverage.mean()

    assert torch.autograd.gradcheck(both, leaves, fast_mode=True, eps=1e-7, atol=1e-4, rtol=1e-2)


def test_results_do_not_depend_on_the_number_of_threads():
    g = {name: value.requires_grad_() for name, value in small_scene().items()}
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            image, alpha = rasterized(g, "native")
            grads = torch.autograd.grad(image.sum() + alpha.square().sum(), [g["means"], g["sh"], g["viewmats"]])
            results.append([image.detach(), *grads])
    finally:
        torch.set_num_threads(before)
    for first, second in zip(*results):
        assert torch.equal(first, second)


def test_a_device_without_kernels_is_named():
    with pytest.raises(BackendError, match="native kernels do not run on meta; move the tensors to the CPU"):
        native.where(torch.empty(1, device="meta"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_a_missing_gpu_is_named():
    if not native.require().has_cuda:
        pytest.skip("the native module is built without CUDA")
    with pytest.raises(RuntimeError, match="CUDA, no usable device: "):
        native.require().cuda_device_count()


def test_registered_ops_in_float64():
    g = scene(6, 2)
    gaussians = [g[name].requires_grad_() for name in ("means", "quats", "scales")]
    p = pairs(20, 2, 30, 20)
    listed = with_lists(p, 2, 30, 20, 8)
    drawn = [listed[name].requires_grad_() for name in ("means2d", "conics", "colors", "opacities")]
    arguments = {
        "project_splats": (
            *gaussians, None, g["opacities"], g["viewmats"], g["Ks"], 60, 44, "pinhole", 0.01, 1e10, 0.0, 0.3, True, False,
        ),
        "intersect_tiles": (*(p[name].detach() for name in LISTED), 2, 30, 20, 8),
        "blend_splats": (*drawn, None, None, 30, 20, 8, listed["offsets"], listed["ids"], 0.99, None),
    }  # fmt: skip
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    for name, given in arguments.items():
        torch.library.opcheck(getattr(torch.ops.vision3d, name).default, given, test_utils=tests)
