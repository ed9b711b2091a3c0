"""Training steps of a motion fit: frames, poses, images, loss, gradients."""

import logging
import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.core.device import sent
from vision3d.core.errors import NumericalError
from vision3d.geometry.arap import Arap
from vision3d.geometry.mesh import weld_vertices
from vision3d.optim import losses
from vision3d.optim.metrics import mask_iou
from vision3d.render.meshes.shading import first_of_each
from vision3d.report.sheets import spread
from vision3d.scene import Cameras
from vision3d.stages.animate.dynamic.backgrounds import background_color
from vision3d.stages.animate.dynamic.config import AnimateConfig
from vision3d.stages.animate.dynamic.fields import NodePoses
from vision3d.stages.animate.dynamic.footage import Footage
from vision3d.stages.animate.dynamic.frame_adam import FrameAdam
from vision3d.stages.animate.dynamic.intake import Intake
from vision3d.stages.animate.dynamic.joints import JointField
from vision3d.stages.animate.dynamic.losses import NormalConsistency, acceleration_loss, blurred_loss, edge_loss
from vision3d.stages.animate.dynamic.motion import Motion
from vision3d.stages.animate.dynamic.painters import Painter, on_white, over, with_views
from vision3d.stages.animate.dynamic.pose_search import DEPTH, SINGLE, PoseSearch
from vision3d.stages.animate.guidance.base import Guide

logger = logging.getLogger("vision3d.animate")

HINT = "the checkpoint of the previous step was written; lower the learning rates or check the frames"
_SSIM_WINDOW = 11  # pixels
_FINAL_LR = 0.02  # factor on the learning rates at the end
_YIELD_EVERY = 20  # steps between updates of the robust edge weights
_YIELD_FRAMES, _BLOCK = 64, 8  # maximum number of frames used for them, and frames per block
_TRACKED_VIEWS = 4  # minimum number of views of the newest frame
_EARLY, _LATE_JOINTS = 0.7, 0.3  # fraction of a frame's steps, and factor on the learning rate of joints after it
_NODES_FROM, _HAND_OVER = 0.6, 0.3  # fraction of the steps after all frames are added: adding nodes, replacing borrowed joints
_OWN_VIEWS = 32  # number of images for comparing joints alone with joints and nodes
_START_FRAMES = 32  # number of frames compared with the rest mesh


class Trainer:
    """The state of a motion fit and its steps.

    Args:
        motion: The motion to fit.
        painter: Renderer of the mesh.
        footage: The target images.
        cameras: One per image.
        seen: Indices of the training images.
        guide: Optional guidance for other sides.
    """

    def __init__(
        self,
        config: AnimateConfig,
        motion: Motion,
        painter: Painter,
        footage: Footage,
        cameras: Cameras,
        seen: Int64[Tensor, " m"],
        guide: Guide | None = None,
    ) -> None:
        self.guide = guide
        self.config, self.motion, self.painter = config, motion, painter
        self.footage, self.cameras = footage, cameras
        frames = footage.frames.cpu()[seen]
        self.frames = frames.unique().tolist()
        self.views = {frame: seen[frames == frame] for frame in self.frames}
        self.steps = config.total_steps(len(footage.times))
        self.is_single = all(len(views) == 1 for views in self.views.values())
        self.intake = Intake(self._order(), round(config.grow * self.steps), config.reference in self.frames)
        self.all_in_at = None if config.grow else 0
        places, faces, place = weld_vertices(motion.mesh.vertices, motion.mesh.faces)
        self.first = first_of_each(place)
        self.stiff = self.arap = Arap.of(places, faces)
        self.normals = NormalConsistency(places, faces)
        self.random = torch.Generator().manual_seed(config.seed)
        self.background = background_color(footage)
        groups = motion.field.groups(config.motion)
        self.learning_rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)
        self.joint_optimizer, self.search = None, None
        if motion.joints is not None:
            self.joint_optimizer = FrameAdam([{"params": [motion.joints.values], "lr": config.motion.joint_rate}])
            given = motion.mesh.vertices, painter, footage, cameras, self.views, self.background, self.random
            self.search = PoseSearch(config, motion.joints, self.joint_optimizer, *given, is_borrowed=motion.is_borrowed)
        self.joint_poses: Tensor | None = None  # before nodes were added

    def step(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Do step number `step` (from 0) at this progress in [0, 1).

        Returns:
            The loss and its terms.

        Raises:
            NumericalError: The loss or a gradient is not finite; the parameters are those before the step.
        """
        if self.search is None or not self.search.is_due:
            self._let_in(step)
        if self.search is not None and self.search.is_due:
            return {"loss": self.search.step(self.intake), "frames": self.intake.num_active}
        since = self._since_all_are_in(step)
        self._let_nodes_in(since)
        if self.config.loss.limit and step % _YIELD_EVERY == 0 and self.intake.is_done and self.motion.joints is None:
            self.arap = self.stiff.yielding(self._strains(), self.config.loss.limit)
        self._set_learning_rates(since)
        chosen = self._choose()
        total, terms = self._loss(chosen, progress, since)
        for optimizer in self._optimizers():
            optimizer.zero_grad()
        total.backward()
        parameters = [p for optimizer in self._optimizers() for group in optimizer.param_groups for p in group["params"]]
        checked = [total.detach(), *(p.grad for p in parameters if p.grad is not None)]
        is_finite, *are_finite = torch.stack([torch.isfinite(value).all() for value in checked]).tolist()  # one wait on a GPU
        if not (is_finite and all(are_finite)):
            raise NumericalError(step, "a gradient" if is_finite else "the loss", HINT)
        for optimizer in self._optimizers():
            optimizer.step()
        values = {f"{name}_loss": value.detach() for name, value in terms.items()}
        return {"loss": total.detach(), **values, "frames": self.intake.num_active}

    def state_dict(self) -> dict[str, Any]:
        """State needed for exact resume."""
        state = {
            "field": self.motion.field.state_dict(),
            "graph": self.motion.graph.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "intake": self.intake.state_dict(),
            "all_in_at": self.all_in_at,
            "stiffness": self.arap.weights,
            "uses_nodes": self.motion.uses_nodes,
        }
        if self.motion.joints is not None and self.joint_optimizer is not None and self.search is not None:
            state["search"] = self.search.state_dict()
            state["joints"] = self.motion.joints.state_dict()
            state["joint_optimizer"] = self.joint_optimizer.state_dict()
            state["joint_poses"] = self.joint_poses
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`; the graph is that of `motion`."""
        self.motion.field.load_state_dict(state["field"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"].cpu())
        self.intake.load_state_dict(state["intake"])
        self.all_in_at, self.motion.uses_nodes = state["all_in_at"], state["uses_nodes"]
        self.arap = replace(self.stiff, weights=state["stiffness"].to(self.stiff.weights))
        if self.motion.is_borrowed and "joints" not in state:
            self.motion.joints = self.joint_optimizer = self.search = None
        if self.motion.joints is not None and self.joint_optimizer is not None and self.search is not None:
            self.search.load_state_dict(state["search"])
            self.motion.joints.load_state_dict(state["joints"])
            self.joint_optimizer.load_state_dict(state["joint_optimizer"])
            self.joint_poses = state["joint_poses"]

    @torch.no_grad()
    def settle(self) -> None:
        """Drop the nodes again if joints alone fit the given images better."""
        joints = self.motion.joints
        if joints is None or self.joint_poses is None or not self.motion.uses_nodes:
            return
        gaps = self._own_gap()
        fitted, self.motion.uses_nodes = joints.values.clone(), False
        joints.values.copy_(self.joint_poses)
        if self._own_gap() > gaps:
            joints.values.copy_(fitted)
            self.motion.uses_nodes = True

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimizers of the active parameters."""
        found: list[torch.optim.Optimizer] = [self.optimizer] if self.motion.uses_nodes else []
        return found if self.joint_optimizer is None else [*found, self.joint_optimizer]

    def _order(self) -> list[int]:
        """Frames ordered by their distance from the frame of the rest pose, or the one most similar to it."""
        start = self.config.reference or 0
        if start not in self.frames:
            start = max(spread(self.frames, _START_FRAMES), key=self._rest_iou)
        return sorted(self.frames, key=lambda frame: (abs(frame - start), frame))

    @torch.no_grad()
    def _rest_iou(self, frame: int) -> float:
        """IoU of the rest mesh and the masks of a frame."""
        views = self.views[frame].to(self.motion.mesh.device)
        rows = torch.zeros(len(views), dtype=torch.int64, device=views.device)
        cameras = with_views(self.cameras, views, self.config.coarse)
        alphas = self.painter.paint(self.motion.mesh.vertices[None], rows, cameras)[1]
        return mask_iou(alphas > 0.5, self.footage.read(views, self.config.coarse)[1] > 0.5)

    def _loss(self, chosen: list[int], progress: float, since: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its weighted terms on some frames, and at some times between frames."""
        between = self._between(len(chosen)) if self.motion.uses_nodes else self.footage.times[:0]
        times = torch.cat([self.footage.times[chosen], between])
        terms, deformed = {}, None
        if self.motion.uses_nodes:
            poses = self.motion.field(times)
            deformed = self.motion.deformed(poses)
            terms |= self._stiffness(poses, deformed, len(chosen), since)
        vertices = self.motion.jointed(None if deformed is None else deformed[: len(chosen)], self.footage.times[chosen])
        terms |= self._image_terms(chosen, vertices, progress)
        if self.guide is not None:
            terms["guidance"] = self.config.loss.guidance * self._guidance_loss(self.guide, chosen, vertices)
        if self.motion.joints is not None:
            terms |= self._habits(self.motion.joints, chosen)
        elif self.config.loss.depth:
            terms["depth"] = self.config.loss.depth * self._depth(chosen, vertices)
        return torch.stack(list(terms.values())).sum(), terms

    def _stiffness(self, poses: NodePoses, deformed: Float[Tensor, "f v 3"], count: int, since: float) -> dict[str, Tensor]:
        """Terms on the node deformation, in `count` frames and at times between frames; not relaxed at the end with joints."""
        weights = self.config.loss
        hold = weights.final**since if self.motion.joints is None else 1.0
        energy = self.arap.energy(deformed[:, self.first])
        terms = {"arap": hold * weights.arap * energy[:count].mean()}
        if len(energy) > count:
            terms["arap_between"] = hold * weights.arap_between * energy[count:].mean()
        terms["normals"] = weights.normals * self.normals(deformed[:count, self.first])
        terms["edges"] = hold * weights.edges * edge_loss(self.motion.graph, poses, self.motion.radius)
        if weights.acceleration:
            times = self.footage.times[self.intake.active]
            shifts = self.motion.field(times).translations
            terms["acceleration"] = weights.acceleration * acceleration_loss(shifts, times, self.motion.radius)
        return terms

    def _habits(self, joints: JointField, chosen: list[int]) -> dict[str, Tensor]:
        """Penalties on pose and acceleration of joints; while frames are added only the newest gets gradients."""
        weights, times = self.config.loss, self.footage.times
        turns, shifts = joints(times[chosen])
        active = self.intake.active
        values = joints.values_at(times[active])
        if not self.intake.is_done:
            is_newest = sent(torch.tensor([frame == self.intake.newest for frame in active]), values.device)
            values = torch.where(is_newest[:, None, None], values, values.detach())
        unsteady = acceleration_loss(values, times[active], 1.0)
        pose = weights.pose * turns.square().mean()
        if self.is_single:
            # A single camera determines neither the distance of the object nor what it hides.
            axes = torch.stack([self._axis(frame) for frame in chosen])
            pose = SINGLE * (pose + DEPTH * weights.pose * joints.depths(shifts, axes).square().mean())
        return {"pose": pose, "joint_acceleration": weights.acceleration * unsteady}

    def _axis(self, frame: int) -> Float[Tensor, " 3"]:
        """Viewing direction of the first camera of a frame."""
        return self.cameras.viewmats[int(self.views[frame][0]), 2, :3]

    def _image_terms(self, chosen: list[int], vertices: Float[Tensor, "f v 3"], progress: float) -> dict[str, Tensor]:
        config, weights = self.config, self.config.loss
        factor = self._factor(progress)
        picked, rows = [], []
        for row, frame in enumerate(chosen):
            views = self.views[frame]
            is_tracked = not self.intake.is_done and frame == self.intake.newest
            most = max(config.views_per_step, _TRACKED_VIEWS) if is_tracked else config.views_per_step
            order = torch.randperm(len(views), generator=self.random)[:most]
            picked.append(views[order])
            rows += [row] * len(order)
        views = sent(torch.cat(picked), vertices.device)
        cameras = with_views(self.cameras, views, factor)
        rows, size = sent(torch.tensor(rows), vertices.device), self.footage.size_at(factor)
        colors, alphas = self.painter.paint(vertices, rows, cameras, size)
        # A single background color would hide object parts of the same color.
        background = sent(torch.rand(3, generator=self.random), vertices.device).to(vertices)
        targets, masks = self.footage.read(views, factor, background)
        share = weights.ssim if min(targets.shape[1:3]) >= _SSIM_WINDOW else 0.0
        images = over(colors, alphas, background)
        fall = weights.mask_start + (1 - weights.mask_start) * min(1.0, 2 * progress)
        gaps = torch.cat([images - targets, (alphas - masks)[..., None]], -1)
        first = len(picked[0])  # while frames are added, the newest is the first
        if not self.intake.is_done:
            self.intake.record(mask_iou(alphas[:first].detach() > 0.5, masks[:first] > 0.5))
        return {
            "rgb": weights.rgb * losses.photometric(images, targets, share),
            "mask": weights.mask * fall * (alphas - masks).square().mean(),
            "blurred": weights.blurred * blurred_loss(gaps),
        }

    def _factor(self, progress: float) -> int:
        """Downscale factor of the images; it stays large while joints find a frame."""
        is_coarse = not self.intake.is_done if self.motion.joints is not None else progress < self.config.coarse_steps
        return self.config.coarse if is_coarse else 1

    def _guidance_loss(self, guide: Guide, chosen: list[int], vertices: Float[Tensor, "f v 3"]) -> Tensor:
        """Guidance loss of some of the frames on white from random sides."""
        count, size = self.config.sds.views, self.config.sds.size
        cameras = guide.orbit.random_cameras(count, guide.reference, size, self.random)
        rows = torch.randint(len(chosen), (count,), generator=self.random)
        images = on_white(*self.painter.paint(vertices, rows.to(vertices.device), cameras))
        frames = torch.tensor(chosen)[rows].to(vertices.device)
        return guide.guidance.loss(images, guide.orbit.relative(cameras, guide.reference, frames), self.random)

    def _depth(self, chosen: list[int], vertices: Float[Tensor, "f v 3"]) -> Tensor:
        """Squared displacement of the surface along the axis of the first camera of each frame."""
        first = sent(torch.stack([self.views[frame][0] for frame in chosen]), vertices.device)
        axes = self.cameras.viewmats[first][:, 2, :3]
        shifts = ((vertices - self.motion.mesh.vertices) * axes[:, None]).sum(-1) / self.motion.radius
        return shifts.square().mean()

    @torch.no_grad()
    def _strains(self) -> Tensor:
        """Mean strain of each edge over the active frames."""
        active = spread(self.intake.active, _YIELD_FRAMES)
        blocks = self.footage.times[active].split(_BLOCK)
        sums = [self.stiff.strains(self.motion.vertices(some)[:, self.first]).sum(0) for some in blocks]
        return torch.stack(sums).sum(0) / len(active)

    @torch.no_grad()
    def _own_gap(self) -> float:
        """Mean squared difference from some of the training images, colors and opacity."""
        total, chosen = 0.0, spread([(frame, int(v)) for frame in self.frames for v in self.views[frame]], _OWN_VIEWS)
        for frame, view in chosen:
            one = torch.tensor([view], device=self.motion.mesh.device)
            vertices = self.motion.vertices(self.footage.times[[frame]])
            colors, alphas = self.painter.paint(vertices, torch.zeros_like(one), with_views(self.cameras, one, 1))
            background = self.background.to(colors)
            targets, masks = self.footage.read(one, 1, background)
            total += float((over(colors, alphas, background) - targets).square().mean() + (alphas - masks).square().mean())
        return total / len(chosen)

    def _let_in(self, step: int) -> None:
        """Add frames, initialized by extrapolation from their active neighbors."""
        before, iou, spent = self.intake.num_active, self.intake.iou, self.intake.spent
        frame = self.intake.advance()
        if before and (frame is not None or (self.intake.is_done and self.all_in_at is None)):
            logger.debug("frame %d: mask IoU %.3f after %d steps", self.intake.order[before - 1], iou, spent)
        if self.intake.is_done and self.all_in_at is None:
            self.all_in_at = step
            if self.search is not None:
                self.search.plan_revisits(self.intake.order)
        joints = self.motion.joints
        if frame is not None and self.intake.num_active > 1:
            near = sorted(self.intake.order[: self.intake.num_active - 1], key=lambda other: abs(other - frame))
            times = self.footage.times[[frame, near[0], near[min(1, len(near) - 1)]]].tolist()
            self.motion.field.start_from(*times)
            if joints is not None:
                joints.start_from(*times)
        if self.search is not None and not self.intake.is_done and self.intake.is_lost:
            self.search.search(self.intake.newest, limbs=True)

    def _let_nodes_in(self, since: float) -> None:
        """Add nodes for the residual of the joints, or replace borrowed joints by nodes."""
        joints = self.motion.joints
        if self.motion.is_borrowed:
            if joints is not None and since >= _HAND_OVER:
                self.motion.hand_over()
                self.joint_optimizer = self.search = None
        elif (
            joints is not None
            and self.config.fit == "auto"
            and not self.is_single
            and since >= _NODES_FROM
            and not self.motion.uses_nodes
        ):
            self.joint_poses = joints.values.detach().clone()
            self.motion.uses_nodes = True

    def _set_learning_rates(self, since: float) -> None:
        """Learning rates: constant while frames are added, then cosine decay; those of joints also decay within each frame."""
        factor = _FINAL_LR + (1 - _FINAL_LR) * (1 + math.cos(math.pi * since)) / 2
        for group, rate in zip(self.optimizer.param_groups, self.learning_rates):
            group["lr"] = rate * factor
        if self.joint_optimizer is not None:
            is_early = self.intake.spent < _EARLY * self.intake.share
            within = factor * _LATE_JOINTS if self.intake.is_done else 1.0 if is_early else _LATE_JOINTS
            self.joint_optimizer.param_groups[0]["lr"] = self.config.motion.joint_rate * within

    def _choose(self) -> list[int]:
        """Frames of a step: while frames are added the newest is the first, and with joints the only one."""
        active = self.intake.order[: self.intake.num_active]
        order = torch.randperm(len(active), generator=self.random).tolist()
        if not self.intake.is_done:
            order = [len(active) - 1, *(i for i in order if i != len(active) - 1)]
            if self.motion.joints is not None:
                order = order[:1]
        return [active[i] for i in order[: self.config.frames_per_step]]

    def _between(self, count: int) -> Float64[Tensor, " b"]:
        """Random times between active frames."""
        active = self.intake.active
        if not self.config.loss.arap_between or len(active) < 2:
            return self.footage.times[:0]
        gaps = torch.randint(len(active) - 1, (count,), generator=self.random)
        shares = torch.rand(count, generator=self.random, dtype=torch.float64)
        times = self.footage.times[active]
        return torch.lerp(times[gaps], times[gaps + 1], shares)

    def _since_all_are_in(self, step: int) -> float:
        """0 while frames are added, then increasing to 1 at the end."""
        if self.all_in_at is None:
            return 0.0
        return (step - self.all_in_at) / max(self.steps - self.all_in_at, 1)
