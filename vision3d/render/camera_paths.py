"""Camera paths: around a scene, around one of its photos, or from photo to photo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry import paths, se3
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.rotation import geodesic_distance
from vision3d.geometry.vectors import unit
from vision3d.render.composite import Drawable, split_objects
from vision3d.render.timeline import Timeline
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, Scene

CameraPath = Literal["orbit", "spiral", "flythrough"]

DEFAULT_SIZE = (640, 480)
DEFAULT_FOV_DEG = 50.0
_DEFAULT_ELEVATION = math.radians(20)
_MAX_MOMENTS = 16  # time steps of moving objects used to find their extent
_FRAMES_PER_KEY = 8  # minimum number of frames between two photos of a flythrough


def path_cameras(
    scene: Scene | Drawable | FrameSequence | Timeline | Sequence[Drawable | FrameSequence],
    path: CameraPath = "orbit",
    cameras: Cameras | None = None,
    *,
    num: int = 120,
    size: tuple[int, int] | None = None,
    fov_deg: float | None = None,
    up: Float[Tensor, "3"] | None = None,
    elevation_deg: float | None = None,
    zoom: float = 1.0,
    turns: float = 1.0,
) -> Cameras:
    """Pinhole cameras for a video of a scene.

    Orbit: a circle around the point that the photos look at, at their median height and distance; without photos around the
    middle of the scene: of the bulk of Gaussians, and of all of a mesh. Spiral: around the most central photo. Flythrough: a
    smooth curve from photo to photo, in their order if that is a sensible path, else along a short path through well-spread
    photos.

    Args:
        scene: The subject: Gaussians, meshes, several of them, or a scene.
        path: Shape of the path; flythrough needs photos.
        cameras: Cameras of photos, without lens distortion.
        num: Number of cameras; orbit and spiral loop.
        size: Width and height of the images [px]; default: that of the photos, or 640 x 480.
        fov_deg: Vertical field of view [degrees]; default: that of the photos, or 50.
        up: Up direction of the images; default: the photos' mean, or z.
        elevation_deg: Elevation of an orbit above the center [degrees].
        zoom: Divides the distance of an orbit, > 0.
        turns: Revolutions of an orbit; negative runs clockwise seen from above.

    Raises:
        InputError: A number is out of range, or a flythrough has fewer than two photos.

    Example:
        >>> from vision3d import render_views
        >>> cameras = path_cameras(scene, "orbit", num=60, size=(64, 48))
        >>> images = [view.image for view in render_views(scene, cameras)]
    """
    _check("num", num, num >= 1, "1 or more")
    _check("zoom", zoom, zoom > 0 and math.isfinite(zoom), "a number > 0")
    _check("fov_deg", fov_deg, fov_deg is None or 0 < fov_deg < 180, "between 0 and 180")
    _check("elevation_deg", elevation_deg, elevation_deg is None or abs(elevation_deg) <= 90, "between -90 and 90")
    _check("size", size, size is None or min(size) >= 1, "at least 1 x 1")
    if cameras is not None and len(cameras) == 0:
        cameras = None
    K, width, height = _lens(cameras, size, fov_deg)
    if path == "flythrough":
        if cameras is None or len(cameras) < 2:
            raise InputError(f"path flythrough: got {0 if cameras is None else len(cameras)} cameras, want at least 2")
        poses = _flight(cameras, num)
    else:
        half_angle = math.atan(0.5 * min(width, height) / float(K[0, 0]))
        subject = _subject(scene, cameras, up, half_angle)
        if path == "orbit":
            elevation = subject.elevation if elevation_deg is None else math.radians(elevation_deg)
            poses = paths.orbit(subject.center, subject.distance / zoom, elevation, num, subject.up, turns, start=subject.start)
        elif path == "spiral":
            poses = _spiral(subject, cameras, num)
        else:
            raise InputError(f"path: got {path!r}, want orbit, spiral or flythrough")
    return Cameras.from_camtoworlds(poses, K.to(poses), width, height)


def surrounding_cameras(scene: GaussianScene, num: int = 48, size: int = 512, fov_deg: float = DEFAULT_FOV_DEG) -> Cameras:
    """Square pinhole cameras evenly distributed on a sphere around a scene (golden spiral about z), looking at its middle.

    Args:
        scene: The subject. Few Gaussians far away, such as those of a background, do not influence the cameras.
        num: Number of cameras.
        size: Width and height of their images [px].
        fov_deg: Horizontal and vertical field of view [degrees].

    Raises:
        InputError: A number is out of range, or the scene is empty.
    """
    _check("num", num, num >= 1, "1 or more")
    _check("size", size, size >= 1, "1 or more")
    _check("fov_deg", fov_deg, 0 < fov_deg < 180, "between 0 and 180")
    center, radius = bulk_of(scene)
    sizes = scene.log_scales.detach().amax(-1).exp()
    reach = torch.linalg.vector_norm(scene.means.detach() - center, dim=-1) + 2 * sizes
    # If there is a single object, all of it; if it has surroundings, the object only.
    radius = max(radius, min(_quantile(reach, scene.opacities.detach(), 0.999), 2.5 * radius))
    half_angle = 0.5 * math.radians(fov_deg)
    place = torch.arange(num, dtype=torch.float64) + 0.5
    height = 1 - 2 * place / num
    turn = place * math.pi * (3 - 5**0.5)
    around = (1 - height.square()).sqrt()
    directions = torch.stack([around * turn.cos(), around * turn.sin(), height], -1).to(center)
    eyes = center + 1.15 * radius / math.sin(half_angle) * directions
    focal = 0.5 * size / math.tan(half_angle)
    K = intrinsics(focal, focal, size / 2, size / 2).to(center)
    return Cameras.from_camtoworlds(look_at(eyes, center, center.new_tensor([0.0, 0.0, 1.0])), K, size, size)


def refit_cameras(cameras: Cameras, size: tuple[int, int] | None = None, fov_deg: float | None = None) -> Cameras:
    """Cameras for images of another size or field of view, without stretching.

    Args:
        cameras: Any model.
        size: Width and height [px]; the vertical field of view is kept, the horizontal one follows.
        fov_deg: Vertical field of view [degrees], for pinhole cameras.
    """
    _check("fov_deg", fov_deg, fov_deg is None or 0 < fov_deg < 180, "between 0 and 180")
    _check("size", size, size is None or min(size) >= 1, "at least 1 x 1")
    Ks = cameras.Ks.clone()
    if size is not None:
        ratio = size[1] / cameras.height.to(Ks)
        resized = cameras.resized(*size)
        Ks = resized.Ks.clone()
        Ks[:, 0, 0], Ks[:, 0, 1] = cameras.Ks[:, 0, 0] * ratio, cameras.Ks[:, 0, 1] * ratio
        cameras = resized
    if fov_deg is not None:
        if cameras.model != "pinhole":
            raise InputError(f"fov_deg: got {fov_deg} for {cameras.model} cameras; want pinhole cameras")
        focal = 0.5 * cameras.height.to(Ks) / math.tan(0.5 * math.radians(fov_deg))
        Ks[:, :2, :2] = Ks[:, :2, :2] * (focal / Ks[:, 1, 1])[:, None, None]
    return Cameras(cameras.viewmats, Ks, cameras.width, cameras.height, cameras.model, None, cameras.names, cameras.times)


@dataclass(frozen=True)
class _Subject:
    """The subject of a path."""

    center: Float[Tensor, "3"]
    distance: float
    """Distance of the cameras from the center [m]."""
    elevation: float
    """Elevation of the cameras above the plane through the center [rad]."""
    up: Float[Tensor, "3"]
    start: Float[Tensor, "3"]
    """Direction of the first camera seen from the center."""


def _subject(
    scene: Scene | Drawable | FrameSequence | Timeline | Sequence[Drawable | FrameSequence],
    cameras: Cameras | None,
    up: Float[Tensor, "3"] | None,
    half_angle: float,
) -> _Subject:
    middle, radius = _extent(scene)
    if cameras is None or len(cameras) < 2:
        up = unit(middle.new_tensor([0.0, 0.0, 1.0]) if up is None else up.to(middle))
        distance = 1.15 * radius / math.sin(half_angle)
        axis = int(up.abs().argmin())  # the axis most perpendicular to `up`
        start = middle.new_zeros(3)
        start[axis] = 1.0
        return _Subject(middle, distance, _DEFAULT_ELEVATION, up, start)
    poses = cameras.camtoworlds.detach().to(middle)
    centers, axes = poses[:, :3, 3], poses[:, :3, 2]
    up = paths.mean_up(poses) if up is None else unit(up.to(middle))
    center = paths.focus_point(centers, axes)
    is_in_front = ((center - centers) * axes).sum(-1) > 0
    is_near = torch.linalg.vector_norm(center - middle) < 3 * radius
    # Mean square sine of the angles between the axes and their common direction; 1e-3 is 1.8 degrees.
    spread = 1 - torch.linalg.eigvalsh((axes.mT @ axes).double() / len(axes))[-1]
    if is_in_front.float().mean() < 0.75 or not bool(is_near) or spread < 1e-3:
        center = middle  # axes point outwards, miss the scene, or are nearly parallel
    offsets = centers - center
    distances = torch.linalg.vector_norm(offsets, dim=-1)
    elevation = torch.asin(((offsets @ up) / distances.clamp(min=1e-12)).clamp(-1, 1)).median()
    distance = float(distances.median())
    return _Subject(center, distance if distance > 0 else radius, float(elevation), up, offsets[0])


def _extent(
    scene: Scene | Drawable | FrameSequence | Timeline | Sequence[Drawable | FrameSequence],
) -> tuple[Float[Tensor, "3"], float]:
    """A bounding sphere: the sphere around the common box of the spheres of Gaussians and meshes."""
    timeline = scene if isinstance(scene, Timeline) else Timeline.of(scene)
    if timeline is None:
        assert not isinstance(scene, Timeline)
        gaussians, meshes = split_objects(scene)
        spheres = [] if gaussians is None else [bulk_of(gaussians)]
        spheres += [_mesh_sphere(mesh) for mesh in meshes]
    else:
        few = torch.linspace(0, len(timeline) - 1, min(_MAX_MOMENTS, len(timeline))).round().int()
        spheres = [_extent(timeline.at(i)) for i in few.tolist()]
    if len(spheres) == 1:
        return spheres[0]
    low = torch.stack([center - radius for center, radius in spheres]).amin(0)
    high = torch.stack([center + radius for center, radius in spheres]).amax(0)
    middle = (low + high) / 2
    return middle, max(float(torch.linalg.vector_norm(center - middle)) + radius for center, radius in spheres)


def _mesh_sphere(mesh: Mesh) -> tuple[Float[Tensor, "3"], float]:
    """The center of the box of a mesh, and the distance of its farthest face corner."""
    if not mesh.num_faces:
        raise InputError("scene: got a mesh of 0 faces, want at least one")
    points = mesh.vertices.detach()[mesh.faces.unique()]
    center = (points.amin(0) + points.amax(0)) / 2
    radius = float(torch.linalg.vector_norm(points - center, dim=-1).max())
    return center, radius if radius > 0 else 1.0


def bulk_of(scene: GaussianScene) -> tuple[Float[Tensor, "3"], float]:
    """Center of the detailed part of a scene, and the radius that contains most of it [m].

    Raises:
        InputError: The scene is empty.
    """
    if scene.num_gaussians == 0:
        raise InputError("scene: got 0 Gaussians, want at least one")
    return bulk_of_points(scene.means.detach(), _detail(scene))


def bulk_of_points(
    points: Float[Tensor, "n 3"], weights: Float[Tensor, " n"], *, edge: float = 0.15, share: float = 0.75
) -> tuple[Float[Tensor, "3"], float]:
    """Robust center and radius of weighted points [m], insensitive to a few points far away.

    Args:
        points: At least one.
        weights: >= 0, not all 0.
        edge: Fraction of the weight that is cut off at either end of each axis to find the center.
        share: Fraction of the weight within the radius around the center.
    """
    edges = [[_quantile(points[:, i], weights, part) for i in range(3)] for part in (edge, 1 - edge)]
    center = torch.tensor(edges).mean(0).to(points)
    radius = _quantile(torch.linalg.vector_norm(points - center, dim=-1), weights, share)
    return center, radius if radius > 0 else 1.0


def _detail(scene: GaussianScene) -> Float[Tensor, " n"]:
    """Weights: backgrounds and haze consist of few large Gaussians, photographed objects of many small ones."""
    sizes = scene.log_scales.detach().mean(-1).exp()
    smallest = _quantile(sizes, torch.ones_like(sizes), 0.05)
    return scene.opacities.detach() / sizes.clamp(min=max(smallest, 1e-12)).square()


def _quantile(values: Float[Tensor, " n"], weights: Float[Tensor, " n"], share: float) -> float:
    ordered, order = values.sort()
    below = weights[order].double().cumsum(0)
    return float(ordered[int(torch.searchsorted(below, share * below[-1]).clamp(max=len(values) - 1))])


def _lens(
    cameras: Cameras | None, size: tuple[int, int] | None, fov_deg: float | None
) -> tuple[Float[Tensor, "3 3"], int, int]:
    """Square pixels, principal point in the center."""
    if cameras is None:
        width, height = size or DEFAULT_SIZE
        fov = math.radians(fov_deg or DEFAULT_FOV_DEG)
    else:
        fovs = 2 * torch.atan(0.5 * cameras.height / cameras.Ks[:, 1, 1])
        middle = int(fovs.argsort()[len(fovs) // 2]) if cameras.model == "pinhole" else 0
        width, height = size or (int(cameras.width[middle]), int(cameras.height[middle]))
        is_like = cameras.model == "pinhole" and fov_deg is None
        fov = float(fovs[middle]) if is_like else math.radians(fov_deg or DEFAULT_FOV_DEG)
    focal = 0.5 * height / math.tan(0.5 * fov)
    return intrinsics(focal, focal, width / 2, height / 2), width, height


def _spiral(subject: _Subject, cameras: Cameras | None, num: int) -> Float[Tensor, "num 4 4"]:
    if cameras is None or len(cameras) < 2:
        args = (subject.center, subject.distance, subject.elevation, 1, subject.up)
        pose = paths.orbit(*args, start=subject.start)[0]
        spread = None
    else:
        poses = cameras.camtoworlds.detach().to(subject.center)
        total = _distances(poses).sum(0)
        pose = poses[int((total <= 1.001 * total.min()).nonzero()[0])]  # the first of equal ones, independent of rounding
        offsets = se3.transform_points(se3.inverse(pose), poses[:, :3, 3])
        spread = offsets.abs().quantile(0.9, dim=0)
    depth = float(((subject.center - pose[:3, 3]) * pose[:3, 2]).sum())
    focus = depth if depth > 0.1 * subject.distance else subject.distance
    limits = pose.new_tensor([0.2, 0.15, 0.15]) * focus
    # As wide as the positions of the photos, but neither static nor far from what was seen.
    radii = limits if spread is None else torch.maximum(torch.minimum(spread, limits), 0.25 * limits)
    right, down, forward = radii.tolist()
    return paths.spiral(pose, focus, (right, down, forward), num)


def _flight(cameras: Cameras, num: int) -> Float[Tensor, "num 4 4"]:
    poses = cameras.camtoworlds.detach()
    distances = _distances(poses)
    count = min(len(poses), max(8, num // _FRAMES_PER_KEY))
    even = torch.linspace(0, len(poses) - 1, count).round().long()
    spread = _short_tour(_well_spread(distances, count), distances)
    # The order of a video or a walk is kept; photos in arbitrary order are reordered.
    keys = even if _length(even, distances) <= 1.5 * _length(spread, distances) else spread
    return paths.interpolate_poses(poses[keys], num)


def _distances(poses: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n n"]:
    """Distances between poses: of positions, and of directions with one radian as the mean distance of the positions."""
    centers, rotmats = poses[:, :3, 3], poses[:, :3, :3]
    apart = torch.cdist(centers, centers, compute_mode="donot_use_mm_for_euclid_dist")
    return apart + apart.mean() * geodesic_distance(rotmats[:, None], rotmats[None])


def _well_spread(distances: Float[Tensor, "n n"], count: int) -> Int64[Tensor, " k"]:
    """Farthest point sampling starting at the first."""
    chosen = [0]
    nearest = distances[0].clone()
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distances[chosen[-1]])
    return torch.tensor(chosen)


def _short_tour(keys: Int64[Tensor, " k"], distances: Float[Tensor, "n n"]) -> Int64[Tensor, " k"]:
    """Order the keys along a short path through all: nearest neighbors, then 2-opt."""
    apart = distances[keys][:, keys].tolist()
    count = len(keys)
    tour, left = [0], set(range(1, count))
    while left:
        tour.append(min(left, key=lambda k: apart[tour[-1]][k]))
        left.remove(tour[-1])
    is_better = True
    while is_better:
        is_better = False
        for i in range(count - 1):
            for j in range(i + 1, count):
                old = (apart[tour[i - 1]][tour[i]] if i else 0) + (apart[tour[j]][tour[j + 1]] if j + 1 < count else 0)
                new = (apart[tour[i - 1]][tour[j]] if i else 0) + (apart[tour[i]][tour[j + 1]] if j + 1 < count else 0)
                if new < old - 1e-9:
                    tour[i : j + 1] = tour[i : j + 1][::-1]
                    is_better = True
    return keys[torch.tensor(tour)]


def _length(order: Int64[Tensor, " k"], distances: Float[Tensor, "n n"]) -> float:
    return float(distances[order[:-1], order[1:]].sum())


def _check(name: str, got: object, is_right: bool, want: str) -> None:
    if not is_right:
        raise InputError(f"{name}: got {got}, want {want}")
