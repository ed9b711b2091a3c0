"""The operations on 2D Gaussians as `torch.library` ops on the compiled kernels."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.core.op_checks import check_image_size, check_memory
from vision3d.core.op_records import Gradients, record_op, save, saved
from vision3d.render.splats.kernels import rows_of, visible_pairs
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
from vision3d.render.splats.records import Blended2dgs, Camera, Gaussians, Pixels, Projected2dgs, TileLists, Visible


def project_2dgs(gaussians: Gaussians, camera: Camera, *, packed: bool = False) -> tuple[Visible, Projected2dgs]:
    """As `Kernels.project_2dgs`."""
    reach = None if gaussians.opacities is None else gaussians.opacities.detach()
    view = (camera.viewmats, camera.Ks.detach(), *camera[2:])
    outputs = _project(*gaussians[:4], reach, *view)
    visible, projected = Visible(*outputs[:2]), Projected2dgs(*outputs[2:])
    return visible, rows_of(projected, visible) if packed else projected


def blend_2dgs(
    projected: Projected2dgs,
    colors: Float[Tensor, "p d"],
    opacities: Float[Tensor, " p"],
    lists: TileLists,
    pixels: Pixels = Pixels(),  # noqa: B008  a tuple of None
    *,
    alpha_max: float,
    distloss: bool,
    densify: Float[Tensor, "p 2"] | None = None,
) -> Blended2dgs:
    """See `Kernels.blend_2dgs`.

    Raises:
        BackendError: The kernels do not support this tile size.
    """
    check_tile_size(lists.tile_size)
    transforms = projected.transforms
    if densify is not None:
        shift = torch.nn.functional.pad(densify * transforms[:, 2, 2:], (0, 1))
        transforms = transforms + torch.nn.functional.pad(shift[..., None], (2, 0))
    limits = None if pixels.max_depths is None else pixels.max_depths.detach()
    scene = (projected.means2d, transforms, colors, opacities)
    rules = (*lists, alpha_max, distloss, limits)
    return Blended2dgs(*_blend(*scene, projected.normals, pixels.backgrounds, pixels.masks, *rules)[:7])


class _Projection(NamedTuple):
    gaussians: Gaussians
    camera: Camera


class _ProjectionState(NamedTuple):
    gaussians: Gaussians
    camera: Camera
    visible: Visible


class _ProjectionVjp(NamedTuple):
    state: _ProjectionState
    view_grad: bool
    v_means2d: Float[Tensor, "b c n 2"]
    v_depths: Float[Tensor, "b c n"]
    v_transforms: Float[Tensor, "b c n 3 3"]
    v_normals: Float[Tensor, "b c n 3"]


def _inputs(gaussians: Gaussians, camera: Camera) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, quats, scales, viewmats and Ks in the format of the kernels."""
    means, quats, scales, covars, _ = gaussians
    if quats is None or scales is None or covars is not None:
        raise InputError("quats, scales, covars: want quats and scales, 2D Gaussians have no covariances")
    if camera.model != "pinhole":
        raise InputError(f"model: got {camera.model!r}, 2D Gaussians want pinhole")
    return plain(means), plain(quats), plain(scales), plain(camera.viewmats), plain(camera.Ks)


@record_op("project_2dgs")
def _project(a: _Projection) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    means, quats, scales, viewmats, Ks = _inputs(*a)
    shape = (*viewmats.shape[:2], means.shape[1])
    check_memory(means, 17 * shape[0] * shape[1] * shape[2], "viewmats, means: every Gaussian in every camera")
    means2d, depths = means.new_empty((*shape, 2)), means.new_empty(shape)
    transforms, normals = means.new_empty((*shape, 3, 3)), means.new_empty((*shape, 3))
    radii = means.new_empty((*shape, 2), dtype=torch.int32)
    inputs = (means, quats, scales, plain_or_none(a.gaussians.opacities), viewmats, Ks)
    limits = (a.camera.width, a.camera.height, a.camera.near_plane, a.camera.far_plane, a.camera.radius_clip)
    outputs = (radii, means2d, depths, transforms, normals)
    native.require().project_2dgs(*inputs, *limits, *outputs, **native.where(means))
    visible = visible_pairs(radii)
    return visible.image_ids, visible.gaussian_ids, *outputs


@record_op("project_2dgs_vjp")
def _project_vjp(a: _ProjectionVjp) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gaussians, camera, visible = a.state
    inputs = means, quats, scales, viewmats, _ = _inputs(gaussians, camera)
    num_images, count = viewmats.shape[0] * viewmats.shape[1], means.shape[1]
    offsets = image_offsets(visible.image_ids, num_images)
    grads = [zeros(value) for value in (means, quats, scales)]
    v_views = pair_sums(means, num_images, count, 12) if a.view_grad else None
    upstream = map(plain, (a.v_means2d, a.v_depths, a.v_transforms, a.v_normals))
    ids = (visible.gaussian_ids, offsets)
    native.require().project_2dgs_vjp(
        *inputs, camera.width, camera.height, *ids, *upstream, *grads, v_views, **native.where(means)
    )
    return grads[0], grads[1], grads[2], view_gradient(v_views, viewmats)


@_project.register_fake
def _project_fake(a: _Projection) -> tuple[Tensor, ...]:
    means = a.gaussians.means
    shape = (*a.camera.viewmats.shape[:2], means.shape[1])
    visible = torch.library.get_ctx().new_dynamic_size()
    ids = [means.new_empty(visible, dtype=torch.int64) for _ in range(2)]
    outputs = (means.new_empty((*shape, *tail)) for tail in ((2,), (), (3, 3), (3,)))
    return *ids, means.new_empty((*shape, 2), dtype=torch.int32), *outputs


_project_vjp.register_fake(
    lambda a: tuple(map(torch.empty_like, (*a.state.gaussians[:3], a.state.camera.viewmats))),
)


def _project_setup(ctx, a: _Projection, output) -> None:
    visible = Visible(*output[:2])
    ctx.mark_non_differentiable(*visible, output[2])
    save(ctx, _ProjectionState(a.gaussians._replace(opacities=None), a.camera, visible))


def _project_backward(ctx, _images, _gaussians, _radii, *upstream) -> Gradients:
    found = _project_vjp.of(_ProjectionVjp(saved(ctx), _project.needs_gradient(ctx, "viewmats"), *upstream))
    return dict(zip(("means", "quats", "scales", "viewmats"), found))


_project.register_autograd(_project_setup, _project_backward)


class _Scene(NamedTuple):
    """Arguments shared by the forward and backward pass of blending."""

    means2d: Float[Tensor, "p 2"]
    transforms: Float[Tensor, "p 3 3"]
    colors: Float[Tensor, "p d"]
    opacities: Float[Tensor, " p"]


class _Rules(NamedTuple):
    """As `_Scene`."""

    backgrounds: Float[Tensor, "i d"] | None
    masks: Bool[Tensor, "i y x"] | None
    lists: TileLists
    alpha_max: float
    distortion: bool


class _Blending(NamedTuple):
    scene: _Scene
    normals: Float[Tensor, "p 3"]
    rules: _Rules
    max_depths: Float[Tensor, "i h w"] | None = None


class _BlendingState(NamedTuple):
    records: Float[Tensor, "p r"]
    scene: _Scene
    rules: _Rules
    transmittances: Float[Tensor, "i h w"]
    moments: Float[Tensor, "i h w"]
    last_ids: Int32[Tensor, "i h w"]
    median_ids: Int32[Tensor, "i h w"]


class _BlendingVjp(NamedTuple):
    state: _BlendingState
    v_colors: Float[Tensor, "i h w d"]
    v_transmittances: Float[Tensor, "i h w"]
    v_normals: Float[Tensor, "i h w 3"]
    v_distortions: Float[Tensor, "i h w"]
    v_medians: Float[Tensor, "i h w"]


@record_op("blend_2dgs")
def _blend(a: _Blending) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    module = native.require()
    width, height, tile_size, isect_offsets, flatten_ids = a.rules.lists
    image = (len(isect_offsets), height, width)
    check_image_size(image[0], width, height, tile_size)
    check_memory(a.scene.colors, image[0] * width * height * (a.scene.colors.shape[1] + 9), "width, height")
    means2d, transforms, colors, opacities = map(plain, a.scene)
    normals = plain(a.normals)
    backgrounds, masks, max_depths = map(plain_or_none, (a.rules.backgrounds, a.rules.masks, a.max_depths))
    records = colors.new_empty((len(opacities), module.RECORD_2DGS))
    where = native.where(means2d)
    module.make_records_2dgs(means2d, transforms, opacities, normals, colors, records, **where)
    shown, normal = colors.new_empty((*image, colors.shape[1])), colors.new_empty((*image, 3))
    transmittances, distortions, moments, medians = (colors.new_empty(image) for _ in range(4))
    last_ids, median_ids = (colors.new_empty(image, dtype=torch.int32) for _ in range(2))
    maps = (shown, transmittances, normal, distortions, moments, medians, last_ids, median_ids)
    lists = (isect_offsets, flatten_ids, width, height, tile_size, a.rules.alpha_max, a.rules.distortion)
    module.blend_2dgs(records, colors, backgrounds, masks, *lists, max_depths, *maps, **where)
    return shown, transmittances, normal, distortions, medians, last_ids, median_ids, moments, records


@record_op("blend_2dgs_vjp")
def _blend_vjp(a: _BlendingVjp) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    module, rules = native.require(), a.state.rules
    width, height, tile_size, isect_offsets, flatten_ids = rules.lists
    records, means2d, transforms, colors, opacities = map(plain, (a.state.records, *a.state.scene))
    backgrounds, masks = map(plain_or_none, (rules.backgrounds, rules.masks))
    count, channels = colors.shape
    sums = record_sums(colors, count, len(flatten_ids), module.ROW_2DGS + channels)
    grads = [colors.new_empty((count, *tail)) for tail in ((2,), (3, 3), (channels,), (), (3,))]
    upstream = map(plain, a[1:])
    lists = (isect_offsets, flatten_ids, width, height, tile_size, rules.alpha_max, rules.distortion)
    maps, gaussians = a.state[3:], (means2d, transforms, opacities)
    module.blend_2dgs_vjp(
        records, colors, backgrounds, masks, *lists, *maps, *gaussians, *upstream, sums, *grads, **native.where(colors)
    )
    return grads[0], grads[1], grads[2], grads[3], grads[4]


@_blend.register_fake
def _blend_fake(a: _Blending) -> tuple[Tensor, ...]:
    colors, lists = a.scene.colors, a.rules.lists
    image = (lists.isect_offsets.shape[0], lists.height, lists.width)
    flat = [colors.new_empty(image) for _ in range(4)]
    ids = [colors.new_empty(image, dtype=torch.int32) for _ in range(2)]
    shown, normal = colors.new_empty((*image, colors.shape[1])), colors.new_empty((*image, 3))
    return shown, flat[0], normal, flat[1], flat[2], *ids, flat[3], colors.new_empty((len(colors), 32))


_blend_vjp.register_fake(
    lambda a: (*map(torch.empty_like, a.state.scene), a.v_colors.new_empty((len(a.state.scene.opacities), 3)))
)


def _blend_setup(ctx, a: _Blending, output) -> None:
    _, transmittances, _, _, _, last_ids, median_ids, moments, records = output
    ctx.mark_non_differentiable(last_ids, median_ids, moments, records)
    save(ctx, _BlendingState(records, a.scene, a.rules, transmittances, moments, last_ids, median_ids))


def _blend_backward(ctx, *upstream) -> Gradients:
    state: _BlendingState = saved(ctx)
    grads = _blend_vjp.of(_BlendingVjp(state, *upstream[:5]))
    found: Gradients = dict(zip(("means2d", "transforms", "colors", "opacities", "normals"), grads))
    if _blend.needs_gradient(ctx, "backgrounds"):
        found["backgrounds"] = background_gradient(state.transmittances, upstream[0])
    return found


_blend.register_autograd(_blend_setup, _blend_backward)
