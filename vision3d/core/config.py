"""Configuration: frozen dataclasses <-> plain YAML. Strict: unknown keys and wrong types are errors that name the key."""

import dataclasses
import functools
import importlib.resources
import re
import reprlib
import types
import typing
import warnings
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from vision3d.core.errors import ConfigError, FileFormatError, MissingFileError, nearest_names

T = TypeVar("T")
_MISSING = object()


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass instance as nested dicts of plain YAML values (paths become strings, tuples become lists)."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def from_dict(cls: type[T], values: Mapping[str, Any], *, base: T | None = None) -> T:
    """Build an instance of the dataclass `cls` from nested plain values.

    Args:
        cls: A dataclass whose fields are int, float, bool, str, Path, Literal, Optional, list, tuple or dataclasses. If it has
            a class variable PRESETS, the name of a stage, a preset name of that stage may be given instead of a mapping, and
            a key `preset` in its values selects the preset that replaces the defaults. A class variable RENAMED maps keys of
            earlier versions to their names of today.
        values: Keys may be left out where the field has a default; an unknown key is an error.
        base: Values used instead of the defaults.

    Raises:
        ConfigError: A key is unknown or missing, or its value has the wrong type; the message has the dotted key.
    """
    return _build(cls, values, "", base)


def dump_yaml(config: Any) -> str:
    """The dataclass instance as YAML that `load_yaml` reads back to an equal instance."""
    return dump_plain(to_dict(config))


def dump_plain(values: Mapping[str, Any]) -> str:
    """Nested plain values as YAML that `read_yaml` reads back."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def load_yaml(cls: type[T], source: Path | str, *, stage: str | None = None, base: T | None = None) -> T:
    """Load the dataclass `cls` from a YAML file, or from the preset `source` of `stage` if no such file exists.

    Args:
        cls: As for `from_dict`.
        source: A path, or a preset's name such as `fast`.
        stage: Presets are looked up in `configs/<stage>/`.
        base: Values used instead of the defaults for keys that are not in the file.

    Raises:
        MissingFileError: Neither a file nor a preset of that name.
        FileFormatError: The file is not YAML, or not a mapping of keys to values.
        ConfigError: As for `from_dict`.
    """
    path, is_name = Path(source), re.fullmatch(r"[\w-]+", str(source)) is not None
    if path.is_file():
        return from_dict(cls, read_yaml(path), base=base)
    if stage is not None and is_name:
        found = presets(stage)
        if str(source) in found:
            return from_dict(cls, _parse(found[str(source)].read_text("utf-8"), f"preset {source}"), base=base)
        raise MissingFileError(path, f"a YAML file or a preset of {stage}: {', '.join(found) or 'there is none'}")
    raise MissingFileError(path, "a YAML file")


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping of plain values in the YAML file `path`."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(path, "is not UTF-8 text", error.start) from error
    return _parse(text, path)


def presets(stage: str) -> dict[str, Traversable]:
    """The presets bundled with `stage`: name -> YAML file."""
    folder = importlib.resources.files("vision3d") / "configs" / stage
    if not folder.is_dir():
        return {}
    files = {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}
    return dict(sorted(files.items()))


def diff(a: Any, b: Any) -> list[str]:
    """The dotted keys whose values differ between two configurations (dataclass instances or nested dicts)."""
    left, right = _flat(a), _flat(b)
    return [key for key in {**left, **right} if left.get(key, _MISSING) != right.get(key, _MISSING)]


def convert(kind: Any, value: Any, key: str) -> Any:
    """Convert a plain value to the type of a field.

    Raises:
        ConfigError: The value has the wrong type; the message has `key`.
    """
    return _convert(kind, value, key)


def dotted_keys(cls: type) -> dict[str, Any]:
    """The dotted names of all leaves of the dataclass `cls`, with their types, in order."""
    keys: dict[str, Any] = {}
    for field, kind in _fields(cls).items():
        inner = _dataclass_of(kind)
        keys |= {field: kind} if inner is None else {f"{field}.{key}": leaf for key, leaf in dotted_keys(inner).items()}
    return keys


def _build(cls: type[T], values: Any, prefix: str, base: T | None) -> T:
    stage: str | None = getattr(cls, "PRESETS", None)
    if stage is not None and isinstance(values, str):
        values = {"preset": values}
    if stage is not None and isinstance(values, Mapping) and isinstance(values.get("preset"), str):
        base = _preset(cls, values["preset"], stage, prefix)
        values = {key: value for key, value in values.items() if key != "preset"}
    if not isinstance(values, Mapping):
        raise ConfigError(prefix.rstrip(".") or "(file)", f"got {_show(values)}, want keys with values")
    kinds = _fields(cls)
    values = _renamed(cls, values, prefix)
    for key in values:
        if key not in kinds:
            raise ConfigError(f"{prefix}{key}", f"unknown; {nearest_names(str(key), kinds)}")
    arguments = {}
    for field in dataclasses.fields(typing.cast(Any, cls)):
        if field.name not in kinds:
            continue
        old = _MISSING if base is None else getattr(base, field.name)
        if field.name in values:
            arguments[field.name] = _convert(kinds[field.name], values[field.name], prefix + field.name, old)
        elif old is not _MISSING:
            arguments[field.name] = old
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{field.name}", "missing; it has no default")
    try:
        return cls(**arguments)
    except ConfigError as error:  # a dataclass checks its values without knowing its own key
        raise ConfigError(prefix + error.key, error.problem) from None


def _renamed(cls: type, values: Mapping[Any, Any], prefix: str) -> Mapping[Any, Any]:
    """The values with keys of earlier versions (class variable RENAMED: old -> new) replaced."""
    renamed: Mapping[str, str] = getattr(cls, "RENAMED", {})
    for old, new in renamed.items():
        if old in values:
            if new in values:
                raise ConfigError(f"{prefix}{old}", f"is the earlier name of {new}, which is set as well")
            warnings.warn(f"{prefix}{old} is now {prefix}{new}", DeprecationWarning, stacklevel=2)
            values = {new if key == old else key: value for key, value in values.items()}
    return values


def _preset(cls: type[T], name: str, stage: str, prefix: str) -> T:
    try:
        return load_yaml(cls, name, stage=stage)
    except MissingFileError:
        hint = nearest_names(name, found := presets(stage))
        listed = "" if hint.startswith("valid") else f" all: {', '.join(found)}"
        key = prefix.rstrip(".") or "preset"
        raise ConfigError(key, f"{name!r} is neither a file nor a preset of {stage}; {hint}{listed}") from None


def _convert(kind: Any, value: Any, key: str, old: Any = _MISSING) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _convert(arguments[0], value, key, old)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, key, old)
    if origin is Literal:
        matches = [choice for choice in arguments if choice == value and type(choice) is type(value)]
        if not matches:
            raise ConfigError(key, f"got {_show(value)}, want one of {', '.join(map(_show, arguments))}")
        return matches[0]
    if origin in (list, tuple):
        return _convert_sequence(origin, arguments, value, key)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, f"{key}.", None if type(old) is not kind else old)
    if kind is float and type(value) in (int, float) and (type(value) is float or abs(value) < 1e308):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind in (int, bool, str) and type(value) is kind:  # neither a bool nor 3.0 counts as an int here
        return value
    raise ConfigError(key, f"got {_show(value)}, want {_type_text(kind)}")


def _convert_union(kinds: tuple[Any, ...], value: Any, key: str, old: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    options = [kind for kind in kinds if kind is not type(None)]
    if len(options) == 1:
        return _convert(options[0], value, key, old)
    for kind in options:
        try:
            return _convert(kind, value, key, old)
        except ConfigError:
            continue
    raise ConfigError(key, f"got {_show(value)}, want {' or '.join(map(_type_text, kinds))}")


def _convert_sequence(origin: Any, kinds: tuple[Any, ...], value: Any, key: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(key, f"got {_show(value)}, want {_type_text(origin[kinds])}")
    if origin is list or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ConfigError(key, f"got {len(value)} values, want {len(kinds)}")
    return origin(_convert(kind, item, f"{key}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))


@functools.cache
def _fields(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _dataclass_of(kind: Any) -> type | None:
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    return kind if dataclasses.is_dataclass(kind) and isinstance(kind, type) else None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in (config if isinstance(config, Mapping) else to_dict(config)).items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": _plain(value)}
    return flat


def _show(value: Any) -> str:
    # Lists that refer to each other by YAML aliases can be arbitrarily long when written out: reprlib cuts them off early.
    is_list = isinstance(value, list | tuple)
    text = "a mapping" if isinstance(value, Mapping) else reprlib.repr(value) if is_list else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _type_text(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, tuple):
        inner = [_type_text(argument) for argument in arguments if argument is not Ellipsis]
        is_open = origin is list or Ellipsis in arguments
        return f"a list of {inner[0]}" if is_open else f"a list of {len(inner)}: {', '.join(inner)}"
    if origin is Literal:
        return f"one of {', '.join(map(_show, arguments))}"
    return "nothing" if kind is type(None) else names.get(kind, str(kind))


class _Loader(yaml.SafeLoader):
    """Safe YAML without its pitfalls: `1e-3` is a number, only true/false are booleans, duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is a duplicate", node.start_mark)
        return super().construct_mapping(node, deep)


_REPLACED = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Writes short lists on one line, and quotes text that `_Loader` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: list[Any]) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML folds these line breaks into spaces unless they are escaped.
        style = '"' if any(character in data for character in "\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_representer(list, _Dumper.represent_list)
_Dumper.add_representer(str, _Dumper.represent_str)


def _parse(text: str, name: Path | str) -> dict[str, Any]:
    try:
        values = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileFormatError(name, f"{error.problem or error.context}", mark and f"line {mark.line + 1}") from error
    except yaml.YAMLError as error:
        raise FileFormatError(name, f"is not YAML: {error}".replace("\n", " ")) from error
    except RecursionError as error:
        raise FileFormatError(name, "is not a configuration: its lists and mappings are nested too deep") from error
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:  # `!!int text`
        raise FileFormatError(name, f"has a value that does not match its tag ({type(error).__name__}: {error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise FileFormatError(name, f"got {_show(values)}, want keys with values")
    return values
