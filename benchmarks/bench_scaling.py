"""CPU time of `rasterize`, forward and backward, by number of Gaussians and by number of pixels."""

from typing import Any

import torch
from bench_raster import pairs_blended
from support import ForeignLoad, arguments, cpu_times, refuse_foreign_load, workload, write

from vision3d import rasterize

COUNTS = (10_000, 30_000, 100_000, 300_000)
SIZES = (128, 256, 512, 1024)


def row(scene: dict[str, Any]) -> dict[str, float]:
    names = ("means", "quats", "scales", "opacities", "colors")

    def step() -> None:
        leaves = [scene[name].clone().requires_grad_() for name in names]
        image, _, _ = rasterize(*leaves, scene["viewmat"][None], scene["K"][None], scene["width"], scene["height"])
        image.backward(torch.ones_like(image))

    pairs = pairs_blended(scene)
    seconds = cpu_times(step, repeats=5)["median"]
    return {"pairs": pairs, "cpu_s": seconds, "ns_per_pair": 1e9 * seconds / pairs}


def main() -> None:
    options = arguments(__doc__ or "")
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"gaussians": {}, "pixels": {}}
    with ForeignLoad() as load:
        for count in COUNTS:  # with the covered area of S2
            results["gaussians"][count] = row(workload(0.030 * (20_000 / count) ** 0.5, count))
            print(count, results["gaussians"][count])
        for size in SIZES:
            results["pixels"][size] = row(workload(0.030, 20_000, size, size))
            print(size, results["pixels"][size])
    write("scaling", results, load.share)


if __name__ == "__main__":
    main()
