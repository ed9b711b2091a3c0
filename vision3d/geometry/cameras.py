"""Camera models and poses as functions of tensors: projection, rays, axis conventions, look-at poses.

`Ks` have one axis less than pixels and points: Ks (*batch, 3, 3) match points (*batch, n, 3). Models: `pinhole`,
`ortho` (parallel rays along z, `Ks` in pixels per meter) and `fisheye` (equidistant: radius = focal length * angle).
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError, nearest_names
from vision3d.geometry import se3
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.distortion import distort, undistort
from vision3d.geometry.smooth import atan_over, cos_of, sin_over
from vision3d.geometry.vectors import any_orthogonal, orthogonal_part, unit

CameraModel = Literal["pinhole", "ortho", "fisheye"]


def project(
    points_cam: Float[Tensor, "*batch n 3"],
    Ks: Float[Tensor, "*#batch 3 3"],
    model: CameraModel = "pinhole",
    distortion: Float[Tensor, "*#batch d"] | None = None,
) -> Float[Tensor, "*batch n 2"]:
    """Pixel coordinates (x, y) of points in camera axes (x right, y down, z forward).

    Pinhole points in the plane z = 0 or behind it give meaningless values, possibly huge but never NaN: test z first.

    Args:
        distortion: Lens coefficients as for `distort`; none for `ortho`.
    """
    check_trailing("points_cam", points_cam, 3)
    check_trailing("Ks", Ks, 3, 3)
    _check_model(model)
    x, y, z = points_cam.unbind(-1)
    if model == "pinhole":
        depth = torch.where(z.abs() < 1e-12, 1e-12, z)
        plane = torch.stack([x / depth, y / depth], -1)
    elif model == "fisheye":
        plane = points_cam[..., :2] * atan_over(x.square() + y.square(), z)[..., None]
    else:
        plane = points_cam[..., :2]
    if distortion is not None:
        plane = distort(plane, distortion, _lens(model))
    return plane_to_pixels(plane, Ks)


def unproject(
    pixels: Float[Tensor, "*batch n 2"],
    depths: Float[Tensor, "*#batch n"],
    Ks: Float[Tensor, "*#batch 3 3"],
    model: CameraModel = "pinhole",
    distortion: Float[Tensor, "*#batch d"] | None = None,
    depth_along: Literal["z", "ray"] = "z",
) -> Float[Tensor, "*batch n 3"]:
    """Points in camera axes seen at pixels; the inverse of `project`.

    Args:
        depths: Distances from the camera [m], measured along `depth_along`.
        depth_along: `z` as in rendered depth maps, or the distance along the `ray` (needed by fisheye cameras
            for points at right angles to the view and beyond).
    """
    origins, directions = pixel_rays(pixels, Ks, model, distortion)
    if depth_along == "z":
        directions = directions / directions[..., 2:]
    return origins + depths[..., None] * directions


def pixel_rays(
    pixels: Float[Tensor, "*batch n 2"],
    Ks: Float[Tensor, "*#batch 3 3"],
    model: CameraModel = "pinhole",
    distortion: Float[Tensor, "*#batch d"] | None = None,
) -> tuple[Float[Tensor, "*batch n 3"], Float[Tensor, "*batch n 3"]]:
    """Origins and unit directions, in camera axes, of the rays through pixels."""
    check_trailing("pixels", pixels, 2)
    check_trailing("Ks", Ks, 3, 3)
    _check_model(model)
    plane = pixels_to_plane(pixels, Ks)
    if distortion is not None:
        plane = undistort(plane, distortion, _lens(model))
    zero, one = torch.zeros_like(plane[..., :1]), torch.ones_like(plane[..., :1])
    if model == "ortho":
        return torch.cat([plane, zero], -1), torch.cat([zero, zero, one], -1)
    if model == "pinhole":
        directions = unit(torch.cat([plane, one], -1))
    else:
        squares = plane.square().sum(-1, keepdim=True)
        directions = torch.cat([plane * sin_over(squares), cos_of(squares)], -1)
    return torch.zeros_like(directions), directions


def pixel_grid(
    width: int, height: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Float[Tensor, "h w 2"]:
    """Centers (x, y) of all pixels: (column + 0.5, row + 0.5)."""
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=dtype, device=device), torch.arange(width, dtype=dtype, device=device), indexing="ij"
    )
    return torch.stack([columns, rows], -1) + 0.5


def camera_rays(
    camtoworlds: Float[Tensor, "*batch 4 4"],
    Ks: Float[Tensor, "*#batch 3 3"],
    width: int,
    height: int,
    model: CameraModel = "pinhole",
    distortion: Float[Tensor, "*#batch d"] | None = None,
) -> tuple[Float[Tensor, "*batch h w 3"], Float[Tensor, "*batch h w 3"]]:
    """Origins and unit directions, in world axes, of the rays through all pixels of images."""
    check_trailing("camtoworlds", camtoworlds, 4, 4)
    check_trailing("Ks", Ks, 3, 3)
    pixels = pixel_grid(width, height, Ks.dtype, Ks.device).flatten(0, 1).expand(*camtoworlds.shape[:-2], -1, -1)
    origins, directions = pixel_rays(pixels, Ks, model, distortion)
    origins = se3.transform_points(camtoworlds, origins)
    directions = directions @ camtoworlds[..., :3, :3].mT
    return origins.unflatten(-2, (height, width)), directions.unflatten(-2, (height, width))


def plane_to_pixels(plane: Float[Tensor, "*batch n 2"], Ks: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch n 2"]:
    """Pixel coordinates of points on the plane at z = 1: the upper two rows of K (x, y, 1), including skew."""
    return plane @ Ks[..., :2, :2].mT + Ks[..., None, :2, 2]


def pixels_to_plane(pixels: Float[Tensor, "*batch n 2"], Ks: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch n 2"]:
    """Points on the plane at z = 1 of pixel coordinates; the inverse of `plane_to_pixels`."""
    y = (pixels[..., 1] - Ks[..., None, 1, 2]) / Ks[..., None, 1, 1]
    x = (pixels[..., 0] - Ks[..., None, 0, 2] - Ks[..., None, 0, 1] * y) / Ks[..., None, 0, 0]
    return torch.stack([x, y], -1)


def intrinsics(fx: float, fy: float, cx: float, cy: float, dtype: torch.dtype = torch.float32) -> Float[Tensor, "3 3"]:
    """The matrix K of focal lengths and principal point in pixels."""
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=dtype)


def resize_Ks(Ks: Float[Tensor, "*batch 3 3"], ratio_x: float, ratio_y: float) -> Float[Tensor, "*batch 3 3"]:
    """Intrinsics of images resized by real-valued ratios (new size / old size); exact for pixel centers at + 0.5."""
    check_trailing("Ks", Ks, 3, 3)
    return Ks * Ks.new_tensor([[ratio_x], [ratio_y], [1.0]])


def viewmat_to_camtoworld(viewmats: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Camera-to-world poses of world-to-camera matrices (rigid)."""
    return se3.inverse(viewmats)


def camtoworld_to_viewmat(camtoworlds: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """World-to-camera matrices of camera-to-world poses (rigid)."""
    return se3.inverse(camtoworlds)


def camera_centers(viewmats: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 3"]:
    """Camera positions in the world: -R^T t."""
    check_trailing("viewmats", viewmats, 4, 4)
    return -(viewmats[..., :3, :3].mT @ viewmats[..., :3, 3:]).squeeze(-1)


def opengl_to_opencv(camtoworlds: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """OpenCV poses (looking along +z, y down) from those of OpenGL, Blender and transforms.json (looking along -z, y up)."""
    check_trailing("camtoworlds", camtoworlds, 4, 4)
    return camtoworlds * camtoworlds.new_tensor([1.0, -1.0, -1.0, 1.0])


def opencv_to_opengl(camtoworlds: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """The inverse of `opengl_to_opencv` (both flip the y and z axes of the camera)."""
    return opengl_to_opencv(camtoworlds)


def look_at(
    eye: Float[Tensor, "*#batch 3"], target: Float[Tensor, "*#batch 3"], up: Float[Tensor, "*#batch 3"]
) -> Float[Tensor, "*#batch 4 4"]:
    """Camera-to-world poses at `eye`, looking at `target`, with `up` upwards in the image.

    If the viewing direction is parallel to `up`, the roll of the camera is arbitrary.

    Raises:
        InputError: An eye coincides with its target.

    Example:
        >>> up = torch.tensor([0.0, 0.0, 1.0])
        >>> look_at(torch.tensor([0.0, -2.0, 0.0]), torch.zeros(3), up)[:3, 2]  # the camera's z axis
        tensor([0., 1., 0.])
    """
    check_trailing("eye", eye, 3)
    check_trailing("target", target, 3)
    check_trailing("up", up, 3)
    eye, target, up = torch.broadcast_tensors(eye, target, up)
    if bool((eye == target).all(-1).any()):
        raise InputError("look_at: eye and target are the same point; want two points")
    forward = unit(target - eye)
    down = orthogonal_part(-unit(up, fallback=any_orthogonal(forward)), forward)
    rotmats = torch.stack([torch.linalg.cross(down, forward), down, forward], -1)
    return se3.from_rotation_translation(rotmats, eye)


def _lens(model: CameraModel) -> Literal["pinhole", "fisheye"]:
    if model == "ortho":
        raise InputError("distortion: an ortho camera has no lens; want pinhole or fisheye")
    return model


def _check_model(model: str) -> None:
    if model not in get_args(CameraModel):
        raise ConfigError("model", f"{model!r} is not a camera model; {nearest_names(model, get_args(CameraModel))}")
