"""Rendering of scenes: one image at a time, for any camera sizes and any mode of the scene."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.render.maps import depth_to_normals
from vision3d.render.splats import checks
from vision3d.render.splats.api import rasterize
from vision3d.render.splats.api_2dgs import rasterize_2dgs
from vision3d.scene import Cameras, GaussianScene


class View(NamedTuple):
    """Rendered view of one camera."""

    image: Float[Tensor, "h w d"] | None
    """Colors, not clamped, or the given features; None in modes D and ED."""
    alpha: Float[Tensor, "h w"]
    """Opacity in [0, 1]."""
    depth: Float[Tensor, "h w"] | None
    """Along the camera's z [m]: accumulated (D) or expected (ED); None in mode RGB."""
    normal: Float[Tensor, "h w 3"] | None
    """World-space normals: of the 2D Gaussians, weighted like colors, or of an expected depth map; None without either."""


def render_views(
    scene: GaussianScene,
    cameras: Cameras,
    *,
    backgrounds: Float[Tensor, " d"] | Float[Tensor, "c d"] | Sequence[float] | None = None,
    render_mode: str = "RGB",
    sh_degree: int | None = None,
    features: Float[Tensor, "n d"] | None = None,
    near_plane: float = 0.01,
    alpha_max: float = 0.99,
    backend: str = "auto",
) -> Iterator[View]:
    """Render a scene from each camera, one at a time, with gradients for tensors that require them.

    Args:
        scene: Modes 3dgs, flat, and 2dgs (pinhole cameras only); antialiased scenes are rendered as such.
        cameras: Without lens distortion, on the scene's device; sizes may differ.
        backgrounds: Background color, for all cameras or one each; black when None.
        render_mode: RGB, D, ED, RGB+D or RGB+ED.
        sh_degree: Degree of the harmonics to use; all when None.
        features: Rendered instead of the colors.
        near_plane: Minimum visible depth [m].
        alpha_max: Maximum alpha of one Gaussian.
        backend: auto, native, reference or gsplat.

    Raises:
        InputError: The cameras have lens distortion, or are not pinholes and the scene is 2dgs.

    Example:
        >>> from vision3d import Cameras, GaussianScene, render_views
        >>> scene = GaussianScene.load("scene.ply")
        >>> for view in render_views(scene, Cameras.load("cameras.json"), render_mode="RGB+ED"):
        ...     print(view.image.shape, view.depth.median())
    """
    check_views(scene, cameras, render_mode)
    backdrop = one_each(backgrounds, len(cameras), scene.sh)
    degree = (scene.sh_degree if sh_degree is None else min(sh_degree, scene.sh_degree)) if features is None else None
    return _views(scene, cameras, backdrop, render_mode, degree, features, near_plane, alpha_max, backend)


def blending_weights(scene: GaussianScene, cameras: Cameras, *, alpha_max: float = 0.99) -> Float[Tensor, " n"]:
    """Contribution of each Gaussian to the images: its alpha times the transmittance in front of it, summed over all
    pixels of all cameras [pixels].

    Zero means that no camera sees it. The total over all Gaussians equals that of the alphas of `render_views`.

    Args:
        scene: Of any mode.
        cameras: Without lens distortion, on the scene's device.
        alpha_max: Maximum alpha of one Gaussian.

    Raises:
        InputError: As for `render_views`.
    """
    # An image is linear in the colors, so its gradient with respect to them is the weight.
    features = torch.ones(len(scene), 1, dtype=scene.means.dtype, device=scene.device, requires_grad=True)
    weights = torch.zeros(len(scene), dtype=torch.float64, device=scene.device)
    with torch.enable_grad():
        for view in render_views(scene, cameras, features=features, alpha_max=alpha_max):
            if view.image is not None and view.image.requires_grad:
                weights += torch.autograd.grad(view.image.sum(), features)[0][:, 0]
    return weights.to(scene.means)


def _views(
    scene: GaussianScene,
    cameras: Cameras,
    backdrop: Tensor | None,
    render_mode: str,
    degree: int | None,
    features: Tensor | None,
    near_plane: float,
    alpha_max: float,
    backend: str,
) -> Iterator[View]:
    gaussians = (scene.means, scene.quats, scene.scales, scene.opacities, scene.sh if features is None else features)
    for i, (width, height) in enumerate(zip(cameras.width.tolist(), cameras.height.tolist())):
        viewmats, Ks = cameras.viewmats[i : i + 1], cameras.Ks[i : i + 1]
        rendered, alpha, normal = draw(
            scene, gaussians, cameras.model, viewmats, Ks, width, height, near_plane=near_plane, sh_degree=degree,
            backgrounds=None if backdrop is None else backdrop[i : i + 1], render_mode=render_mode, alpha_max=alpha_max,
            backend=backend,
        )  # fmt: skip
        depth = None if render_mode == "RGB" else rendered[0, ..., -1]
        if normal is None and depth is not None and render_mode.endswith("ED"):
            normal = depth_to_normals(depth[None], viewmats, Ks, cameras.model)
        image = {"RGB": rendered[0], "D": None, "ED": None}.get(render_mode, rendered[0, ..., :-1])
        yield View(image, alpha[0, ..., 0], depth, None if normal is None else normal[0])


def draw(
    scene: GaussianScene, gaussians: tuple[Tensor, ...], model: str, *views: Tensor | int, **options: Any
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, alphas, and normals of 2D Gaussians, from the rasterizer for the scene's mode.

    Args:
        scene: Its mode and antialiasing are used.
        gaussians: Means, quats, scales, opacities, and colors or harmonics.
        model: Camera model.
        views: viewmats, Ks, width, height.
        options: Options of both rasterizers.
    """
    if scene.mode == "2dgs":
        rendered, alpha, normal, *_ = rasterize_2dgs(*gaussians, *views, packed=True, **options)  # pyright: ignore[reportArgumentType]
        return rendered, alpha, normal
    filtering = "antialiased" if scene.antialiased else "classic"
    rendered, alpha, _ = rasterize(*gaussians, *views, rasterize_mode=filtering, camera_model=model, **options)  # pyright: ignore[reportArgumentType]
    return rendered, alpha, None


def check_views(scene: GaussianScene | None, cameras: Cameras, render_mode: str) -> None:
    """Raise InputError unless these cameras and this mode can be rendered."""
    if cameras.distortion is not None:
        raise InputError("cameras: have lens distortion, which cannot be rendered; use the undistorted cameras")
    if scene is not None and scene.mode == "2dgs" and cameras.model != "pinhole":
        raise InputError(f"cameras: got model {cameras.model}; scenes of mode 2dgs are rendered in pinhole cameras only")
    checks.check_choice("render_mode", render_mode, checks.RENDER_MODES)


def one_each(backgrounds: Tensor | Sequence[float] | None, count: int, like: Tensor) -> Tensor | None:
    """One background per camera."""
    if backgrounds is None:
        return None
    colors = torch.as_tensor(backgrounds, dtype=like.dtype, device=like.device)
    if colors.dim() == 1:
        return colors.expand(count, -1)
    if colors.dim() != 2 or len(colors) != count:
        raise ShapeError("backgrounds", colors.shape, f"(D,) or ({count}, D)")
    return colors
