"""Sequence operators, parts of LION, and PointPillars at equal data and steps: AP on generated streets, CPU time, memory.

Every entry is a training of the preset `study` with some options changed. Trainings are kept in --runs and resumed. The
table is written after each of them; those that it has already, with as many steps and frames, are not repeated.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import RESULTS, ForeignLoad, add_options, write

from vision3d.core.config import load_yaml
from vision3d.core.runs import RunFolder
from vision3d.stages.detect import load_detector, train_detector
from vision3d.stages.detect.config import StreetsConfig, TrainConfig
from vision3d.stages.detect.data.sources import Streets
from vision3d.stages.detect.data.sweeps import EvalFrame
from vision3d.stages.detect.evaluate import average_precision
from vision3d.stages.detect.operators import OPERATORS

ABLATIONS: dict[str, dict[str, Any]] = {
    "no_descriptor": {"descriptor": False},
    "no_generation": {"generate": 0.0},
    "groups_64": {"groups": (64, 64, 64), "last_group": 64},
    "groups_1024": {"groups": (1024, 1024, 1024), "last_group": 1024},
    "causal": {"bidirectional": False},
}
_REACH = 25.0

# So that each has as many parameters as Mamba's operator of 32 channels, 13,760, within 2 %.
EQUAL_SIZES = {
    "mamba": (),
    "rwkv6": ("mix_rank=4", "decay_rank=16", "mlp_ratio=2.3125"),
    "retnet": ("mlp_ratio=3.59375",),
    "mlstm": ("expand=1.5",),
    "ttt": ("mlp_ratio=2.9375",),
    "gla": ("mlp_ratio=2.875",),
    "deltanet": ("mlp_ratio=3.09375",),
    "gated_deltanet": ("mlp_ratio=2.6875",),
    "deltaproduct": ("mlp_ratio=2.375",),
}


@dataclasses.dataclass(frozen=True)
class NearStreets:
    """Streets of validation; objects that the small network cannot see are ignored."""

    streets: Streets

    def __len__(self) -> int:
        return len(self.streets)

    def eval_frame(self, index: int) -> EvalFrame:
        frame = self.streets.eval_frame(index)
        labels = frame.labels
        far = torch.linalg.vector_norm(labels.boxes.boxes[:, :2], dim=1) > _REACH
        return replace(frame, labels=replace(labels, occlusion=torch.where(far, 3, labels.occlusion)))


def variant(name: str, seed: int, steps: int) -> TrainConfig:
    """The configuration of an entry."""
    config = load_yaml(TrainConfig, "study", stage="detect")
    model = config.model
    if name == "pillars":
        bev = replace(model.bev, channels=(64, 128), layers=(4, 4), up_channels=64)
        model = replace(model, method="pillars", channels=48, bev=bev, head_channels=48)
    elif name in ABLATIONS:
        lion = replace(model.lion, operator="gla", operator_options=EQUAL_SIZES["gla"], **ABLATIONS[name])
        model = replace(model, lion=lion)
    else:
        model = replace(model, lion=replace(model.lion, operator=name, operator_options=EQUAL_SIZES[name]))
    return replace(config, model=model, seed=seed, steps=steps)


def trained(name: str, seed: int, steps: int, runs: Path, frames: int) -> dict[str, Any]:
    """Figures of an entry and seed; trains it if it is not complete."""
    folder = runs / f"{name}_{steps}_seed{seed}"
    result = folder / "figures.json"
    if not result.is_file():
        config = variant(name, seed, steps)
        training = train_detector(config, "synth", run_folder=RunFolder.create(folder, config, resume=folder.exists()))
        detector = load_detector(folder / "detector.safetensors")
        source = NearStreets(Streets(StreetsConfig(("hdl32e", "vls128"), frames), config.model.classes, 1, "val"))
        rows = average_precision(detector, source).rows
        figures: dict[str, Any] = {
            f"{row.metric}_{row.name}": round(row.r40 if row.is_reliable else row.exact, 2)
            for row in rows
            if row.difficulty == "moderate" and row.metric in ("bev", "3d") and row.valid
        }
        figures["map"] = round(statistics.mean(value for key, value in figures.items() if key.startswith("3d_")), 2)
        figures["parameters"] = training.summary["parameters"]
        figures["cpu_ms_per_step"] = round(1000 * training.summary["training_cpu_s"] / steps, 1)
        figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        result.write_text(json.dumps(figures))
    return json.loads(result.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--entries", nargs="+", default=[*OPERATORS, "pillars", *ABLATIONS], help="operators, pillars, ablations"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--frames", type=int, default=200, help="streets of validation")
    parser.add_argument("--runs", type=Path, default=Path("runs/detect_study"))
    options = parser.parse_args()
    sizes = {"steps": options.steps, "frames": options.frames}
    with ForeignLoad() as load:
        for seed in options.seeds:
            for name in options.entries:
                if str(seed) in written(sizes).get(name, {}):
                    continue
                figures = trained(name, seed, options.steps, options.runs, options.frames)
                print(name, seed, figures, file=sys.stderr, flush=True)
                table = written(sizes)  # another process may have added to it
                table.setdefault(name, {})[str(seed)] = figures
                entries = {name: {**spread(table[name]), "seeds": table[name]} for name in sorted(table)}
                write("detect_study", {**sizes, "entries": entries}, load.share)


def written(sizes: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Figures by entry and seed of the table, if it was made with these sizes."""
    path = RESULTS / "detect_study.json"
    table = json.loads(path.read_text()) if path.is_file() else {}
    if any(table.get(key) != value for key, value in sizes.items()):
        return {}
    return {name: entry["seeds"] for name, entry in table["entries"].items()}


def spread(seeds: dict[str, Any]) -> dict[str, float]:
    values = [figures["map"] for figures in seeds.values()]
    return {"map": round(statistics.mean(values), 2), "spread": round(max(values) - min(values), 2)}


if __name__ == "__main__":
    main()
