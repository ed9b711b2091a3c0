import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.geometry.mesh import face_normals, vertex_normals
from vision3d.scene import GaussianScene, Mesh, load


def corner_values(mesh):
    """Attributes of each corner of each face: the surface, independent of how vertices are shared."""
    values = [mesh.vertices[mesh.faces], mesh.corner_uvs]
    values += [value[mesh.faces] for value in (mesh.normals, mesh.vertex_colors) if value is not None]
    return torch.cat(values, -1)


def test_transform_moves_points_and_rotates_normals(mesh, similarity):
    moved = mesh.transform(similarity)
    torch.testing.assert_close(moved.vertices, mesh.vertices @ similarity[:3, :3].T + similarity[:3, 3])
    torch.testing.assert_close(torch.linalg.vector_norm(moved.normals, dim=-1), torch.ones(6))
    flat = replace(mesh, normals=vertex_normals(mesh.vertices, mesh.faces)).transform(similarity)
    torch.testing.assert_close(flat.normals, vertex_normals(flat.vertices, flat.faces))
    with pytest.raises(InputError, match="matrix: "):
        mesh.transform(torch.diag(torch.tensor([1.0, 2, 3, 1])))


def test_seams_are_split_where_uvs_differ_and_nowhere_else(mesh):
    by_corner = replace(mesh, uvs=mesh.corner_uvs)
    assert by_corner.split_seams().num_vertices == 6
    torch.testing.assert_close(corner_values(by_corner.split_seams()), corner_values(mesh), rtol=0, atol=0)
    seam = mesh.corner_uvs.clone()
    seam[2:] += 0.5  # the second square has its own UVs: its two shared vertices are duplicated
    split = replace(mesh, uvs=seam).split_seams()
    assert split.num_vertices == 8 and split.uvs.shape == (8, 2)
    torch.testing.assert_close(corner_values(split), corner_values(replace(mesh, uvs=seam)), rtol=0, atol=0)
    assert mesh.split_seams() is mesh


def test_merge_keeps_common_attributes(mesh):
    both = mesh.merge(replace(mesh, vertex_colors=None))
    assert (both.num_vertices, both.num_faces) == (12, 8)
    torch.testing.assert_close(face_normals(both.vertices, both.faces), face_normals(mesh.vertices, mesh.faces).repeat(2, 1))
    assert torch.equal(both.vertex_colors[6:], torch.ones(6, 4)) and torch.equal(both.texture, mesh.texture)
    assert mesh.merge(replace(mesh, uvs=mesh.corner_uvs)).uvs.shape == (8, 3, 2)
    assert mesh.merge(replace(mesh, normals=None)).normals is None
    with pytest.raises(InputError, match="the textures of the meshes differ"):
        mesh.merge(replace(mesh, texture=None))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("vertices", torch.zeros(6, 2), r"Mesh.vertices: got shape \(6, 2\), want shape \(V, 3\)"),
        ("faces", torch.zeros(4, 3), "Mesh.faces: got dtype torch.float32, want dtype torch.int64"),
        ("uvs", torch.zeros(5, 2), r"Mesh.uvs: got shape \(5, 2\), want shape \(6, 2\)"),
        ("uvs", torch.zeros(3, 3, 2), r"Mesh.uvs: got shape \(3, 3, 2\), want shape \(4, 3, 2\)"),
        ("uvs", None, "has a texture but no uvs"),
        ("normals", torch.zeros(6), r"Mesh.normals: got shape \(6,\)"),
        ("texture", torch.zeros(4, 4, 1), r"Mesh.texture: got shape \(4, 4, 1\)"),
        ("texture", torch.zeros(0, 4, 3), "not empty"),
        ("vertex_colors", torch.zeros(6, 5), r"Mesh.vertex_colors: got shape \(6, 5\)"),
    ],
)
def test_wrong_shapes_are_rejected_on_construction(mesh, name, value, message):
    with pytest.raises(InputError, match=message):
        replace(mesh, **{name: value})


def test_validate(mesh):
    assert mesh.validate() is mesh
    with pytest.raises(InputError, match="got 6 vertices and 0 faces, want at least one face"):
        replace(mesh, faces=mesh.faces[:0]).validate()
    with pytest.raises(InputError, match=r"face 1 is \[0, 6, 3\], but there are 6 vertices"):
        replace(mesh, faces=torch.tensor([[0, 1, 4], [0, 6, 3]])).validate()
    with pytest.raises(InputError, match=r"vertices is not finite in 1 of 6 rows \(first: row 2\)"):
        replace(mesh, vertices=mesh.vertices.index_fill(0, torch.tensor(2), math.nan)).validate()
    with pytest.raises(InputError, match="all 4 faces have zero area"):
        replace(mesh, vertices=torch.zeros(6, 3)).validate()
    some = replace(mesh, faces=torch.tensor([[0, 1, 4], [0, 0, 3]])).validate()
    assert some.num_degenerate == 1
    # Five faces on one edge, and UVs outside the image: unusual, but a valid mesh.
    replace(mesh, faces=torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 1, 5]]), uvs=mesh.uvs * 9 - 4).validate()


def test_save_and_load_go_by_suffix(mesh, gaussians, tmp_path):
    mesh.save(tmp_path / "a.glb")
    assert torch.equal(Mesh.load(tmp_path / "a.glb").vertices, mesh.vertices)
    assert isinstance(load(tmp_path / "a.glb"), Mesh)
    gaussians.save(tmp_path / "a.ply")
    with pytest.raises(InputError, match=r"a\.ply: holds a Gaussian scene, want a mesh"):
        Mesh.load(tmp_path / "a.ply")
    with pytest.raises(InputError, match=r"a\.glb: holds a mesh, want a Gaussian scene"):
        GaussianScene.load(tmp_path / "a.glb")


def test_reprs_summarize_the_content(mesh):
    assert repr(mesh) == "Mesh(6 vertices, 4 faces, texture 7x5, colored, cpu)"
    assert "<td>7x5</td>" in mesh._repr_html_() and "<img" in mesh._repr_html_()
    Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))._repr_html_()
    assert mesh.to("meta").texture.device.type == "meta"
