"""Textures of meshes: sampling, mipmaps, and the level of detail of each pixel."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError, nearest_names
from vision3d.render.meshes import checks
from vision3d.render.meshes.api import Fragments, check_fragments, interpolate


def texture(
    textures: Float[Tensor, "th tw d"] | Float[Tensor, "s th tw d"] | list[Float[Tensor, "s _ _ d"]],
    uvs: Float[Tensor, "i h w 2"],
    *,
    lods: Float[Tensor, "i h w"] | None = None,
    masks: Bool[Tensor, "i h w"] | None = None,
    wrap: str = "repeat",
    backend: str = "auto",
) -> Float[Tensor, "i h w d"]:
    """Sample a texture, bilinear between texels; with `lods` also linear between the levels of its mipmap.

    Gradients flow to the texture, `uvs` and `lods`. On a CPU they are bit-identical for any number of threads.

    Args:
        textures: One for all images, or one each; or their mipmap pyramid, to compute it once for many calls.
        uvs: (0, 0) is the upper left corner of the texture, (1, 1) the lower right one, as in glTF.
        lods: Level of detail of each pixel, 0 is the finest, as from `texture_lods`; None samples the finest level only.
        masks: Pixels to fill (True); the others are zero and have no gradient. Usually `fragments.face_ids >= 0`.
        wrap: Outside [0, 1] the texture is repeated (repeat) or clamped to its border (clamp).
        backend: auto, native or reference.

    Returns:
        Values; zero where `uvs` are not finite.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; the message has its name, got and want.
        InputError: `wrap` is unknown.
        BackendError: The backend is not available here.

    Example:
        >>> board = torch.tensor([[0.0, 1.0], [1.0, 0.0]])[..., None]
        >>> texture(board, torch.tensor([[[[0.25, 0.25], [0.5, 0.25], [0.75, 0.25]]]])).flatten()
        tensor([0.0000, 0.5000, 1.0000])
    """
    levels = textures if isinstance(textures, list) else None
    finest = textures[0] if isinstance(textures, list) else textures
    checks.check_floats("textures", finest, "(H, W, D) or (I, H, W, D)")
    if finest.dim() not in (3, 4) or 0 in finest.shape[-3:-1]:
        raise ShapeError("textures", tuple(finest.shape), "(H, W, D) or (I, H, W, D) with at least one texel")
    if not isinstance(uvs, Tensor) or uvs.dim() != 4:
        raise ShapeError("uvs", getattr(uvs, "shape", type(uvs).__name__), "(I, H, W, 2)")
    shape = tuple(uvs.shape[:3])
    checks.check_tensor("uvs", uvs, (*shape, 2), finest)
    if lods is not None:
        checks.check_tensor("lods", lods, shape, finest)
    if masks is not None:
        checks.check_tensor("masks", masks, shape, finest, torch.bool)
    if finest.dim() == 4 and len(finest) not in (1, shape[0]):
        raise ShapeError("textures", tuple(finest.shape), f"one, or {shape[0]} as there are images")
    if wrap not in ("repeat", "clamp"):
        raise InputError(f"wrap: got {wrap!r}; {nearest_names(str(wrap), ('repeat', 'clamp'))}")
    kernels = checks.kernels(backend, finest.device)
    pyramid = [finest[None] if finest.dim() == 3 else finest]
    if lods is not None:
        pyramid = mip_pyramid(pyramid[0]) if levels is None else levels
    sizes = [(level.shape[1], level.shape[2]) for level in pyramid]
    texels = torch.cat([level.flatten(1, 2) for level in pyramid], 1)
    return kernels.texture(texels, sizes, uvs, lods, masks, wrap == "repeat")


def mip_pyramid(textures: Float[Tensor, "s th tw d"]) -> list[Float[Tensor, "s _ _ d"]]:
    """The textures and their averages, each half the size (rounded down, at least 1), down to one texel."""
    levels = [textures]
    while max(levels[-1].shape[1:3]) > 1:
        size = (max(1, levels[-1].shape[1] // 2), max(1, levels[-1].shape[2] // 2))
        pooled = torch.nn.functional.adaptive_avg_pool2d(levels[-1].permute(0, 3, 1, 2), size)
        levels.append(pooled.permute(0, 2, 3, 1))
    return levels


@torch.no_grad()
def texture_lods(
    positions: Float[Tensor, "i v 4"],
    faces: Int[Tensor, "f 3"],
    fragments: Fragments,
    uvs: Float[Tensor, "t 2"],
    uv_faces: Int[Tensor, "f 3"],
    texture_size: tuple[int, int],
) -> Float[Tensor, "i h w"]:
    """Level of detail of each pixel: log2 of the number of texels per pixel along x or y, whichever is larger.

    From the derivatives of the perspective-correct coordinates in the image (Heckbert 1989). Without gradient.

    Args:
        positions: As given to `rasterize`.
        fragments: Result of `rasterize`.
        uvs: Texture coordinates.
        uv_faces: Rows of `uvs` for the corners of each face.
        uv_faces: Rows of `uvs` for the corners of each face.
        texture_size: Height and width of the texture [texels].

    Returns:
        Levels, below 0 where the texture is magnified; zero outside the mesh.
    """
    checks.check_positions(positions)
    triangles = checks.check_faces(faces, positions.shape[1], positions).long()
    check_fragments(fragments, positions)
    image, y, x = (fragments.face_ids >= 0).nonzero(as_tuple=True)
    face = fragments.face_ids[image, y, x].long()
    px, py, _, pw = positions.double()[image[:, None], triangles[face]].unbind(-1)
    xj, xk, yj, yk, wj, wk = (value.roll(-step, -1) for value in (px, py, pw) for step in (1, 2))
    dx, dy = (x + 0.5)[:, None], (y + 0.5)[:, None]
    edges = (xj - dx * wj) * (yk - dy * wk) - (yj - dy * wj) * (xk - dx * wk)
    corners = uvs.double()[uv_faces.long()[face]] * uvs.new_tensor(texture_size[::-1]).double()
    point = interpolate(uvs, uv_faces, fragments)[image, y, x].double() * uvs.new_tensor(texture_size[::-1]).double()
    steps = []
    for slope in (yj * wk - wj * yk, wj * xk - xj * wk):  # derivatives of the edge functions by x and by y
        change = (slope[..., None] * (corners - point[:, None])).sum(1) / edges.sum(-1, keepdim=True)
        steps.append(torch.linalg.vector_norm(change, dim=-1))
    lods = torch.maximum(*steps).clamp(min=1e-30).log2()
    return torch.zeros_like(fragments.depths).index_put((image, y, x), lods.to(fragments.depths.dtype))
