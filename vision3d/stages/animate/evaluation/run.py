"""Metrics of rendered videos against the ground truth: per frame, averaged over views, objects, and all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.plain import to_json
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.images import read_image
from vision3d.optim import metrics
from vision3d.report import Pair, write_contact_sheet
from vision3d.stage import stage
from vision3d.stages.animate.evaluation.config import EvalConfig
from vision3d.stages.animate.evaluation.layout import ClipPair, find_clips

METRICS = ("psnr", "ssim", "lpips", "iou", "flicker")
PROTOCOL = (
    "images on white by their soft alpha, then resized (bilinear, antialiased)",
    "PSNR and SSIM of values in [0, 1], data range 1",
    "PSNR of identical images counts 100 dB; SSIM with an 11x11 Gaussian window inside the image; LPIPS with AlexNet",
    "IoU of the masks alpha > 0.5; flicker: mean absolute difference of the changes from frame to frame",
    "averaged over the frames of a view, the views of an object, and the objects",
)
_NOT_OURS = {
    "clip": "no CLIP network is included, and none could be tested without its weights",
    "fvd": "no I3D network is included, and none could be tested without its weights",
}
_MAX_PSNR = 100.0
_SHOWN = 6


@dataclass(frozen=True)
class ClipsEvaluation:
    """Results of the evaluation."""

    views: tuple[dict[str, Any], ...]
    """One row per object and view: object, view, frames, and the metrics; None if not computed."""
    objects: tuple[dict[str, Any], ...]
    """Means over the views of each object."""
    means: dict[str, float | None]
    """Means over the objects."""
    not_computed: tuple[str, ...]
    """Metrics that were not computed, with the reason."""
    missing: tuple[str, ...]
    """What existed on one side only and was skipped."""

    @property
    def summary(self) -> dict[str, Any]:
        """The results as plain values."""
        return {
            **{name: value for name, value in self.means.items() if value is not None},
            "objects": list(self.objects),
            "views": list(self.views),
            "frames": sum(row["frames"] for row in self.views),
            "not_computed": list(self.not_computed),
            "missing": list(self.missing),
            "protocol": list(PROTOCOL),
        }


@stage("animate eval", {"folder": "folder"})
def evaluate_clips(
    config: EvalConfig,
    folder: Path | str,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> ClipsEvaluation:
    """Evaluate videos of moving objects by the protocol of Consistent4D: PSNR, SSIM, LPIPS, mask IoU and flicker.

    CLIP and FVD belong to the protocol but are not computed: they are listed with the reason.

    Args:
        config: Options.
        folder: {gt,pred}/OBJECT/eval_VIEW/NUMBER.png, images with or without alpha.
        run_folder: Receives eval.json, one line of metrics per view, figures/worst_frames.png. Views that are already there are
            not evaluated again.
        progress: Progress callback, called for every frame.

    Raises:
        MissingFileError: A folder does not exist.
        InputError: Views or frames exist on one side only, or sizes differ.
        FileFormatError: An image or the weights cannot be read.

    Example:
        >>> from vision3d.stages.animate import EvalConfig, evaluate_clips
        >>> evaluate_clips(EvalConfig(size=256), "renders").means["psnr"]
    """
    folder = Path(folder)
    pairs, missing = find_clips(folder, skip_missing=config.skip_missing)
    lines = run_folder.metrics() if isinstance(run_folder, RunFolder) else []
    known = {line["clip"]: line for line in lines if line.get("source") == str(folder)}
    rows, done = [], 0
    with Progress(sum(len(pair.numbers) for pair in pairs), "eval", progress) as bar:
        for index, pair in enumerate(pairs):
            row = {name: known[pair.name][name] for name in _COLUMNS} if _is_known(known, pair) else None
            if row is None:
                row = _measured(pair, config, lambda count, done=done: bar.update(done + count))
                if isinstance(run_folder, RunFolder):
                    run_folder.log(index, clip=pair.name, source=str(folder), **row)
            rows.append(row)
            done += len(pair.numbers)
            bar.update(done)
    objects = [
        {"object": name, **_means([row for row in rows if row["object"] == name])}
        for name in dict.fromkeys(row["object"] for row in rows)
    ]
    evaluation = ClipsEvaluation(tuple(rows), tuple(objects), _means(objects), _not_computed(config, rows), tuple(missing))
    if isinstance(run_folder, RunFolder):
        with atomic_write(run_folder.path / "eval.json") as temporary:
            temporary.write_text(to_json(evaluation.summary, indent=2) + "\n", "utf-8")
        _write_worst(run_folder.path / "figures" / "worst_frames.png", pairs, rows, config)
    return evaluation


_COLUMNS = ("object", "view", "frames", *METRICS, "worst_frame")


def _is_known(known: Mapping[str, Mapping[str, Any]], pair: ClipPair) -> bool:
    line = known.get(pair.name)
    return line is not None and line.keys() >= set(_COLUMNS) and line["frames"] == len(pair.numbers)


def _measured(pair: ClipPair, config: EvalConfig, step: Any) -> dict[str, Any]:
    """The row of one object and view."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    before: tuple[Tensor, Tensor] | None = None
    for count, (truth_path, predicted_path) in enumerate(zip(pair.truth, pair.predicted), 1):
        (truth, mask), (predicted, other_mask) = (_read(path, config.size) for path in (truth_path, predicted_path))
        found["psnr"].append(min(metrics.psnr(predicted, truth), _MAX_PSNR))
        found["ssim"].append(metrics.ssim(predicted, truth))
        if config.lpips_weights is not None:
            found["lpips"].append(metrics.lpips(predicted, truth, config.lpips_weights))
        if mask is not None and other_mask is not None:
            found["iou"].append(metrics.mask_iou(mask > 0.5, other_mask > 0.5))
        if before is not None:
            found["flicker"].append(float(((predicted - before[0]) - (truth - before[1])).abs().mean()))
        before = (predicted, truth)
        step(count)
    row = {"object": pair.object, "view": pair.view, "frames": len(pair.numbers)}
    # Masks are used if every frame has one.
    whole = {"flicker": len(pair.numbers) - 1} | dict.fromkeys(("psnr", "ssim", "lpips", "iou"), len(pair.numbers))
    for name, values in found.items():
        row[name] = round(sum(values) / len(values), 6) if values and len(values) == whole[name] else None
    row["worst_frame"] = pair.numbers[min(range(len(pair.numbers)), key=lambda i: found["psnr"][i])]
    return row


def _read(path: Path, size: int) -> tuple[Float[Tensor, "s s 3"], Float[Tensor, "s s"] | None]:
    """An image on white, and its alpha."""
    image = read_image(path)
    alpha = image[..., 3:] if image.shape[2] == 4 else None
    layers = image if alpha is None else torch.cat([image[..., :3] * alpha + 1 - alpha, alpha], -1)
    if layers.shape[:2] != (size, size):
        batch = layers.movedim(-1, 0)[None]
        layers = torch.nn.functional.interpolate(batch, (size, size), mode="bilinear", antialias=True)[0].movedim(0, -1)
    layers = layers.clamp(0, 1)
    return layers[..., :3].contiguous(), None if alpha is None else layers[..., 3]


def _means(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean of each metric; None if a row lacks it."""
    found: dict[str, float | None] = {}
    for name in METRICS:
        values = [row[name] for row in rows]
        found[name] = None if any(value is None for value in values) else round(math.fsum(values) / len(values), 6)
    return found


def _not_computed(config: EvalConfig, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    reasons = {}
    if config.lpips_weights is None:
        reasons["lpips"] = "no weights (--lpips-weights)"
    if bare := [f"{row['object']}/{row['view']}" for row in rows if row["iou"] is None]:
        reasons["iou"] = f"images without alpha in {len(bare)} of {len(rows)} views, such as {bare[0]}"
    if single := [f"{row['object']}/{row['view']}" for row in rows if row["flicker"] is None]:
        reasons["flicker"] = f"a single frame in {len(single)} of {len(rows)} views, such as {single[0]}"
    return tuple(f"{name}: not computed: {reason}" for name, reason in {**reasons, **_NOT_OURS}.items())


def _write_worst(path: Path, pairs: list[ClipPair], rows: list[dict[str, Any]], config: EvalConfig) -> None:
    """The frame with the lowest PSNR in each of the worst views."""
    order = sorted(range(len(rows)), key=lambda i: rows[i]["psnr"])[:_SHOWN]
    shown = []
    for i in order:
        place = pairs[i].numbers.index(rows[i]["worst_frame"])
        files = pairs[i].truth[place], pairs[i].predicted[place]
        truth, predicted = (_read(file, config.size)[0] for file in files)
        caption = f"{pairs[i].name} frame {rows[i]['worst_frame']}, mean PSNR {rows[i]['psnr']:.2f} dB"
        shown.append(Pair(truth, predicted, caption))
    write_contact_sheet(path, shown, title="Worst frames", subtitle="left: ground truth, right: prediction")
