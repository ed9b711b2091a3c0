"""Everything that runs on a GPU, against gsplat, fused-ssim, nvdiffrast, Warp and roma.

python benchmarks/bench_gpu.py writes results/gpu.json. Calls are warmed up, then timed in turns between synchronizations; a
time is the median of the repeats with its 95 % interval, a ratio that of the same round. Peers that are not installed are
listed as absent. `--tiny` checks the script within seconds: its output is not a measurement, like that of a pretended GPU.
"""

import argparse
import functools
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gpu_peers
import torch
from bench_physics import DT, FLOOR, Ours, scene as block
from bench_skinning import case as random_skin, in_torch, with_roma
from gpu_timing import MIN_REPEATS, OURS, Case, measure, table
from physics_peers import PlainWarp
from support import RESULTS, ForeignLoad, machine, refuse_foreign_load, workload
from torch import Tensor

from vision3d.core import native
from vision3d.core.atomic import atomic_write
from vision3d.core.device import resolve_device
from vision3d.core.errors import DeviceError
from vision3d.geometry import se3, shapes, skinning
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.optim import losses
from vision3d.optim.reference.ssim import ssim_maps
from vision3d.optim.training_views import TrainingView
from vision3d.render.meshes import antialias, edge_neighbors, interpolate, rasterize as rasterize_mesh, screen_positions
from vision3d.render.splats import rasterize, rasterize_2dgs
from vision3d.scene import Cameras, GaussianScene
from vision3d.stages.fit.config import AdcConfig, FitConfig
from vision3d.stages.fit.trainer import Trainer
from vision3d.stages.simulate.engines import choose_engine
from vision3d.stages.simulate.world.particles import Particles
from vision3d.training.group import Group

DEVICE = "cuda"
DEGREE = 3
ALPHA_MAX = 0.999  # that of gsplat
NEVER = 10**9
Cases = Iterator[tuple[str, Callable[[], Case]]]

# Gaussians, width, height, scale: the median standard deviation in a cube of side 2.
SCENES = ((20_000, 256, 256, 0.01), (200_000, 1280, 720, 0.006), (1_000_000, 1920, 1080, 0.004), (3_000_000, 1920, 1080, 0.003))
TINY_SCENES = ((60, 32, 24, 0.05),)


def gaussians(count: int, width: int, height: int, scale: float, seed: int) -> dict[str, Any]:
    """A random scene with harmonics and its camera, on the device."""
    made = workload(scale, count, width, height, seed)
    made["sh"] = 0.3 * torch.randn(count, (DEGREE + 1) ** 2, 3, generator=torch.Generator().manual_seed(seed + 1))
    made["viewmats"], made["Ks"] = made["viewmat"][None], made["K"][None]
    return {name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in made.items()}


def forward_backward(image: Callable[..., Tensor], leaves: tuple[Tensor, ...], upstream: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the leaves."""
    leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
    return torch.autograd.grad(image(*leaves), leaves, upstream)


def splats(seed: int, *, tiny: bool) -> Cases:
    """Rasterizing with harmonics of degree 3: image only, and with gradients of all Gaussians."""
    names = ("means", "quats", "scales", "opacities", "sh")
    ours_of = {"3dgs": rasterize, "2dgs": rasterize_2dgs}

    def case(mode: str, sizes: tuple[int, int, int, float], with_gradients: bool) -> Case:
        scene = gaussians(*sizes, seed)
        size, view = (scene["width"], scene["height"]), {name: scene[name] for name in ("viewmats", "Ks")}

        def ours(*leaves: Tensor) -> Tensor:
            options = {"sh_degree": DEGREE, "packed": True, "alpha_max": ALPHA_MAX, "backend": "native"}
            return ours_of[mode](*leaves, view["viewmats"], view["Ks"], *size, **options)[0]

        def theirs(*leaves: Tensor, packed: bool) -> Tensor:
            return gpu_peers.gsplat_image(mode, {**dict(zip(names, leaves)), **view}, size, DEGREE, packed=packed)

        images, absent = gpu_peers.with_peers(
            {OURS: ours},
            {
                f"gsplat{' packed' * packed}": (("gsplat",), lambda packed=packed: functools.partial(theirs, packed=packed))
                for packed in (False, True)
            },
        )
        leaves = tuple(scene[name] for name in names)
        if with_gradients:
            generator = torch.Generator().manual_seed(seed + 2)
            upstream = torch.randn(1, *size[::-1], 3, generator=generator).to(DEVICE)
            calls = {who: functools.partial(forward_backward, image, leaves, upstream) for who, image in images.items()}
            results = {who: lambda call=call: call()[0] for who, call in calls.items()}  # gradients of the means
        else:
            calls = {who: functools.partial(torch.no_grad()(image), *leaves) for who, image in images.items()}
            results = calls
        about = {"gaussians": sizes[0], "width": size[0], "height": size[1], "sh_degree": DEGREE}
        return Case(calls, results, absent, about)

    for sizes in TINY_SCENES if tiny else SCENES:
        for mode in ours_of:
            for with_gradients in (False, True):
                what = "forward + backward" if with_gradients else "forward"
                name = f"{mode} {what}, {sizes[0]} Gaussians, {sizes[1]}x{sizes[2]}"
                yield name, functools.partial(case, mode, sizes, with_gradients)


class OneView:
    """A training view in the memory of the GPU, as `TrainingViews` keeps it."""

    def __init__(self, target: Tensor, K: Tensor) -> None:
        self.target, self.K = target, K

    def __len__(self) -> int:
        return 1

    def get(self, place: int, factor: int) -> TrainingView:
        return TrainingView(place, self.target.float().div_(255), None, None, None, self.K)


def fit_steps(seed: int, *, tiny: bool) -> Cases:
    """A training step: image, L1 and SSIM, gradients, Adam; ours with the sums of adaptive density control, too."""

    def case(mode: str, sizes: tuple[int, int, int, float]) -> Case:
        scene, (count, width, height, _) = gaussians(*sizes, seed), sizes
        generator = torch.Generator().manual_seed(seed + 3)
        target = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8).to(DEVICE)
        params = {
            "means": scene["means"], "quats": torch.nn.functional.normalize(scene["quats"], dim=-1),
            "log_scales": scene["scales"].log(), "opacity_logits": scene["opacities"].logit(), "sh": scene["sh"],
        }  # fmt: skip
        config = FitConfig(
            mode=mode, strategy="adc", sh_degree=DEGREE, sh_every=0.0, max_gaussians=count, alpha_max=ALPHA_MAX,
            resolution_start=1, adc=AdcConfig(refine_every=NEVER), device=DEVICE, backend="native",
        )  # fmt: skip
        cameras = Cameras.from_camtoworlds(se3.inverse(scene["viewmats"].cpu()), scene["K"].cpu(), width, height)
        views: Any = OneView(target, scene["K"])
        trainer = Trainer(config, GaussianScene(**params, mode=mode), views, cameras, None, Group())
        steps = iter(range(NEVER))
        view = {name: scene[name] for name in ("viewmats", "Ks")}
        make = functools.partial(gpu_peers.GsplatStep, mode, params, view, target, DEGREE, config.loss.ssim)
        calls, absent = gpu_peers.with_peers(
            {OURS: lambda: trainer.step(next(steps), 0.2)}, {"gsplat": (("gsplat", "fused_ssim"), make)}
        )
        return Case(calls, {}, absent, {"gaussians": count, "width": width, "height": height, "sh_degree": DEGREE})

    for sizes in TINY_SCENES if tiny else SCENES[:3]:
        for mode in ("3dgs", "2dgs"):
            name = f"fit step {mode}, {sizes[0]} Gaussians, {sizes[1]}x{sizes[2]}"
            yield name, functools.partial(case, mode, sizes)


def ssim(seed: int, *, tiny: bool) -> Cases:
    """Mean SSIM of two images and the gradient of the first."""

    def case(width: int, height: int) -> Case:
        generator = torch.Generator().manual_seed(seed)
        a, b = (torch.rand(1, height, width, 3, generator=generator).to(DEVICE) for _ in range(2))
        means, absent = gpu_peers.with_peers(
            {OURS: losses.ssim, "torch": lambda a, b: ssim_maps(a, b).ssim.mean()},
            {"fused_ssim": (("fused_ssim",), lambda: gpu_peers.fused_ssim_of)},
        )
        one = torch.ones((), device=DEVICE)
        calls = {
            who: lambda mean=mean: forward_backward(lambda image: mean(image, b), (a,), one)[0] for who, mean in means.items()
        }
        return Case(calls, calls, absent, {"width": width, "height": height})

    for width, height in ((32, 24),) if tiny else ((640, 360), (1920, 1080), (3840, 2160)):
        yield f"SSIM forward + backward, {width}x{height}", functools.partial(case, width, height)


def physics(seed: int, *, tiny: bool) -> Cases:
    """Time steps of the material point method: corotated jelly on a sticky floor."""
    steps = 2 if tiny else 50

    def case(count: int, nodes: int) -> Case:
        particles, world = block(count, nodes)
        there = Particles(**{name: value.to(DEVICE) for name, value in vars(particles).items()})

        def warp() -> PlainWarp:
            volume, (material,) = float(particles.volume[0]), world.materials
            device = gpu_peers.warp_device() or "cpu"
            return PlainWarp(particles.x, particles.v, volume, material, nodes, DT, FLOOR, device)

        alive, absent = gpu_peers.with_peers({OURS: Ours(choose_engine("native"), there, world)}, {"warp": (("warp",), warp)})

        def moved(who: str) -> Tensor:
            alive[who].steps(steps)
            return alive[who].positions().cpu()

        calls = {who: functools.partial(peer.steps, steps) for who, peer in alive.items()}
        results = {who: functools.partial(moved, who) for who in alive}  # both from the same start
        about = {"particles": count, "nodes": nodes**3, "unit": "one time step"}
        return Case(calls, results, absent, about, per_call=steps)

    for count, nodes in ((200, 16),) if tiny else ((50_000, 64), (1_000_000, 128)):
        yield f"MPM, {count} particles, {nodes}^3 nodes", functools.partial(case, count, nodes)


def skins(seed: int, *, tiny: bool) -> Cases:
    """Hybrid skinning with 128 joints, forward and backward."""

    def case(count: int) -> Case:
        torch.manual_seed(seed)
        given = {name: value.to(DEVICE) for name, value in random_skin(count).items()}
        upstream = torch.randn(count, 3).to(DEVICE)
        names = [name for name, value in given.items() if value.is_floating_point()]
        functions, absent = gpu_peers.with_peers(
            {OURS: skinning.skin, "torch": in_torch}, {"roma": (("roma",), lambda: with_roma)}
        )

        def step(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
            leaves = tuple(given[name] for name in names)
            return forward_backward(lambda *values: function(**{**given, **dict(zip(names, values))}), leaves, upstream)

        calls = {who: functools.partial(step, function) for who, function in functions.items()}
        results = {who: lambda call=call: call()[0] for who, call in calls.items()}
        return Case(calls, results, absent, {"vertices": count, "joints": 128})

    for count in (40,) if tiny else (2_000, 100_000):
        yield f"skinning forward + backward, {count} vertices", functools.partial(case, count)


def meshes(seed: int, *, tiny: bool) -> Cases:
    """An antialiased image of a sphere with vertex colors, and gradients of vertices and colors."""

    def case(subdivisions: int, size: int) -> Case:
        vertices, triangles = shapes.icosphere(subdivisions)
        eye = torch.tensor([1.6, 1.0, 2.6])
        viewmat = se3.inverse(look_at(eye, torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))).to(DEVICE)
        K = intrinsics(1.4 * size, 1.4 * size, size / 2, size / 2).to(DEVICE)
        faces, neighbors = triangles.int().to(DEVICE), edge_neighbors(triangles).to(DEVICE)
        generator = torch.Generator().manual_seed(seed)
        colors = torch.rand(len(vertices), 3, generator=generator).to(DEVICE)
        upstream = torch.randn(1, size, size, 3, generator=generator).to(DEVICE)

        def ours(vertices: Tensor, colors: Tensor) -> Tensor:
            positions = screen_positions(vertices, viewmat[None], K[None])
            fragments = rasterize_mesh(positions, faces, size, size)
            image = interpolate(colors, faces, fragments)
            return antialias(image, positions, faces, fragments, neighbors=neighbors)

        make = functools.partial(gpu_peers.nvdiffrast_drawing, faces, viewmat, K, size)
        drawings, absent = gpu_peers.with_peers({OURS: ours}, {"nvdiffrast": (("nvdiffrast",), make)})
        leaves = (vertices.to(DEVICE), colors)
        calls = {who: functools.partial(forward_backward, draw, leaves, upstream) for who, draw in drawings.items()}
        results = {who: functools.partial(torch.no_grad()(draw), *leaves) for who, draw in drawings.items()}
        return Case(calls, results, absent, {"faces": len(faces), "size": size})

    for subdivisions, size in ((1, 24),) if tiny else ((4, 512), (6, 1024), (8, 1024)):
        name = f"mesh forward + backward, {20 * 4**subdivisions} faces, {size}x{size}"
        yield name, functools.partial(case, subdivisions, size)


PARTS = {"splats": splats, "fit": fit_steps, "ssim": ssim, "mpm": physics, "skin": skins, "mesh": meshes}


def no_measurement(*, tiny: bool) -> str | None:
    """Why the times of this run mean nothing; None on a GPU with the sizes of the benchmark."""
    made = torch.empty(1, device=DEVICE)
    if type(made) is not Tensor or not isinstance(native.require(), types.ModuleType):
        return "a pretended GPU"
    return "tiny sizes" if tiny else None


def chosen_file(out: Path | None, reason: str | None) -> Path:
    """Where the results go; refuses to put what is not a measurement among the results."""
    if reason is None:
        return out or RESULTS / "gpu.json"
    if out is None:
        sys.exit(f"error: --out is missing: these times are not a measurement ({reason}), so they do not go to results/")
    if out.resolve().is_relative_to(RESULTS.resolve()):
        sys.exit(f"error: --out {out}: these times are not a measurement ({reason}), want a file outside of {RESULTS}")
    return out


def nvidia_smi() -> str | None:
    """Driver, clock, power limit and utilization of all GPUs; None without the tool."""
    query = "--query-gpu=name,driver_version,clocks.sm,power.limit,utilization.gpu"
    try:
        done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def described() -> dict[str, Any]:
    """CPU, GPU, driver, and versions of everything that is timed."""
    module = native.require()
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    gpu = {"name": torch.cuda.get_device_name(), "compute_capability": capability, "driver": nvidia_smi()}
    gpu |= {"memory_bytes": torch.cuda.mem_get_info()[1], "torch_cuda": torch.version.cuda}
    gpu |= {"kernels_cuda": module.cuda_version, "kernels_architectures": module.cuda_architectures}
    return {**machine(), "gpu": gpu, "packages": gpu_peers.versions()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("bench_gpu.py", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--repeats", type=int, default=25, help=f"rounds of each case, at least {MIN_REPEATS}")
    parser.add_argument("--seed", type=int, default=0, help="seed of all scenes")
    parser.add_argument("--tiny", action="store_true", help="check the script with tiny sizes; not a measurement")
    parser.add_argument("--out", type=Path, help="JSON file (default: results/gpu.json)")
    parser.add_argument("--busy", action="store_true", help="run even beside other processes; the result records their load")
    options = parser.parse_args(arguments)
    if options.repeats < MIN_REPEATS:
        sys.exit(f"error: --repeats: got {options.repeats}, want at least {MIN_REPEATS}")
    try:
        resolve_device(DEVICE)
    except DeviceError as error:
        sys.exit("error: " + re.sub("(;|, or) use --device cpu$", "", str(error)))
    reason = no_measurement(tiny=options.tiny)
    out = chosen_file(options.out, reason)
    if reason is None and not options.busy:
        refuse_foreign_load()
    given = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python benchmarks/bench_gpu.py", *given])
    results: dict[str, Any] = {"is_measurement": reason is None, "not_a_measurement_because": reason}
    results |= {"machine": described(), "command": command, "seed": options.seed, "repeats": options.repeats}
    results["absent"] = {name: why for name in gpu_peers.PACKAGES if (why := gpu_peers.missing(name)) is not None}
    for name, why in results["absent"].items():
        print(f"absent: {name}: {why}")
    cases: dict[str, Any] = {}
    with ForeignLoad() as load:
        for part in options.only:
            for name, make in PARTS[part](options.seed, tiny=options.tiny):
                try:
                    cases[name] = measure(make(), repeats=options.repeats)
                except torch.cuda.OutOfMemoryError as error:
                    cases[name] = {"out_of_memory": str(error).splitlines()[0]}
                    print(f"{name}\n  out of memory")
                    torch.cuda.empty_cache()
                    continue
                print(table(name, cases[name]), flush=True)
    results |= {"foreign_load": round(load.share, 4), "cases": cases}
    with atomic_write(out) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{out}{'' if reason is None else f': NOT A MEASUREMENT ({reason})'}")


if __name__ == "__main__":
    main()
