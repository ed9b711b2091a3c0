"""Operations whose arguments are one record: a NamedTuple with name, type and shape of each argument.

The operation's schema, the checks of its arguments, and the inputs of its fake and its gradient come from that record. A
record may contain records; in the schema their fields are flattened.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.op_checks import Signature

Gradients = dict[str, Tensor | None]
_PLAIN = {int: "SymInt", float: "float", bool: "bool", str: "str"}
_DTYPES = {"Int32": "int32", "Int64": "int64", "UInt8": "uint8", "Bool": "bool", "Float": "float"}


class _Field(NamedTuple):
    name: str
    plain: type | None
    """Type of an argument that is not a tensor."""
    tensor: Any
    """Annotation of a tensor, with its dtype and shape."""
    is_optional: bool
    has_default: bool


class RecordOp:
    """The operation `vision3d::name`, built from a function of one record.

    Calling it with the flat arguments takes the fastest path (`native.direct`).

    Args:
        function: Its only argument is annotated with a NamedTuple; it returns a tensor or a tuple of them, as annotated.
    """

    def __init__(self, name: str, function: Callable[[Any], Any]) -> None:
        hints = dict(function.__annotations__)
        returns = hints.pop("return")
        (self.record,) = hints.values()
        self.names = [field.name for field in fields_of(self.record)]
        self.signature = Signature(_signature_text(self.record))

        self.name, self.function = name, function
        self._eager: type[torch.autograd.Function] | None = None

        @functools.wraps(function)
        def flat(*values: Any) -> Any:
            return function(self._checked(values))

        self.op = native.custom_op(name, schema=schema_of(self.record, returns))(flat)

    def __call__(self, *values: Any) -> Any:
        return native.direct(self.op, self._eager)(*values)

    def of(self, record: Any) -> Any:
        """The result for a record whose tensors were arguments or results of an operation; they are not checked again."""
        if native.direct(self.op, self._eager) is native.plain_function(self.op):
            return self.function(record)
        return self(*flatten(record))

    def _checked(self, values: Sequence[Any]) -> Any:
        self.signature.check(*values)
        return build(self.record, values)

    def register_fake(self, function: Callable[[Any], Any]) -> None:
        """Register a function that returns empty outputs for a record of fake tensors."""
        self.op.register_fake(lambda *values: function(build(self.record, values)))

    def register_autograd(
        self, setup: Callable[[Any, Any, Any], None], backward: Callable[..., dict[str, Tensor | None]]
    ) -> None:
        """Register the gradient.

        Args:
            setup: (ctx, record, outputs) -> None; stores what `backward` reads, as with `save`.
            backward: (ctx, gradient of each output...) -> gradients by name of the input; missing ones are None.
        """

        def gradients(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
            found = backward(ctx, *upstream)
            return tuple([found.get(name) for name in self.names])

        def forward(ctx: Any, *values: Any) -> Any:
            record = self._checked(values)
            outputs = self.function(record)
            setup(ctx, record, outputs)
            return outputs

        self.op.register_autograd(
            gradients, setup_context=lambda ctx, inputs, output: setup(ctx, build(self.record, inputs), output)
        )
        self._eager = native.autograd_function(self.name, forward, gradients)

    def needs_gradient(self, ctx: Any, name: str) -> bool:
        """Whether the gradient of this input is required."""
        return ctx.needs_input_grad[self.names.index(name)]


def record_op(name: str) -> Callable[[Callable[[Any], Any]], RecordOp]:
    """Decorator that makes a `RecordOp` of a function."""
    return functools.partial(RecordOp, name)


def save(ctx: Any, state: tuple[Any, ...]) -> None:
    """Store a record for the backward pass, its tensors with `save_for_backward`."""
    values = flatten(state)
    tensors = [value if isinstance(value, Tensor) else None for value in values]
    ctx.save_for_backward(*tensors)
    ctx.state = type(state), [value if tensor is None else None for value, tensor in zip(values, tensors)]


def saved(ctx: Any) -> Any:
    """The record that `save` stored."""
    record, others = ctx.state
    return build(record, [other if tensor is None else tensor for tensor, other in zip(ctx.saved_tensors, others)])


def build(record: Any, values: Sequence[Any]) -> Any:
    """The record with these flat values; values missing at the end are None, the default of all that have one."""
    count, make = _MAKERS.get(record) or _MAKERS.setdefault(record, _maker(record))
    return make(values if len(values) == count else [*values, *[None] * (count - len(values))])


def _maker(record: Any) -> tuple[int, Callable[[Sequence[Any]], Any]]:
    """The number of flat values of a record, and a function that builds it from all of them.

    The function is one expression, `R(v[0], S(v[1], v[2]), v[3])`: every call of an operation builds records.
    """
    types: list[Any] = []

    def expression(record: Any, first: int) -> str:
        types.append(record)
        name, inner = f"types[{len(types) - 1}]", {at: (part, size) for at, part, size in _inner_records(record)}
        parts, at = [], 0
        while at < len(fields_of(record)):
            part, size = inner.get(at, (None, 1))
            parts.append(f"v[{first + at}]" if part is None else expression(part, first + at))
            at += size
        return f"{name}({', '.join(parts)})"

    return len(fields_of(record)), eval(f"lambda v: {expression(record, 0)}", {"types": types})


_MAKERS: dict[Any, tuple[int, Callable[[Sequence[Any]], Any]]] = {}


def flatten(record: tuple[Any, ...]) -> list[Any]:
    """The values of a record and of its nested records, in the order of the schema."""
    values = list(record)
    for index, _, _ in _inner_records(type(record)):
        values[index : index + 1] = flatten(values[index])
    return values


@functools.cache
def fields_of(record: Any) -> tuple[_Field, ...]:
    """All fields of a record, with nested records expanded in place."""
    found: list[_Field] = []
    for name, hint in record.__annotations__.items():
        if _is_record(hint):
            found += fields_of(hint)
            continue
        options = get_args(hint) if type(None) in get_args(hint) else ()
        hint = next((option for option in options if option is not type(None)), hint)
        is_plain = hint in _PLAIN
        found.append(
            _Field(name, hint if is_plain else None, None if is_plain else hint, bool(options), name in record._field_defaults)
        )
    names = [field.name for field in found]
    assert len(set(names)) == len(names), f"{record.__name__}: duplicate name in {names}"
    return tuple(found)


def _inner_records(record: Any) -> tuple[tuple[int, Any, int], ...]:
    """For each nested record: its position in the schema, its type, its number of values."""
    found = _INNER.get(record)
    if found is None:
        parts, first = [], 0
        for hint in record.__annotations__.values():
            size = len(fields_of(hint)) if _is_record(hint) else 1
            if _is_record(hint):
                parts.append((first, hint, size))
            first += size
        found = _INNER[record] = tuple(parts)
    return found


_INNER: dict[Any, tuple[tuple[int, Any, int], ...]] = {}  # not functools.cache, which triggers a torch.compile warning


def _is_record(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def _signature_text(record: Any) -> str:
    parts = []
    for field in fields_of(record):
        if field.tensor is None:
            parts.append(field.name)
        else:
            dtype = _DTYPES[field.tensor.dtype.__name__] + "?" * field.is_optional
            parts.append(f"{field.name}: {dtype} {field.tensor.dim_str}")
    return ", ".join(parts)


def schema_of(record: Any, returns: Any) -> str:
    """The schema of `torch.library` for a function that takes the record and returns a tensor or a tuple of tensors."""
    arguments = [
        f"{'Tensor' if field.plain is None else _PLAIN[field.plain]}{'?' * field.is_optional} {field.name}"
        f"{'=None' * field.has_default}"
        for field in fields_of(record)
    ]
    outputs = "Tensor" if returns is torch.Tensor else f"({', '.join('Tensor' for _ in get_args(returns))})"
    return f"({', '.join(arguments)}) -> {outputs}"
