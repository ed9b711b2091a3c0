"""Verbs for stages: options, run folder, progress and summary around the stage's function."""

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vision3d.cli.app import UsageError
from vision3d.cli.options import RunOptions, input_names, parse, shown_name
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.config import dump_yaml
from vision3d.core.errors import ConfigError
from vision3d.core.plain import to_json
from vision3d.core.progress import ProgressCallback, TerminalProgress, silent
from vision3d.core.run_files import RunInputs

if TYPE_CHECKING:
    pass

OptionsT = TypeVar("OptionsT", bound=RunOptions)


def stage_verb(
    verb: str,
    options_class: type[OptionsT],
    execute: "Callable[[OptionsT, Any, ProgressCallback], Mapping[str, Any]]",
    *,
    stage: str,
    resumable: Collection[str] = (),
    grows: Collection[str] = (),
    text_of: Callable[[Path, Mapping[str, Any]], str] | None = None,
    bases: Mapping[str, Callable[[Any, str | None], Any]] | None = None,
    is_distributed: bool = False,
) -> Callable[[Sequence[str]], None]:
    """The `run` function of a verb module for a stage.

    Args:
        verb: Name of the verb.
        options_class: Subclass of `RunOptions` with a field `settings: Settings[TheirConfig]`.
        execute: Calls the stage with the options, the run folder (None in the other processes of torchrun) and the progress
            callback; returns the results.
        stage: Folder of its presets below `configs/`.
        resumable: Dotted keys of the settings that may change when a run is resumed.
        grows: Dotted keys that may be larger when a run is resumed.
        text_of: Formats the summary from the run folder's path and the results; None lists them.
        bases: Options that change several settings at once (`options.parse`).
        is_distributed: Whether processes started by torchrun work together; the first writes and prints.
    Example:
        def _fit(options, run_folder, progress):
            from vision3d.stages.fit import fit
            return fit(options.settings, options.data, run_folder=run_folder, progress=progress).summary

        run = stage_verb("fit", FitOptions, _fit, stage="fit", grows={"steps"})
    """

    def run(arguments: Sequence[str]) -> None:
        if not is_distributed or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return run_alone(parse(options_class, arguments, verb, stage=stage, bases=bases))
        from vision3d.training.group import launched_group

        options = parse(options_class, arguments, verb, stage=stage, bases=bases)
        set_up_output(options)
        settings: Any = getattr(options, "settings")  # noqa: B009  subclasses have it
        with launched_group(settings.device, backend=getattr(settings, "backend", "auto")) as group:
            if group.is_first:
                return run_alone(options)
            if options.print_config:
                return
            set_up_output(dataclasses.replace(options, quiet=True, verbose=False))
            execute(options, None, silent)

    def run_alone(options: OptionsT) -> None:
        settings: Any = getattr(options, "settings")  # noqa: B009  subclasses have it
        set_up_output(options)
        if options.print_config:
            print(dump_yaml(settings), end="")
            return
        if options.out is None and (options.resume or options.overwrite):
            raise UsageError(f"--{'resume' if options.resume else 'overwrite'} needs the run folder: give --out")
        if options.resume and options.overwrite:
            raise UsageError("--resume and --overwrite are mutually exclusive: one resumes the run, the other deletes it")
        out = options.out or Path("runs") / f"{verb.replace(' ', '_')}_{time.strftime('%Y%m%d-%H%M%S')}"
        changes = {flag.removeprefix("--").replace("-", "_") for flag in bases or {}}  # their effect is in the settings
        inputs = {name: getattr(options, name) for name in input_names(options_class) if name not in changes}
        from vision3d.core.runs import Interrupted, RunFolder
        from vision3d.stage import session

        if options.resume:
            _check_inputs(options_class, out, verb, inputs)
        folder = RunFolder.create(
            out, settings, overwrite=options.overwrite, resume=options.resume, ignore=resumable, grows=grows
        )
        try:
            with session(folder, verb, inputs) as current, TerminalProgress(quiet=options.quiet) as progress:
                results = current.results = execute(options, folder, progress)
        except Interrupted as error:
            raise Interrupted(f"{error}; resume with --resume --out {out}") from None
        wall_s = folder.elapsed()
        lines = [f"{name}: {_text(value)}" for name, value in results.items()]
        lines += [f"wall_s: {wall_s:.1f}", f"run folder: {out}"]
        text = "\n".join(lines) if text_of is None else text_of(out, results)
        print_summary(options, text, {"out": out, "wall_s": round(wall_s, 3), **results})

    return run


def _check_inputs(cls: type, out: Path, verb: str, given: Mapping[str, Any]) -> None:
    """Raise an error for other inputs than those of the resumed run, unless they were moved: then the stage compares them."""
    known = RunInputs.read(out).values
    for name, new in RunInputs.of(verb, given).values.items():
        old = known.get(name, new)
        paths = [old] if isinstance(old, str) else old if isinstance(old, list) else []
        if new != old and not isinstance(new, bool) and all(Path(path).exists() for path in paths):
            was, now = (value if isinstance(value, str) else to_json(value) for value in (old, new))
            raise ConfigError(shown_name(cls, name), f"cannot resume {out}, which is a run on {was}, with {now}")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
