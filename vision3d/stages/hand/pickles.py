"""Arrays of a pickle, without unpickling: its operations are interpreted as data, and nothing that it names is imported.

Only numpy arrays, matrices of scipy.sparse, chumpy arrays and plain values are accepted. Anything else could be code.
"""

import ast
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from vision3d.core.checkpoints import HiddenCodeError
from vision3d.core.errors import FileFormatError, MissingFileError

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED = {
    *((module, name) for module in _ARRAY_MODULES for name in ("_reconstruct", "scalar")),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("scipy.sparse.csc", "csc_matrix"), ("scipy.sparse._csc", "csc_matrix"),
    ("scipy.sparse.csr", "csr_matrix"), ("scipy.sparse._csr", "csr_matrix"),
    ("chumpy.ch", "Ch"), ("chumpy.reordering", "Select"),
    ("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor"),
    ("__builtin__", "object"), ("builtins", "object"), ("__builtin__", "set"), ("builtins", "set"),
    ("_codecs", "encode"), ("collections", "OrderedDict"),
}  # fmt: skip
_MARK = object()
_MAX_BYTES = 1 << 30
_MAX_VALUES = 1 << 20


@dataclass(frozen=True)
class _Name:
    module: str
    name: str


@dataclass
class _Made:
    """What the pickle would call, with the arguments and the state that it would set."""

    what: _Name
    args: tuple[Any, ...]
    state: Any = None


def read_arrays(path: Path | str) -> dict[str, Any]:
    """The dictionary in a pickle: arrays as numpy arrays, sparse matrices as dense ones, other values as they are.

    Raises:
        MissingFileError: The file does not exist.
        HiddenCodeError: It names something that could be code; nothing was executed.
        FileFormatError: It is damaged, or is not a pickle of a dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, "a pickle of arrays")
    if path.stat().st_size > _MAX_BYTES:
        raise FileFormatError(path, f"has {path.stat().st_size} bytes; want at most {_MAX_BYTES}")
    try:
        value = _Machine(path).run(path.read_bytes())
        if not isinstance(value, dict):
            raise FileFormatError(path, f"holds a {type(value).__name__}, want a dictionary of arrays")
        read = _Reader()
        return {_text(key): read(entry) for key, entry in value.items()}
    except FileFormatError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(path, f"is damaged or not a pickle of arrays ({text})") from error


class _Machine:
    """The stack machine of pickle, with names in place of objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, place in pickletools.genops(data):
            name, arg = opcode.name, cast(Any, argument)
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]() if callable(_CONSTANTS[name]) else _CONSTANTS[name])
            elif name in _LITERALS:
                self.stack.append(arg)
            elif name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
                self.stack.append(self._string(name, arg))
            elif name in ("PROTO", "FRAME"):
                continue
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                self.memo[int(arg)] = self.stack[-1]
            elif name == "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[int(arg)])
            elif name == "GLOBAL":
                module, _, attribute = str(arg).partition(" ")
                self.stack.append(self._allowed(module, attribute, place))
            elif name == "STACK_GLOBAL":
                attribute, module = self.stack.pop(), self.stack.pop()
                self.stack.append(self._allowed(str(module), str(attribute), place))
            elif hasattr(self, f"_{name.lower()}"):
                getattr(self, f"_{name.lower()}")()
            else:
                raise HiddenCodeError(self.path, f"uses {name}, which could run code; nothing was executed", place)
        raise FileFormatError(self.path, "ends before its last operation")

    def _allowed(self, module: str, name: str, place: int | None) -> _Name:
        if (module, name) not in _ALLOWED:
            problem = f"names {module}.{name}, which could run code; want numpy, scipy.sparse and chumpy arrays alone. "
            raise HiddenCodeError(self.path, problem + "Nothing was executed", place)
        return _Name(module, name)

    @staticmethod
    def _string(name: str, arg: str) -> bytes:
        return arg.encode("latin-1") if name != "STRING" else ast.literal_eval("b" + repr(arg))

    def _since_mark(self) -> list[Any]:
        start = len(self.stack) - 1 - next(i for i, value in enumerate(reversed(self.stack)) if value is _MARK)
        found = self.stack[start + 1 :]
        del self.stack[start:]
        return found

    def _mark(self) -> None:
        self.stack.append(_MARK)

    def _pop(self) -> None:
        self.stack.pop()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self) -> None:
        self.stack.append(self._since_mark())

    def _append(self) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def _appends(self) -> None:
        values = self._since_mark()
        self.stack[-1].extend(values)

    def _dict(self) -> None:
        values = self._since_mark()
        self.stack.append(dict(zip(values[::2], values[1::2])))

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def _setitems(self) -> None:
        values = self._since_mark()
        self.stack[-1].update(zip(values[::2], values[1::2]))

    def _reduce(self) -> None:
        args, what = self.stack.pop(), self.stack.pop()
        if not isinstance(what, _Name) or not isinstance(args, tuple):
            raise HiddenCodeError(self.path, "calls something that is not an array, which could run code; nothing was executed")
        self.stack.append(OrderedItems() if what.name == "OrderedDict" else _Made(what, args))

    _newobj = _reduce

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Made):
            raise HiddenCodeError(self.path, "sets the state of something that is not an array; nothing was executed")
        self.stack[-1].state = state


class OrderedItems(dict[Any, Any]):
    """A dictionary that was an OrderedDict."""


_CONSTANTS: dict[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}  # fmt: skip
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, _Made):
        if value.what.name != "encode":
            raise ValueError(f"bytes made by {value.what.name}")
        value = value.args[0]
    return value.encode("latin-1") if isinstance(value, str) else bytes(value)


class _Reader:
    """Makes the values that records stand for; at most `_MAX_VALUES`, as lists that contain lists twice grow exponentially."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def __call__(self, value: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"more than {_MAX_VALUES} values")
        if isinstance(value, bytes):
            return _text(value)
        if isinstance(value, list | tuple):
            return [self(entry) for entry in value]
        if isinstance(value, dict):
            return {_text(key): self(entry) for key, entry in value.items()}
        return self.made(value) if isinstance(value, _Made) else value

    def made(self, value: _Made) -> Any:
        name = value.what.name
        if name == "_reconstructor":  # object protocol of Python 2: (class, object, None)
            return self(_Made(value.args[0], (), value.state))
        if name == "_reconstruct":
            _, shape, dtype, is_fortran, data = value.state
            return _array(shape, _dtype(dtype), bool(is_fortran), data)
        if name == "_frombuffer":
            data, dtype, shape, order = value.args
            return _array(shape, _dtype(dtype), _text(order) == "F", data)
        if name == "scalar":
            return np.frombuffer(_bytes(value.args[1]), _dtype(value.args[0]))[0].item()
        if name in ("csc_matrix", "csr_matrix"):
            return _dense(self.state(value), name)
        if name == "Ch":
            return np.asarray(self.state(value)["x"])
        if name == "Select":
            state = self.state(value)
            picked = np.asarray(state["a"]).ravel()[np.asarray(state["idxs"]).astype(np.int64).ravel()]
            return picked.reshape([int(size) for size in state["preferred_shape"]]) if "preferred_shape" in state else picked
        return _text(_bytes(value)) if name == "encode" else None

    def state(self, value: _Made) -> dict[str, Any]:
        state = value.state[0] if isinstance(value.state, tuple) else value.state
        return {_text(key): self(entry) for key, entry in state.items()}


def _dtype(value: _Made) -> np.dtype[Any]:
    found = np.dtype(_text(value.args[0]))
    if found.hasobject or found.kind not in "fiub":
        raise ValueError(f"an array of {found}")
    is_big = value.state is not None and _text(value.state[1]) == ">"
    return found.newbyteorder(">" if is_big else "=")


def _array(shape: Any, dtype: np.dtype[Any], is_fortran: bool, data: Any) -> np.ndarray:
    found = np.frombuffer(_bytes(data), dtype).reshape([int(size) for size in shape], order="F" if is_fortran else "C")
    return np.array(found, dtype.newbyteorder("="))


def _dense(state: dict[str, Any], name: str) -> np.ndarray:
    shape = [int(size) for size in state.get("_shape", state.get("shape", ()))]
    if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] > 1 << 26:
        raise ValueError(f"a sparse matrix of shape {shape}")
    counts = np.diff(np.asarray(state["indptr"], np.int64))
    outer, inner = np.repeat(np.arange(len(counts)), counts), np.asarray(state["indices"], np.int64)
    found = np.zeros(shape)
    np.add.at(found, (inner, outer) if name == "csc_matrix" else (outer, inner), state["data"])
    return found
