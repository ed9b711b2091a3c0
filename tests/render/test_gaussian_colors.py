"""Colors of Gaussians on a mesh as a texture and as vertex colors."""

from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.geometry import shapes
from vision3d.geometry.spherical_harmonics import rgb_to_sh0
from vision3d.render.meshes.gaussian_colors import bake_texture, bake_vertex_colors, gaussian_colors
from vision3d.scene import Mesh, MeshGaussians


def plate(columns=8, **options):
    """A flat square with UVs, and Gaussians whose colors are a ramp in x and y."""
    vertices, faces = shapes.plane((1.0, 1.0), columns, columns)
    mesh = Mesh(vertices, faces, uvs=vertices[:, :2] + 0.5)
    bound = MeshGaussians.from_mesh(mesh, **options)
    means = bound.to_gaussians().means
    return replace(bound, sh=rgb_to_sh0(ramp(means))[:, None])


def ramp(points):
    return torch.stack([points[:, 0] + 0.5, points[:, 1] + 0.5, torch.full_like(points[:, 0], 0.25)], 1)


@pytest.mark.parametrize("per_face", [1, 3, 4, 6])
def test_the_texture_shows_the_ramp(per_face):
    mesh = bake_texture(plate(per_face=per_face), 64)
    places = (torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1) + 0.5) / 64
    want = ramp(places.view(-1, 2) - 0.5).view(64, 64, 3)
    assert float((mesh.texture - want)[8:-8, 8:-8].abs().max()) < 0.05
    assert float((mesh.texture - want).abs().max()) < 0.1  # at the border, all neighbors are on one side


def test_vertex_colors_show_the_ramp():
    mesh = bake_vertex_colors(plate(16))
    inner = (mesh.vertices[:, :2].abs() < 0.4).all(1)
    assert float((mesh.vertex_colors - ramp(mesh.vertices))[inner].abs().max()) < 0.03


def test_a_single_color_is_exact():
    bound = plate()
    bound = replace(bound, sh=rgb_to_sh0(torch.tensor([0.2, 0.7, 0.9])).expand(len(bound), 1, 3))
    texture = bake_texture(bound, 32).texture
    torch.testing.assert_close(texture, torch.tensor([0.2, 0.7, 0.9]).expand(32, 32, 3), atol=1e-6, rtol=0)


def test_two_close_sides_keep_their_colors():
    """Sheets back to back, a hundredth of a face apart: Gaussians are thin."""
    front = plate()
    vertices, faces = front.mesh.vertices, front.mesh.faces
    both = Mesh(torch.cat([vertices, vertices - torch.tensor([0, 0, 0.02])]), torch.cat([faces, faces.flip(1) + len(vertices)]))
    bound = MeshGaussians.from_mesh(both, 6)
    is_front = bound.to_gaussians().means[:, 2] > -0.01
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1])
    bound = replace(bound, sh=rgb_to_sh0(torch.where(is_front[:, None], red, blue))[:, None])
    colors = bake_vertex_colors(bound).vertex_colors
    torch.testing.assert_close(colors[: len(vertices)], red.expand(len(vertices), 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(colors[len(vertices) :], blue.expand(len(vertices), 3), atol=1e-3, rtol=0)


def test_transparent_gaussians_count_less():
    bound = plate(4)
    bound = replace(bound, opacity_logits=torch.where(torch.arange(len(bound)) % 2 == 0, 9.0, -9.0))
    colors = torch.where(torch.arange(len(bound))[:, None] % 2 == 0, torch.tensor([1.0, 1, 1]), torch.zeros(3))
    bound = replace(bound, sh=rgb_to_sh0(colors)[:, None])
    points = bound.mesh.vertices
    assert float(gaussian_colors(bound, points, torch.tensor([0.0, 0, 1]).expand(len(points), 3)).min()) > 0.98


def test_corner_uvs_and_wrong_input():
    bound = plate()
    by_corner = replace(bound, mesh=replace(bound.mesh, uvs=bound.mesh.corner_uvs))
    torch.testing.assert_close(bake_texture(by_corner, 32).texture, bake_texture(bound, 32).texture, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match=r"^bake_texture: got a mesh without uvs, size 32; want both$"):
        bake_texture(replace(bound, mesh=replace(bound.mesh, uvs=None)), 32)
    outside = replace(bound, mesh=replace(bound.mesh, uvs=bound.mesh.uvs + 5))
    with pytest.raises(InputError, match=r"no texel of 32x32 lies in a chart; want uvs from 0 to 1"):
        bake_texture(outside, 32)
