"""Trainings that are stopped in the middle, and what their logs say."""

import json


def stop_after(steps, monkeypatch, module, trainer):
    """Ask the loop of `trainer`, in `module`, to stop after so many of its steps."""

    class Stop:
        requested = False

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    one_step, stop, done = trainer._one_step, Stop(), [0]

    def stopping(self):
        done[0] += 1
        stop.requested = done[0] == steps
        return one_step(self)

    monkeypatch.setattr(module, "finish_step_on_interrupt", lambda: stop)
    monkeypatch.setattr(trainer, "_one_step", stopping)


def lines(folder):
    """The lines of metrics.jsonl without their times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]
