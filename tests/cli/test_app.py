import json
import os
import re
import subprocess
import sys
import types

import pytest
import torch

from vision3d.cli import verbs
from vision3d.cli.memory import LESS, memory_error
from vision3d.cli.verbs import VERBS
from vision3d.core import errors
from vision3d.core.install import install_command


def run_program(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vision3d", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def verb(monkeypatch):
    """Registers a command `try` that calls the given function."""

    def register(function):
        module = types.ModuleType("verb_of_a_test")
        module.run = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(verbs.VERBS, "try", (module.__name__, "a verb"))

    return register


def raising(error):
    def run(arguments):
        raise error

    return run


def test_help_lists_the_commands_without_heavy_imports():
    done = run_program("--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "vision3d.cli.app" in imported
    assert not imported & {"torch", "numpy", "tyro", "rich", "yaml", "scipy"}
    assert done.returncode == 0
    for name, (_, text) in VERBS.items():
        assert name in done.stdout and text in done.stdout


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_command_has_help_without_torch(name):
    done = run_program(name, "--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: vision3d {name} ")
    assert not any(line.endswith(" torch") for line in done.stderr.splitlines())


def test_version(cli):
    from vision3d import __version__

    assert cli("--version") == (0, f"vision3d {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctr"], "error: doctr: unknown verb; did you mean doctor? (vision3d --help lists the verbs)\n"),
        (["--jsno"], "error: --jsno: unknown option; "),
        (["doctor", "--jsno"], "error: --jsno: unknown option of vision3d doctor; did you mean --json?\n"),
        (["doctor", "more"], "error: Unrecognized options: more (vision3d doctor --help lists the options)\n"),
    ],
)
def test_usage_errors(cli, arguments, message):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message) and err.count("\n") == 1


def test_no_command_shows_the_help_and_fails(cli):
    code, out, _ = cli()
    assert code == 2 and out.startswith("usage: vision3d VERB")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.InputError("too few views:\n  2"), 3, "error: too few views: 2"),
        (errors.FileFormatError("a.ply", "is truncated", 12), 3, "error: a.ply at byte 12: is truncated"),
        (errors.MissingFileError("a.ply"), 3, "error: a.ply: does not exist; want an existing file or folder"),
        (errors.ConfigError("steps", "got 0"), 2, "error: steps: got 0"),
        (
            errors.MissingDependencyError("open3d", "viewer"),
            4,
            f"error: open3d is needed for this: {install_command('viewer')}",
        ),
        (errors.OutputExistsError("run"), 5, "error: run: exists and is not empty; give --overwrite, --resume or"),
        (errors.NumericalError(3, "loss"), 1, "error: step 3: loss is not finite"),
        (PermissionError(13, "Permission denied", "/x"), 3, "error: /x: Permission denied"),
        (OSError(36, "File name too long", "aaa"), 3, "error: aaa: File name too long"),
        (OSError(28, "No space left on device", "/x/a.ply"), 1, "error: /x/a.ply: No space left on device"),
        (MemoryError(), 1, "error: out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes."),
            1,
            "error: out of memory: requested 4000.0 GB, ",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 1, "error: out of GPU memory; smaller inputs need less"),
        (RuntimeError("strange"), 1, "error: internal error: RuntimeError: strange; run again with --traceback"),
        (
            ZeroDivisionError("division"),
            1,
            "error: internal error: ZeroDivisionError: division; run again with --trace",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("stopped after step 3"), 130, "stopped after step 3"),
    ],
)
def test_failures_are_one_line_and_an_exit_code(cli, verb, error, code, text):
    verb(raising(error))
    got, out, err = cli("try")
    assert (got, out) == (code, "")
    assert err.startswith(text) and err.count("\n") == 1


def test_error_lines_have_at_most_300_characters(cli, verb):
    verb(raising(errors.InputError(f"{5000 * 'a'}: want {5000 * 'b'}; use --skip-missing")))
    _, out, err = cli("try", "--json")
    assert err.startswith("error: aaa") and err.endswith("bbb; use --skip-missing\n") and " ... " in err
    assert 290 < len(err.rstrip()) <= 300 and json.loads(out)["error"] == err.removeprefix("error: ").rstrip()
    whole = "a" * (300 - len("error: "))
    verb(raising(errors.InputError(whole)))
    assert cli("try")[2] == f"error: {whole}\n"


def test_exhausted_memory_names_numbers_and_options():
    text = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 79.15 GiB of which 1.20 GiB is free. "
        "Including non-PyTorch memory, this process has 77.9 GiB memory in use."
    )
    found = memory_error(torch.OutOfMemoryError(text), ["fit", "photos", "--device", "cuda:1"])
    assert found == (
        "out of GPU memory: requested 2.00 GiB, 1.20 GiB of 79.15 GiB are free on GPU 1; fewer --max-gaussians, a larger "
        "--downscale or a smaller --batch-size need less"
    )
    assert memory_error(MemoryError(), ["mesh", "a"]).endswith(
        "a lower --resolution, --max-view-size or --max-memory needs less"
    )
    assert memory_error(RuntimeError("shape"), ["fit"]) is None
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert memory_error(caught.value, ["fit"]).startswith("out of memory: requested 4503599.6 GB, ")


@pytest.mark.parametrize("name", sorted(LESS))
def test_the_options_that_need_less_memory_exist(cli, name):
    code, text, _ = cli(*name.split(), "--help")
    assert code == 0
    assert all(f"{option} " in text for option in re.findall(r"--[\w-]+", LESS[name]))


def test_json_reports_a_failure(cli, verb):
    verb(raising(errors.InputError("empty")))
    _, out, _ = cli("try", "--json")
    assert json.loads(out) == {"ok": False, "exit_code": 3, "error": "empty"}


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_traceback_on_demand(cli, verb, monkeypatch, way):
    verb(raising(errors.InputError("empty")))
    monkeypatch.setenv("VISION3D_DEBUG", "1" if way == "environment" else "0")
    _, _, err = cli("try", *(["--traceback"] if way == "flag" else []))
    assert "Traceback" in err and err.endswith("error: empty\n")


def test_exit_code_of_a_command(cli, verb):
    verb(lambda arguments: len(arguments))
    assert cli("try", "a", "b")[0] == 2


def test_a_closed_pipe_is_not_an_error():
    code = "import sys; from vision3d.cli.app import execute; sys.exit(execute(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
