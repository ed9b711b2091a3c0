"""Lighting of surfaces and colors of meshes, against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from tests.support.meshes import camera
from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import shapes
from vision3d.geometry.vectors import unit
from vision3d.render.meshes import (
    Fragments,
    Lights,
    Surface,
    base_colors,
    irradiance,
    light,
    project_environment,
    rasterize,
    screen_positions,
    shade,
)
from vision3d.render.meshes.shading import smooth_normals
from vision3d.scene import Mesh
from vision3d.scene.colors import linear_to_srgb, srgb_to_linear

W, H = 48, 40
SUN = unit(torch.tensor([0.3, -0.5, -0.8], dtype=torch.float64))


def directions(count: int = 200, seed: int = 0) -> Tensor:
    return unit(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def drawn(mesh: Mesh, backend: str, width: int = W, height: int = H) -> tuple[Tensor, Fragments, Tensor]:
    """Clip space positions and fragments in a camera on the z axis, and its pose."""
    viewmats, Ks = camera(width, height, mesh.vertices.dtype)
    positions = screen_positions(mesh.vertices, viewmats, Ks)
    return positions, rasterize(positions, mesh.faces, width, height, backend=backend), viewmats


def square(**values) -> Mesh:
    """A square of 2 m in the plane z = 0 seen from its front, uv (0, 0) at the upper left."""
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    return Mesh(vertices, torch.tensor([[0, 2, 1], [0, 3, 2]]), **values)


SQUARE_UVS = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])


@pytest.mark.parametrize(("srgb", "linear"), [(0.0, 0.0), (0.04, 0.04 / 12.92), (0.5, 0.21404114), (1.0, 1.0)])
def test_srgb_and_back(srgb, linear):
    value = torch.tensor(srgb, dtype=torch.float64)
    assert float(srgb_to_linear(value)) == pytest.approx(linear, abs=1e-8)
    assert float(linear_to_srgb(srgb_to_linear(value))) == pytest.approx(srgb, abs=1e-7)


def test_srgb_has_gradients_everywhere():
    values = torch.tensor([0.0, 1e-9, 0.002, 0.5, 1.5], dtype=torch.float64, requires_grad=True)
    for function in (srgb_to_linear, linear_to_srgb):
        (grad,) = torch.autograd.grad(function(values).sum(), values)
        assert torch.isfinite(grad).all() and (grad > 0).all()


def test_lambert_is_the_cosine():
    normals = directions()
    lights = Lights(ambient=0, headlight=0, directions=[(0.6, -1.0, -1.6)], colors=[(1.0, 0.5, 2.0)])
    got = light(torch.full_like(normals, 0.5), normals, directions(seed=1), lights)
    cosine = (normals @ SUN).clamp(min=0)
    torch.testing.assert_close(got, 0.5 * cosine[:, None] * torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64))


def test_lights_add_up_and_the_headlight_comes_from_the_camera():
    normals, cameras = directions(), directions(seed=1)
    white = torch.ones_like(normals)
    parts = [
        Lights(ambient=0.2, headlight=0), Lights(ambient=0, headlight=0.7),
        Lights(ambient=0, headlight=0, directions=SUN[None]),
    ]  # fmt: skip
    together = light(white, normals, cameras, Lights(ambient=0.2, headlight=0.7, directions=SUN[None]))
    torch.testing.assert_close(together, sum(light(white, normals, cameras, part) for part in parts))
    torch.testing.assert_close(light(white, normals, cameras, parts[1])[:, 0], 0.7 * (normals * cameras).sum(-1).clamp(min=0))


@pytest.mark.parametrize("highlights", ["blinn", "phong"])
def test_a_highlight_is_brightest_in_the_mirror_direction(highlights):
    lights = Lights(ambient=0, headlight=0, directions=SUN[None], specular=0.5, shininess=20, highlights=highlights)
    normal = unit(torch.tensor([[0.1, 0.2, -1.0]], dtype=torch.float64))
    mirrored = 2 * (normal @ SUN)[:, None] * normal - SUN
    black = torch.zeros(1, 3, dtype=torch.float64)
    torch.testing.assert_close(light(black, normal, mirrored, lights), torch.full_like(black, 0.5))
    turned = unit(mirrored + 0.1 * directions(1, seed=3))
    match = (normal * unit(SUN + turned)).sum() if highlights == "blinn" else (mirrored * turned).sum()
    torch.testing.assert_close(light(black, normal, turned, lights)[0, 0], 0.5 * match**20)
    assert not light(black, -normal, turned, lights).any(), "no highlight on the side away from the light"


def test_a_constant_environment_lights_all_sides_alike():
    radiance = torch.tensor([0.2, 0.7, 1.0], dtype=torch.float64)
    environment = project_environment(lambda d: radiance.expand(len(d), 3))
    normals = directions()
    torch.testing.assert_close(irradiance(environment, normals), math.pi * radiance.expand(200, 3), atol=1e-12, rtol=0)
    lights = Lights(ambient=0, headlight=0, environment=environment)
    got = light(torch.ones_like(normals), normals, normals, lights)
    torch.testing.assert_close(got, radiance.expand(200, 3), atol=1e-12, rtol=0)


def test_environments_of_degree_1_and_2_have_their_integrals():
    """Of 1 + d.a: pi + 2 pi / 3 n.a. Of (d.a)^2: its mean part pi / 3, and pi / 4 of the rest ((n.a)^2 - 1 / 3)."""
    axis, normals = directions(1, seed=5)[0], directions()
    cosine = (normals @ axis)[:, None].expand(-1, 3)
    linear = project_environment(lambda d: (1 + d @ axis)[:, None])
    torch.testing.assert_close(irradiance(linear, normals), math.pi + 2 * math.pi / 3 * cosine, atol=1e-12, rtol=0)
    squared = project_environment(lambda d: ((d @ axis) ** 2)[:, None])
    want = math.pi / 3 + math.pi / 4 * (cosine**2 - 1 / 3)
    torch.testing.assert_close(irradiance(squared, normals), want, atol=1e-12, rtol=0)


def test_irradiance_is_the_integral_over_the_sphere():
    """A sky of half brightness: numerical integration on a fine grid of directions, within the error of degree 2 (3 %)."""
    environment = project_environment(lambda d: (d[:, 2:] > 0).double(), rows=200)
    heights = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1
    for tilt in (0.0, 0.7, math.pi / 2, 2.5):
        normal = torch.tensor([[math.sin(tilt), 0.0, math.cos(tilt)]], dtype=torch.float64)
        angles = torch.arange(400, dtype=torch.float64) * (2 * math.pi / 400)
        radius = (1 - heights**2).sqrt()[:, None]
        sphere = torch.stack([radius * angles.cos(), radius * angles.sin(), heights[:, None].expand(-1, 400)], -1)
        cosine = (sphere @ normal[0]).clamp(min=0) * (sphere[..., 2] > 0)
        want = float(cosine.sum()) * 2 * 2 * math.pi / cosine.numel()
        assert want == pytest.approx(math.pi / 2 * (1 + math.cos(tilt)), rel=1e-3)
        assert float(irradiance(environment, normal)[0, 0]) == pytest.approx(want, abs=0.03 * math.pi)


def test_light_has_gradients():
    normals, cameras = directions(4), directions(4, seed=2)
    lights = Lights(directions=SUN[None], specular=0.3, environment=project_environment(lambda d: d.abs()))
    given = [torch.rand(4, 3, dtype=torch.float64), normals, cameras]
    assert torch.autograd.gradcheck(lambda *values: light(*values, lights), [value.requires_grad_() for value in given])


def test_smooth_shading_of_a_sphere_is_the_cosine(backend):
    vertices, faces = shapes.icosphere(3, dtype=torch.float32)
    surface = Surface.of(Mesh(vertices, faces, normals=vertices), color=(1, 1, 1))
    positions, fragments, viewmats = drawn(surface.mesh, backend)
    lights = Lights(ambient=0, headlight=0, directions=SUN[None])
    image, normals = shade(surface, positions, fragments, viewmats, lights=lights, backend=backend)
    seen = fragments.face_ids >= 0
    points = (vertices[faces[fragments.face_ids[seen].long()]] * fragments.barycentrics[seen][..., None]).sum(1)
    torch.testing.assert_close(normals[seen], unit(points), atol=1e-5, rtol=0)
    want = (unit(points) @ SUN.float()).clamp(min=0)
    torch.testing.assert_close(srgb_to_linear(image[seen])[:, 0], want, atol=2e-5, rtol=0)
    assert not image[~seen].any() and not normals[~seen].any()


def test_flat_shading_is_constant_per_face(backend):
    vertices, faces = shapes.icosphere(1, dtype=torch.float32)
    surface = Surface.of(Mesh(vertices, faces))
    positions, fragments, viewmats = drawn(surface.mesh, backend)
    lights = Lights(ambient=0.1, headlight=0, directions=SUN[None])
    image, _ = shade(surface, positions, fragments, viewmats, shading="flat", lights=lights, backend=backend)
    shown = fragments.face_ids.unique()
    assert len(shown) > 15
    for face in shown[shown >= 0]:
        values = image[fragments.face_ids == face]
        torch.testing.assert_close(values, values[:1].expand_as(values), atol=1e-6, rtol=0)


def test_the_back_of_a_face_is_lit_like_its_front(backend):
    turned = Mesh(square().vertices, square().faces.flip(1))
    images = []
    for mesh in (square(), turned, Mesh(square().vertices, square().faces, normals=torch.tensor([[0.0, 0, 1]]).repeat(4, 1))):
        surface = Surface.of(mesh)
        positions, fragments, viewmats = drawn(mesh, backend)
        images.append(shade(surface, positions, fragments, viewmats, backend=backend))
    for image, normals in images[1:]:
        torch.testing.assert_close(image, images[0][0])
        torch.testing.assert_close(normals, images[0][1])
    assert images[0][1][0, 20, 24].tolist() == pytest.approx([0, 0, -1])


def test_normals_of_a_mesh_are_used_and_merged_at_seams():
    given = unit(torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 2]]))
    torch.testing.assert_close(smooth_normals(square(normals=3 * given)), given)
    vertices, faces = shapes.icosphere(0, dtype=torch.float64)
    torch.testing.assert_close(smooth_normals(Mesh(vertices, faces)), vertices)
    apart = Mesh(vertices[faces].flatten(0, 1), torch.arange(3 * len(faces)).view(-1, 3))
    torch.testing.assert_close(smooth_normals(apart), smooth_normals(Mesh(vertices, faces))[faces].flatten(0, 1))
    assert smooth_normals(Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))).shape == (0, 3)


def test_colors_without_light_are_those_of_the_file(backend):
    """Texels of a checkerboard at their own size, and one color per vertex."""
    texture = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(1))
    mesh = square(uvs=SQUARE_UVS, texture=texture)
    viewmats = torch.eye(4)[None].clone()
    viewmats[0, 2, 3] = 1.0
    Ks = torch.tensor([[[4.0, 0, 4], [0, 4, 4], [0, 0, 1]]])  # one texel per pixel
    positions = screen_positions(mesh.vertices, viewmats, Ks)
    fragments = rasterize(positions, mesh.faces, 8, 8, backend=backend)
    image, _ = shade(Surface.of(mesh), positions, fragments, viewmats, shading="none", backend=backend)
    torch.testing.assert_close(image[0], texture, atol=1e-5, rtol=0)
    plain = square(vertex_colors=torch.tensor([[0.2, 0.5, 0.9, 0.1]]).repeat(4, 1))
    image, _ = shade(Surface.of(plain), positions, fragments, viewmats, shading="none", backend=backend)
    torch.testing.assert_close(image[0], torch.tensor([0.2, 0.5, 0.9]).expand(8, 8, 3), atol=1e-6, rtol=0)
    gray, _ = shade(Surface.of(square()), positions, fragments, viewmats, shading="none", backend=backend)
    torch.testing.assert_close(gray, torch.full_like(gray, 0.7), atol=1e-6, rtol=0)


def test_texture_and_vertex_colors_are_multiplied_in_linear_light(backend):
    mesh = square(uvs=SQUARE_UVS, texture=torch.full((2, 2, 3), 0.6), vertex_colors=torch.full((4, 3), 0.5))
    positions, fragments, _ = drawn(mesh, backend)
    colors = base_colors(Surface.of(mesh), positions, fragments, backend=backend)
    want = float(srgb_to_linear(torch.tensor(0.6)) * srgb_to_linear(torch.tensor(0.5)))
    assert float(colors[0, 20, 24, 0]) == pytest.approx(want, abs=1e-6)


def test_seams_are_not_edges_of_the_texture(backend):
    """UVs by corner give the same image as UVs by vertex, pixel for pixel, for small and large texels."""
    texture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1))
    by_vertex = square(uvs=SQUARE_UVS, texture=texture)
    by_corner = square(uvs=SQUARE_UVS[by_vertex.faces], texture=texture)
    positions, fragments, viewmats = drawn(by_vertex, backend)
    images = [
        shade(Surface.of(mesh), positions, fragments, viewmats, shading="none", backend=backend)[0]
        for mesh in (by_vertex, by_corner)
    ]
    torch.testing.assert_close(*images, atol=1e-6, rtol=0)
    assert images[0].std() > 0.05


def test_a_small_texture_is_averaged_in_linear_light(backend):
    """A fine checkerboard far away has the mean linear color of black and white."""
    rows = torch.arange(256)
    board = ((rows[:, None] + rows) % 2).float()[..., None].expand(-1, -1, 3)
    mesh = square(uvs=SQUARE_UVS, texture=board)
    positions, fragments, viewmats = drawn(mesh, backend)
    image, _ = shade(Surface.of(mesh), positions, fragments, viewmats, shading="none", backend=backend)
    assert image[0, 20, 24].tolist() == pytest.approx([float(linear_to_srgb(torch.tensor(0.5)))] * 3, abs=1e-4)


def test_views_of_normals_uvs_and_depth(backend):
    mesh = square(uvs=SQUARE_UVS)
    positions, fragments, viewmats = drawn(mesh, backend)
    views = {
        name: shade(Surface.of(mesh), positions, fragments, viewmats, shading=name, backend=backend)[0][0]
        for name in ("normals", "uvs", "depth")
    }
    assert views["normals"][20, 24].tolist() == pytest.approx([0.5, 0.5, 1.0])  # towards the viewer
    u, v, _ = views["uvs"][20, 24].tolist()
    assert (u, v) == pytest.approx((0.5, 0.5), abs=0.05)
    assert views["uvs"][20, 30, 0] > u and views["uvs"][25, 24, 1] > v
    assert views["depth"][20, 24].sum() > 0.1
    outside = fragments.face_ids[0] < 0
    assert outside.any() and all(not view[outside].any() for view in views.values())


@pytest.mark.parametrize("shading", ["smooth", "flat", "none"])
def test_gradients_reach_vertices_colors_and_texture(backend, shading):
    vertices, faces = shapes.icosphere(0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    uvs = torch.rand(len(vertices), 2, generator=generator, dtype=torch.float64)
    values = [
        vertices, torch.rand(len(vertices), 3, generator=generator, dtype=torch.float64) * 0.5 + 0.3,
        torch.rand(2, 2, 3, generator=generator, dtype=torch.float64) * 0.5 + 0.3,
    ]  # fmt: skip
    viewmats, Ks = camera(7, 6, torch.float64)
    fixed = rasterize(screen_positions(vertices, viewmats, Ks), faces, 7, 6, backend=backend).face_ids

    def image(vertices: Tensor, colors: Tensor, texture: Tensor) -> Tensor:
        mesh = Mesh(vertices, faces, uvs=uvs, vertex_colors=colors, texture=texture)
        positions = screen_positions(vertices, viewmats, Ks)
        fragments = rasterize(positions, faces, 7, 6, backend=backend)
        assert torch.equal(fragments.face_ids, fixed)
        surface = Surface.of(mesh)
        surface.pyramid[1:] = []  # the level of detail has no gradient and is not tested here
        return shade(surface, positions, fragments, viewmats, shading=shading, backend=backend)[0]

    # Inputs for which finite differences move no pixel to another face.
    leaves = [value.requires_grad_() for value in values]
    assert torch.autograd.gradcheck(image, leaves, eps=1e-7, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_ortho_cameras_see_along_their_axis(backend):
    mesh = square()
    viewmats, _ = camera(W, H)
    Ks = torch.tensor([[[12.0, 0, 24], [0, 12.0, 20], [0, 0, 1]]])
    positions = screen_positions(mesh.vertices, viewmats, Ks, "ortho")
    fragments = rasterize(positions, mesh.faces, W, H, backend=backend)
    lights = Lights(ambient=0, headlight=1)
    image, _ = shade(Surface.of(mesh), positions, fragments, viewmats, lights=lights, camera_model="ortho", backend=backend)
    torch.testing.assert_close(image[fragments.face_ids >= 0], torch.full((24 * 24, 3), 0.7), atol=1e-5, rtol=0)


def test_wrong_arguments_are_named(backend):
    for values, text in (
        ({"directions": [(1.0, 2.0)]}, r"Lights.directions: got shape \(1, 2\), want shape \(1, 3\)"),
        ({"directions": [(1.0, 0, 0)], "colors": [(1.0, 0, 0), (0, 1.0, 0)]}, r"Lights.colors: got shape \(2, 3\)"),
        ({"ambient": (1.0, 2.0)}, r"Lights.ambient: got shape \(2,\), want a number, or red, green and blue"),
    ):
        with pytest.raises(ShapeError, match=text):
            Lights(**values)
    for values, text in (
        ({"headlight": -1.0}, "Lights.headlight: got -1.0, want >= 0"),
        ({"shininess": 0.0}, "Lights.shininess: got 0.0, want a number > 0"),
        ({"highlights": "gloss"}, "Lights.highlights: got 'gloss', want blinn or phong"),
    ):
        with pytest.raises(InputError, match=text):
            Lights(**values)
    positions, fragments, viewmats = drawn(square(), backend)
    with pytest.raises(InputError, match="shading: got 'smoth'; did you mean smooth"):
        shade(Surface.of(square()), positions, fragments, viewmats, shading="smoth", backend=backend)
    with pytest.raises(InputError, match="shading: got uvs, but the mesh has none; want smooth, flat, none, normals or depth"):
        shade(Surface.of(square()), positions, fragments, viewmats, shading="uvs", backend=backend)
