"""Names of a package that are loaded at first use, so that importing it takes milliseconds (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package.

    Args:
        package: Its `__name__`.
        modules: The module that each public name is in; one that begins with a dot is below the package.

    Example:
        >>> lazy_names("vision3d", {"GaussianScene": "vision3d.scene"})("GaussianScene").__name__
        'GaussianScene'
    """

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
