"""Meshes and Gaussians in one image."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support.gaussians import random_gaussians, random_sh
from vision3d import render_scene, render_views
from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.geometry import shapes
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.render.meshes import Lights, antialias, rasterize, screen_positions
from vision3d.render.meshes.shading import Surface, shade
from vision3d.scene import Cameras, GaussianScene, Mesh, MeshGaussians, PointCloud, Scene, SkinnedMesh

W, H = 40, 32
WHITE = {"shading": "none", "antialias": False}


def view_from(distance: float = 4.0, model: str = "pinhole", count: int = 1, dtype: torch.dtype = torch.float32) -> Cameras:
    """Cameras on the z axis looking at the origin from `distance`."""
    viewmats = torch.eye(4, dtype=dtype).repeat(count, 1, 1)
    viewmats[:, 2, 3] = distance
    focal = 1.5 * W / (distance if model == "ortho" else 1)
    Ks = torch.tensor([[focal, 0, W / 2], [0, focal, H / 2], [0, 0, 1]], dtype=dtype).repeat(count, 1, 1)
    return Cameras(viewmats, Ks, torch.full((count,), W), torch.full((count,), H), model)


def cloud(mode: str = "3dgs", count: int = 120, dtype: torch.dtype = torch.float32) -> GaussianScene:
    g = random_gaussians(count, size=0.12, dtype=dtype)
    logits = torch.logit(0.5 * g["opacities"])
    return GaussianScene(g["means"], g["quats"], g["scales"].log(), logits, random_sh(count, 1, dtype=dtype), mode)


def wall(z: float = 0.0, color: tuple[float, float, float] = (0.2, 0.6, 0.9), size: float = 20.0) -> Mesh:
    """A square facing the camera, of one color."""
    vertices, faces = shapes.plane((size, size))
    return Mesh(vertices + torch.tensor([0.0, 0.0, z]), faces, vertex_colors=torch.tensor([color]).repeat(4, 1))


def ball(radius: float = 0.8, color: tuple[float, float, float] = (0.9, 0.5, 0.1)) -> Mesh:
    """A sphere, rotated so that no face is seen exactly edge-on."""
    vertices, faces = shapes.icosphere(2, radius)
    vertices = vertices @ quat_to_rotmat(torch.tensor([0.9, 0.3, -0.2, 0.4]))
    return Mesh(vertices, faces, vertex_colors=torch.tensor([color]).repeat(len(vertices), 1))


def one(objects: object, cameras: Cameras | None = None, **options):
    """The first view."""
    return next(iter(render_scene(objects, cameras or view_from(), **options)))


@pytest.mark.parametrize("mode", ["3dgs", "2dgs", "flat"])
def test_one_gaussian_before_a_plane_and_one_behind(backend, mode):
    """C = a1 c1 + (1 - a1) mesh, depth a1 z1 + (1 - a1) z_mesh, alpha 1."""
    points, colors = torch.tensor([[0.0, 0.0, -1.0], [0.1, 0.0, 1.0]]), torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1]])
    both = GaussianScene.from_points(points, colors, opacity=0.7, mode=mode)
    view = one([both, wall()], render_mode="RGB+ED", backend=backend, **WHITE)
    alone = next(iter(render_views(both[:1], view_from(), render_mode="RGB", backend=backend)))
    weight = alone.alpha[..., None]
    assert weight.max() > 0.5
    want = alone.image + (1 - weight) * torch.tensor([0.2, 0.6, 0.9])
    torch.testing.assert_close(view.image, want, atol=2e-6, rtol=0)
    torch.testing.assert_close(view.alpha, torch.ones(H, W))
    torch.testing.assert_close(view.depth, alone.alpha * 3 + (1 - alone.alpha) * 4, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["3dgs", "2dgs"])
def test_a_plane_through_a_cloud_shows_the_half_before_it(backend, mode):
    scene = cloud(mode)
    is_before = scene.means[:, 2] < 0.1
    background = (0.2, 0.6, 0.9)
    view = one([wall(0.1), scene], render_mode="RGB+D", backend=backend, **WHITE)
    half = next(iter(render_views(scene[is_before], view_from(), render_mode="RGB+D", backgrounds=background, backend=backend)))
    torch.testing.assert_close(view.image, half.image, atol=3e-6, rtol=0)
    torch.testing.assert_close(view.depth, half.depth + (1 - half.alpha) * 4.1, atol=2e-5, rtol=0)
    assert (half.alpha > 0.1).any() and (half.alpha < 0.9).any()


def test_without_a_mesh_it_is_the_scene(backend):
    scene, cameras = cloud(), view_from(count=2)
    for objects in (scene, [scene], [scene[:50], scene[50:]], Scene().add("cloud", scene)):
        got = list(render_scene(objects, cameras, backgrounds=(1.0, 1.0, 1.0), render_mode="RGB+ED", backend=backend))
        want = render_views(scene, cameras, backgrounds=(1.0, 1.0, 1.0), render_mode="RGB+ED", backend=backend)
        for a, b in zip(got, want, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("model", ["pinhole", "ortho"])
def test_meshes_without_gaussians_are_shaded_with_smooth_outlines(backend, model):
    mesh, cameras = ball(), view_from(model=model)
    background = torch.tensor([0.1, 0.2, 0.3])
    view = one(mesh, cameras, backgrounds=background, render_mode="RGB+ED", backend=backend)
    positions = screen_positions(mesh.vertices, cameras.viewmats, cameras.Ks, model)
    fragments = rasterize(positions, mesh.faces, W, H, backend=backend)
    hit = fragments.face_ids >= 0
    color, normal = shade(Surface.of(mesh), positions, fragments, cameras.viewmats, camera_model=model, backend=backend)
    layers = torch.cat([torch.where(hit[..., None], color, background), hit[..., None].float()], -1)
    want = antialias(layers, positions, mesh.faces, fragments, backend=backend)[0]
    torch.testing.assert_close(view.image, want[..., :3], atol=1e-5, rtol=0)
    torch.testing.assert_close(view.alpha, want[..., 3], atol=1e-5, rtol=0)
    torch.testing.assert_close(view.normal, normal[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(view.depth, fragments.depths[0], atol=1e-5, rtol=0)
    partly = (view.alpha > 0.02) & (view.alpha < 0.98)
    assert partly.sum() > 20, "outlines are blended"
    # The sum of coverage is the area of the disc inside the outline, to the precision of the tessellation.
    if model == "ortho":
        assert float(view.alpha.sum()) == pytest.approx(math.pi * (0.8 * 1.5 * W / 4) ** 2, rel=0.03)


def test_a_square_covers_the_share_of_its_edge_pixels(backend):
    """A vertical edge a quarter into a pixel: that pixel has a quarter of the square's color."""
    size = 2 * (8.25 / (1.5 * W)) * 4  # half of it is 8.25 px
    view = one(wall(size=size, color=(1.0, 1.0, 1.0)), shading="none", backend=backend)
    row = view.image[H // 2, :, 0]
    assert row[W // 2 + 7].item() == pytest.approx(1.0, abs=1e-5)
    assert row[W // 2 + 8].item() == pytest.approx(0.25, abs=1e-4)
    assert row[W // 2 + 9].item() == pytest.approx(0.0, abs=1e-6)


def test_outlines_behind_opaque_gaussians_are_invisible(backend):
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(900, 3, generator=generator) * torch.tensor([3.0, 3.0, 0.1]) - torch.tensor([1.5, 1.5, 1.0])
    screen = GaussianScene.from_points(places, torch.rand(900, 3, generator=generator), opacity=0.999)
    screen = replace(screen, log_scales=torch.full((900, 3), math.log(0.25)))
    alone, view = (one(objects, backend=backend) for objects in ([screen], [screen, ball()]))
    is_covered = alone.alpha > 0.998
    assert is_covered[4:-4, 8:-8].float().mean() > 0.9
    inner = -torch.nn.functional.max_pool2d(-is_covered[None].float(), 3, 1, 1)[0] > 0  # adjacent pixels are covered as well
    torch.testing.assert_close(view.image[inner], alone.image[inner], atol=2e-3, rtol=0)


def test_the_nearest_mesh_is_visible(backend):
    near, far = wall(-0.5, (1.0, 0.0, 0.0), size=1.0), wall(0.5, (0.0, 0.0, 1.0))
    for objects in ([near, far], [far, near]):
        view = one(objects, render_mode="RGB+ED", backend=backend, **WHITE)
        is_near = view.depth < 4
        assert 50 < int(is_near.sum()) < W * H / 2
        assert torch.equal(view.image[..., 0] > 0.5, is_near) and torch.equal(view.image[..., 2] > 0.5, ~is_near)


def test_texture_seams_are_not_outlines(backend):
    """A sphere whose faces share no vertices looks the same as one whose faces do."""
    mesh = ball()
    colors = mesh.vertices * 0.4 + 0.5
    joined = replace(mesh, vertex_colors=colors, normals=mesh.vertices / 0.8)
    apart = Mesh(
        mesh.vertices[mesh.faces].flatten(0, 1), torch.arange(3 * mesh.num_faces).view(-1, 3),
        normals=joined.normals[mesh.faces].flatten(0, 1), vertex_colors=colors[mesh.faces].flatten(0, 1),
    )  # fmt: skip
    torch.testing.assert_close(one(apart, backend=backend).image, one(joined, backend=backend).image, atol=1e-5, rtol=0)


def test_a_scene_places_its_objects(backend):
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor([0.3, 0.1, -0.4])
    bound = MeshGaussians.from_mesh(ball(0.3), per_face=1)
    points = PointCloud(torch.zeros(3, 3))
    flat = cloud("flat")
    scene = Scene().add("cloud", flat).add("ball", ball(), matrix).add("bound", bound, matrix).add("points", points)
    got = one(scene, backend=backend)
    want = one([flat, ball().transform(matrix), bound.to_gaussians().transform(matrix)], backend=backend)
    assert torch.equal(got.image, want.image)
    assert got.image.std() > 0.05


@pytest.mark.parametrize("mode", ["3dgs", "2dgs"])
@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
def test_outputs_of_each_mode(mode, render_mode):
    for objects, has_normal in (
        ([cloud(mode), ball()], mode == "2dgs" or render_mode.endswith("ED")),
        ([ball()], True),
    ):
        view = one(objects, render_mode=render_mode)
        assert (view.image is None) == (render_mode in ("D", "ED"))
        assert (view.depth is None) == (render_mode == "RGB")
        assert (view.normal is None) != has_normal
        assert view.alpha.max() == 1
        if view.depth is not None:
            middle = view.depth[H // 2, W // 2].item()
            assert 2.9 < middle < 4.1


def test_normals_of_visible_meshes_and_of_depth_elsewhere(backend):
    scene = GaussianScene.from_points(torch.tensor([[0.0, 0, 1.5]]), opacity=0.999)
    scene = replace(scene, log_scales=torch.full((1, 3), math.log(3.0)))
    view = one([scene, ball()], render_mode="RGB+ED", backend=backend)
    ball_normal = view.normal[H // 2, W // 2]
    assert ball_normal.tolist() == pytest.approx([0, 0, -1], abs=0.05)
    assert view.normal[3, 3].tolist() == pytest.approx([0, 0, -1], abs=1e-3)  # a Gaussian has one depth
    right = view.normal[H // 2, W // 2 + 8]
    assert right[0] > 0.5


def test_light_changes_only_the_meshes(backend):
    objects = [wall(size=1.0, color=(1.0, 1.0, 1.0))]
    dark = one(objects, lights=Lights(ambient=0.0, headlight=0.0), backend=backend)
    assert not dark.image.any() and dark.alpha.max() == 1
    lit = one(objects, lights=Lights(ambient=0.5, headlight=0.0), backend=backend)
    assert lit.image[H // 2, W // 2, 0].item() == pytest.approx(1.055 * 0.5 ** (1 / 2.4) - 0.055, abs=1e-5)
    near = cloud()[:20]
    assert torch.equal(one(near, lights=Lights(ambient=0.0, headlight=0.0)).image, one(near).image)


@pytest.mark.parametrize("mode", ["3dgs", "2dgs"])
def test_gradcheck_of_the_composite(backend, mode):
    """Gaussians in front of and behind a sphere, and the colors of the sphere."""
    dtype = torch.float64
    scene = cloud(mode, 4, dtype)
    cameras = view_from(dtype=dtype)
    vertices, faces = shapes.icosphere(0, 0.8, dtype=dtype)
    Ks = cameras.Ks * torch.tensor([[[0.15], [0.15], [1]]])
    cameras = replace(cameras, width=torch.tensor([7]), height=torch.tensor([6]), Ks=Ks)
    vertices = vertices @ quat_to_rotmat(torch.tensor([0.9, 0.3, -0.2, 0.4], dtype=dtype))
    colors = torch.rand(len(vertices), 3, dtype=dtype) * 0.5 + 0.3

    def image(means: Tensor, logits: Tensor, sh: Tensor, colors: Tensor) -> tuple[Tensor, Tensor]:
        moved = replace(scene, means=means, opacity_logits=logits, sh=sh, log_scales=scene.log_scales + 1.2)
        view = one([moved, Mesh(vertices, faces, vertex_colors=colors)], cameras, render_mode="RGB+D", backend=backend)
        return view.image, view.depth

    given = [scene.means, scene.opacity_logits, scene.sh, colors]
    leaves = [value.clone().requires_grad_() for value in given]
    assert torch.autograd.gradcheck(image, leaves, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_gradients_of_outlines_move_a_mesh(backend):
    """More light when the sphere grows: d alpha / d radius is the length of the outline."""
    scale = torch.ones((), requires_grad=True)
    mesh = ball()
    view = one(replace(mesh, vertices=mesh.vertices * scale), view_from(model="ortho"), backend=backend)
    (grad,) = torch.autograd.grad(view.alpha.sum(), scale)
    radius = 0.8 * 1.5 * W / 4
    assert float(grad) == pytest.approx(2 * math.pi * radius**2, rel=0.1)


@pytest.mark.skipif(native.module() is None, reason="the native module is not built")
def test_bitwise_equal_for_any_number_of_threads():
    before, images = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            images.append(one([cloud(), ball()], render_mode="RGB+ED", backend="native"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*images))


def test_wrong_objects_and_cameras_are_named():
    fisheye = replace(view_from(), model="fisheye")
    for objects, cameras, options, text in (
        ([], view_from(), {}, "objects: got nothing to draw, want Gaussians or meshes"),
        (Scene().add("points", PointCloud(torch.zeros(3, 3))), view_from(), {}, "objects: got nothing to draw"),
        ([cloud(), cloud("2dgs")], view_from(), {}, "merge: got 3dgs, 2dgs; want scenes of one mode"),
        ([ball()], fisheye, {}, "cameras: got model fisheye; meshes are drawn in pinhole and ortho cameras only"),
        ([ball()], view_from(), {"shading": "phong"}, "shading: got 'phong'; did you mean"),
        ([ball()], view_from(), {"shading": "uvs"}, "shading: got uvs, but a mesh has none; want smooth, flat"),
        ([ball()], view_from(), {"render_mode": "RGBD"}, "render_mode: got 'RGBD'"),
    ):
        with pytest.raises(InputError, match=text):
            render_scene(objects, cameras, **options)


def test_skinned_meshes_of_a_scene_are_drawn_in_the_rest_pose():
    mesh = wall()
    lifted = torch.tensor([0.0, 0, 1.0]).expand(1, mesh.num_vertices, 3)
    skin = replace(
        SkinnedMesh.from_frames(mesh, mesh.vertices[None] + lifted, [0.0]), rest_weights=torch.tensor([1.0]), clips=()
    )
    assert torch.equal(skin.at_rest().vertices, mesh.vertices + lifted[0])
    (shown,) = render_scene(Scene().add("wall", skin), view_from(), render_mode="RGB+ED", **WHITE)
    torch.testing.assert_close(shown.depth, torch.full((H, W), 5.0))
