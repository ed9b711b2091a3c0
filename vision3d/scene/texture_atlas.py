"""Merge textured meshes into one mesh with one texture atlas."""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.scene.colors import linear_to_srgb, srgb_to_linear
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
    mipmap levels mix with the neighbors. Vertices keep their order. With a warning, a texture is downscaled if its copies would
    have more than 2^24 texels, all are if the image would have more than 2^27, and faces that repeat their texture more than
    1024 times, or whose uvs are not finite, have its mean color.
    """
    distinct: dict[int, Tensor] = {id(mesh.texture): mesh.texture for mesh in meshes if mesh.texture is not None}
    if len(distinct) < 2 and (not distinct or all(mesh.texture is not None for mesh in meshes)):
        return meshes[0].merge(*meshes[1:])
    width = max(texture.shape[2] for texture in distinct.values())
    device = meshes[0].device
    distinct = {key: torch.nn.functional.pad(t, (0, width - t.shape[2]), value=1.0) for key, t in distinct.items()}
    blank = torch.ones(_BLANK, _BLANK, width, device=device)
    keys = [id(blank if mesh.texture is None else mesh.texture) for mesh in meshes]
    distinct[id(blank)] = blank
    meshes = [mesh if mesh.texture is not None else _with_blank(mesh, blank) for mesh in meshes]
    tiles = [_within_first_tiles(mesh) for mesh in meshes]
    corners = [uvs if uvs.ndim == 3 else uvs[mesh.faces] for mesh, (uvs, _) in zip(meshes, tiles)]  # of used vertices
    repeats = {key: _repeats([uvs for uvs, other in zip(corners, keys) if other == key]) for key in dict.fromkeys(keys)}
    images = _fitting({key: _limited(distinct[key], *repeats[key]) for key in repeats}, repeats)
    flat = {key for key, (_, is_coarse) in zip(keys, tiles) if is_coarse.any()}
    blocks = {key: _tiled(images[key], *repeats[key]) for key in images}
    blocks |= {(key, "mean"): _mean_block(distinct[key]) for key in flat}
    places, size = _packed([(block.shape[1], block.shape[0]) for block in blocks.values()])
    atlas = torch.ones(size[1], size[0], width, device=device)
    corners_of: dict[Hashable, Tensor] = {}
    for (key, block), (x, y) in zip(blocks.items(), places):
        atlas[y : y + block.shape[0], x : x + block.shape[1]] = block
        corners_of[key] = torch.tensor([x + _MARGIN, y + _MARGIN])
    moved = []
    for mesh, key, (uvs, is_coarse) in zip(meshes, keys, tiles):
        copy = uvs.new_tensor([images[key].shape[1], images[key].shape[0]])
        uvs = (uvs * copy + corners_of[key].to(uvs)) / uvs.new_tensor(size)
        if key in flat and is_coarse.any():
            uvs[is_coarse] = (corners_of[key, "mean"].to(uvs) + _BLANK / 2) / uvs.new_tensor(size)
        moved.append(replace(mesh, uvs=uvs, texture=atlas))
    return moved[0].merge(*moved[1:])


def _with_blank(mesh: Mesh, blank: Tensor) -> Mesh:
    return replace(mesh, texture=blank, uvs=mesh.vertices.new_full((mesh.num_vertices, 2), 0.5))


def _within_first_tiles(mesh: Mesh) -> tuple[Tensor, Bool[Tensor, " f"]]:
    """uvs starting at 0: shifted by integers, all together if possible, else face by face, and by corner. And the faces whose
    texture is replaced by its mean color; their uvs are 0.
    """
    corners = mesh.corner_uvs
    assert corners is not None and mesh.uvs is not None
    spans = corners.amax(1) - corners.amin(1) if len(corners) else corners.new_zeros(0, 2)
    is_coarse = ~((spans < _MAX_REPEATS) & torch.isfinite(corners).all(1)).all(1)
    if is_coarse.any():
        finite = spans[torch.isfinite(spans)]
        text = (
            "%d faces repeat their texture more than %d times (%.0f), or have uvs that are not finite; they have its mean color"
        )
        logger.warning(text, int(is_coarse.sum()), _MAX_REPEATS, float(finite.max()) if len(finite) else 0.0)
        corners = torch.where(is_coarse[:, None, None], 0, corners)
    elif not len(corners):
        return mesh.uvs, is_coarse
    else:
        low = corners.amin((0, 1)).floor()
        if bool((corners - low <= 1).all()):
            return mesh.uvs - low, is_coarse
    return corners - corners.amin(1, keepdim=True).floor(), is_coarse


def _repeats(parts: list[Tensor]) -> tuple[int, int]:
    """How many copies of an image the uvs of corners cover: columns, rows."""
    corners = torch.cat([uvs.reshape(-1, 2) for uvs in parts])
    columns, rows = map(int, corners.clamp(min=1e-6).amax(0).ceil().tolist()) if len(corners) else (1, 1)
    return columns, rows


def _limited(texture: Tensor, columns: int, rows: int) -> Tensor:
    """The texture, downscaled if its copies would have more than `_MAX_REPEATED` texels."""
    excess = columns * rows * texture.shape[0] * texture.shape[1] / max(_MAX_REPEATED, texture.shape[0] * texture.shape[1])
    if columns * rows == 1 or excess <= 1:
        return texture
    size = [max(1, int(side / excess**0.5)) for side in (texture.shape[1], texture.shape[0])]
    text = "a face repeats its texture of %dx%d texels %dx%d times; copied at %dx%d"
    logger.warning(text, texture.shape[1], texture.shape[0], columns, rows, *size)
    return resize_area(texture, *size)


def _fitting(images: dict[int, Tensor], repeats: dict[int, tuple[int, int]]) -> dict[int, Tensor]:
    """The images, downscaled together until their atlas is not too large."""
    factor = 1.0
    while True:
        sizes = {key: [max(1, int(side * factor)) for side in (t.shape[1], t.shape[0])] for key, t in images.items()}
        spans = [(w * repeats[key][0] + 2 * _MARGIN, h * repeats[key][1] + 2 * _MARGIN) for key, (w, h) in sizes.items()]
        width, height = _packed(spans)[1]
        if width * height <= _MAX_TEXELS or all(size == [1, 1] for size in sizes.values()):
            break
        factor *= min(0.95, (_MAX_TEXELS / (width * height)) ** 0.5)
    if factor < 1:
        logger.warning("the texture atlas would have more than %d texels; textures are downscaled to %.3g", _MAX_TEXELS, factor)
        images = {key: resize_area(texture, *sizes[key]) for key, texture in images.items()}
    return images


def _tiled(texture: Tensor, columns: int, rows: int) -> Tensor:
    """The texture repeated, with its margin."""
    down = torch.arange(-_MARGIN, rows * texture.shape[0] + _MARGIN, device=texture.device) % texture.shape[0]
    right = torch.arange(-_MARGIN, columns * texture.shape[1] + _MARGIN, device=texture.device) % texture.shape[1]
    return texture[down][:, right]


def _mean_block(texture: Tensor) -> Tensor:
    """A block of the mean color in linear light, with its margin."""
    mean = texture.reshape(-1, texture.shape[2]).double().mean(0)
    mean[:3] = linear_to_srgb(srgb_to_linear(texture[..., :3].double()).mean((0, 1)))
    return mean.to(texture).expand(_BLANK + 2 * _MARGIN, _BLANK + 2 * _MARGIN, -1)


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
    return places, (right, y + row)
