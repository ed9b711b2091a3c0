"""The text of `vision3d VERB --help`: from a dataclass of options, its docstrings and its groups."""

import ast
import contextlib
import dataclasses
import inspect
import math
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

_ENDS = (".", "!", "?", ")", ":")
_NAMES: dict[type, str] = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}
RUN_GROUP = "run"
MAIN_GROUP = "main options"


@dataclasses.dataclass(frozen=True)
class _Option:
    """One row of the help."""

    key: str  # dotted, without the prefix of the settings
    left: str
    right: str
    is_positional: bool
    group: str


def write_help(cls: type, verb: str, defaults: Mapping[str, Any], common: Sequence[str]) -> str:
    """The help text of a verb.

    Groups come from class variables `HELP_GROUPS` of the options and of their settings: title -> names, in order; the first is
    `MAIN_GROUP`. Settings with options of their own form a group each; options in no group go to "other options".

    Args:
        cls: Dataclass of the options; a field `settings` holds the configuration of a stage.
        verb: For the first line.
        defaults: Values that replace the defaults of the fields, such as those of a file.
        common: Fields shared by all verbs, in order; they form the last group.
    """
    groups = help_groups(cls) | {RUN_GROUP: tuple(common)}
    of = {name: title for title, names in groups.items() for name in names}
    texts: dict[str, str] = {}
    rows = list(_rows(cls, "", "", dict(defaults), of, texts))
    positional = [row for row in rows if row.is_positional]
    nested = list(dict.fromkeys(row.group for row in rows if row.group.endswith(".*")))
    titles = [*(title for title in groups if title != RUN_GROUP), "other options", *nested, RUN_GROUP]
    usage = " ".join([f"usage: vision3d {verb}", *(row.left for row in positional), "[OPTIONS]"])
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    parts = [usage, textwrap.fill(" ".join((inspect.getdoc(cls) or "").split()), width)]
    if positional:
        parts.append(_block("arguments", positional, width))
    for title in dict.fromkeys(titles):
        chosen = [row for row in rows if row.group == title and not row.is_positional]
        if title == RUN_GROUP:
            chosen.append(_Option("help", "-h, --help", "Show this text.", False, RUN_GROUP))
        order = {name.replace("_", "-"): place for place, name in enumerate(groups.get(title, ()))}
        chosen.sort(key=lambda row: order.get(row.key.replace("_", "-"), len(order)))
        heading = f"--{title}  {texts[title]}" if texts.get(title) else title
        if title == "other options" and len({row.group for row in rows if not row.is_positional}) < 3:
            heading = "options"
        if chosen:
            parts.append(_block(heading.rstrip(" ."), chosen, width))
    return "\n\n".join(parts)


def help_groups(cls: type) -> dict[str, tuple[str, ...]]:
    """The groups of the options `cls` and of their settings: title -> names of options."""
    settings = typing.get_type_hints(cls).get("settings")
    groups: dict[str, tuple[str, ...]] = {MAIN_GROUP: ()}
    for owner in (cls, settings):
        for title, names in getattr(owner, "HELP_GROUPS", {}).items():
            groups[title] = groups.get(title, ()) + tuple(names)
    return groups


def _rows(
    cls: type, prefix: str, group: str, values: Mapping[str, Any], of: Mapping[str, str], texts: dict[str, str]
) -> Iterator[_Option]:
    """The options of a dataclass and of nested dataclasses. `texts` receives the description of each group."""
    hints, documented = typing.get_type_hints(cls, include_extras=True), _docstrings(cls)
    for field in dataclasses.fields(cls):
        kind, key = hints[field.name], prefix + field.name
        marks = getattr(kind, "__metadata__", ())
        if tyro.conf.Suppress in marks or not field.init:
            continue
        own = _default(field)
        value = values.get(field.name, own)
        plain = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind
        words = next((mark.help for mark in marks if getattr(mark, "help", None)), documented.get(field.name, ""))
        if dataclasses.is_dataclass(plain) and isinstance(plain, type):
            inner = {} if value is dataclasses.MISSING else {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            nested = field.name != "settings"
            title = f"{key}.*".replace("_", "-") if nested else group
            if nested:
                said = " ".join((words or inspect.getdoc(plain) or "").split())
                texts[title] = said.replace("[default: ", "(default: ").replace("]", ")") if "[default: " in said else said
            yield from _rows(plain, f"{key}." if nested else "", title, inner, of, texts)
            continue
        is_positional = tyro.conf.Positional in marks
        left = _left(key, plain, marks)
        if is_positional and own is not dataclasses.MISSING:
            left = f"[{left}]"
        title = of.get(key, of.get(key.replace("_", "-"), group or "other options"))
        yield _Option(key, left, _right(words, value, own, marks, is_positional), is_positional, title)


def _left(key: str, kind: Any, marks: tuple[Any, ...]) -> str:
    """The option as it is typed: `--size FLOAT`."""
    name = key.replace("_", "-")
    if tyro.conf.Positional in marks:
        return f"{name.upper()}{' ...' if typing.get_origin(kind) in (tuple, list) else ''}"
    if kind is bool:
        if tyro.conf.FlagCreatePairsOff in marks:
            return f"--{name}"
        *parents, leaf = name.split(".")
        return f"--{name}, --{'.'.join([*parents, f'no-{leaf}'])}"
    if tyro.conf.UseAppendAction in marks:
        return f"--{name} {_metavar(typing.get_args(kind)[0])}"
    return f"--{name} {_metavar(kind)}"


def _metavar(kind: Any) -> str:
    """Placeholder of a value, without the None of an optional one."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _metavar(inner[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join(dict.fromkeys(_metavar(each) for each in inner if each is not type(None)))
    if origin is Literal:
        return "{" + ",".join(str(choice) for choice in inner if choice is not None) + "}"
    if origin in (tuple, list):
        if origin is list or inner[1:] == (...,):
            return f"{_metavar(inner[0])} ..."
        return " ".join(map(_metavar, inner))
    return _NAMES.get(kind, getattr(kind, "__name__", "VALUE").upper())


def _right(words: str, value: Any, own: Any, marks: tuple[Any, ...], is_positional: bool) -> str:
    """A sentence followed by the default."""
    text = " ".join(words.split())
    told = re.search(r"\s*\[default: ((?:[^\[\]]|\[[^\]]*\])*)\]", text)
    if told:
        text = (text[: told.start()] + text[told.end() :]).strip()
    if text and not text.endswith(_ENDS):
        text += "."
    if tyro.conf.UseAppendAction in marks:
        text += " May be given several times."
    shown = told[1] if told and value == own else _shown(value)
    if value is dataclasses.MISSING:
        return text if is_positional else f"{text} (required)"
    return f"{text} (default: {shown})" if shown else text


def _shown(value: Any) -> str:
    """A default as it would be typed; empty for a default that is not shown."""
    if value is None or value is False or value is dataclasses.MISSING:
        return ""
    if value is True:
        return "on"
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) or str(item) for item in value)
    return number_text(value) if isinstance(value, float) else str(value)


def number_text(value: float) -> str:
    """A float in a few characters, as a fraction if it is one: 0.0333... is 1/30."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e7:
        return str(int(value))
    short = repr(value)
    if len(short) <= 9:
        return short
    from fractions import Fraction  # it imports decimal, which few options need

    fraction = Fraction(value).limit_denominator(100)
    return str(fraction) if fraction and abs(float(fraction) / value - 1) < 1e-12 else f"{value:.4g}"


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _docstrings(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass, including those of its base classes."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        node = _class_nodes(base.__module__).get(base.__qualname__)
        for field, after in zip(node.body, node.body[1:], strict=False) if node else ():
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = str(typing.cast(ast.Constant, typing.cast(ast.Expr, after).value).value)
    return found


_PARSED: dict[str, dict[str, ast.ClassDef]] = {}


def _class_nodes(module: str) -> dict[str, ast.ClassDef]:
    """The classes in a module's source, parsed once."""
    if module not in _PARSED:
        _PARSED[module] = {}
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is not None and module != "builtins":
            with contextlib.suppress(OSError, SyntaxError):
                tree = ast.parse(Path(file).read_text("utf-8"))
                _PARSED[module] = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return _PARSED[module]


def _block(heading: str, rows: list[_Option], width: int) -> str:
    """A heading and its rows: names on the left, sentences on the right, wrapped."""
    lines = [f"{heading}:"]
    column = 4 + min(max(len(row.left) for row in rows), 26)
    for row in rows:
        wrapped = textwrap.wrap(row.right, width - column, break_long_words=False, break_on_hyphens=False) or [""]
        head = f"  {row.left}"
        if len(head) + 2 > column:
            lines.append(head)
            head = ""
        lines += [f"{head:{column}}{wrapped[0]}".rstrip(), *(" " * column + line for line in wrapped[1:])]
    return "\n".join(lines)
