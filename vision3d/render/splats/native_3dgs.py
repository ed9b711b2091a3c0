"""The operations on 3D Gaussians as `torch.library` ops on the compiled kernels."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int32, Int64
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError
from vision3d.core.op_checks import check_image_size, check_memory
from vision3d.core.op_records import Gradients, record_op, save, saved
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
from vision3d.render.splats.records import Blended, Camera, Gaussians, Pixels, Projected, TileLists, Visible

_MODELS = {"pinhole": 0, "ortho": 1, "fisheye": 2}
_MAX_CHANNELS = 32


def project(
    gaussians: Gaussians, camera: Camera, *, eps2d: float, antialiased: bool = False, packed: bool = False
) -> tuple[Visible, Projected]:
    """As `Kernels.project`."""
    reach = None if gaussians.opacities is None else gaussians.opacities.detach()
    view = (camera.viewmats, camera.Ks.detach(), *camera[2:])
    outputs = _project(*gaussians[:4], reach, *view, eps2d, antialiased, packed)
    return Visible(*outputs[:2]), Projected(*outputs[2:])


def sh_colors(
    means: Float[Tensor, "b n 3"],
    sh: Float[Tensor, "b n k 3"] | Float[Tensor, "b c n k 3"],
    viewmats: Float[Tensor, "b c 4 4"],
    batch_ids: Int[Tensor, " p"],
    camera_ids: Int[Tensor, " p"],
    gaussian_ids: Int[Tensor, " p"],
    degree: int,
) -> Float[Tensor, "p 3"]:
    """As `Kernels.sh_colors`."""
    centers = -(viewmats[..., :3, :3].mT @ viewmats[..., :3, 3:])[..., 0]
    image_ids = camera_ids if len(viewmats) == 1 else batch_ids * viewmats.shape[1] + camera_ids
    return _sh_colors(means, sh[:, None] if sh.dim() == 4 else sh, centers, image_ids, gaussian_ids, degree)


def blend(
    projected: Projected,
    colors: Float[Tensor, "p d"],
    opacities: Float[Tensor, " p"],
    lists: TileLists,
    pixels: Pixels = Pixels(),  # noqa: B008  a tuple of None
    *,
    alpha_max: float,
    absgrad: Float[Tensor, "p 2"] | None = None,
) -> Blended:
    """See `Kernels.blend`.

    Raises:
        BackendError: The kernels do not support this tile size.
    """
    check_tile_size(lists.tile_size)
    limits = None, None
    if pixels.max_depths is not None:
        limits = projected.depths.detach(), pixels.max_depths.detach()

    def draw(colors: Tensor, backgrounds: Tensor | None) -> tuple[Tensor, ...]:
        scene = (projected.conics, colors, opacities, backgrounds, pixels.masks, *lists, alpha_max)
        return _blend(projected.means2d, *scene, absgrad, *limits)[:3]

    if colors.shape[1] <= _MAX_CHANNELS:
        return Blended(*draw(colors, pixels.backgrounds))
    chunks = colors.split(_MAX_CHANNELS, 1)
    behind = [None] * len(chunks) if pixels.backgrounds is None else pixels.backgrounds.split(_MAX_CHANNELS, 1)
    parts = [draw(chunk, back) for chunk, back in zip(chunks, behind)]
    return Blended(torch.cat([part[0] for part in parts], -1), parts[0][1], parts[0][2])


class _Projection(NamedTuple):
    gaussians: Gaussians
    camera: Camera
    eps2d: float
    antialiased: bool
    packed: bool


class _ProjectionState(NamedTuple):
    gaussians: Gaussians
    camera: Camera
    eps2d: float
    packed: bool
    visible: Visible


class _ProjectionVjp(NamedTuple):
    state: _ProjectionState
    view_grad: bool
    v_means2d: Float[Tensor, "*q 2"]
    v_depths: Float[Tensor, "*q"]
    v_conics: Float[Tensor, "*q 3"]
    v_compensations: Float[Tensor, "*q"]


def _kernel_camera(camera: Camera, eps2d: float, antialiased: bool = False) -> object:
    if camera.model not in _MODELS:
        raise InputError(f"model: got {camera.model!r}, want {', '.join(_MODELS)}")
    limits = (camera.near_plane, camera.far_plane, camera.radius_clip)
    return native.require().Camera(_MODELS[camera.model], camera.width, camera.height, eps2d, *limits, antialiased)


@record_op("project_splats")
def _project(a: _Projection) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    means, quats, scales, covars, opacities = map(plain_or_none, a.gaussians)
    viewmats, Ks = plain(a.camera.viewmats), plain(a.camera.Ks)
    shape = (*viewmats.shape[:2], a.gaussians.means.shape[1])
    check_memory(viewmats, 9 * shape[0] * shape[1] * shape[2], "viewmats, means: every Gaussian in every camera")
    radii = viewmats.new_empty((*shape, 2), dtype=torch.int32)
    means2d, depths = viewmats.new_empty((*shape, 2)), viewmats.new_empty(shape)
    conics, compensations = viewmats.new_empty((*shape, 3)), viewmats.new_empty(shape)
    camera = _kernel_camera(a.camera, a.eps2d, a.antialiased)
    inputs = (means, quats, scales, covars, opacities, viewmats, Ks)
    native.require().project(*inputs, camera, radii, means2d, depths, conics, compensations, **native.where(viewmats))
    visible = radii.view(-1, 2)[:, 0].nonzero()[:, 0]
    image_ids = torch.div(visible, max(shape[2], 1), rounding_mode="floor")
    gaussian_ids = visible - image_ids * shape[2]
    if a.packed:
        rows = lambda value: value.flatten(0, 2).index_select(0, visible)  # noqa: E731
        radii, means2d, depths, conics, compensations = map(rows, (radii, means2d, depths, conics, compensations))
    return image_ids, gaussian_ids, radii, means2d, depths, conics, compensations


@record_op("project_splats_vjp")
def _project_vjp(a: _ProjectionVjp) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    means, quats, scales, covars, _ = a.state.gaussians
    viewmats, Ks = a.state.camera[:2]
    image_ids, gaussian_ids = a.state.visible
    num_images = viewmats.shape[0] * viewmats.shape[1]
    offsets = image_offsets(image_ids, num_images)
    v_gaussians = [None if value is None else zeros(value) for value in (means, quats, scales, covars)]
    v_views = pair_sums(means, num_images, means.shape[1], 12) if a.view_grad else None
    camera = _kernel_camera(a.state.camera, a.state.eps2d)
    upstream = (
        grad.detach().reshape(-1, *tail).contiguous()
        for grad, tail in ((a.v_means2d, (2,)), (a.v_depths, ()), (a.v_conics, (3,)), (a.v_compensations, ()))
    )
    inputs = map(plain_or_none, (means, quats, scales, covars, viewmats, Ks))
    grads = (*upstream, *v_gaussians, v_views)
    native.require().project_vjp(*inputs, camera, gaussian_ids, offsets, a.state.packed, *grads, **native.where(means))
    v_means, v_quats, v_scales, v_covars = (means.new_empty(0) if grad is None else grad for grad in v_gaussians)
    return v_means, v_quats, v_scales, v_covars, view_gradient(v_views, viewmats)


@_project.register_fake
def _project_fake(a: _Projection) -> tuple[Tensor, ...]:
    means, viewmats = a.gaussians.means, a.camera.viewmats
    visible = torch.library.get_ctx().new_dynamic_size()
    rows = (visible,) if a.packed else (*viewmats.shape[:2], means.shape[1])
    ids = [means.new_empty(visible, dtype=torch.int64) for _ in range(2)]
    radii = means.new_empty((*rows, 2), dtype=torch.int32)
    return *ids, radii, *(means.new_empty((*rows, *tail)) for tail in ((2,), (), (3,), ()))


@_project_vjp.register_fake
def _project_vjp_fake(a: _ProjectionVjp) -> tuple[Tensor, ...]:
    means, *others, _ = a.state.gaussians
    grads = (means.new_empty(0) if value is None else torch.empty_like(value) for value in (means, *others))
    return *grads, torch.empty_like(a.state.camera.viewmats)


def _project_setup(ctx, a: _Projection, output) -> None:
    visible = Visible(*output[:2])
    ctx.mark_non_differentiable(*visible, output[2])
    save(ctx, _ProjectionState(a.gaussians._replace(opacities=None), a.camera, a.eps2d, a.packed, visible))


def _project_backward(ctx, _images, _gaussians, _radii, *upstream) -> Gradients:
    found = _project_vjp.of(_ProjectionVjp(saved(ctx), _project.needs_gradient(ctx, "viewmats"), *upstream))
    names = ("means", "quats", "scales", "covars", "viewmats")
    return {name: grad for name, grad in zip(names, found) if _project.needs_gradient(ctx, name)}


_project.register_autograd(_project_setup, _project_backward)


class _Harmonics(NamedTuple):
    means: Float[Tensor, "b n 3"]
    sh: Float[Tensor, "b x n k 3"]
    centers: Float[Tensor, "b c 3"]
    image_ids: Int64[Tensor, " p"]
    gaussian_ids: Int64[Tensor, " p"]
    degree: int


class _HarmonicsVjp(NamedTuple):
    forward: _Harmonics
    v_colors: Float[Tensor, "p 3"]


@record_op("sh_colors")
def _sh_colors(a: _Harmonics) -> Tensor:
    colors = a.means.new_empty((len(a.gaussian_ids), 3))
    offsets = image_offsets(a.image_ids, a.centers.shape[0] * a.centers.shape[1])
    inputs = map(plain, (a.means, a.sh, a.centers, a.gaussian_ids))
    native.require().sh_colors(*inputs, offsets, a.degree, colors, **native.where(a.means))
    return colors


@record_op("sh_colors_vjp")
def _sh_colors_vjp(a: _HarmonicsVjp) -> tuple[Tensor, Tensor, Tensor]:
    means, sh, centers, image_ids, gaussian_ids, degree = a.forward
    num_images = centers.shape[0] * centers.shape[1]
    offsets = image_offsets(image_ids, num_images)
    v_means, v_sh, v_centers = zeros(means), zeros(sh), pair_sums(means, num_images, means.shape[1], 3)
    inputs = map(plain, (means, sh, centers, gaussian_ids))
    grads = (plain(a.v_colors), v_means, v_sh, v_centers)
    native.require().sh_colors_vjp(*inputs, offsets, degree, *grads, **native.where(means))
    return v_means, v_sh, v_centers.sum(1).view(centers.shape)


_sh_colors.register_fake(lambda a: a.means.new_empty((len(a.gaussian_ids), 3)))
_sh_colors_vjp.register_fake(lambda a: tuple(map(torch.empty_like, a.forward[:3])))
_sh_colors.register_autograd(
    lambda ctx, a, output: save(ctx, a),
    lambda ctx, v_colors: dict(zip(("means", "sh", "centers"), _sh_colors_vjp.of(_HarmonicsVjp(saved(ctx), v_colors)))),
)


class _Scene(NamedTuple):
    """Arguments shared by the forward and backward pass of blending."""

    conics: Float[Tensor, "p 3"]
    colors: Float[Tensor, "p d"]
    opacities: Float[Tensor, " p"]
    backgrounds: Float[Tensor, "i d"] | None
    masks: Bool[Tensor, "i y x"] | None
    lists: TileLists
    alpha_max: float


class _Blending(NamedTuple):
    means2d: Float[Tensor, "p 2"]
    scene: _Scene
    absgrad: Float[Tensor, "p 2"] | None
    depths: Float[Tensor, " p"] | None = None
    max_depths: Float[Tensor, "i h w"] | None = None


class _BlendingState(NamedTuple):
    records: Float[Tensor, "p r"]
    scene: _Scene
    transmittances: Float[Tensor, "i h w"]
    last_ids: Int32[Tensor, "i h w"]


class _BlendingVjp(NamedTuple):
    state: _BlendingState
    v_colors: Float[Tensor, "i h w d"]
    v_transmittances: Float[Tensor, "i h w"] | None
    absgrad: bool


@record_op("blend_splats")
def _blend(a: _Blending) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    module, where = native.require(), native.where(a.means2d)
    width, height, tile_size, isect_offsets, flatten_ids = a.scene.lists
    images = len(isect_offsets)
    check_image_size(images, width, height, tile_size)
    check_memory(a.scene.colors, images * width * height * (a.scene.colors.shape[1] + 2), "width, height")
    means2d, conics, colors, opacities = map(plain, (a.means2d, *a.scene[:3]))
    backgrounds, masks, depths, max_depths = map(plain_or_none, (*a.scene[3:5], a.depths, a.max_depths))
    records = means2d.new_empty((len(opacities), module.RECORD))
    module.make_records(means2d, conics, colors, opacities, records, **where)
    out_colors = colors.new_empty((images, height, width, colors.shape[1]))
    transmittances = colors.new_empty((images, height, width))
    last_ids = colors.new_empty((images, height, width), dtype=torch.int32)
    if not len(opacities):  # empty depths would count as none
        depths = max_depths = None
    lists = (isect_offsets, flatten_ids, width, height, tile_size, a.scene.alpha_max, depths, max_depths)
    module.blend(records, colors, backgrounds, masks, *lists, out_colors, transmittances, last_ids, **where)
    return out_colors, transmittances, last_ids, records


@record_op("blend_splats_vjp")
def _blend_vjp(a: _BlendingVjp) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    records, scene, transmittances, last_ids = a.state
    width, height, tile_size, isect_offsets, flatten_ids = scene.lists
    count, channels = scene.colors.shape
    inputs = map(plain_or_none, (records, *scene[:5]))
    sums = record_sums(scene.colors, count, len(flatten_ids), 6 + channels + 2 * a.absgrad)
    grads = [scene.colors.new_empty((count, *tail)) for tail in ((2,), (3,), (channels,), ())]
    v_means2d_abs = scene.colors.new_empty((count if a.absgrad else 0, 2))
    native.require().blend_vjp(
        *inputs, isect_offsets, flatten_ids, width, height, tile_size, scene.alpha_max, transmittances, last_ids,
        plain(a.v_colors), plain_or_none(a.v_transmittances), sums, *grads, v_means2d_abs if a.absgrad else None,
        **native.where(scene.colors),
    )  # fmt: skip
    return grads[0], grads[1], grads[2], grads[3], v_means2d_abs


@_blend.register_fake
def _blend_fake(a: _Blending) -> tuple[Tensor, ...]:
    colors, lists = a.scene.colors, a.scene.lists
    image = (lists.isect_offsets.shape[0], lists.height, lists.width)
    last_ids = colors.new_empty(image, dtype=torch.int32)
    records = colors.new_empty((len(a.scene.opacities), 16))
    return colors.new_empty((*image, colors.shape[1])), colors.new_empty(image), last_ids, records


@_blend_vjp.register_fake
def _blend_vjp_fake(a: _BlendingVjp) -> tuple[Tensor, ...]:
    conics, colors, opacities = a.state.scene[:3]
    pairs = (len(opacities), 2)
    grads = map(torch.empty_like, (conics, colors, opacities))
    return colors.new_empty(pairs), *grads, colors.new_empty(pairs if a.absgrad else (0, 2))


def _blend_setup(ctx, a: _Blending, output) -> None:
    _, transmittances, last_ids, records = output
    ctx.mark_non_differentiable(last_ids, records)
    save(ctx, _BlendingState(records, a.scene, transmittances, last_ids))
    ctx.absgrad = a.absgrad
    ctx.set_materialize_grads(False)  # zeros of each output would cost as much as a kernel


def _blend_backward(ctx, v_colors, v_transmittances, _last, _records) -> Gradients:
    state: _BlendingState = saved(ctx)
    if v_colors is None:
        v_colors = state.transmittances.new_zeros((*state.transmittances.shape, state.scene.colors.shape[1]))
    *grads, v_means2d_abs = _blend_vjp.of(_BlendingVjp(state, v_colors, v_transmittances, ctx.absgrad is not None))
    if ctx.absgrad is not None:
        ctx.absgrad += v_means2d_abs
    found: Gradients = dict(zip(("means2d", "conics", "colors", "opacities"), grads))
    if _blend.needs_gradient(ctx, "backgrounds"):
        found["backgrounds"] = background_gradient(state.transmittances, v_colors)
    return found


_blend.register_autograd(_blend_setup, _blend_backward)
