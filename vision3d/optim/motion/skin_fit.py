"""Compact skins that reproduce given vertices: a few morph targets, or a few joints with corrective morph targets.

Everything is computed on the CPU, and the resulting skins are on the CPU.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.low_rank import principal_shapes
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.rigid_joints import RigidJoints, fit_rigid_joints
from vision3d.geometry.vectors import unit
from vision3d.scene.checks import check_finite, check_shape
from vision3d.scene.clip import Channel, Clip, frame_rate
from vision3d.scene.mesh import Mesh
from vision3d.scene.skin import SkinnedMesh

TOLERANCE = 1e-4
"""Relative to the diagonal of the rest mesh."""
_DAMPING = 1e-8
_BLOCK = 1 << 20  # vertices (of several frames) processed at a time


@dataclass(frozen=True, eq=False)
class FittedSkin:
    """A skin with one clip, and its error with respect to the vertices that it was made from, in every frame.

    Distances are relative to the diagonal of the rest mesh's bounding box.
    """

    skin: SkinnedMesh
    max_error: float
    mean_error: float

    def __repr__(self) -> str:
        return f"FittedSkin({self.skin!r}, max error {self.max_error:.2g}, mean {self.mean_error:.2g} of the diagonal)"


def fit_morphs(
    mesh: Mesh,
    vertices: Float[Tensor, "t v 3"],
    times: Float64[Tensor, " t"] | list[float],
    name: str = "frames",
    *,
    tolerance: float = TOLERANCE,
    max_morphs: int | None = None,
) -> FittedSkin:
    """A clip with the smallest number of morph targets that reach the tolerance: the principal components of the motion.

    Weights are in [0, 1], since Blender and others clamp them to that range.

    `SkinnedMesh.from_frames` has one morph per frame and no error.

    Args:
        mesh: Rest pose.
        vertices: In each frame [m].
        times: Times of the frames [s], ascending.
        name: Name of the clip.
        tolerance: Maximum error, relative to the diagonal.
        max_morphs: The maximum number of targets; the error may then be larger.

    Raises:
        InputError: A value is not finite, or no frames are given.
    """
    mesh, vertices, times = _checked(mesh, vertices, times)
    shift = (vertices - mesh.vertices).double()
    weights, shapes = _components(shift, tolerance * _diagonal(mesh), max_morphs)
    turned = None if mesh.normals is None else _normals(vertices, mesh.faces) - vertex_normals(mesh.vertices, mesh.faces)
    skin = SkinnedMesh.from_frames(mesh, vertices[:1], times[:1], name)
    return _measured(_with_morphs(skin, name, times, weights, shapes, turned), vertices, times)


def fit_joints(
    mesh: Mesh,
    vertices: Float[Tensor, "t v 3"],
    times: Float64[Tensor, " t"] | list[float],
    name: str = "frames",
    *,
    num_joints: int = 32,
    influences: int = 4,
    rounds: int = 10,
    tolerance: float = TOLERANCE,
    max_morphs: int | None = None,
    weights: Float[Tensor, "v k"] | None = None,
    indices: Int64[Tensor, "v k"] | None = None,
) -> FittedSkin:
    """A clip of rigid joints found in the motion, corrected by the smallest number of morph targets that reach the tolerance.

    glTF applies morphs before the joints: the correction is M^-1 v' - v, with M the blended matrix of a vertex, reduced to
    its principal components. M does not shrink errors, so that a morph's error bounds that of the vertex.

    Args:
        mesh: Rest pose.
        vertices: In each frame [m], from any skinning method.
        times: Times of the frames [s], ascending.
        name: Name of the clip.
        num_joints: Maximum number of joints (`geometry.rigid_joints.fit_rigid_joints`).
        influences: Maximum number of joints per vertex; all viewers support 4.
        rounds: Number of alternations between weights and motions.
        tolerance: Maximum error, relative to the diagonal.
        max_morphs: The maximum number of morph targets; the error may then be larger. 0 for joints only.
        weights: Fixed weights, such as those of a deformation graph, whose joints are then fitted.
        indices: The joints of the fixed weights.

    Raises:
        InputError: A value is not finite, or no frames are given.
    """
    mesh, vertices, times = _checked(mesh, vertices, times)
    options = {"influences": influences, "rounds": rounds, "weights": weights, "indices": indices}
    skin = _of_joints(mesh, fit_rigid_joints(mesh.vertices, vertices, num_joints, **options), times, name)
    added, turned = _corrections(skin, vertices, times)
    amounts, shapes = _components(added, tolerance * _diagonal(mesh), max_morphs)
    return _measured(_with_morphs(skin, name, times, amounts, shapes, turned), vertices, times)


def _checked(mesh: Mesh, vertices: Tensor, times: Tensor | list[float]) -> tuple[Mesh, Tensor, Tensor]:
    """The validated arguments, on the CPU."""
    check_shape("vertices", vertices, ("T", mesh.num_vertices, 3))
    times = torch.as_tensor(times, dtype=torch.float64)
    check_shape("times", times, (len(vertices),))
    if not len(vertices):
        raise InputError("vertices: got 0 frames, want at least one")
    check_finite("frames", "vertices", vertices)
    return mesh.to("cpu"), vertices.detach().cpu(), times.cpu()


def _diagonal(mesh: Mesh) -> float:
    return float(torch.linalg.vector_norm(mesh.vertices.amax(0) - mesh.vertices.amin(0)))


def _of_joints(mesh: Mesh, found: RigidJoints, times: Tensor, name: str) -> SkinnedMesh:
    """Root joints at their centers, and a clip of their motion."""
    count = len(found.centers)
    binds = torch.eye(4).repeat(count, 1, 1).to(found.centers)
    binds[:, :3, 3] = -found.centers
    channels = []
    for joint in range(count):
        channels.append(Channel("translation", joint, times, found.centers[joint] + found.translations[:, joint]))
        channels.append(Channel("rotation", joint, times, found.quats[:, joint]))
    return SkinnedMesh(
        mesh,
        tuple(f"joint_{joint}" for joint in range(count)),
        (-1,) * count,
        translations=found.centers,
        quats=torch.eye(4)[:1].repeat(count, 1).to(found.centers),
        scales=torch.ones_like(found.centers),
        inverse_binds=binds,
        indices=found.indices,
        weights=found.weights,
        clips=(Clip(name, tuple(channels)),),
    )


def _corrections(skin: SkinnedMesh, vertices: Tensor, times: Tensor) -> tuple[Tensor, Tensor | None]:
    """Offsets (T, V, 3) of the rest vertices for which the skin reproduces the given vertices, in float64.

    If opposing joints make a vertex's matrix singular, the damped least squares solution. Also the offsets of the normals, if
    the mesh has normals: the skin transforms them by the inverse transposed matrix.
    """
    rest = skin.mesh.vertices.double()
    weights = rest.new_zeros(len(rest), len(skin)).scatter_add_(1, skin.indices, skin.weights.double())
    found = torch.empty(vertices.shape, dtype=torch.float64)
    turned = None if skin.mesh.normals is None else torch.empty(vertices.shape)
    damping = _DAMPING * torch.eye(3, dtype=torch.float64)
    for some in torch.arange(len(times)).split(max(1, _BLOCK // max(1, len(rest)))):
        matrices = (skin.joint_matrices(skin.clips[0], times[some]) @ skin.inverse_binds).double()[..., :3, :]
        blended = (weights @ matrices.flatten(2)).unflatten(-1, (3, 4))
        linear = blended[..., :3]
        left = vertices[some].double() - (linear @ rest[..., None])[..., 0] - blended[..., 3]
        found[some] = (linear.mT @ torch.linalg.solve(linear @ linear.mT + damping, left[..., None]))[..., 0]
        if turned is not None:
            normals = _normals(vertices[some], skin.mesh.faces)
            before = unit((linear.mT @ normals[..., None].double())[..., 0])
            turned[some] = (before - vertex_normals(rest, skin.mesh.faces)).float()
    return found, turned


def _normals(vertices: Tensor, faces: Tensor) -> Tensor:
    return torch.stack([vertex_normals(frame, faces) for frame in vertices])


def _components(values: Tensor, tolerance: float, max_morphs: int | None) -> tuple[Tensor, Tensor]:
    """Principal components, with one target reserved for their offset (`_with_morphs`), if one is needed."""
    amounts, shapes = principal_shapes(values, tolerance, most=max_morphs)
    if max_morphs is None or len(shapes) < max_morphs or not bool((amounts < 0).any()):
        return amounts, shapes
    if max_morphs > 1:
        return principal_shapes(values, tolerance, most=max_morphs - 1)
    sign = -1 if -float(amounts.min()) > float(amounts.max()) else 1  # a single target has only one sign
    return (sign * amounts).clamp(min=0), sign * shapes


def _with_morphs(
    skin: SkinnedMesh, name: str, times: Tensor, amounts: Tensor, shapes: Tensor, turned: Tensor | None
) -> SkinnedMesh:
    """The skin with morph targets and their weights in its clip; normals of the targets by least squares.

    Other programs clamp weights to [0, 1], so each target is the range of its component from the smallest amount to the
    largest, and one more target, with weight 1 throughout the clip, is the sum of the components at their smallest amounts.
    """
    like, channels = skin.mesh.vertices, skin.clips[0].channels if len(skin) else ()
    if not len(shapes):
        return replace(skin, morphs=None, clips=(Clip(name, channels),))
    amounts, parts = amounts.double(), [shapes.double().flatten(1)]
    if turned is not None:
        parts.append(torch.linalg.pinv(amounts) @ turned.double().flatten(1))
    low, high = amounts.amin(0).clamp(max=0), amounts.amax(0).clamp(min=0)
    span = torch.where(high > low, high - low, 1)
    weights = ((amounts - low) / span).clamp(0, 1)
    moved = [span[:, None] * part for part in parts]
    if bool(low.any()):
        weights = torch.cat([torch.ones_like(weights[:, :1]), weights], 1)
        moved = [torch.cat([low[None] @ part, some]) for part, some in zip(parts, moved)]
    found = [part.view(-1, *like.shape).to(like) for part in moved]
    channel = Channel("weights", -1, times, weights.to(like))
    normals = found[1] if turned is not None else None
    return replace(skin, morphs=found[0], morph_normals=normals, clips=(Clip(name, (*channels, channel)),))


def _measured(skin: SkinnedMesh, vertices: Tensor, times: Tensor) -> FittedSkin:
    worst, total = 0.0, 0.0
    for some in torch.arange(len(times)).split(max(1, _BLOCK // max(1, vertices.shape[1]))):
        distances = torch.linalg.vector_norm(skin.posed(skin.clips[0], times[some]) - vertices[some], dim=-1)
        worst, total = max(worst, float(distances.max())), total + float(distances.double().sum())
    diagonal = _diagonal(skin.mesh) or 1.0
    return FittedSkin(replace(skin, fps=frame_rate(times)), worst / diagonal, total / vertices[..., 0].numel() / diagonal)
