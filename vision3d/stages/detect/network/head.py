"""What the heads share: a loss on the targets of a batch, and boxes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vision3d.stages.detect.config import LossConfig
from vision3d.stages.detect.data.targets import Targets
from vision3d.stages.detect.network.sparse_bev import CellRows

Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class Peaks:
    """The strongest predictions of a sample."""

    boxes: Float[Tensor, "n 7"]
    labels: Int64[Tensor, " n"]
    scores: Float[Tensor, " n"]


class Head(nn.Module, ABC, Generic[Outputs]):
    """Predictions from the bird's-eye image, of a type of its own."""

    @abstractmethod
    def forward(self, image: Float[Tensor, "b c x y"]) -> Outputs:
        """The predictions."""

    def at_cells(self, image: CellRows) -> Outputs:
        """The predictions at all cells of an image of which only some were computed."""
        return self(image.image())

    @abstractmethod
    def parts(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Each loss, by the name of its weight in `LossConfig`."""

    def loss(self, outputs: Outputs, targets: Targets, config: LossConfig) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of the losses, and each of them.

        Args:
            outputs: Predictions.
            targets: Targets of the same samples and cells.
            config: Weights.
        """
        parts = self.parts(outputs, targets)
        loss = sum((getattr(config, name) * part for name, part in parts.items()), targets.heat.new_zeros(()))
        return loss, {f"loss_{name}": float(part.detach()) for name, part in parts.items()}

    @abstractmethod
    def strongest(self, outputs: Outputs, count: int, iou_power: float = 0.5, lowest: float = 0.0) -> list[Peaks]:
        """The `count` strongest predictions of every sample, in no certain order; overlapping ones are not removed.

        Args:
            outputs: Predictions.
            count: Number per sample, at most that of all predictions.
            iou_power: As in `decode`.
            lowest: Predictions with a lower probability have score 0.
        """

    @abstractmethod
    def decode(self, outputs: Outputs, *, count: int = 200, lowest: float = 0.05, iou_power: float = 0.5) -> list[Peaks]:
        """The boxes of every sample, by descending score.

        Args:
            outputs: Predictions.
            count: Maximum number per sample.
            lowest: Minimum score, and minimum probability without the overlap.
            iou_power: Weight a of the predicted overlap, if there is one: score^(1 - a) overlap^a (Hu et al. 2022).
        """
