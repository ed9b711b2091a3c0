"""What the detector finds: average precision on generated streets of validation, and objects of real sweeps.

In a real sweep cars with at least 50 points count as found at an overlap of 0.5 from above, people with at least 40 points at
0.25. False boxes are those that overlap no label by 0.1, labels of other classes included; on KITTI only those in the camera's
view and outside the regions that are not labelled (DontCare).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, write

from vision3d.geometry.rotated_boxes import box_iou
from vision3d.io.images import write_image
from vision3d.io.sweep_files import read_sweep
from vision3d.scene.boxes import Boxes
from vision3d.stages.detect import Detector, EvalConfig, evaluate_detector, load_detector
from vision3d.stages.detect.data.sources import KittiFolder
from vision3d.stages.detect.data.sweeps import EvalFrame, inside, rows_of
from vision3d.stages.detect.evaluate import in_view, project
from vision3d.stages.detect.images import from_above
from vision3d.stages.detect.sectors import detect_boxes

ENOUGH = {"Car": (50, 0.5), "Pedestrian": (40, 0.25), "Cyclist": (40, 0.25)}
"""Class -> fewest points and overlap."""
_WORDS = {"car": "Car", "pedestrian": "Pedestrian", "bicycle": "Cyclist"}


def of_json(data: Path, name: str) -> tuple[torch.Tensor, Boxes]:
    """Points and labels of a sweep without calibration."""
    rows = json.loads((data / "lidar" / f"{name}_boxes.json").read_text())
    names = [str(_WORDS.get(row["label"].lower(), row["label"])) for row in rows]
    boxes = Boxes.of_names(torch.tensor([row["box"] for row in rows]), names)
    return rows_of(read_sweep(data / "lidar" / f"{name}.bin")), boxes


def counted_boxes(boxes: Boxes, frame: EvalFrame) -> torch.Tensor:
    """Boxes whose centers the camera sees, outside regions that are not labelled."""
    seen, pixels = in_view(frame.camera, boxes.boxes), project(frame.camera, boxes.boxes[:, :3].double())
    for region in frame.labels.dont_care:
        seen &= ~((pixels[:, :2] >= region[:2]) & (pixels[:, :2] <= region[2:])).all(1)
    return seen


def measured(points: torch.Tensor, truth: Boxes, found: Boxes, counted: torch.Tensor) -> dict[str, Any]:
    """Objects found and missed, and false boxes among those counted."""
    assert found.scores is not None
    overlap = box_iou(found.boxes.double(), truth.boxes.double())
    counts = inside(points[:, :3], truth.boxes, 0.05).sum(1).tolist()
    is_class = torch.tensor([[a == b for b in truth.names] for a in found.names], dtype=torch.bool).view(len(found), len(truth))
    best = torch.cat([torch.where(is_class, overlap, 0), overlap.new_zeros(1, len(truth))]).amax(0).tolist()
    objects = []
    for name, box, count, value in zip(truth.names, truth.boxes, counts, best):
        fewest, least = ENOUGH.get(name, (10**9, 1.0))
        objects.append({
            "class": name, "points": count, "distance_m": round(float(box[:2].norm()), 1), "overlap": round(value, 3),
            "is_due": count >= fewest, "is_found": value >= least,
        })  # fmt: skip
    is_false = ~(overlap >= 0.1).any(1) & counted
    names, scores, places = found.names, found.scores.tolist(), found.boxes[:, :2].norm(dim=1).tolist()
    wrong = [f"{names[i]} {scores[i]:.2f} at {places[i]:.0f} m" for i in is_false.nonzero()[:, 0].tolist()]
    due = [one for one in objects if one["is_due"]]
    return {"due": len(due), "found": sum(one["is_found"] for one in due), "false": len(wrong), "wrong": wrong, "objects": due}


def real(data: Path, detector: Detector, score: float, images: Path | None) -> dict[str, Any]:
    """The figures of the labelled sweeps of a folder: kitti/ in KITTI's layout, and what lidar/ has."""
    folder = KittiFolder.open(data / "kitti", detector.config.classes)
    frames = {name: folder.eval_frame(index) for index, name in enumerate(folder.frames)}
    sweeps = {name: (frame.points, frame.labels.boxes) for name, frame in frames.items()}
    others = sorted(path.name.removesuffix("_boxes.json") for path in (data / "lidar").glob("*_boxes.json"))
    sweeps |= {name: of_json(data, name) for name in others}
    results = {}
    for name, (points, truth) in sweeps.items():
        found = detect_boxes(detector, points, lowest=score)
        # 000008 is cropped to the camera's view.
        counted = counted_boxes(found, frames[name]) if name in frames else torch.ones(len(found), dtype=torch.bool)
        results[name] = measured(points, truth, found, counted)
        if images is not None:
            write_image(images / f"{name}.png", from_above(points[:, :3], found, truth=truth, title=f"{name}, score {score}"))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("data", type=Path, help="folder with kitti/ and lidar/")
    parser.add_argument("--apart", type=Path, help="another such folder, whose sweeps nothing was developed with")
    parser.add_argument("--weights", default="detector", help="a .safetensors, or the name of bundled weights")
    parser.add_argument("--score", type=float, default=0.3, help="minimum score on real sweeps")
    parser.add_argument("--frames", type=int, default=200, help="generated streets")
    parser.add_argument("--images", type=Path, help="folder for images of the real sweeps")
    options = parser.parse_args()
    detector = load_detector(options.weights)
    with ForeignLoad() as load:
        config = replace(EvalConfig(), frames=options.frames)
        table = evaluate_detector(config, "synth", detector=detector).evaluation.records()
        sweeps = {"real": real(options.data, detector, options.score, options.images)}
        if options.apart is not None:
            sweeps["apart"] = real(options.apart, detector, options.score, options.images)
    for row in table:
        if row["difficulty"] == "moderate" and row["metric"] in ("bev", "3d"):
            print(row["name"], row["metric"], row["valid"], round(row["r40"], 1), round(row["exact"], 1))
    for name, result in (item for part in sweeps.values() for item in part.items()):
        print(f"{name}: {result['found']} of {result['due']} found, {result['false']} false: {', '.join(result['wrong'])}")
    streets = {"frames": config.frames, "seed": config.seed, "sensors": list(config.sensors), "rows": table}
    write(
        "detect_quality",
        {"weights": str(options.weights), "score": options.score, "streets": streets, **sweeps},
        load.share,
    )


if __name__ == "__main__":
    main()
