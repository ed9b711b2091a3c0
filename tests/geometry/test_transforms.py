"""`Rigid` and `Similarity` against 4x4 matrices and roma; batch behavior."""

from inspect import unwrap  # bypasses the runtime type checks of the tests

import pytest
import torch

from vision3d import geometry as g
from vision3d.core.errors import ShapeError


def draw(kind, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    quats = g.random_quats(*shape, dtype=torch.float64, generator=generator)
    translations = torch.randn(*shape, 3, dtype=torch.float64, generator=generator)
    rigid = g.Rigid.from_quat(quats, translations)
    if kind == "rigid":
        return rigid
    return g.Similarity.from_rigid(rigid, torch.rand(*shape, dtype=torch.float64, generator=generator) + 0.5)


KINDS = pytest.mark.parametrize("kind", ["rigid", "similarity"])


@KINDS
@pytest.mark.parametrize("other", ["rigid", "similarity"])
def test_composition_is_the_product_of_matrices(kind, other):
    first, second = draw(kind, 5), draw(other, 5, seed=1)
    product = first @ second
    torch.testing.assert_close(product.matrix(), first.matrix() @ second.matrix())
    assert type(product) is (g.Rigid if kind == other == "rigid" else g.Similarity)


@KINDS
def test_inverse_apply_and_log(kind):
    transform = draw(kind, 7)
    points = torch.randn(7, 3, dtype=torch.float64)
    moved = transform.apply(points)
    ones = torch.cat([points, torch.ones_like(points[:, :1])], -1)
    torch.testing.assert_close(moved, (transform.matrix() @ ones[..., None])[:, :3, 0])
    torch.testing.assert_close(transform.inverse().apply(moved), points)
    torch.testing.assert_close(transform.apply_vectors(points - 1), moved - transform.apply(torch.ones(3, dtype=torch.float64)))
    again = type(transform).exp(transform.log())
    torch.testing.assert_close(again.matrix(), transform.matrix())
    torch.testing.assert_close(type(transform).from_matrix(transform.matrix()).log(), transform.log())
    torch.testing.assert_close(type(transform).identity(7, dtype=torch.float64).apply(points), points)
    torch.testing.assert_close(g.quat_to_rotmat(transform.quats), transform.rotmats)


@KINDS
def test_the_batch_indexes_and_broadcasts(kind):
    transform = draw(kind, 4, 3)
    assert transform.shape == (4, 3) and transform[1].shape == (3,) and transform[:, None, 2].shape == (4, 1)
    assert transform[..., 0].shape == (4,) and transform[1, 2].shape == ()
    torch.testing.assert_close(transform[1, 2].matrix(), transform.matrix()[1, 2])
    points = torch.randn(10, 3, dtype=torch.float64)
    assert transform[..., None].apply(points).shape == (4, 3, 10, 3)
    assert transform.to(torch.float32).rotmats.dtype == torch.float32
    one = type(transform)(torch.eye(3), torch.zeros(5, 3), *([torch.ones(())] if kind == "similarity" else []))
    assert one.shape == (5,) and one.rotmats.shape == (5, 3, 3)
    assert repr(one) == f"{type(one).__name__}(shape=(5,), dtype=torch.float32, device='cpu')"


@KINDS
def test_gradients_and_transforms_of_functions(kind):
    def moved(tangent, point):
        cls = g.Rigid if kind == "rigid" else g.Similarity
        transform = cls.exp(tangent)
        return (transform @ transform).inverse().apply(point)

    tangent = torch.randn(6 if kind == "rigid" else 7, dtype=torch.float64, requires_grad=True)
    point = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(moved, (tangent, point))
    batch = torch.stack([tangent.detach(), 2 * tangent.detach()])
    each = torch.stack([moved(value, point.detach()) for value in batch])
    torch.testing.assert_close(torch.func.vmap(moved, (0, None))(batch, point.detach()), each)


def test_rigid_agrees_with_roma():
    roma = pytest.importorskip("roma")
    ours, other = draw("rigid", 6), draw("rigid", 6, seed=1)
    theirs = roma.Rigid(ours.rotmats, ours.translations) @ roma.Rigid(other.rotmats, other.translations).inverse()
    found = ours @ other.inverse()
    torch.testing.assert_close(found.rotmats, theirs.linear)
    torch.testing.assert_close(found.translations, theirs.translation)


def made(*values):
    transform = object.__new__(g.Rigid)
    unwrap(g.Rigid.__init__)(transform, *values)
    return transform


def test_wrong_shapes():
    with pytest.raises(ShapeError, match=r"rotmats: got shape \(3, 2\), want \(\.\.\., 3, 3\)"):
        made(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(
        ShapeError, match=r"translations: got shape \(4,\), want a batch that broadcasts with \(5,\) of rotmats"
    ):
        made(torch.zeros(5, 3, 3), torch.zeros(4, 3))
    with pytest.raises(ShapeError, match=r"points: got shape \(2,\), want \(\.\.\., 3\)"):
        unwrap(g.Rigid.apply)(g.Rigid.identity(), torch.zeros(2))
    with pytest.raises(TypeError):
        _ = g.Rigid.identity() @ torch.eye(4)
