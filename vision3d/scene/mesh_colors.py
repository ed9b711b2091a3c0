"""Colors of points on meshes, sampled from the texture and the vertex colors."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.scene.colors import linear_to_srgb, srgb_to_linear
from vision3d.scene.mesh import Mesh
from vision3d.scene.resample import resize_area

GRAY = 0.5
"""sRGB value of a mesh without texture and colors."""
_STEPS = 8  # subdivisions of each edge of a face: 64 small triangles
_CHUNK = 1 << 14  # faces at once


def surface_colors(
    mesh: Mesh,
    face_ids: Int64[Tensor, " n"],
    barycentric: Float[Tensor, "n 3"],
    levels: Int64[Tensor, " n"] | None = None,
) -> Float[Tensor, "n 3"]:
    """Colors in linear light of points on faces: texture (bilinear) times vertex colors, or whichever exists.

    Args:
        mesh: Alpha is ignored.
        face_ids: The face of each point.
        barycentric: Barycentric coordinates in the face.
        levels: How many times the texture is halved before sampling; 0 when None.
    """
    color = None
    if mesh.vertex_colors is not None:
        corners = srgb_to_linear(mesh.vertex_colors[mesh.faces[face_ids]][..., :3].to(barycentric))
        color = (barycentric[:, :, None] * corners).sum(1)
    if mesh.texture is not None:
        assert mesh.corner_uvs is not None
        uvs = (barycentric[:, :, None] * mesh.corner_uvs[face_ids].to(barycentric)).sum(1)
        levels = torch.zeros_like(face_ids) if levels is None else levels
        texels = _texels(srgb_to_linear(mesh.texture[..., :3].to(barycentric)), uvs, levels)
        color = texels if color is None else color * texels
    if color is None:
        color = srgb_to_linear(torch.full_like(barycentric, GRAY))
    return color


def mean_colors(mesh: Mesh, places: Float[Tensor, "k 3"]) -> Float[Tensor, "f k 3"]:
    """sRGB colors of k points on each face: the mean in linear light over the part of the face closest to each point.

    This prevents aliasing of textures that are finer than the faces.

    Args:
        mesh: A mesh.
        places: Barycentric coordinates, the same on every face.
    """
    points = _small_triangles().to(places)
    # Squared distances in barycentric coordinates are those in the equilateral triangle, up to a factor.
    distances = (points[:, None] - places).square().sum(-1)
    is_near = (distances <= distances.amin(1, keepdim=True) + 1e-6).to(places)
    shares = is_near / is_near.sum(1, keepdim=True)  # ties count for both
    shares = shares / shares.sum(0)
    levels = _levels(mesh)
    colors = [places.new_zeros(0, len(places), 3)]
    for faces in torch.arange(mesh.num_faces, device=mesh.device).split(_CHUNK):
        ids = faces.repeat_interleave(len(points))
        found = surface_colors(mesh, ids, points.repeat(len(faces), 1), levels[ids])
        colors.append(torch.einsum("pk,fpc->fkc", shares, found.view(len(faces), len(points), 3)))
    return linear_to_srgb(torch.cat(colors))


def surface_alphas(mesh: Mesh) -> Float[Tensor, " f"]:
    """The minimum alpha of each face, at its corners and in the small triangles into which it is divided."""
    points = torch.cat([_small_triangles(), torch.eye(3)]).to(mesh.vertices)
    least = mesh.vertices.new_ones(mesh.num_faces)
    if mesh.vertex_colors is not None and mesh.vertex_colors.shape[1] == 4:
        least = least * mesh.vertex_colors[:, 3].to(least)[mesh.faces].amin(1)
    if mesh.texture is not None and mesh.texture.shape[2] == 4:
        assert mesh.corner_uvs is not None
        image, found = mesh.texture[..., 3:].to(least), [least[:0]]
        for corners in mesh.corner_uvs.to(least).split(_CHUNK):
            uvs = torch.einsum("pk,fkx->fpx", points, corners)
            found.append(_bilinear(image, uvs.reshape(-1, 2)).view(len(corners), -1).amin(1))
        least = least * torch.cat(found)
    return least


def _small_triangles() -> Tensor:
    """Barycentric coordinates of the centers of the small triangles into which a face is divided."""
    steps = torch.arange(_STEPS)
    i, j = (grid.flatten() for grid in torch.meshgrid(steps, steps, indexing="ij"))
    upward = torch.stack([i, j], -1)[i + j < _STEPS] + 1 / 3
    downward = torch.stack([i, j], -1)[i + j < _STEPS - 1] + 2 / 3
    first_two = torch.cat([upward, downward]) / _STEPS
    return torch.cat([first_two, 1 - first_two.sum(1, keepdim=True)], 1)


def _levels(mesh: Mesh) -> Tensor:
    """How many times to halve the texture so that the small triangles of a face are no larger than its texels."""
    if mesh.texture is None or mesh.corner_uvs is None:
        return torch.zeros(mesh.num_faces, dtype=torch.int64, device=mesh.device)
    size = mesh.corner_uvs.new_tensor([mesh.texture.shape[1], mesh.texture.shape[0]])
    edges = (mesh.corner_uvs - mesh.corner_uvs.roll(1, 1)) * size
    longest = torch.linalg.vector_norm(edges, dim=-1).amax(1)
    most = max(mesh.texture.shape[:2]).bit_length() - 1
    return (longest / _STEPS).clamp(min=1).log2().ceil().long().clamp(max=most)


def _texels(texture: Tensor, uvs: Tensor, levels: Tensor) -> Tensor:
    """Bilinear samples of the texture, halved this many times."""
    values = torch.zeros(len(uvs), texture.shape[2], dtype=uvs.dtype, device=uvs.device)
    for level in range(int(levels.max()) + 1 if len(levels) else 0):
        if level:
            texture = resize_area(texture, max(1, texture.shape[1] // 2), max(1, texture.shape[0] // 2))
        values[levels == level] = _bilinear(texture, uvs[levels == level])
    return values


def _bilinear(texture: Tensor, uvs: Tensor) -> Tensor:
    """Bilinear samples; beyond 0..1 the texture repeats."""
    height, width = texture.shape[:2]
    padded = torch.nn.functional.pad(texture.permute(2, 0, 1)[None], (1, 1, 1, 1), mode="circular")
    size = uvs.new_tensor([width, height])
    grid = 2 * ((uvs - uvs.floor()) * size + 1) / (size + 2) - 1
    return torch.nn.functional.grid_sample(padded, grid[None, None], align_corners=False)[0, :, 0].T
