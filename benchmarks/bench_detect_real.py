"""The detector on real sweeps to develop with: which labelled objects are found, and how many boxes are wrong.

Cars with at least 50 points count as found at an overlap of 0.5 from above, people with at least 40 points at 0.25. False boxes
are those inside the camera's view that overlap no label, labels of other classes included, by 0.1, outside the regions that are
not labelled (DontCare).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, write

from vision3d.geometry.rotated_boxes import box_iou
from vision3d.io.images import write_image
from vision3d.io.kitti import read_calibration, read_labels, read_projection
from vision3d.io.sweep_files import read_sweep
from vision3d.scene.boxes import Boxes
from vision3d.stages.detect import load_detector
from vision3d.stages.detect.images import from_above
from vision3d.stages.detect.sectors import detect_boxes

ENOUGH = {"Car": (50, 0.5), "Pedestrian": (40, 0.25), "Cyclist": (40, 0.25)}
"""Class -> fewest points and overlap."""
_WORDS = {"car": "Car", "pedestrian": "Pedestrian", "bicycle": "Cyclist"}
_SIZE = (1242, 375)


def labelled(data: Path, name: str) -> tuple[Path, Boxes, Path | None]:
    """Sweep, labels and calibration of a sweep."""
    if name.startswith("0000") and name != "000008":
        folder = data / "kitti"
        calibration = folder / "calib" / f"{name}.txt"
        return folder / "velodyne" / f"{name}.bin", read_labels(folder / "label_2" / f"{name}.txt", calibration), calibration
    stem = "kitti_000008" if name == "000008" else "nuscenes_demo"
    rows = json.loads((data / "lidar" / f"{stem}_boxes.json").read_text())
    names = [str(_WORDS.get(row["label"].lower(), row["label"])) for row in rows]
    classes = tuple(dict.fromkeys(names))
    labels = torch.tensor([classes.index(name) for name in names])
    return data / "lidar" / f"{stem}.bin", Boxes(torch.tensor([row["box"] for row in rows]), labels, None, classes), None


def dont_care(folder: Path, name: str) -> list[tuple[float, ...]]:
    """Regions of the image that are not labelled."""
    file = folder / "kitti" / "label_2" / f"{name}.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [tuple(float(word) for word in line.split()[4:8]) for line in lines if line.startswith("DontCare")]


def measured(data: Path, name: str, detector: Any, score: float, images: Path | None) -> dict[str, Any]:
    """Objects found and missed in a sweep, and false boxes."""
    path, truth, calibration = labelled(data, name)
    cloud = read_sweep(path)
    assert cloud.intensity is not None and truth.labels is not None
    points = torch.cat([cloud.points, cloud.intensity[:, None]], 1)
    found = detect_boxes(detector, points, lowest=score)
    assert found.labels is not None and found.scores is not None
    overlap = box_iou(found.boxes.double(), truth.boxes.double())
    counts = inside_counts(points[:, :3], truth.boxes)
    objects = []
    for row, label in enumerate(truth.labels.tolist()):
        kind = truth.classes[label]
        fewest, least = ENOUGH.get(kind, (10**9, 1.0))
        own = torch.tensor([found.classes[i] == kind for i in found.labels.tolist()], dtype=torch.bool)
        best = float(overlap[own, row].max()) if bool(own.any()) else 0.0
        objects.append({
            "class": kind, "points": int(counts[row]), "distance_m": round(float(truth.boxes[row, :2].norm()), 1),
            "overlap": round(best, 3), "counts": int(counts[row]) >= fewest,
            "found": best >= least,
        })  # fmt: skip
    is_false = overlap.amax(1) < 0.1 if len(truth) else torch.ones(len(found), dtype=torch.bool)
    is_false &= in_view(found, calibration, dont_care(data, name)) if name.startswith("0000") else torch.ones_like(is_false)
    if images is not None:
        write_image(images / f"{name}.png", from_above(points[:, :3], found, truth=truth, title=f"{name}, score {score}"))
    wrong = [f"{found.classes[found.labels[i]]} {float(found.scores[i]):.2f} at {float(found.boxes[i, :2].norm()):.0f} m"
             for i in is_false.nonzero()[:, 0].tolist()]  # fmt: skip
    due = [one for one in objects if one["counts"]]
    return {"due": len(due), "found": sum(one["found"] for one in due), "false": len(wrong), "wrong": wrong, "objects": objects}


def inside_counts(points: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Points in each box, enlarged by 5 cm."""
    from vision3d.stages.detect.data.sweeps import inside

    return inside(points, boxes, 0.05).sum(1)


def in_view(boxes: Boxes, calibration: Path | None, regions: list[tuple[float, ...]]) -> torch.Tensor:
    """Boxes whose centers the camera sees, outside regions that are not labelled."""
    if calibration is None:  # 000008 is cropped to the view
        return torch.ones(len(boxes), dtype=torch.bool)
    matrix = (read_projection(calibration) @ read_calibration(calibration)).double()
    pixels = boxes.boxes[:, :3].double() @ matrix[:, :3].T + matrix[:, 3]
    u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    seen = (pixels[:, 2] > 0) & (u >= 0) & (u < _SIZE[0]) & (v >= 0) & (v < _SIZE[1])
    for left, top, right, bottom in regions:
        seen &= ~((u >= left) & (u <= right) & (v >= top) & (v <= bottom))
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("data", type=Path, help="folder with kitti/ and lidar/")
    parser.add_argument("--weights", default="detector", help="a .safetensors, or the name of bundled weights")
    parser.add_argument("--score", type=float, default=0.3, help="minimum score")
    parser.add_argument("--images", type=Path, help="folder for images")
    options = parser.parse_args()
    detector = load_detector(options.weights)
    names = ("000008", "000000", "000001", "nuscenes")
    with ForeignLoad() as load:
        results = {name: measured(options.data, name, detector, options.score, options.images) for name in names}
    for name, result in results.items():
        print(f"{name}: {result['found']} of {result['due']} found, {result['false']} false: {', '.join(result['wrong'])}")
        for one in result["objects"]:
            if one["counts"]:
                print("   ", one)
    write("detect_real", {"weights": str(options.weights), "score": options.score, **results}, load.share)


if __name__ == "__main__":
    main()
