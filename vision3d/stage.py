"""What all stages share: a run folder with lock, inputs, summary and report, the same from Python and from the CLI."""

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
    """What `stage` was told of a function, which the function has as `spec`."""

    verb: str
    inputs: Mapping[str, str]
    """Names of its arguments that are inputs -> names of the verb's options for them."""
    resumable: Collection[str]
    grows: Collection[str]
    results: Callable[[Any], Mapping[str, Any]]


class Session:
    """One session of a run; `results` is what its summary is going to have."""

    results: Mapping[str, Any] | None = None


@contextlib.contextmanager
def session(folder: RunFolder, verb: str, inputs: Mapping[str, Any]) -> Iterator[Session]:
    """Work in a run folder: locked, with inputs.yaml; in the end it has summary.json and report.html.

    An error leaves summary.json with the status `failed` or `interrupted`; where the input or an option was wrong and nothing
    was written yet, the folder goes, so that the corrected command finds nothing in its way. Inside another session of the
    same folder (a stage inside of a verb) this does nothing.

    Args:
        folder: The run folder.
        verb: Such as `fit` or `animate rig`.
        inputs: By the names of the verb's options: paths are kept for `--resume`, objects are only named.
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
        # What can be corrected and given again, such as a mistyped path, must not find its own folder in the way.
        is_correctable = isinstance(error, OSError) or (isinstance(error, Vision3DError) and error.exit_code != 1)
        with contextlib.suppress(OSError, Vision3DError):  # a full disk must not hide what went wrong first
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
    """Makes a function with the arguments `config` and `run_folder` work in a `session` of its run folder.

    `run_folder` may be None (nothing is written), a path (a new run folder), or a `RunFolder` (one that is resumed, too).

    Args:
        verb: The verb of the program that runs it.
        inputs: Names of its arguments that are inputs -> names of the verb's options for them.
        resumable: Dotted keys of the configuration that may change when a run is resumed.
        grows: Dotted keys that may become larger when a run is resumed.
        config: Makes the configuration where None is given.
        results: The results for the summary, out of what the function returns.

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
            device = resolve_device(getattr(settings, "device", "auto"))
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

        setattr(run, "spec", StageSpec(verb, inputs, resumable, grows, results))  # noqa: B010  a function takes any name
        return run

    return decorate


def check_config(function: Callable[..., Any], settings: Any) -> None:
    """Refuse what stands in the place of the configuration and is none, such as an input.

    Raises:
        ConfigError: Says what `function` wants.
    """
    hint = get_type_hints(function).get("config")
    kinds = [kind for kind in get_args(hint) or (hint,) if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    if kinds and not isinstance(settings, tuple(kinds)):
        name, *names = inspect.signature(function).parameters
        call = f"{function.__name__}({', '.join([name, *names[:1]])}, ...)"
        want = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError("config", f"{function.__name__}: got {type(settings).__name__}, want {want}: {call}")


def _write_inputs(folder: RunFolder, given: RunInputs) -> None:
    """Note what the run works on; what was a file in an earlier session and now comes as an object stays noted."""
    known = {} if folder.made_anew else RunInputs.read(folder.path).values
    kept = {name: known[name] for name in given.from_python if known.get(name) is not None}
    objects = tuple(name for name in given.from_python if name not in kept)
    RunInputs(given.verb, {**given.values, **kept}, objects).write(folder.path)


def _as_paths(value: Any) -> Any:
    """From Python a text is a path."""
    if isinstance(value, str):
        return Path(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str | Path) for item in value):
        return [Path(item) for item in value]
    return value


def _is_first_process() -> bool:
    """Under torchrun only the first process writes."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
