"""Checks of the numbers in a configuration."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from vision3d.core.errors import ConfigError


def check_numbers(config: Any, names: Iterable[str], holds: Callable[[Any], bool], want: str) -> None:
    """Raise ConfigError for the first field of `names` that is not finite or does not satisfy `holds`."""
    for name in names:
        value = getattr(config, name)
        if not (holds(value) and value < math.inf):
            raise ConfigError(name, f"got {value}, want {want}")


def check_each(config: Any, checks: Iterable[tuple[str, bool, str]], group: str = "") -> None:
    """Raise ConfigError for the first invalid field.

    Args:
        config: The object that has the fields.
        checks: Name of a field, whether its value is valid, and the expected value.
        group: Prefix of the option names, with a dot, for the message.
    """
    for name, is_right, want in checks:
        if not is_right:
            raise ConfigError(f"{group}{name}", f"got {getattr(config, name)}, want {want}")


def check_positive(config: Any, *names: str) -> None:
    """Numbers above 0."""
    check_numbers(config, names, lambda value: value > 0, "a number > 0")


def check_not_negative(config: Any, *names: str) -> None:
    """Numbers of at least 0."""
    check_numbers(config, names, lambda value: value >= 0, "a number >= 0")


def check_counts(config: Any, *names: str) -> None:
    """Numbers of at least 1."""
    check_numbers(config, names, lambda value: value >= 1, "at least 1")
