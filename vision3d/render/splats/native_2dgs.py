"""The operations on 2D Gaussians as `torch.library` ops on the compiled kernels, as in `render.reference.splats_2dgs`."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vision3d import native
from vision3d.op_checks import check_image_size, check_memory, checked
from vision3d.render.splats.native_support import (
    background_gradient,
    check_tile_size,
    image_offsets,
    pair_sums,
    plain,
    plain_or_none,
    record_sums,
    view_gradient,
    zeros,
)


def project_2dgs(
    means: Float[Tensor, "b n 3"],
    quats: Float[Tensor, "b n 4"],
    scales: Float[Tensor, "b n 3"],
    opacities: Float[Tensor, "b n"] | None,
    viewmats: Float[Tensor, "b c 4 4"],
    Ks: Float[Tensor, "b c 3 3"],
    width: int,
    height: int,
    *,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
) -> tuple[
    Int[Tensor, "b c n 2"],
    Float[Tensor, "b c n 2"],
    Float[Tensor, "b c n"],
    Float[Tensor, "b c n 3 3"],
    Float[Tensor, "b c n 3"],
]:
    """Radii, screen centres, depths, ray transforms and camera-space normals of discs in all cameras."""
    reach = None if opacities is None else opacities.detach()
    limits = (width, height, near_plane, far_plane, radius_clip)
    return native.direct(_project)(means, quats, scales, reach, viewmats, Ks.detach(), *limits)


def blend_2dgs(
    means2d: Float[Tensor, "nnz 2"],
    ray_transforms: Float[Tensor, "nnz 3 3"],
    colors: Float[Tensor, "nnz d"],
    opacities: Float[Tensor, " nnz"],
    normals: Float[Tensor, "nnz 3"],
    densify: Float[Tensor, "nnz 2"] | None,
    backgrounds: Float[Tensor, "i d"] | None,
    masks: Bool[Tensor, "i th tw"] | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Int[Tensor, "i th tw"],
    flatten_ids: Int[Tensor, " m"],
    *,
    alpha_max: float,
    distloss: bool,
    max_depths: Float[Tensor, "i h w"] | None = None,
) -> tuple[
    Float[Tensor, "i h w d"],
    Float[Tensor, "i h w"],
    Float[Tensor, "i h w 3"],
    Float[Tensor, "i h w"],
    Float[Tensor, "i h w"],
    Int[Tensor, "i h w"],
    Int[Tensor, "i h w"],
]:
    """Colours, transmittances, normals, distortion, median depth, and places of the last and the median Gaussian."""
    check_tile_size(tile_size)
    if densify is not None:
        shift = torch.nn.functional.pad(densify * ray_transforms[:, 2, 2:], (0, 1))
        ray_transforms = ray_transforms + torch.nn.functional.pad(shift[..., None], (2, 0))
    limits = None if max_depths is None else max_depths.detach()
    lists = (width, height, tile_size, isect_offsets, flatten_ids, alpha_max, distloss, limits)
    return native.direct(_blend)(means2d, ray_transforms, colors, opacities, normals, backgrounds, masks, *lists)[:7]


@native.custom_op("project_discs")
@checked(
    "means: float b n 3, quats: float b n 4, scales: float b n 3, opacities: float? b n, viewmats: float b c 4 4, "
    "Ks: float b c 3 3"
)
def _project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shape = (*viewmats.shape[:2], means.shape[1])
    check_memory(means, 17 * shape[0] * shape[1] * shape[2], "viewmats, means: every Gaussian in every camera")
    means2d, depths = means.new_empty((*shape, 2)), means.new_empty(shape)
    transforms, normals = means.new_empty((*shape, 3, 3)), means.new_empty((*shape, 3))
    radii = means.new_empty((*shape, 2), dtype=torch.int32)
    inputs = map(plain_or_none, (means, quats, scales, opacities, viewmats, Ks))
    limits = (width, height, near_plane, far_plane, radius_clip)
    outputs = (radii, means2d, depths, transforms, normals)
    native.require().project_discs(*inputs, *limits, *outputs, **native.where(means))
    return outputs


@native.custom_op("project_discs_vjp")
@checked(
    "means: float b n 3, quats: float b n 4, scales: float b n 3, viewmats: float b c 4 4, Ks: float b c 3 3, "
    "radii: int32 b c n 2, width, height, view_grad, v_means2d: float b c n 2, v_depths: float b c n, "
    "v_transforms: float b c n 3 3, v_normals: float b c n 3"
)
def _project_vjp(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    view_grad: bool,
    v_means2d: Tensor,
    v_depths: Tensor,
    v_transforms: Tensor,
    v_normals: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_images, count = viewmats.shape[0] * viewmats.shape[1], means.shape[1]
    visible = radii.reshape(-1, 2)[:, 0].nonzero()[:, 0]
    image_ids = torch.div(visible, max(count, 1), rounding_mode="floor")
    offsets = image_offsets(image_ids, num_images)
    grads = [zeros(value) for value in (means, quats, scales)]
    v_views = pair_sums(means, num_images, count, 12) if view_grad else None
    inputs = map(plain, (means, quats, scales, viewmats, Ks))
    upstream = map(plain, (v_means2d, v_depths, v_transforms, v_normals))
    ids = (visible - image_ids * count, offsets)
    native.require().project_discs_vjp(*inputs, width, height, *ids, *upstream, *grads, v_views, **native.where(means))
    return grads[0], grads[1], grads[2], view_gradient(v_views, viewmats)


@native.custom_op("blend_discs")
@checked(
    "means2d: float p 2, transforms: float p 3 3, colors: float p d, opacities: float p, normals: float p 3, "
    "backgrounds: float? i d, masks: bool? i y x, width, height, tile_size, isect_offsets: int32 i y x, "
    "flatten_ids: int32 m, alpha_max, distortion, max_depths: float? i h w"
)
def _blend(
    means2d: Tensor,
    transforms: Tensor,
    colors: Tensor,
    opacities: Tensor,
    normals: Tensor,
    backgrounds: Tensor | None,
    masks: Tensor | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    alpha_max: float,
    distortion: bool,
    max_depths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    module = native.require()
    check_image_size(len(isect_offsets), width, height, tile_size)
    check_memory(colors, len(isect_offsets) * width * height * (colors.shape[1] + 9), "width, height")
    means2d, transforms, colors, opacities, normals = map(plain, (means2d, transforms, colors, opacities, normals))
    backgrounds, masks, max_depths = map(plain_or_none, (backgrounds, masks, max_depths))
    records = colors.new_empty((len(opacities), module.DISC_RECORD))
    where = native.where(means2d)
    module.make_disc_records(means2d, transforms, opacities, normals, colors, records, **where)
    image = (len(isect_offsets), height, width)
    shown, normal = colors.new_empty((*image, colors.shape[1])), colors.new_empty((*image, 3))
    transmittances, distortions, moments, medians = (colors.new_empty(image) for _ in range(4))
    last_ids, median_ids = (colors.new_empty(image, dtype=torch.int32) for _ in range(2))
    maps = (shown, transmittances, normal, distortions, moments, medians, last_ids, median_ids)
    lists = (isect_offsets, flatten_ids, width, height, tile_size, alpha_max, distortion)
    module.blend_discs(records, colors, backgrounds, masks, *lists, max_depths, *maps, **where)
    return shown, transmittances, normal, distortions, medians, last_ids, median_ids, moments, records


@native.custom_op("blend_discs_vjp")
@checked(
    "records: float p r, means2d: float p 2, transforms: float p 3 3, colors: float p d, opacities: float p, "
    "backgrounds: float? i d, masks: bool? i y x, width, height, tile_size, isect_offsets: int32 i y x, "
    "flatten_ids: int32 m, alpha_max, distortion, transmittances: float i h w, moments: float i h w, "
    "last_ids: int32 i h w, median_ids: int32 i h w, v_colors: float i h w d, v_transmittances: float i h w, "
    "v_normals: float i h w 3, v_distortions: float i h w, v_medians: float i h w"
)
def _blend_vjp(
    records: Tensor,
    means2d: Tensor,
    transforms: Tensor,
    colors: Tensor,
    opacities: Tensor,
    backgrounds: Tensor | None,
    masks: Tensor | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Tensor,
    flatten_ids: Tensor,
    alpha_max: float,
    distortion: bool,
    transmittances: Tensor,
    moments: Tensor,
    last_ids: Tensor,
    median_ids: Tensor,
    v_colors: Tensor,
    v_transmittances: Tensor,
    v_normals: Tensor,
    v_distortions: Tensor,
    v_medians: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    module = native.require()
    records, means2d, transforms, colors, opacities = map(plain, (records, means2d, transforms, colors, opacities))
    backgrounds, masks = map(plain_or_none, (backgrounds, masks))
    count, channels = colors.shape
    maps = (transmittances, moments, last_ids, median_ids)
    sums = record_sums(colors, count, len(flatten_ids), module.DISC_ROW + channels)
    grads = [colors.new_empty((count, *tail)) for tail in ((2,), (3, 3), (channels,), (), (3,))]
    upstream = map(plain, (v_colors, v_transmittances, v_normals, v_distortions, v_medians))
    lists = (isect_offsets, flatten_ids, width, height, tile_size, alpha_max, distortion)
    gaussians = (means2d, transforms, opacities)
    module.blend_discs_vjp(
        records, colors, backgrounds, masks, *lists, *maps, *gaussians, *upstream, sums, *grads, **native.where(colors)
    )
    return grads[0], grads[1], grads[2], grads[3], grads[4]


def _project_fake(means, quats, scales, opacities, viewmats, *rest):
    shape = (*viewmats.shape[:2], means.shape[1])
    outputs = (means.new_empty((*shape, *tail)) for tail in ((2,), (), (3, 3), (3,)))
    return means.new_empty((*shape, 2), dtype=torch.int32), *outputs


def _blend_fake(means2d, transforms, colors, opacities, normals, backgrounds, masks, width, height, *rest):
    image = (rest[1].shape[0], height, width)
    flat = [colors.new_empty(image) for _ in range(4)]
    ids = [colors.new_empty(image, dtype=torch.int32) for _ in range(2)]
    shown, normal = colors.new_empty((*image, colors.shape[1])), colors.new_empty((*image, 3))
    return shown, flat[0], normal, flat[1], flat[2], *ids, flat[3], colors.new_empty((len(opacities), 32))


_project.register_fake(_project_fake)
_project_vjp.register_fake(
    lambda means, quats, scales, viewmats, *rest: tuple(map(torch.empty_like, (means, quats, scales, viewmats)))
)
_blend.register_fake(_blend_fake)
_blend_vjp.register_fake(
    lambda records, means2d, transforms, colors, opacities, *rest: (
        *map(torch.empty_like, (means2d, transforms, colors, opacities)),
        colors.new_empty((len(opacities), 3)),
    )
)


def _project_setup(ctx, inputs, output):
    means, quats, scales, _, viewmats, Ks, width, height, *_ = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.save_for_backward(means, quats, scales, viewmats, Ks, output[0])
    ctx.size = (width, height)


def _project_backward(ctx, _radii, *upstream):
    means, quats, scales, viewmats = _project_vjp(*ctx.saved_tensors, *ctx.size, ctx.needs_input_grad[4], *upstream)
    return means, quats, scales, None, viewmats, *(None for _ in range(6))


def _blend_setup(ctx, inputs, output):
    means2d, transforms, colors, opacities, _, backgrounds, masks, width, height, tile_size, *lists = inputs
    isect_offsets, flatten_ids, alpha_max, distortion = lists[:4]
    _, transmittances, _, _, _, last_ids, median_ids, moments, records = output
    ctx.mark_non_differentiable(last_ids, median_ids, moments, records)
    ctx.save_for_backward(
        records, means2d, transforms, colors, opacities, backgrounds, masks, isect_offsets, flatten_ids, transmittances,
        moments, last_ids, median_ids,
    )  # fmt: skip
    ctx.options = (width, height, tile_size), (alpha_max, distortion)


def _blend_backward(ctx, v_colors, v_transmittances, v_normals, v_distortions, v_medians, *_):
    *gaussians, isect_offsets, flatten_ids, transmittances, moments, last_ids, median_ids = ctx.saved_tensors
    size, rules = ctx.options
    maps = (transmittances, moments, last_ids, median_ids)
    upstream = (v_colors, v_transmittances, v_normals, v_distortions, v_medians)
    grads = _blend_vjp(*gaussians, *size, isect_offsets, flatten_ids, *rules, *maps, *upstream)
    v_backgrounds = background_gradient(transmittances, v_colors) if ctx.needs_input_grad[5] else None
    return *grads, v_backgrounds, *(None for _ in range(9))


_project.register_autograd(_project_backward, setup_context=_project_setup)
_blend.register_autograd(_blend_backward, setup_context=_blend_setup)
