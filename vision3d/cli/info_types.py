"""The part of `vision3d info` for meshes, skins, point clouds, boxes, selections and sequences."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from vision3d.scene import Boxes, Mesh, MeshGaussians, Motion, PointCloud, Selection, SkinnedMesh

Values = dict[str, Any]


def describe_more(value: object) -> Values | None:
    """Statistics of a value as plain values, `kind` first; None for types that are described elsewhere."""
    from vision3d.scene import Boxes, FrameSequence, Mesh, MeshGaussians, Motion, PointCloud, Selection, SkinnedMesh

    if isinstance(value, Mesh):
        return _of_mesh(value)
    if isinstance(value, SkinnedMesh):
        return {**_of_mesh(value.mesh), "kind": "mesh that moves", **_of_skin(value)}
    if isinstance(value, PointCloud):
        return _of_points(value)
    if isinstance(value, Motion):
        return _of_motion(value)
    if isinstance(value, MeshGaussians):
        return {**_of_mesh(value.mesh), "kind": "Gaussians on a mesh", **_of_bound(value)}
    if isinstance(value, FrameSequence):
        times = [_round(float(time)) for time in value.times[[0, -1]]] if len(value) else []
        names = list(value.channels)
        return {"kind": "sequence", "frames": len(value), "times_s": times, "channels": names, "base": repr(value.base)}
    if isinstance(value, Boxes):
        return _of_boxes(value)
    if isinstance(value, Selection):
        return _of_selection(value)
    return None


def _of_bound(value: "MeshGaussians") -> Values:
    return {"gaussians": value.num_gaussians, "sh_degree": round(value.sh.shape[1] ** 0.5) - 1}


def _of_mesh(mesh: "Mesh") -> Values:
    from vision3d.geometry.mesh import face_areas, is_closed, is_manifold

    return {
        "kind": "mesh",
        "vertices": mesh.num_vertices,
        "faces": mesh.num_faces,
        "closed": is_closed(mesh.faces),
        "manifold": is_manifold(mesh.faces),
        "faces_without_area": mesh.num_degenerate,
        "area_m2": _round(float(face_areas(mesh.vertices.double(), mesh.faces).sum())),
        **_bounds(mesh.vertices),
        "attributes": [name for name in ("normals", "uvs", "texture", "vertex_colors") if getattr(mesh, name) is not None],
        **({} if mesh.texture is None else {"texture_size": f"{mesh.texture.shape[1]}x{mesh.texture.shape[0]}"}),
    }


def _of_skin(skin: "SkinnedMesh") -> Values:
    """Joints, morph targets, and clips: start and end of each, and the number of its channels by property."""
    clips: Values = {}
    for clip in skin.clips:
        counts: dict[str, int] = {}
        for channel in clip.channels:
            counts[channel.path] = counts.get(channel.path, 0) + 1
        seconds = _round(clip.end - clip.start)
        clips[clip.name] = {"seconds": seconds, "keys": max((len(c.times) for c in clip.channels), default=0), **counts}
    return {
        "joints": len(skin),
        "joint_names": list(skin.names),
        "joints_a_vertex": skin.weights.shape[1],
        "morphs": skin.num_morphs,
        "morph_names": list(skin.morph_names),
        **({} if skin.fps is None else {"fps": skin.fps}),
        "clips": clips,
    }


def _of_points(cloud: "PointCloud") -> Values:
    names = [name for name in ("colors", "normals", "intensity") if getattr(cloud, name) is not None]
    return {
        "kind": "point cloud" if cloud.colors is None else "point cloud with colors",
        "points": cloud.num_points,
        **_bounds(cloud.points),
        "attributes": [*names, *cloud.attributes],
    }


def _of_motion(motion: "Motion") -> Values:
    skeleton, count = motion.skeleton, len(motion)
    values: Values = {"kind": "motion", "poses": count, "seconds": float(motion.times[-1] - motion.times[0]) if count else 0.0}
    values |= {"joints": len(skeleton), "tips": len(skeleton.tips), "names": list(skeleton.names)}
    return {**values, **_bounds(motion.positions().flatten(0, 1))} if count else values


def _of_boxes(boxes: "Boxes") -> Values:
    counts = {} if boxes.labels is None else {n: int((boxes.labels == i).sum()) for i, n in enumerate(boxes.classes)}
    bounds = _bounds(boxes.boxes[:, :3]) if len(boxes) else {}
    scores = None if boxes.scores is None or not len(boxes) else [_round(float(value)) for value in boxes.scores.aminmax()]
    return {"kind": "boxes", "boxes": len(boxes), "classes": counts, **bounds, "scores": scores}


def _of_selection(selection: "Selection") -> Values:
    return {
        "kind": "selection",
        "regions": [region.kind for region in selection.regions],
        "combine": selection.combine,
        "indices": 0 if selection.indices is None else len(selection.indices),
    }


def _bounds(points: "Tensor") -> Values:
    low, high = points.aminmax(dim=0)
    return {"min_m": _numbers(low), "max_m": _numbers(high)}


def _numbers(values: "Tensor") -> list[float]:
    return [_round(value) for value in values.tolist()]


def _round(value: float) -> float:
    return float(f"{value:.4g}")
