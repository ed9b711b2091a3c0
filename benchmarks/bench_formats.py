"""File formats of Gaussian scenes: size and PSNR for the demo scene, read and write times for a million Gaussians."""

import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, arguments, refuse_foreign_load, write

from vision3d.core.config import load_yaml
from vision3d.io import spz
from vision3d.scene import GaussianScene
from vision3d.stages.fit import FitConfig, evaluate, fit

NAMES = ("a.ply", "a.glb", "a.sog", "a.spz", "a.compressed.ply", "a.splat")
MILLION = 1_000_000


def costs(scene: GaussianScene, folder: Path, data: Path) -> dict[str, Any]:
    """Size of the scene in each format, and its PSNR on the held-out views after it is read back."""
    found = {}
    for name in (*NAMES, "v2.spz"):
        path = folder / name
        if name == "v2.spz":
            spz.write_gaussians(path, scene, version=2)
        else:
            scene.save(path)
        psnr = evaluate(GaussianScene.load(path), data, nearest=False).mean()["psnr"]
        found[name] = {"bytes": path.stat().st_size, "psnr": psnr}
        print(name, found[name])
    return found


def times(folder: Path) -> dict[str, Any]:
    """CPU-seconds to write and read a million Gaussians of degree 3, once each on one thread."""
    generator = torch.Generator().manual_seed(0)
    scene = GaussianScene.from_points(torch.randn(MILLION, 3, generator=generator), sh_degree=3, generator=generator)
    scene.sh[:, 1:] = 0.1 * torch.randn(MILLION, 15, 3, generator=generator)
    found = {}
    for name in NAMES:
        path = folder / name
        start = time.process_time()
        scene.save(path)
        written = time.process_time()
        GaussianScene.load(path)
        found[name] = {
            "write_cpu_s": written - start,
            "read_cpu_s": time.process_time() - written,
            "bytes": path.stat().st_size,
        }
        print(name, found[name])
    return found


def main() -> None:
    options = arguments(__doc__ or "")
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(2)
    data = Path(str(resources.files("vision3d") / "assets" / "demo"))
    with ForeignLoad() as load, tempfile.TemporaryDirectory() as folder:
        result = fit(load_yaml(FitConfig, "demo", stage="fit"), data)
        results = {"demo_fit": result.summary, "demo_scene": costs(result.scene, Path(folder), data)}
        torch.set_num_threads(1)
        results["million"] = times(Path(folder))
    write("formats", results, load.share)


if __name__ == "__main__":
    main()
