"""What an experiment is to the loop that trains it: networks, a loss, errors."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.geometry.rotation import geodesic_distance

QUANTILES = 1000


class Experiment(Protocol):
    """One of the three."""

    name: str
    unit: str
    """Of the errors."""
    source: str
    """What data it works on."""

    def network(self, rep: str) -> nn.Module:
        """A new network."""
        ...

    def loss(self, network: nn.Module, generator: torch.Generator) -> Float[Tensor, ""]:
        """Loss of a batch that `generator` draws; of several processes (`Group`) each takes the mean over its share."""
        ...

    def errors(self, network: nn.Module) -> Float[Tensor, " n"]:
        """Errors on data that no training has seen, the same for all networks."""
        ...

    def about(self) -> dict[str, Any]:
        """Plain facts of the data."""
        ...

    def facts(self) -> dict[str, Any]:
        """What someone who uses a network must know of its input and output."""
        ...

    def shape(self, rep: str) -> dict[str, Any]:
        """Arguments with which the network is built again."""
        ...


@dataclass(frozen=True)
class Errors:
    """Figures of many errors."""

    mean: float
    max: float
    std: float
    median: float
    percentiles: tuple[float, ...]
    """At 0, 0.1, .. 100 percent."""
    count: int

    @classmethod
    def of(cls, errors: Float[Tensor, " n"]) -> "Errors":
        """The figures of errors; quantiles are linear between neighbours."""
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
        """The error that `percent` of all do not exceed."""
        return self.percentiles[round(percent / 100 * QUANTILES)]

    def below(self, limit: float) -> float:
        """Percent of the errors at most `limit`, to a tenth."""
        return sum(value <= limit for value in self.percentiles[1:]) / 10


def entries_loss(told: Float[Tensor, "*batch 3 3"], true: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, ""]:
    """Mean of the squared differences of the entries."""
    return (told - true).square().mean()


def angles_deg(told: Float[Tensor, "*batch 3 3"], true: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angles between rotations [deg], in float64, of which float32 loses small ones."""
    return torch.rad2deg(geodesic_distance(told.double(), true.double()))
