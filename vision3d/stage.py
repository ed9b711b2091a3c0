"""What all stages share: a run folder with lock, inputs, summary and report, the same from Python and the command line."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from vision3d.core.device import repeatable, resolve_device
from vision3d.core.errors import ConfigError, Vision3DError
from vision3d.core.run_files import RunInputs
from vision3d.core.runs import RunFolder

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class StageSpec:
    """Arguments of `stage` for a function, stored as its attribute `spec`."""

    verb: str
    inputs: Mapping[str, str]
    """Input arguments of the function -> names of the verb's options for them."""
    resumable: Collection[str]
    grows: Collection[str]
    results: Callable[[Any], Mapping[str, Any]]


class Session:
    """One session of a run; `results` go into its summary."""

    results: Mapping[str, Any] | None = None


@contextlib.contextmanager
def session(folder: RunFolder, verb: str, inputs: Mapping[str, Any]) -> Iterator[Session]:
    """Work in a run folder: lock it and write inputs.yaml; at the end write summary.json and report.html.

    After an error summary.json has the status `failed` or `interrupted`; if an input or an option was wrong and nothing was
    written yet, the folder is removed, so that the corrected command can use it. Inside another session of the same folder (a
    stage called by a verb) this does nothing.

    Args:
        folder: The run folder.
        verb: For example `fit` or `animate rig`.
        inputs: By option name of the verb: paths are recorded for `--resume`, objects only by name.
    """
    if folder.is_in_session:
        yield Session()
        return
    folder.lock()
    folder.is_in_session = True
    try:
        _write_inputs(folder, RunInputs.of(verb, inputs))
        current = Session()
        yield current
        results = current.results or {}
        folder.write_summary(results, device=results.get("device", "cpu"))
        from vision3d.report.page import write_report

        write_report(folder.path)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        # If the input can be corrected, such as a mistyped path, the corrected command must not fail on its own folder.
        is_correctable = isinstance(error, OSError) or (isinstance(error, Vision3DError) and error.exit_code != 1)
        with contextlib.suppress(OSError, Vision3DError):  # a full disk must not hide the first error
            if not (is_correctable and folder.drop_unused()):
                folder.write_summary({"error": str(error)}, status=status)
        raise
    finally:
        folder.is_in_session = False
        folder.unlock()


def stage(
    verb: str,
    inputs: Mapping[str, str],
    *,
    resumable: Collection[str] = (),
    grows: Collection[str] = (),
    config: Callable[[], Any] | None = None,
    results: Callable[[Any], Mapping[str, Any]] = lambda result: result.summary,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that runs a function with arguments `config` and `run_folder` in a `session` of its run folder.

    `run_folder` may be None (nothing is written), a path (a new run folder), or a `RunFolder` (possibly a resumed one).

    Args:
        verb: The verb of the command line that runs it.
        inputs: Input arguments of the function -> names of the verb's options for them.
        resumable: Dotted keys of the configuration that may change when a run is resumed.
        grows: Dotted keys that may be larger when a run is resumed.
        config: Builds the configuration if None is given.
        results: Extracts the results for the summary from the return value.

    Example:
        @stage("fit", {"inputs": "data"}, grows=("steps",))
        def fit(config, inputs, *, run_folder=None, progress=None): ...
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            folder = bound.arguments["run_folder"]
            settings = bound.arguments["config"]
            settings = config() if settings is None and config is not None else settings
            check_config(function, settings)
            device = resolve_device(getattr(settings, "device", "auto"), backend=getattr(settings, "backend", "auto"))
            if folder is None or not _is_first_process():
                bound.arguments["run_folder"] = None
                with repeatable(device):
                    return function(*bound.args, **bound.kwargs)
            if not isinstance(folder, RunFolder):
                folder = RunFolder.create(folder, settings, ignore=resumable, grows=grows)
                bound.arguments["run_folder"] = folder
            folder.checkpoints.keep = getattr(settings, "keep", folder.checkpoints.keep)
            given = {option: _as_paths(bound.arguments[name]) for name, option in inputs.items()}
            with session(folder, verb, given) as current, repeatable(device):
                result = function(*bound.args, **bound.kwargs)
                current.results = results(result)
            return result

        setattr(run, "spec", StageSpec(verb, inputs, resumable, grows, results))  # noqa: B010  functions accept any attribute
        return run

    return decorate


def check_config(function: Callable[..., Any], settings: Any) -> None:
    """Raise an error if the argument in the place of the configuration is something else, such as an input.

    Raises:
        ConfigError: The message has the expected call of `function`.
    """
    hint = get_type_hints(function).get("config")
    kinds = [kind for kind in get_args(hint) or (hint,) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    if kinds and not isinstance(settings, tuple(kinds)):
        name, *names = inspect.signature(function).parameters
        call = f"{function.__name__}({', '.join([name, *names[:1]])}, ...)"
        want = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError("config", f"{function.__name__}: got {type(settings).__name__}, want {want}: {call}")


def _write_inputs(folder: RunFolder, given: RunInputs) -> None:
    """Record the inputs of the run; an input that was a file in an earlier session and is now an object stays recorded."""
    known = {} if folder.made_anew else RunInputs.read(folder.path).values
    kept = {name: known[name] for name in given.from_python if known.get(name) is not None}
    objects = tuple(name for name in given.from_python if name not in kept)
    RunInputs(given.verb, {**given.values, **kept}, objects).write(folder.path)


def _as_paths(value: Any) -> Any:
    """In Python a string is a path."""
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str | Path) for item in value):
        return [Path(item) for item in value]
    return value


def _is_first_process() -> bool:
    """Under torchrun only the first process writes."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
