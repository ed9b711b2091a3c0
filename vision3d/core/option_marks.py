"""How a configuration's fields are given on the command line: marks of tyro, so that stages need not know it."""

from collections.abc import Mapping
from typing import Annotated, TypeVar

import tyro

T = TypeVar("T")

InFiles = tyro.conf.Suppress
"""Mark of lists of things with options of their own: they are given in a file (`--config`), not on the command line."""
Repeated = Annotated[T, tyro.conf.UseAppendAction]
"""A list whose option may be given several times, an entry each."""
HelpGroups = Mapping[str, tuple[str, ...]]
"""Type of a class variable HELP_GROUPS of options: title -> names of options. "main options", up to five, are listed first in
`--help`, and options in no group after all groups."""
