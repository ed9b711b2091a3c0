"""Checks of the arguments of native operations: shapes, dtypes, devices by a signature; size limits before allocation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from vision3d.core.errors import DeviceError, InputError, ShapeError
from vision3d.core.machine import free_memory

MAX_PIXELS = 2**28
"""Pixels of all images of one call: 16384 x 16384, or 32 images of 3840 x 2160."""
MAX_TILES = 2**24
"""Tiles of all images of one call: `MAX_PIXELS` in tiles of 4 x 4."""
CHECKED_BYTES = 2**30
"""Outputs on a CPU larger than this are compared with the free memory first."""

_DTYPES = {"int32": torch.int32, "int64": torch.int64, "uint8": torch.uint8, "bool": torch.bool}
_FLOATS = (torch.float32, torch.float64)
Function = TypeVar("Function", bound=Callable[..., Any])


class _Argument(NamedTuple):
    index: int
    name: str
    dtype: torch.dtype | None
    """None: the dtype of the first float argument, float32 or float64."""
    optional: bool
    leading: str | None
    """Name of an arbitrary number of leading axes."""
    axes: tuple[int | str, ...]


class Signature:
    """Shapes of the tensor arguments of a function, as `means: float b n 3, ids: int64? p`.

    Each argument has a dtype, `?` if it may be None, and axes: a number, a name that has the same size everywhere,
    or `*name` for an arbitrary number of leading axes. `float` is float32 or float64, the same for all. Arguments that are not
    tensors are given by their name alone. All tensors must be on the device of the first.
    """

    def __init__(self, text: str) -> None:
        self.arguments: list[_Argument] = []
        for index, part in enumerate(text.split(",")):
            name, colon, rest = part.strip().partition(":")
            if not colon:
                continue
            dtype, *axes = rest.split()
            leading = axes.pop(0)[1:] if axes and axes[0].startswith("*") else None
            sizes = tuple(int(axis) if axis.isdigit() else axis for axis in axes)
            optional = dtype.endswith("?")
            self.arguments.append(_Argument(index, name, _DTYPES.get(dtype.rstrip("?")), optional, leading, sizes))
        self._match = _matcher(self.arguments)

    def check(self, *values: Any, **named: Any) -> None:
        """Raise for the first argument that does not match.

        Raises:
            ShapeError: Wrong shape or dtype; the message has the argument, got and want.
            DeviceError: A tensor is on a different device than the first.
        """
        if not named and self._match(values):
            return
        sizes: dict[str, int | tuple[int, ...]] = {}
        first, dtype = None, None
        for argument in self.arguments:
            index, name, own_dtype, optional, leading, axes = argument
            value = values[index] if index < len(values) else named.get(name)
            if value is None and optional:
                continue
            if not isinstance(value, Tensor):
                raise ShapeError(name, type(value).__name__, f"a torch.Tensor {_axes_text(argument)}")
            check_dense(name, value)
            shape = value.shape
            split = len(shape) - len(axes)
            if split != 0 if leading is None else split < 0:
                raise ShapeError(name, tuple(shape), _axes_text(argument))
            if leading is not None and sizes.setdefault(leading, tuple(shape[:split])) != tuple(shape[:split]):
                raise ShapeError(name, tuple(shape), self._want(argument, sizes))
            for axis, size in zip(axes, shape[split:] if split else shape):
                if (axis if isinstance(axis, int) else sizes.setdefault(axis, size)) != size:
                    raise ShapeError(name, tuple(shape), self._want(argument, sizes))
            if own_dtype is None:
                dtype = dtype or (value.dtype if value.dtype in _FLOATS else None)
                if value.dtype != dtype:
                    raise ShapeError(name, value.dtype, dtype or "torch.float32 or torch.float64")
            elif value.dtype != own_dtype:
                raise ShapeError(name, value.dtype, own_dtype)
            if first is None:
                first = value.device, name
            elif value.device != first[0]:
                raise DeviceError(f"{name}: got device {value.device}, want {first[0]} as {first[1]}")

    @staticmethod
    def _want(argument: _Argument, sizes: dict[str, Any]) -> str:
        known = [f"{axis} = {sizes[axis]}" for axis in (argument.leading, *argument.axes) if axis in sizes]
        return _axes_text(argument) + (f" with {', '.join(dict.fromkeys(known))}" if known else "")


def _matcher(arguments: list[_Argument]) -> Callable[[tuple[Any, ...]], bool]:
    """A function that tells whether values match, as straight code: loops over axes take half the time of a small render."""
    axes = sorted({axis for argument in arguments for axis in argument.axes if isinstance(axis, str)})
    leadings = sorted({argument.leading for argument in arguments if argument.leading is not None})
    variables = [*(f"a_{axis}" for axis in axes), *(f"l_{name}" for name in leadings), "dtype", "device"]
    lines = ["def match(v):", f"  {' = '.join(variables)} = None"]
    constants: dict[str, Any] = {"Tensor": Tensor, "floats": _FLOATS, "strided": torch.strided}
    for index, _, own_dtype, optional, leading, sizes in arguments:
        pad = "    " if optional else "  "
        lines.append(
            f"  if len(v) <= {index}: return False" if not optional else f"  if len(v) > {index} and v[{index}] is not None:"
        )
        body = [f"x = v[{index}]", "if not isinstance(x, Tensor) or x.layout != strided: return False", "s = x.shape"]
        if leading is None:
            body.append(f"if len(s) != {len(sizes)}: return False")
        else:
            body += [f"n = len(s) - {len(sizes)}", "if n < 0: return False", *_same(f"l_{leading}", "s[:n]")]
        for place, axis in enumerate(sizes):
            at = f"s[{place}]" if leading is None else f"s[{place - len(sizes)}]"
            body += [f"if {at} != {axis}: return False"] if isinstance(axis, int) else _same(f"a_{axis}", at)
        if own_dtype is None:
            body += ["if dtype is None and x.dtype in floats: dtype = x.dtype", "if x.dtype != dtype: return False"]
        else:
            constants[f"d{index}"] = own_dtype
            body.append(f"if x.dtype != d{index}: return False")
        lines += [pad + line for line in (*body, *_same("device", "x.device"))]
    exec("\n".join([*lines, "  return True"]), constants)
    return constants["match"]


def _same(variable: str, value: str) -> list[str]:
    """Lines that set a variable at its first use, and compare it afterwards."""
    return [f"if {variable} is None: {variable} = {value}", f"elif {variable} != {value}: return False"]


def check_dense(name: str, tensor: Tensor) -> None:
    """Raise ShapeError for sparse tensors (COO, CSR, ...)."""
    if tensor.layout != torch.strided:
        raise ShapeError(name, tensor.layout, "a dense tensor (.to_dense())")


def checked(signature: str) -> Callable[[Function], Function]:
    """Check the arguments of the decorated function against a signature at every call; goes under `torch.library.custom_op`.

    The names are those of the function's arguments, in order, up to the last tensor.
    """
    signature_of = Signature(signature)

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*values: Any, **named: Any) -> Any:
            signature_of.check(*values, **named)
            return function(*values, **named)

        return call  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    return decorate


def check_image_size(num_images: int, width: int, height: int, tile_size: int | None = None) -> None:
    """Check that images have pixels, and no more than `MAX_PIXELS` or `MAX_TILES` in total.

    Raises:
        InputError: They do not; the message has the number.
    """
    sizes = [("width", width), ("height", height), *([] if tile_size is None else [("tile_size", tile_size)])]
    for name, value in sizes:
        if value < 1:
            raise InputError(f"{name}: got {value}, want at least 1")
    if num_images < 0:
        raise InputError(f"images: got {num_images}, want at least 0")
    if num_images * width * height > MAX_PIXELS:
        raise InputError(
            f"width, height: {num_images} images of {width} x {height} are {num_images * width * height} pixels, "
            f"want at most {MAX_PIXELS} in one call"
        )
    tiles = 0 if tile_size is None else num_images * -(-width // tile_size) * -(-height // tile_size)
    if tiles > MAX_TILES:
        raise InputError(
            f"tile_size: {num_images} images of {width} x {height} have {tiles} tiles of {tile_size} pixels, "
            f"want at most {MAX_TILES} in one call"
        )


def check_memory(like: Tensor, numbers: int, what: str) -> None:
    """Check that this many numbers of the dtype of `like` fit into the free CPU memory; GPU allocators check by themselves.

    Raises:
        InputError: They do not; the message has the size and the free memory.
    """
    size = numbers * like.element_size()
    if size <= CHECKED_BYTES or like.device.type != "cpu":
        return
    free = free_memory()
    if free is not None and size > free:
        raise InputError(f"{what}: would take {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; want smaller sizes")


def _axes_text(argument: _Argument) -> str:
    leading = [] if argument.leading is None else [f"*{argument.leading}"]
    text = ", ".join([*leading, *map(str, argument.axes)])
    return f"({text})" if len(argument.axes) + len(leading) != 1 else f"({text},)"
