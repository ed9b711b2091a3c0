"""Speed of detection: one sector and the whole sweep, by weights, and the parts of a forward pass.

One process, threads as given by --threads; the sweep is a generated one of an HDL-64E, the same for all.
"""

import argparse
import time
from typing import Any

import torch
from support import ForeignLoad, add_options, cpu_times, refuse_foreign_load, wall_times, write

from vision3d.core.config import load_yaml
from vision3d.stages.detect.config import TrainConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.files import Detector
from vision3d.stages.detect.sectors import detect_boxes, num_sectors
from vision3d.stages.detect.synth import FrameConfig, frame
from vision3d.training.weights import Card


def measured(name: str, points: torch.Tensor, repeats: int) -> dict[str, Any]:
    """Times of a preset with random parameters."""
    config = load_yaml(TrainConfig, name, stage="detect").model
    torch.manual_seed(0)
    card = Card.of_now("detector", config={}, data="none", seed=0, cpu_hours=0)
    detector = Detector(make_network(config).eval(), config, card)
    low, high = points.new_tensor(config.grid.low), points.new_tensor(config.grid.high)
    sector = PointBatch.of([points[((points[:, :3] >= low) & (points[:, :3] < high)).all(1)]])

    def forward() -> None:
        with torch.inference_mode():
            detector.network(sector)

    found = {
        "parameters": detector.num_parameters,
        "points_of_sector": len(sector.points),
        "sectors": num_sectors(config.grid),
        "sector_wall_s": wall_times(forward, repeats)["median"],
        "sector_cpu_s": cpu_times(forward, repeats)["median"],
        "sweep_wall_s": wall_times(lambda: detect_boxes(detector, points), repeats)["median"],
    }
    print(name, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--presets", nargs="+", default=["tiny", "pillars", "lion_kitti"], help="presets of detect train")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    started = time.process_time()
    frames = [frame(11, FrameConfig(), index) for index in range(5)]
    per_frame = (time.process_time() - started) / len(frames)
    print(f"{per_frame:.3f} CPU-s to generate a frame", flush=True)
    with ForeignLoad() as load:
        results = {name: measured(name, frames[0].points, options.repeats) for name in options.presets}
    write("detect", {"points": len(frames[0].points), "generate_cpu_s_per_frame": per_frame, **results}, load.share)


if __name__ == "__main__":
    main()
