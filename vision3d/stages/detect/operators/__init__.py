"""Sequence operators for groups of voxels, with one interface: `Operator`.

Every operator maps (groups, size, C) to the same shape with its residual inside, or rows of groups of any sizes without padding
(`forward_ragged`). All are bidirectional by default, so that comparisons are fair, and causal by option.
"""

import typing
from collections.abc import Iterable
from typing import Any

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.stages.detect.operators.base import Operator
from vision3d.stages.detect.operators.deltanet import DeltaNet, DeltaProduct, GatedDeltaNet
from vision3d.stages.detect.operators.gla import GLA
from vision3d.stages.detect.operators.groups import Groups
from vision3d.stages.detect.operators.mamba import Mamba
from vision3d.stages.detect.operators.mlstm import MLSTM
from vision3d.stages.detect.operators.retnet import RetNet
from vision3d.stages.detect.operators.rwkv6 import RWKV6
from vision3d.stages.detect.operators.ttt import TTT

OPERATORS: dict[str, type[Operator]] = {
    "mamba": Mamba,
    "rwkv6": RWKV6,
    "retnet": RetNet,
    "mlstm": MLSTM,
    "ttt": TTT,
    "gla": GLA,
    "deltanet": DeltaNet,
    "gated_deltanet": GatedDeltaNet,
    "deltaproduct": DeltaProduct,
}


def make_operator(name: str, channels: int, **options: Any) -> Operator:
    """The operator of this name.

    Args:
        name: A key of `OPERATORS`.
        channels: C.
        options: Of its class.

    Raises:
        ConfigError: No operator has this name; the message has similar ones.
        InputError: An option is out of range.
    """
    return _operator(name)(channels, **options)


def read_options(name: str, options: Iterable[str]) -> dict[str, Any]:
    """Options of an operator from texts such as "mlp_ratio=4".

    Raises:
        ConfigError: The operator has no such option, or the value is not of its type.
    """
    values: dict[str, Any] = {}
    known = typing.get_type_hints(_operator(name).__init__)
    for key in ("self", "channels", "bidirectional", "drop_path", "return"):
        known.pop(key, None)
    for text in options:
        key, _, value = text.partition("=")
        if key not in known:
            raise ConfigError("operator_options", f"got {text!r}; {name} has {', '.join(known)}")
        try:
            values[key] = _BOOLS[value.lower()] if known[key] is bool else known[key](value)
        except (KeyError, ValueError):
            raise ConfigError("operator_options", f"got {text!r}, want {key}={known[key].__name__}") from None
    return values


_BOOLS = {"true": True, "false": False}


def _operator(name: str) -> type[Operator]:
    if name not in OPERATORS:
        raise ConfigError("operator", f"got {name!r}; {nearest_names(name, OPERATORS)}")
    return OPERATORS[name]
