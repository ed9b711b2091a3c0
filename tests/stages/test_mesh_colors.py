"""Charts and colors of meshes: no overlaps, recovered colors, no seams, invisible parts."""

import math
import re
from dataclasses import replace

import pytest
import torch

from tests.support.surfaces import cameras_around, colors, exact_views, sphere
from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.core.install import install_command
from vision3d.geometry import mesh as geometry, shapes
from vision3d.render.baking import texels as baking
from vision3d.render.baking.atlas import pieces, unwrap, unwrap_growing
from vision3d.render.meshes import interpolate, rasterize, screen_positions, texture, texture_lods
from vision3d.scene import Mesh
from vision3d.stages.mesh.refining import refine


def ignore(*_):
    """A progress callback that does nothing."""


def unwrapped_plane(divisions=4):
    """A square in z = 0 that fills the middle of its texture."""
    vertices, faces = shapes.plane((1.6, 1.6), divisions, divisions)
    uvs = vertices[:, :2] * torch.tensor([1.0, -1.0]) / 2 + 0.5
    return Mesh(vertices, faces, uvs=uvs, normals=torch.tensor([0.0, 0, 1]).expand(len(vertices), 3))


def drawn(mesh, camera, *, by_level=False):
    """Colors of a textured mesh in one camera, and its mask."""
    positions = screen_positions(mesh.vertices, camera.viewmats, camera.Ks)
    fragments = rasterize(positions, mesh.faces, int(camera.width), int(camera.height))
    uvs = interpolate(mesh.uvs, mesh.faces, fragments)
    lods = texture_lods(positions, mesh.faces, fragments, mesh.uvs, mesh.faces, mesh.texture.shape[:2]) if by_level else None
    places = interpolate(mesh.vertices, mesh.faces, fragments)[0]
    return texture(mesh.texture, uvs, lods=lods)[0], fragments.face_ids[0] >= 0, places


def psnr(a, b):
    return float(-10 * (a - b).square().mean().log10())


# --- charts


def test_pieces_contain_all_faces_once_with_similar_normals():
    vertices, faces = shapes.icosphere(4)
    mesh = Mesh(vertices, faces)
    directions, found = zip(*pieces(mesh), strict=True)
    assert sorted(directions) == list(range(6))
    assert torch.equal(torch.cat(found).sort().values, torch.arange(len(faces)))
    assert len(found) == 6
    normals = geometry.face_normals(vertices, faces)
    for piece in found:
        main = torch.nn.functional.normalize(normals[piece].sum(0), dim=0)
        assert (normals[piece] @ main).min() > 0.4


@pytest.mark.viewer
def test_faces_over_others_of_their_piece_are_separate_charts():
    # A screw: a strip that climbs three times around z faces up everywhere and is connected.
    turns = torch.linspace(0, 6 * math.pi, 121)
    rims = [torch.stack([r * turns.cos(), r * turns.sin(), 0.1 * turns], -1) for r in (0.5, 1.0)]
    inner, outer = torch.arange(120), torch.arange(120) + 121
    faces = torch.cat([torch.stack([inner, outer, outer + 1], -1), torch.stack([inner, outer + 1, inner + 1], -1)])
    mesh = Mesh(torch.cat(rims), faces)
    assert len(pieces(mesh)) == 1
    unwrapped = unwrap(mesh, 256, 2)
    flat = torch.nn.functional.pad(1024 * unwrapped.uvs, (0, 2), value=1.0)[None]
    first = rasterize(flat, unwrapped.faces, 1024, 1024).face_ids
    second = rasterize(flat, unwrapped.faces.flip(0), 1024, 1024).face_ids
    assert (first != torch.where(second >= 0, len(faces) - 1 - second, second)).float().mean() < 1e-4


@pytest.mark.viewer
@pytest.mark.parametrize(
    "shape", [shapes.icosphere(3), shapes.torus(1.0, 0.4, 40, 20), shapes.box((1.0, 2.0, 0.3), 3)], ids=["ball", "ring", "box"]
)
def test_charts_do_not_overlap_and_hold_every_face(shape):
    size, padding = 256, 3
    mesh = unwrap(Mesh(*shape), size, padding)
    assert mesh.num_faces == len(shape[1])
    torch.testing.assert_close(mesh.vertices[mesh.faces], shape[0][shape[1]])  # the same faces in order
    assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
    corners = size * mesh.uvs[mesh.faces].double()
    sides = corners[:, 1:] - corners[:, :1]
    areas = 0.5 * (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
    assert (areas.abs() > 1e-3).all()
    # Drawn in both orders, every texel belongs to the same face: no two faces share one.
    flat = torch.nn.functional.pad(4 * size * mesh.uvs, (0, 2), value=1.0)[None]
    first = rasterize(flat, mesh.faces, 4 * size, 4 * size).face_ids
    second = rasterize(flat, mesh.faces.flip(0), 4 * size, 4 * size).face_ids
    second = torch.where(second >= 0, mesh.num_faces - 1 - second, second)
    assert (first != second).float().mean() < 1e-4  # except texel centers on an edge within rounding
    # The number of drawn texels matches the area of the faces.
    assert abs(float((first >= 0).sum()) / (16 * float(areas.abs().sum())) - 1) < 0.01
    # There is free space between two charts.
    assert min_gap(mesh, first[0] >= 0, 4 * size) >= 4 * padding - 4


def min_gap(mesh, mask, size):
    """Minimum distance between texels of two charts, in texels."""
    from scipy.ndimage import distance_transform_edt, label

    charts, count = label(mask.numpy(), structure=[[1] * 3] * 3)
    gaps = [distance_transform_edt(charts != k)[(charts != k) & (charts > 0)].min() for k in range(1, count + 1)]
    return min(gaps) if count > 1 else size


@pytest.mark.viewer
def test_charts_that_do_not_fit():
    with pytest.raises(
        InputError, match=r"texture_size: .* charts with a padding of 8 do not fit on 16x16 texels; want a larger"
    ):
        unwrap(Mesh(*shapes.icosphere(2)), 16, 8)


def shards(count):
    """Triangles that do not touch each other, each a separate chart."""
    side = math.ceil(count**0.5)
    place = torch.stack([torch.arange(count) % side, torch.arange(count) // side, torch.zeros(count, dtype=torch.long)], -1)
    corners = place[:, None].float() + torch.tensor([[0.0, 0, 0], [0.6, 0, 0], [0, 0.6, 0]])
    return Mesh(corners.flatten(0, 1), torch.arange(3 * count).view(-1, 3))


@pytest.mark.viewer
def test_thousands_of_charts_enlarge_the_texture():
    found = unwrap_growing(shards(2500), 256, 4)
    assert found is not None
    mesh, size = found
    assert size == 512 and mesh.num_faces == 2500 and mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1
    assert unwrap_growing(shards(2500), 256, 4, max_size=256)[1] == 256  # with one free texel
    assert unwrap_growing(shards(2500), 32, 4, max_size=64) is None


@pytest.mark.viewer
def test_charts_of_more_detail_are_larger():
    mesh = shards(2)
    detail = torch.tensor([1.0, 1, 1, 3, 3, 3])
    uvs = unwrap(mesh, 256, 2, detail).corner_uvs.double()
    sides = uvs[:, 1:] - uvs[:, :1]
    areas = (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]).abs()
    assert 7 < areas[1] / areas[0] < 11


# --- colors


def test_vertex_colors_are_recovered():
    mesh = unwrapped_plane()
    shade = 0.5 + 0.25 * torch.cat([mesh.vertices[:, :2], mesh.vertices.sum(1, keepdim=True)], 1)
    texels = baking.texels_of(mesh, 128)
    want = 0.5 + 0.25 * torch.cat([texels.points[:, :2], texels.points.sum(1, keepdim=True)], 1)
    image = torch.zeros(128, 128, 3)
    flat = torch.nn.functional.pad(128 * mesh.uvs, (0, 2), value=1.0)[None]
    image[texels.mask] = interpolate(shade, mesh.faces, rasterize(flat, mesh.faces, 128, 128))[0][texels.mask]
    torch.testing.assert_close(image[texels.mask], want, atol=1e-4, rtol=0)  # positions of texels are correct
    textured = replace(mesh, texture=baking.spread(image, texels.mask))
    got, mask, places = drawn(textured, cameras_around(6, 96, 2.5)[0])
    inner = mask & (places[..., :2].abs() < 0.78).all(-1)
    want = 0.5 + 0.25 * torch.cat([places[..., :2], places.sum(-1, keepdim=True)], -1)
    assert inner.sum() > 1000 and psnr(got[inner], want[inner]) > 60


def test_colors_of_views_are_recovered_at_vertices():
    vertices, faces = shapes.icosphere(4)
    mesh = Mesh(vertices, faces, normals=vertices)
    baked, seen = baking.color_vertices(mesh, exact_views(sphere, cameras_around(20, 128)), ignore)
    assert seen == 1
    assert psnr(baked.vertex_colors, colors(vertices)) > 40


@pytest.mark.viewer
@pytest.mark.parametrize("steps", [0, 60])
def test_a_texture_from_views_reproduces_them(steps):
    views = exact_views(sphere, cameras_around(20, 128))
    mesh, seen = baking.bake(unwrap(Mesh(*shapes.icosphere(4)), 256, 4), views, 256, ignore)
    assert seen > 0.999
    if steps:
        mesh = refine(mesh, views, steps, ignore)
    others = cameras_around(7, 100, 3.5)
    for by_level in (False, True):
        got = [drawn(mesh, others[i], by_level=by_level) for i in range(7)]
        metrics = []
        for (image, mask, places), eye in zip(got, others.centers, strict=True):
            towards = torch.nn.functional.normalize(eye - places, dim=-1)
            inner = mask & ((towards * places).sum(-1) > 0.3)  # edges are antialiased with the background
            metrics.append(psnr(image[inner], colors(places[inner])))
        assert min(metrics) > 40, metrics


def test_refining_moves_vertices_to_the_surface():
    vertices, faces = shapes.icosphere(3)
    lumps = 0.01 * torch.sin(5 * vertices).sum(1, keepdim=True)
    views = exact_views(sphere, cameras_around(20, 96))
    start = Mesh(vertices * (0.97 + lumps), faces)
    mesh, _ = baking.bake(unwrap(start, 256, 4), views, 256, ignore)
    before = (start.vertices.norm(dim=1) - 1).abs().mean()
    found = refine(mesh, views, 60, ignore)
    after = found.vertices.norm(dim=1) - 1
    assert float(after.abs().mean()) < 0.4 * float(before)
    assert abs(float(after.mean())) < 0.005
    welded, same, _ = geometry.weld_vertices(found.vertices, found.faces)
    assert len(welded) == len(vertices)
    assert geometry.is_closed(same)  # the copies at borders of charts moved together
    assert float((found.normals * found.vertices).sum(1).min()) > 0.9
    again = refine(mesh, views, 60, ignore)
    assert torch.equal(found.vertices, again.vertices)
    assert torch.equal(found.texture, again.texture)


def test_occluders_are_not_painted_on_a_mesh():
    big = exact_views(lambda points: points.norm(dim=-1) - 1, cameras_around(8, 64))
    mesh = unwrap(Mesh(*(part if part.dtype == torch.int64 else 0.3 * part for part in shapes.icosphere(2))), 64, 4)
    mesh = replace(mesh, texture=torch.full((64, 64, 3), 0.5))
    assert torch.equal(refine(mesh, big, 8, ignore).texture, mesh.texture)


def test_refining_needs_a_texture():
    with pytest.raises(InputError, match="mesh: has no texture; want one with uvs and a texture"):
        refine(Mesh(*shapes.icosphere(1)), exact_views(sphere, cameras_around(4, 16)), 1, ignore)


@pytest.mark.viewer
def test_no_seams_where_charts_meet():
    mesh = unwrap(Mesh(*shapes.icosphere(3)), 128, 4)
    texels = baking.texels_of(mesh, 128)
    texture = torch.zeros(128, 128, 3)
    texture[texels.mask] = 1.0  # white charts on black
    far = cameras_around(3, 24, 8.0)  # coarse mip levels mix charts with the space between them
    white = replace(mesh, texture=baking.spread(texture, texels.mask))
    dark = replace(mesh, texture=texture)
    for by_level in (False, True):
        image, mask, _ = drawn(white, far[0], by_level=by_level)
        assert image[mask].min() > 0.9999
    image, mask, _ = drawn(dark, far[0], by_level=True)
    assert image[mask].min() < 0.9  # without padding there are seams


def test_hidden_points_get_no_color_from_their_occluders():
    plane = unwrapped_plane(8)
    ball = shapes.icosphere(3, 0.3)
    above = Mesh(ball[0] + torch.tensor([0.0, 0, 0.6]), ball[1], normals=ball[0] / 0.3)
    both = Mesh(plane.vertices, plane.faces, normals=plane.normals).merge(above)

    def distance(points):
        low = (points[..., 2].abs() - 1e-4).clamp(min=0) + (points[..., :2].abs() - 0.8).clamp(min=0).norm(dim=-1)
        return torch.minimum(low, (points - torch.tensor([0.0, 0, 0.6])).norm(dim=-1) - 0.3)

    views = exact_views(distance, cameras_around(1, 160, 3.0))
    views.cameras = replace(
        views.cameras, viewmats=torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1]])[None]
    )
    grid = torch.linspace(-0.7, 0.7, 57)
    points = torch.nn.functional.pad(torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).flatten(0, 1), (0, 1))
    normals = torch.tensor([0.0, 0, 1]).expand(len(points), 3)
    got, is_seen = baking.colors_of(points, normals, both, views, ignore)
    from_middle = points[:, :2].norm(dim=-1)
    shadow = 0.3 / (1 - (0.3 / 2.4) ** 2) ** 0.5 * 3 / 2.4  # radius of the sphere's shadow on the plane, seen from 3 above it
    assert not is_seen[from_middle < shadow - 0.06].any()
    assert is_seen[from_middle > shadow + 0.08].all()
    is_clear = from_middle > shadow + 0.08
    assert (got[is_clear] - colors(points[is_clear])).abs().max() < 0.01


def test_invisible_parts_have_the_nearest_color():
    vertices, faces = shapes.icosphere(3)
    mesh = Mesh(vertices, faces, normals=vertices)
    baked, seen = baking.color_vertices(mesh, exact_views(sphere, cameras_around(20, 96)[:4]), ignore)
    assert 0.2 < seen < 0.8
    assert (baked.vertex_colors[vertices[:, 2] < -0.9] > 0).all()  # the scene has no black
    assert (baked.vertex_colors[vertices[:, 2] > 0.9] - colors(vertices[vertices[:, 2] > 0.9])).abs().max() < 0.05


def test_padding_uses_the_nearest():
    image = torch.arange(5.0)[:, None, None].expand(5, 5, 1).contiguous()
    known = torch.zeros(5, 5, dtype=torch.bool)
    known[1], known[4] = True, True
    assert baking.spread(image, known)[:, 0, 0].tolist() == [1, 1, 1, 4, 4]
    assert torch.equal(baking.spread(image, torch.zeros_like(known)), image)


def test_missing_packages_are_named(monkeypatch):
    import builtins

    from vision3d.stages.mesh import cleanup, fusion

    load = builtins.__import__

    def without(name, *rest, **kwargs):
        if name in ("open3d", "fast_simplification"):
            raise ImportError(name)
        return load(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    ball = Mesh(*shapes.icosphere(2))
    text = r"fast-simplification is needed for fewer faces \(--faces 0 keeps all\): " + re.escape(install_command("mesh"))
    with pytest.raises(MissingDependencyError, match=text):
        cleanup.decimate(ball, 10)
    monkeypatch.setattr("importlib.import_module", lambda name: without("open3d"))
    with pytest.raises(MissingDependencyError, match="open3d is needed for meshes of scenes"):
        fusion.open3d()
