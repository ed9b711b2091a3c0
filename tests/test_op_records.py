"""Operations built from records."""

from typing import NamedTuple

import pytest
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.op_records import build, fields_of, flatten, schema_of


class Inner(NamedTuple):
    values: Float[Tensor, "n d"]
    factor: float


class Outer(NamedTuple):
    ids: Int64[Tensor, " n"] | None
    inner: Inner
    name: str
    count: int
    flag: bool
    mask: Bool[Tensor, " n"] | None = None


VALUES = torch.arange(6.0, dtype=torch.float64).view(3, 2)


def test_the_schema_is_the_flattened_record():
    assert schema_of(Outer, tuple[Tensor, Tensor]) == (
        "(Tensor? ids, Tensor values, float factor, str name, SymInt count, bool flag, Tensor? mask=None) -> (Tensor, Tensor)"
    )
    assert schema_of(Inner, Tensor) == "(Tensor values, float factor) -> Tensor"


def test_records_are_flattened_and_rebuilt():
    record = Outer(None, Inner(VALUES, 2.0), "a", 3, True)
    flat = list(flatten(record))
    assert [field.name for field in fields_of(Outer)] == ["ids", "values", "factor", "name", "count", "flag", "mask"]
    assert build(Outer, flat) == record
    assert build(Outer, flat[:-1]) == record  # defaults may be omitted, as torch does


def test_a_duplicate_name_is_rejected():
    class Twice(NamedTuple):
        values: Float[Tensor, " n"]
        inner: Inner

    with pytest.raises(AssertionError, match="Twice: duplicate name"):
        fields_of(Twice)
