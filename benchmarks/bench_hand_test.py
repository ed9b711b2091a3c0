"""The test set of generated hands: identities, backgrounds and objects that no training sees.

The hands are those of npm @webxr-input-profiles/assets in poses of the training's pose bank, the backgrounds photographs of
a folder and rooms, the objects those of the maker whose models are kept for tests. Crops as in `hand eval` of a folder: 1.25
times the box of the true joints. Vertices and joints are compared at the places on the surface that correspond to the
template's (it is registered once, at rest), joints also with those of the file, which are defined differently: the error of
the truth itself in that definition is beside it. Errors of positions need K, which is known. MediaPipe sees the same images.
"""

import argparse
import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from hand_webxr import WebXrHand, load_hands
from PIL import Image
from support import ForeignLoad, add_options, write
from torch import Tensor

from vision3d.io.images import read_photo
from vision3d.stages.hand import HandConfig, HandPredictor, HandShape, HandTemplate, load_hand_model
from vision3d.stages.hand.config import FrameConfig
from vision3d.stages.hand.data.samples import SampleSource
from vision3d.stages.hand.detections import Detections, square_of
from vision3d.stages.hand.evaluate import MARGIN
from vision3d.stages.hand.evaluation.crops import CROP_PX
from vision3d.stages.hand.evaluation.metrics import hand_errors, pa_error
from vision3d.stages.hand.joints import ROOT
from vision3d.stages.hand.predict.predictor import boxes_around, positions_of
from vision3d.stages.hand.synth.frames import Frames, frames
from vision3d.stages.hand.synth.poses import sample_angles

BATCH, SEED = 16, 771_000
NEAR = math.cos(math.radians(60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("webxr", type=Path, help="folder with left.glb and right.glb")
    parser.add_argument("--backgrounds", type=Path, help="folder with photographs; procedural without")
    parser.add_argument(
        "--furniture", type=Path, help="folder with .sh3f files of sweethome3d-furniture; simple shapes without"
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=288, help="side of the images [px]")
    parser.add_argument("--weights", default="hand")
    parser.add_argument("--name", default="test", help="of the result file")
    parser.add_argument("--mediapipe", type=Path, help="Python with mediapipe 0.10.21")
    parser.add_argument("--keep", type=Path, help="folder for the images")
    options = parser.parse_args()
    hands = load_hands(options.webxr)
    model = load_hand_model(options.weights)
    predictor = HandPredictor(model, HandConfig(margin=MARGIN))
    source = SampleSource(backgrounds=options.backgrounds, furniture=options.furniture, split="test")
    config = FrameConfig(size=options.size, margins=(1.6, 2.4))
    parts: list[dict[str, Tensor]] = []
    with ForeignLoad() as load, tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths: list[Path] = []
        for index in range(-(-options.images // BATCH)):
            hand = hands[index % len(hands)]
            made = frames(SEED, index, BATCH, config, backgrounds=source.photos(), objects=source.objects(), hand=hand)
            for row in range(min(BATCH, options.images - len(paths))):
                paths.append(folder / f"{len(paths):05d}.jpg")
                Image.fromarray(made.images[row].numpy()).save(paths[-1], quality=95)
                parts.append(_measured(predictor, model.config.upright, read_photo(paths[-1]), made, row))
            _truth(parts[index * BATCH :], hand, made)
        values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        peer = None if options.mediapipe is None else _peer(options.mediapipe, paths, options.size)
    result = _result(values, peer)
    result["registration_mm"] = [hand.registration_mm for hand in hands]
    print(json.dumps(result, indent=1))
    print(_table(result))
    write(f"hand_{options.name}", result, load.share)


@torch.inference_mode()
def _measured(predictor: HandPredictor, upright: bool, image: Tensor, made: Frames, row: int) -> dict[str, Tensor]:
    """What the network finds in an image, with the box and the rotation of the truth."""
    uvs, K = made.uvs[row : row + 1], made.Ks[row]
    centers, sides, _ = boxes_around(uvs)
    angles = square_of(uvs).angles if upright else torch.zeros(1)
    box = Detections(centers, sides, angles, torch.ones(1, dtype=torch.bool), torch.ones(1))
    places = predictor.measure(image, box, K)
    scale = CROP_PX / (MARGIN * sides)
    return {
        "joints": places.joints, "vertices": places.vertices, "root": positions_of(places, K), "uv": places.joints_2d,
        "side": places.right > 0, "px": scale,
    }  # fmt: skip


@torch.inference_mode()
def _truth(parts: list[dict[str, Tensor]], hand: WebXrHand, made: Frames) -> None:
    """Add the truth of a batch."""
    posed = hand.pose(made.angles, rotation=made.rotation, translation=made.translation, shape=made.shape)
    for row, part in enumerate(parts):
        part |= {
            "true_joints": made.joints[row : row + 1], "own_joints": posed.skeleton[row : row + 1],
            "true_uv": made.uvs[row : row + 1],
            "true_vertices": hand.corresponding(made.vertices[row : row + 1]),
            "is_near": (made.rotation[row, 2, 2].abs() >= NEAR)[None],
        }  # fmt: skip


def _floors() -> dict[str, tuple[Tensor, Tensor]]:
    """Predictions that see no image: joints and vertices of the rest pose, and the means of the pose bank."""
    template, generator = HandTemplate.load("right"), torch.Generator().manual_seed(1)
    posed = template.pose(sample_angles(template, 2000, generator), shape=HandShape.random(2000, generator))
    mean = posed.vertices.mean(0)
    return {name: (template.joints(points), points) for name, points in (("rest_pose", template.vertices), ("mean_pose", mean))}


def _result(values: dict[str, Tensor], peer: list[Any] | None) -> dict[str, Any]:
    everything = torch.ones(len(values["joints"]), dtype=torch.bool)
    result: dict[str, Any] = {}
    for name, rows in (("all_views", everything), ("within_60_degrees", values["is_near"])):
        result[name] = _summary({key: value[rows] for key, value in values.items()})
    if peer is not None:
        result["mediapipe"] = {
            name: _peer_summary(values, peer, rows)
            for name, rows in (("all_views", everything), ("within_60_degrees", values["is_near"]))
        }
    return result


def _summary(values: dict[str, Tensor]) -> dict[str, Any]:
    errors = hand_errors(values["joints"], values["true_joints"], values["vertices"], values["true_vertices"]).summary()
    inside = values["px"][:, None] * (values["uv"] - values["true_uv"]).norm(dim=-1)
    true_root = values["true_joints"][:, ROOT]
    off = (values["root"] - true_root).norm(dim=1) / true_root.norm(dim=1)
    found: dict[str, Any] = {"images": len(inside), **{name: round(value, 4) for name, value in errors.items()}}
    found |= {
        "pa_mpjpe_file_joints": _mean(pa_error(values["joints"], values["own_joints"])),
        "pa_of_the_truth_in_file_joints": _mean(pa_error(values["true_joints"], values["own_joints"])),
        "uv_px": _mean(inside),
        "side_right": _mean(values["side"].double()),
        "translation_median_percent": round(100 * float(off.median()), 3),
        "translation_p90_percent": round(100 * float(off.double().quantile(0.9)), 3),
    }
    for name, (joints, vertices) in _floors().items():
        found[f"{name}_pa_mpjpe"] = _mean(pa_error(joints.expand_as(values["joints"]), values["true_joints"]))
        found[f"{name}_pa_mpvpe"] = _mean(pa_error(vertices.expand_as(values["vertices"]), values["true_vertices"]))
    return found


def _peer(python: Path, paths: list[Path], size: int) -> list[Any]:
    script = Path(__file__).with_name("hand_peer.py")
    text = json.dumps({"images": [str(path) for path in paths]})
    done = subprocess.run([str(python), str(script)], input=text, capture_output=True, text=True, check=True)
    rows = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("PEER ")).removeprefix("PEER "))
    return [None if row is None else {**row, "uv": size * torch.tensor(row["joints_2d"])} for row in rows]


def _peer_summary(values: dict[str, Tensor], peer: list[Any], rows: Tensor) -> dict[str, Any]:
    """MediaPipe's errors in the images in which it finds a hand, and the network's in the same ones."""
    chosen = [row for row in rows.nonzero()[:, 0].tolist() if peer[row] is not None]
    summary: dict[str, Any] = {"images": int(rows.sum()), "found": len(chosen)}
    if not chosen:
        return summary
    joints = torch.stack([torch.tensor(peer[row]["joints_3d"]) for row in chosen])
    uv = torch.stack([peer[row]["uv"] for row in chosen])
    own = {name: value[chosen] for name, value in values.items()}
    px = own["px"][:, None]
    return summary | {
        "pa_mpjpe": _mean(pa_error(joints, own["true_joints"])),
        "pa_mpjpe_file_joints": _mean(pa_error(joints, own["own_joints"])),
        "uv_px": _mean(px * (uv - own["true_uv"]).norm(dim=-1)),
        "side_right": _mean(torch.tensor([peer[row]["is_right"] for row in chosen]).double()),
        "network_pa_mpjpe": _mean(pa_error(own["joints"], own["true_joints"])),
        "network_pa_mpjpe_file_joints": _mean(pa_error(own["joints"], own["own_joints"])),
        "network_uv_px": _mean(px * (own["uv"] - own["true_uv"]).norm(dim=-1)),
    }


def _table(result: dict[str, Any]) -> str:
    """Rows for results/README.md."""
    views = [result["all_views"], result["within_60_degrees"]]
    rows = [
        ("images", "{images}"),
        ("PA-MPJPE, PA-MPVPE [mm]", "{pa_mpjpe:.1f}, {pa_mpvpe:.1f}"),
        ("F@5, F@15", "{f5:.2f}, {f15:.2f}"),
        ("the mean pose as prediction: PA-MPJPE, PA-MPVPE [mm]", "{mean_pose_pa_mpjpe:.1f}, {mean_pose_pa_mpvpe:.1f}"),
        ("the rest pose as prediction [mm]", "{rest_pose_pa_mpjpe:.1f}, {rest_pose_pa_mpvpe:.1f}"),
        (
            "PA-MPJPE to the joints of the file; of the truth [mm]",
            "{pa_mpjpe_file_joints:.1f}; {pa_of_the_truth_in_file_joints:.1f}",
        ),
        ("2D joints [px of 224]", "{uv_px:.1f}"),
        (
            "position, K known: median, p90 [% of the distance]",
            "{translation_median_percent:.1f}, {translation_p90_percent:.1f}",
        ),
    ]
    lines = ["| | all views | within 60 degrees |", "|---|---|---|"]
    lines += [f"| {name} | {' | '.join(text.format(**view) for view in views)} |" for name, text in rows]
    if "mediapipe" in result:
        views = [result["mediapipe"]["all_views"], result["mediapipe"]["within_60_degrees"]]
        text = "{pa_mpjpe:.1f} mm, {uv_px:.1f} px in {found} found"
        text += "; the network there {network_pa_mpjpe:.1f} mm, {network_uv_px:.1f} px"
        lines.append(f"| MediaPipe full: PA-MPJPE, 2D joints | {' | '.join(text.format(**view) for view in views)} |")
    return "\n".join(lines)


def _mean(values: Tensor) -> float:
    return round(float(values.double().mean()), 4)


if __name__ == "__main__":
    main()
