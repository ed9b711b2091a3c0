"""A whole training step on the bundled photo set: 30 000 Gaussians, 256x256 px, SH degree 3."""

import itertools
import time
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, arguments, cpu_times, load_peers, refuse_foreign_load, wall_times, write

from vision3d.stages.fit import FitConfig, fit

STEPS, COUNTED = 1200, 300


def main() -> None:
    options = arguments(__doc__ or "")
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(2)
    data = Path(str(resources.files("vision3d") / "assets" / "demo"))
    config = FitConfig(steps=STEPS, init_count=30_000, max_gaussians=30_000, resolution_start=1, sh_every=0.1)
    marks: list[tuple[float, float]] = []

    def mark(task: str, step: int, total: int, values: Any) -> None:
        if task == "fit":
            marks.append((time.perf_counter(), time.process_time()))

    with ForeignLoad() as load:
        result = fit(config, data, progress=mark)
        last = marks[-COUNTED - 1 :]
        wall = sorted(b[0] - a[0] for a, b in itertools.pairwise(last))
        cpu = (last[-1][1] - last[0][1]) / COUNTED
        step = {"wall_s": {"median": wall[COUNTED // 2], "p90": wall[int(0.9 * COUNTED)]}, "cpu_s": cpu}
        print(step, result.summary)
        results: dict[str, Any] = {"step": step, "gaussians": result.scene.num_gaussians, "threads": 2}
        peers = load_peers(options.peers)
        if "opensplat" in peers:
            results["peer"] = opensplat(peers["opensplat"], result)
            results["times_faster"] = results["peer"]["wall_s"]["median"] / step["wall_s"]["median"]
            print(results["peer"], results["times_faster"])
    write("step", results, load.share)


def opensplat(peer_class: Any, result: Any) -> dict[str, Any]:
    """Projection and rasterization by the peer on the same Gaussians, forward and backward; no SH, SSIM or Adam."""
    scene, camera = result.scene, result.cameras[0]
    colors = (0.28209479 * scene.sh[:, 0] + 0.5).clamp(0, 1)
    peer = peer_class(
        scene.means, scene.quats, scene.scales, scene.opacities, colors, camera.viewmats[0], camera.Ks[0], 256, 256
    )  # fmt: skip
    upstream = torch.randn(256, 256, 3)
    wall, cpu = (clock(lambda: peer.forward_backward(upstream)) for clock in (wall_times, cpu_times))
    what = "projection and rasterization, forward and backward, without SH, SSIM, Adam and densification"
    return {"wall_s": wall, "cpu_s": cpu, "what": what}


if __name__ == "__main__":
    main()
