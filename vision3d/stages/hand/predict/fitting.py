"""Angles, shape and position of the template for given vertices, and animated meshes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.registration import kabsch, umeyama
from vision3d.geometry.rotation import nearest_rotation, so3_exp, so3_log
from vision3d.scene.clip import Channel
from vision3d.scene.skin import SkinnedMesh
from vision3d.stages.hand.shape import HandShape
from vision3d.stages.hand.template import NUM_JOINTS, NUM_VERTICES, HandTemplate

_STEPS = 6
_STEP = 1e-5  # of the numerical derivatives [rad, m, factor]
_BEYOND = 0.15  # angles may leave their limits so far [rad]
_SHAPE_FRAMES = 12  # the shape of a hand is found from so many frames
_FRAMES = 32  # at a time
_SHAPE_M = 0.002  # residual that a change of the shape by 1 counts as, times the root of the number of vertices [m]
_ANGLE_M = 2e-5  # residual that an angle of 1 rad beside its first value counts as, likewise [m]
_HIDDEN = 1e-3
"""Scale of a hand in frames in which it is not seen: 0 is singular."""


@dataclass(frozen=True, eq=False)
class FittedHands:
    """Poses of one hand in T frames; `HandTemplate.pose` takes them."""

    angles: Float[Tensor, "t 20"]
    """[rad]"""
    rotation: Float[Tensor, "t 3 3"]
    """From the template to the frame of the vertices."""
    translation: Float[Tensor, "t 3"]
    """Of the wrist [m]."""
    shape: HandShape
    """The same in all frames."""
    error_mm: Float[Tensor, " t"]
    """Mean distance of the vertices [mm]."""


def fit_poses(vertices: Float[Tensor, "t 778 3"], hand: HandTemplate) -> FittedHands:
    """The poses and the shape of the template with the nearest vertices.

    First each bone is rotated onto the vertices that follow it, then Gauss-Newton steps on all vertices (Levenberg's damping,
    numerical derivatives): for the shape from some frames, then for the pose in all of them.

    Args:
        vertices: Of the template's topology, in any pose [m].
        hand: The template of the right side.

    Raises:
        ShapeError: They are not (T, 778, 3), T >= 1.
        InputError: A number is not finite.
    """
    if vertices.ndim != 3 or tuple(vertices.shape[1:]) != (NUM_VERTICES, 3) or not len(vertices):
        raise ShapeError("vertices", tuple(vertices.shape), f"(T, {NUM_VERTICES}, 3), T >= 1")
    if not bool(vertices.isfinite().all()):
        raise InputError("vertices: got a number that is not finite; no pose can be fitted")
    hand, target = hand.to(dtype=torch.float64), vertices.detach().cpu().double()
    some = torch.linspace(0, len(target) - 1, min(len(target), _SHAPE_FRAMES)).round().long()
    start, scale = _first(target[some], hand)
    factors = torch.cat([torch.ones(len(some), 10).double(), scale[:, None]], 1)
    found = _refined(target[some], hand, torch.cat([start, factors], 1), with_shape=True)
    shape = found[:, _POSE:].median(0).values
    parts = []
    for part in target.split(_FRAMES):
        start = _first(part, hand)[0]
        parts.append(_refined(part, hand, torch.cat([start, shape.expand(len(part), -1)], 1), with_shape=False))
    values = torch.cat(parts)
    fitted = _posed(hand, values)
    error = 1000 * torch.linalg.vector_norm(fitted - target, dim=-1).mean(1)
    values, shape, error = values.float(), shape.float(), error.float()
    return FittedHands(
        values[:, :20], so3_exp(values[:, 20:23]), values[:, 23:_POSE], HandShape(shape[:5], shape[5:10], shape[10]), error
    )


def skinned_mesh(
    template: HandTemplate, vertices: Sequence[Float[Tensor, "778 3"] | None], times: Sequence[float], name: str = "hand"
) -> SkinnedMesh:
    """The template with the shape of a hand, and its motion as a clip, in the camera's frame.

    Args:
        template: Of its side.
        vertices: The same hand at each time [m]; None where it is not seen: it is then too small to see.
        times: Ascending [s].
        name: Of the clip.

    Raises:
        InputError: It is never seen, or a number is not finite.
    """
    seen = [row for row, points in enumerate(vertices) if points is not None]
    known = [points for points in vertices if points is not None]
    if not known:
        raise InputError("vertices: got none, want at least one frame with the hand")
    fitted = fit_poses(torch.stack(known), template)
    shaped = template.shaped(fitted.shape)
    at = torch.tensor([times[row] for row in seen], dtype=torch.float64)
    clip = shaped.clip(fitted.angles, at, name)
    wrist = [
        Channel("rotation", 0, at, rotmat_to_quat(fitted.rotation)),
        Channel("translation", 0, at, fitted.translation),
    ]
    if len(seen) < len(vertices):
        scales = torch.full((len(vertices), 3), _HIDDEN)
        scales[seen] = 1.0
        wrist.append(Channel("scale", 0, torch.as_tensor(times, dtype=torch.float64), scales, "STEP"))
    return shaped.to_skinned_mesh([replace(clip, channels=(*wrist, *clip.channels))])


_POSE = 26
"""Numbers of a pose: 20 angles, rotation vector, translation; those of the shape follow: 5 lengths, 5 thicknesses, scale."""


def _posed(hand: HandTemplate, values: Tensor) -> Float[Tensor, "*batch 778 3"]:
    shape = HandShape(values[..., 26:31], values[..., 31:36], values[..., 36])
    rotation, translation = so3_exp(values[..., 20:23]), values[..., 23:26]
    return hand.pose(values[..., :20], rotation=rotation, translation=translation, shape=shape).vertices


def _refined(target: Tensor, hand: HandTemplate, start: Tensor, *, with_shape: bool) -> Tensor:
    """Gauss-Newton steps; each frame takes only steps that do not make it worse."""
    free = start.shape[1] if with_shape else _POSE
    low, high = (hand.angle_limits[:, side] for side in (0, 1))
    count = math.sqrt(target.shape[1])
    # Directions that the vertices do not determine stay where they are.
    weights = torch.full((free,), 1e-9, dtype=torch.float64)
    weights[:20] = (_ANGLE_M * count) ** 2
    weights[_POSE:] = (_SHAPE_M * count) ** 2
    values, damping = start.clone(), torch.full((len(start),), 1e-4, dtype=torch.float64)
    offset = (_posed(hand, values) - target).flatten(1)
    steps = _STEP * torch.eye(free, start.shape[1], dtype=torch.float64)
    for _ in range(_STEPS):
        moved = _posed(hand, values + steps[:, None])  # (free, T, 778, 3)
        jacobian = ((moved - target).flatten(2) - offset) / _STEP
        normal = torch.einsum("ptv,qtv->tpq", jacobian, jacobian)
        right = torch.einsum("ptv,tv->tp", jacobian, offset) + weights * (values - start)[:, :free]
        diagonal = normal.diagonal(dim1=1, dim2=2)
        normal = normal + torch.diag_embed(weights + damping[:, None] * diagonal)
        change = torch.zeros_like(values)
        change[:, :free] = torch.linalg.solve(normal, right)
        after = values - change
        after[:, :20] = after[:, :20].clamp(low - _BEYOND, high + _BEYOND)
        after[:, _POSE:] = after[:, _POSE:].clamp(0.5, 2.0)
        new = (_posed(hand, after) - target).flatten(1)
        is_better = new.square().sum(1) <= offset.square().sum(1)
        values = torch.where(is_better[:, None], after, values)
        offset = torch.where(is_better[:, None], new, offset)
        damping = torch.where(is_better, damping / 10, damping * 100)
    return values


def _first(target: Tensor, hand: HandTemplate) -> tuple[Float[Tensor, "t 26"], Float[Tensor, " t"]]:
    """A pose from the rotations of the bones, and the scale: similarities of the vertices that follow each joint."""
    frames = len(target)
    rest = hand.vertices.expand(frames, -1, -1)
    weights = hand.weights.square()
    scale, palm, shift = umeyama(rest, target, weights[:, 0].expand(frames, -1))
    rotations = [palm]
    for joint in range(1, NUM_JOINTS):
        rotations.append(kabsch(rest, target, weights[:, joint].expand(frames, -1))[0])
    angles = []
    for joint, parent in enumerate(hand.parents):
        if parent < 0:
            continue
        axes = nearest_rotation(hand.axes[joint].T)  # columns; those of the thumb are not orthogonal
        local = axes.T @ rotations[parent].mT @ rotations[joint] @ axes
        # R_x(flexion) R_y(abduction) R_z(twist)
        flexion = torch.atan2(-local[:, 1, 2], local[:, 2, 2])
        abduction = torch.asin(local[:, 0, 2].clamp(-1, 1))
        free = (hand.limits[joint, :, 1] > hand.limits[joint, :, 0]).tolist()
        angles += [value for value, is_free in zip((flexion, abduction), free) if is_free]
    found = torch.stack(angles, 1)
    low, high = hand.angle_limits.T
    wrist = (scale[:, None, None] * palm @ hand.places[0][:, None])[..., 0] + shift
    return torch.cat([found.clamp(low, high), so3_log(palm), wrist], 1), scale.clamp(0.5, 2.0)
