"""The viewer on a CPU: frame rate while the camera moves, time to the full image afterwards, time to the first image.

Two scenes of 100 000 Gaussians in a window of 1280x720: evenly chosen ones of a photographed person (--file, by default
biker.spz of the data folder, so close that it fills the height), and the generated ones of the other benchmarks, with
harmonics of degree 3, in a cube that fills the image. The camera moves slightly after every image, as with a steady hand.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, workload, write

from vision3d.scene import GaussianScene
from vision3d.viewer.layers import Layers
from vision3d.viewer.loop import Shown
from vision3d.viewer.navigation import FreeCamera
from vision3d.viewer.session import Session
from vision3d.viewer.viewpoint import Viewpoint

COUNT, SIZE, SECONDS, RESTS = 100_000, (1280, 720), 8.0, 7
_FIRST = """
import json, resource, sys, time
started = time.perf_counter(), time.process_time()
import torch
torch.set_num_threads(2)
import vision3d.viewer.session as viewer
from vision3d.viewer.layers import Layers
imported = time.perf_counter(), time.process_time()
seen = []
show = lambda shown: seen.append((time.perf_counter(), time.process_time(), shown.is_whole))
session = viewer.Session(Layers.open([sys.argv[1]]), size=(1280, 720), show=show)
session.request()
session.loop.wait()
session.close()
first, whole = seen[0], next(one for one in seen if one[2])
after = {"first_image_s": first[0] - imported[0], "first_image_cpu_s": first[1] - imported[1],
         "full_image_s": whole[0] - imported[0], "full_image_cpu_s": whole[1] - imported[1]}
print(json.dumps({"imports_s": imported[0] - started[0], "imports_cpu_s": imported[1] - started[1], "after_imports": after,
                  "process_s": whole[0] - started[0], "process_cpu_s": whole[1],
                  "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def generated() -> GaussianScene:
    """The Gaussians of the other benchmarks with harmonics of degree 3."""
    values = workload(0.010, COUNT)
    generator = torch.Generator().manual_seed(1)
    logits = torch.logit(values["opacities"])
    sh = torch.cat([(values["colors"][:, None] - 0.5) / 0.28209479, 0.1 * torch.randn(COUNT, 15, 3, generator=generator)], 1)
    return GaussianScene(values["means"], values["quats"], values["scales"].log(), logits, sh)


def steady_hand(path: Path, start: FreeCamera) -> dict[str, Any]:
    """Frame rate and image sizes while the camera moves; seconds from its stop to the full image."""
    shown: list[tuple[float, float, Shown]] = []
    came = threading.Event()

    def show(image: Shown) -> None:
        shown.append((time.perf_counter(), time.process_time(), image))
        came.set()

    session = Session(Layers.open([path]), size=SIZE, show=show, start=start)
    session.request()
    session.loop.wait()
    shown.clear()
    begin, number = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        came.clear()
        session.move(session.view.orbited(0.02, 0.004 * math.sin(0.1 * number)))
        number += 1
        came.wait(10)
    moving = [one for one in shown if one[0] - begin < SECONDS]
    gaps = sorted(b[0] - a[0] for a, b in itertools.pairwise(moving))
    sizes = [one[2].quality.scale for one in moving]
    shares = [one[2].quality.share for one in moving]
    session.loop.wait()
    rests = []
    for _ in range(RESTS):
        shown.clear()
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        session.move(session.view.orbited(0.05, 0.0))
        session.loop.wait()
        rests.append((shown[-1][0] - start_wall, shown[-1][1] - start_cpu, shown[-1][2].seconds))
    session.close()
    return {
        "gaussians": COUNT,
        "moving": {
            "frames_per_s": (len(moving) - 1) / (moving[-1][0] - moving[0][0]),
            "cpu_s_per_frame": (moving[-1][1] - moving[0][1]) / (len(moving) - 1),
            "gap_p90_s": gaps[int(0.9 * len(gaps))],
            "least_size": f"{round(SIZE[0] * min(sizes))}x{round(SIZE[1] * min(sizes))}",
            "median_size": f"{round(SIZE[0] * statistics.median(sizes))}x{round(SIZE[1] * statistics.median(sizes))}",
            "least_share_of_gaussians": min(shares),
            "median_share_of_gaussians": statistics.median(shares),
        },
        "whole_after_the_last_move": {
            "wall_s": statistics.median(one[0] for one in rests),
            "cpu_s": statistics.median(one[1] for one in rests),
            "drawing_s": statistics.median(one[2] for one in rests),
        },
    }


def first_image(path: Path, threads: int) -> dict[str, Any]:
    """In a separate process: imports, the first (coarse) image and the full one of a file."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
    runs = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", _FIRST, str(path)], env=environment, capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    runs.sort(key=lambda run: run["process_s"])
    return {"file": path.name, "bytes": path.stat().st_size, "gaussians": GaussianScene.load(path).num_gaussians, **runs[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    default = Path(os.environ.get("VISION3D_DATA", ".")) / "splats" / "biker.spz"
    parser.add_argument("--file", type=Path, default=default, help="scene of the photographed person")
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(2)
    results: dict[str, Any] = {"window": f"{SIZE[0]}x{SIZE[1]}", "threads": 2}
    with ForeignLoad() as load, tempfile.TemporaryDirectory() as folder:
        results["first_image"] = first_image(options.file, 2)
        print(results["first_image"])
        person = GaussianScene.load(options.file)
        person = person[torch.linspace(0, person.num_gaussians - 1, COUNT).long()]
        up, middle = torch.tensor([0.0, -1.0, 0.0]), person.means.median(0).values
        near = FreeCamera.of(Viewpoint(middle + torch.tensor([0.0, 0.0, -2.0]), middle, up), up)
        generated_view = FreeCamera.of(Viewpoint(torch.tensor([0.0, -3.0, 0.0]), torch.zeros(3), -up.roll(1)), -up.roll(1))
        for name, scene, start in (("person", person, near), ("generated", generated(), generated_view)):
            path = Path(folder) / f"{name}.ply"
            scene.save(path)
            results[name] = steady_hand(path, start)
            print(name, results[name])
    write("viewer", results, load.share)


if __name__ == "__main__":
    main()
