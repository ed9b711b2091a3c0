"""Camera paths for videos, as camera-to-world poses, and the point and up direction that a set of cameras shares."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import se3
from vision3d.geometry.cameras import look_at
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.quaternion import quat_to_rotmat, rotmat_to_quat, slerp
from vision3d.geometry.rotation import geodesic_distance
from vision3d.geometry.vectors import any_orthogonal, orthogonal_part, unit


def orbit(
    center: Float[Tensor, "3"],
    radius: float,
    elevation: float = 0.3,
    num: int = 120,
    up: Float[Tensor, "3"] | None = None,
    turns: float = 1.0,
    start: Float[Tensor, "3"] | None = None,
) -> Float[Tensor, "num 4 4"]:
    """Poses on a circle around `center`, looking at it; the last is one step before the first, so the path loops.

    Args:
        radius: Distance of the cameras from the center [m], > 0.
        elevation: Angle above the plane through the center [rad].
        up: Axis of the circle; z when None.
        turns: Number of revolutions; negative runs clockwise seen from above.
        start: Direction of the first camera seen from the center; arbitrary when None.
    """
    check_trailing("center", center, 3)
    _check_num(num)
    up = unit(center.new_tensor([0.0, 0.0, 1.0]) if up is None else up)
    first = any_orthogonal(up) if start is None else orthogonal_part(start, up)
    second = torch.linalg.cross(up, first)
    angle = (torch.arange(num, dtype=center.dtype, device=center.device) * (2 * math.pi * turns / num))[:, None]
    across = angle.cos() * first + angle.sin() * second
    eyes = center + radius * (math.cos(elevation) * across + math.sin(elevation) * up)
    return look_at(eyes, center, up)


def spiral(
    camtoworld: Float[Tensor, "4 4"],
    focus: float,
    radii: tuple[float, float, float] = (0.2, 0.2, 0.1),
    num: int = 120,
    turns: int = 2,
) -> Float[Tensor, "num 4 4"]:
    """Poses that spiral around one camera and look at a point in front of it, for scenes seen from one side; it loops.

    Args:
        camtoworld: The camera at the center of the spiral.
        focus: Distance of the point that all poses look at [m], > 0.
        radii: Amplitudes of the path to the right, down and forward [m].
        turns: Revolutions in the image plane during one forward and backward period.
    """
    check_trailing("camtoworld", camtoworld, 4, 4)
    _check_num(num)
    if not focus > abs(radii[2]):
        raise InputError(f"focus: got {focus}, want more than the forward radius {abs(radii[2])}")
    angle = torch.arange(num, dtype=camtoworld.dtype, device=camtoworld.device) * (2 * math.pi / num)
    path = torch.stack([(turns * angle).cos(), (turns * angle).sin(), angle.sin()], -1)
    eyes = se3.transform_points(camtoworld, path * path.new_tensor(radii))
    target = se3.transform_points(camtoworld, path.new_tensor([[0.0, 0.0, focus]]))
    return look_at(eyes, target, -camtoworld[:3, 1])


def interpolate_poses(camtoworlds: Float[Tensor, "k 4 4"], num: int = 120, is_loop: bool = False) -> Float[Tensor, "num 4 4"]:
    """A smooth path through poses: Catmull-Rom spline through the positions, slerp between the rotations.

    The time between two poses is proportional to their distance plus their angle (one radian counts as the mean distance),
    so the speed is nearly uniform for any spacing of the poses.

    Args:
        num: Number of poses on the path; the first is the first given pose.
        is_loop: Whether to return to the first pose (the path then ends one step before it); else the path ends at the last
            given pose.
    """
    check_trailing("camtoworlds", camtoworlds, 4, 4)
    _check_num(num)
    if len(camtoworlds) < 2:
        raise ShapeError("camtoworlds", camtoworlds.shape, "at least 2 poses")
    keys = torch.cat([camtoworlds, camtoworlds[:1]]) if is_loop else camtoworlds
    positions, rotmats = keys[:, :3, 3], keys[:, :3, :3]
    knots = _knots(positions, rotmats)
    steps = torch.arange(num, dtype=knots.dtype, device=knots.device) / (num if is_loop else max(num - 1, 1))
    times = steps * knots[-1]
    segment = (torch.searchsorted(knots, times, right=True) - 1).clamp(0, len(keys) - 2)
    length = knots[segment + 1] - knots[segment]
    fraction = (times - knots[segment]) / length
    quats = rotmat_to_quat(rotmats)
    turned = quat_to_rotmat(slerp(quats[segment], quats[segment + 1], fraction))
    tangents = _tangents(positions, knots, is_loop)
    f, span = fraction[:, None], length[:, None]
    # Cubic Hermite polynomial.
    moved = (
        (1 + 2 * f) * (1 - f) ** 2 * positions[segment]
        + f * f * (3 - 2 * f) * positions[segment + 1]
        + f * (1 - f) ** 2 * span * tangents[segment]
        + f * f * (f - 1) * span * tangents[segment + 1]
    )
    return se3.from_rotation_translation(turned, moved)


def focus_point(origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> Float[Tensor, "3"]:
    """The point with the smallest sum of squared distances to lines; for cameras: centers and z axes.

    If the lines do not determine it (all parallel), the solution nearest to the mean origin.
    """
    check_trailing("origins", origins, 3)
    check_trailing("directions", directions, 3)
    if len(origins) < 2:
        raise ShapeError("origins", origins.shape, "at least 2 lines")
    axes = unit(directions).double()
    center = origins.double().mean(0)
    projectors = torch.eye(3, dtype=axes.dtype, device=axes.device) - axes[:, :, None] * axes[:, None]
    offset = (projectors @ (origins.double() - center)[..., None]).sum(0)
    return (center + (torch.linalg.pinv(projectors.sum(0), rtol=1e-9, hermitian=True) @ offset)[:, 0]).to(origins)


def mean_up(camtoworlds: Float[Tensor, "n 4 4"]) -> Float[Tensor, "3"]:
    """Unit mean of the up directions of the images; world z if they cancel."""
    check_trailing("camtoworlds", camtoworlds, 4, 4)
    total = -camtoworlds[:, :3, 1].mean(0)
    up = total.new_tensor([0.0, 0.0, 1.0])
    return unit(torch.where(torch.linalg.vector_norm(total) < 1e-6, up, total))


def _knots(positions: Tensor, rotmats: Tensor) -> Tensor:
    distances = torch.linalg.vector_norm(positions[1:] - positions[:-1], dim=-1)
    angles = geodesic_distance(rotmats[:-1], rotmats[1:])
    mean = distances.mean()
    lengths = distances + angles * torch.where(mean > 0, mean, 1)
    if not bool((lengths.sum() > 0).item()):
        raise InputError("camtoworlds: all poses are the same; want at least 2 that differ")
    lengths = lengths.clamp(min=1e-6 * lengths.mean())  # identical neighbors take almost no time
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _tangents(positions: Tensor, knots: Tensor, is_loop: bool) -> Tensor:
    spans = (knots[1:] - knots[:-1])[:, None]
    slopes = (positions[1:] - positions[:-1]) / spans
    if is_loop:
        before, span_before = slopes.roll(1, 0), spans.roll(1, 0)
        inner = (span_before * slopes + spans * before) / (span_before + spans)
        return torch.cat([inner, inner[:1]])
    inner = (spans[:-1] * slopes[1:] + spans[1:] * slopes[:-1]) / (spans[:-1] + spans[1:])
    return torch.cat([slopes[:1], inner, slopes[-1:]])


def _check_num(num: int) -> None:
    if num < 1:
        raise InputError(f"num: got {num}, want 1 or more")
