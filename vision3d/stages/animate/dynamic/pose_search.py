"""Search for joint poses in single frames: one frame is solved first, lost limbs are recovered, and all are revisited."""

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
from vision3d.stages.animate.dynamic.limb_search import (
    Losses,
    exchanged_limbs,
    pose_losses,
    refined,
    search_limbs,
    turned_bodies,
)
from vision3d.stages.animate.dynamic.painters import Painter, with_views
from vision3d.stages.animate.dynamic.pose_path import smoothest_path

logger = logging.getLogger("vision3d.animate")

SINGLE, DEPTH = 100.0, 10.0
"""With one camera: factors on the weight of `pose`, and on that of depths [radii^2] in it."""
_SCOUTS, _SCOUT_ROUNDS, _MIN_STEPS = 4, 3, 100  # candidate frames to start from; shorter runs are not searched
_REFINED_STEPS, _REVISITED_STEPS, _EXCHANGED_STEPS = 40, 16, 40
_SEARCH_SIDE, _SEARCHED_VIEWS = 32, 4  # pixels and cameras
_PROPOSALS = 2  # for each frame, in addition to its own pose
_JUMP, _TRACED = 1.0, 1000  # weight of mean squared second differences in time [radii^2], maximum number of vertices
_WORSE, _ROUNDS = 1.2, 3  # relative to the loss of a matched frame: repeat the limb search up to this many times


def is_searched(config: AnimateConfig, frames: int) -> bool:
    """Whether a run with this many frames is long enough to search poses."""
    return config.grow * config.total_steps(frames) > _MIN_STEPS


class PoseSearch:
    """Frames to be searched, one per step of the fit, and the results.

    Args:
        config: Options.
        joints: The joints to search; their values change.
        optimizer: Optimizer of these values; the state of changed frames is reset.
        vertices: Rest pose of the mesh [m].
        painter: Renderer of the mesh.
        footage: The target images.
        cameras: One per image.
        views: Images of each training frame.
        background: Background color.
        random: Random generator for limb rotations.
        is_borrowed: Whether the joints were made from the surface (`surface_rig`): body twists are then tried as well.
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
        *,
        is_borrowed: bool = False,
    ) -> None:
        self.is_borrowed = is_borrowed
        self.config, self.joints, self.optimizer = config, joints, optimizer
        self.vertices, self.painter, self.footage, self.cameras = vertices, painter, footage, cameras
        self.views, self.random = views, random
        self.background = background.to(joints.values)
        self.is_single = all(len(some) == 1 for some in views.values())
        frames = list(views)
        self.is_long = is_searched(config, len(footage.times))
        # Candidate frames to start from, whether to search limbs, and the losses of their last rounds.
        is_open = self.is_long and config.reference not in frames
        some = spread(frames, _SCOUTS)
        self.scouts = [(frame, turn > 0) for turn in range(_SCOUT_ROUNDS) for frame in some] if is_open else []
        self.revisits: list[tuple[int, str]] = []  # plain, limbs or twists
        self.proposals: dict[int, tuple[Tensor, Tensor]] = {}  # poses and their losses
        self.losses: dict[int, float] = {}
        self.scouted: dict[int, Tensor] = {}  # poses
        self.visited: set[int] = set()

    @property
    def is_due(self) -> bool:
        return bool(self.scouts or self.revisits)

    def step(self, intake: Intake) -> float:
        """Search the next frame, and return its loss."""
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
            (frame, kind), self.revisits = self.revisits[0], self.revisits[1:]
            is_proposed = kind == "twists"
            self.losses[frame] = loss = self._propose(frame) if is_proposed else self._revisit(frame, limbs=kind == "limbs")
            if is_proposed and not any(other == kind for _, other in self.revisits):
                self._choose()
        return loss

    def plan_revisits(self, order: list[int]) -> None:
        """Once all frames are added: compare each with the poses of its neighbors, inwards, outwards and inwards.

        A limb that is lost in some frames at one end is thereby replaced by that of a frame where it is not. Before the last
        pass, poses with other body twists are proposed for each frame, and one is chosen jointly for all frames.
        """
        if self.is_long and len(order) > 1:
            rest = [frame for frame in order if frame != self.config.reference]
            self.losses = {}
            twists = [*rest, *rest[::-1]] if self.is_borrowed else []
            passes = (("plain", rest), ("limbs", rest[::-1]), ("twists", twists), ("plain", rest))
            self.revisits = [(frame, kind) for kind, frames in passes for frame in frames]

    def search(self, frame: int, *, limbs: bool) -> float:
        """Refine the pose of a frame on small images, with or without a full limb search, and return its loss."""
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
        state = {name: getattr(self, name) for name in ("scouts", "revisits", "losses", "scouted", "proposals")}
        return state | {"visited": sorted(self.visited)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scouts, self.revisits = ([tuple(pair) for pair in state[name]] for name in ("scouts", "revisits"))
        self.losses, self.visited = dict(state["losses"]), set(state["visited"])
        self.scouted = {frame: pose.to(self.joints.values) for frame, pose in state["scouted"].items()}
        self.proposals = {
            frame: (poses.to(self.joints.values), losses.to(self.joints.values))
            for frame, (poses, losses) in state["proposals"].items()
        }

    def _revisit(self, frame: int, *, limbs: bool) -> float:
        """The best of a frame's pose and its neighbors' poses; limbs are searched if that is worse than usual."""
        row, poses = self._row(frame), self.joints.at_keys().detach()
        images_of = self._losses_of(frame)
        losses_of = self._smoothly(images_of, poses, frame)
        usual = self._usual()
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

    def _usual(self) -> float:
        """The loss of a matched frame: the lower quartile, since the others may all be lost in the same way."""
        return sorted(self.losses.values())[len(self.losses) // 4] if self.losses else float("inf")

    def _propose(self, frame: int) -> float:
        """Refine alternatives to a frame's pose: other body twists, and the proposals of its neighbors.

        If the frame is lost, limbs are searched for each other twist. In the second pass only the neighbors' proposals are new.
        """
        losses_of, own = self._losses_of(frame), self.joints.at_keys()[self._row(frame)].detach()
        loss = _one(losses_of, own)
        is_first = frame not in self.proposals
        beside = self._beside(frame)
        found = [refined(torch.stack(beside), losses_of, _REVISITED_STEPS)] if beside else []
        if is_first:
            for start in turned_bodies(self.joints, self.vertices, own):
                found.append(refined(start[None], losses_of, _REVISITED_STEPS))
                if loss > _WORSE * self._usual():
                    found[-1] = search_limbs(self.joints.tree, found[-1][0], losses_of, self.random)
        else:
            found += [(pose, float(value)) for pose, value in zip(*self.proposals[frame])][1:]
        found = [(own, loss), *sorted(found, key=lambda pair: pair[1])[:_PROPOSALS]]
        poses, losses = zip(*found)
        self.proposals[frame] = torch.stack(poses), own.new_tensor(losses)
        logger.debug("frame %d: loss %s", frame, ", proposed ".join(f"{value:.4f}" for value in losses))
        return loss

    def _beside(self, frame: int) -> list[Tensor]:
        """The best proposal of each neighbor that has one in addition to its own pose."""
        frames = sorted(self.views)
        place = frames.index(frame)
        near = [other for other in frames[max(place - 1, 0) : place + 2] if other != frame and other in self.proposals]
        return [self.proposals[other][0][1] for other in near if len(self.proposals[other][0]) > 1]

    @torch.no_grad()
    def _choose(self) -> None:
        """Choose one of the proposals for each frame, so that images are explained and vertices move smoothly."""
        frames = sorted(self.proposals)
        poses, losses = zip(*(self.proposals[frame] for frame in frames))
        rows, tree = spread(range(len(self.vertices)), _TRACED), self.joints.tree
        points = [tree.pose(self.vertices, *self.joints.split(some))[:, rows] / self.joints.radius for some in poses]
        path = smoothest_path(self.footage.times[frames], points, losses, _JUMP)
        for frame, some, values, chosen in zip(frames, poses, losses, path):
            if chosen:
                self._take(self._row(frame), some[chosen])
                self.losses[frame] = float(values[chosen])
                logger.debug("frame %d: takes what was proposed", frame)
        self.proposals = {}

    def _smoothly(self, losses_of: Losses, poses: Float[Tensor, "k c 3"], frame: int) -> Losses:
        """Losses plus the distance of a pose from those of adjacent frames that were already visited.

        Images of thin limbs hardly distinguish left from right; a limb that jumps between them does.
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
        """A pose, or the one with exchanged limbs if that is better after refining both."""
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
