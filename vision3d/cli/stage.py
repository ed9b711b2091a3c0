"""A verb out of a stage: options, run folder, progress and summary around the stage's own `run`."""

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vision3d.cli.app import UsageError
from vision3d.cli.options import RunOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.config import dump_yaml
from vision3d.errors import Vision3DError
from vision3d.progress import ProgressCallback, TerminalProgress

if TYPE_CHECKING:
    from vision3d.runs import RunFolder

OptionsT = TypeVar("OptionsT", bound=RunOptions)


def stage_verb(
    verb: str,
    options_class: type[OptionsT],
    execute: "Callable[[OptionsT, RunFolder, ProgressCallback], Mapping[str, Any]]",
    *,
    stage: str,
    resumable: Collection[str] = (),
    text_of: Callable[[Path, Mapping[str, Any]], str] | None = None,
    bases: Mapping[str, Callable[[Any, str | None], Any]] | None = None,
) -> Callable[[Sequence[str]], None]:
    """The `run` function of a verb module that runs a stage.

    Args:
        verb: Name of the verb.
        options_class: Subclass of `RunOptions` with a field `settings: Settings[TheirConfig]`.
        execute: Calls the stage with the options, the run folder and the progress; returns the results.
        stage: Folder of its presets below `configs/`.
        resumable: Dotted keys of the settings that may change when a run is resumed.
        text_of: Makes the summary for people out of the run folder's path and the results; None lists them.
        bases: Options that change several settings at once (`options.parse`).

    Example:
        def _fit(options, run_folder, progress):
            from vision3d.stages.fitting import fit
            return fit(options.settings, options.data, run_folder=run_folder, progress=progress).summary

        run = stage_verb("fit", FitOptions, _fit, stage="fitting", resumable={"steps"})
    """

    def run(arguments: Sequence[str]) -> None:
        options = parse(options_class, arguments, verb, stage=stage, bases=bases)
        settings: Any = getattr(options, "settings")  # noqa: B009  subclasses have it
        set_up_output(options)
        if options.print_config:
            print(dump_yaml(settings), end="")
            return
        if options.out is None and (options.resume or options.overwrite):
            raise UsageError(f"--{'resume' if options.resume else 'overwrite'} needs the run folder: give --out")
        if options.resume and options.overwrite:
            raise UsageError("--resume and --overwrite: the one goes on with the run that is there, the other empties it")
        out = options.out or Path("runs") / f"{verb.replace(' ', '_')}_{time.strftime('%Y%m%d-%H%M%S')}"
        from vision3d.runs import Interrupted, RunFolder

        folder = RunFolder.create(out, settings, overwrite=options.overwrite, resume=options.resume, ignore=resumable)
        try:
            with TerminalProgress(quiet=options.quiet) as progress:
                results = execute(options, folder, progress)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            # What can be mended and given again, such as a mistyped path, must not find its own folder in the way.
            is_mendable = isinstance(error, OSError) or (isinstance(error, Vision3DError) and error.exit_code != 1)
            with contextlib.suppress(OSError, Vision3DError):  # a full disk must not hide what went wrong first
                if not (is_mendable and folder.drop_unused()):
                    folder.write_summary({"error": str(error)}, status=status)
            if isinstance(error, Interrupted):
                raise Interrupted(f"{error}; go on with --resume --out {out}") from None
            raise
        summary = folder.write_summary(results, device=results.get("device", "cpu"))
        from vision3d.report.page import write_report

        write_report(out)
        lines = [f"{name}: {_text(value)}" for name, value in results.items()]
        lines += [f"wall_s: {summary['wall_s']:.1f}", f"run folder: {out}"]
        text = "\n".join(lines) if text_of is None else text_of(out, results)
        print_summary(options, text, {"out": out, "wall_s": summary["wall_s"], **summary["results"]})

    return run


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
