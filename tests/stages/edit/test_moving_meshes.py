"""Meshes with joints, morphs and clips: an edit changes their texture, everything else is bit-equal."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.creature import creature
from vision3d.core.errors import InputError
from vision3d.io import gltf_skin_writer
from vision3d.scene import Mesh, SkinnedMesh
from vision3d.scene.selection import Selection
from vision3d.stages.edit.editor import Editor
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.objects.files import Opened, selected_points, surface_of
from vision3d.stages.edit.objects.recolor import recolor_mesh, recolor_skin

CREATURE = Path(__file__).parents[3] / "assets" / "creature" / "creature.glb"


def recolored(editor: Editor, skin: SkinnedMesh, **options) -> SkinnedMesh:
    edited = editor.apply(editor.encode_mesh(skin.at_rest(), "y"), [Edit("color", "red")])
    return recolor_skin(skin, edited, **options)[0]


def assert_moves_alike(first: SkinnedMesh, second: SkinnedMesh) -> None:
    """Joints, clips and morph names are bit-equal."""
    for name in ("names", "parents", "morph_names", "fps"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("translations", "quats", "scales", "inverse_binds"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert [clip.name for clip in first.clips] == [clip.name for clip in second.clips]
    for one, other in zip(first.clips, second.clips):
        for a, b in zip(one.channels, other.channels, strict=True):
            assert (a.path, a.joint, a.interpolation) == (b.path, b.joint, b.interpolation)
            assert torch.equal(a.times, b.times) and torch.equal(a.values, b.values)


def test_the_creature_keeps_all_but_its_texture(editor, tmp_path):
    opened = Opened.of(CREATURE)
    skin = opened.value
    assert isinstance(skin, SkinnedMesh) and len(skin) == 21 and len(skin.clips) == 2
    opened.write(tmp_path / "edited.glb", recolored(editor, skin))
    after = SkinnedMesh.load(tmp_path / "edited.glb")
    assert_moves_alike(skin, after)
    for name in ("vertices", "faces", "uvs", "normals"):
        assert torch.equal(getattr(skin.mesh, name), getattr(after.mesh, name)), name
    assert torch.equal(skin.indices, after.indices) and torch.equal(skin.weights, after.weights)
    red, green, blue = (after.mesh.texture.mean((0, 1)) - skin.mesh.texture.mean((0, 1))).tolist()
    assert red > green and red > blue


def corners(skin: SkinnedMesh, values: torch.Tensor) -> torch.Tensor:
    """Values of the vertices at the corners of the faces: comparable where vertices were split."""
    return values[..., skin.mesh.faces.flatten(), :]


def test_weights_and_morphs_follow_split_vertices(editor, tmp_path):
    skin = creature(influences=4)
    assert skin.mesh.uvs is None
    before = tmp_path / "before.glb"
    skin.save(before)
    read = SkinnedMesh.load(before)
    opened = Opened.of(before)
    opened.write(tmp_path / "edited.glb", recolored(editor, read, texture_size=128))
    after = SkinnedMesh.load(tmp_path / "edited.glb")
    assert after.mesh.num_vertices > read.mesh.num_vertices and after.mesh.texture is not None
    assert_moves_alike(read, after)
    assert torch.equal(corners(read, read.mesh.vertices), corners(after, after.mesh.vertices))
    assert torch.equal(corners(read, read.morphs), corners(after, after.morphs))
    dense = [torch.zeros(len(one.weights), 6).scatter_add_(1, one.indices, one.weights) for one in (read, after)]
    assert torch.equal(corners(read, dense[0]), corners(after, dense[1]))
    for clip, other in zip(read.clips, after.clips):
        assert torch.allclose(corners(read, read.posed(clip, [0.3])), corners(after, after.posed(other, [0.3])), atol=1e-6)


def test_normals_of_morphs_are_those_of_the_unsplit_mesh(tmp_path):
    skin = creature()
    normals = torch.nn.functional.normalize(skin.mesh.vertices, dim=1)
    whole = replace(skin, mesh=replace(skin.mesh, normals=normals))
    split = replace(whole, mesh=replace(whole.mesh, uvs=torch.rand(skin.mesh.num_faces, 3, 2)))
    for name, one in (("whole", whole), ("split", split)):
        gltf_skin_writer.write_skin(tmp_path / f"{name}.glb", one)
    first, second = (SkinnedMesh.load(tmp_path / f"{name}.glb") for name in ("whole", "split"))
    assert torch.equal(corners(first, first.morph_normals), corners(second, second.morph_normals))


def test_a_new_texture_changes_no_vertex_and_no_normal(editor):
    mesh = SkinnedMesh.load(CREATURE).mesh
    plain = Mesh(mesh.vertices, mesh.faces)
    changed, _ = recolor_mesh(plain, editor.apply(editor.encode_mesh(plain, "y"), [Edit("color", "red")]), texture_size=256)
    assert torch.equal(changed.vertices, plain.vertices) and torch.equal(changed.faces, plain.faces)
    assert changed.normals is None and changed.texture is not None


def test_the_rest_pose_is_what_is_selected_and_edited(editor):
    skin = replace(creature(), rest_weights=torch.tensor([1.0, 0.0]))
    rest = surface_of(skin)
    assert not torch.equal(rest.vertices, skin.mesh.vertices)
    mask = selected_points(skin, Selection.of(rest.vertices, rest.vertices[:, 0] > 0))
    assert torch.equal(mask, rest.vertices[:, 0] > 0)
    with pytest.raises(InputError, match="other points"):
        selected_points(skin, Selection.of(skin.mesh.vertices, mask))


def test_motion_that_cannot_be_read_is_a_warning(tmp_path, caplog, monkeypatch):
    from vision3d.core.errors import FileFormatError
    from vision3d.io import gltf

    creature().save(tmp_path / "a.glb")

    def refuse(path):
        raise FileFormatError(path, "moves two meshes")

    monkeypatch.setattr(gltf, "load_skin", refuse)
    assert isinstance(Opened.of(tmp_path / "a.glb").value, Mesh)
    assert "a.glb" in caplog.text and "edited in its rest pose" in caplog.text


def test_a_mesh_of_a_scene_keeps_its_axes(tmp_path):
    from vision3d.io import glb

    mesh = Mesh(torch.rand(4, 3), torch.tensor([[0, 1, 2], [0, 2, 3]]), vertex_colors=torch.rand(4, 3))
    glb.write_mesh(tmp_path / "a.glb", mesh, "-y")
    opened = Opened.of(tmp_path / "a.glb")
    assert opened.up == "-y" and torch.equal(opened.value.vertices, mesh.vertices)  # as the viewer selects
    opened.write(tmp_path / "b.glb", opened.value)
    assert glb.scene_up(tmp_path / "b.glb") == "-y"
    assert torch.equal(Mesh.load(tmp_path / "b.glb").vertices, Mesh.load(tmp_path / "a.glb").vertices)
