"""Trainings that are stopped midway, and the contents of their logs."""

import json
import os
import signal

from vision3d.training.network import NetworkTrainer


def stop_after(steps, monkeypatch, module):
    """Stops the loop whose `finish_step_on_interrupt` is in `module` after a number of training steps."""

    class Stop:
        requested = False

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    one_step, stop, done = NetworkTrainer.step, Stop(), [0]

    def stopping(self, *args):
        done[0] += 1
        stop.requested = done[0] == steps
        return one_step(self, *args)

    monkeypatch.setattr(module, "finish_step_on_interrupt", lambda: stop)
    monkeypatch.setattr(NetworkTrainer, "step", stopping)


def interrupt_at(stop_at, task):
    """A progress callback that sends Ctrl-C to this process after a step of a task."""

    def stop(name, step, total, values):
        if name == task and step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    return stop


def lines(folder):
    """Lines of metrics.jsonl without times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]
