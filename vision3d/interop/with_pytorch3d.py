"""Meshes and cameras of PyTorch3D (0.7).

PyTorch3D's cameras look along +z with x to the left and y up, and its matrices act on row vectors: R is the transpose of
ours with the signs of x and y flipped. In screen space focal lengths and principal points are in pixels, with pixel centers
at +0.5; in NDC the shorter side is -1 to 1, with x to the left and y up. Texture coordinates have v pointing up.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.interop.shared import log_lost, plain_pinhole, require, wrong_type
from vision3d.scene.cameras import Cameras
from vision3d.scene.mesh import Mesh

_PURPOSE = "exchange with PyTorch3D (build it from its sources)"


def to_pytorch3d(value: Mesh | Sequence[Mesh] | Cameras, *, space: Literal["screen", "ndc"] = "screen") -> Any:
    """Meshes as `Meshes` with `TexturesUV` or `TexturesVertex`, or cameras as `PerspectiveCameras`.

    Args:
        value: One mesh, several that become one batch, or cameras.
        space: Space of the focal lengths and principal points of cameras.

    Raises:
        InputError: It is something else, cameras that are not undistorted pinhole cameras, or meshes of which only some have a
            texture.
        MissingDependencyError: PyTorch3D is not installed.
    """
    if isinstance(value, Cameras):
        return _cameras_to(plain_pinhole("to_pytorch3d", value), space)
    meshes = [value] if isinstance(value, Mesh) else value
    if not isinstance(meshes, list | tuple) or not meshes or not all(isinstance(mesh, Mesh) for mesh in meshes):
        raise wrong_type("to_pytorch3d", value, "a Mesh, a list of them or Cameras")
    structures = require("pytorch3d.structures.meshes", _PURPOSE)
    normals = [mesh.normals for mesh in meshes]
    return structures.Meshes(
        verts=[mesh.vertices for mesh in meshes],
        faces=[mesh.faces for mesh in meshes],
        textures=_textures_to(meshes),
        verts_normals=normals if all(normal is not None for normal in normals) else None,
    )


def from_pytorch3d(value: Any) -> list[Mesh] | Cameras:
    """The inverse of `to_pytorch3d`: a list of meshes, or cameras.

    Args:
        value: `Meshes` with `TexturesUV`, `TexturesVertex` or none, or `PerspectiveCameras` in screen space or NDC with an
            image size.

    Raises:
        InputError: It is something else, or cameras without an image size.
        MissingDependencyError: PyTorch3D is not installed.
    """
    kind = type(value).__name__
    if type(value).__module__.partition(".")[0] == "pytorch3d" and kind == "PerspectiveCameras":
        return _cameras_from(value)
    if type(value).__module__.partition(".")[0] == "pytorch3d" and kind == "Meshes":
        return _meshes_from(value)
    raise wrong_type("from_pytorch3d", value, "Meshes or PerspectiveCameras of PyTorch3D")


def _signs(like: Tensor) -> Tensor:
    return torch.tensor([-1.0, -1.0, 1.0]).to(like)


def _cameras_to(cameras: Cameras, space: str) -> Any:
    if space not in ("screen", "ndc"):
        raise InputError(f"to_pytorch3d: got space {space!r}, want 'screen' or 'ndc'")
    module = require("pytorch3d.renderer.cameras", _PURPOSE)
    signs = _signs(cameras.viewmats)
    focal, center = cameras.Ks.diagonal(dim1=1, dim2=2)[:, :2], cameras.Ks[:, :2, 2]
    sizes = torch.stack([cameras.height, cameras.width], 1)
    if space == "ndc":
        half = (sizes.amin(1, keepdim=True) / 2).to(focal)
        focal, center = focal / half, (sizes.flip(1).to(center) / 2 - center) / half
    return module.PerspectiveCameras(
        focal_length=focal.clone(),
        principal_point=center.clone(),
        R=(signs[:, None] * cameras.viewmats[:, :3, :3]).mT.contiguous(),
        T=signs * cameras.viewmats[:, :3, 3],
        in_ndc=space == "ndc",
        image_size=sizes,
        device=cameras.device,
    )


def _cameras_from(cameras: Any) -> Cameras:
    if cameras.image_size is None:
        raise InputError("from_pytorch3d: cameras have no image_size, want one")
    count = len(cameras.R)
    sizes = cameras.image_size.expand(count, 2)
    if cameras.K is not None:
        focal, center = cameras.K.diagonal(dim1=1, dim2=2)[:, :2], cameras.K[:, :2, 2]
    else:
        focal, center = cameras.focal_length.expand(count, 2), cameras.principal_point.expand(count, 2)
    if cameras.in_ndc():
        half = (sizes.amin(1, keepdim=True) / 2).to(focal)
        focal, center = focal * half, sizes.flip(1).to(center) / 2 - center * half
    signs = _signs(cameras.R)
    viewmats = torch.eye(4).to(cameras.R).repeat(count, 1, 1)
    viewmats[:, :3, :3] = signs[:, None] * cameras.R.mT
    viewmats[:, :3, 3] = signs * cameras.T
    Ks = torch.eye(3).to(focal).repeat(count, 1, 1)
    Ks[:, 0, 0], Ks[:, 1, 1], Ks[:, :2, 2] = focal[:, 0], focal[:, 1], center
    height, width = sizes.round().to(torch.int64).T
    return Cameras(viewmats, Ks, width.contiguous(), height.contiguous())


def _textures_to(meshes: Sequence[Mesh]) -> Any:
    textured = [mesh.texture is not None for mesh in meshes]
    colored = [mesh.vertex_colors is not None for mesh in meshes]
    if any(textured) and not all(textured):
        raise InputError(f"to_pytorch3d: {sum(textured)} of {len(meshes)} meshes have a texture; want all or none")
    if not any(textured) and not all(colored):
        for mesh in meshes:
            log_lost("Meshes of PyTorch3D without a texture", mesh, ("uvs",))
        return None
    module = require("pytorch3d.renderer.mesh.textures", _PURPOSE)
    if not any(textured):
        return module.TexturesVertex([mesh.vertex_colors for mesh in meshes])
    for mesh in meshes:
        log_lost("TexturesUV of PyTorch3D", mesh, ("vertex_colors",))
    uvs, faces = [], []
    for mesh in meshes:
        assert mesh.uvs is not None
        uvs.append(_flipped(mesh.uvs.reshape(-1, 2)))
        is_by_corner = mesh.uvs.ndim == 3
        faces.append(torch.arange(3 * mesh.num_faces, device=mesh.device).view(-1, 3) if is_by_corner else mesh.faces)
    if len({mesh.texture.shape for mesh in meshes if mesh.texture is not None}) > 1:
        raise InputError("to_pytorch3d: the textures of the meshes have several sizes; want one")
    # 0 and 1 are the outer corners of pixels here.
    return module.TexturesUV([mesh.texture for mesh in meshes], faces, uvs, align_corners=False)


def _meshes_from(meshes: Any) -> list[Mesh]:
    textures: Any = meshes.textures
    kind = type(textures).__name__
    if kind not in ("TexturesUV", "TexturesVertex", "NoneType"):
        raise InputError(f"from_pytorch3d: meshes have {kind}, want TexturesUV, TexturesVertex or none")
    normals = meshes._verts_normals_packed
    found = []
    starts = meshes.mesh_to_verts_packed_first_idx().tolist()
    for i, (vertices, faces) in enumerate(zip(meshes.verts_list(), meshes.faces_list())):
        extras: dict[str, Tensor] = {}
        if kind == "TexturesVertex":
            extras["vertex_colors"] = textures.verts_features_list()[i]
        elif kind == "TexturesUV":
            uvs, uv_faces, image = textures.verts_uvs_list()[i], textures.faces_uvs_list()[i], textures.maps_list()[i]
            if textures.align_corners:  # 0 and 1 are the centers of the outermost pixels
                size = torch.tensor([image.shape[1], image.shape[0]]).to(uvs)
                uvs = (uvs * (size - 1) + 0.5) / size
            uvs = _flipped(uvs)
            is_by_vertex = len(uvs) == len(vertices) and torch.equal(uv_faces, faces)
            extras = {"uvs": uvs if is_by_vertex else uvs[uv_faces], "texture": image}
        if normals is not None:  # given or already computed
            extras["normals"] = normals[starts[i] : starts[i] + len(vertices)]
        found.append(Mesh(vertices, faces.to(torch.int64), **extras))
    return found


def _flipped(uvs: Tensor) -> Tensor:
    return torch.stack([uvs[..., 0], 1 - uvs[..., 1]], -1)
