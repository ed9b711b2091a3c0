"""The CUDA kernels outside of rendering against the CPU: emulated (`make check-cuda-races`), or on a device (marked `gpu`)."""

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from tests.support import emulator, physics
from tests.support.physics import material, particles, solid, world
from tests.support.scans import attention_inputs, delta_inputs, ragged, selective_inputs
from tests.support.sides import Side, assert_same
from vision3d.core import native
from vision3d.core.errors import NumericalError
from vision3d.geometry import quaternion, rotated_boxes, rotation, skinning
from vision3d.geometry.row_ops import RowOp
from vision3d.optim import adam, ssim
from vision3d.optim.densification import noise
from vision3d.stages.detect.operators import scans
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.voxels import Segments, convolution, segments
from vision3d.stages.equivariant.kernel_nets import KernelNet
from vision3d.stages.equivariant.kernels import build_kernel
from vision3d.stages.hand.network import sampling
from vision3d.stages.simulate.engines.native import NativeEngine
from vision3d.stages.simulate.world.particles import Particles

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
SIDES = {f"cuda-{name}": (Side("native", dtype, device="cuda"), Side("native", dtype)) for name, dtype in DTYPES.items()}
if emulator.is_built():
    EMULATED = {name: Side("native", dtype, emulated=True) for name, dtype in DTYPES.items()}
    SIDES |= {f"emulated-{name}": (side, Side("native", side.dtype)) for name, side in EMULATED.items()}
ROW_OPS = {
    "quat_to_rotmat": (quaternion._quat_to_rotmat, (4,)),
    "rotmat_to_quat": (quaternion._rotmat_to_quat, (3, 3)),
    "gram_schmidt": (rotation._gram_schmidt, (6,)),
    "so3_exp": (rotation._so3_exp, (3,)),
    "so3_log": (rotation._so3_log, (3, 3)),
    "nearest_rotation": (rotation._nearest_rotation, (3, 3)),
    "skin_joint": (skinning._joint_rows, (17,)),
}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.gpu if "cuda" in name else ()) for name in SIDES])
def sides(request: pytest.FixtureRequest) -> tuple[Side, Side]:
    if "cuda" in request.param and not native.has_cuda():
        pytest.skip(native.cuda_problem())
    return SIDES[request.param]


def test_every_row_operation_is_here():
    found = {id(op) for module in (quaternion, rotation, skinning) for op in vars(module).values() if isinstance(op, RowOp)}
    assert found == {id(op) for op, _ in ROW_OPS.values()}


@pytest.mark.parametrize("name", ROW_OPS)
def test_row_operations(sides, name):
    op, shape = ROW_OPS[name]
    values = torch.randn(300, *shape, dtype=torch.float64)
    if shape in ((6,), (3, 3)):  # far from where a gradient is infinite
        values = torch.eye(3).double().flatten()[:6] + 0.3 * torch.randn(300, 6, dtype=torch.float64)
    if shape == (3, 3):
        values = rotation._gram_schmidt(values)
    if name == "nearest_rotation":
        values = values + 0.1 * torch.randn(300, 3, 3, dtype=torch.float64)
    assert_same(lambda given, backend: (op(given["values"]),), {"values": values}, sides)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_ssim(sides, padding):
    first = torch.rand(2, 17, 21, 3, dtype=torch.float64)
    inputs = {"first": first, "second": (first + 0.2 * torch.randn_like(first)).clamp(0, 1)}

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ssim.ssim_map(given["first"], given["second"], padding=padding),)

    assert_same(case, inputs, sides, atol=1e-4)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_ssim_of_wide_windows(sides, padding):
    """The columns of a tile take more than one pass."""
    first = torch.rand(1, 19, 21, 9, dtype=torch.float64)
    inputs = {"first": first, "second": (first + 0.2 * torch.randn_like(first)).clamp(0, 1)}

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (ssim.ssim_map(given["first"], given["second"], window=17, sigma=4.0, padding=padding),)

    assert_same(case, inputs, sides, atol=1e-4)


Outputs = tuple[Tensor, ...]


def on_both(case: Callable[..., Outputs], inputs: list[Tensor], sides: tuple[Side, Side]) -> list[Outputs]:
    """Outputs of a case without gradients."""
    results = []
    for side in sides:
        given = [side.place(value.clone()) for value in inputs]
        with side.chosen():
            results.append(tuple(value.cpu() for value in case(*given)))
    return results


@pytest.mark.parametrize("selective", [False, True])
def test_adam(sides, selective):
    inputs = [torch.randn(130, 3, dtype=torch.float64) for _ in range(3)] + [torch.rand(130, 3, dtype=torch.float64)]

    def case(param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        adam._adam_step(param, grad, exp_avg, exp_avg_sq, visible if selective else None, 0.1, 0.9, 0.999, 1e-8, 3)
        return param, exp_avg, exp_avg_sq

    got, want = on_both(case, [*inputs, torch.rand(130) < 0.6], sides)
    for a, b in zip(got, want):
        torch.testing.assert_close(a, b)
    assert bool((got[0] == sides[0].place(inputs[0]).cpu()).any()) == selective


def test_noise(sides):
    inputs = [torch.randn(300, *shape, dtype=torch.float64) for shape in ((3,), (3,), (4,), ())]

    def case(means: Tensor, log_scales: Tensor, quats: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        noise.add_noise({"means": means, "log_scales": log_scales, "quats": quats, "opacity_logits": logits - 6}, 3, 5, 0.5)
        out = torch.empty(len(means), 3, dtype=torch.float32, device=means.device)
        native.require().normals(3, 5, out, **native.where(out))
        return means, out

    (got, numbers), (want, same_numbers) = on_both(case, inputs, sides)
    assert torch.equal(numbers, same_numbers) and not torch.equal(got, inputs[0].to(got))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("mode", [1, 2, 3, 6, 7])
def test_skinning(sides, mode):
    count, joints = 300, 7
    weights, indices = torch.rand(count, 4, dtype=torch.float64), torch.randint(0, joints, (count, 4))
    poses = torch.randn(2, joints, 17, dtype=torch.float64)
    poses[..., :4] = torch.tensor([2.0, 0, 0, 0]) + 0.4 * poses[..., :4]  # no sign is ambiguous
    vertices, rows = torch.randn(count, 3, dtype=torch.float64), skinning._joint_rows(poses)
    inputs = {"vertices": vertices, "weights": weights / weights.sum(-1, keepdim=True), "rows": rows}

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (skinning._skin(given["vertices"], given["weights"], indices.to(given["rows"].device), given["rows"], mode),)

    assert_same(case, inputs, sides)


def some_boxes(count: int) -> Tensor:
    return torch.rand(count, 7, dtype=torch.float64) * torch.tensor([9.0, 9, 1, 3, 3, 3, 6])


@pytest.mark.parametrize("is_paired", [False, True])
def test_overlap_of_boxes(sides, is_paired):
    inputs = {"first": some_boxes(40), "second": some_boxes(40 if is_paired else 31)}

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        return (rotated_boxes._box_iou(given["first"], given["second"], True, is_paired),)

    assert_same(case, inputs, sides)


@pytest.mark.parametrize("max_kept", [7, 150])
def test_suppression_of_boxes(sides, max_kept):
    inputs = [some_boxes(150), torch.arange(150) % 3]  # three words of 64 boxes

    def case(boxes: Tensor, groups: Tensor) -> tuple[Tensor, ...]:
        return (rotated_boxes._box_nms(boxes, groups, 0.1, False, max_kept),)

    ((got,), (want,)) = on_both(case, inputs, sides)
    assert torch.equal(got, want) and 7 <= int(want.sum()) < 100


@pytest.mark.parametrize("size", [(3, 3, 3), (3, 3, 1)])
def test_submanifold_convolution(sides, size):
    coords, count = (torch.rand(2, 7, 5, 4) < 0.4).nonzero(), size[0] * size[1] * size[2]
    ((got,), (want,)) = on_both(lambda c: (convolution._voxel_neighbors(c, [7, 5, 4], list(size)),), [coords], sides)
    assert torch.equal(got, want) and bool((want >= 0).any())
    inputs = {
        "features": torch.randn(len(coords), 5, dtype=torch.float64),
        "weights": torch.randn(count, 5, 6, dtype=torch.float64),
    }

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        neighbors = want.to(given["features"].device)
        return (convolution._submanifold_conv(given["features"], neighbors, given["weights"]),)

    assert_same(case, inputs, sides)


def test_segments(sides):
    rows = Segments.of_keys(torch.randint(0, 40, (300,)))[1]

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        values = given["values"]
        own = Segments(*(part.to(values.device) for part in rows))
        largest, places = segments._segment_max(values, own.order, own.starts, True)
        alone = segments._segment_max(values.detach(), own.order, own.starts, False)[0]
        return segments._segment_expand(segments._segment_sum(values, *own), *own), largest, places, alone

    assert_same(case, {"values": torch.randn(300, 5, dtype=torch.float64)}, sides)


def test_sampled_expansion(sides):
    shapes = (2, 3, 4, 5), (16, 5, 17), (17,), (192, 17)
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes] + [torch.rand(2, 21, 2, dtype=torch.float64)]
    ((got,), (want,)) = on_both(lambda *given: (sampling._sampled_expansion(*given),), inputs, sides)
    torch.testing.assert_close(got, want, atol=1e-5 if want.dtype == torch.float32 else 1e-12, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"reverse": True}], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", ["selective_scan", "decayed_attention", "decay of a head", "exclusive", "delta_rule"])
def test_scans(sides, name, options):
    groups = ragged((20, 0, 1, 37))
    if name == "selective_scan":
        rows, shape = selective_inputs(groups.rows, 20, 3), (20, 3)
    elif name == "delta_rule":
        rows, shape = delta_inputs(groups.rows, steps=2), (2, 5, 7)
    else:
        rows, shape = attention_inputs(groups.rows, per_head=name == "decay of a head"), (2, 5, 7)
        options = {**options, "exclusive": name == "exclusive"}
        name = "decayed_attention"
    inputs = {str(index): value for index, value in enumerate((*rows, torch.randn(4, *shape, dtype=torch.float64)))}

    def case(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        *rows, state = given.values()
        return getattr(scans, name)(*rows, Groups(groups.starts.to(state.device)), state=state, **options)

    assert_same(case, inputs, sides)


@pytest.mark.parametrize("kind", ["siren", "wire"])
@pytest.mark.parametrize(("group", "sym"), [("so2", 0), ("sl2", 2), ("gl2", 3)])
def test_group_kernels(sides, group, sym, kind):
    matrices = [torch.eye(2).double() + 0.2 * torch.rand(count, 2, 2, dtype=torch.float64) for count in (3, 4)]
    factors = [torch.rand(count, dtype=torch.float64) for count in (3, 4)]
    network = [value.detach().double() for value in KernelNet(4 + sym, 6, 9, kind, 8).parameters_in_order()]

    def case(*given: Tensor) -> tuple[Tensor, ...]:
        return (build_kernel(group, kind, "smooth", *given[:4], list(given[4:]), (2, 3), 3, 1.3),)

    ((got,), (want,)) = on_both(case, [*matrices, *factors, *network], sides)
    assert bool(want.any())
    torch.testing.assert_close(got, want, atol=1e-5 if want.dtype == torch.float32 else 1e-12, rtol=1e-5)


def moved(found: Particles, side: Side) -> Particles:
    return Particles(*(side.place(getattr(found, field.name)) for field in fields(Particles)))


def scene_of_everything():
    """Five materials of different friction, every shape and kind of boundary, wind, motions, and tracers."""
    laws = ("jelly", "sand", "water", "static", "snow")
    its_world = world(
        *(replace(material(law), friction_scale=float(scale)) for scale, law in enumerate(laws)),
        winds=(physics.WIND,), motions=physics.MOTIONS,
        boundaries=(
            solid("box", kind="sticky", friction=0.5), solid("sphere", kind="slip", friction=0.3), solid("hollow box"),
            solid("mesh", kind="separate"), solid("plane", friction=0.4, start=-0.01),
        ),
    )  # fmt: skip
    before = particles(its_world.materials, 300)
    motion = (torch.arange(300) % 5 - 2).clamp(min=-1)
    return before.replace(motion=motion, mass=torch.where(torch.arange(300) % 4 == 0, 0.0, before.mass)), its_world


def test_particles(sides):
    before, its_world = scene_of_everything()
    engines, reports, elastic = [], [], []
    for side in sides:
        with side.chosen():
            engines.append(NativeEngine(moved(before, side), its_world, side.dtype))
            reports.append(engines[-1].advance(2e-4, 0.25, 1e-4))
            elastic.append(engines[-1].energies(1e-4).elastic)
    got, want = (moved(engine.particles, Side("native", torch.float64)) for engine in engines)
    exact = sides[0].dtype == torch.float64
    physics.assert_same(got, want, 1e-11 if exact else 1e-5)
    assert reports[0].steps == reports[1].steps == 2
    assert reports[0].work == pytest.approx(reports[1].work, rel=1e-9 if exact else 1e-3)
    assert elastic[0] == pytest.approx(elastic[1], rel=1e-9 if exact else 1e-4)


def test_particles_over_many_time_steps(sides):
    """More steps than a GPU makes without the CPU, with tracers that move every eighth one."""
    its_world = world(material("corotated"), boundaries=(solid("plane", friction=0.4),))
    before = particles(its_world.materials, 60)
    before = before.replace(mass=torch.where(torch.arange(60) % 4 == 0, 0.0, before.mass))
    engines, reports = [], []
    for side in sides:
        with side.chosen():
            engines.append(NativeEngine(moved(before, side), its_world, side.dtype))
            reports += [engines[-1].advance(1.5e-3, 0.0, 1e-4), engines[-1].advance(4e-4, 1.5e-3, 1e-4)]
    got, want = (moved(engine.particles, Side("native", torch.float64)) for engine in engines)
    physics.assert_same(got, want, 1e-10 if sides[0].dtype == torch.float64 else 1e-4)
    assert [report.steps for report in reports[:2]] == [report.steps for report in reports[2:]]
    assert reports[0].steps + reports[1].steps > 16


@pytest.mark.parametrize("name", ["v", "F"])  # noticed before the first time step, and after it
def test_particles_that_are_not_finite(sides, name):
    its_world = world(material("neo_hookean"))
    before = particles(its_world.materials, 300)
    values = getattr(before, name).index_fill(0, torch.arange(0, 300, 7), torch.nan if name == "v" else 1e200)
    with sides[0].chosen():
        engine = NativeEngine(moved(before.replace(**{name: values}), sides[0]), its_world, sides[0].dtype)
        with pytest.raises(NumericalError, match="position or deformation"):
            engine.advance(1e-4)


FAULTS = {
    "lane_outside_of_its_mask": r"any: a lane is not in its own mask \(block 0, thread 31\)",
    "missing_lane": "deadlock: lanes wait for others of their mask in any",
    "different_masks": "any: other lanes of the mask are in any or have another mask",
    "shuffle_from_outside": "a lane reads from a lane outside of the mask",
    "different_barriers": r"waits at faulty.cu:\d+, others at faulty.cu:\d+",
    "missing_thread": r"(deadlock: 31 of 32 threads wait at|waits at) faulty.cu:\d+",
}


@pytest.mark.skipif(not emulator.is_built(), reason="the emulator is not built: make check-cuda-races")
@pytest.mark.parametrize("name", FAULTS, ids=lambda name: f"emulated-float32-{name}")
def test_the_emulator_notices(name):
    with pytest.raises(RuntimeError, match=f"^emulator, {name}: {FAULTS[name]}"):
        emulator.module().run_faulty(name)
