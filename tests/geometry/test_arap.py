"""As-rigid-as-possible energy: cotangents, rigid motions, scale, known rotations, gradients."""

import math

import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import shapes
from vision3d.geometry.arap import Arap, cotangent_weights
from vision3d.geometry.rotation import so3_exp

SHAPES = {
    "icosphere": lambda: shapes.icosphere(2, dtype=torch.float64),
    "box": lambda: shapes.box((1.0, 2.0, 0.5), 3, torch.float64),
    "torus": lambda: shapes.torus(1.0, 0.3, 20, 9, torch.float64),
    "tube": lambda: shapes.cylinder(0.5, 2.0, 12, caps=False, dtype=torch.float64),
}


def rotation(*vector: float) -> torch.Tensor:
    return so3_exp(torch.tensor(vector, dtype=torch.float64))


def test_cotangents_of_a_scalene_triangle():
    """Half the cotangent of the angle opposite each edge; at the wrong corner they would be permuted."""
    corners = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0.5, 1.2, 0]], dtype=torch.float64)
    edges, weights = cotangent_weights(corners, torch.tensor([[0, 1, 2]]))
    found = {tuple(edge): weight for edge, weight in zip(edges.tolist(), weights.tolist())}
    for (a, b), c in (((0, 1), 2), ((1, 2), 0), ((0, 2), 1)):
        u, v = corners[a] - corners[c], corners[b] - corners[c]
        angle = math.acos(float(u @ v / (u.norm() * v.norm())))
        assert found[a, b] == pytest.approx(0.5 / math.tan(angle), abs=1e-12)
    assert [round(found[pair], 3) for pair in ((0, 1), (1, 2), (0, 2))] == [0.026, 0.208, 1.042]


def test_cotangents_add_up_to_the_dirichlet_energy_of_a_linear_function():
    vertices, faces = shapes.plane((2.0, 3.0), 4, 5, torch.float64)
    edges, weights = cotangent_weights(vertices, faces)
    values = vertices @ torch.tensor([0.3, -0.7, 0.0], dtype=torch.float64)
    energy = (weights * (values[edges[:, 0]] - values[edges[:, 1]]).square()).sum()
    assert float(energy) == pytest.approx((0.3**2 + 0.7**2) * 6, abs=1e-12)  # |gradient|^2 times area


@pytest.mark.parametrize("name", SHAPES)
def test_rigid_motions_have_zero_energy_and_their_rotation_is_found(name):
    vertices, faces = SHAPES[name]()
    arap = Arap.of(vertices, faces)
    turn = rotation(0.4, -2.0, 1.1)
    moved = torch.stack([vertices, vertices @ turn.mT + torch.tensor([1.0, 2, 3])])
    assert float(arap.energy(moved).max()) <= 1e-20
    torch.testing.assert_close(arap.rotations(moved[1]), turn.expand(len(vertices), 3, 3), atol=1e-9, rtol=0)


@pytest.mark.parametrize("subdivisions", [1, 2, 3])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_energy_of_growth_does_not_depend_on_resolution_and_size(subdivisions, size):
    vertices, faces = shapes.icosphere(subdivisions, size, torch.float64)
    assert float(Arap.of(vertices, faces).energy(1.3 * vertices)) == pytest.approx(0.09, abs=1e-10)


def test_reflections_are_not_rotations():
    vertices, faces = SHAPES["box"]()
    arap = Arap.of(vertices, faces)
    mirrored = vertices * torch.tensor([1.0, 1.0, -1.0])
    assert float(arap.energy(mirrored)) > 0.1
    dets = torch.linalg.det(arap.rotations(mirrored))
    torch.testing.assert_close(dets, torch.ones_like(dets))


def test_the_best_rotations_are_a_minimum():
    vertices, faces = SHAPES["torus"]()
    arap, generator = Arap.of(vertices, faces), torch.Generator().manual_seed(1)
    moved = vertices + 0.05 * torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
    best = arap.rotations(moved)
    least = float(arap.energy(moved))
    assert least == pytest.approx(float(arap.energy(moved, best)), rel=1e-12)
    for _ in range(10):
        other = best @ so3_exp(0.1 * torch.randn(len(vertices), 3, generator=generator, dtype=torch.float64))
        assert float(arap.energy(moved, other)) > least


def test_gradients():
    vertices, faces = shapes.box((1.0, 2.0, 0.5), 1, torch.float64)
    arap, generator = Arap.of(vertices, faces), torch.Generator().manual_seed(0)
    moved = vertices + 0.1 * torch.randn(2, *vertices.shape, generator=generator, dtype=torch.float64)
    moved.requires_grad_()
    assert torch.autograd.gradcheck(arap.energy, (moved,))  # through the minimum over rotations
    given = so3_exp(torch.randn(2, len(vertices), 3, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(arap.energy, (moved, given))


def test_obtuse_meshes_have_no_negative_energy():
    """Two flat triangles whose common edge has the cotangent -11: pulling its ends apart must not lower the energy."""
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [1, 0.05, 0], [1, -0.05, 0]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]])
    assert float(cotangent_weights(corners, faces)[1].min()) < -5
    moved = corners.clone()
    moved[0, 0], moved[1, 0] = -50.0, 50.0
    assert float(Arap.of(corners, faces).energy(moved)) >= 0


@pytest.mark.parametrize("name", SHAPES)
def test_strains_of_growth_and_of_rigid_motions(name):
    vertices, faces = SHAPES[name]()
    arap, turned = Arap.of(vertices, faces), vertices @ rotation(0.3, -1.2, 0.7).T + 5
    strains = arap.strains(torch.stack([1.3 * turned, turned, 0.8 * vertices]))
    want = torch.tensor([0.09, 0.0, 0.04], dtype=torch.float64)[:, None].expand_as(strains)
    torch.testing.assert_close(strains, want, atol=1e-12, rtol=0)
    energies = (arap.weights * arap.rest.square().sum(-1) * strains).sum(-1)
    torch.testing.assert_close(energies, arap.energy(torch.stack([1.3 * turned, turned, 0.8 * vertices])))


def test_edges_of_large_strain_yield():
    """At the limit, a quarter of the weight remains, for both directions of an edge; unstrained edges keep theirs."""
    vertices, faces = SHAPES["tube"]()
    arap = Arap.of(vertices, faces)
    strains = torch.zeros(len(arap.weights), dtype=torch.float64)
    strains[3], strains[3 + len(strains) // 2] = 0.02, 0.08
    shares = arap.yielding(strains, 0.05).weights / arap.weights
    is_strained = torch.zeros_like(strains, dtype=torch.bool)
    is_strained[[3, 3 + len(strains) // 2]] = True
    torch.testing.assert_close(shares[is_strained & (arap.weights > 0)], torch.full((2,), 0.25, dtype=torch.float64))
    assert torch.equal(arap.yielding(torch.zeros_like(strains), 0.05).weights, arap.weights)
    assert torch.equal(shares[~is_strained & (arap.weights > 0)], torch.ones_like(shares[~is_strained & (arap.weights > 0)]))


def test_a_joint_costs_less_than_a_bend_once_edges_yield():
    """With constant weights, as-rigid-as-possible spreads a rotation; with robust weights, it concentrates it."""
    sides, rings = 12, 41
    ring = 0.3 * torch.stack([f(2 * math.pi * torch.arange(sides).double() / sides) for f in (torch.cos, torch.sin)], -1)
    z = torch.linspace(-2, 2, rings, dtype=torch.float64)
    vertices = torch.cat([ring.repeat(rings, 1), z.repeat_interleave(sides)[:, None]], -1)
    corner = torch.arange((rings - 1) * sides)
    right = corner - corner % sides + (corner + 1) % sides
    up = corner + sides
    faces = torch.cat([torch.stack([corner, right, right + sides], -1), torch.stack([corner, right + sides, up], -1)])
    arap = Arap.of(vertices, faces)

    def turned(half: float) -> torch.Tensor:
        """Rotates about x by one radian in total, spread over 2 * half of its length."""
        angles = (vertices[:, 2] / half).clamp(-1, 1) / 2
        return torch.stack([vertices[:, 0], vertices[:, 1] * angles.cos() - vertices[:, 2] * angles.sin(),
                            vertices[:, 1] * angles.sin() + vertices[:, 2] * angles.cos()], -1)  # fmt: skip

    spread, gathered = turned(2.0), turned(0.2)
    assert float(arap.energy(spread)) < float(arap.energy(gathered))
    costs = [float(arap.yielding(arap.strains(pose), 0.002).energy(pose)) for pose in (spread, gathered)]
    assert costs[1] < costs[0]


def test_wrong_input():
    vertices, faces = SHAPES["box"]()
    with pytest.raises(InputError, match="all 1 have zero area"):
        Arap.of(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ShapeError, match="vertices"):
        Arap.of(vertices, faces).energy(vertices[:-1])
    with pytest.raises(ShapeError, match="strains"):
        Arap.of(vertices, faces).yielding(torch.zeros(3), 0.05)
