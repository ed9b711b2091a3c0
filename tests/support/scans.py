"""Random inputs of the recurrences, and the recurrences as written on rows of groups."""

import torch
from torch import Tensor

from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.reference import recurrent

LENGTHS = (5, 0, 1, 64, 0, 97, 33)
"""Groups without rows, with one, and of lengths that no chunk divides."""


def ragged(lengths: tuple[int, ...] = LENGTHS) -> Groups:
    return Groups(torch.tensor([0, *lengths]).cumsum(0))


def relative(got: Tensor, want: Tensor) -> float:
    """The largest error in units of the largest value."""
    if not want.numel():
        return 0.0
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-30))


def selective_inputs(rows: int, d: int = 6, n: int = 4, dtype: torch.dtype = torch.float64, decay: float = 1.0) -> list[Tensor]:
    """x, delta, A, B, C with a mean log decay of about -decay."""
    x, B, C = torch.randn(rows, d), torch.randn(rows, n), torch.randn(rows, n)
    values = [x, 2 * torch.rand(rows, d), -2 * decay * torch.rand(d, n), B, C]
    return [value.to(dtype) for value in values]


def attention_inputs(
    rows: int,
    heads: int = 2,
    k: int = 5,
    v: int = 7,
    dtype: torch.dtype = torch.float64,
    decay: float = 1.0,
    per_head: bool = False,
) -> list[Tensor]:
    """q, k, v, log_decay with a mean log decay of -decay."""
    keys = [torch.randn(rows, heads, k) * k**-0.5 for _ in range(2)]
    log_decay = -2 * decay * torch.rand(rows, heads, 1 if per_head else k)
    return [value.to(dtype) for value in (*keys, torch.randn(rows, heads, v), log_decay)]


def delta_inputs(
    rows: int, heads: int = 2, k: int = 5, v: int = 7, dtype: torch.dtype = torch.float64, decay: float = 1.0, steps: int = 1
) -> list[Tensor]:
    """q, k, v, beta, log_decay with a mean log decay of -decay."""
    keys = torch.nn.functional.normalize(torch.randn(rows, steps, heads, k), dim=-1)
    values = [
        torch.randn(rows, heads, k) * k**-0.5,
        keys,
        torch.randn(rows, steps, heads, v),
        2 * torch.rand(rows, steps, heads),
    ]
    return [value.to(dtype) for value in (*values, -2 * decay * torch.rand(rows, heads))]


def by_recurrence(
    name: str, groups: Groups, rows: list[Tensor], state: Tensor, reverse: bool = False, **options
) -> tuple[Tensor, Tensor]:
    """The recurrence as written in float64, one group after the other."""
    function = getattr(recurrent, name)
    outputs, states = [], []
    for i in range(groups.count):
        part = slice(int(groups.starts[i]), int(groups.starts[i + 1]))
        given = []
        for index, value in enumerate(rows):
            if name == "selective_scan" and index == 2:  # A
                given.append(value.double())
            else:
                given.append((value[part].flip(0) if reverse else value[part]).double()[None])
        y, last = function(*given, state[i : i + 1].double(), **options)
        outputs.append(y[0].flip(0) if reverse else y[0])
        states.append(last)
    return torch.cat(outputs), torch.cat(states)


def states(groups: Groups, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(groups.count, *shape, dtype=torch.float64).to(dtype)


def grads_of(outputs: tuple[Tensor, ...], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a weighted sum of the outputs with fixed weights."""
    weights = [torch.randn(value.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) for value in outputs]
    return torch.autograd.grad(sum((a.double() * w).sum() for a, w in zip(outputs, weights)), leaves)


MAKERS = {"selective_scan": selective_inputs, "decayed_attention": attention_inputs, "delta_rule": delta_inputs}
SHAPES = {"selective_scan": (6, 4), "decayed_attention": (2, 5, 7), "delta_rule": (2, 5, 7)}
