"""The native recurrences: every instruction set, the bodies of the CUDA kernels, threads, and what torch asks of an op."""

import pytest
import torch

from tests.support.scans import MAKERS, SHAPES, by_recurrence, grads_of, ragged, relative, selective_inputs, states
from tests.support.sides import Side, assert_same
from vision3d.core import native
from vision3d.stages.detect.operators import scans

pytestmark = pytest.mark.skipif(native.module() is None, reason="the native module is not built")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MAKERS)
def test_every_instruction_set(name, isa):
    """More channels, keys and values than a vector has lanes, and a rest of each."""
    groups = ragged((40, 0, 1, 19))
    sizes = (37, 23) if name == "selective_scan" else (2, 23, 37)
    rows = MAKERS[name](groups.rows, *sizes, dtype=torch.float32)
    state = states(groups, *sizes, dtype=torch.float32)
    leaves = [value.requires_grad_() for value in (*rows, state)]
    got, want = (
        getattr(scans, name)(*leaves[:-1], groups, state=leaves[-1]),
        by_recurrence(name, groups, leaves[:-1], leaves[-1]),
    )
    for a, b in zip((*got, *grads_of(got, leaves)), (*want, *grads_of(want, leaves))):
        assert relative(a, b) < 2e-5


@pytest.mark.parametrize("name", MAKERS)
def test_opcheck(name):
    groups = ragged((4, 0, 3))
    rows = MAKERS[name](groups.rows)
    rows = [*rows, torch.randn(6, dtype=torch.float64)] if name == "selective_scan" else rows
    values = [value.requires_grad_() for value in (*rows, states(groups, *SHAPES[name]))]
    flags = (False, False) if name == "decayed_attention" else (False,)
    torch.library.opcheck(getattr(torch.ops.vision3d, name).default, (*values, groups.starts, *flags, True))


@pytest.mark.parametrize("name", MAKERS)
def test_bodies_of_the_cuda_kernels(name):
    """In float32, on the CPU, against the vector loops."""
    groups = ragged((40, 0, 1, 19))
    inputs = {str(i): value for i, value in enumerate((*MAKERS[name](groups.rows), states(groups, *SHAPES[name])))}

    def case(given, backend):
        *rows, state = given.values()
        return getattr(scans, name)(*rows, groups, state=state)

    assert_same(case, inputs, (Side("native", torch.float32, bodies=True), Side("native", torch.float32)))


def test_any_number_of_threads_gives_the_same_bits():
    groups, before, found = ragged((50, 0, 30)), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            rows = [value.requires_grad_() for value in selective_inputs(80, 40, 16, torch.float32)]
            y, _ = scans.selective_scan(*rows, groups)
            found.append([y, *torch.autograd.grad(y.sum(), rows)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others))
