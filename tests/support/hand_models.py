"""Small networks of hands with random parameters, and finders that find what they are told."""

import torch

from vision3d.stages.hand.config import NetworkConfig
from vision3d.stages.hand.detections import Detections
from vision3d.stages.hand.network.files import HandModel, make_network
from vision3d.training.weights import Card

TINY = NetworkConfig(input_size=64, reduce=8, head="canonical6d", upsampling="template", dims=(16, 16, 8), heads=4)


def random_model(config: NetworkConfig = TINY, seed: int = 0) -> HandModel:
    """A network that was never trained: a template of random rotation at random pixels."""
    torch.manual_seed(seed)
    card = Card.of_now("hand", config={}, data="none", seed=seed, cpu_hours=0)
    return HandModel(make_network(config).eval(), config, card)


class Finds:
    """A finder that finds the same boxes (x y side) in every image, or no more after some; counts its calls."""

    def __init__(self, *squares: tuple[float, float, float], right: bool = True, share: float | None = None) -> None:
        self.squares, self.right, self.share, self.calls = squares, right, share, 0

    def find(self, image):
        self.calls += 1
        count = len(self.squares)
        rows = torch.tensor(self.squares, dtype=torch.float32).reshape(-1, 3)
        return Detections(
            rows[:, :2],
            rows[:, 2],
            torch.zeros(count),
            torch.full((count,), self.right),
            torch.linspace(0.9, 0.8, count),
            None if self.share is None else torch.full((count,), self.share),
        )
