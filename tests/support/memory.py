"""Peak memory of this process since a given time (Linux)."""

from pathlib import Path


def forget_peak() -> int:
    """Resets the peak and returns the current resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Peak resident bytes since the last `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
