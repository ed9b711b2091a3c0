"""Materials of meshes: factors of the whole, a texture of factors where parts differ, and what files say."""

import json
from dataclasses import replace

import numpy
import pytest
import torch

from tests.render.test_triplanes import colored_ball
from tests.support.outside import validate_gltf
from vision3d.core.errors import ShapeError
from vision3d.geometry.shapes import icosphere
from vision3d.io import glb
from vision3d.io.gltf_container import Gltf
from vision3d.io.gltf_material import MATTE, read_material
from vision3d.render.triplanes.field import query
from vision3d.scene import Mesh, SkinnedMesh
from vision3d.scene.colors import linear_to_srgb
from vision3d.scene.mesh_colors import surface_colors
from vision3d.stages.edit.editor import Editor
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.objects.files import Opened, material_of, write_object
from vision3d.stages.edit.versions import Workpiece


@pytest.fixture
def ball() -> Mesh:
    vertices, faces = icosphere(3)
    return Mesh(vertices, faces, vertex_colors=vertices * 0.5 + 0.5)


def version(editor: Editor, opened: Opened, *edits: Edit, selected=None):
    piece = Workpiece(editor, opened, "y", selected, 128)
    return piece.by_edits(piece.encoded(), edits), piece


def factors_of(path, mesh: Mesh) -> torch.Tensor:
    """Metallic and roughness at the centers of the faces, as a reader of glTF sees them."""
    image = read_material(Gltf(path))
    assert isinstance(image, torch.Tensor)
    centers = torch.full((mesh.num_faces, 3), 1 / 3)
    # The colors of surfaces are linear light of sRGB.
    linear = replace(mesh, texture=torch.nn.functional.pad(image, (0, 1)), vertex_colors=None)
    return linear_to_srgb(surface_colors(linear, torch.arange(mesh.num_faces), centers))[:, :2]


def test_a_metallic_top_is_a_texture(editor, ball, tmp_path):
    opened = Opened.of(ball)
    made, piece = version(editor, opened, Edit("metallic", part="top"))
    opened.write(tmp_path / "a.glb", made.object, made.material)
    after = Mesh.load(tmp_path / "a.glb")
    found = factors_of(tmp_path / "a.glb", after)
    heights = after.vertices[after.faces].mean(1)[:, 1]
    top, rest = found[heights > 0.45], found[heights < 0.25]
    assert torch.allclose(top, torch.tensor([1.0, 0.3]).expand_as(top), atol=0.02)
    assert torch.allclose(rest, torch.tensor([0.0, 1.0]).expand_as(rest), atol=0.02)
    material = Gltf(tmp_path / "a.glb").items("materials")[0]["pbrMetallicRoughness"]
    assert material.keys() == {"baseColorTexture", "metallicRoughnessTexture"}  # so that both factors are 1
    assert material["baseColorTexture"]["index"] != material["metallicRoughnessTexture"]["index"]
    own, _ = version(editor, opened)
    assert torch.allclose(made.object.texture, own.object.texture, atol=0.02)  # reflections are not painted
    assert float((piece.shown(made).texture - own.object.texture).abs().mean()) > 0.01  # but images show them


def test_a_selection_becomes_glossy_and_the_rest_stays(editor, ball, tmp_path):
    selected = ball.vertices[:, 0] > 0
    made, _ = version(editor, Opened.of(ball), Edit("glossy"), selected=selected)
    write_object(tmp_path / "a.glb", made.object, made.material)
    after = Mesh.load(tmp_path / "a.glb")
    found = factors_of(tmp_path / "a.glb", after)
    x = after.vertices[after.faces][..., 0]
    assert torch.allclose(found[x.amin(1) > 0.2], torch.tensor([0.0, 0.1]), atol=0.02)
    assert torch.allclose(found[x.amax(1) < -0.2], torch.tensor([0.0, 1.0]), atol=0.02)


@pytest.mark.parametrize(
    "edits, want",
    [
        ([Edit("metallic")], (1.0, 0.3)),
        ([Edit("metallic"), Edit("color", "red", part="top")], (1.0, 0.3)),
        ([Edit("metallic"), Edit("matte")], (0.0, 0.95)),
        ([Edit("color", "red")], MATTE),
        ([Edit("stripes", part="top")], MATTE),
    ],
)
def test_what_is_the_same_everywhere_is_two_factors(editor, ball, edits, want):
    made, _ = version(editor, Opened.of(ball), *edits)
    assert made.material == pytest.approx(want, abs=1e-4)


def test_materials_stay_through_further_edits(editor, ball, tmp_path):
    made, _ = version(editor, Opened.of(ball), Edit("metallic", part="top"))
    write_object(tmp_path / "a.glb", made.object, made.material)
    again, _ = version(editor, Opened.of(tmp_path / "a.glb"), Edit("color", "red"))
    write_object(tmp_path / "b.glb", again.object, again.material)
    first, second = (factors_of(tmp_path / name, Mesh.load(tmp_path / name)) for name in ("a.glb", "b.glb"))
    assert torch.allclose(first, second, atol=0.01)
    whole, _ = version(editor, Opened.of(tmp_path / "b.glb"), Edit("matte"))
    assert whole.material == pytest.approx((0.0, 0.95), abs=1e-4)


def test_a_part_of_a_moving_mesh(editor, tmp_path):
    from tests.support.creature import creature

    skin = creature()
    made, _ = version(editor, Opened.of(skin), Edit("gold", part="bottom"))
    write_object(tmp_path / "a.glb", made.object, made.material)
    after = SkinnedMesh.load(tmp_path / "a.glb")
    assert len(after) == len(skin) and isinstance(read_material(Gltf(tmp_path / "a.glb")), torch.Tensor)


def changed_material(path, **values) -> None:
    """Replace keys of pbrMetallicRoughness of the first material of a .gltf."""
    content = json.loads(path.read_text())
    content["materials"][0]["pbrMetallicRoughness"].update(values)
    path.write_text(json.dumps(content))


def test_materials_of_files(ball, tmp_path, caplog):
    path = tmp_path / "a.gltf"
    glb.write_mesh(path, ball, material=(0.25, 0.5))
    assert read_material(Gltf(path)) == (0.25, 0.5)
    content = json.loads(path.read_text())
    content["materials"].append({"pbrMetallicRoughness": {"metallicFactor": 0.5}})
    content["meshes"][0]["primitives"].append({**content["meshes"][0]["primitives"][0], "material": 1})
    path.write_text(json.dumps(content))
    assert read_material(Gltf(path)) is None
    assert material_of(path) == MATTE and "edited as matte" in caplog.text  # without the mesh, to which they belong
    glb.write_mesh(path, ball)
    changed_material(path, metallicRoughnessTexture={"index": 7})
    assert read_material(Gltf(path)) is None and Mesh.load(path).num_faces == ball.num_faces
    changed_material(path, metallicFactor="shiny")
    with pytest.raises(Exception, match="metallicFactor and roughnessFactor are"):
        read_material(Gltf(path))


def several_materials(path, ball: Mesh) -> Mesh:
    """Three balls: metal; glossy by a texture of factors; without a material. The mesh of all."""
    uvs = torch.rand(ball.num_vertices, 2, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.5
    glb.write_mesh(path, replace(ball, uvs=uvs), material=torch.tensor([0.0, 0.2]).expand(8, 8, 2))
    content = json.loads(path.read_text())
    (primitive,) = content["meshes"][0]["primitives"]
    content["materials"].append({"pbrMetallicRoughness": {"metallicFactor": 1.0, "roughnessFactor": 0.4}})
    bare = {key: value for key, value in primitive.items() if key != "material"}
    content["meshes"] = [{"primitives": [{**primitive, "material": 1}]}, {"primitives": [primitive]}, {"primitives": [bare]}]
    content["nodes"] = [{"mesh": i, "translation": [3.0 * i, 0, 0]} for i in range(3)]
    content["scenes"] = [{"nodes": [0, 1, 2]}]
    path.write_text(json.dumps(content))
    return Mesh.load(path)


@pytest.mark.parametrize("moving", [False, True])
def test_materials_that_differ_are_kept(editor, ball, tmp_path, moving):
    several_materials(tmp_path / "a.gltf", ball)
    if moving:
        content = json.loads((tmp_path / "a.gltf").read_text())
        content["animations"] = [{"samplers": [], "channels": []}]
        (tmp_path / "a.gltf").write_text(json.dumps(content))
    opened = Opened.of(tmp_path / "a.gltf")
    assert isinstance(opened.value, SkinnedMesh) == moving
    made, _ = version(editor, opened, Edit("color", color="blue", part="top"))
    opened.write(tmp_path / "b.glb", made.object, made.material)
    after = Mesh.load(tmp_path / "b.glb")
    found, at = factors_of(tmp_path / "b.glb", after), after.vertices[after.faces].mean(1)[:, 0]
    for i, wanted in enumerate([(1.0, 0.4), (0.0, 0.2), MATTE]):
        own = found[(at - 3 * i).abs() < 1.2]
        assert len(own) == ball.num_faces
        assert (own - torch.tensor(wanted)).abs().max() < 0.02


def test_factors_by_texel_need_uvs(ball, tmp_path):
    with pytest.raises(ShapeError, match="for a mesh with uvs"):
        glb.write_mesh(tmp_path / "a.glb", ball, material=torch.zeros(4, 4, 2))
    assert not (tmp_path / "a.glb").exists()


def test_other_readers_find_roughness_in_green_and_metal_in_blue(editor, ball, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    made, _ = version(editor, Opened.of(ball), Edit("metallic", part="top"))
    write_object(tmp_path / "a.glb", made.object, made.material)
    scene = trimesh.load(tmp_path / "a.glb")
    image = next(iter(scene.geometry.values())).visual.material.metallicRoughnessTexture
    pixels = torch.from_numpy(numpy.array(image)).reshape(-1, 3)
    assert {(255, 255, 0), (255, 76, 255)} <= {tuple(pixel) for pixel in pixels.tolist()}


def test_a_triplane_becomes_a_mesh_with_its_colors_and_material(tmp_path):
    triplane = colored_ball(torch.diag(torch.tensor([2.0, 2, 2, 1])))
    write_object(tmp_path / "ball.glb", triplane, texture_size=256)
    assert glb.scene_up(tmp_path / "ball.glb") == "z"
    found = Opened.of(tmp_path / "ball.glb")
    mesh = found.value
    assert isinstance(mesh, Mesh) and mesh.texture is not None and found.up == "z"
    assert float(torch.linalg.vector_norm(mesh.vertices, dim=1).mean()) == pytest.approx(2 * 0.5**0.5, abs=0.05)
    assert found.material == (pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01))
    centers = torch.full((mesh.num_faces, 3), 1 / 3)
    colors = linear_to_srgb(surface_colors(mesh, torch.arange(mesh.num_faces), centers))
    goal = query(triplane, mesh.vertices[mesh.faces].mean(1) / 2).colors
    assert float((colors - goal).abs().mean()) < 0.03 < float(goal.std())


@pytest.mark.viewer
def test_the_validator_finds_no_error_in_a_baked_triplane(tmp_path):
    path = tmp_path / "ball.glb"
    write_object(path, colored_ball(), texture_size=128)
    (report,) = validate_gltf(path)
    assert report["numErrors"] == 0 and report["numWarnings"] == 0, report["messages"]
