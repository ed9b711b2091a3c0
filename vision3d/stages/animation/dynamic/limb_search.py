"""Other starts for limbs that were lost: one limb after the other is turned at random, and the best turns are refined."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.scene import Cameras
from vision3d.stages.animation.dynamic.config import LossConfig
from vision3d.stages.animation.dynamic.frame_adam import FrameAdam
from vision3d.stages.animation.dynamic.joints import JointField, JointTree
from vision3d.stages.animation.dynamic.losses import blurred_loss
from vision3d.stages.animation.dynamic.painters import Painter, over

Losses = Callable[[Float[Tensor, "s c 3"]], Float[Tensor, " s"]]
"""Loss of each of some poses, given as rotation vectors of the joints [rad] and shifts of the roots [radii]."""

_SAMPLES, _BEST = 24, 2  # turns of a limb about a pose that are tried, and that are refined
_LIMBS = 8  # the most that are turned: fingers are found by what follows
_SPREAD_RAD = 0.9  # standard deviation of the turns
_BEND_SHARE = 0.7  # of that for the next joint of the limb
_STEPS, _RATE = 16, 0.05
_BLUR = 0.125  # factor on the weight of what is blurred: the images are small already


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
    """Losses of poses in one frame: colours over a background, opacity, both blurred, and the prior.

    Args:
        joints: What poses are of.
        vertices: At rest [m].
        painter: How the mesh looks.
        cameras: Of the frame, as many as there are targets.
        targets: Images over the background.
        masks: Their opacity.
        background: Colour.
        weights: Of the loss.
        prior: Weight of squared rotations from the rest pose, and factor on it for squared depths of the roots [radii].
        axis: Of depth; None where several cameras see it.
    """
    count = len(masks)

    def losses_of(poses: Tensor) -> Tensor:
        samples = len(poses)
        posed = joints.tree.pose(vertices, *joints.split(poses))
        rows = torch.arange(samples, device=posed.device).repeat_interleave(count)
        repeated = cameras[torch.arange(count).repeat(samples)]
        colors, alphas = painter.paint(posed, rows, replace(repeated, names=None, times=None))
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


def search_limbs(
    tree: JointTree, values: Float[Tensor, "c 3"], losses: Losses, random: torch.Generator
) -> tuple[Float[Tensor, "c 3"], float]:
    """The pose with the least loss among refined ones, each of which has one limb turned at its first two joints.

    Half of the turns are about the given pose, half about the limb at rest: a limb on the wrong side is far from its place.

    Args:
        tree: The joints.
        values: The pose to begin with, which is refined too.
        losses: Differentiable.
        random: Where the turns come from.

    Returns:
        The pose and its loss.
    """
    starts = [values[None]]
    for limb in tree.limbs[:_LIMBS]:
        tried = values.expand(2 * _SAMPLES, *values.shape).clone()
        tried[_SAMPLES:, limb] = 0
        for joint, size in zip(limb, (_SPREAD_RAD, _BEND_SHARE * _SPREAD_RAD)):
            tried[:, joint] += size * torch.randn(2 * _SAMPLES, 3, generator=random).to(values)
        with torch.no_grad():
            starts.append(tried[losses(tried).argsort(stable=True)[:_BEST]])
    return refined(torch.cat(starts), losses, _STEPS)


def refined(values: Float[Tensor, "s c 3"], losses: Losses, steps: int) -> tuple[Float[Tensor, "c 3"], float]:
    """The best of some poses and of what gradient descent makes of them, and its loss."""
    poses = torch.nn.Parameter(values.clone())
    optimizer = FrameAdam([{"params": [poses], "lr": _RATE}])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / (steps + 1))
        optimizer.zero_grad()
        losses(poses).sum().backward()
        optimizer.step()
    with torch.no_grad():
        every = torch.cat([poses, values])
        found = losses(every)
        best = int(found.argmin())
        return every[best].clone(), float(found[best])
