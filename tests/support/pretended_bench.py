"""`benchmarks/bench_gpu.py` on the pretended GPU in its own process: `python -m tests.support.pretended_bench PEERS OPTION...`.

PEERS is `none`, `fakes`, or `wrong`: stand-ins for packages that need a GPU, made of our own operations; a wrong one computes
something else.
"""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch

from tests.support.pretend import pretended_gpu

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_gpu
import gpu_peers

from vision3d.optim import losses
from vision3d.render import meshes
from vision3d.render.splats import rasterize, rasterize_2dgs


def fakes(*, wrong: bool) -> dict[str, types.ModuleType]:
    """Modules with the functions of the packages that the benchmark uses."""

    def image(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            found = function(*arguments, **options, alpha_max=0.999)
            return (found[0] * (1.5 if wrong else 1.0), *found[1:])

        return call

    def fused_ssim(a: torch.Tensor, b: torch.Tensor, padding: str = "same", train: bool = True) -> torch.Tensor:
        return losses.ssim(a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1), padding=padding)

    gsplat = types.ModuleType("gsplat")
    gsplat.rasterization, gsplat.rasterization_2dgs = image(rasterize), image(rasterize_2dgs)
    ssim = types.ModuleType("fused_ssim")
    ssim.fused_ssim = fused_ssim
    return {"gsplat": gsplat, "fused_ssim": ssim, **_nvdiffrast()}


def _nvdiffrast() -> dict[str, types.ModuleType]:
    """Clip positions as pixel positions, then our operations."""
    kept: dict[str, Any] = {}

    def rasterize(_context: Any, clip: torch.Tensor, triangles: torch.Tensor, size: tuple[int, int]) -> tuple[Any, None]:
        height, width = size
        x, y, _, w = clip.unbind(-1)
        kept["positions"] = torch.stack([(x + w) * width / 2, (y + w) * height / 2, w, w], -1)
        kept["faces"] = triangles
        return meshes.rasterize(kept["positions"], triangles, width, height), None

    def interpolate(values: torch.Tensor, fragments: Any, triangles: torch.Tensor) -> tuple[torch.Tensor, None]:
        return meshes.interpolate(values[0], triangles, fragments), None

    def antialias(image: torch.Tensor, fragments: Any, _clip: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
        neighbors = meshes.edge_neighbors(triangles.cpu()).to(triangles.device)
        return meshes.antialias(image, kept["positions"], triangles, fragments, neighbors=neighbors)

    package, module = types.ModuleType("nvdiffrast"), types.ModuleType("nvdiffrast.torch")
    module.RasterizeCudaContext = object
    module.rasterize, module.interpolate, module.antialias = rasterize, interpolate, antialias
    package.torch = module
    return {"nvdiffrast": package, "nvdiffrast.torch": module}


def main() -> None:
    peers, *options = sys.argv[1:]
    if peers != "none":
        sys.modules.update(fakes(wrong=peers == "wrong"))
        if importlib.util.find_spec("warp") is not None:
            gpu_peers.warp_device = lambda: "cpu"
    torch.set_num_threads(1)
    with pretended_gpu():
        bench_gpu.main(options)


if __name__ == "__main__":
    main()
