"""Names of a package that are loaded on first use, so that importing it takes milliseconds (PEP 562)."""

import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType


def lazy_names(package: str, modules: Mapping[str, str], *, moved: Mapping[str, str] | None = None) -> Callable[[str], object]:
    """The `__getattr__` function of a package.

    Args:
        package: Its `__name__`.
        modules: Public name -> module that defines it, `module:name` if the name differs there, or `module:` for the module
            itself; a leading dot is relative to the package.
        moved: Names of earlier versions, which still work with a DeprecationWarning -> the package that has them now, with
            `:name` if the name differs there.

    Example:
        >>> lazy_names("vision3d", {"GaussianScene": "vision3d.scene"})("GaussianScene").__name__
        'GaussianScene'
    """
    moved = moved or {}

    def load(name: str) -> object:
        if name in moved:
            new, _, renamed = moved[name].partition(":")
            warnings.warn(f"{package}.{name} is now {new}.{renamed or name}", DeprecationWarning, stacklevel=2)
            return getattr(importlib.import_module(new, package), renamed or name)
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, colon, attribute = modules[name].partition(":")
        value = importlib.import_module(module, package)
        if attribute or not colon:
            value = getattr(value, attribute or name)
        setattr(sys.modules[package], name, value)
        return value

    return load


def names_of_stub(package: str, file: str) -> dict[str, str]:
    """The imports of the `__init__.pyi` next to an `__init__.py`, for `lazy_names`: type checkers and Python read one list."""
    import ast

    with open(f"{file.removesuffix('.py').removesuffix('.pyc')}.pyi", encoding="utf-8") as stub:
        tree = ast.parse(stub.read())
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                place = f"{node.module}.{alias.name}:" if node.module == package else f"{node.module}:{alias.name}"
                found[alias.asname or alias.name] = place
    return found


def renamed_attribute(new: str) -> "_Renamed":
    """An attribute of a class under its name of an earlier version, with a DeprecationWarning.

    Args:
        new: Name of the attribute now.

    Example:
        >>> class Frame:
        ...     metrics = {"steps": 3}
        ...     figures = renamed_attribute("metrics")
    """
    return _Renamed(new)


def move_modules(places: Mapping[str, str]) -> None:
    """Keep modules importable by their old names, with a DeprecationWarning.

    Args:
        places: Old name -> new name, of modules and of packages with all their modules.

    Example:
        >>> move_modules({"vision3d.stages.fitting": "vision3d.stages.fit"})
    """
    sys.meta_path.insert(0, _Moved(places))  # before folders of an earlier checkout, which contain only __pycache__


class _Renamed:
    def __init__(self, new: str) -> None:
        self._new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self._old = name

    def __get__(self, instance: object, owner: type) -> object:
        if instance is None:
            return self
        warnings.warn(f"{owner.__name__}.{self._old} is now {owner.__name__}.{self._new}", DeprecationWarning, stacklevel=2)
        return getattr(instance, self._new)


class _Moved:
    """Finds and loads modules by their old names; both names give the same module object.

    The base classes of `importlib.abc` would double the import time of the package.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if self._new_name(fullname) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        new = self._new_name(spec.name)
        assert new is not None
        warnings.warn(f"{spec.name} is now {new}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__  # the import machinery sets the old one
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def _new_name(self, name: str) -> str | None:
        head, tail = name, ""
        while head:
            if head in self._places:
                return self._places[head] + tail
            head, dot, last = head.rpartition(".")
            tail = dot + last + tail
        return None
