"""The run-time type checker of the tests."""

import functools
from collections.abc import Callable
from typing import Any, Self, get_args

import torch
from beartype import BeartypeConf, beartype

# An int does where a float is wanted, as everywhere in Python.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with checks of its arguments and its result; what is `Self` is not checked."""
    hints = function.__annotations__
    # beartype knows `Self` only where it decorates the class, and it is handed the methods one by one.
    function.__annotations__ = {name: Any if Self in (hint, *get_args(hint)) else hint for name, hint in hints.items()}
    checked = _check(function)

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        # Comparing sizes would make those of an exported graph constants.
        return (function if torch.compiler.is_compiling() else checked)(*arguments, **named)

    return run
