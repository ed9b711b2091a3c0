"""Runs a job of `vision3d.io.sfm_worker` in a separate process, which ends with this process and with Ctrl-C."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from vision3d.core.errors import MissingDependencyError, Vision3DError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import Interrupted

_LAST_LINES = 300  # characters of the error stream included in a message


def check_pycolmap() -> None:
    """Raise a MissingDependencyError if pycolmap is not installed; it is not imported."""
    if importlib.util.find_spec("pycolmap") is None:
        raise MissingDependencyError("pycolmap", "sfm", "finding cameras and points in photos")


def run_job(job: dict[str, Any], progress: ProgressCallback | None) -> dict[str, Any]:
    """Run a job and return its result.

    Args:
        job: Its `kind`, `folder` and options; the number of threads is added.
        progress: Progress callback.

    Raises:
        Interrupted: Stopped by Ctrl-C or SIGTERM; the process has been stopped.
        Vision3DError: The process failed.
    """
    job = {**job, "threads": torch.get_num_threads()}
    threads = str(job["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    with tempfile.TemporaryFile() as errors, _interruptible():
        process = subprocess.Popen(
            [sys.executable, "-m", "vision3d.io.sfm_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
            start_new_session=True,  # only this process receives Ctrl-C of the terminal
        )
        try:
            return _result(process, job, progress, errors)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()  # pyright: ignore[reportOptionalMemberAccess]


def _result(process: subprocess.Popen[str], job: dict[str, Any], progress: ProgressCallback | None, errors: Any) -> Any:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once: its error stream has the reason
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    with contextlib.ExitStack() as open_bars:
        bars: dict[str, Progress] = {}
        for line in process.stdout:
            event = json.loads(line)
            if "progress" in event:
                task, step, total = event["progress"]
                if task not in bars:
                    bars[task] = open_bars.enter_context(Progress(total, task, progress))
                bars[task].update(step)
            elif "result" in event:
                return event["result"]
            else:
                raise Vision3DError(f"pycolmap failed: {event['error']}")
    code = process.wait()
    errors.seek(0)
    last = " ".join(errors.read().decode("utf-8", "replace").split())[-_LAST_LINES:]
    raise Vision3DError(f"pycolmap ended with code {code}{': ' + last if last else ''}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise Interrupted, in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupted("stopped during the search for cameras")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder with a folder `images`."""
    with tempfile.TemporaryDirectory(prefix="vision3d-sfm-") as work:
        (Path(work) / "images").mkdir()
        yield Path(work)
