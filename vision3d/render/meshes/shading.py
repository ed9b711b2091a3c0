"""Shading of meshes: base colors, normals, lighting, and visualization of normals, depth and texture coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, nearest_names
from vision3d.geometry import mesh as geometry
from vision3d.geometry.vectors import unit
from vision3d.render.maps import depth_to_rgb, normals_to_rgb
from vision3d.render.meshes.api import Fragments, interpolate
from vision3d.render.meshes.lights import Lights, light
from vision3d.render.meshes.textures import mip_pyramid, texture, texture_lods
from vision3d.scene.colors import linear_to_srgb, srgb_to_linear
from vision3d.scene.mesh import Mesh

SHADINGS = ("smooth", "flat", "none", "normals", "uvs", "depth")
GRAY = (0.7, 0.7, 0.7)
"""sRGB color of meshes without a texture and colors."""


@dataclass(frozen=True, eq=False)
class Surface:
    """Shading inputs of a mesh, computed once for many images."""

    mesh: Mesh
    normals: Float[Tensor, "v 3"]
    """Unit normals of the vertices: those of the mesh, or means over the faces around each position."""
    pyramid: list[Float[Tensor, "1 _ _ 3"]] | None
    """The texture in linear light, and its mipmap levels."""
    color: tuple[float, float, float]
    """sRGB color of a mesh with neither texture nor vertex colors."""

    @classmethod
    def of(cls, mesh: Mesh, color: Sequence[float] = GRAY) -> "Surface":
        """The surface of a mesh. Its alpha is ignored: see `veils`."""
        pyramid = None if mesh.texture is None else mip_pyramid(srgb_to_linear(mesh.texture[None, ..., :3].to(mesh.vertices)))
        red, green, blue = color
        return cls(mesh, smooth_normals(mesh), pyramid, (red, green, blue))


def smooth_normals(mesh: Mesh) -> Float[Tensor, "v 3"]:
    """The normals of a mesh, or if it has none, area-weighted means over the faces around each position.

    Vertices at the same position, as at texture seams, share a normal.
    """
    if mesh.normals is not None:
        return unit(mesh.normals)
    if not mesh.num_vertices:
        return mesh.vertices
    _, place = torch.unique(mesh.vertices.detach(), dim=0, return_inverse=True)
    first = first_of_each(place)
    return geometry.vertex_normals(mesh.vertices[first], place[mesh.faces])[place]


def first_of_each(group: Tensor) -> Tensor:
    """The first row of each group 0, 1, ..."""
    count = int(group.max()) + 1 if len(group) else 0
    rows = torch.arange(len(group), device=group.device)
    return rows.new_full((count,), len(group)).scatter_reduce(0, group, rows, "amin")


def base_colors(
    surface: Surface, positions: Float[Tensor, "i v 4"], fragments: Fragments, *, backend: str = "auto"
) -> Float[Tensor, "i h w 3"]:
    """Colors of the surface in linear light: texture times vertex colors, or whichever exists; zero outside the mesh.

    The texture is sampled with the level of detail of each pixel, also across seams of the coordinates. Differentiable.

    Args:
        surface: Surface of the mesh.
        positions: As given to `rasterize`, for the level of detail.
        fragments: Result of `rasterize` for this mesh only.
        backend: auto, native or reference.
    """
    mesh, seen = surface.mesh, fragments.face_ids >= 0
    color = None
    if mesh.vertex_colors is not None:
        linear = srgb_to_linear(mesh.vertex_colors[:, :3].to(mesh.vertices))
        color = interpolate(linear, mesh.faces, fragments, backend=backend)
    if surface.pyramid is not None:
        uvs, uv_faces = uv_rows(mesh)
        size = (surface.pyramid[0].shape[1], surface.pyramid[0].shape[2])
        lods = texture_lods(positions, mesh.faces, fragments, uvs, uv_faces, size)
        places = interpolate(uvs, uv_faces, fragments, backend=backend)
        texels = texture(surface.pyramid, places, lods=lods, masks=seen, backend=backend)
        color = texels if color is None else color * texels
    if color is None:
        color = srgb_to_linear(mesh.vertices.new_tensor(surface.color)) * seen[..., None]
    return color


def surface_normals(
    surface: Surface,
    fragments: Fragments,
    to_camera: Float[Tensor, "i h w 3"],
    *,
    is_smooth: bool = True,
    backend: str = "auto",
) -> Float[Tensor, "i h w 3"]:
    """Unit normals in the world of the side of the face towards the camera; zero outside the mesh. Differentiable.

    Args:
        surface: Surface of the mesh.
        fragments: Result of `rasterize` for this mesh only.
        to_camera: Result of `camera_directions`.
        is_smooth: Interpolate the normals of the vertices; otherwise use those of the faces.
        backend: auto, native or reference.
    """
    mesh, seen = surface.mesh, (fragments.face_ids >= 0)[..., None]
    flat = geometry.face_normals(mesh.vertices, mesh.faces)
    flat = torch.cat([flat, torch.zeros_like(flat[:1])]) if len(flat) else mesh.vertices.new_zeros(1, 3)
    normals = torch.where(seen, flat[fragments.face_ids.long()], 0)
    normals = torch.where((normals * to_camera).sum(-1, keepdim=True) < 0, -normals, normals)
    if not is_smooth:
        return normals
    smooth = unit(interpolate(surface.normals, mesh.faces, fragments, backend=backend))
    # Flip by the face, not by the camera: near silhouettes a smooth normal may point away from the camera.
    return torch.where((smooth * normals).sum(-1, keepdim=True) < 0, -smooth, smooth)


def camera_directions(
    points: Float[Tensor, "i h w 3"], viewmats: Float[Tensor, "i 4 4"], camera_model: str = "pinhole"
) -> Float[Tensor, "i h w 3"]:
    """Unit directions from points in the world to the camera, pinhole or ortho."""
    if camera_model == "ortho":
        return -viewmats[:, None, None, 2, :3].expand_as(points)
    centers = -(viewmats[:, :3, :3].mT @ viewmats[:, :3, 3:])[..., 0]
    return unit(centers[:, None, None] - points)


def shade(
    surface: Surface,
    positions: Float[Tensor, "i v 4"],
    fragments: Fragments,
    viewmats: Float[Tensor, "i 4 4"],
    *,
    shading: str = "smooth",
    lights: Lights | None = None,
    camera_model: str = "pinhole",
    backend: str = "auto",
) -> tuple[Float[Tensor, "i h w 3"], Float[Tensor, "i h w 3"]]:
    """Image of a mesh, sRGB and not clamped, and its normals in the world; both zero outside the mesh. Differentiable.

    Args:
        surface: Surface of the mesh.
        positions: As given to `rasterize`.
        fragments: Result of `rasterize` for this mesh only.
        viewmats: World to camera.
        shading: smooth or flat: lit, with the normals of the vertices or of the faces; none: unlit colors; normals: in camera
            axes, as for `normals_to_rgb`; uvs: u red, v green; depth: as for `depth_to_rgb`.
        lights: For smooth and flat; the default of `Lights` when None.
        camera_model: pinhole or ortho.
        backend: auto, native or reference.

    Raises:
        InputError: `shading` is unknown, or it is uvs and the mesh has none.
    """
    check_shading(shading)
    mesh, seen = surface.mesh, (fragments.face_ids >= 0)[..., None]
    points = interpolate(mesh.vertices, mesh.faces, fragments, backend=backend)
    to_camera = camera_directions(points, viewmats, camera_model)
    normals = surface_normals(surface, fragments, to_camera, is_smooth=shading != "flat", backend=backend)
    if shading == "normals":
        return normals_to_rgb(normals, viewmats), normals
    if shading == "depth":
        return depth_to_rgb(fragments.depths) * seen, normals
    if shading == "uvs":
        if mesh.uvs is None:
            raise InputError("shading: got uvs, but the mesh has none; want smooth, flat, none, normals or depth")
        uvs = interpolate(*uv_rows(mesh), fragments, backend=backend)
        return torch.cat([uvs - uvs.detach().floor(), 0.25 * torch.ones_like(uvs[..., :1])], -1) * seen, normals
    colors = base_colors(surface, positions, fragments, backend=backend)
    if shading != "none":
        colors = light(colors, normals, to_camera, lights or Lights()) * seen
    return linear_to_srgb(colors), normals


def check_shading(shading: str) -> None:
    """Raise InputError unless this is one of `SHADINGS`."""
    if shading not in SHADINGS:
        raise InputError(f"shading: got {shading!r}; {nearest_names(str(shading), SHADINGS)}")


def uv_rows(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Texture coordinates, and their row indices for the corners of each face."""
    assert mesh.uvs is not None
    uvs = mesh.uvs.to(mesh.vertices)
    if uvs.ndim == 2:
        return uvs, mesh.faces
    return uvs.flatten(0, 1), torch.arange(3 * len(mesh.faces), device=mesh.device).view(-1, 3)
