"""The rasterizer's operations as `torch.library` ops on the compiled kernels. Same functions as `render.reference.splats`."""

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

_MODELS = {"pinhole": 0, "ortho": 1, "fisheye": 2}
_MAX_CHANNELS = 32


def project(
    means: Float[Tensor, "b n 3"],
    quats: Float[Tensor, "b n 4"] | None,
    scales: Float[Tensor, "b n 3"] | None,
    covars: Float[Tensor, "b n 6"] | None,
    opacities: Float[Tensor, "b n"] | None,
    viewmats: Float[Tensor, "b c 4 4"],
    Ks: Float[Tensor, "b c 3 3"],
    width: int,
    height: int,
    *,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    camera_model: str,
    antialiased: bool,
) -> tuple[
    Int[Tensor, "b c n 2"],
    Float[Tensor, "b c n 2"],
    Float[Tensor, "b c n"],
    Float[Tensor, "b c n 3"],
    Float[Tensor, "b c n"],
]:
    """Radii, screen means, depths, conics and low-pass compensations of all Gaussians in all cameras."""
    return project_pairs(
        means, quats, scales, covars, opacities, viewmats, Ks, width, height, eps2d=eps2d, near_plane=near_plane,
        far_plane=far_plane, radius_clip=radius_clip, camera_model=camera_model, antialiased=antialiased, packed=False,
    )[1]  # fmt: skip


def project_pairs(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    covars: Tensor | None,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    *,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    camera_model: str,
    antialiased: bool,
    packed: bool,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Image and Gaussian of the visible pairs, and what `project` returns, of these pairs alone if `packed`."""
    options = (eps2d, near_plane, far_plane, radius_clip, antialiased)
    camera = (_MODELS[camera_model], width, height, *options)
    reach = None if opacities is None else opacities.detach()
    outputs = native.direct(_project)(means, quats, scales, covars, reach, viewmats, Ks.detach(), *camera, packed)
    return outputs[:2], outputs[2:]


def sh_colors(
    means: Float[Tensor, "b n 3"],
    sh: Float[Tensor, "b n k 3"] | Float[Tensor, "b c n k 3"],
    viewmats: Float[Tensor, "b c 4 4"],
    batch_ids: Int[Tensor, " nnz"],
    camera_ids: Int[Tensor, " nnz"],
    gaussian_ids: Int[Tensor, " nnz"],
    degree: int,
) -> Float[Tensor, "nnz 3"]:
    """max(SH(direction from the camera centre) + 0.5, 0) of visible pairs, which are sorted by image."""
    centers = -(viewmats[..., :3, :3].mT @ viewmats[..., :3, 3:])[..., 0]
    image_ids = camera_ids if len(viewmats) == 1 else batch_ids * viewmats.shape[1] + camera_ids
    return native.direct(_sh_colors)(means, sh[:, None] if sh.dim() == 4 else sh, centers, image_ids, gaussian_ids, degree)


def blend(
    means2d: Float[Tensor, "nnz 2"],
    conics: Float[Tensor, "nnz 3"],
    colors: Float[Tensor, "nnz d"],
    opacities: Float[Tensor, " nnz"],
    backgrounds: Float[Tensor, "i d"] | None,
    masks: Bool[Tensor, "i th tw"] | None,
    width: int,
    height: int,
    tile_size: int,
    isect_offsets: Int[Tensor, "i th tw"],
    flatten_ids: Int[Tensor, " m"],
    *,
    alpha_max: float,
    absgrad: Float[Tensor, "nnz 2"] | None = None,
    depths: Float[Tensor, " nnz"] | None = None,
    max_depths: Float[Tensor, "i h w"] | None = None,
) -> tuple[Float[Tensor, "i h w d"], Float[Tensor, "i h w"], Int[Tensor, "i h w"]]:
    """Colours, transmittances and the place in `flatten_ids` of the last Gaussian drawn.

    Raises:
        BackendError: The kernels have no tiles of this size.
    """
    check_tile_size(tile_size)
    lists = (width, height, tile_size, isect_offsets, flatten_ids, alpha_max, absgrad)
    if max_depths is not None and depths is not None:
        lists = (*lists, depths.detach(), max_depths.detach())
    channels = colors.shape[1]
    if channels <= _MAX_CHANNELS:
        return native.direct(_blend)(means2d, conics, colors, opacities, backgrounds, masks, *lists)[:3]
    behind = [None] * channels if backgrounds is None else backgrounds.split(_MAX_CHANNELS, 1)
    parts = [
        _blend(means2d, conics, part, opacities, back, masks, *lists)
        for part, back in zip(colors.split(_MAX_CHANNELS, 1), behind)
    ]
    return torch.cat([part[0] for part in parts], -1), parts[0][1], parts[0][2]


@native.custom_op("project_splats")
@checked(
    "means: float b n 3, quats: float? b n 4, scales: float? b n 3, covars: float? b n 6, opacities: float? b n, "
    "viewmats: float b c 4 4, Ks: float b c 3 3"
)
def _project(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    covars: Tensor | None,
    opacities: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    model: int,
    width: int,
    height: int,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    antialiased: bool,
    packed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    module = native.require()
    shape = (*viewmats.shape[:2], means.shape[1])
    check_memory(means, 9 * shape[0] * shape[1] * shape[2], "viewmats, means: every Gaussian in every camera")
    radii = means.new_empty((*shape, 2), dtype=torch.int32)
    means2d, depths = means.new_empty((*shape, 2)), means.new_empty(shape)
    conics, compensations = means.new_empty((*shape, 3)), means.new_empty(shape)
    camera = module.Camera(model, width, height, eps2d, near_plane, far_plane, radius_clip, antialiased)
    inputs = map(plain_or_none, (means, quats, scales, covars, opacities, viewmats, Ks))
    module.project(*inputs, camera, radii, means2d, depths, conics, compensations, **native.where(means))
    visible = radii.view(-1, 2)[:, 0].nonzero()[:, 0]
    image_ids = torch.div(visible, max(shape[2], 1), rounding_mode="floor")
    gaussian_ids = visible - image_ids * shape[2]
    if packed:
        rows = lambda value: value.flatten(0, 2).index_select(0, visible)  # noqa: E731
        radii, means2d, depths, conics, compensations = map(rows, (radii, means2d, depths, conics, compensations))
    return image_ids, gaussian_ids, radii, means2d, depths, conics, compensations


@native.custom_op("project_splats_vjp")
@checked(
    "means: float b n 3, quats: float? b n 4, scales: float? b n 3, covars: float? b n 6, viewmats: float b c 4 4, "
    "Ks: float b c 3 3, image_ids: int64 p, gaussian_ids: int64 p, model, width, height, eps2d, packed, view_grad, "
    "v_means2d: float *q 2, v_depths: float *q, v_conics: float *q 3, v_compensations: float *q"
)
def _project_vjp(
    means: Tensor,
    quats: Tensor | None,
    scales: Tensor | None,
    covars: Tensor | None,
    viewmats: Tensor,
    Ks: Tensor,
    image_ids: Tensor,
    gaussian_ids: Tensor,
    model: int,
    width: int,
    height: int,
    eps2d: float,
    packed: bool,
    view_grad: bool,
    v_means2d: Tensor,
    v_depths: Tensor,
    v_conics: Tensor,
    v_compensations: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    module = native.require()
    num_images = viewmats.shape[0] * viewmats.shape[1]
    offsets = image_offsets(image_ids, num_images)
    v_gaussians = [None if value is None else zeros(value) for value in (means, quats, scales, covars)]
    v_views = pair_sums(means, num_images, means.shape[1], 12) if view_grad else None
    camera = module.Camera(model, width, height, eps2d, 0.0, 0.0, 0.0, False)
    upstream = (
        grad.detach().reshape(-1, *tail).contiguous()
        for grad, tail in ((v_means2d, (2,)), (v_depths, ()), (v_conics, (3,)), (v_compensations, ()))
    )
    inputs = map(plain_or_none, (means, quats, scales, covars, viewmats, Ks))
    grads = (*upstream, *v_gaussians, v_views)
    module.project_vjp(*inputs, camera, gaussian_ids, offsets, packed, *grads, **native.where(means))
    v_means, v_quats, v_scales, v_covars = (means.new_empty(0) if grad is None else grad for grad in v_gaussians)
    return v_means, v_quats, v_scales, v_covars, view_gradient(v_views, viewmats)


@native.custom_op("sh_colors")
@checked("means: float b n 3, sh: float b x n k 3, centers: float b c 3, image_ids: int64 p, gaussian_ids: int64 p")
def _sh_colors(means: Tensor, sh: Tensor, centers: Tensor, image_ids: Tensor, gaussian_ids: Tensor, degree: int) -> Tensor:
    colors = means.new_empty((len(gaussian_ids), 3))
    offsets = image_offsets(image_ids, centers.shape[0] * centers.shape[1])
    inputs = map(plain, (means, sh, centers, gaussian_ids))
    native.require().sh_colors(*inputs, offsets, degree, colors, **native.where(means))
    return colors


@native.custom_op("sh_colors_vjp")
@checked(
    "means: float b n 3, sh: float b x n k 3, centers: float b c 3, image_ids: int64 p, gaussian_ids: int64 p, "
    "degree, v_colors: float p 3"
)
def _sh_colors_vjp(
    means: Tensor, sh: Tensor, centers: Tensor, image_ids: Tensor, gaussian_ids: Tensor, degree: int, v_colors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    num_images = centers.shape[0] * centers.shape[1]
    offsets = image_offsets(image_ids, num_images)
    v_means, v_sh, v_centers = zeros(means), zeros(sh), pair_sums(means, num_images, means.shape[1], 3)
    inputs = map(plain, (means, sh, centers, gaussian_ids))
    grads = (plain(v_colors), v_means, v_sh, v_centers)
    native.require().sh_colors_vjp(*inputs, offsets, degree, *grads, **native.where(means))
    return v_means, v_sh, v_centers.sum(1).view(centers.shape)


@native.custom_op("blend_splats")
@checked(
    "means2d: float p 2, conics: float p 3, colors: float p d, opacities: float p, backgrounds: float? i d, "
    "masks: bool? i y x, width, height, tile_size, isect_offsets: int32 i y x, flatten_ids: int32 m, alpha_max, "
    "absgrad: float? p 2, depths: float? p, max_depths: float? i h w"
)
def _blend(
    means2d: Tensor,
    conics: Tensor,
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
    absgrad: Tensor | None,
    depths: Tensor | None = None,
    max_depths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    module, where = native.require(), native.where(means2d)
    images = len(isect_offsets)
    check_image_size(images, width, height, tile_size)
    check_memory(colors, images * width * height * (colors.shape[1] + 2), "width, height")
    means2d, conics, colors, opacities = map(plain, (means2d, conics, colors, opacities))
    backgrounds, masks, depths, max_depths = map(plain_or_none, (backgrounds, masks, depths, max_depths))
    records = means2d.new_empty((len(opacities), module.RECORD))
    module.make_records(means2d, conics, colors, opacities, records, **where)
    out_colors = colors.new_empty((images, height, width, colors.shape[1]))
    transmittances = colors.new_empty((images, height, width))
    last_ids = colors.new_empty((images, height, width), dtype=torch.int32)
    if not len(opacities):  # empty depths would count as none
        depths = max_depths = None
    lists = (isect_offsets, flatten_ids, width, height, tile_size, alpha_max, depths, max_depths)
    module.blend(records, colors, backgrounds, masks, *lists, out_colors, transmittances, last_ids, **where)
    return out_colors, transmittances, last_ids, records


@native.custom_op("blend_splats_vjp")
@checked(
    "records: float p r, conics: float p 3, colors: float p d, opacities: float p, backgrounds: float? i d, "
    "masks: bool? i y x, width, height, tile_size, isect_offsets: int32 i y x, flatten_ids: int32 m, alpha_max, "
    "transmittances: float i h w, last_ids: int32 i h w, v_colors: float i h w d, v_transmittances: float? i h w"
)
def _blend_vjp(
    records: Tensor,
    conics: Tensor,
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
    transmittances: Tensor,
    last_ids: Tensor,
    v_colors: Tensor,
    v_transmittances: Tensor | None,
    absgrad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    count, channels = colors.shape
    inputs = map(plain_or_none, (records, conics, colors, opacities, backgrounds, masks))
    sums = record_sums(colors, count, len(flatten_ids), 6 + channels + 2 * absgrad)
    grads = [colors.new_empty((count, *tail)) for tail in ((2,), (3,), (channels,), ())]
    v_means2d_abs = colors.new_empty((count if absgrad else 0, 2))
    native.require().blend_vjp(
        *inputs, isect_offsets, flatten_ids, width, height, tile_size, alpha_max, transmittances, last_ids,
        plain(v_colors), plain_or_none(v_transmittances), sums, *grads, v_means2d_abs if absgrad else None,
        **native.where(colors),
    )  # fmt: skip
    return grads[0], grads[1], grads[2], grads[3], v_means2d_abs


def _project_fake(means, quats, scales, covars, opacities, viewmats, Ks, *options):
    shape = (*viewmats.shape[:2], means.shape[1])
    visible = torch.library.get_ctx().new_dynamic_size()
    rows = (visible,) if options[-1] else shape
    ids = [means.new_empty(visible, dtype=torch.int64) for _ in range(2)]
    radii = means.new_empty((*rows, 2), dtype=torch.int32)
    return *ids, radii, *(means.new_empty((*rows, *tail)) for tail in ((2,), (), (3,), ()))


def _project_vjp_fake(means, quats, scales, covars, viewmats, *rest):
    grads = (means.new_empty(0) if value is None else torch.empty_like(value) for value in (means, quats, scales, covars))
    return *grads, torch.empty_like(viewmats)


def _blend_fake(means2d, conics, colors, opacities, backgrounds, masks, width, height, tile_size, isect_offsets, *rest):
    image = (isect_offsets.shape[0], height, width)
    last_ids = colors.new_empty(image, dtype=torch.int32)
    records = colors.new_empty((len(opacities), 16))
    return colors.new_empty((*image, colors.shape[1])), colors.new_empty(image), last_ids, records


def _blend_vjp_fake(records, conics, colors, opacities, *rest):
    pairs = (len(opacities), 2)
    grads = map(torch.empty_like, (conics, colors, opacities))
    return colors.new_empty(pairs), *grads, colors.new_empty(pairs if rest[-1] else (0, 2))


_project.register_fake(_project_fake)
_project_vjp.register_fake(_project_vjp_fake)
_sh_colors.register_fake(lambda means, sh, centers, image_ids, ids, degree: means.new_empty((len(ids), 3)))
_sh_colors_vjp.register_fake(lambda means, sh, centers, *rest: tuple(map(torch.empty_like, (means, sh, centers))))
_blend.register_fake(_blend_fake)
_blend_vjp.register_fake(_blend_vjp_fake)


def _project_setup(ctx, inputs, output):
    means, quats, scales, covars, _, viewmats, Ks, model, width, height, eps2d, *_, packed = inputs
    image_ids, gaussian_ids, radii = output[:3]
    ctx.mark_non_differentiable(image_ids, gaussian_ids, radii)
    ctx.save_for_backward(means, quats, scales, covars, viewmats, Ks, image_ids, gaussian_ids)
    ctx.options = (model, width, height, eps2d, packed)


def _project_backward(ctx, _images, _gaussians, _radii, *upstream):
    options = (*ctx.options, ctx.needs_input_grad[5])
    means, quats, scales, covars, viewmats = _project_vjp(*ctx.saved_tensors, *options, *upstream)
    needs = ctx.needs_input_grad
    grads = (means, quats, scales, covars, None, viewmats)
    return *(grad if need else None for grad, need in zip(grads, needs[:6])), *(None for _ in needs[6:])


def _sh_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:5])
    ctx.degree = inputs[5]


def _blend_setup(ctx, inputs, output):
    _, conics, colors, opacities, backgrounds, masks, *options, isect_offsets, flatten_ids, alpha_max, absgrad = inputs[:13]
    _, transmittances, last_ids, records = output
    ctx.mark_non_differentiable(last_ids, records)
    lists = (isect_offsets, flatten_ids)
    ctx.save_for_backward(records, conics, colors, opacities, backgrounds, masks, *lists, transmittances, last_ids)
    ctx.options, ctx.alpha_max, ctx.absgrad = options, alpha_max, absgrad
    ctx.set_materialize_grads(False)  # zeros of each output would cost as much as a kernel


def _blend_backward(ctx, v_colors, v_transmittances, _last, _records):
    *gaussians, isect_offsets, flatten_ids, transmittances, last_ids = ctx.saved_tensors
    if v_colors is None:
        v_colors = transmittances.new_zeros((*transmittances.shape, gaussians[2].shape[1]))
    lists = (isect_offsets, flatten_ids, ctx.alpha_max, transmittances, last_ids)
    upstream = (v_colors, v_transmittances, ctx.absgrad is not None)
    *grads, v_means2d_abs = _blend_vjp(*gaussians, *ctx.options, *lists, *upstream)
    if ctx.absgrad is not None:
        ctx.absgrad += v_means2d_abs
    v_backgrounds = None
    if ctx.needs_input_grad[4]:
        v_backgrounds = background_gradient(transmittances, v_colors)
    return *grads, v_backgrounds, *(None for _ in range(10))


_project.register_autograd(_project_backward, setup_context=_project_setup)
_sh_colors.register_autograd(
    lambda ctx, v_colors: (*_sh_colors_vjp(*ctx.saved_tensors, ctx.degree, v_colors), None, None, None),
    setup_context=_sh_setup,
)
_blend.register_autograd(_blend_backward, setup_context=_blend_setup)
