"""Merge textured meshes into one mesh with one texture atlas."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.scene.mesh import Mesh
from vision3d.scene.resample import resize_area

logger = logging.getLogger("vision3d")

_MARGIN = 2
"""Margin in texels around each image, filled by wrapping, so that bilinear samples do not change."""
_MAX_REPEATS = 1024
_MAX_TEXELS = 1 << 27
_MAX_REPEATED = 1 << 24
"""Maximum texels of a repeated image: larger ones are downscaled, but not below the texture's own size."""
_BLANK = 4
"""Side length in texels of the white image for meshes without a texture."""


def merge_textured(meshes: Sequence[Mesh]) -> Mesh:
    """Merge meshes; if their textures differ, they are packed into one image and the uvs are adjusted.

    A texture that a face repeats is copied as often as it is repeated. Texels are copied, so colors do not change; coarser
    mipmap levels mix with the neighbors. If the copies would have more than 2^24 texels, the texture is downscaled first, with
    a warning. Vertices keep their order.

    Raises:
        InputError: A face repeats its texture more than 1024 times, uvs are not finite, or the image would be larger than
            2^27 texels.
    """
    distinct: dict[int, Tensor] = {id(mesh.texture): mesh.texture for mesh in meshes if mesh.texture is not None}
    if len(distinct) < 2 and (not distinct or all(mesh.texture is not None for mesh in meshes)):
        return meshes[0].merge(*meshes[1:])
    width = max(texture.shape[2] for texture in distinct.values())
    blank = torch.ones(_BLANK, _BLANK, width, device=meshes[0].device)
    meshes = [_within_first_tiles(mesh) if mesh.texture is not None else _with_blank(mesh, blank) for mesh in meshes]
    keys = [id(mesh.texture) for mesh in meshes]
    images: dict[int, Tensor] = {}
    texels: dict[int, tuple[int, int]] = {}  # width and height of one copy
    for key in dict.fromkeys(keys):
        same = [mesh for mesh, other in zip(meshes, keys) if other == key]
        corners = torch.cat([mesh.corner_uvs.reshape(-1, 2) for mesh in same if mesh.corner_uvs is not None])
        images[key], texels[key] = _repeated(same[0], corners, width)
    places, size = _packed([(image.shape[1], image.shape[0]) for image in images.values()])
    atlas = torch.ones(size[1], size[0], width, device=blank.device)
    corners_of: dict[int, tuple[int, int]] = {}
    for (key, image), (x, y) in zip(images.items(), places):
        atlas[y : y + image.shape[0], x : x + image.shape[1]] = image
        corners_of[key] = (x + _MARGIN, y + _MARGIN)
    moved = []
    for mesh, key in zip(meshes, keys):
        assert mesh.uvs is not None and mesh.texture is not None
        uvs = (mesh.uvs * mesh.uvs.new_tensor(texels[key]) + mesh.uvs.new_tensor(corners_of[key])) / mesh.uvs.new_tensor(size)
        moved.append(replace(mesh, uvs=uvs, texture=atlas))
    return moved[0].merge(*moved[1:])


def _with_blank(mesh: Mesh, blank: Tensor) -> Mesh:
    return replace(mesh, texture=blank, uvs=mesh.vertices.new_full((mesh.num_vertices, 2), 0.5))


def _within_first_tiles(mesh: Mesh) -> Mesh:
    """The mesh with uvs starting at 0: shifted by integers, all together if possible, else face by face."""
    corners = mesh.corner_uvs
    assert corners is not None and mesh.uvs is not None
    if not bool(torch.isfinite(corners).all()):
        raise InputError("uvs are not finite")
    if not len(corners):
        return mesh
    low = corners.amin((0, 1)).floor()
    if bool((corners - low <= 1).all()):
        return replace(mesh, uvs=mesh.uvs - low)
    return replace(mesh, uvs=corners - corners.amin(1, keepdim=True).floor())


def _repeated(mesh: Mesh, corners: Float[Tensor, "n 2"], width: int) -> tuple[Tensor, tuple[int, int]]:
    """The texture repeated over the range of the uvs, with its margin, and alpha if others have it; the size of a copy."""
    texture = mesh.texture
    assert texture is not None
    columns, rows = map(int, corners.clamp(min=1e-6).amax(0).ceil().tolist()) if len(corners) else (1, 1)
    if max(columns, rows) > _MAX_REPEATS:
        raise InputError(f"a face repeats its texture {max(columns, rows)} times, want at most {_MAX_REPEATS}")
    excess = columns * rows * texture.shape[0] * texture.shape[1] / max(_MAX_REPEATED, texture.shape[0] * texture.shape[1])
    if columns * rows > 1 and excess > 1:
        size = [max(1, int(side / excess**0.5)) for side in (texture.shape[1], texture.shape[0])]
        text = "a face repeats its texture of %dx%d texels %dx%d times; copied at %dx%d"
        logger.warning(text, texture.shape[1], texture.shape[0], columns, rows, *size)
        texture = resize_area(texture, *size)
    copy = (texture.shape[1], texture.shape[0])
    height, length = rows * copy[1], columns * copy[0]
    if (height + 2 * _MARGIN) * (length + 2 * _MARGIN) > _MAX_TEXELS:
        raise InputError(f"the texture atlas would have more than {_MAX_TEXELS} texels")
    texture = torch.nn.functional.pad(texture, (0, width - texture.shape[2]), value=1.0)
    down = torch.arange(-_MARGIN, height + _MARGIN, device=texture.device) % texture.shape[0]
    right = torch.arange(-_MARGIN, length + _MARGIN, device=texture.device) % texture.shape[1]
    return texture[down][:, right], copy


def _packed(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Upper left corners of images of (width, height) in rows, tall ones first, and the total size."""
    total = sum(width * height for width, height in sizes)
    limit = max(max(width for width, _ in sizes), int(total**0.5))
    places, (x, y, row, right) = [(0, 0)] * len(sizes), (0, 0, 0, 0)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i][1], -sizes[i][0])):
        width, height = sizes[index]
        if x and x + width > limit:
            x, y, row = 0, y + row, 0
        places[index] = (x, y)
        x, row = x + width, max(row, height)
        right = max(right, x)
    if right * (y + row) > _MAX_TEXELS:
        raise InputError(f"the texture atlas would have {right}x{y + row} texels, want at most {_MAX_TEXELS}")
    return places, (right, y + row)
