"""Times of calls on a GPU, in turns with the same work by other packages, for bench_gpu.py."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]
OURS = "vision3d"
MIN_REPEATS = 6  # fewer have no 95 % interval of the median
SAMPLE_MS, MAX_CALLS = 5.0, 100  # short calls are repeated within a sample
MAX_DISTANCE = 0.02  # of the results of a peer, relative: beyond, it does other work


@dataclass
class Case:
    """The same work by us and by others.

    Attributes:
        calls: What is timed, by name; `vision3d` is ours.
        results: For some of the names, a call whose result is compared with ours before anything is timed.
        absent: Peers that cannot run here, with the reason.
        about: Sizes, as plain values.
        per_call: Units of work in a call, for example time steps; times are divided by it.
    """

    calls: dict[str, Call]
    results: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    per_call: int = 1


def median_with_interval(values: list[float]) -> dict[str, float]:
    """The median and its 95 % interval from order statistics, which assumes nothing about the distribution."""
    ordered, count = sorted(values), len(values)
    if count < MIN_REPEATS:
        raise ValueError(f"repeats: got {count}, want at least {MIN_REPEATS}")
    outside, tail = 0, 0.5**count  # tail: probability that at most `outside` of the values are below the median
    while tail + math.comb(count, outside + 1) * 0.5**count <= 0.025:
        outside += 1
        tail += math.comb(count, outside) * 0.5**count
    return {"median": statistics.median(ordered), "low": ordered[outside], "high": ordered[count - 1 - outside]}


def one_sample(call: Call, calls: int) -> tuple[float, float]:
    """Milliseconds per call by CUDA events, and by the clock of the CPU until the GPU is done."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start = time.perf_counter()
    first.record()
    for _ in range(calls):
        call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / calls, 1e3 * (time.perf_counter() - start) / calls


def measure(case: Case, *, repeats: int, warmup: int = 3) -> dict[str, Any]:
    """Medians of all calls, taken in turns, and the ratio of our time to that of each peer in the same round.

    A peer that fails or runs out of memory is listed under `failed` with the reason; so is one whose result differs from ours,
    which is timed, too, but not compared.
    """
    failed: dict[str, str] = {}
    apart: dict[str, float] = {}
    calls, often = dict(case.calls), {}
    for name, call in case.calls.items():
        try:
            if name != OURS and name in case.results:
                apart[name] = distance(case.results[OURS](), case.results[name]())
            for _ in range(warmup):
                call()
            often[name] = min(MAX_CALLS, max(1, math.ceil(SAMPLE_MS / max(one_sample(call, 1)[1], 1e-6))))
        except Exception as error:
            if name == OURS:
                raise
            failed[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            del calls[name]
    for name in calls.keys() & apart.keys():
        if not apart[name] <= MAX_DISTANCE:
            failed[name] = f"its result differs from ours by {apart[name]:.3g} of its norm, want at most {MAX_DISTANCE}"
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(repeats):
        for name in order:
            times[name].append(one_sample(calls[name], often[name]))
        order = order[1:] + order[:1]  # nobody is always first after the others
    found: dict[str, Any] = {**case.about, "absent": case.absent, "failed": failed, "distance_from": apart}
    found |= {"times": {}, "time_relative_to": {}}
    for name, samples in times.items():
        gpu, wall = ([sample[k] / case.per_call for sample in samples] for k in range(2))
        found["times"][name] = {"gpu_ms": median_with_interval(gpu), "wall_ms": median_with_interval(wall)}
        if name != OURS and name not in failed:
            ratios = [ours[1] / theirs[1] for ours, theirs in zip(times[OURS], samples)]
            found["time_relative_to"][name] = median_with_interval(ratios)
    return found


def distance(a: Tensor, b: Tensor) -> float:
    """Norm of the difference relative to that of the first; infinite for other shapes."""
    if a.shape != b.shape:
        return math.inf
    return float((a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-30))


def table(name: str, found: Mapping[str, Any]) -> str:
    """One line of text for each contestant."""
    lines = [name]
    for who, times in found["times"].items():
        wall, gpu = times["wall_ms"], times["gpu_ms"]
        line = f"  {who:14} {wall['median']:9.3f} ms [{wall['low']:.3f}, {wall['high']:.3f}], events {gpu['median']:.3f} ms"
        if who in found["time_relative_to"]:
            ratio = found["time_relative_to"][who]
            line += f"; vision3d takes {ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}] of it"
        lines.append(line)
    lines += [f"  {who:14} absent: {why}" for who, why in found["absent"].items()]
    lines += [f"  {who:14} failed: {why}" for who, why in found["failed"].items()]
    return "\n".join(lines)
