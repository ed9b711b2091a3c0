"""The rotation experiments at the sizes of the documentation: errors of every representation, and which goals are met.

Complete trainings in the folder --runs are not repeated; `--parts` and `--representations` select some, whose rows replace
those of the table. Point clouds take 20 to 25 minutes of one core per training.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from support import RESULTS, ForeignLoad, add_options, machine, refuse_foreign_load, write

from vision3d.cli.app import execute

CLIPS, TEST_CLIPS = ("zombie.bvh", "jumping.bvh"), ("dab.bvh",)
REPRESENTATIONS = {
    "sanity": ["6d", "5d", "9d_svd", "quat", "axis_angle4", "rotvec", "euler"],
    "pointcloud": ["6d", "9d_svd", "quat", "axis_angle4", "rotvec", "euler"],
    "ik": ["6d", "quat"],
}
SEEDS = {"sanity": ["0", "1", "2"], "pointcloud": ["0", "1", "2"], "ik": ["0", "1", "2"]}
KEPT = (
    "representation", "mean", "std_over_seeds", "median", "p95", "p99", "max", "std", "mean_of_seeds", "max_of_seeds",
    "published_mean", "parameters", "training_cpu_s",
)  # fmt: skip


def run(part: str, data: Path, folder: Path, representations: list[str]) -> dict[str, Any]:
    """Runs the remaining trainings of one experiment and returns its summary."""
    inputs: dict[str, list[str]] = {
        "sanity": [],
        "pointcloud": [str(data / "pointclouds" / "planes.npz")],
        "ik": [*(str(data / "mocap" / clip) for clip in CLIPS), "--test", *(str(data / "mocap" / clip) for clip in TEST_CLIPS)],
    }
    again = ["--resume"] if (folder / "config.yaml").exists() else []
    options = ["--out", str(folder), "--quiet", *again, "--representations", *representations, "--seeds", *SEEDS[part]]
    code = execute(["reproduce", "rotation", part, *inputs[part], *options])
    if code:
        raise SystemExit(code)
    results = json.loads((folder / "summary.json").read_text())["results"]
    measured = {"seeds": results["seeds"], "processor": machine()["processor"]}
    rows = {row["representation"]: {**{key: row[key] for key in KEPT[1:]}, **measured} for row in results["by_representation"]}
    facts = {key: value for key, value in results.items() if key not in ("by_representation", "experiment", "device", "seeds")}
    facts = {key: value for key, value in facts.items() if not key.startswith("mean_error_")}
    for name, row in rows.items():
        print(part, name, {key: row[key] for key in ("mean", "std_over_seeds", "median", "max")}, flush=True)
    rows = {**kept_rows(part, facts), **rows}
    return {**facts, "rows": rows, "goals": goals(part, rows)}


def kept_rows(part: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Rows of the table of an experiment, if it was the same one."""
    path = RESULTS / "rotation_stage.json"
    table = json.loads(path.read_text()).get(part, {}) if path.is_file() else {}
    return table.get("rows", {}) if all(table.get(key) == value for key, value in facts.items()) else {}


def goals(part: str, rows: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Goals that are met, among those whose representations were run."""
    found: dict[str, bool] = {}
    if "6d" not in rows:
        return found
    best = rows["6d"]
    if part == "sanity":
        found["6d: mean at most 0.40, max at most 1.6 deg"] = best["mean"] <= 0.40 and best["max"] <= 1.6
        if "9d_svd" in rows:
            found["9d_svd: mean at most 0.32 deg"] = rows["9d_svd"]["mean"] <= 0.32
        for name in {"quat", "axis_angle4", "rotvec", "euler"} & rows.keys():
            row = rows[name]
            found[f"{name}: mean at least 5 times that of 6d, max above 90 deg"] = (
                row["mean"] >= 5 * best["mean"] and row["max"] > 90
            )
    elif part == "pointcloud":
        for name in {"6d", "9d_svd"} & rows.keys():
            found[f"{name}: median at most 8 deg"] = rows[name]["median"] <= 8
        if "quat" in rows:
            found["6d: mean at most 0.6 of that of quat"] = best["mean"] <= 0.6 * rows["quat"]["mean"]
    elif "quat" in rows:
        found["6d: mean below that of quat"] = best["mean"] < rows["quat"]["mean"]
        found["6d: mean a quarter below that of quat"] = best["mean"] <= 0.75 * rows["quat"]["mean"]
    return dict(sorted(found.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("data", type=Path, help="folder with pointclouds/planes.npz and mocap/*.bvh")
    parser.add_argument("--runs", type=Path, default=Path("runs/rotations"), help="run folders of the experiments")
    parser.add_argument("--parts", nargs="+", default=list(SEEDS), choices=list(SEEDS))
    parser.add_argument("--representations", nargs="+", help="representations (default: those of the documentation)")
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    with ForeignLoad() as load:
        results = {
            part: run(part, options.data, options.runs / part, options.representations or REPRESENTATIONS[part])
            for part in options.parts
        }
    table = json.loads((RESULTS / "rotation_stage.json").read_text()) if (RESULTS / "rotation_stage.json").is_file() else {}
    write("rotation_stage", {**{part: table[part] for part in SEEDS if part in table}, **results}, load.share)


if __name__ == "__main__":
    main()
