"""The tests check shapes at run time; these tests check that they do."""

import jaxtyping
import pytest
import torch

from vision3d.core.errors import ShapeError
from vision3d.geometry import quaternion


def test_a_wrong_shape_is_detected():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'quats'"):
        quaternion.quat_to_rotmat(torch.ones(3))


@pytest.mark.wrong_types
def test_the_mark_switches_the_checks_off():
    with pytest.raises(ShapeError):
        quaternion.quat_to_rotmat(torch.ones(3))
