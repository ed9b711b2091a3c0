"""NaN in gives NaN out, row by row: values that are not finite never become plausible rotations."""

import pytest
import torch

from tests.support.geometry_cases import CASES, EXEMPT, MODULES
from vision3d.core import native
from vision3d.geometry.heads import RotationHead

NAMES = list(CASES)
BAD = {"nan": torch.nan, "inf": torch.inf, "minus inf": -torch.inf}


@pytest.fixture(params=["native", "reference"])
def backend(request, monkeypatch):
    if request.param == "reference":
        monkeypatch.setattr(native, "_is_found", lambda: False)
    elif native.module() is None:
        pytest.skip("the native module is not built")


def spoiled(case, which, value, dtype):
    """Inputs with the given value at entry k of one input in row k + 1, and the unchanged inputs."""
    torch.manual_seed(0)
    entries = case.inputs(1, dtype)[which][0].numel()
    clean = case.inputs(entries + 1, dtype)
    bad = [tensor.clone() for tensor in clean]
    rows = torch.arange(entries)
    bad[which].view(entries + 1, entries)[rows + 1, rows] = value
    is_read = torch.ones(entries, dtype=torch.bool)
    if clean[which].ndim == 3 and clean[which].shape[-1] == clean[which].shape[-2]:
        is_read[list(case.unread)] = False
    return bad, clean, is_read


def finite_rows(outputs):
    return torch.stack([output.reshape(len(output), -1).isfinite().all(1) for output in outputs]).all(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_values_that_are_not_finite_stay_so_in_their_own_row(name, dtype, backend):
    case = CASES[name]
    for which in range(len(case.makers)):
        for kind, value in BAD.items():
            if kind != "nan" and case.endless:
                continue
            bad, clean, is_read = spoiled(case, which, value, dtype)
            leaf = bad[which].requires_grad_()
            try:
                outputs = case(*bad)
            except ValueError:  # InputError: rejected is acceptable as well
                continue
            wanted = case(*clean)
            found = finite_rows(outputs)
            assert found[0], "a clean row"
            assert not found[1:][is_read].any(), f"input {which}, {kind}: rows {found.nonzero().flatten().tolist()} are finite"
            for output, want in zip(outputs, wanted):
                assert torch.equal(output[0], want[0]), "another row has changed this one"
            sum(output.square().sum() for output in outputs).backward()
            assert leaf.grad[0].isfinite().all()
            if kind == "nan":
                whole = leaf.grad.view(len(leaf), -1).isfinite().all(1)[1:][is_read]
                assert not whole.any(), f"input {which}: gradients of rows {whole.nonzero().flatten().tolist()} are finite"


@pytest.mark.parametrize("rep", ["6d", "9d_svd", "9d_direct", "10d", "quat"])
def test_a_diverged_network_is_visible(rep, backend):
    head = RotationHead(rep, in_features=4, count=2).eval()
    features = torch.rand(3, 4)
    features[1, 2] = torch.nan
    rotmats = head(features)
    assert rotmats[1].isnan().all()
    assert rotmats[[0, 2]].isfinite().all()


def test_the_table_is_complete():
    exempt = set().union(*EXEMPT.values())
    known = {case.function for case in CASES.values()}
    text = " ".join(CASES)
    for module in MODULES:
        prefix = module.__name__.removeprefix("vision3d.geometry.")
        for name, function in vars(module).items():
            is_own = callable(function) and getattr(function, "__module__", "") == module.__name__
            if name.startswith("_") or not is_own or isinstance(function, type) or f"{prefix}.{name}" in exempt:
                continue
            assert function in known or name in text, f"{prefix}.{name} is in no case and not exempt"
