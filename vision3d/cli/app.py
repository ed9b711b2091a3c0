"""The program `vision3d`: finds the verb, runs it, and reports every failure as one line and an exit code."""

import contextlib
import errno
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vision3d import __version__
from vision3d.cli.verbs import VERBS
from vision3d.core import plugins
from vision3d.core.errors import MissingFileError, Vision3DError, nearest_names
from vision3d.core.plain import to_json

EXIT_CODES = """exit codes: 0 done, 1 the run failed, 2 usage, 3 input wrong, 4 missing dependency or backend,
            5 would overwrite, 130 interrupted (a checkpoint was written)"""


class UsageError(Vision3DError):
    """The command line is invalid."""

    exit_code = 2


def main() -> None:
    """Run the command line of this process and exit."""
    # torch's threads and those of the native kernels share the cores: threads that spin while waiting for work slow the
    # others down, on a busy machine several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` (without the program's name).

    Returns:
        The exit code.
    """
    try:
        code = _guarded(list(arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output closed it: `vision3d doctor | head -1`
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    return code


def help_text() -> str:
    """The text of `vision3d --help`."""
    plugged = {name: f"from {point.module.split('.')[0]}" for name, point in plugins.names("vision3d.stages").items()}
    rows = {**plugged, **{name: text for name, (_, text) in VERBS.items()}}
    width = max(map(len, rows))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, text in sorted(rows.items()))
    return f"""usage: vision3d VERB [OPTIONS]

Reconstruct, animate, simulate and edit 3D scenes from photos.

verbs (vision3d VERB --help lists their options):
{verbs}

options:
  -h, --help  show this text
  --version   show the version

{EXIT_CODES}"""


def _guarded(arguments: list[str]) -> int:
    """Run, and report errors unless the traceback was requested."""
    try:
        return _run(arguments)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as error:
        return _fail(arguments, str(error) or "interrupted", 130, error)
    except Vision3DError as error:
        return _fail(arguments, str(error), error.exit_code, error)
    except (MemoryError, RuntimeError) as error:
        from vision3d.cli.memory import memory_error

        return _fail(arguments, memory_error(error, arguments) or _internal(error), 1, error)
    except OSError as error:
        return _fail(arguments, _os_error_text(error), 3 if error.errno in _INPUT_ERRNOS else 1, error)
    except Exception as error:
        return _fail(arguments, _internal(error), 1, error)


_INPUT_ERRNOS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG}


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else 2
    if arguments[0] in ("--version", "-V"):
        print(f"vision3d {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS and verb in plugins.names("vision3d.stages"):
        return _exit_code_of(functools.partial(importlib.import_module("vision3d.cli.plugged").run, verb), rest)
    if verb not in VERBS:
        kind = "option" if verb.startswith("-") else "verb"
        raise UsageError(f"{verb}: unknown {kind}; {nearest_names(verb, VERBS)} (vision3d --help lists the verbs)")
    return _exit_code_of(importlib.import_module(VERBS[verb][0]).run, rest)


def _exit_code_of(run: Callable[[list[str]], int | None], arguments: list[str]) -> int:
    try:
        return run(arguments) or 0
    except SystemExit as stop:  # tyro exits after --help
        return stop.code if isinstance(stop.code, int) else 0


def _fail(arguments: list[str], text: str, code: int, error: BaseException) -> int:
    line = shortened(" ".join(text.split()))
    if "--traceback" in arguments or os.environ.get("VISION3D_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    print(line if code == 130 else f"error: {line}", file=sys.stderr)
    if "--json" in arguments:
        print(to_json({"ok": False, "exit_code": code, "error": line}))
    return code


def shortened(line: str) -> str:
    """The line with short paths, if it is too long, and its middle left out, if it is still: its end is what to do."""
    if len(line) > _MAX_LINE:
        line = with_short_paths(line)
    return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE // 2]} ... {line[-(_MAX_LINE // 2 - 5) :]}"


def with_short_paths(line: str) -> str:
    """The line with the last two names of long paths: their beginning tells least."""
    return _LONG_PATH.sub(lambda path: f".../{path[1]}", line)


_LONG_PATH = re.compile(r"/\S{30,}?/([^\s/]+/[^\s/]+)(?=\s|$)")
_MAX_LINE = 300 - len("error: ")


def _internal(error: Exception) -> str:
    return f"internal error: {type(error).__name__}: {error}; run again with --traceback and report it"


def _os_error_text(error: OSError) -> str:
    if isinstance(error, MissingFileError) or error.strerror is None:
        return str(error)
    return f"{Path(os.fsdecode(error.filename))}: {error.strerror}" if error.filename else error.strerror
