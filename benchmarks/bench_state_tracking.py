"""State tracking of the sequence operators: words of a group, trained on up to 64 letters, tested on 256.

The task is the product of all letters so far, at every letter: parity is the group of two elements, S3 that of the six
permutations of three things. A model is an embedding, causal operators, and a linear layer. Lengths in training grow to 64.
"""

import argparse
import itertools
import statistics
import sys
import time
from typing import Any

import torch
from support import ForeignLoad, add_options, write
from torch import Tensor, nn

from vision3d.core.checkpoints import seed_everything
from vision3d.optim.schedules import one_cycle
from vision3d.stages.detect.operators import make_operator, read_options

MODELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "gla": ("gla", ()),
    "mamba": ("mamba", ()),
    "deltanet": ("deltanet", ()),
    "deltaproduct, 1 step": ("deltaproduct", ("steps=1",)),
    "deltaproduct, 2 steps": ("deltaproduct", ("steps=2",)),
    "deltaproduct, 3 steps": ("deltaproduct", ("steps=3",)),
}
TRAINED, TESTED = 64, 256
CHANNELS = 32


def table(group: str) -> Tensor:
    """The product of two elements, by their numbers."""
    if group == "parity":
        return torch.tensor([[0, 1], [1, 0]])
    elements = list(itertools.permutations(range(3)))
    return torch.tensor([[elements.index(tuple(a[i] for i in b)) for b in elements] for a in elements])


def words(product: Tensor, count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random letters and the products of the letters so far, both (count, length)."""
    letters = torch.randint(len(product), (count, length), generator=generator)
    found = [letters[:, 0]]
    for place in range(1, length):
        found.append(product[letters[:, place], found[-1]])
    return letters, torch.stack(found, 1)


class Tracker(nn.Module):
    """Letters to scores of the elements, at every letter."""

    def __init__(self, operator: str, options: tuple[str, ...], elements: int, layers: int) -> None:
        super().__init__()
        named = read_options(operator, options)
        self.embedding = nn.Embedding(elements, CHANNELS)
        self.operators = nn.Sequential(
            *(make_operator(operator, CHANNELS, bidirectional=False, **named) for _ in range(layers))
        )
        self.output = nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, elements))

    def forward(self, letters: Tensor) -> Tensor:
        return self.output(self.operators(self.embedding(letters)))


def trained(name: str, group: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Accuracy of a model after training."""
    seed_everything(seed)
    product, generator = table(group), torch.Generator().manual_seed(seed)
    model = Tracker(*MODELS[name], len(product), options.layers)
    optimizer = torch.optim.Adam(model.parameters(), options.lr, fused=True)
    started = time.process_time()
    for step in range(options.steps):
        progress = step / options.steps
        length = min(TRAINED, 2 + int(2 * progress * TRAINED))
        for part in optimizer.param_groups:
            part["lr"] = one_cycle(options.lr, progress)
        letters, states = words(product, options.batch_size, length, generator)
        loss = nn.functional.cross_entropy(model(letters).flatten(0, 1), states.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.process_time() - started
    letters, states = words(product, 256, TESTED, torch.Generator().manual_seed(10_000 + seed))
    with torch.inference_mode():
        is_right = (model.eval()(letters).argmax(-1) == states).float()
    return {
        "accuracy": round(100 * float(is_right.mean()), 2),
        "within_64": round(100 * float(is_right[:, :TRAINED].mean()), 2),
        "beyond_64": round(100 * float(is_right[:, TRAINED:].mean()), 2),
        "last_letter": round(100 * float(is_right[:, -1].mean()), 2),
        "loss": round(float(loss.detach()), 5),
        "cpu_s": round(seconds, 1),
        "parameters": sum(value.numel() for value in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--groups", nargs="+", default=["parity", "s3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-3)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with ForeignLoad() as load:
        for group, name in itertools.product(options.groups, options.models):
            seeds = {}
            for seed in options.seeds:
                seeds[str(seed)] = trained(name, group, options, seed)
                print(group, name, seed, seeds[str(seed)], file=sys.stderr, flush=True)
            accuracy = [row["accuracy"] for row in seeds.values()]
            found.setdefault(group, {})[name] = {
                "accuracy": round(statistics.mean(accuracy), 2), "spread": round(max(accuracy) - min(accuracy), 2),
                "seeds": seeds,
            }  # fmt: skip
    settings = {key: getattr(options, key) for key in ("steps", "batch_size", "layers", "lr")}
    write("state_tracking", {"trained_length": TRAINED, "tested_length": TESTED, **settings, "groups": found}, load.share)


if __name__ == "__main__":
    main()
