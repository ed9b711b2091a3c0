"""Triplanes: checks, files, transforms."""

import dataclasses

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, ShapeError
from vision3d.scene import GaussianScene, MeshGaussians, Triplane, load
from vision3d.scene.upright import up_by_convention


def make(**changes) -> Triplane:
    torch.manual_seed(0)
    decoder = {
        "density.0.weight": torch.randn(1, 6), "density.0.bias": torch.zeros(1),
        "color.0.weight": torch.randn(5, 9), "color.0.bias": torch.zeros(5),
    }  # fmt: skip
    return dataclasses.replace(Triplane(torch.randn(3, 5, 8, 8), decoder, 2, torch.eye(4)), **changes)


def test_files_are_bit_equal(tmp_path):
    triplane = make()
    triplane.save(tmp_path / "a.safetensors")
    for found in (Triplane.load(tmp_path / "a.safetensors"), load(tmp_path / "a.safetensors")):
        assert torch.equal(found.planes, triplane.planes) and torch.equal(found.matrix, triplane.matrix)
        assert found.num_density == 2 and found.decoder.keys() == triplane.decoder.keys()
        assert all(torch.equal(found.decoder[name], value) for name, value in triplane.decoder.items())


def test_other_types_of_the_same_suffix_are_named(tmp_path):
    make().save(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="holds a triplane, want Gaussians on a mesh"):
        MeshGaussians.load(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="want a Gaussian scene"):
        GaussianScene.load(tmp_path / "a.safetensors")


def test_damaged_files(tmp_path):
    path = tmp_path / "a.safetensors"
    make().save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError, match="is damaged"):
        Triplane.load(path)
    with pytest.raises(InputError, match="planes"):
        make(planes=torch.full((3, 5, 8, 8), torch.nan)).save(path)


@pytest.mark.parametrize(
    "changes, error, text",
    [
        ({"planes": torch.zeros(2, 5, 8, 8)}, ShapeError, "Triplane.planes"),
        ({"matrix": torch.zeros(3, 3)}, ShapeError, "Triplane.matrix"),
        ({"num_density": 5}, InputError, "got 5, want 1 to 4"),
        ({"num_density": 1}, InputError, r"density.0.weight: got shape \(1, 6\), want \(N, 3\)"),
        ({"decoder": {}}, InputError, "density.0.weight: got none"),
    ],
)
def test_wrong_values_are_named(changes, error, text):
    with pytest.raises(error, match=text):
        make(**changes)


def test_a_matrix_that_shears_is_refused():
    with pytest.raises(InputError):
        make(matrix=torch.tensor([[1.0, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])).validate()


def test_transform_composes_and_sets_the_up_axis():
    turn = torch.tensor([[1.0, 0, 0, 1], [0, 0, -1, 2], [0, 1, 0, 3], [0, 0, 0, 1]])  # z to -y
    moved = make().transform(turn).transform(torch.diag(torch.tensor([2.0, 2, 2, 1])))
    assert torch.allclose(moved.matrix @ torch.tensor([0.0, 0, 0, 1]), torch.tensor([2.0, 4, 6, 1]))
    assert up_by_convention(make()) == "z" and up_by_convention(moved) == "-y"
