"""Random restarts for lost limbs: one limb at a time is rotated at random, and the best candidates are refined."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.rotation import so3_exp, so3_log
from vision3d.scene import Cameras
from vision3d.stages.animate.dynamic.config import LossConfig
from vision3d.stages.animate.dynamic.frame_adam import FrameAdam
from vision3d.stages.animate.dynamic.joints import JointField, JointTree
from vision3d.stages.animate.dynamic.losses import blurred_loss
from vision3d.stages.animate.dynamic.painters import Painter, over

Losses = Callable[[Float[Tensor, "s c 3"]], Float[Tensor, " s"]]
"""Loss of a batch of poses, given as rotation vectors of the joints [rad] and translations of the roots [radii]."""

_SAMPLES, _BEST = 24, 2  # rotations of a limb per pose that are tried, and that are refined
_LIMBS = 8  # maximum number of limbs: later steps find fingers
_SPREAD_RAD = 0.9  # standard deviation of the rotations
_BEND_SHARE = 0.7  # fraction of that for another joint of the limb
_ALIKE, _PAIRS = 1.5, 3  # maximum size ratio of limbs that may be exchanged; maximum number of pairs
_MAX_TWIST_RAD = math.pi / 2  # limbs hanging side by side do not determine the twist of a body
_STEPS, _RATE = 16, 0.05
_FINE_STEPS, _FINE_RATE = 40, 0.03  # for the best one
_BLUR = 0.125  # factor on the weight of the blurred terms: the images are already small


def pose_losses(
    joints: JointField,
    vertices: Float[Tensor, "v 3"],
    painter: Painter,
    cameras: Cameras,
    targets: Float[Tensor, "c h w 3"],
    masks: Float[Tensor, "c h w"],
    background: Float[Tensor, " 3"],
    weights: LossConfig,
    prior: tuple[float, float],
    axis: Float[Tensor, " 3"] | None,
) -> Losses:
    """Losses of poses in one frame: colors over a background, opacity, both blurred, and the prior.

    Args:
        joints: The joints of the poses.
        vertices: Rest pose [m].
        painter: Renderer of the mesh.
        cameras: Cameras of the frame, as many as targets.
        targets: Images over the background.
        masks: Their opacity.
        background: Background color.
        weights: Weights of the loss.
        prior: Weight of squared rotations from the rest pose, and factor on it for squared depths of the roots [radii].
        axis: Axis of depth; None if several cameras see it.
    """
    count = len(masks)

    def losses_of(poses: Tensor) -> Tensor:
        samples = len(poses)
        posed = joints.tree.pose(vertices, *joints.split(poses))
        rows = torch.arange(samples, device=posed.device).repeat_interleave(count)
        repeated = cameras[torch.arange(count).repeat(samples)]
        colors, alphas = painter.paint(posed, rows, replace(repeated, names=None, times=None), (masks.shape[2], masks.shape[1]))
        gaps = [over(colors, alphas, background) - targets.repeat(samples, 1, 1, 1)]
        gaps.append((alphas - masks.repeat(samples, 1, 1))[..., None])
        both = torch.cat(gaps, -1).unflatten(0, (samples, count))
        blurs = torch.stack([blurred_loss(some) for some in both])
        near = both[..., :3].abs().mean((1, 2, 3, 4))
        opacity = both[..., 3].square().mean((1, 2, 3))
        turns, shifts = joints.split(poses)
        bends = turns.square().mean((1, 2))
        if axis is not None:
            bends = bends + prior[1] * joints.depths(shifts, axis.expand(samples, 3)).square().mean(1)
        return weights.rgb * near + weights.mask * opacity + _BLUR * weights.blurred * blurs + prior[0] * bends

    return losses_of


def exchanged_limbs(joints: JointField, vertices: Float[Tensor, "v 3"], values: Float[Tensor, "c 3"]) -> Float[Tensor, "s c 3"]:
    """Poses in which two limbs of similar size point to each other's positions: each such pair alone, and all at once.

    Confused legs are at positions that nearly explain the images: rotating one alone leaves the other's position empty.

    Args:
        joints: The joints of the pose.
        vertices: Rest pose [m].
        values: The pose.
    """
    pairs, frames, centers = _like_limbs(joints, vertices, values)
    limbs, turned = joints.tree.limbs, values.clone()
    for i, j in [*pairs, *(pair[::-1] for pair in pairs)]:
        joint = limbs[i][0]
        own, pivot = so3_exp(values[joint]), frames[joint, :3, 3]
        axes = frames[joint, :3, :3] @ own.mT
        turned[joint] = so3_log(axes.mT @ _turn_between(centers[i] - pivot, centers[j] - pivot) @ axes @ own)
    found = [turned] if len(pairs) > 1 else []
    for i, j in pairs:
        rows = [limbs[i][0], limbs[j][0]]
        found.append(values.index_copy(0, torch.tensor(rows, device=values.device), turned[rows]))
    return torch.stack(found) if found else values.new_zeros(0, *values.shape)


def turned_bodies(joints: JointField, vertices: Float[Tensor, "v 3"], values: Float[Tensor, "c 3"]) -> Float[Tensor, "s c 3"]:
    """Poses in which the parent of two limbs of similar size is twisted the other way, and everything that it carries stays.

    Similar limbs distinguish a twist from its mirror image only by their identity: hips that lag behind a stride look like hips
    that are ahead of it. Limbs attached to them, such as arms, are exchanged if they were found under the wrong twist.

    Args:
        joints: The joints of the pose.
        vertices: Rest pose [m].
        values: The pose.
    """
    tree, found = joints.tree, []
    pairs, frames, centers = _like_limbs(joints, vertices, values)
    for i, j in pairs:
        first, second = tree.limbs[i][0], tree.limbs[j][0]
        # The angle from the line of the hips to that of the legs, and to that of the legs with exchanged identities.
        across, apart = frames[second, :3, 3] - frames[first, :3, 3], centers[j] - centers[i]
        axis = torch.linalg.cross(across, apart)
        angle = 2 * float(torch.atan2(torch.linalg.vector_norm(axis), (across * apart).sum())) - math.pi
        body = _common(tree.parents, first, second)
        if body < 0 or abs(angle) > _MAX_TWIST_RAD:
            continue
        turn = so3_exp(torch.nn.functional.normalize(axis, dim=0) * angle)
        turned = values.clone()
        for joint in [body, *(joint for joint, parent in enumerate(tree.parents) if parent == body)]:
            own = so3_exp(values[joint])
            axes = frames[joint, :3, :3] @ own.mT
            turned[joint] = _log_near(axes.mT @ (turn if joint == body else turn.mT) @ axes @ own, values[joint])
        found.append(turned)
    return torch.stack(found) if found else values.new_zeros(0, *values.shape)


def _like_limbs(
    joints: JointField, vertices: Float[Tensor, "v 3"], values: Float[Tensor, "c 3"]
) -> tuple[list[tuple[int, int]], Float[Tensor, "j 4 4"], list[Float[Tensor, " 3"]]]:
    """Pairs of limbs of similar size, each limb at most once; frames of the joints in this pose, and centers of limbs."""
    tree, limbs = joints.tree, joints.tree.limbs[:_LIMBS]
    turns, shifts = joints.split(values[None])
    matrices, posed = tree.matrices(turns, shifts)[0], tree.pose(vertices, turns, shifts)[0]
    weights = tree.skin.weights
    shares = [torch.where(torch.isin(tree.indices, tree.indices.new_tensor(limb)), weights, 0).sum(1) for limb in limbs]
    sizes = [max(float(share.sum()), 1e-9) for share in shares]
    centers = [(share[:, None] * posed).sum(0) / size for share, size in zip(shares, sizes)]
    pairs: list[tuple[int, int]] = []
    for i, j in itertools.combinations(range(len(limbs)), 2):
        is_free = not any({i, j} & set(pair) for pair in pairs)
        if is_free and len(pairs) < _PAIRS and max(sizes[i], sizes[j]) < _ALIKE * min(sizes[i], sizes[j]):
            pairs.append((i, j))
    return pairs, matrices @ tree.frames, centers


def _common(parents: tuple[int, ...], first: int, second: int) -> int:
    """The nearest common ancestor of two joints; -1 in separate trees."""
    above = set()
    while first >= 0:
        first = parents[first]
        above.add(first)
    while second not in above:
        second = parents[second]
    return second


def _log_near(rotation: Float[Tensor, "3 3"], near: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """Of the two rotation vectors within a full revolution, the one nearest to `near`, to compare neighboring frames."""
    vector = so3_log(rotation)
    other = vector - 2 * math.pi * torch.nn.functional.normalize(vector, dim=0)
    return vector if (vector - near).norm() <= (other - near).norm() else other


def _turn_between(start: Float[Tensor, " 3"], end: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation between two directions."""
    axis = torch.linalg.cross(start, end)
    sine = torch.linalg.vector_norm(axis)
    return so3_exp(axis / sine.clamp(min=1e-12) * torch.atan2(sine, (start * end).sum()))


def search_limbs(
    tree: JointTree, values: Float[Tensor, "c 3"], losses: Losses, random: torch.Generator
) -> tuple[Float[Tensor, "c 3"], float]:
    """The refined pose with the smallest loss among candidates with one limb rotated at two of its joints, or all limbs.

    Half of the rotations are about the given pose, half about the limb's rest pose: a limb on the wrong side is far away.

    Args:
        tree: The joints.
        values: The initial pose, which is refined as well.
        losses: Differentiable losses.
        random: Random generator.

    Returns:
        The pose and its loss.
    """
    starts, every = [values[None]], values.clone()  # the latter with all rotations that improved it
    with torch.no_grad():
        least = float(losses(every[None])[0])
        for limb in tree.limbs[:_LIMBS]:
            tried = every.expand(2 * _SAMPLES, *values.shape).clone()
            tried[_SAMPLES:, limb] = 0
            tried[:, limb[0]] += _SPREAD_RAD * torch.randn(2 * _SAMPLES, 3, generator=random).to(values)
            if len(limb) > 1:
                # A knee may be any joint except the first and, in a long limb, the last.
                bent = torch.tensor(limb)[1 + torch.randint(max(1, len(limb) - 2), (2 * _SAMPLES,), generator=random)]
                bends = _BEND_SHARE * _SPREAD_RAD * torch.randn(2 * _SAMPLES, 3, generator=random)
                tried[torch.arange(2 * _SAMPLES), bent.to(values.device)] += bends.to(values)
            found = losses(tried)
            best = found.argsort(stable=True)[:_BEST]
            alone = values.expand(len(best), *values.shape).clone()
            alone[:, limb] = tried[best][:, limb]
            starts.append(alone)
            if float(found[best[0]]) < least:
                every, least = tried[best[0]], float(found[best[0]])
    return refined(torch.cat([*starts, every[None]]), losses, _STEPS)


def refined(values: Float[Tensor, "s c 3"], losses: Losses, steps: int) -> tuple[Float[Tensor, "c 3"], float]:
    """The best of some poses and their refinements by gradient descent, refined further, and its loss."""
    best, _ = _descended(values, losses, steps, _RATE)
    return _descended(best[None], losses, _FINE_STEPS, _FINE_RATE)


def _descended(values: Float[Tensor, "s c 3"], losses: Losses, steps: int, rate: float) -> tuple[Float[Tensor, "c 3"], float]:
    poses = torch.nn.Parameter(values.clone())
    optimizer = FrameAdam([{"params": [poses], "lr": rate}])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / (steps + 1))
        optimizer.zero_grad()
        losses(poses).sum().backward()
        optimizer.step()
    with torch.no_grad():
        every = torch.cat([poses, values])
        found = losses(every)
        best = int(found.argmin())
        return every[best].clone(), float(found[best])
