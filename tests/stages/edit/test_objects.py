"""Objects as points, planes and edits of them: frames, invariances, what must not change."""

import dataclasses
import math

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.geometry.shapes import box, icosphere
from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.render.triplanes.field import query
from vision3d.scene import GaussianScene, Mesh
from vision3d.stages.edit.editor import Editor
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.targets import apply_edits
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.objects.points import MARGIN, points_of_gaussians, points_of_mesh, to_cube
from vision3d.stages.edit.objects.recolor import recolor_gaussians, recolor_mesh

UP = {"x": 0, "y": 1, "z": 2}


def vase(up: str = "z") -> Mesh:
    """A tall ellipsoid along an axis, red above and blue below."""
    vertices, faces = icosphere(3)
    scale = torch.full((3,), 0.3)
    scale[UP[up]] = 0.8
    vertices = vertices * scale + torch.tensor([3.0, -1, 2])
    along = vertices[:, UP[up]] - torch.tensor([3.0, -1, 2])[UP[up]]
    colors = torch.where(along[:, None] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    return Mesh(vertices, faces, vertex_colors=colors)


def splats(count: int = 500, degree: int = 1) -> GaussianScene:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 3, generator=generator)
    scene = GaussianScene.from_points(points / points.norm(dim=1, keepdim=True), torch.rand(count, 3, generator=generator),
                                      sh_degree=degree, opacity=0.8)  # fmt: skip
    return dataclasses.replace(scene, sh=scene.sh + 0.05 * torch.randn(scene.sh.shape, generator=generator))


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_up_is_z_in_the_cube(up):
    found = points_of_mesh(vase(up), up, 4000)
    assert float(found.points.abs().max()) == pytest.approx(0.95, abs=0.01)
    assert float(found.points[:, 2].max() - found.points[:, 2].min()) == pytest.approx(1.9, abs=0.02)
    red = found.values[:, 0] > 0.5
    assert bool((found.points[red][:, 2] > -0.1).all()) and bool((found.points[~red][:, 2] < 0.1).all())
    back = found.points @ found.matrix[:3, :3].T + found.matrix[:3, 3]
    assert torch.allclose(to_cube(found.matrix, back), found.points, atol=1e-5)
    assert float(torch.linalg.det(found.matrix[:3, :3])) > 0


def test_floaters_do_not_shrink_a_splat_object():
    scene = splats()
    far = dataclasses.replace(scene[:1], means=torch.tensor([[100.0, 0, 0]]), opacity_logits=torch.tensor([-3.0]))
    found = points_of_gaussians(scene.merge(far), "z")
    assert float(found.points[:-1].abs().max()) > 0.8
    assert float(found.weights[-1]) == 0 and float(found.weights[:-1].min()) > 0


def test_objects_without_extent_are_refused():
    with pytest.raises(InputError, match="finite extent"):
        points_of_gaussians(splats(3)[[0, 0]], "z")
    with pytest.raises(InputError, match="none of the 500 Gaussians is selected"):
        points_of_gaussians(splats(), "z", torch.zeros(500, dtype=torch.bool))
    with pytest.raises(InputError, match="no faces"):
        points_of_mesh(Mesh(torch.eye(3), torch.zeros(0, 3, dtype=torch.int64)), "z")


def test_planes_do_not_depend_on_the_order_of_points(planes_model):
    network: PlaneNet = planes_model.network
    points, values = 2 * torch.rand(1, 300, 3) - 1, torch.rand(1, 300, 5)
    order = torch.randperm(300)
    weights = torch.rand(1, 300)
    first = network.encode(points, values, weights)
    assert torch.allclose(first, network.encode(points[:, order], values[:, order], weights[:, order]), atol=1e-5)
    twice = network.encode(points.repeat(1, 2, 1), values.repeat(1, 2, 1), weights.repeat(1, 2))
    assert torch.allclose(first, twice, atol=1e-5)
    assert torch.allclose(first, network.encode(points, values, 7 * weights), atol=1e-5)


def test_a_batch_is_a_loop(planes_model):
    network: PlaneNet = planes_model.network
    points, values = 2 * torch.rand(3, 200, 3) - 1, torch.rand(3, 200, 5)
    both = network.encode(points, values)
    for index in range(3):
        assert torch.allclose(both[index], network.encode(points[index : index + 1], values[index : index + 1])[0], atol=1e-5)


def test_the_field_of_a_triplane_is_that_of_the_network(planes_model):
    from vision3d.render.triplanes import query

    found = points_of_mesh(vase(), "z", 2000)
    triplane = planes_model.encode(found)
    places = 1.8 * torch.rand(100, 3) - 0.9
    values = query(triplane, places)
    with torch.no_grad():
        assert torch.allclose(
            planes_model.network.values(triplane.planes[None], places[None])[0, :, :3], values.colors, atol=1e-6
        )
        assert torch.allclose(planes_model.network.logits(triplane.planes[None], places[None])[0], values.logits, atol=1e-5)


def test_an_edit_changes_colors_only(editor: Editor):
    scene = splats()
    edited = editor.edit(editor.encode_gaussians(scene, "z"), ["make it red"])
    assert not torch.equal(edited.edited.planes, edited.source.planes)
    count = edited.source.num_density
    assert torch.equal(edited.edited.planes[:, :count], edited.source.planes[:, :count])
    changed, _ = recolor_gaussians(scene, edited)
    for name in ("means", "quats", "log_scales", "opacity_logits"):
        assert torch.equal(getattr(changed, name), getattr(scene, name))
    assert not torch.allclose(changed.sh, scene.sh, atol=1e-3)


def test_what_is_not_selected_is_bit_equal(editor: Editor):
    scene = splats()
    selected = scene.means[:, 2] > 0
    edited = editor.edit(editor.encode_gaussians(scene, "z", selected), ["make it red"])
    changed, _ = recolor_gaussians(scene, edited, selected)
    assert torch.equal(changed.sh[~selected], scene.sh[~selected])
    assert not torch.allclose(changed.sh[selected], scene.sh[selected], atol=1e-3)


def test_the_same_planes_leave_gaussians_as_they_are(editor: Editor):
    scene = splats(degree=2)
    before = editor.encode_gaussians(scene, "z")
    changed, clipped = recolor_gaussians(scene, before)
    assert torch.allclose(changed.sh, scene.sh, atol=2e-3) and clipped.clipped == 0


@pytest.mark.parametrize("part, above", [("top", True), ("bottom", False)])
def test_closed_forms_on_a_third_of_an_object(editor: Editor, part, above):
    scene = splats(2000, degree=0)
    edited = editor.apply(editor.encode_gaussians(scene, "z"), [Edit("color", "blue", part=part)])
    changed, _ = recolor_gaussians(scene, edited)
    heights = scene.means[:, 2] if above else -scene.means[:, 2]
    assert torch.allclose(changed.sh[heights < 0.2], scene.sh[heights < 0.2], atol=2e-3)
    colors = sh0_to_rgb(changed.sh[heights > 0.5][:, 0])
    assert bool((colors[:, 2].mean() > 1.5 * colors[:, :2].mean(0)).all())
    count = edited.source.num_density
    assert torch.equal(edited.edited.planes[:, :count], edited.source.planes[:, :count])


def test_unchanged_is_unchanged(editor: Editor):
    scene = splats()
    changed, clipped = recolor_gaussians(scene, editor.apply(editor.encode_gaussians(scene, "z"), [Edit("unchanged")]))
    assert torch.allclose(changed.sh, scene.sh, atol=2e-3) and clipped.clipped == 0


def test_a_material_is_a_factor_of_a_mesh(editor: Editor):
    before = editor.encode_mesh(vase(), "z")
    painted, plain = (
        recolor_mesh(vase(), editor.apply(before, [Edit("metallic")], baked=baked), texture_size=64)[0]
        for baked in (True, False)
    )
    own = recolor_mesh(vase(), before, texture_size=64)[0]
    assert torch.allclose(plain.texture, own.texture, atol=2e-2)
    assert float((painted.texture - own.texture).abs().mean()) > 0.05


def test_a_mesh_with_a_texture_keeps_its_uvs(editor: Editor):
    vertices, faces = box((1.0, 1.0, 1.0))
    flat = faces.flatten()
    cells = torch.arange(len(faces) // 2)
    uvs = []
    for cell in cells.tolist():  # a cell of a 4 x 4 page for each side
        x, y = cell % 4 / 4, cell // 4 / 4
        uvs.append(torch.tensor([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]]) * 0.2 + torch.tensor([x, y]) + 0.02)
    texture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    mesh = Mesh(vertices[flat], torch.arange(len(flat)).view(-1, 3), torch.cat(uvs).reshape(-1, 2), None, texture)
    edited = editor.edit(editor.encode_mesh(mesh, "z"), ["make it red"])
    changed, _ = recolor_mesh(mesh, edited)
    assert torch.equal(changed.vertices, mesh.vertices) and torch.equal(changed.uvs, mesh.uvs)
    assert changed.texture.shape == (64, 64, 3) and not torch.allclose(changed.texture, texture, atol=1e-2)
    half, _ = recolor_mesh(mesh, edited, selected=torch.arange(len(faces)) < 2)
    assert torch.equal(half.texture[20:], texture[20:]) and torch.equal(half.texture[:12, 20:], texture[:12, 20:])
    assert not torch.allclose(half.texture[1:12, 1:12], texture[1:12, 1:12], atol=1e-2)


def test_a_mesh_with_vertex_colors_gets_a_texture(editor: Editor):
    mesh = vase()
    before = editor.encode_mesh(mesh, "z")
    same, _ = recolor_mesh(mesh, before, texture_size=256)
    assert same.vertex_colors is None and same.texture is not None and same.num_faces == mesh.num_faces
    own = points_of_mesh(mesh, "z", 3000).values[:, :3]
    baked = points_of_mesh(same, "z", 3000).values[:, :3]  # the same points: the same faces in the same order
    assert float((own - baked).abs().mean()) < 0.02


def test_a_texture_that_is_repeated_becomes_a_new_one(editor: Editor):
    mesh = vase()
    uvs = 3 * torch.rand(mesh.num_vertices, 2, generator=torch.Generator().manual_seed(0))
    repeated = Mesh(mesh.vertices, mesh.faces, uvs, None, torch.rand(16, 16, 3))
    changed, _ = recolor_mesh(repeated, editor.edit(editor.encode_mesh(repeated, "z"), ["make it red"]), texture_size=128)
    assert changed.uvs is not None and float(changed.uvs.min()) >= 0 and float(changed.uvs.max()) <= 1
    assert math.prod(changed.texture.shape[:2]) >= 128 * 128


def test_networks_of_others_are_refused(planes_model, adapter_model, encoder):
    other = dataclasses.replace(adapter_model, config=dataclasses.replace(adapter_model.config, text_digest="e" * 64))
    with pytest.raises(InputError, match="another encoder of texts"):
        Editor(planes_model, other, encoder)
    other = dataclasses.replace(adapter_model, config=dataclasses.replace(adapter_model.config, planes_digest="e" * 64))
    with pytest.raises(InputError, match="another encoder of planes"):
        Editor(planes_model, other, encoder)


def test_planes_are_refined_alike_before_and_after(editor):
    points = points_of_mesh(vase(), "z", 3000)
    plain, fine = editor.encode(points), editor.encode(points, 200)
    edits = [Edit("color", "green")]

    def error(field, goal):
        return float((query(field, points.points).colors - goal).abs().mean())

    assert error(fine.source, points.values[:, :3]) < 0.85 * error(plain.source, points.values[:, :3])
    first, last = editor.apply(plain, edits), editor.apply(fine, edits)
    goal = apply_edits(edits, points.points.clamp(*plain.box) / MARGIN, points.values[:, :3]).colors
    assert error(last.edited, goal) < 0.85 * error(first.edited, goal)
    density = plain.source.num_density
    for triplane in (fine.source, last.edited):
        assert torch.equal(triplane.planes[:, :density], plain.source.planes[:, :density])


def test_an_adapter_sees_the_planes_of_the_encoder(editor):
    points = points_of_mesh(vase(), "z", 3000)
    texts = ["make it red", "add stripes"]
    plain, fine = (editor.edit(editor.encode(points, steps), texts) for steps in (0, 20))
    changes = [one.edited.planes - one.source.planes for one in (plain, fine)]
    assert not torch.allclose(plain.source.planes, fine.source.planes, atol=0.01)
    assert changes[0].abs().max() > 0.01 and torch.allclose(*changes, atol=1e-4)
