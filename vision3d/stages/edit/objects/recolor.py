"""Edits of planes on the objects themselves: textures and vertex colors of meshes, harmonics of Gaussians."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.core.machine import free_memory
from vision3d.geometry.spherical_harmonics import rgb_to_sh0, sh0_to_rgb
from vision3d.io.gltf_material import MATTE, Material
from vision3d.render.baking.atlas import unwrap_growing
from vision3d.render.meshes.api import Fragments, rasterize
from vision3d.render.meshes.texels import spread
from vision3d.scene.colors import linear_to_srgb
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.lab import srgb_to_lab
from vision3d.scene.mesh import Mesh
from vision3d.scene.mesh_colors import surface_colors
from vision3d.scene.skin import SkinnedMesh
from vision3d.stages.edit.editor import Edited
from vision3d.stages.edit.objects.files import TEXTURE, material_of_texels
from vision3d.stages.edit.objects.points import to_cube
from vision3d.stages.edit.run_config import texture_gb
from vision3d.stages.edit.transfer import Transfer

_PADDING = 2
_SAMPLE = 16_384  # points for the mapping of tints
_SLACK = 0.5  # texels by which the area of a face and its texels may differ
_SHARE = 0.9  # of the free memory that an edit may use
_SHARED = 0.02  # share of texels that several faces may use before a mesh gets a new texture


@dataclass(frozen=True, eq=False)
class Outcome:
    """What else an edit did."""

    clipped: float
    """Share of the changed colors that left the range of sRGB and were clipped."""
    material: Material = MATTE
    """Metallic and roughness factor of a mesh after it; by texel where parts differ."""


def recolor_gaussians(
    scene: GaussianScene, edit: Edited, selected: Bool[Tensor, " n"] | None = None
) -> tuple[GaussianScene, Outcome]:
    """Gaussians after an edit: constant and view-dependent part of their color; all else, and others, are bit-equal.

    The view-dependent part is mapped by the derivative of the change at the constant color.

    Args:
        scene: The object, or a scene that contains it.
        edit: Its planes before and after.
        selected: The Gaussians of the object; all when None.
    """
    rows = torch.arange(len(scene)) if selected is None else selected.nonzero()[:, 0]
    points = to_cube(edit.source.matrix, scene.means[rows])
    own = sh0_to_rgb(scene.sh[rows, 0])
    inside = own.clamp(0, 1)
    before, after = edit.looks(points)
    transfer = Transfer.of(before, after.colors, scene.opacities[rows])
    new, slope = transfer.apply(inside), transfer.slope(inside)
    clipped = float(((new < -1e-3) | (new > 1 + 1e-3)).any(1).float().mean())
    new = new.clamp(0, 1) + torch.einsum("nij,nj->ni", slope, own - inside)
    sh = scene.sh.clone()
    sh[rows, 0] = rgb_to_sh0(new)
    if sh.shape[1] > 1:
        sh[rows, 1:] = torch.einsum("nij,nkj->nki", slope, scene.sh[rows, 1:])
    return replace(scene, sh=sh), Outcome(round(clipped, 4))


def recolor_mesh(
    mesh: Mesh,
    edit: Edited,
    *,
    selected: Bool[Tensor, " f"] | None = None,
    texture_size: int = TEXTURE,
    material: Material | Mesh = MATTE,
) -> tuple[Mesh, Outcome]:
    """A mesh after an edit: its texture, or a new one if it has none or one whose texels several faces share. Vertices, faces
    and normals are the same tensors.

    Args:
        mesh: The object.
        edit: Its planes before and after.
        selected: Faces to change; all when None. The others keep their colors and their material.
        texture_size: Side of a new texture [texels].
        material: Of the mesh before the edit, as `Opened.material`.
    """
    page = _page(mesh, texture_size)
    places = to_cube(edit.source.matrix, page.points)
    factors = _factors(mesh, page, material)
    before, after = edit.looks(places, factors)
    sample = torch.arange(0, len(places), max(1, len(places) // _SAMPLE))
    tint = Transfer.of(before[sample], after.colors[sample]).tint
    own = page.image[page.mask]
    colors = Transfer(srgb_to_lab(before), srgb_to_lab(after.colors), tint).apply(own[:, :3])
    changed = torch.ones(len(colors), dtype=torch.bool) if selected is None else selected[page.face_ids]
    clipped = ((colors < -1e-3) | (colors > 1 + 1e-3)).any(1)[changed].float().mean() if bool(changed.any()) else 0.0
    image = page.image.clone()
    image[page.mask] = torch.cat([torch.where(changed[:, None], colors.clamp(0, 1), own[:, :3]), own[:, 3:]], 1)
    # Texels around charts are sampled, too, where the texture is filtered.
    around = torch.zeros_like(page.mask)
    around[page.mask] = changed
    image = torch.where(spread(around[..., None].float(), page.mask) > 0.5, spread(image, page.mask), image)
    new = torch.where(changed[:, None], torch.stack([after.metallic, after.roughness], 1), factors)
    outcome = Outcome(round(float(clipped), 4), _material(page, new))
    return replace(page.mesh, texture=image, vertex_colors=None), outcome


def recolor_skin(
    skin: SkinnedMesh,
    edit: Edited,
    *,
    selected: Bool[Tensor, " f"] | None = None,
    texture_size: int = TEXTURE,
    material: Material | Mesh = MATTE,
) -> tuple[SkinnedMesh, Outcome]:
    """As `recolor_mesh`, on the rest pose; joints, weights, morphs and clips are the same tensors."""
    mesh, outcome = recolor_mesh(skin.at_rest(), edit, selected=selected, texture_size=texture_size, material=material)
    return replace(skin, mesh=replace(skin.mesh, uvs=mesh.uvs, texture=mesh.texture, vertex_colors=None)), outcome


def _factors(mesh: Mesh, page: "_Page", material: Material | Mesh) -> Float[Tensor, "n 2"]:
    """Metallic and roughness factor of the mesh at the texels of its page."""
    if isinstance(material, Mesh):  # of the same faces; its colors are 0, roughness, metallic
        found = surface_colors(material, page.face_ids, page.barycentric)
        return linear_to_srgb(found)[:, [2, 1]].clamp(0, 1)
    if not isinstance(material, Tensor) or mesh.uvs is None:
        material = MATTE if isinstance(material, Tensor) else material
        return torch.tensor(material).expand(len(page.points), 2)
    colors = torch.nn.functional.pad(material, (0, 1))
    found = surface_colors(replace(mesh, texture=colors, vertex_colors=None), page.face_ids, page.barycentric)
    return linear_to_srgb(found)[:, :2].clamp(0, 1)


def _material(page: "_Page", factors: Float[Tensor, "n 2"]) -> Material:
    """The material of a page from the factors of its texels."""
    image = torch.tensor(MATTE).repeat(*page.mask.shape, 1)
    image[page.mask] = factors
    return material_of_texels(image, page.mask)


@dataclass(frozen=True, eq=False)
class _Page:
    """A mesh whose faces have texels of their own."""

    mesh: Mesh
    image: Float[Tensor, "h w c"]
    """The texture with the colors of the mesh."""
    mask: Bool[Tensor, "h w"]
    """Texels on the surface."""
    points: Float[Tensor, "n 3"]
    """Where these are."""
    face_ids: Int64[Tensor, " n"]
    """On which face."""
    barycentric: Float[Tensor, "n 3"]
    """Where in it."""


def _page(mesh: Mesh, size: int) -> _Page:
    """The mesh with its own texture if no texels are shared, otherwise with a new one of its colors."""
    if mesh.texture is not None and mesh.vertex_colors is None and mesh.corner_uvs is not None:
        height, width = mesh.texture.shape[:2]
        if (room := _missing_room(width, height)) is not None:
            raise InputError(f"mesh: its texture of {width} x {height} texels {room}; want a smaller texture")
        corners = mesh.corner_uvs.float() * mesh.corner_uvs.new_tensor([width, height])
        fragments = _fragments(corners, width, height)
        areas = (corners[:, 1:] - corners[:, :1]).double()
        total = 0.5 * float((areas[:, 0, 0] * areas[:, 1, 1] - areas[:, 0, 1] * areas[:, 1, 0]).abs().sum())
        if total <= (1 + _SHARED) * float((fragments.face_ids >= 0).sum()) + _SLACK * len(corners):
            mask, face_ids, barycentric, points = _surface(mesh, fragments)
            return _Page(mesh, mesh.texture.float(), mask, points, face_ids, barycentric)
    _check_room(size)
    unwrapped = unwrap_growing(Mesh(mesh.vertices, mesh.faces), size, _PADDING)
    if unwrapped is None:
        raise InputError(f"mesh: the charts of {mesh.num_faces} faces do not fit on a texture; want fewer faces")
    atlas, size = unwrapped
    _check_room(size)
    assert atlas.corner_uvs is not None
    mask, face_ids, barycentric, points = _surface(mesh, _fragments(size * atlas.corner_uvs, size, size))
    image = torch.zeros(size, size, 3)
    image[mask] = linear_to_srgb(surface_colors(mesh, face_ids, barycentric)).clamp(0, 1)
    # With uvs by corner no vertex is duplicated, so that normals, weights and morphs still belong to their vertices.
    mesh = replace(mesh, uvs=atlas.corner_uvs, texture=image)
    return _Page(mesh, spread(image, mask), mask, points, face_ids, barycentric)


def _check_room(size: int) -> None:
    if (room := _missing_room(size, size)) is not None:
        most = int((_SHARE * (free_memory() or 0) / 1e9 / texture_gb(1, 1)) ** 0.5)
        raise ConfigError("texture_size", f"a new texture of {size} x {size} texels {room}; want at most {most}")


def _missing_room(width: int, height: int) -> str | None:
    """What a texture needs and what there is, if that is less."""
    need, free = texture_gb(width, height), free_memory()
    return None if free is None or need <= _SHARE * free / 1e9 else f"needs {need:.3g} GB, {free / 1e9:.3g} GB are free"


def _fragments(corners: Float[Tensor, "f 3 2"], width: int, height: int) -> Fragments:
    """The faces at the texel centers."""
    flat = torch.nn.functional.pad(corners.reshape(-1, 2), (0, 2), value=1.0)  # a plane at depth 1
    return rasterize(flat[None], torch.arange(len(flat)).view(-1, 3), width, height)


def _surface(mesh: Mesh, fragments: Fragments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mask of texels on the surface; their faces, barycentric coordinates and points."""
    mask = fragments.face_ids[0] >= 0
    face_ids, barycentric = fragments.face_ids[0][mask].long(), fragments.barycentrics[0][mask]
    return mask, face_ids, barycentric, (barycentric[:, :, None] * mesh.vertices[mesh.faces[face_ids]]).sum(1)
