"""Held-out quality over training time on photos, compared to snapshots of another program on the same views and points.

The snapshots are listed in a .csv with the columns step, seconds, gaussians, file (a .ply in INRIA's layout). vision3d renders
both, each with the alpha_max of its own program, and evaluates them on the views that `fit` holds out.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from support import RESULTS, ForeignLoad, add_options, refuse_foreign_load, write

from vision3d.core.runs import read_metrics
from vision3d.io.dataset import load_dataset
from vision3d.scene import GaussianScene, PosedImages
from vision3d.stages.fit import FitConfig, evaluate, fit

BLACK = (0.0, 0.0, 0.0)


def own_curve(images: PosedImages, minutes: float, overrides: dict[str, Any]) -> dict[str, Any]:
    """Held-out PSNR of a fit every 250 steps; the evaluations count as training time."""
    config = FitConfig(minutes=minutes, eval_every=250, checkpoint_every=0, **overrides)
    with tempfile.TemporaryDirectory() as folder:
        summary = fit(config, images, run_folder=Path(folder) / "run").summary
        lines = read_metrics(Path(folder) / "run" / "metrics.jsonl")
    progress = {line["step"]: line["progress"] for line in lines if "progress" in line}
    curve = [
        {"step": line["step"], "seconds": 60 * minutes * progress[line["step"]], "psnr": line["eval_psnr"]}
        for line in lines
        if "eval_psnr" in line
    ]
    return {"summary": summary, "curve": curve}


def snapshot_curve(images: PosedImages, table: Path, alpha_max: float, background: tuple[float, ...]) -> list[dict[str, Any]]:
    """Held-out PSNR of each snapshot on its program's background or on black, whichever is better."""
    curve = []
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            scene = GaussianScene.load(row["file"])
            found = [evaluate(scene, images, background=color, alpha_max=alpha_max) for color in (background, BLACK)]
            best = max((evaluation.mean() for evaluation in found), key=lambda mean: mean["psnr"])
            curve.append(
                {
                    "step": int(row["step"]),
                    "seconds": float(row["seconds"]),
                    "gaussians": scene.num_gaussians,
                    "psnr": best["psnr"],
                    "ssim": best["ssim"],
                }
            )
            print(curve[-1])
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="photos with cameras")
    parser.add_argument("--name", default="photos", help="name of the data set; the result is photos_NAME.json")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--budgets", type=float, nargs="*", default=(), help="shorter runs with full schedules [minutes]")
    parser.add_argument("--max-gaussians", type=int, help="maximum number of Gaussians (default: that of fit)")
    parser.add_argument("--keep", action="store_true", help="keep the previous result and only add the snapshots")
    parser.add_argument("--snapshots", type=Path, help=".csv of another program's snapshots")
    parser.add_argument("--snapshots-of", default="peer", help="name and options of the other program, recorded in the result")
    parser.add_argument("--alpha-max", type=float, default=0.999, help="alpha_max of the snapshots' program")
    parser.add_argument("--background", type=float, nargs=3, default=BLACK, help="background of the snapshots' program")
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(2)
    images = load_dataset(options.data)
    path = RESULTS / f"photos_{options.name}.json"
    if options.keep:
        results = json.loads(path.read_text())
        own, foreign = results["vision3d"], results["foreign_load"]
    else:
        overrides = {} if options.max_gaussians is None else {"max_gaussians": options.max_gaussians}
        with ForeignLoad() as load:
            own = own_curve(images, options.minutes, overrides)
        foreign = load.share
        results: dict[str, Any] = {
            "views": {"fitted": len(images.train), "held_out": [images.names[i] for i in images.test.tolist()]},
            "size": [int(images.cameras.width[0]), int(images.cameras.height[0])],
            "points": 0 if images.points is None else len(images.points),
            "minutes": options.minutes,
            "vision3d": own,
            "peers": {},
        }
    print(own["summary"])
    for minutes in options.budgets:
        summary = fit(FitConfig(minutes=minutes, checkpoint_every=0), images).summary
        results.setdefault("shorter_runs", {})[f"{minutes:g} min"] = summary
        print(minutes, summary)
    if options.snapshots is not None:
        curve = snapshot_curve(images, options.snapshots, options.alpha_max, tuple(options.background))
        best = max((row for row in curve if row["seconds"] <= 60 * results["minutes"]), key=lambda row: row["psnr"])
        ahead = own["summary"]["psnr"] - best["psnr"]
        results["peers"][options.snapshots_of] = {"best_in_time": best, "ahead_db": ahead, "curve": curve}
        print(best, ahead)
    write(path.stem, results, foreign)


if __name__ == "__main__":
    main()
