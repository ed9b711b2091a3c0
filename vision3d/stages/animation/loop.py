"""Steps of an optimiser with checkpoints."""

from collections.abc import Callable, Iterator, Sequence

from vision3d.errors import NumericalError
from vision3d.progress import Progress, ProgressCallback
from vision3d.runs import Interrupted, StopSignal


def remaining_steps(
    name: str,
    first: int,
    total: int,
    one_step: Callable[[int], dict[str, float]],
    save: Callable[[], None],
    stop: StopSignal,
    callback: ProgressCallback | None,
    shown: Sequence[str] = ("loss",),
) -> Iterator[dict[str, float]]:
    """Do the steps from `first` on and yield what each gives; `save` at the end, when asked to stop, and before an error.

    Args:
        name: For the progress.
        first: Steps that are done.
        total: Steps in all.
        one_step: Does a step of this number.
        save: Writes a checkpoint.
        stop: Whether to stop.
        callback: Takes the progress.
        shown: Values of the steps that it shows.

    Raises:
        NumericalError: A step failed.
        Interrupted: Stopped.
    """
    with Progress(total, name, callback) as bar:
        for step in range(first, total):
            if stop.requested:
                save()
                raise Interrupted(f"stopped after step {step}")
            try:
                values = one_step(step)
            except NumericalError:
                save()
                raise
            yield values
            bar.update(step + 1, **{key: values[key] for key in shown})
    save()
