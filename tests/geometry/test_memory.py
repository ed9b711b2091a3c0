"""Outputs never share memory with inputs."""

import pytest
import torch

from tests.support.geometry_cases import CASES
from vision3d.geometry.representations import REPRESENTATIONS, from_rotmat


@pytest.mark.parametrize("name", list(CASES))
def test_outputs_share_no_memory_with_inputs(name):
    case = CASES[name]
    for rows in (1, 3):
        inputs = case.inputs(rows)
        taken = {value.untyped_storage().data_ptr() for value in inputs}
        for output in case(*inputs):
            assert output.untyped_storage().data_ptr() not in taken


@pytest.mark.parametrize("rep", list(REPRESENTATIONS))
def test_optimizing_parameters_does_not_change_the_matrices(rep):
    rotmats = torch.eye(3).repeat(2, 1, 1)
    values = from_rotmat(rotmats, rep).requires_grad_()
    optimizer = torch.optim.Adam([values], 0.1)
    for _ in range(10):
        optimizer.zero_grad()
        values.square().sum().backward()
        optimizer.step()
    assert torch.equal(rotmats, torch.eye(3).expand(2, 3, 3))
