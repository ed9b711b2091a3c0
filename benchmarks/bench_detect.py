"""Speed of detection: one sector and the whole sweep, by weights, and the parts of a forward pass.

One process, threads as given by --threads; the sweep is a generated one of an HDL-64E, the same for all.
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from support import ForeignLoad, add_options, cpu_times, refuse_foreign_load, wall_times, write

from vision3d.core.config import load_yaml
from vision3d.stages.detect.config import TrainConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.evaluate import in_view
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.files import Detector
from vision3d.stages.detect.network.norms import folded
from vision3d.stages.detect.sectors import detect_boxes, num_sectors
from vision3d.stages.detect.synth import FrameConfig, frame
from vision3d.stages.detect.synth.frames import Frame
from vision3d.training.weights import Card


def measured(name: str, made: Frame, repeats: int) -> dict[str, Any]:
    """Times of a preset with random parameters; of a published size only for the points that the camera sees, as on KITTI."""
    preset, _, variant = name.partition(", ")
    config, points = load_yaml(TrainConfig, preset, stage="detect").model, made.points
    if variant:
        config = replace(config, bev=replace(config.bev, sparse=True))
    is_published = preset.startswith("lion_")
    if is_published:
        points = points[in_view(made.camera, points)]
    torch.manual_seed(0)
    card = Card.of_now("detector", config={}, data="none", seed=0, cpu_hours=0)
    detector = Detector(make_network(config).eval(), config, card)
    low, high = points.new_tensor(config.grid.low), points.new_tensor(config.grid.high)
    sector = PointBatch.of([points[((points[:, :3] >= low) & (points[:, :3] < high)).all(1)]])

    network = folded(detector.network)  # as `detect run` does

    def forward() -> None:
        with torch.inference_mode():
            network(sector)

    found = {
        "parameters": detector.num_parameters,
        "points_of_sector": len(sector.points),
        "sectors": num_sectors(config.grid),
        "sector_wall_s": wall_times(forward, repeats)["median"],
        "sector_cpu_s": cpu_times(forward, repeats)["median"],
    }
    if not is_published:
        found["sweep_wall_s"] = wall_times(lambda: detect_boxes(detector, points), repeats)["median"]
    print(name, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--presets", nargs="+", default=["tiny", "pillars", "lion_kitti", "lion_kitti, sparse"])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    first, started = frame(11, FrameConfig(), 0), time.process_time()
    for index in range(1, 25):
        frame(11, FrameConfig(), index)
    per_frame = (time.process_time() - started) / 24
    torch.set_num_threads(threads)
    print(f"{per_frame:.3f} CPU-s to generate a frame", flush=True)
    with ForeignLoad() as load:
        results = {name: measured(name, first, options.repeats) for name in options.presets}
    write("detect", {"points": len(first.points), "generate_cpu_s_per_frame": per_frame, **results}, load.share)


if __name__ == "__main__":
    main()
