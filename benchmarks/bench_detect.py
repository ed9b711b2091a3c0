"""Speed of detection, by preset (random parameters) or bundled weights: one sector and the whole sweep; and of `detect synth`.

One process, threads as given by --threads; the sweep is a generated one of an HDL-64E, the same for all.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, cpu_times, refuse_foreign_load, wall_times, write

from vision3d.core.config import load_yaml
from vision3d.stages.detect.config import TrainConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.evaluate import in_view
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.files import Detector, load_detector
from vision3d.stages.detect.network.norms import folded
from vision3d.stages.detect.sectors import detect_boxes, num_sectors
from vision3d.stages.detect.synth import FrameConfig, SynthConfig, frame, synthesize
from vision3d.stages.detect.synth.frames import Frame
from vision3d.training.weights import Card, bundled_weights


def of_preset(name: str) -> Detector:
    """A detector with random parameters."""
    preset, _, variant = name.partition(", ")
    config = load_yaml(TrainConfig, preset, stage="detect").model
    if variant:
        config = replace(config, bev=replace(config.bev, sparse=True))
    torch.manual_seed(0)
    card = Card.of_now("detector", config={}, data="none", seed=0, cpu_hours=0)
    return Detector(make_network(config).eval(), config, card)


def generation(frames: int) -> dict[str, float]:
    """Labelled 64-beam frames a second of `detect synth` with two processes: of all, and of the second half (no start)."""
    started, done = time.perf_counter(), [0.0] * (frames + 1)

    def report(task: str, step: int, total: int, values: Any) -> None:
        done[step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        synthesize(SynthConfig(frames=frames, val_frames=0, workers=2), run_folder=Path(folder, "made"), progress=report)
    half = frames // 2
    return {
        "frames_per_s": round(frames / (done[frames] - started), 2),
        "steady_frames_per_s": round((frames - half) / (done[frames] - done[half]), 2),
    }


def measured(name: str, made: Frame, repeats: int) -> dict[str, Any]:
    """Times of a preset or of weights; of a published size only for the points that the camera sees, as on KITTI."""
    points, is_published = made.points, name.startswith("lion_")
    if is_published:
        points = points[in_view(made.camera, points)]
    detector = load_detector(name) if name in bundled_weights() else of_preset(name)
    config = detector.config
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
    parser.add_argument("--presets", nargs="+", default=["detector", "detector_pillars", "lion_kitti", "lion_kitti, sparse"])
    parser.add_argument("--frames", type=int, default=1000, help="generated frames")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    made = frame(11, FrameConfig(), 0)
    with ForeignLoad() as load:
        results: dict[str, Any] = {name: measured(name, made, options.repeats) for name in options.presets}
        results["synth"] = generation(options.frames)
    write("detect", {"points": len(made.points), **results}, load.share)


if __name__ == "__main__":
    main()
