"""Line segments for objects without surfaces: cameras, boxes, bones, regions. Each is (n, 2, 3): both end points [m]."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.geometry import se3
from vision3d.geometry.cameras import pixel_rays
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.vectors import any_orthogonal, unit
from vision3d.scene import Boxes, Cameras
from vision3d.scene.selection import Region

_BOX = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
_CIRCLE_STEPS = 48
_BONE_WIDTH, _JOINT_SIZE = 0.1, 0.07  # relative to the length of a bone


def frustum_lines(cameras: Cameras, depth: float) -> Float[Tensor, "c 10 2 3"]:
    """Each camera as a pyramid: four edges from the center to the image corners, the image border, and a roof on its top.

    Args:
        cameras: C cameras of any model, lens distortion included.
        depth: Distance of the corners from the camera along z; along the ray for fisheye [m].
    """
    corners, tops = _image_plane(cameras, depth)
    apex = corners.new_zeros(len(cameras), 1, 3)
    if cameras.model == "ortho":  # parallel rays: a box without a back
        apex = corners * corners.new_tensor([1.0, 1.0, 0.0])
    sides = torch.stack([apex.expand_as(corners), corners], -2)
    border = torch.stack([corners, corners.roll(-1, 1)], -2)
    roof = torch.stack([corners[:, :2], tops.expand(-1, 2, -1)], -2)
    lines = torch.cat([sides, border, roof], 1)
    return se3.transform_points(cameras.camtoworlds, lines.flatten(1, 2)).unflatten(1, (10, 2))


def frustum_depth(cameras: Cameras, radius: float) -> float:
    """Depth of the camera pyramids for which neighbors hardly touch [m].

    Args:
        cameras: All drawn cameras.
        radius: Radius of the other content [m]; the maximum is a tenth of it.
    """
    if len(cameras) < 2:
        return 0.1 * radius
    centers = cameras.centers
    apart = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = apart.fill_diagonal_(math.inf).amin(1)
    # Cameras at one position, as on a tripod, do not define a size.
    return min(max(0.5 * float(nearest.median()), 0.02 * radius), 0.1 * radius)


def image_corners(cameras: Cameras, depth: float) -> Float[Tensor, "c 4 3"]:
    """World positions of the image corners: top left, top right, bottom right, bottom left."""
    return se3.transform_points(cameras.camtoworlds, _image_plane(cameras, depth)[0])


def box_lines(boxes: Boxes) -> Float[Tensor, "b 14 2 3"]:
    """The twelve edges of each box, and an arrow of two lines on its floor that points to the front."""
    corners = boxes.corners
    edges = corners[:, torch.tensor(_BOX, device=corners.device)]
    front = (corners[:, 0] + corners[:, 3]) / 2
    middle = corners[:, :4].mean(1)
    side = (corners[:, 0] - corners[:, 3]) / 4
    arrow = torch.stack([torch.stack([middle + side, front], 1), torch.stack([middle - side, front], 1)], 1)
    return torch.cat([edges, arrow], 1)


def bone_lines(places: Float[Tensor, "j 3"], parents: Sequence[int]) -> tuple[Float[Tensor, "n 2 3"], Int64[Tensor, " n"]]:
    """Bones as long octahedra from each joint to its children, and a small octahedron at every joint.

    Args:
        places: Joint positions [m].
        parents: An earlier joint, or -1 for a root.

    Returns:
        The edges, and the joint of each.
    """
    below = torch.tensor([joint for joint, parent in enumerate(parents) if parent >= 0], dtype=torch.int64)
    above = torch.tensor([parent for parent in parents if parent >= 0], dtype=torch.int64)
    along = places[below] - places[above]
    lengths = torch.linalg.vector_norm(along, dim=-1)
    is_long = lengths > 1e-6 * lengths.amax() if len(lengths) else lengths > 0
    below, above, along, lengths = below[is_long], above[is_long], along[is_long], lengths[is_long, None]
    first = any_orthogonal(along / lengths)
    second = torch.linalg.cross(along / lengths, first)
    ring = torch.stack([first, second, -first, -second], 1) * (_BONE_WIDTH * lengths[:, None])
    ring = ring + (places[above] + _BONE_WIDTH * along)[:, None]
    bones = _octahedra(places[above], places[below], ring)
    size = _JOINT_SIZE * float(lengths.median()) if len(lengths) else 0.05
    axes = size * torch.eye(3).to(places)
    ring = places[:, None] + torch.stack([axes[0], axes[1], -axes[0], -axes[1]])
    balls = _octahedra(places - axes[2], places + axes[2], ring)
    owners = torch.cat([above, torch.arange(len(places))])
    return torch.cat([bones, balls]).flatten(0, 1), owners.repeat_interleave(bones.shape[1])


def _octahedra(
    tops: Float[Tensor, "n 3"], bottoms: Float[Tensor, "n 3"], ring: Float[Tensor, "n 4 3"]
) -> Float[Tensor, "n 12 2 3"]:
    """The twelve edges of each octahedron."""
    sides = [torch.stack([end[:, None].expand_as(ring), ring], 2) for end in (tops, bottoms)]
    return torch.cat([*sides, torch.stack([ring, ring.roll(-1, 1)], 2)], 1)


def region_lines(region: Region, plane_size: float = 1.0) -> Float[Tensor, "n 2 3"]:
    """The edges of a box, three circles of a sphere, or a square with normal for a plane.

    Args:
        region: The selected region.
        plane_size: Edge length of the square that represents a plane [m].
    """
    if region.kind == "plane":
        normal = unit(region.size)
        first = any_orthogonal(normal) * plane_size / 2
        second = torch.linalg.cross(normal, first)
        corners = region.center + torch.stack([first + second, first - second, -first - second, second - first])
        arrow = torch.stack([region.center, region.center + normal * plane_size / 4])
        return torch.cat([torch.stack([corners, corners.roll(-1, 0)], 1), arrow[None]])
    if region.kind == "sphere":
        angle = torch.arange(_CIRCLE_STEPS).to(region.center) * (2 * math.pi / _CIRCLE_STEPS)
        flat = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1) * region.size[0]
        circles = region.center + torch.stack([flat, flat.roll(1, -1), flat.roll(2, -1)])
        return torch.stack([circles, circles.roll(-1, 1)], 2).flatten(0, 1)
    signs = region.size.new_tensor(
        [(1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1)]
    )
    corners = region.center + (signs * region.size) @ quat_to_rotmat(region.quat).mT
    return corners[torch.tensor(_BOX, device=corners.device)]


def _image_plane(cameras: Cameras, depth: float) -> tuple[Float[Tensor, "c 4 3"], Float[Tensor, "c 1 3"]]:
    """Image corners, and the tip above their upper edge, in camera axes."""
    width, height = cameras.width.to(cameras.Ks), cameras.height.to(cameras.Ks)
    zero = torch.zeros_like(width)
    x = torch.stack([zero, width, width, zero], -1)
    y = torch.stack([zero, zero, height, height], -1)
    pixels = torch.stack([x, y], -1)
    origins, directions = pixel_rays(pixels, cameras.Ks, cameras.model, cameras.distortion)
    if cameras.model != "fisheye":
        directions = directions / directions[..., 2:]
    corners = torch.nan_to_num(origins + depth * directions)
    upper, lower = corners[:, :2].mean(1, keepdim=True), corners[:, 2:].mean(1, keepdim=True)
    return corners, upper + 0.25 * (upper - lower)
