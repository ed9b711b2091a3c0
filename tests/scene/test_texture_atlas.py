"""Several textures in one image: the color at every position of every face is unchanged."""

import re

import pytest
import torch

from vision3d.geometry import shapes
from vision3d.scene import Mesh, texture_atlas
from vision3d.scene.texture_atlas import merge_textured


def read(texture, uvs):
    """Bilinear, repeating; texel centers at half-integers."""
    height, width = texture.shape[:2]
    place = uvs.double() * torch.tensor([width, height]) - 0.5
    low = place.floor()
    share = place - low
    total = 0
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = (low[..., 0] + dx).long() % width, (low[..., 1] + dy).long() % height
            weight = (share[..., 0] if dx else 1 - share[..., 0]) * (share[..., 1] if dy else 1 - share[..., 1])
            total = total + weight[..., None] * texture[y, x].double()
    return total


def plate(width, height, channels=3, spread=1.0, offset=0.0, by_corner=False):
    vertices, faces = shapes.icosphere(1)
    uvs = offset + spread * torch.rand(len(faces), 3, 2) if by_corner else offset + spread * torch.rand(len(vertices), 2)
    return Mesh(vertices, faces, uvs=uvs, texture=torch.rand(height, width, channels))


def check(parts, merged):
    assert merged.num_faces == sum(part.num_faces for part in parts)
    inside = torch.distributions.Dirichlet(torch.ones(3)).sample((merged.num_faces, 5))
    after = read(merged.texture, torch.einsum("fkc,fcx->fkx", inside, merged.corner_uvs))
    first = 0
    for part in parts:
        rows = slice(first, first + part.num_faces)
        first += part.num_faces
        want = torch.ones(part.num_faces, 5, merged.texture.shape[2], dtype=torch.float64)
        if part.texture is not None:
            found = read(part.texture, torch.einsum("fkc,fcx->fkx", inside[rows], part.corner_uvs))
            want[..., : found.shape[-1]] = found
        torch.testing.assert_close(after[rows], want, atol=2e-4, rtol=0)
        torch.testing.assert_close(merged.vertices[merged.faces[rows]], part.vertices[part.faces])


@pytest.mark.parametrize(
    "parts",
    [
        [plate(8, 8), plate(16, 4)],
        [plate(5, 7), plate(3, 9, channels=4), plate(64, 2)],
        [plate(6, 6, by_corner=True), plate(7, 5)],
        [plate(6, 6, offset=-3.0), plate(7, 5, offset=12.0)],
        [plate(6, 6, spread=2.5, offset=-0.7), plate(7, 5, spread=1.7, by_corner=True)],
        [plate(9, 9), Mesh(*shapes.icosphere(1))],
    ],
)
def test_colors_are_unchanged(parts):
    check(parts, merge_textured(parts))


def test_one_texture_is_unchanged():
    part = plate(8, 8)
    other = Mesh(part.vertices + 3, part.faces, uvs=part.uvs, texture=part.texture)
    merged = merge_textured([part, other])
    assert merged.texture is part.texture and torch.equal(merged.uvs[: len(part.uvs)], part.uvs)
    assert merge_textured([part]).texture is part.texture
    bare = Mesh(part.vertices, part.faces)
    assert merge_textured([bare, bare]).texture is None


def test_a_texture_of_many_parts_is_stored_once():
    part, other = plate(32, 32), plate(8, 8)
    again = Mesh(part.vertices, part.faces, uvs=part.uvs.flip(0), texture=part.texture)
    merged = merge_textured([part, other, again])
    check([part, other, again], merged)
    assert merged.texture.shape[0] * merged.texture.shape[1] < 2 * 36 * 36


def test_a_repeating_texture_is_copied(monkeypatch, caplog):
    parts = [plate(4, 4, spread=20.0), plate(8, 8)]
    check(parts, merge_textured(parts))
    assert caplog.text == ""
    monkeypatch.setattr(texture_atlas, "_MAX_REPEATED", 1000)
    smooth = Mesh(parts[0].vertices, parts[0].faces, uvs=parts[0].uvs, texture=torch.full((4, 4, 3), 0.25))
    merged = merge_textured([smooth, parts[1]])
    check([smooth, parts[1]], merged)  # a single color is the same at any size
    assert merged.texture.shape[0] * merged.texture.shape[1] < 3000
    assert re.search(r"a face repeats its texture of 4x4 texels \d+x\d+ times; copied at 1x1", caplog.text)


def test_faces_that_repeat_a_texture_too_often_have_its_mean_color(caplog):
    black_and_white = torch.tensor([0.0, 1.0]).view(1, 2, 1).expand(2, 2, 3)
    base = plate(4, 4, by_corner=True)
    wild = base.uvs.clone()
    wild[0] = torch.tensor([[0.0, 0], [5000, 0], [0, 1]])
    wild[1, 2] = torch.nan
    mesh = Mesh(base.vertices, base.faces, uvs=wild, texture=black_and_white)
    other = plate(8, 8)
    merged = merge_textured([mesh, other])
    assert merged.validate().texture.shape[:2].numel() < 4000
    gray = torch.full((2, 3), 0.735357)  # half of the light
    torch.testing.assert_close(read(merged.texture, merged.corner_uvs[:2].mean(1)).float(), gray, atol=1e-5, rtol=0)
    rest = torch.arange(2, mesh.num_faces)
    kept = Mesh(mesh.vertices, mesh.faces[rest], uvs=wild[rest], texture=black_and_white)
    both = torch.cat([rest, torch.arange(mesh.num_faces, merged.num_faces)])
    check([kept, other], Mesh(merged.vertices, merged.faces[both], uvs=merged.corner_uvs[both], texture=merged.texture))
    (text,) = caplog.messages
    assert text.startswith("2 faces repeat their texture more than 1024 times (5000), or have uvs that are not finite")


def test_textures_are_downscaled_if_the_atlas_would_be_too_large(monkeypatch, caplog):
    parts = [plate(64, 64), plate(64, 32, spread=3.0)]
    for part, value in zip(parts, (0.25, 0.75)):
        part.texture[:] = value
    monkeypatch.setattr(texture_atlas, "_MAX_TEXELS", 4000)
    merged = merge_textured(parts)
    check(parts, merged)
    assert merged.texture.shape[:2].numel() <= 4000
    assert "the texture atlas would have more than 4000 texels; textures are downscaled" in caplog.text


def test_uvs_of_unused_vertices_do_not_count():
    part, other = plate(8, 8), plate(4, 4)
    wild = torch.cat([part.uvs, torch.tensor([[5000.0, 0.5], [torch.nan, 0]])])
    extended = Mesh(torch.cat([part.vertices, torch.zeros(2, 3)]), part.faces, uvs=wild, texture=part.texture)
    merged = merge_textured([extended, other])
    check([extended, other], merged)
    assert merged.texture.shape[:2].numel() < 1000
