"""One line for exhausted memory of a CPU or a GPU: what was requested, what is available, and which option helps."""

import re
from collections.abc import Sequence

from vision3d.core.machine import free_memory

LESS = {
    "fit": "fewer --max-gaussians, a larger --downscale or a smaller --batch-size need less",
    "simulate": "fewer --cells or --max-particles need less",
    "mesh": "a lower --resolution, --max-view-size or --max-memory needs less",
    "render": "a smaller --size needs less",
    "view": "a smaller --size needs less",
    "animate fit": "a lower --resolution needs less",
    "animate static": "a smaller --batch-size needs less",
    "reproduce affnist": "a smaller --batch-size needs less",
    "reproduce rotation pointcloud": "fewer --points need less",
}
"""The options that reduce the memory of a verb."""
_GPU = re.compile(r"GPU (\d+) has a total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")


def memory_error(error: BaseException, arguments: Sequence[str]) -> str | None:
    """The line for an error of exhausted memory; None for other errors.

    torch has no class of its own for CPU memory, only texts: "you tried to allocate N bytes", and for a GPU "Tried to allocate
    2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is free".
    """
    text = str(error)
    if not isinstance(error, MemoryError) and "can't allocate memory" not in text and "out of memory" not in text:
        return None
    asked = re.search(r"[Tt]ried to allocate ([\d.]+) ?(\w+)", text)
    gpu = _GPU.search(text)
    if gpu:
        available = f"{gpu.group(3)} of {gpu.group(2)} are free on GPU {gpu.group(1)}"
    elif "CUDA" in text:
        available = ""
    else:
        free = free_memory()
        available = "" if free is None else f"{free / 1e9:.1f} GB are free"
    parts = [f"requested {_size(*asked.groups())}" if asked else "", available]
    numbers = ", ".join(part for part in parts if part)
    kind = "GPU memory" if "CUDA" in text else "memory"
    return f"out of {kind}: {numbers}; {_less(arguments)}" if numbers else f"out of {kind}; {_less(arguments)}"


def _size(number: str, unit: str) -> str:
    return f"{float(number) / 1e9:.1f} GB" if unit == "bytes" else f"{number} {unit}"


def _less(arguments: Sequence[str]) -> str:
    for count in (3, 2, 1):
        if (verb := " ".join(arguments[:count])) in LESS:
            return LESS[verb]
    return "smaller inputs need less"
