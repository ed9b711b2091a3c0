"""Options shared by verbs, and parsing of a command line to a dataclass: command line > --config > default."""

import contextlib
import dataclasses
import io
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from vision3d.cli.app import UsageError
from vision3d.core import config as configuration
from vision3d.core.errors import ConfigError, nearest_names
from vision3d.core.run_files import CONFIG_FILE, RunInputs, is_run_folder

T = TypeVar("T")
Flag = tyro.conf.FlagCreatePairsOff[bool]
"""A flag that is off by default."""
Settings = Annotated[T, tyro.conf.arg(name="")]
"""The configuration of a stage as a field of a verb's options: its keys become options without a prefix."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerbOptions:
    """Options of every verb."""

    quiet: Flag = False
    """Print only warnings and errors."""
    verbose: Flag = False
    """Print what happens inside."""
    json: Flag = False
    """Print the results as JSON in the last line."""
    traceback: Flag = False
    """Print the Python traceback of an error (also VISION3D_DEBUG=1)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfigOptions(VerbOptions):
    """Options of verbs with a configuration; their dataclass has a field `settings: Settings[TheirConfig]`."""

    config: str | None = None
    """YAML file or name of a preset; options given on the command line override its values."""
    print_config: Flag = False
    """Print the resolved configuration as YAML and exit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(ConfigOptions):
    """Options of verbs that create a run folder."""

    out: Path | None = None
    """Run folder [default: runs/VERB_DATE]."""
    resume: Flag = False
    """Resume the run in --out with its configuration and inputs."""
    overwrite: Flag = False
    """Delete an earlier run in --out first."""


_RUN_FIELDS = frozenset(field.name for field in dataclasses.fields(RunOptions))
_COMMON = ("out", "config", "print_config", "resume", "overwrite", "quiet", "verbose", "json", "traceback")
"""Options of the last group of every help text, in order."""


def parse(
    cls: type[T],
    arguments: Sequence[str],
    verb: str,
    *,
    stage: str | None = None,
    bases: Mapping[str, Callable[[Any, str | None], Any]] | None = None,
) -> T:
    """Parse the command line of `verb` to the options dataclass `cls`.

    Args:
        cls: `VerbOptions`, `ConfigOptions`, `RunOptions` or a subclass.
        arguments: The command line after the verb.
        verb: For messages.
        stage: Where `--config NAME` looks for presets.
        bases: Options that change several settings at once and are applied first: functions from the settings and the option's
            value (None if not given) to the new settings.

    Raises:
        UsageError: An option is unknown or missing, or has an invalid value.
        ConfigError, MissingFileError, FileFormatError: The file of `--config`, or the configuration in the run folder of
            `--resume`, is invalid.
    """
    arguments = list(arguments)
    flags = option_names(cls)
    for token in _before_separator(arguments):
        name = token.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in flags:
            raise UsageError(f"{name}: unknown option of vision3d {verb}; {nearest_names(name, flags)}")
    defaults = _defaults(cls, arguments, verb, stage)
    given = {flag: _value_of(flag, arguments) for flag in bases or {}}
    if bases and any(value is not None for value in given.values()):
        settings = defaults.get("settings") or typing.get_type_hints(cls)["settings"]()
        for flag, change in bases.items():
            settings = change(settings, given[flag])
        defaults["settings"] = settings
    options: dict[str, Any] = {"prog": f"vision3d {verb}"}
    if defaults:
        required = [field.name for field in dataclasses.fields(typing.cast(Any, cls)) if _is_required(field)]
        options["default"] = cls(**{**dict.fromkeys(required, tyro.MISSING), **defaults})
    if {"-h", "--help"} & set(_before_separator(arguments)):
        from vision3d.cli.help_text import write_help

        print(write_help(cls, verb, defaults, _COMMON))
        raise SystemExit(0)
    return _cli_in_one_line(cls, arguments, verb, options)


def option_names(cls: type) -> list[str]:
    """All options of the dataclass `cls` as they are typed."""
    names = ["--help"]
    for key, kind in configuration.dotted_keys(cls).items():
        if _marker(kind, tyro.conf.Positional) or _marker(kind, tyro.conf.Suppress):
            continue
        name = key.removeprefix("settings.").replace("_", "-")
        names.append(f"--{name}")
        if kind is bool:
            *parents, leaf = name.split(".")
            names.append("--" + ".".join([*parents, f"no-{leaf}"]))
    return names


def input_names(cls: type) -> list[str]:
    """The fields of a verb's options that are inputs."""
    return [field.name for field in dataclasses.fields(cls) if field.name not in {*_RUN_FIELDS, "settings"}]


def shown_name(cls: type, name: str) -> str:
    """A field as users type it: DATA for positional ones, else --data."""
    kind = typing.get_type_hints(cls, include_extras=True)[name]
    return name.upper() if _marker(kind, tyro.conf.Positional) else f"--{name.replace('_', '-')}"


def _defaults(cls: type, arguments: list[str], verb: str, stage: str | None) -> dict[str, Any]:
    """Values of the options set by `--config`, or by the run folder of `--resume`."""
    hints, values = typing.get_type_hints(cls, include_extras=True), {}
    folder = _resumed_folder(cls, arguments)
    if folder is not None:
        settings = configuration.load_yaml(typing.get_type_hints(cls)["settings"], folder / CONFIG_FILE)
        values = {**_inputs_of(cls, folder, verb, hints), "settings": settings}
    source = _value_of("--config", arguments)
    if source is not None and issubclass(cls, ConfigOptions):
        values["settings"] = configuration.load_yaml(typing.get_type_hints(cls)["settings"], source, stage=stage)
    return values


def _resumed_folder(cls: type, arguments: list[str]) -> Path | None:
    """The run folder to be resumed, if any."""
    if not issubclass(cls, RunOptions) or "--resume" not in _before_separator(arguments):
        return None
    default = next(field.default for field in dataclasses.fields(cls) if field.name == "out")
    out = _value_of("--out", arguments) or default
    return Path(out) if isinstance(out, str | Path) and is_run_folder(out) else None


def _inputs_of(cls: type, folder: Path, verb: str, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of an earlier session of a run."""
    inputs = RunInputs.read(folder)
    if inputs.verb is not None and inputs.verb != verb:
        raise ConfigError("--resume", f"{folder} is a run of vision3d {inputs.verb}, not of {verb}")
    names = [name for name in input_names(cls) if name in inputs.values]
    return {name: configuration.convert(hints[name], inputs.values[name], name) for name in names}


def _cli_in_one_line(cls: type[T], arguments: list[str], verb: str, options: dict[str, Any]) -> T:
    """Parse with tyro; its framed error text becomes a one-line UsageError."""
    text, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"  # to prevent wrapping in the frame
    try:
        with contextlib.redirect_stderr(text):
            return tyro.cli(cls, args=arguments, **options)
    except SystemExit as stop:
        if stop.code != 2:
            raise
        # Title, optional rule, message, rule, hint: inside a frame, or without one if UTF-8 is not available.
        inner = [line.strip("│| ") for line in text.getvalue().splitlines()[1:]]
        parts = " ".join(line if line.strip("─-+╰╯") else "\n" for line in inner).split("\n")
        lines = [part.strip() for part in parts if part.strip()]
        message = lines[0].removesuffix(".") if lines else "wrong command line"
        message = re.sub(r"no type matching (.+?) could be instantiated from \[(.*)\]", _no_type, message)
        message = re.sub(r"Could not find valid parse for arguments: \[(.*)\]", r"invalid value \1", message)
        raise UsageError(f"{message} (vision3d {verb} --help lists the options)") from None
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns


def _no_type(found: "re.Match[str]") -> str:
    kinds = re.sub("[{}]", "", found[1]).replace("|", " or ")
    return f"invalid value {found[2]}, want {kinds}"


def _before_separator(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _value_of(flag: str, arguments: Sequence[str]) -> str | None:
    for index, token in enumerate(arguments):
        if token == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if token.startswith(f"{flag}="):
            return token.partition("=")[2]
    return None


def _marker(kind: Any, wanted: Any) -> bool:
    return wanted in getattr(kind, "__metadata__", ())


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
