import pytest
import torch

from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.render.reference.textures import texture as read_texture
from vision3d.scene import Mesh, MeshGaussians
from vision3d.scene.colors import linear_to_srgb, srgb_to_linear
from vision3d.scene.mesh_colors import mean_colors, surface_colors

CORNERS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
FACES = torch.tensor([[0, 1, 2], [1, 3, 2]])
UVS = CORNERS[:, :2]


def random_points(count, faces=2):
    points = torch.rand(count, 3)
    return torch.randint(faces, (count,)), points / points.sum(1, keepdim=True)


@pytest.mark.parametrize("by_corner", [False, True])
@pytest.mark.parametrize(("height", "width", "channels"), [(1, 1, 3), (5, 7, 4), (16, 3, 3)])
def test_texture_sampling_matches_the_rasterizer(height, width, channels, by_corner):
    uvs = 3 * torch.rand(4, 2) - 1  # beyond 0..1 on both sides
    mesh = Mesh(CORNERS, FACES, uvs[FACES] if by_corner else uvs, texture=torch.rand(height, width, channels))
    face_ids, barycentric = random_points(50)
    places = (barycentric[:, :, None] * uvs[FACES[face_ids]]).sum(1)
    texels = srgb_to_linear(mesh.texture[..., :3])
    want = read_texture(texels.reshape(1, -1, 3), [(height, width)], places[None, None], None, None, True)
    torch.testing.assert_close(surface_colors(mesh, face_ids, barycentric), want[0, 0], atol=2e-6, rtol=0)


def test_texture_and_vertex_colors_are_multiplied_in_linear_light():
    colors = torch.rand(4, 4)
    face_ids, barycentric = random_points(20)
    plain = Mesh(CORNERS, FACES, vertex_colors=colors)
    both = Mesh(CORNERS, FACES, UVS, texture=torch.full((2, 2, 3), 0.5), vertex_colors=colors)
    want = (barycentric[:, :, None] * srgb_to_linear(colors[:, :3])[FACES[face_ids]]).sum(1)
    torch.testing.assert_close(surface_colors(plain, face_ids, barycentric), want)
    torch.testing.assert_close(
        surface_colors(both, face_ids, barycentric), want * srgb_to_linear(torch.tensor(0.5)), atol=1e-6, rtol=0
    )


def test_colors_linear_on_a_face_are_averaged_over_its_parts():
    colors = torch.rand(4, 3)
    mesh, linear = Mesh(CORNERS, FACES, vertex_colors=colors), srgb_to_linear(colors)[FACES]
    one, three = (MeshGaussians.from_mesh(mesh, per_face).sh[:, 0] for per_face in (1, 3))
    torch.testing.assert_close(srgb_to_linear(sh0_to_rgb(one)), linear.mean(1))
    # A third of a triangle, cut off where two of its points are equally far, has its centroid at these weights.
    weights = torch.full((3, 3), 7 / 36) + torch.eye(3) * (11 / 18 - 7 / 36)
    want = torch.einsum("kc,fcd->fkd", weights, linear)
    torch.testing.assert_close(srgb_to_linear(sh0_to_rgb(three)).view(2, 3, 3), want, atol=5e-3, rtol=0)


def test_a_texture_finer_than_the_faces_gives_its_mean():
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    mesh = Mesh(CORNERS, FACES, UVS, texture=board[..., None].expand(-1, -1, 3).float())
    gray = linear_to_srgb(torch.tensor(0.5))
    colors = mean_colors(mesh, torch.tensor([[1 / 3, 1 / 3, 1 / 3]]))
    torch.testing.assert_close(colors, gray.expand(2, 1, 3), atol=0.02, rtol=0)


def test_each_gaussian_has_the_color_of_its_part():
    texture = torch.zeros(2, 2, 3)
    texture[:, 1, 0] = 1  # red at the right
    bound = MeshGaussians.from_mesh(Mesh(CORNERS, FACES[:1], UVS, texture=texture), 3)
    red = sh0_to_rgb(bound.sh[:, 0])[:, 0]
    assert red[1] > 0.8 > 0.6 > red[0] and red[0] == pytest.approx(float(red[2]))  # corner 1 is at the right
    bare = MeshGaussians.from_mesh(Mesh(CORNERS, FACES), 4)
    torch.testing.assert_close(sh0_to_rgb(bare.sh[:, 0]), torch.full((8, 3), 0.5))


def test_mesh_without_faces():
    mesh = Mesh(CORNERS, torch.zeros(0, 3, dtype=torch.int64))
    assert mean_colors(mesh, torch.eye(3)).shape == (0, 3, 3)
