"""Sequence operators of `detect`: CPU microseconds for a token, native against the forms in torch, one thread.

python benchmarks/bench_operators.py [--busy] [--peers FOLDER]. A peer is a function of the arguments of
`stages/detect/operators/reference/recurrent.py`: the module `peers` has PEERS = {CASE: {NAME: FUNCTION}}.
"""

from collections.abc import Callable
from typing import Any

import torch
from support import ForeignLoad, arguments, cpu_times, load_peers, refuse_foreign_load, write
from torch import Tensor

from vision3d.stages.detect.operators import OPERATORS, make_operator, scans
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.reference import chunked, recurrent, selective

GROUPS, SIZE, SHORT = 3, 2048, 256  # the loop over tokens runs on SHORT of them
CHANNELS = 64


def attention(heads: int, keys: int, values: int, per_head: bool = False) -> list[Tensor]:
    """q, k, v, log decay of all groups."""
    rows = GROUPS * SIZE
    q, k = (torch.randn(rows, heads, keys) * keys**-0.5 for _ in range(2))
    return [q, k, torch.randn(rows, heads, values), -0.2 * torch.rand(rows, heads, 1 if per_head else keys)]


def delta(heads: int, keys: int, values: int, steps: int) -> list[Tensor]:
    """q, k, v, beta, log decay of all groups."""
    rows = GROUPS * SIZE
    k = torch.nn.functional.normalize(torch.randn(rows, steps, heads, keys), dim=-1)
    q, v = torch.randn(rows, heads, keys) * keys**-0.5, torch.randn(rows, steps, heads, values)
    return [q, k, v, torch.rand(rows, steps, heads), torch.zeros(rows, heads)]


def mamba(channels: int, states: int) -> list[Tensor]:
    """x, delta, A, B, C of all groups."""
    rows = GROUPS * SIZE
    A = -torch.arange(1.0, states + 1).repeat(channels, 1)
    B, C = torch.randn(rows, states), torch.randn(rows, states)
    return [torch.randn(rows, channels), 0.1 * torch.rand(rows, channels), A, B, C]


CASES: dict[str, tuple[str, Callable[[], list[Tensor]], tuple[int, ...], dict[str, Any]]] = {
    "mamba": ("selective_scan", lambda: mamba(128, 16), (128, 16), {}),
    "gla": ("decayed_attention", lambda: attention(4, 16, 16), (4, 16, 16), {}),
    "rwkv6": ("decayed_attention", lambda: attention(4, 16, 16), (4, 16, 16), {"exclusive": True}),
    "retnet": ("decayed_attention", lambda: attention(2, 32, 64, True), (2, 32, 64), {}),
    "mlstm": ("decayed_attention", lambda: attention(4, 32, 33, True), (4, 32, 33), {}),
    "deltanet": ("delta_rule", lambda: delta(4, 16, 16, 1), (4, 16, 16), {}),
    "deltaproduct, 3 steps": ("delta_rule", lambda: delta(4, 16, 16, 3), (4, 16, 16), {}),
}
TORCH = {
    "selective_scan": selective.selective_scan,
    "decayed_attention": chunked.decayed_attention,
    "delta_rule": chunked.delta_rule,
}


def padded(rows: list[Tensor], size: int, is_selective: bool) -> list[Tensor]:
    """(groups, size, ...) of rows of equal groups."""
    cut = [value.view(GROUPS, SIZE, *value.shape[1:])[:, :size] for value in rows if len(value) == GROUPS * SIZE]
    return [*cut[:2], rows[2], *cut[2:]] if is_selective else cut


def measure(scan: Callable[..., Any], rows: list[Tensor], tokens: int, repeats: int) -> dict[str, float]:
    """Microseconds for a token: forward, and forward with backward."""
    leaves = [value.detach().requires_grad_() for value in rows]

    def forward() -> None:
        with torch.no_grad():
            scan(*leaves)

    def both() -> None:
        torch.autograd.grad(scan(*leaves)[0].sum(), leaves, allow_unused=True)

    return {
        "forward_us": round(cpu_times(forward, repeats, 1)["min"] / tokens * 1e6, 3),
        "forward_backward_us": round(cpu_times(both, repeats, 1)["min"] / tokens * 1e6, 3),
    }


def products(heads: int, keys: int, values: int) -> float:
    """Microseconds for a token of the four matrix products of a form by chunks, without decays, at the best size of a chunk."""
    best = float("inf")
    for chunk in (16, 32, 64, 128):
        count = GROUPS * SIZE * heads // chunk
        (q, k), v, S = torch.randn(2, count, chunk, keys), torch.randn(count, chunk, values), torch.randn(count, keys, values)
        scores, o, change = torch.empty(count, chunk, chunk), torch.empty_like(v), torch.empty_like(S)

        def run(q=q, k=k, v=v, S=S, scores=scores, o=o, change=change) -> None:
            torch.bmm(q, k.mT, out=scores)
            torch.bmm(scores, v, out=o)
            torch.baddbmm(o, q, S, out=o)
            torch.bmm(k.mT, v, out=change)

        best = min(best, cpu_times(run, 7, 1)["min"] / (GROUPS * SIZE) * 1e6)
    return round(best, 3)


def of_case(name: str, peers: dict[str, Any]) -> dict[str, Any]:
    """All forms of a recurrence, in one direction."""
    function, make, shape, options = CASES[name]
    rows, groups, state = make(), Groups.equal(GROUPS, SIZE), torch.zeros(GROUPS, *shape)
    found: dict[str, Any] = {"shape": list(shape)}
    ours = getattr(scans, function)
    found["native"] = measure(lambda *given: ours(*given, groups, **options), rows, GROUPS * SIZE, 7)
    is_selective = function == "selective_scan"
    many = padded(rows, SIZE, is_selective)
    form = TORCH[function]
    found["torch by chunks"] = measure(lambda *given: form(*given, state, **options), many, GROUPS * SIZE, 3)
    few = padded(rows, SHORT, is_selective)
    loop = getattr(recurrent, function)
    found["torch by token"] = measure(lambda *given: loop(*given, state, **options), few, GROUPS * SHORT, 3)
    for peer, call in peers.get(name, {}).items():
        found[peer] = measure(lambda *given, call=call: call(*given, state), few, GROUPS * SHORT, 3)
        want, got = loop(*(value.double() for value in few), state.double(), **options)[0], call(*few, state)[0]
        found[peer]["largest_difference"] = float((got - want).abs().max() / want.abs().max())
    if function == "decayed_attention":
        found["products of chunks alone"] = {"forward_us": products(*shape)}
    base = found["native"]
    for kind, times in found.items():
        if kind not in ("shape", "native"):
            for pass_name in ("forward", "forward_backward"):
                if f"{pass_name}_us" in times:
                    times[f"ratio_{pass_name}"] = round(times[f"{pass_name}_us"] / base[f"{pass_name}_us"], 1)
    return found


def of_operator(name: str) -> dict[str, Any]:
    """A whole bidirectional operator with its block parts."""
    torch.manual_seed(0)
    made, x = make_operator(name, CHANNELS), torch.randn(GROUPS, SIZE, CHANNELS)
    parameters = list(made.parameters())
    times = measure(lambda value: (made(value),), [x], GROUPS * SIZE, 5)

    def step() -> None:
        torch.autograd.grad(made(x).sum(), parameters)

    both = cpu_times(step, 5, 1)["min"] / (GROUPS * SIZE) * 1e6
    return {
        "parameters": sum(value.numel() for value in parameters),
        "forward_us": times["forward_us"],
        "training_us": round(both, 3),
    }


def main() -> None:
    options = arguments(__doc__)
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    peers = load_peers(options.peers)
    with ForeignLoad() as load:
        cases = {}
        for name in CASES:
            cases[name] = of_case(name, peers)
            print(name, cases[name], flush=True)
        operators = {}
        for name in OPERATORS:
            operators[name] = of_operator(name)
            print(name, operators[name], flush=True)
    write("operators", {"tokens": GROUPS * SIZE, "recurrences": cases, "operators_64_channels": operators}, load.share)


if __name__ == "__main__":
    main()
