import numpy as np
import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats

PARENTS = (-1, 0, 1, 1, 0, 4, -1, 6)


def chain(rotmats, offsets, translation):
    """4x4 products from each joint up to its root, in numpy."""
    found = []
    for joint in range(len(PARENTS)):
        matrix, at = np.eye(4), joint
        while at >= 0:
            own = np.eye(4)
            own[:3, :3], own[:3, 3] = rotmats[at], offsets[at] + (translation if PARENTS[at] < 0 else 0)
            matrix, at = own @ matrix, PARENTS[at]
        found.append(matrix)
    return np.stack(found)


def test_is_the_product_of_the_chain():
    rotmats = quat_to_rotmat(random_quats(5, len(PARENTS), dtype=torch.float64))
    offsets, translations = torch.randn(len(PARENTS), 3).double(), torch.randn(5, 3).double()
    turned, moved = forward_kinematics(rotmats, offsets, PARENTS, translations)
    for i in range(5):
        expected = chain(rotmats[i].numpy(), offsets.numpy(), translations[i].numpy())
        np.testing.assert_allclose(turned[i], expected[:, :3, :3], atol=1e-14)
        np.testing.assert_allclose(moved[i], expected[:, :3, 3], atol=1e-13)


def test_bones_keep_their_lengths_and_a_rotated_root_rotates_all():
    rotmats, offsets = quat_to_rotmat(random_quats(6, dtype=torch.float64)), torch.randn(6, 3).double()
    parents = PARENTS[:6]
    turned, moved = forward_kinematics(rotmats, offsets, parents)
    lengths = torch.stack([(moved[j] - moved[parent]).norm() for j, parent in enumerate(parents) if parent >= 0])
    torch.testing.assert_close(lengths, offsets[1:].norm(dim=-1))
    extra = quat_to_rotmat(random_quats(dtype=torch.float64))
    again = forward_kinematics(torch.cat([(extra @ rotmats[0])[None], rotmats[1:]]), offsets, parents)
    torch.testing.assert_close(again[0], extra @ turned)
    torch.testing.assert_close(again[1] - offsets[0], (moved - offsets[0]) @ extra.T)


def test_gradients():
    rotmats = quat_to_rotmat(random_quats(2, len(PARENTS), dtype=torch.float64)).requires_grad_()
    offsets = torch.randn(len(PARENTS), 3).double().requires_grad_()
    translations = torch.randn(2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda r, o, t: forward_kinematics(r, o, PARENTS, t), (rotmats, offsets, translations))


@pytest.mark.wrong_types
def test_wrong_parents_and_shapes():
    eye = torch.eye(3).expand(2, 3, 3)
    with pytest.raises(InputError, match=r"^parents: joint 0 has parent 1; want an earlier joint, or -1 for a root$"):
        forward_kinematics(eye, torch.zeros(2, 3), (1, 0))
    with pytest.raises(InputError, match="joint 1 has parent -2"):
        forward_kinematics(eye, torch.zeros(2, 3), (-1, -2))
    with pytest.raises(ShapeError, match=r"rotmats: got shape \(2, 3, 3\), want \(..., 3, 3, 3\)"):
        forward_kinematics(eye, torch.zeros(3, 3), (-1, 0, 1))
