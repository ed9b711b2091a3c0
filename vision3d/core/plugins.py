"""Plugins of other packages: entry points of the groups `vision3d.stages`, `.codecs`, `.losses`, `.engines` and `.guidance`.

A package declares them in its pyproject.toml, for example a stage and a file format:

    [project.entry-points."vision3d.stages"]
    toy = "toy_package.stage:toy"

    [project.entry-points."vision3d.codecs"]
    ".toy" = "toy_package.files:CODEC"

Built-in names take precedence, so that no package changes a known verb or suffix. Where an option takes the name of a loss or
an engine, `module:name` is an object of your own module, in the current folder or installed, without an entry point.
"""

import functools
import importlib
import os
import sys
from importlib import metadata
from typing import TypeVar

from vision3d.core.errors import PluginError

T = TypeVar("T")


@functools.cache
def names(group: str) -> dict[str, metadata.EntryPoint]:
    """Entry points by name; if two packages use the same name, the first wins."""
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        found.setdefault(point.name, point)
    return found


def load(group: str, name: str, kind: type[T]) -> T | None:
    """Load the object of that name, or of `module:name`, or return None.

    Raises:
        PluginError: Its package cannot be imported, or the object has the wrong type.
    """
    point = names(group).get(name)
    if point is None and ":" not in name:
        return None
    label = f"{name} ({group})" if point is None else f"{point.value} ({group} {name!r} of another package)"
    try:
        value = _of_module(name) if point is None else point.load()
    except Exception as error:
        raise PluginError(f"{label} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(value, kind):
        raise PluginError(f"{label}: got {type(value).__name__}, want {kind.__name__}")
    return value


def _of_module(text: str) -> object:
    """The object `name` of `module:name`; modules of the current folder are found, too."""
    module, _, name = text.partition(":")
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        return getattr(importlib.import_module(module), name)
    finally:
        sys.path.remove(folder)


def load_all(group: str, kind: type[T]) -> dict[str, T]:
    """All plugins of the group that can be loaded, by name."""
    found = {}
    for name in names(group):
        try:
            found[name] = load(group, name, kind)
        except PluginError:
            continue
    return found
