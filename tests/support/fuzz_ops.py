"""Random arguments for every operation of `torch.ops.vision3d`. Run as a program, so that a crash ends only that process.

`python -m tests.support.fuzz_ops --calls 200 --seed 0` prints one line of JSON with the outcomes for each operation.
"""

import argparse
import contextlib
import faulthandler
import importlib.util
import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.memory import forget_peak, peak
from vision3d.core import native
from vision3d.core.errors import ShapeError, Vision3DError

MAX_SECONDS = 60.0  # limit of one call; then the process ends with the stacks of its threads
MAX_GROWTH = 1 << 30  # maximum memory growth in one call in bytes
SIZES = (0, 1, 2, 3, 5, 17, 64)
INTS = (0, -1, 1, 2, 3, 4, 7, 8, 11, 16, 31, 1000, 10**5, 2**31 - 1, 2**31, -(2**31), 2**40, -(2**40), 2**62)
FLOATS = (0.0, -1.0, 1.0, 0.5, 0.9999, 1e-30, 1e30, -1e30, 1e300, math.nan, math.inf, -math.inf)
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64,
)  # fmt: skip


def operations() -> list[str]:
    """Names of all registered operations."""
    names = torch._C._dispatch_get_all_op_names()
    return sorted({name.removeprefix("vision3d::").partition(".")[0] for name in names if name.startswith("vision3d::")})


class _Record(TorchDispatchMode):
    """Records the arguments of each operation as called by the package."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[tuple[Any, ...]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = str(func).removesuffix(".default").partition(".")
        if namespace == "vision3d":
            self.calls.setdefault(name, []).append(tuple(_copy(value) for value in args))
        return func(*args, **(kwargs or {}))


def _copy(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_copy(entry) for entry in value]
    return value.detach().clone() if isinstance(value, Tensor) else value


def _backward(*outputs: Any) -> None:
    leaves = [value for value in outputs if isinstance(value, Tensor) and value.requires_grad]
    torch.autograd.backward([value.sum() for value in leaves])


def usual_calls() -> dict[str, list[tuple[Any, ...]]]:
    """Small valid arguments of every operation, in float32 and float64."""
    with _Record() as record:
        for dtype in (torch.float32, torch.float64):
            torch.manual_seed(0)
            _draw_gaussians(dtype)
            _draw_mesh(dtype)
            _compare_images(dtype)
            _move(dtype)
            _build_kernel(dtype)
            _overlap(dtype)
            _convolve(dtype)
            _sample_expansion(dtype)
            _scan(dtype)
    return record.calls


def _draw_gaussians(dtype: torch.dtype) -> None:
    from tests.support.gaussians import cameras, random_gaussians, random_sh
    from vision3d.render import splats

    made = {name: value.requires_grad_() for name, value in random_gaussians(40, dtype=dtype).items()}
    views, Ks = cameras(2, 24, 20, dtype=dtype)
    cloud, places = [made[name] for name in ("means", "quats", "scales", "opacities")], (views.requires_grad_(), Ks, 24, 20)
    backgrounds = torch.rand(2, 3, dtype=dtype, requires_grad=True)
    limits = torch.full((2, 20, 24), 4.0, dtype=dtype)
    for packed in (True, False):
        options = {"packed": packed, "absgrad": packed, "max_depths": None if packed else limits}
        _backward(*splats.rasterize(*cloud, made["colors"], *places, backgrounds=backgrounds, **options)[:2])
    _backward(splats.rasterize(*cloud, random_sh(40, 2, dtype=dtype).requires_grad_(), *places, sh_degree=2, tile_size=8)[0])
    outputs = splats.rasterize_2dgs(
        *cloud, made["colors"], *places, backgrounds=backgrounds, render_mode="RGB+ED", distloss=True
    )
    _backward(*outputs[:6])


def _draw_mesh(dtype: torch.dtype) -> None:
    from tests.support.meshes import sphere
    from vision3d.render import meshes

    positions, faces = sphere(24, 20, dtype, 1)
    positions = positions.detach().repeat(2, 1, 1).requires_grad_()
    fragments = meshes.rasterize(positions, faces, 24, 20)
    attributes = torch.rand(positions.shape[1], 2, dtype=dtype, requires_grad=True)
    uvs = meshes.interpolate(attributes, faces, fragments)
    board = torch.rand(9, 12, 3, dtype=dtype, requires_grad=True)
    lods = torch.rand(2, 20, 24, dtype=dtype, requires_grad=True)
    values = meshes.texture(board, uvs, lods=lods, masks=fragments.face_ids >= 0)
    _backward(meshes.antialias(values, positions, faces, fragments), fragments.barycentrics, fragments.depths)
    _backward(meshes.draw_attributes(attributes, positions, faces, 24, 20))


def _compare_images(dtype: torch.dtype) -> None:
    from vision3d.optim import adam, ssim  # noqa: F401  registers
    from vision3d.optim.densification import noise  # noqa: F401  registers

    first, second = (torch.rand(2, 16, 18, 3, dtype=dtype, requires_grad=True) for _ in range(2))
    for padding in ("valid", "same"):
        _backward(ssim.ssim_map(first, second, padding=padding))
    state = [torch.rand(12, 3, dtype=dtype) for _ in range(4)]
    torch.ops.vision3d.adam_step(*state, torch.rand(12) > 0.5, 0.1, 0.9, 0.999, 1e-8, 3)
    cloud = [torch.rand(12, *shape, dtype=dtype) for shape in ((3,), (3,), (4,), ())]
    torch.ops.vision3d.add_noise(*cloud, 3, 5, 0.1, 0.5)


def _move(dtype: torch.dtype) -> None:
    from vision3d.geometry import quaternion, rotation, skinning
    from vision3d.geometry.row_ops import RowOp

    for op in [op for module in (quaternion, rotation, skinning) for op in vars(module).values() if isinstance(op, RowOp)]:
        for shape in ((4,), (3,), (6,), (3, 3), (17,)):
            with contextlib.suppress(ShapeError):
                _backward(op(torch.rand(6, *shape, dtype=dtype, requires_grad=True)))
    vertices, weights = (torch.rand(9, width, dtype=dtype, requires_grad=True) for width in (3, 2))
    rows = torch.rand(2, 4, 32, dtype=dtype, requires_grad=True)
    for mode in (1, 2, 3, 6, 7):
        _backward(torch.ops.vision3d.skin(vertices, weights, torch.randint(0, 4, (9, 2)), rows, mode))


def _overlap(dtype: torch.dtype) -> None:
    from vision3d.geometry import rotated_boxes  # noqa: F401  registers

    first, second = (torch.rand(count, 7, dtype=dtype, requires_grad=True) for count in (5, 4))
    _backward(torch.ops.vision3d.box_iou(first, second, True, False))
    _backward(torch.ops.vision3d.box_iou(first, first, False, True))
    torch.ops.vision3d.box_nms(first.detach(), torch.arange(5) % 2, 0.1, False, 5)


def _convolve(dtype: torch.dtype) -> None:
    from vision3d.stages.detect import voxels as vx

    coords = (torch.rand(2, 5, 4, 3) < 0.5).nonzero().contiguous()
    neighbors = vx.voxel_neighbors(coords, (5, 4, 3))
    features, weights = (torch.rand(*shape, dtype=dtype, requires_grad=True) for shape in ((len(coords), 3), (27, 3, 4)))
    _backward(torch.ops.vision3d.submanifold_conv(features, neighbors, weights))
    segments = vx.Segments.of_keys(torch.randint(0, 6, (len(coords),)))[1]
    torch.ops.vision3d.segment_max(features.detach(), segments.order, segments.starts, False)
    torch.ops.vision3d.sort_keys(segments.inverse)
    sums = torch.ops.vision3d.segment_sum(features, *segments)
    _backward(torch.ops.vision3d.segment_expand(sums, *segments))
    _backward(torch.ops.vision3d.segment_max(features, segments.order, segments.starts, True)[0])


def _sample_expansion(dtype: torch.dtype) -> None:
    from vision3d.stages.hand.network.sampling import sampled_expansion

    shapes = (2, 3, 2, 5), (4, 5, 6), (6,), (24, 6), (2, 7, 2)
    sampled_expansion(*(torch.rand(shape, dtype=dtype) for shape in shapes))


def _build_kernel(dtype: torch.dtype) -> None:
    from vision3d.stages.equivariant.kernels import build_kernel

    for group, sym in (("so2", 0), ("sl2", 2), ("gl2", 3)):
        inverses, elements = (torch.eye(2, dtype=dtype) + 0.1 * torch.rand(count, 2, 2, dtype=dtype) for count in (3, 4))
        factors = torch.rand(3, dtype=dtype), torch.rand(4, dtype=dtype)
        shapes = (8, 4 + sym), (8,), (8, 8), (8,), (8, 8), (8,), (6, 8), (6,)
        parameters = [torch.rand(shape, dtype=dtype, requires_grad=True) for shape in shapes]
        _backward(build_kernel(group, "siren", "smooth", inverses, elements, *factors, parameters, (2, 3), 3, 1.3))


def _scan(dtype: torch.dtype) -> None:
    from tests.support.scans import attention_inputs, delta_inputs, ragged, selective_inputs
    from vision3d.stages.detect.operators import scans
    from vision3d.stages.hand.network.native_attention import attend

    groups = ragged((5, 0, 18))
    for reverse in (False, True):
        for scan, rows in (
            (scans.selective_scan, selective_inputs(23, dtype=dtype)),
            (scans.decayed_attention, attention_inputs(23, dtype=dtype)),
            (scans.decayed_attention, attention_inputs(23, dtype=dtype, per_head=True)),
            (scans.delta_rule, delta_inputs(23, dtype=dtype, steps=2)),
        ):
            _backward(*scan(*(value.requires_grad_() for value in rows), groups, reverse=reverse))
    if dtype == torch.float32:
        x, weight, kernel, bias = (torch.rand(*shape, requires_grad=True) for shape in ((23, 5), (5,), (5, 4), (5,)))
        _backward(torch.ops.vision3d.rms_norm(x, weight, 1e-6)[0])
        _backward(torch.ops.vision3d.group_conv(x, kernel, bias, groups.starts, True))
        _backward(torch.ops.vision3d.silu_gate(x, torch.rand(23, 5, requires_grad=True)))
        _backward(torch.ops.vision3d.softplus(x))
        heads = torch.rand(2, 19, 16, requires_grad=True)
        _backward(attend(heads, heads, heads, 2))


class _Module:
    """Wraps the native module and records the arguments of its functions."""

    def __init__(self, module: Any, calls: dict[str, list[tuple[Any, ...]]]) -> None:
        self.module, self.calls = module, calls

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **where: Any) -> Any:
            self.calls.setdefault(name, []).append(tuple(_copy(value) for value in arguments))
            return getattr(self.module, name)(*arguments, **where)

        return call


def usual_functions() -> dict[str, list[tuple[Any, ...]]]:
    """Same as `usual_calls`, for functions of the native module without an operation: those of particles."""
    from tests.support.physics import material, particles, solid, world
    from vision3d.stages.simulate.engines.native import NativeEngine
    from vision3d.stages.simulate.world.world import Motion, Wind

    torch.manual_seed(0)
    materials = [material(law) for law in ("neo_hookean", "snow", "water")]
    moving = world(
        *materials,
        boundaries=tuple(solid(name) for name in ("plane", "box", "hollow sphere", "mesh")),
        winds=(Wind((1.0, 0.0, 0.0), 2.0),),
        motions=(Motion((0.1, 0.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.2, 0.7)),),
    )
    cloud = particles(materials, 60)
    cloud = cloud.replace(mass=torch.where(torch.arange(60) < 50, cloud.mass, 0.0))
    calls: dict[str, list[tuple[Any, ...]]] = {}
    require = native.require
    native.require = lambda: _Module(require(), calls)  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    try:
        for dtype in (torch.float32, torch.float64):
            engine = NativeEngine(cloud, moving, dtype)
            engine.advance(2e-3)
            engine.energies(1e-3)
    finally:
        native.require = require
    return calls


def _random_tensor(random: np.random.Generator, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    kind = random.integers(0, 6)
    if dtype.is_floating_point or dtype.is_complex:
        if kind == 0:
            return torch.full(shape, FLOATS[random.integers(0, len(FLOATS))], dtype=torch.float64).to(dtype)
        return (torch.randn(shape, dtype=torch.float64) * 10.0 ** int(random.integers(-3, 4))).to(dtype)
    if dtype == torch.bool:
        return torch.rand(shape) > 0.5
    low, high = ((0, 4), (-2, 8), (0, 64), (-(10**6), 10**6), (-(2**31), 2**31), (0, 2))[kind]
    return torch.randint(low, high, shape).to(dtype)


def _changed_tensor(value: Tensor, random: np.random.Generator) -> Any:
    """The tensor with another shape, dtype, layout or device, or with extreme values."""
    kind, shape = random.integers(0, 12), list(value.shape)
    if kind == 0:
        return None
    if kind == 1 and shape:  # an axis longer, shorter, empty or of any size
        axis = int(random.integers(0, len(shape)))
        shape[axis] = max(0, int(random.choice([shape[axis] - 1, shape[axis] + 1, 0, *SIZES])))
        return _random_tensor(random, value.dtype, tuple(shape))
    if kind == 2:  # any rank
        return _random_tensor(random, value.dtype, tuple(int(size) for size in random.choice(SIZES[:6], random.integers(0, 6))))
    if kind == 3:
        return value.to(DTYPES[random.integers(0, len(DTYPES))])
    if kind == 4:
        return value.to("meta")
    if kind == 5:  # not contiguous
        return torch.stack([value, value], -1)[..., 1]
    if kind == 6 and value.dim() > 1:
        return value.transpose(0, -1)
    if kind == 7 and shape:
        return value[:1].expand(value.shape)
    if kind == 8 and value.numel():  # one value
        value = value.clone()
        place = int(random.integers(0, value.numel()))
        value.view(-1)[place] = _random_tensor(random, value.dtype, (1,))[0]
        return value
    return _random_tensor(random, value.dtype, tuple(shape))


def _changed(value: Any, random: np.random.Generator) -> Any:
    if isinstance(value, Tensor):
        return _changed_tensor(value, random)
    if isinstance(value, list):
        entries = list(value)
        place = int(random.integers(0, len(entries)))
        if random.random() < 0.2:
            del entries[place]
        else:
            entries[place] = _changed(entries[place], random)
        return entries
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return INTS[random.integers(0, len(INTS))]
    if isinstance(value, float):
        return FLOATS[random.integers(0, len(FLOATS))]
    return torch.rand(int(random.integers(0, 4)), 3) if random.random() < 0.5 else 1


def random_calls(calls: list[tuple[Any, ...]], count: int, random: np.random.Generator) -> Iterator[tuple[Any, ...]]:
    """Yields `count` sets of arguments with up to four changes to those of a usual call."""
    for _ in range(count):
        arguments = [_copy(value) for value in calls[random.integers(0, len(calls))]]
        for place in random.choice(len(arguments), min(len(arguments), int(random.choice([1, 1, 1, 2, 4]))), replace=False):
            arguments[place] = _changed(arguments[place], random)
        yield tuple(arguments)


def _call(name: str, arguments: tuple[Any, ...], with_gradient: bool) -> None:
    if with_gradient:
        arguments = tuple(
            value.requires_grad_() if isinstance(value, Tensor) and value.dtype in (torch.float32, torch.float64) else value
            for value in arguments
        )
    if name not in operations():
        getattr(native.require(), name)(*arguments)
        return
    outputs = getattr(torch.ops.vision3d, name)(*arguments)
    if with_gradient:
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        _backward(*(value for value in outputs if value is not None))


def _has_meta(arguments: Any) -> bool:
    return any(
        _has_meta(value) if isinstance(value, list | tuple) else isinstance(value, Tensor) and value.is_meta
        for value in arguments
    )


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}@{value.device}"
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list | tuple) else repr(value)


def run(names: list[str], count: int, seed: int, log: Path | None = None) -> dict[str, dict[str, Any]]:
    """Calls each operation `count` times and collects `problems`. The last line of `log` is the call in progress."""
    usual, found = usual_calls() | usual_functions(), {}
    for name in names:
        result: dict[str, Any] = {"done": 0, "refused": 0, "growth_mib": 0, "problems": []}
        found[name] = result
        if name not in usual:
            result["problems"].append("there is no usual call: add one to tests/support/fuzz_ops.py")
            continue
        random = np.random.default_rng([seed, *name.encode()])
        torch.manual_seed(seed)
        for index, arguments in enumerate(random_calls(usual[name], count, random)):
            what = f"{name}, call {index} of seed {seed}: {_text(arguments)}"
            if log is not None:
                log.write_text(what)
            before = forget_peak()
            faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
            try:
                _call(name, arguments, with_gradient=index % 5 == 0)
                result["done"] += 1
            except (Vision3DError, ValueError, TypeError, RuntimeError) as error:
                result["refused"] += 1
                text = str(error)
                if not text.strip() or (isinstance(error, Vision3DError) and "\n" in text):
                    result["problems"].append(f"{what}: {type(error).__name__} says {text!r}")
            except Exception as error:
                if _has_meta(arguments):  # only the fake implementation ran, which traces shapes
                    result["refused"] += 1
                    continue
                result["problems"].append(f"{what}: {type(error).__name__}: {str(error)[:300]}")
            finally:
                faulthandler.cancel_dump_traceback_later()
            growth = max(0, peak() - before)
            result["growth_mib"] = max(result["growth_mib"], growth >> 20)
            if growth > MAX_GROWTH:
                result["problems"].append(f"{what}: took {growth >> 20} MiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--no-limit", action="store_true", help="no memory limit: AddressSanitizer maps terabytes")
    parser.add_argument("--native", type=Path, help="compiled module to use instead of the installed one")
    options = parser.parse_args()
    if options.native is not None:
        spec = importlib.util.spec_from_file_location("vision3d._native", options.native)
        assert spec is not None and spec.loader is not None
        sys.modules["vision3d._native"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    faulthandler.enable()
    torch.set_num_threads(2)
    usual_calls()
    if not options.no_limit:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3 * MAX_GROWTH,) * 2)
    start = time.process_time()
    found = run(options.only or [*operations(), *usual_functions()], options.calls, options.seed, options.log)
    json.dump({"cpu_s": time.process_time() - start, "operations": found}, sys.stdout)


if __name__ == "__main__":
    main()
