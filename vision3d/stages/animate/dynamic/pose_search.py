"""Poses of joints that are looked for in single frames: one comes first, lost limbs are found again, and all are revisited."""

import logging
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.report.sheets import spread
from vision3d.scene import Cameras
from vision3d.stages.animate.dynamic.config import AnimateConfig
from vision3d.stages.animate.dynamic.footage import Footage
from vision3d.stages.animate.dynamic.frame_adam import FrameAdam
from vision3d.stages.animate.dynamic.intake import Intake
from vision3d.stages.animate.dynamic.joints import JointField
from vision3d.stages.animate.dynamic.limb_search import Losses, exchanged_limbs, pose_losses, refined, search_limbs
from vision3d.stages.animate.dynamic.painters import Painter, with_views

logger = logging.getLogger("vision3d.animate")

SINGLE, DEPTH = 100.0, 10.0
"""With one camera: factors on the weight of `pose`, and of depths [radii^2] beside it."""
_SCOUTS, _SCOUT_ROUNDS, _FEWEST_STEPS = 4, 3, 100  # frames of which one comes first; no search in a run that is shorter
_REFINED_STEPS, _REVISITED_STEPS, _EXCHANGED_STEPS = 40, 16, 40
_SEARCH_SIDE, _SEARCHED_VIEWS = 32, 4  # pixels and cameras
_WORSE, _ROUNDS = 1.2, 3  # times the loss of a frame that was found: limbs are looked for so often more


def is_searched(config: AnimateConfig, frames: int) -> bool:
    """Whether a run of so many frames is long enough to search poses."""
    return config.grow * config.total_steps(frames) > _FEWEST_STEPS


class PoseSearch:
    """Which frames are searched, each in one step of the fit, and what that found.

    Args:
        config: Options.
        joints: What is searched; its values change.
        optimizer: Of these values; forgets the frames that change.
        vertices: Of the mesh at rest [m].
        painter: How the mesh looks.
        footage: What it is compared with.
        cameras: One an image.
        views: Images of each frame that is fitted to.
        background: Colour behind the images.
        random: Where turns of limbs come from.
    """

    def __init__(
        self,
        config: AnimateConfig,
        joints: JointField,
        optimizer: FrameAdam,
        vertices: Float[Tensor, "v 3"],
        painter: Painter,
        footage: Footage,
        cameras: Cameras,
        views: dict[int, Int64[Tensor, " n"]],
        background: Float[Tensor, " 3"],
        random: torch.Generator,
    ) -> None:
        self.config, self.joints, self.optimizer = config, joints, optimizer
        self.vertices, self.painter, self.footage, self.cameras = vertices, painter, footage, cameras
        self.views, self.random = views, random
        self.background = background.to(joints.values)
        self.is_single = all(len(some) == 1 for some in views.values())
        frames = list(views)
        self.is_long = is_searched(config, len(footage.times))
        # Frames one of which is found first, whether limbs are looked for, and the losses of their last rounds.
        is_open = self.is_long and config.reference not in frames
        some = spread(frames, _SCOUTS)
        self.scouts = [(frame, turn > 0) for turn in range(_SCOUT_ROUNDS) for frame in some] if is_open else []
        self.revisits: list[tuple[int, bool]] = []
        self.losses: dict[int, float] = {}
        self.scouted: dict[int, Tensor] = {}  # poses
        self.visited: set[int] = set()

    @property
    def is_due(self) -> bool:
        return bool(self.scouts or self.revisits)

    def step(self, intake: Intake) -> float:
        """Search the frame that is next, and give its loss."""
        if self.scouts:
            (frame, limbs), self.scouts = self.scouts[0], self.scouts[1:]
            self.losses[frame] = loss = self.search(frame, limbs=limbs)
            self.scouted[frame] = self.joints.at_keys()[self._row(frame)].detach().clone()
            if not self.scouts:
                best = min(self.losses, key=self.losses.__getitem__)
                logger.debug("the best pose is that of frame %d", best)
                intake.begin_at(best)
                self.losses = {}
        else:
            (frame, limbs), self.revisits = self.revisits[0], self.revisits[1:]
            self.losses[frame] = loss = self._revisit(frame, limbs=limbs)
        return loss

    def plan_revisits(self, order: list[int]) -> None:
        """Once all frames have come in: each is compared with the poses of its neighbours, inwards, outwards and inwards.

        A limb that was lost in some frames at one end is so replaced by that of a frame where it was not.
        """
        if self.is_long and len(order) > 1:
            rest = [frame for frame in order if frame != self.config.reference]
            self.losses = {}
            self.revisits = [(f, False) for f in rest] + [(f, True) for f in rest[::-1]] + [(f, False) for f in rest]

    def search(self, frame: int, *, limbs: bool) -> float:
        """Refine the pose of a frame in small images, with limbs that are looked for all over or not, and give its loss."""
        row, losses_of = self._row(frame), self._losses_of(frame)
        start = self.joints.at_keys()[row].detach()
        if limbs:
            found, loss = search_limbs(self.joints.tree, start, losses_of, self.random)
            found, loss = self._exchanged(found, loss, losses_of)
        else:
            found, loss = refined(start[None], losses_of, _REFINED_STEPS)
        self._take(row, found)
        logger.debug("frame %d: loss %.4f in small images%s", frame, loss, ", with a search of limbs" if limbs else "")
        return loss

    def state_dict(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("scouts", "revisits", "losses", "scouted")}
        return state | {"visited": sorted(self.visited)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scouts, self.revisits = ([tuple(pair) for pair in state[name]] for name in ("scouts", "revisits"))
        self.losses, self.visited = dict(state["losses"]), set(state["visited"])
        self.scouted = {frame: pose.to(self.joints.values) for frame, pose in state["scouted"].items()}

    def _revisit(self, frame: int, *, limbs: bool) -> float:
        """The best of what a frame has and of what its neighbours have; limbs are looked for where that is worse than usual."""
        row, poses = self._row(frame), self.joints.at_keys().detach()
        images_of = self._losses_of(frame)
        losses_of = self._smoothly(images_of, poses, frame)
        # A quarter of the frames were found: others may all be lost in the same way.
        usual = sorted(self.losses.values())[len(self.losses) // 4] if self.losses else float("inf")
        near = [other for other in (row - 1, row + 1) if 0 <= other < len(poses)]
        starts = [poses[row], *(poses[other] for other in near), poses[near].mean(0)]
        starts += [self.scouted[frame]] if frame in self.scouted else []
        before = _one(images_of, starts[0])
        found, loss = refined(torch.stack(starts), losses_of, _REVISITED_STEPS)
        if limbs:
            found, loss = self._exchanged(found, loss, losses_of)
        rounds = 0
        while limbs and _one(images_of, found) > _WORSE * usual and rounds < _ROUNDS:
            found, loss = search_limbs(self.joints.tree, found, losses_of, self.random)
            rounds += 1
        loss = _one(images_of, found)
        self._take(row, found)
        self.visited.add(frame)
        logger.debug("frame %d revisited: loss %.4f to %.4f, %d searches of limbs", frame, before, loss, rounds)
        return loss

    def _smoothly(self, losses_of: Losses, poses: Float[Tensor, "k c 3"], frame: int) -> Losses:
        """Losses with how far a pose is from those of the frames beside it that were visited already.

        Images of thin limbs hardly tell left from right; a limb that jumps from one to the other does.
        """
        frames = sorted(self.views)
        place = frames.index(frame)
        beside = [other for other in frames[max(place - 1, 0) : place + 2] if other != frame and other in self.visited]
        if not beside:
            return losses_of
        near, weight = poses[[self._row(other) for other in beside]], self.config.loss.acceleration

        def smooth_losses_of(some: Tensor) -> Tensor:
            return losses_of(some) + weight * (some[:, None] - near).square().sum((1, 3)).mean(1)

        return smooth_losses_of

    def _exchanged(self, pose: Float[Tensor, "c 3"], loss: float, losses_of: Losses) -> tuple[Float[Tensor, "c 3"], float]:
        """A pose, or the one with limbs that changed places where that is better once both are refined."""
        others = exchanged_limbs(self.joints, self.vertices, pose)
        if not len(others):
            return pose, loss
        other, least = refined(others, losses_of, _EXCHANGED_STEPS)
        return (other, least) if least < loss else (pose, loss)

    def _row(self, frame: int) -> int:
        keys = self.joints.get_buffer("keys")
        return int(torch.searchsorted(keys, self.footage.times[frame].to(keys)))

    @torch.no_grad()
    def _take(self, row: int, pose: Tensor) -> None:
        self.joints.values[row] = pose
        self.optimizer.forget(self.joints.values, row)

    def _losses_of(self, frame: int) -> Losses:
        views = self.views[frame][:_SEARCHED_VIEWS].to(self.vertices.device)
        factor = max(1, min(self.footage.size) // _SEARCH_SIDE)
        cameras = with_views(self.cameras, views, factor)
        targets, masks = self.footage.read(views, factor, self.background)
        weights = self.config.loss
        prior = (SINGLE * weights.pose, DEPTH) if self.is_single else (weights.pose, 0.0)
        axis = self.cameras.viewmats[views[0], 2, :3] if self.is_single else None
        return pose_losses(
            self.joints, self.vertices, self.painter, cameras, targets, masks, self.background, weights, prior, axis
        )


@torch.no_grad()
def _one(losses: Losses, pose: Float[Tensor, "c 3"]) -> float:
    """The loss of one pose."""
    return float(losses(pose[None])[0])
