"""Interface of an experiment for the training loop: networks, loss, errors."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.geometry.rotation import geodesic_distance

QUANTILES = 1000


class Experiment(Protocol):
    """One of the three experiments."""

    name: str
    unit: str
    """Unit of the errors."""
    source: str
    """Description of the data."""

    def network(self, rep: str) -> nn.Module:
        """A new network."""
        ...

    def loss(self, network: nn.Module, generator: torch.Generator) -> Float[Tensor, ""]:
        """Loss of a batch drawn with `generator`; with several processes (`Group`), the mean over its share."""
        ...

    def errors(self, network: nn.Module) -> Float[Tensor, " n"]:
        """Errors on test data, the same for all networks."""
        ...

    def about(self) -> dict[str, Any]:
        """Facts about the data, as plain values."""
        ...

    def facts(self) -> dict[str, Any]:
        """Facts about input and output that users of a network need."""
        ...

    def shape(self, rep: str) -> dict[str, Any]:
        """Arguments to build the network."""
        ...


@dataclass(frozen=True)
class Errors:
    """Statistics of errors."""

    mean: float
    max: float
    std: float
    median: float
    percentiles: tuple[float, ...]
    """Quantiles at 0, 0.1, .. 100 percent."""
    count: int

    @classmethod
    def of(cls, errors: Float[Tensor, " n"]) -> "Errors":
        """Statistics of errors; quantiles are interpolated linearly."""
        values = errors.detach().double().cpu().sort().values
        places = torch.linspace(0, len(values) - 1, QUANTILES + 1, dtype=torch.float64)
        low = places.floor().long()
        high = (low + 1).clamp(max=len(values) - 1)
        quantiles = torch.lerp(values[low], values[high], places - low)
        return cls(
            float(values.mean()), float(values[-1]), float(values.std(correction=0)), float(quantiles[QUANTILES // 2]),
            tuple(quantiles.tolist()), len(values),
        )  # fmt: skip

    def at(self, percent: float) -> float:
        """The error quantile at `percent`."""
        return self.percentiles[round(percent / 100 * QUANTILES)]

    def below(self, limit: float) -> float:
        """Percentage of errors of at most `limit`, to a tenth."""
        return sum(value <= limit for value in self.percentiles[1:]) / 10


def entries_loss(predicted: Float[Tensor, "*batch 3 3"], true: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, ""]:
    """Mean of the squared differences of the entries."""
    return (predicted - true).square().mean()


def angles_deg(predicted: Float[Tensor, "*batch 3 3"], true: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angles between rotations [deg], in float64, since float32 loses small ones."""
    return torch.rad2deg(geodesic_distance(predicted.double(), true.double()))
