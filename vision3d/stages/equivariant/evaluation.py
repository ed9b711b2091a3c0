"""Accuracy of a classifier on upright and warped digits."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.io.digits import fingerprints
from vision3d.stages.equivariant.classifier import Classifier
from vision3d.stages.equivariant.data import DigitData
from vision3d.stages.equivariant.networks import CLASSES

_CHUNK = 500


@dataclass(frozen=True)
class Evaluation:
    """Metrics on held-out digits."""

    centred: float
    """Accuracy on upright digits [%]."""
    warped: float
    """Accuracy on the warped set [%]."""
    images: int
    """Number of evaluated warped images."""
    confusion: Int64[Tensor, "10 10"]
    """Confusion matrix of warped images: true (row) and predicted (column) digit."""
    test_set: str
    """Description of the warped set."""
    is_generated: bool

    def summary(self, prefix: str = "") -> dict[str, Any]:
        """Plain figures."""
        return {
            f"{prefix}accuracy_centred": round(self.centred, 3),
            f"{prefix}accuracy_warped": round(self.warped, 3),
            f"{prefix}gap": round(self.centred - self.warped, 3),
        }


def evaluate(
    classifier: Classifier,
    data: DigitData,
    *,
    draws: int = 1,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluation:
    """Evaluate a classifier on the held-out digits and on the test set.

    Args:
        classifier: The network.
        data: From `load_data`.
        draws: Number of draws of group samples whose logits are averaged.
        device: Where the network runs.
        limit: Evaluate only every N-th warped image, such that about this many are evaluated.
        progress: Progress callback.

    Raises:
        InputError: Held-out digits are among the training digits of the classifier.
    """
    _check_unseen(classifier, data)
    classifier.network.to(device)
    centred = _hits(classifier, data.centred.images, data.centred.labels, draws, device)
    step = 1 if limit is None else max(1, len(data.test) // limit)
    confusion = torch.zeros(CLASSES * CLASSES, dtype=torch.int64)
    total = -(-len(data.test) // (_CHUNK * step))
    with Progress(total, "evaluate", progress) as bar:
        for i in range(total):
            images, labels = data.test.batch(slice(i * _CHUNK * step, (i + 1) * _CHUNK * step, step))
            predicted = classifier.predict(images.to(device), draws).cpu()
            confusion += torch.bincount(labels * CLASSES + predicted, minlength=CLASSES * CLASSES)
            right = confusion.view(CLASSES, CLASSES).diagonal().sum()
            bar.update(i + 1, accuracy=100 * right / confusion.sum())
    square = confusion.view(CLASSES, CLASSES)
    count = int(square.sum())
    warped = 100 * float(square.diagonal().sum()) / max(count, 1)
    return Evaluation(100 * centred / len(data.centred), warped, count, square, data.test.description, data.test.is_generated)


def _check_unseen(classifier: Classifier, data: DigitData) -> None:
    known = torch.isin(fingerprints(data.centred.images), classifier.seen)
    if bool(known.any()):
        card = classifier.card
        about = {"seed": card.seed, "test_digits": card.about.get("test_digits", "?")}
        hint = " and ".join(f"--{name.replace('_', '-')} {value}" for name, value in about.items())
        raise InputError(
            f"{int(known.sum())} of the {len(known)} held-out digits are among those that the classifier was trained on; "
            f"give the options of its training ({hint}) or other digits"
        )


def _hits(classifier: Classifier, images: Tensor, labels: Tensor, draws: int, device: torch.device | str) -> int:
    return int((classifier.predict(images.to(device), draws).cpu() == labels).sum())
