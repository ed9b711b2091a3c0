"""Properties of the compiled kernels only: registered ops, threads, instruction sets."""

import pytest
import torch

from tests.support.band import assert_close_outside_band, assert_same_gradients
from tests.support.gaussians import cameras, random_gaussians, random_sh
from vision3d import rasterize, rasterize_2dgs
from vision3d.core import native

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
ISAS = native.require().available_isas() if native.module() is not None else []
W, H = 75, 50


@pytest.fixture
def isa():
    """Sets the instruction set, and restores the best one afterwards."""
    before = native.require().isa()
    yield native.require().set_isa
    native.require().set_isa(before)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def run(function=rasterize, dtype=torch.float32, **options):
    """Images and gradients of a fixed loss, for a scene seen by two cameras."""
    g = {**random_gaussians(400), "colors": random_sh(400, 3)}
    viewmats, Ks = cameras(2, W, H)
    leaves = {name: value.to(dtype).requires_grad_() for name, value in {**g, "viewmats": viewmats}.items()}
    leaves["backgrounds"] = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.3]], dtype=dtype, requires_grad=True)
    outputs = function(**leaves, Ks=Ks.to(dtype), width=W, height=H, sh_degree=3, render_mode="RGB+ED", **options)
    images = [value for value in outputs if torch.is_tensor(value)]
    weights = torch.Generator().manual_seed(1)
    loss = sum((image * torch.randn(image.shape, generator=weights).to(dtype)).sum() for image in images)
    loss.backward()
    return [image.detach() for image in images], {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
def test_bitwise_equal_for_any_number_of_threads(function, threads):
    threads(1)
    images, grads = run(function, backend="native")
    threads(2)
    others, other_grads = run(function, backend="native")
    assert all(torch.equal(a, b) for a, b in zip(images, others))
    assert all(torch.equal(grads[name], other_grads[name]) for name in grads)


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("function", [rasterize, rasterize_2dgs])
def test_every_instruction_set_agrees_with_double_precision(function, name, isa):
    isa(name)
    options = {} if function is rasterize else {"distloss": True}
    images, grads = run(function, backend="native", **options)
    wanted, exact = run(function, torch.float64, backend="reference", **options)
    assert_close_outside_band(images[0][..., :3], wanted[0][..., :3], atol=1e-5 if function is rasterize else 5e-5, band=3e-4)
    assert_same_gradients(grads, exact)


def test_an_unknown_instruction_set_is_rejected_with_the_available_ones():
    with pytest.raises(ValueError, match="instruction set mmx does not run here; valid: portable"):
        native.require().set_isa("mmx")


def test_outputs_are_never_copied():
    """A strided or double output would be filled in a copy and lost; it is rejected instead."""
    quats = torch.ones(4, 4)
    with pytest.raises(TypeError):
        native.require().quat_to_rotmat(quats, torch.empty(9, 4).T)
    with pytest.raises(TypeError):
        native.require().quat_to_rotmat(quats, torch.empty(4, 9, dtype=torch.float64))


def test_optional_inputs_are_never_converted():
    """As for other inputs, they are rejected, not copied; None is only accepted for optional inputs."""
    rows, out, double = torch.ones(4, 4), torch.ones(4, 9), torch.ones(4, 9, dtype=torch.float64)
    native.require().quat_to_rotmat_vjp(rows, None, out, torch.empty(4, 4))
    with pytest.raises(TypeError):
        native.require().quat_to_rotmat_vjp(rows, double, out, torch.empty(4, 4))
    with pytest.raises(TypeError):
        native.require().quat_to_rotmat_vjp(rows, out, None, torch.empty(4, 4))


def test_wrong_shapes_are_named():
    records, colors = torch.empty(5, 16), torch.empty(5, 3)
    with pytest.raises(ValueError, match=r"records: got shape \(5, 16\), want \(6, 16\)"):
        native.require().make_records(torch.empty(6, 2), torch.empty(6, 3), colors, torch.empty(6), records)


def _ops():
    """Small arguments of every registered op."""
    from vision3d.render.splats.kernels import kernels
    from vision3d.render.splats.records import Camera, Gaussians, Grid

    ops = kernels("native")
    g = random_gaussians(12)
    viewmats, Ks = cameras(2, 20, 18)
    camera = Camera(viewmats[None], Ks[None], 20, 18, "pinhole", 0.01, 1e10, 0.0)
    gaussians = [g[name][None] for name in ("means", "quats", "scales")]
    cloud = Gaussians(*gaussians, None, g["opacities"][None])
    (images, ids), packed = ops.project(cloud, camera, eps2d=0.3, packed=True)
    radii, means2d, depths, conics, _ = packed
    opacities, colors = g["opacities"][ids], torch.rand(len(ids), 3)
    leaf = lambda tensor: tensor.detach().clone().requires_grad_()  # noqa: E731
    grid = (*ops.intersect(packed, opacities, images, Grid(2, 20, 18, 16)).lists, 0.99)
    splats = [leaf(value) for value in (means2d, conics, colors, opacities)]
    yield (
        "project_splats",
        (*map(leaf, gaussians), None, None, leaf(camera[0]), *camera[1:], 0.3, False, False),
    )
    centers = torch.zeros(1, 2, 3, requires_grad=True)
    yield "sh_colors", (leaf(gaussians[0]), leaf(random_sh(12, 2)[None, None]), centers, images, ids, 2)
    yield "intersect_tiles", (means2d, radii, depths, conics, opacities, images, 2, 20, 18, 16)
    yield "blend_splats", (*splats, torch.rand(2, 3, requires_grad=True), None, *grid, None)
    yield "blend_splats limited", (*splats, None, None, *grid, None, depths, torch.full((2, 18, 20), 4.0))
    _, flat = ops.project_2dgs(cloud, camera)
    flat = flat._make(value.flatten(0, 2) for value in flat)
    opacities = g["opacities"].repeat(2)
    lists = ops.intersect(flat, opacities, torch.arange(2).repeat_interleave(12), Grid(2, 20, 18, 16)).lists
    yield "project_2dgs", (*map(leaf, gaussians), None, None, leaf(camera[0]), *camera[1:])
    features = [flat.means2d, flat.transforms, torch.rand(24, 2), opacities, flat.normals]
    flat = (*map(leaf, features), None, None, *lists, 0.99, True)
    yield "blend_2dgs", flat
    yield "blend_2dgs limited", (*flat, torch.full((2, 18, 20), 4.0))


@pytest.mark.parametrize(
    "name",
    [
        "project_splats", "sh_colors", "intersect_tiles", "blend_splats", "blend_splats limited", "project_2dgs",
        "blend_2dgs", "blend_2dgs limited",
    ],
)  # fmt: skip
def test_registered_ops(name):
    """Schema, autograd registration and fake tensors; data-dependent sizes cannot be traced ahead of time."""
    arguments = dict(_ops())[name]
    op = getattr(torch.ops.vision3d, name.split()[0]).default
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    torch.library.opcheck(op, arguments, test_utils=tests)


def test_schemas_are_those_of_the_records():
    schema = str(torch.ops.vision3d.blend_splats.default._schema)
    assert schema == (
        "vision3d::blend_splats(Tensor means2d, Tensor conics, Tensor colors, Tensor opacities, Tensor? backgrounds, "
        "Tensor? masks, SymInt width, SymInt height, SymInt tile_size, Tensor isect_offsets, Tensor flatten_ids, "
        "float alpha_max, Tensor? absgrad, Tensor? depths=None, Tensor? max_depths=None) -> (Tensor, Tensor, Tensor, Tensor)"
    )
