"""Visualization of a classifier: features over the group for a digit and its warped copy, and its confusion matrix."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.io.images import write_image
from vision3d.report.canvas import FAINT, INK, LINE, Canvas
from vision3d.stages.equivariant.canonical import canonical_images, canonical_polar
from vision3d.stages.equivariant.classifier import Classifier
from vision3d.stages.equivariant.config import ModelConfig
from vision3d.stages.equivariant.data import DigitData, unpadded
from vision3d.stages.equivariant.evaluation import Evaluation
from vision3d.stages.equivariant.foreground import prepared
from vision3d.stages.equivariant.networks import CLASSES, PlainNet, PlanarNet, RotationNet
from vision3d.stages.equivariant.warps import affnist_like

SHOWN = 4
_MARGIN, _GAP, _LINE, _CELL = 16, 8, 22, 120
_BLUE, _WHITE, _RED = (0.13, 0.32, 0.62), (1.0, 1.0, 1.0), (0.75, 0.18, 0.15)
_SEED = 5  # seed of the warps that are shown


def write_images(folder: Path, classifier: Classifier, data: DigitData, evaluation: Evaluation) -> None:
    """Write `features.png` and `confusion.png`."""
    write_image(folder / "features.png", features_sheet(classifier, data))
    write_image(folder / "confusion.png", confusion_sheet(evaluation))


def features_sheet(classifier: Classifier, data: DigitData) -> Float[Tensor, "h w 3"]:
    """A held-out digit and a warped copy of it in each pair of rows, with the features of the network over its group."""
    chosen = torch.cat([(data.centred.labels == digit).nonzero()[:1, 0] for digit in (2, 4, 6, 7)])[:SHOWN]
    digits = data.centred[chosen]
    warped, _ = affnist_like(unpadded(digits), copies=1, seed=_SEED).batch(slice(None))
    network = classifier.network.cpu().eval()
    with torch.no_grad():
        rows = [_row(network, classifier.config, torch.stack(pair)) for pair in zip(digits.images, warped)]
        predicted = classifier.predict(torch.cat([digits.images, warped])).view(2, -1).T
    headings = rows[0][0]
    widths = [max(cell.shape[1] for _, pair in rows for cell in [pair[0][i]]) for i in range(len(headings))]
    right = 140
    width = 2 * _MARGIN + sum(widths) + _GAP * len(widths) + right
    pair_height = 2 * (_CELL + _GAP) + _GAP
    canvas = Canvas(width, _MARGIN + 34 + _LINE + len(rows) * pair_height + _MARGIN)
    canvas.text(_MARGIN, _MARGIN, f"Features of the network ({classifier.config.method})", 20)
    left = _MARGIN
    for heading, column in zip(headings, widths):
        canvas.text(left, _MARGIN + 34, heading, 13, FAINT, room=column)
        left += column + _GAP
    for i, (_, pair) in enumerate(rows):
        for j in range(2):
            top = _MARGIN + 34 + _LINE + i * pair_height + j * (_CELL + _GAP)
            left = _MARGIN
            for cell, column in zip(pair[j], widths):
                canvas.paste(cell, left, top)
                left += column + _GAP
            label, truth = int(predicted[i, j]), int(digits.labels[i])
            words = f"predicted {label}" + ("" if label == truth else f", is {truth}")
            canvas.text(left, top + _CELL / 2, words, 14, INK, "lm", room=right)
    return canvas.image()


def confusion_sheet(evaluation: Evaluation) -> Float[Tensor, "h w 3"]:
    """Confusion matrix: true digits down, predicted digits across, in percent of the true ones."""
    side, left, top = 46, 46, 106
    canvas = Canvas(left + CLASSES * side + 24, top + CLASSES * side + 24)
    canvas.text(_MARGIN, 12, f"{evaluation.warped:.2f} % of {evaluation.images:,} warped digits", 18)
    kind = "generated set, not an affNIST result" if evaluation.is_generated else evaluation.test_set
    canvas.text(_MARGIN, 36, kind, 13, FAINT, room=left + CLASSES * side - _MARGIN)
    share = evaluation.confusion / evaluation.confusion.sum(1, keepdim=True).clamp(min=1)
    for i in range(CLASSES):
        canvas.text(left - 10, top + side * (i + 0.5), str(i), 14, INK, "rm")
        canvas.text(left + side * (i + 0.5), top - 8, str(i), 14, INK, "ms")
        for j in range(CLASSES):
            value = float(share[i, j])
            strength = value if i == j else min(1.0, 20 * value)
            end = _BLUE if i == j else _RED
            color = tuple(round(255 * (1 + (channel - 1) * strength)) for channel in end)
            box = [left + side * j, top + side * i, left + side * (j + 1) - 1, top + side * (i + 1) - 1]
            canvas.draw.rectangle(box, fill=color, outline=LINE)
            if value >= 0.0005:
                ink = (255, 255, 255) if strength > 0.6 else INK
                canvas.text(box[0] + side / 2, box[1] + side / 2, f"{100 * value:.1f}", 12, ink, "mm")
    canvas.text(_MARGIN, 58, "true digit down, predicted digit across", 12, FAINT)
    return canvas.image()


def _row(
    network: torch.nn.Module, config: ModelConfig, images: Float[Tensor, "2 h w"]
) -> tuple[list[str], list[list[Float[Tensor, "h w 3"]]]]:
    """Headings, and the cells of both images."""
    headings, columns = ["image"], [[_gray(image) for image in images]]
    images = prepared(images, config)
    if isinstance(network, RotationNet) or (isinstance(network, PlainNet) and network.canonical):
        headings.append("canonical position")
        columns.append([_gray(image) for image in canonical_images(images)])
    if isinstance(network, RotationNet):
        polar = canonical_polar(images)
        headings += ["on circles (angle across)", "one feature over SO(2)", "logits over SO(2), digit down"]
        columns.append([_gray(image, wide=True) for image in polar])
        layer = network.features(polar)[1]
        channel = int(layer.var((0, 2, 3)).argmax())
        columns.append([_signed(feature[channel], wide=True) for feature in layer])
        columns.append([_signed(logits - logits.mean(), wide=True) for logits in network.orbit_logits(images)])
    elif isinstance(network, PlanarNet):
        samples = network.draw()
        lifted, block, _ = network.features(images, samples)
        for name, features in (("lifted", lifted), ("after the block", block)):
            channel = int(features.var((0, 2, 3, 4)).argmax())
            shown = min(5, features.shape[2])
            headings.append(f"{name}: one channel at {shown} of {features.shape[2]} group elements")
            columns.append([_signed(torch.cat(list(maps[channel, :shown]), -1), count=shown) for maps in features])
    elif isinstance(network, PlainNet):
        x = canonical_images(images) if network.canonical else images
        features = network.norms[0](network.convs[0](x[:, None]))
        headings.append("four first features")
        columns.append([_signed(torch.cat(list(maps[:4]), -1), count=4) for maps in features])
    return headings, [[column[j] for column in columns] for j in range(2)]


def _gray(image: Float[Tensor, "h w"], *, wide: bool = False) -> Float[Tensor, "h2 w2 3"]:
    return _enlarged(image.clamp(0, 1)[..., None].expand(-1, -1, 3), 240 if wide else _CELL)


def _signed(values: Float[Tensor, "h w"], *, wide: bool = False, count: int = 1) -> Float[Tensor, "h2 w2 3"]:
    """Blue below 0, red above, white at 0."""
    part = (values / values.abs().max().clamp(min=1e-6)).clamp(-1, 1)[..., None]
    low, zero, high = (values.new_tensor(color) for color in (_BLUE, _WHITE, _RED))
    colors = torch.where(part < 0, zero + part.abs() * (low - zero), zero + part * (high - zero))
    return _enlarged(colors, 240 if wide else _CELL * count)


def _enlarged(image: Float[Tensor, "h w 3"], width: int) -> Float[Tensor, "h2 w2 3"]:
    """Nearest-neighbor enlargement to the height of a cell."""
    rows = torch.arange(_CELL) * image.shape[0] // _CELL
    columns = torch.arange(width) * image.shape[1] // width
    return image[rows][:, columns]
