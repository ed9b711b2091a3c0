"""Evaluation of networks of hands: on images in FreiHAND's layout, or on generated ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.device import resolve_device
from vision3d.core.plain import to_json
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.hand.config import BATCH, FrameConfig
from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.data.samples import SampleSource
from vision3d.stages.hand.detections import Detections, square_of
from vision3d.stages.hand.evaluation.crops import CROP_PX, upright
from vision3d.stages.hand.evaluation.metrics import HandErrors, hand_errors, pa_error
from vision3d.stages.hand.freihand import FreiHandFolder
from vision3d.stages.hand.joints import ROOT
from vision3d.stages.hand.learning import HELD_OUT_SEED
from vision3d.stages.hand.network.files import HandModel, load_hand_model
from vision3d.stages.hand.predict.predictor import HandPredictor, boxes_around
from vision3d.stages.hand.run_config import EvalConfig, HandConfig
from vision3d.stages.hand.template import HandTemplate

MARGIN = 1.25
"""Side of the crop over that of the joints' box, as in the published evaluation."""
_COLUMNS = ("pa_mpjpe", "pa_mpvpe", "f5", "f15", "mpjpe", "joint_auc", "vertex_auc", "scale")
_TITLES = ("PA-MPJPE mm", "PA-MPVPE mm", "F@5", "F@15", "MPJPE mm", "AUC joints", "AUC verts", "scale error")


@dataclass(frozen=True)
class EvalResult:
    """Result of an evaluation."""

    proper: HandErrors
    """After alignment by a rotation."""
    official: HandErrors
    """After that of the published evaluator, which also mirrors."""
    summary: dict[str, Any]
    run_folder: Path | None = None


@dataclass(frozen=True, eq=False)
class _Compared:
    """Predictions and truth, relative to the root joint [m], and errors of 2D joints in the crop [px of 224]."""

    joints: Float[Tensor, "n 21 3"]
    true_joints: Float[Tensor, "n 21 3"]
    vertices: Float[Tensor, "n v 3"]
    true_vertices: Float[Tensor, "n v 3"]
    uv_px: Float[Tensor, " m"]


@stage("hand eval", {"data": "data"})
def evaluate_hands(
    config: EvalConfig,
    data: Path | str,
    *,
    model: HandModel | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> EvalResult:
    """Evaluate a network on labelled crops of right hands, whose boxes and intrinsics are given.

    Args:
        config: Options.
        data: A folder in FreiHAND's layout, or "synth" for generated images that no training sees.
        model: The network; None loads `config.weights`.
        run_folder: Receives evaluation.txt and evaluation.json.
        progress: Progress callback, called for every image or batch.

    Raises:
        InputError: The data are incomplete or damaged.
    """
    device = resolve_device(config.device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    model = load_hand_model(config.weights) if model is None else model
    is_generated = str(data) == "synth"
    found = (
        _generated(config, model, device, progress) if is_generated else _folder(config, model, Path(data), device, progress)
    )
    errors = {
        name: hand_errors(found.joints, found.true_joints, found.vertices, found.true_vertices, name)
        for name in ("proper", "official")
    }
    has_vertices = found.vertices.shape[1] != found.joints.shape[1]
    table = [_row(name, values, has_vertices) for name, values in errors.items()]
    rest = HandTemplate.load("right")
    mean_pose = rest.joints(rest.vertices).expand_as(found.true_joints)
    summary = {
        "images": len(found.joints),
        **{key: value for key, value in table[0].items() if key != "alignment"},
        "uv_px": round(float(found.uv_px.double().mean()), 4),
        "rest_pose_pa_mpjpe": round(float(pa_error(mean_pose, found.true_joints).mean()), 4),
        "device": str(device),
        "table": table,
    }
    path = None if run_folder is None else run_folder.path
    if path is not None:
        with atomic_write(path / "evaluation.txt") as temporary:
            temporary.write_text(_text(summary), "utf-8")
        with atomic_write(path / "evaluation.json") as temporary:
            temporary.write_text(to_json(summary, indent=2) + "\n", "utf-8")
    return EvalResult(errors["proper"], errors["official"], summary, path)


@torch.inference_mode()
def _generated(config: EvalConfig, model: HandModel, device: torch.device, progress: ProgressCallback | None) -> _Compared:
    size = model.config.input_size
    frames = FrameConfig(**{**vars(config.frames), "size": size, "empty": 0.0})
    count = -(-(config.images or 960) // BATCH) * BATCH
    source = SampleSource(
        frames=frames, backgrounds=config.backgrounds, furniture=config.furniture, split="test",
        seed=HELD_OUT_SEED + config.seed,
    )  # fmt: skip
    network, parts = model.network.for_inference().to(device), []
    samples = ImageSamples(source, count)
    samples.prepare(progress)
    with Progress(count, "evaluate", progress) as bar:
        for rows in torch.arange(count).split(2 * BATCH):
            batch = samples.take(rows)
            images = batch.images.permute(0, 3, 1, 2).float() / 255
            if model.config.upright:
                images, batch = upright(images, batch)
            outputs = network(images.to(device)).rooted()
            root = batch.joints[:, ROOT, None]
            inside = ((batch.uvs >= 0) & (batch.uvs <= size)).all(-1)
            off = CROP_PX * torch.linalg.vector_norm(outputs.uv.cpu() - batch.uvs / size, dim=-1)[inside]
            joints, vertices = outputs.joints.cpu(), outputs.vertices.cpu()
            parts.append(_Compared(joints, batch.joints - root, vertices, batch.vertices - root, off))
            bar.update(int(rows[-1]) + 1)
    return _joined(parts, config.images or count)


@torch.inference_mode()
def _folder(
    config: EvalConfig, model: HandModel, path: Path, device: torch.device, progress: ProgressCallback | None
) -> _Compared:
    data = FreiHandFolder.open(path, config.split)
    compares = data.vertices is not None and (
        config.vertices == "compare" or (config.vertices == "auto" and data.has_own_topology)
    )
    predictor = HandPredictor(model, HandConfig(margin=MARGIN), device=device)
    count, parts = min(config.images or len(data), len(data)), []
    with Progress(count, "evaluate", progress) as bar:
        for index in range(count):
            image, K, true = data.image(index), data.Ks[index], data.joints[index : index + 1]
            pixels = (true @ K.T)[..., :2] / true[..., 2:]
            centers, sides, _ = boxes_around(pixels)
            angles = square_of(pixels).angles if model.config.upright else torch.zeros(1)
            box = Detections(centers, sides, angles, torch.ones(1, dtype=torch.bool), torch.ones(1))
            places = predictor.measure(image, box, K)
            root = true[:, ROOT, None]
            off = CROP_PX / (MARGIN * sides) * torch.linalg.vector_norm(places.joints_2d - pixels, dim=-1)[0]
            vertices, true_vertices = places.joints, true - root  # not compared
            if compares and data.vertices is not None:
                vertices, true_vertices = places.vertices, data.vertices[index : index + 1] - root
            parts.append(_Compared(places.joints, true - root, vertices, true_vertices, off))
            bar.update(index + 1)
    return _joined(parts, count)


def _joined(parts: list[_Compared], count: int) -> _Compared:
    def rows(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])[:count]

    uv_px = torch.cat([part.uv_px for part in parts])
    return _Compared(rows("joints"), rows("true_joints"), rows("vertices"), rows("true_vertices"), uv_px)


def _row(name: str, errors: HandErrors, has_vertices: bool) -> dict[str, Any]:
    values = errors.summary()
    without = () if has_vertices else ("pa_mpvpe", "f5", "f15", "vertex_auc")
    return {"alignment": name, **{key: None if key in without else round(values[key], 5) for key in _COLUMNS}}


def _text(summary: dict[str, Any]) -> str:
    lines = [f"{'alignment':10} " + " ".join(f"{title:>12}" for title in _TITLES)]
    for row in summary["table"]:
        cells = ("-" if row[key] is None else f"{row[key]:.3f}" for key in _COLUMNS)
        lines.append(f"{row['alignment']:10} " + " ".join(f"{cell:>12}" for cell in cells))
    if summary["pa_mpvpe"] is None:
        lines.append("vertices: of another topology than the template's, not compared (--vertices compare)")
    lines.append(f"2D joints: {summary['uv_px']:.2f} px of {CROP_PX}")
    lines.append(f"the rest pose as prediction: PA-MPJPE {summary['rest_pose_pa_mpjpe']:.2f} mm")
    return "\n".join(lines) + "\n"
