"""Fields of triplanes against closed forms: ramps, slabs, spheres, quarter turns."""

import math

import pytest
import torch

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.mesh import is_closed, volume
from vision3d.render import render_scene
from vision3d.render.triplanes import bake_triplane, query, render_triplane, sample_planes, triplane_mesh, triplane_views
from vision3d.render.triplanes.field import DENSITY
from vision3d.scene import Cameras, Triplane
from vision3d.scene.triplane import AXES

SIZE = 32


def centers(size: int = SIZE) -> torch.Tensor:
    return (2 * torch.arange(size) + 1) / size - 1


def field(density: torch.Tensor, colors: torch.Tensor | None = None, matrix: torch.Tensor | None = None) -> Triplane:
    """Density logit: the sum of three planes; colors: three channels that are summed over the planes."""
    colors = torch.zeros(3, 3, SIZE, SIZE) if colors is None else colors
    decoder = {
        "density.0.weight": torch.ones(1, 3), "density.0.bias": torch.zeros(1),
        "color.0.weight": torch.cat([torch.eye(3).repeat(1, 3), torch.zeros(2, 9)]), "color.0.bias": torch.zeros(5),
    }  # fmt: skip
    return Triplane(torch.cat([density[:, None], colors], 1), decoder, 1, torch.eye(4) if matrix is None else matrix)


def test_a_ramp_gives_back_the_coordinates():
    down, across = torch.meshgrid(centers(), centers(), indexing="ij")
    planes = torch.stack([across, down]).expand(1, 3, 2, SIZE, SIZE)
    points = (2 * torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(0)) - 1) * (1 - 1 / SIZE)
    found = sample_planes(planes, points)[0].unflatten(1, (3, 2))
    for plane, axes in enumerate(AXES):
        assert torch.allclose(found[:, plane], points[0][:, axes], atol=1e-6)
    beyond = sample_planes(planes, torch.tensor([[[5.0, -5.0, 0.0]]]))[0, 0]
    assert torch.allclose(beyond[:2], torch.tensor([1 - 1 / SIZE, 1 / SIZE - 1]))


def test_outside_of_the_cube_is_empty():
    values = query(field(torch.full((3, SIZE, SIZE), 5.0)), torch.tensor([[0.0, 0, 0], [0, 1.01, 0]]))
    assert float(values.logits[0]) == pytest.approx(15) and float(values.density[1]) == 0


def camera(size: int = 24) -> Cameras:
    """Ahead along -z of the cube, which fills the image."""
    viewmat = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1]])
    K = torch.tensor([[60.0, 0, size / 2], [0, 60, size / 2], [0, 0, 1]])
    return Cameras(viewmat[None], K[None], torch.tensor([size]), torch.tensor([size]))


def test_images_of_nothing_are_background():
    shifted = camera()
    shifted.viewmats[0, 0, 3] = 50  # beside the cube
    image = next(render_triplane(field(torch.zeros(3, SIZE, SIZE)), shifted, background=(0.2, 0.4, 0.6)))
    assert torch.allclose(image, torch.tensor([0.2, 0.4, 0.6]).expand(24, 24, 3))
    assert query(field(torch.zeros(3, SIZE, SIZE)), torch.zeros(0, 3)).colors.shape == (0, 3)


@pytest.mark.parametrize("samples", [16, 64])
def test_a_constant_density_absorbs_as_beer_says(samples):
    logit = -3.0
    image = next(render_triplane(field(torch.full((3, SIZE, SIZE), logit / 3)), camera(), samples=samples))
    middle = image[11:13, 11:13].mean()
    density = DENSITY / (1 + math.exp(-logit))
    # The color of the field is 1/2, that of the background 1; the ray is 2 long.
    assert float(middle) == pytest.approx(0.5 + 0.5 * math.exp(-2 * density), abs=2e-4)


def test_depth_and_opacity_of_a_wall():
    across = centers().expand(SIZE, SIZE)
    planes = torch.zeros(3, SIZE, SIZE)
    planes[1] = -200 * across.T  # the plane (x, z): inside below z = 0
    view = next(triplane_views(field(planes), camera(), samples=512))
    assert view.depth is not None
    middle = view.alpha[8:16, 8:16]
    assert torch.allclose(middle, torch.ones_like(middle), atol=1e-3)
    assert torch.allclose(view.depth[8:16, 8:16], torch.full((8, 8), 4 + 1 / DENSITY), atol=0.02)  # of a camera at z = 4


def test_images_do_not_depend_on_where_the_object_stands():
    down, across = torch.meshgrid(centers(), centers(), indexing="ij")
    ball = 40 * (0.12 - (across**2 + down**2) / 2).expand(3, SIZE, SIZE)
    colors = torch.stack([across, down, across * 0]).expand(3, 3, SIZE, SIZE) * 2
    moved = torch.tensor([[0.0, -2, 0, 5], [2, 0, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1]])
    first, cameras = field(ball, colors), camera()
    viewmats = cameras.viewmats @ torch.linalg.inv(moved)
    viewmats[:, :3] *= 2  # of twice the size, and from twice as far
    image = next(render_triplane(first, cameras))
    other = next(render_triplane(first.transform(moved), Cameras(viewmats, cameras.Ks, cameras.width, cameras.height)))
    assert image.std() > 0.05 and torch.allclose(image, other, atol=1e-4)


def test_the_surface_of_a_ball():
    down, across = torch.meshgrid(centers(), centers(), indexing="ij")
    ball = 40 * (0.5 / 3 - (across**2 + down**2) / 2).expand(3, SIZE, SIZE)  # x^2 + y^2 + z^2 < 1/2
    mesh = triplane_mesh(field(ball), 64)
    assert is_closed(mesh.faces)
    radius = torch.linalg.vector_norm(mesh.vertices, dim=1)
    assert float((radius - math.sqrt(0.5)).abs().max()) < 0.02
    assert float(volume(mesh.vertices, mesh.faces)) == pytest.approx(4 / 3 * math.pi * 0.5**1.5, rel=0.02)
    assert mesh.vertex_colors is not None and torch.allclose(mesh.vertex_colors, torch.tensor(0.5), atol=1e-5)


def colored_ball(matrix: torch.Tensor | None = None) -> Triplane:
    """A ball whose colors are ramps and stripes of the place, with a soft surface."""
    down, across = torch.meshgrid(centers(), centers(), indexing="ij")
    ball = 40 * (0.5 / 3 - (across**2 + down**2) / 2).expand(3, SIZE, SIZE)
    colors = torch.stack([across, (5 * down).sin(), down - across]).expand(3, 3, SIZE, SIZE)
    return field(ball, colors, matrix)


def test_a_baked_mesh_looks_like_the_field():
    moved = torch.tensor([[0.0, -2, 0, 5], [2, 0, 0, -3], [0, 0, 2, 1], [0, 0, 0, 1]])
    triplane = colored_ball(moved)
    baked = bake_triplane(triplane, 256, 48)
    assert is_closed(triplane_mesh(triplane, 48).faces) and baked.mesh.texture is not None
    cameras = camera(64)
    cameras.Ks[0, :2, :2] *= 64 / 24
    viewmats = cameras.viewmats @ torch.linalg.inv(moved)
    viewmats[:, :3] *= 2
    cameras = Cameras(viewmats, cameras.Ks, cameras.width, cameras.height)
    image = next(render_triplane(triplane, cameras))
    view = next(render_scene(baked.mesh, cameras, shading="none", backgrounds=(1.0, 1.0, 1.0)))
    both = view.alpha > 0.99
    error = (image - view.image)[both].square().mean()
    assert image[both].std() > 0.1 and both.float().mean() > 0.2
    assert float(-10 * error.log10()) > 30
    assert torch.allclose(baked.factors, torch.tensor(0.5), atol=0.01)  # what a decoder of zeros gives


def test_gradients_of_the_planes():
    planes = torch.randn(1, 3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    points = (2 * torch.rand(1, 5, 3, dtype=torch.float64) - 1) * 0.7
    assert torch.autograd.gradcheck(sample_planes, (planes, points))


@pytest.mark.wrong_types
def test_wrong_input():
    with pytest.raises(ShapeError, match="planes, points"):
        sample_planes(torch.zeros(2, 3, 4, 8, 8), torch.zeros(1, 5, 3))
    with pytest.raises(InputError, match="is empty"):
        triplane_mesh(field(torch.full((3, SIZE, SIZE), -5.0)))
    with pytest.raises(InputError, match="texture_size: got 4, want at least 16"):
        bake_triplane(colored_ball(), 4)
    with pytest.raises(InputError, match="got 4, want 8 to 512"):
        triplane_mesh(field(torch.zeros(3, SIZE, SIZE)), 4)
