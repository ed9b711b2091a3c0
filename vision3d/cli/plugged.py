"""Verbs of stages from other packages: options from the signature and docstring of the stage's function."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import tyro

from vision3d.cli.options import Flag, RunOptions, Settings
from vision3d.cli.stage import stage_verb
from vision3d.core import plugins
from vision3d.core.errors import PluginError
from vision3d.stage import StageSpec


def run(verb: str, arguments: Sequence[str]) -> None:
    """Run the stage that another package registered as `verb`."""
    function = plugins.load("vision3d.stages", verb, FunctionType)
    assert function is not None  # the caller found the name
    run_stage(function, arguments)


def run_stage(function: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Run a function with `@stage` as a verb.

    Arguments before the `*` are positional, the others are options: a path each, or a flag if the default is
    False.

    Raises:
        PluginError: It has no `@stage`, or no argument `config` whose type is a dataclass.
    """
    spec = getattr(function, "spec", None)
    hints, signature = typing.get_type_hints(function), inspect.signature(function)
    settings = hints.get("config")
    if not isinstance(spec, StageSpec) or not dataclasses.is_dataclass(settings):
        want = "a function with @stage of vision3d.stage, whose argument `config` is of a dataclass"
        raise PluginError(f"{function.__module__}.{function.__qualname__}: want {want}")
    summary, texts = _described(function)
    fields: list[Any] = []
    for name, option in spec.inputs.items():
        parameter, text = signature.parameters[name], texts.get(name, "")
        kind: Any = Path
        if parameter.kind is not parameter.KEYWORD_ONLY:
            kind = tyro.conf.Positional[Path]
        elif parameter.default is False:
            kind = Flag
        documented = typing.Annotated[kind, tyro.conf.arg(help=text)]
        if parameter.default is inspect.Parameter.empty:
            fields.append((option, documented))
        elif parameter.default is None:
            fields.append((option, typing.Annotated[kind | None, tyro.conf.arg(help=text)], dataclasses.field(default=None)))
        else:
            fields.append((option, documented, dataclasses.field(default=parameter.default)))
    fields.append(("settings", Settings[settings], dataclasses.field(default_factory=typing.cast(Any, settings))))
    options_class = dataclasses.make_dataclass("Options", fields, bases=(RunOptions,), frozen=True, kw_only=True)
    options_class.__doc__ = summary

    def execute(options: Any, run_folder: Any, progress: Any) -> Any:
        given = {name: getattr(options, option) for name, option in spec.inputs.items()}
        return spec.results(function(config=options.settings, **given, run_folder=run_folder, progress=progress))

    stage_verb(
        spec.verb, typing.cast(Any, options_class), execute, stage=spec.verb, resumable=spec.resumable, grows=spec.grows
    )(arguments)


def _described(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and the description of each argument."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    found: dict[str, str] = {}
    for name, words in re.findall(r"^    (\w+): ((?:.*\n?)(?:^     +.*\n?)*)", section[1] if section else "", re.MULTILINE):
        found[name] = " ".join(words.split())
    return " ".join(text.split("\n\n")[0].split()), found
