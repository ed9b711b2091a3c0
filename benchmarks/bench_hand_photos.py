"""2D joints of hands in photographs with human labels: error, side, and whether the finder finds them; MediaPipe beside.

Labels: a JSON list of {"image", "joints_2d": 21 pairs [px], "labelled": 21 booleans, "side": "right", "left" or null}, the
images beside it. A crop is 1.4 times the longer side of the labelled joints' box; errors are in pixels of a crop of 224.
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from support import ForeignLoad, add_options, write
from torch import Tensor

from vision3d.io.images import read_image
from vision3d.stages.hand.crop import Crop, square_crop, warp
from vision3d.stages.hand.detections import square_of
from vision3d.stages.hand.finder.model import load_finder
from vision3d.stages.hand.intrinsics import field_of_view_Ks
from vision3d.stages.hand.network.files import load_hand_model
from vision3d.stages.hand.predict.predictor import HandPredictor, boxes_of

CROP_PX = 224
MARGIN = 1.4


@dataclass
class Label:
    """A labelled hand."""

    path: Path
    joints: Tensor
    labelled: Tensor
    side: str | None

    @property
    def box(self) -> tuple[Tensor, Tensor]:
        """Middle and longer side of the labelled joints [px]."""
        points = self.joints[self.labelled]
        low, high = points.amin(0), points.amax(0)
        return (low + high) / 2, (high - low).max()


def labels_of(path: Path) -> list[Label]:
    """The labels in a file."""
    rows = json.loads(path.read_text())
    return [
        Label(path.parent / row["image"], torch.tensor(row["joints_2d"]), torch.tensor(row["labelled"]), row.get("side"))
        for row in rows
    ]


def pixels_of(path: Path) -> Tensor:
    """The image, (H, W, 3) uint8."""
    image = read_image(path)[..., :3]
    return (image.expand(*image.shape[:2], 3) * 255).round().byte()


def crop_of(image: Tensor, center: Tensor, side: Tensor, size: int, margin: float = MARGIN, angle: float = 0.0) -> Crop:
    """A square around the labelled joints."""
    K = field_of_view_Ks(image.shape[1], image.shape[0])
    return square_crop(center[None], margin * side[None], K[None], size, torch.tensor([angle]))


def joints_by(predictor: HandPredictor, image: Tensor, label: Label) -> tuple[Tensor, bool]:
    """Joints [px] and whether the hand is a right one, from the box of the labelled joints, and the side if it is known."""
    (x, y), side = label.box
    box = boxes_of([[float(x - side / 2), float(y - side / 2), float(side), float(side)]], [label.side])
    (hand,) = predictor(image, box)
    return hand.joints_2d, hand.side == "right"


def side_by(predictor: HandPredictor, image: Tensor, label: Label) -> bool:
    """Whether the hand in the box is a right one, as seen without its side."""
    return joints_by(predictor, image, replace(label, side=None))[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("labels", type=Path, nargs="+")
    parser.add_argument("--name", default="photos", help="of the result file")
    parser.add_argument("--weights", default="hand")
    parser.add_argument("--finder", default="hand_finder")
    parser.add_argument("--mediapipe", type=Path, help="Python with mediapipe 0.10.21")
    parser.add_argument("--draw", type=Path, help="folder for drawings")
    options = parser.parse_args()
    finder = load_finder(options.finder)
    predictor = HandPredictor(load_hand_model(options.weights), turner=finder)
    rows, crops = [], []
    with ForeignLoad() as load, tempfile.TemporaryDirectory() as temporary:
        for number, label in enumerate(label for path in options.labels for label in labels_of(path)):
            image = pixels_of(label.path)
            center, side = label.box
            uv, _ = joints_by(predictor, image, label)
            scale = CROP_PX / float(MARGIN * side)
            error = scale * torch.linalg.vector_norm(uv - label.joints, dim=1)[label.labelled]
            row: dict[str, Any] = {
                "image": label.path.name,
                "joints": int(label.labelled.sum()),
                "px": round(float(error.mean()), 2),
            }
            row["side_right"] = None
            if label.side is not None:
                row["side_right"] = side_by(predictor, image, label) == (label.side == "right")
            row |= found_in(finder, image, label)
            wide = crop_of(image, center, side, 2 * CROP_PX, 2 * MARGIN)
            pixels = (warp(image, wide, 0.0)[0].permute(1, 2, 0) * 255).round().byte()
            crops.append((Path(temporary, f"{number}.png"), wide, label, scale))
            Image.fromarray(pixels.numpy()).save(crops[-1][0])
            rows.append(row)
            if options.draw is not None:
                draw(options.draw / f"{number}.png", image, label, uv)
        if options.mediapipe is not None:
            add_peer(options.mediapipe, crops, rows)
    summary = summary_of(rows)
    print(json.dumps(summary, indent=1))
    write(f"hand_{options.name}", {"summary": summary, "rows": rows}, load.share)


def found_in(finder: Any, image: Tensor, label: Label) -> dict[str, Any]:
    """Whether the finder has a square at IoU 0.5, its side, and how many others it has."""
    hands, square = finder.find(image), square_of(label.joints[label.labelled].repeat(21, 1)[:21])
    low = torch.maximum(hands.centers - hands.sides[:, None] / 2, square.centers - square.sides / 2)
    high = torch.minimum(hands.centers + hands.sides[:, None] / 2, square.centers + square.sides / 2)
    shared = (high - low).clamp(min=0).prod(-1)
    overlap = shared / (hands.sides**2 + square.sides**2 - shared)
    best = int(overlap.argmax()) if len(hands) else -1
    is_found = best >= 0 and float(overlap[best]) >= 0.5
    right = None if label.side is None or not is_found else bool(hands.is_right[best]) == (label.side == "right")
    return {"found": is_found, "iou": round(float(overlap[best]), 3) if best >= 0 else 0.0, "finder_side_right": right}


def add_peer(python: Path, crops: list[Any], rows: list[dict[str, Any]]) -> None:
    """Add MediaPipe's errors: on the same crops, twice as wide, since it needs room around the hand."""
    script = Path(__file__).with_name("hand_peer.py")
    text = json.dumps({"images": [str(path) for path, *_ in crops]})
    done = subprocess.run([str(python), str(script)], input=text, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("PEER "))
    for row, found, (_, crop, label, scale) in zip(rows, json.loads(line.removeprefix("PEER ")), crops):
        row["mediapipe_px"] = row["mediapipe_side_right"] = None
        if found is not None:
            uv = crop.to_image(torch.tensor(found["joints_2d"])[None] * crop.size)[0]
            error = scale * torch.linalg.vector_norm(uv - label.joints, dim=1)[label.labelled]
            row["mediapipe_px"] = round(float(error.mean()), 2)
            row["mediapipe_side_right"] = None if label.side is None else found["is_right"] == (label.side == "right")


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and medians over hands."""

    def values(name: str) -> Tensor:
        return torch.tensor([float(row[name]) for row in rows if row.get(name) is not None], dtype=torch.float64)

    summary: dict[str, Any] = {"hands": len(rows)}
    for name in ("px", "mediapipe_px"):
        if len(values(name)):
            summary |= {
                f"{name}_mean": round(float(values(name).mean()), 2),
                f"{name}_median": round(float(values(name).median()), 2),
            }
            summary[f"{name}_count"] = len(values(name))
    for name in ("side_right", "found", "finder_side_right", "mediapipe_side_right"):
        if len(values(name)):
            summary[name] = round(float(values(name).mean()), 3)
    return summary


def draw(path: Path, image: Tensor, label: Label, uv: Tensor) -> None:
    """Labels green, predictions red, with lines between them."""
    from PIL import ImageDraw

    from vision3d.stages.hand.joints import BONES

    path.parent.mkdir(parents=True, exist_ok=True)
    center, side = label.box
    crop = crop_of(image, center, side, 2 * CROP_PX)
    pixels = (warp(image, crop, 0.0)[0].permute(1, 2, 0) * 255).round().byte()
    picture = Image.fromarray(pixels.numpy())
    pen = ImageDraw.Draw(picture)
    here, there = (crop.to_crop(points[None])[0].tolist() for points in (uv, label.joints))
    for a, b in BONES:
        pen.line([*here[a], *here[b]], fill=(255, 60, 60), width=2)
        if bool(label.labelled[a] & label.labelled[b]):
            pen.line([*there[a], *there[b]], fill=(60, 255, 60), width=2)
    for joint in label.labelled.nonzero()[:, 0].tolist():
        x, y = there[joint]
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=(60, 255, 60))
    picture.save(path)


if __name__ == "__main__":
    main()
