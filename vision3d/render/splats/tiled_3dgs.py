"""`rasterize` with tile lists: project, list, blend."""

from typing import cast

import torch
from torch import Tensor

from vision3d.core.errors import BackendError
from vision3d.render.splats import checks
from vision3d.render.splats.calls import Call, Images
from vision3d.render.splats.kernels import Kernels
from vision3d.render.splats.pairs import (
    Pairs,
    SparseRows,
    by_scene,
    expected_depth,
    flat_pixels,
    info_of,
    pair_colors,
    with_depth,
)


def rasterize(kernels: Kernels, call: Call) -> Images:
    """Same result as `vision3d.rasterize`.

    Raises:
        BackendError, InputError: An option that only gsplat supports, or an unknown camera model.
    """
    _refuse(call)
    size, antialiased = call.sizes, call.options["rasterize_mode"] == "antialiased"
    rows = SparseRows()
    gaussians, colors, camera = by_scene(call, size, rows)
    with torch.autocast(gaussians.means.device.type, enabled=False):
        visible, projected = kernels.project(gaussians, camera, eps2d=call.eps2d, antialiased=antialiased, packed=call.packed)
        pairs = Pairs(size, call.packed, *visible)
        rows.rows = pairs.gaussians.unique() if call.sparse_grad else None
        projected, flat = pairs.layouts(projected)
        opacity = pairs.of_gaussians(cast(Tensor, gaussians.opacities))
        if antialiased:
            opacity = opacity * flat.compensations
        found = kernels.intersect(flat, opacity, pairs.image_ids(), pairs.grid(camera, call.tile_size))
        pixels = flat_pixels(call)
        features = pair_colors(pairs, gaussians.means, colors, camera.viewmats, call.sh_degree, kernels)
        features, backdrop = with_depth(features, flat.depths, pixels.backgrounds, call.render_mode)
        sums = torch.zeros_like(flat.means2d) if call.absgrad else None
        parts = [
            kernels.blend(
                flat, chunk, opacity, found.lists, pixels._replace(backgrounds=behind), alpha_max=call.alpha_max, absgrad=sums
            )
            for chunk, behind in _chunks(features, backdrop, call.options["channel_chunk"])
        ]
        if sums is not None:
            projected.means2d.absgrad = sums.view_as(projected.means2d)  # pyright: ignore[reportAttributeAccessIssue]
        shape = pairs.image_shape(camera)
        images = torch.cat([part.colors for part in parts], -1).reshape(*shape, features.shape[-1])
        alphas = 1 - parts[0].transmittances.reshape(*shape, 1)
        images = expected_depth(images, alphas, call.render_mode)
    info = {
        **info_of(call, pairs, projected, opacity, found),
        "conics": projected.conics,
        "last_ids": parts[0].last_ids.reshape(shape),
    }
    return images, alphas, info


def _refuse(call: Call) -> None:
    others = {
        name: value for name, value in call.options.items() if name not in ("rasterize_mode", "channel_chunk", "segmented")
    }
    checks.refuse_unsupported(others)
    if call.camera.model == "ftheta":
        raise BackendError("camera_model: ftheta is not supported; use fisheye, or backend='gsplat' on CUDA")
    checks.check_choice("camera_model", call.camera.model, checks.CAMERA_MODELS)


def _chunks(features: Tensor, backdrop: Tensor | None, most: int) -> list[tuple[Tensor, Tensor | None]]:
    """Split features and backgrounds into chunks of at most `most` channels."""
    parts = features.split(most, -1)
    behind = [None] * len(parts) if backdrop is None else backdrop.split(most, -1)
    return list(zip(parts, behind))
