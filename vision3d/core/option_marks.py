"""How fields of a configuration are given on the command line: markers for tyro, so that stages need not import it."""

from collections.abc import Mapping
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

InFiles = tyro.conf.Suppress
"""Marks lists of things with options of their own: they are given in a file (`--config`), not on the command line."""
Repeated = Annotated[T, tyro.conf.UseAppendAction]
"""A list whose option may be repeated, one entry each."""
HelpGroups = Mapping[str, tuple[str, ...]]
"""Type of a class variable HELP_GROUPS of options: title -> names of options. "main options", up to five, are listed first in
`--help`, and options in no group after all groups."""
