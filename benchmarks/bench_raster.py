"""The splat rasterizer: CPU time against other rasterizers, blended pairs per second, threads, gradients, memory."""

import resource
import subprocess
import sys
from typing import Any

import torch
from support import SCENES, ForeignLoad, arguments, cpu_times, load_peers, refuse_foreign_load, wall_times, workload, write

from vision3d import rasterize
from vision3d.core import native
from vision3d.render.splats.kernels import kernels
from vision3d.render.splats.records import Camera, Gaussians, Grid, Intersections

PEERS = ("opensplat", "opensplat_fixed", "metal_gauss", "gsplat_ref", "dense_torch")
LIMITS = ("pinhole", 0.01, 1e10, 0.0)  # model, near plane, far plane, radius clip


class Raster:
    """Projected splats of a workload, and the raster part only: tile lists and blending, forward and backward."""

    def __init__(self, scene: dict[str, Any]) -> None:
        self.size = (scene["width"], scene["height"])
        inputs = [scene[name][None] for name in ("means", "quats", "scales")]
        camera = Camera(scene["viewmat"][None, None], scene["K"][None, None], *self.size, *LIMITS)
        cloud = Gaussians(*inputs, None, scene["opacities"][None])
        with torch.no_grad():
            (self.images, gaussians), self.projected = kernels("native").project(cloud, camera, eps2d=0.3, packed=True)
        _, self.means2d, _, self.conics, _ = self.projected
        self.opacities, self.colors = scene["opacities"][gaussians], scene["colors"][gaussians]
        self.upstream = torch.randn(1, *self.size[::-1], 3, generator=torch.Generator().manual_seed(1))

    def lists(self) -> Intersections:
        return kernels("native").intersect(self.projected, self.opacities, self.images, Grid(1, *self.size, 16))

    def forward(self, leaves: list[torch.Tensor] | None = None) -> tuple[torch.Tensor, ...]:
        means2d, conics, colors, opacities = leaves or (self.means2d, self.conics, self.colors, self.opacities)
        projected = self.projected._replace(means2d=means2d, conics=conics)
        return kernels("native").blend(projected, colors, opacities, self.lists().lists, alpha_max=0.99)

    def forward_backward(self) -> None:
        leaves = [t.detach().requires_grad_() for t in (self.means2d, self.conics, self.colors, self.opacities)]
        self.forward(leaves)[0].backward(self.upstream)

    def kernel_times(self) -> dict[str, dict[str, float]]:
        """CPU time of the blending kernels alone, without tile lists and autograd."""
        module = native.require()
        *_, offsets, ids = self.lists().lists
        count, (width, height) = len(self.opacities), self.size
        records = torch.empty(count, 16)
        module.make_records(self.means2d, self.conics, self.colors, self.opacities, records)
        image, final = torch.empty(1, height, width, 3), torch.empty(1, height, width)
        last = torch.empty(1, height, width, dtype=torch.int32)
        lists = (offsets, ids, width, height, 16, 0.99)
        grads = [torch.empty(len(ids), 9), *(torch.empty(count, *tail) for tail in ((2,), (3,), (3,), ()))]
        v_final = torch.zeros_like(final)
        common = (records, self.conics, self.colors, self.opacities, None, None, *lists, final, last, self.upstream, v_final)
        return {
            "forward": cpu_times(
                lambda: module.blend(records, self.colors, None, None, *lists, None, None, image, final, last)
            ),
            "backward": cpu_times(lambda: module.blend_vjp(*common, *grads, None)),
        }


def pairs_blended(scene: dict[str, Any]) -> int:
    """Number of blended (Gaussian, pixel) pairs, in float64: alpha >= 1/255 and transmittance afterwards above 1e-4."""
    raster = Raster(scene)
    *_, offsets, ids = raster.lists().lists
    total = 0
    rows = torch.arange(offsets.shape[1] * offsets.shape[2])
    ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(ids)])])
    width, height = raster.size
    for tile in rows.tolist():
        mine = ids[offsets.flatten()[tile] : ends[tile]].long()
        x0, y0 = tile % offsets.shape[2] * 16, tile // offsets.shape[2] * 16
        xs = torch.arange(x0, min(x0 + 16, width)) + 0.5
        ys = torch.arange(y0, min(y0 + 16, height)) + 0.5
        dx = (xs[None, :] - raster.means2d[mine, 0, None]).double()[:, None, :]
        dy = (ys[None, :] - raster.means2d[mine, 1, None]).double()[:, :, None]
        a, b, c = (raster.conics[mine, k].double()[:, None, None] for k in range(3))
        alpha = raster.opacities[mine].double()[:, None, None] * torch.exp(-(0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy))
        alpha = torch.where(alpha >= 1 / 255, alpha.clamp(max=0.99), 0)
        after = (1 - alpha).cumprod(0)
        total += int(((alpha > 0) & (after > 1e-4)).sum())
    return total


def gradients() -> dict[str, Any]:
    """Cosine of each gradient with the float64 reference, and the fraction of pixels off by more than 1e-5.

    5000 Gaussians, SH degree 3, two cameras.
    """
    scene = workload(0.02, count=5000, width=160, height=120)
    views = scene["viewmat"].repeat(2, 1, 1)
    views[1, :3, :3] = torch.tensor([[0.98006658, 0, 0.19866933], [0, 1, 0], [-0.19866933, 0, 0.98006658]])
    generator = torch.Generator().manual_seed(2)
    sh, backgrounds = 0.4 * torch.randn(5000, 16, 3, generator=generator), torch.rand(2, 3, generator=generator)
    upstream = torch.randn(2, 120, 160, 4, generator=generator)
    found = {}
    for name, dtype in (("native", torch.float32), ("reference", torch.float64)):
        names = ("means", "quats", "scales", "opacities")
        leaves = {key: scene[key].to(dtype).detach().clone().requires_grad_() for key in names}
        more = {"sh": sh, "viewmats": views, "backgrounds": backgrounds}
        leaves |= {key: value.to(dtype).detach().clone().requires_grad_() for key, value in more.items()}
        args = [leaves[key] for key in (*names, "sh", "viewmats")]
        options = {"sh_degree": 3, "render_mode": "RGB+ED", "backgrounds": leaves["backgrounds"], "backend": name}
        image, _, _ = rasterize(*args, scene["K"].to(dtype).repeat(2, 1, 1), 160, 120, **options)
        (image * upstream.to(dtype)).sum().backward()
        turned = torch.linalg.qr(torch.randn(5000, 3, 3, generator=torch.Generator().manual_seed(3)))[0]
        axes = turned * scene["scales"][:, None]
        covars = (axes @ axes.mT).detach().to(dtype).requires_grad_()
        seen, _, _ = rasterize(
            args[0].detach(), None, None, *(t.detach() for t in args[3:]), scene["K"].to(dtype).repeat(2, 1, 1), 160, 120,
            sh_degree=3, covars=covars, backend=name,
        )  # fmt: skip
        (seen * upstream[..., :3].to(dtype)).sum().backward()
        leaves["covars"] = covars
        found[name] = (image.detach().double(), {key: leaf.grad.double() for key, leaf in leaves.items()})
    (image, grads), (want, exact) = found["native"], found["reference"]
    error = (image - want).abs()[..., :3].amax(-1)
    inside = error[error <= 1e-5]
    cosines = {k: float((g * exact[k]).sum() / (g.norm() * exact[k].norm())) for k, g in grads.items()}
    share = float((error > 1e-5).double().mean())
    return {"cosine": cosines, "share_outside_1e-5": share, "max_error_inside": float(inside.max())}


def memory(count: int, width: int, height: int, scale: float, backward: bool) -> float:
    """Peak memory beyond the inputs in MiB, in a separate process."""
    code = f"""
import sys, torch
from pathlib import Path
sys.path.insert(0, {sys.path[0]!r})
from support import workload
from vision3d import rasterize
torch.set_num_threads(1)
def call(s, backward):
    names = ("means", "quats", "scales", "opacities", "colors")
    leaves = [s[n].requires_grad_(backward) for n in names]
    image, _, _ = rasterize(*leaves, s["viewmat"][None], s["K"][None], s["width"], s["height"])
    if backward:
        image.backward(torch.ones_like(image))
def status(name):
    return float(Path("/proc/self/status").read_text().partition(name + ":")[2].split()[0]) / 1024
call(workload(0.01, 100, 64, 64), {backward})
scene = workload({scale}, {count}, {width}, {height})
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
base = status("VmRSS")
call(scene, {backward})
print(status("VmHWM") - base)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def threads(rounds: int = 15) -> dict[str, Any]:
    """Wall time of the raster part with one and two threads, alternating; the speed-up is that of the median round."""
    found = {}
    for name, scale in SCENES.items():
        raster = Raster(workload(scale))
        times: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for _ in range(rounds):
            for count, taken in times.items():
                torch.set_num_threads(count)
                taken.append(wall_times(raster.forward_backward, repeats=15))
        torch.set_num_threads(1)
        ratios = sorted(one["median"] / two["median"] for one, two in zip(times[1], times[2], strict=True))
        found[name] = {"wall_s": times, "speed_ups": ratios, "speed_up": ratios[rounds // 2]}
    return found


def main() -> None:
    options = arguments(__doc__ or "")
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    peers = load_peers(options.peers)
    results: dict[str, Any] = {"scenes": {}}
    with ForeignLoad() as load:
        results["projection_sh3"] = projection()
        print(results["projection_sh3"])
        for name, scale in SCENES.items():
            scene = workload(scale)
            raster, pairs = Raster(scene), pairs_blended(scene)
            kernels = raster.kernel_times()
            row: dict[str, Any] = {"pairs": pairs, "kernels_cpu_s": kernels}
            row["pairs_per_second"] = {k: pairs / v["median"] for k, v in kernels.items()}
            row["raster_cpu_s"] = {"vision3d": cpu_times(raster.forward_backward)}
            ours = row["raster_cpu_s"]["vision3d"]["median"]
            for peer_name in PEERS:
                if peer_name not in peers:
                    continue
                peer = peers[peer_name](**scene)
                times = cpu_times(lambda peer=peer, v=raster.upstream[0]: peer.raster_forward_backward(v), repeats=5, warmup=1)
                row["raster_cpu_s"][peer_name] = times
                # Ours again, so that the ratio is between adjacent timings.
                again = cpu_times(raster.forward_backward)["median"]
                row.setdefault("times_faster_than", {})[peer_name] = times["median"] / again
            results["scenes"][name] = row
            speeds = {k: f"{v / 1e6:.0f} M pairs/s" for k, v in row["pairs_per_second"].items()}
            print(name, speeds, row.get("times_faster_than", ours))
        results["isa"] = {}
        best = native.require().isa()
        for isa in native.require().available_isas():
            native.require().set_isa(isa)
            results["isa"][isa] = {name: Raster(workload(scale)).kernel_times() for name, scale in SCENES.items()}
        native.require().set_isa(best)
        results["gradients"] = gradients()
        print(results["gradients"])
        results["memory_mib"] = {"S1 forward + backward": memory(20_000, 256, 256, 0.01, True)}
        results["memory_mib"]["1 M at 1920x1080 forward"] = memory(1_000_000, 1920, 1080, 0.004, False)
        print(results["memory_mib"])
        results["threads"] = threads()
        print({name: value["speed_up"] for name, value in results["threads"].items()})
    results["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write("raster", results, load.share)


def projection() -> dict[str, Any]:
    """Projection and degree-3 harmonics of 20 k Gaussians, forward and backward, against the torch reference."""
    scene = workload(SCENES["S1"])
    generator = torch.Generator().manual_seed(0)
    sh = torch.randn(1, 20_000, 16, 3, generator=generator)
    times = {}
    for backend in ("native", "reference"):

        def step(backend: str = backend) -> None:
            leaves = [scene[name][None].clone().requires_grad_() for name in ("means", "quats", "scales")]
            coefficients = sh.clone().requires_grad_()
            camera = Camera(scene["viewmat"][None, None], scene["K"][None, None], 256, 256, *LIMITS)
            cloud, operations = Gaussians(*leaves, None, scene["opacities"][None]), kernels(backend)
            (images, gaussians), out = operations.project(cloud, camera, eps2d=0.3, packed=True)
            colors = operations.sh_colors(
                leaves[0], coefficients, camera.viewmats, torch.zeros_like(images), images, gaussians, 3
            )
            torch.autograd.backward([*out[1:4], colors], [torch.ones_like(t) for t in (*out[1:4], colors)])

        times[backend] = cpu_times(step, repeats=9)
    return {"cpu_s": times, "times_faster": times["reference"]["median"] / times["native"]["median"]}


if __name__ == "__main__":
    main()
