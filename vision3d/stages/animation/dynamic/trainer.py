"""One step of a motion fit after the other: frames, poses, pictures, loss, gradients."""

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.errors import NumericalError
from vision3d.geometry.arap import Arap
from vision3d.geometry.mesh import weld_vertices
from vision3d.optim import losses, schedules
from vision3d.render.meshes.shading import first_of_each
from vision3d.report.sheets import spread
from vision3d.scene import Cameras
from vision3d.stages.animation.dynamic.config import AnimateConfig
from vision3d.stages.animation.dynamic.footage import Footage
from vision3d.stages.animation.dynamic.losses import NormalConsistency, acceleration_loss, blurred_loss, edge_loss
from vision3d.stages.animation.dynamic.motion import Motion
from vision3d.stages.animation.dynamic.painters import Painter, on_white, with_views
from vision3d.stages.animation.guidance.base import Guide

HINT = "the checkpoint of the step before was written; lower the learning rates or look at the frames"
_SSIM_WINDOW = 11  # pixels
_FINAL_RATE = 0.02  # factor on the learning rates at the end
_YIELD_EVERY = 20  # steps between two looks at which edges yield
_YIELD_FRAMES, _BLOCK = 64, 8  # the most frames that are looked at, and so many at once


class Trainer:
    """The state of a motion fit and its steps.

    Args:
        config: Options.
        motion: What is fitted.
        painter: How the mesh looks.
        footage: What it is compared with.
        cameras: One a picture.
        seen: Pictures that are fitted to.
        guide: What says how other sides should look, if anything does.
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
        # Frames come in by their distance from the reference.
        self.order = sorted(self.frames, key=lambda frame: (abs(frame - config.reference), frame))
        self.num_active = 0
        places, faces, place = weld_vertices(motion.mesh.vertices, motion.mesh.faces)
        self.first = first_of_each(place)
        self.stiff = self.arap = Arap.of(places, faces)
        self.normals = NormalConsistency(places, faces)
        self.random = torch.Generator().manual_seed(config.seed)
        groups = motion.field.groups(config.motion)
        self.rates = [group["lr"] for group in groups]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-15)

    def step(self, step: int) -> dict[str, float]:
        """Do step number `step` (from 0).

        Returns:
            The loss and its terms.

        Raises:
            NumericalError: The loss or a gradient is not finite; the parameters are those before the step.
        """
        progress = schedules.progress(step, self.config.steps)
        self._let_in(progress)
        if self.config.loss.limit and step % _YIELD_EVERY == 0 and progress >= self.config.grow:
            self.arap = self.stiff.yielding(self._strains(), self.config.loss.limit)
        factor = self._rate(progress)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * factor
        chosen = self._choose(progress)
        terms = self._terms(chosen, self._between(len(chosen)), progress)
        total = torch.stack(list(terms.values())).sum()
        if not bool(torch.isfinite(total)):
            raise NumericalError(step, "the loss", HINT)
        self.optimizer.zero_grad()
        total.backward()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                    raise NumericalError(step, "a gradient", HINT)
        self.optimizer.step()
        values = {f"{name}_loss": value.item() for name, value in terms.items()}
        return {"loss": total.item(), **values, "frames": self.num_active}

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs."""
        return {
            "field": self.motion.field.state_dict(),
            "graph": self.motion.graph.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
            "num_active": self.num_active,
            "stiffness": self.arap.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the graph is that of `motion`."""
        self.motion.field.load_state_dict(state["field"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"].cpu())
        self.num_active = state["num_active"]
        self.arap = replace(self.stiff, weights=state["stiffness"].to(self.stiff.weights))

    def _terms(self, chosen: list[int], between: Float64[Tensor, " b"], progress: float) -> dict[str, Tensor]:
        """The weighted terms of the loss on some frames and at some times between frames."""
        weights, radius = self.config.loss, self.motion.radius
        hold = weights.final ** self._since_all_are_in(progress)
        times = torch.cat([self.footage.times[chosen], between])
        poses = self.motion.field(times)
        vertices = self.motion.posed(poses)
        terms = self._pictures(chosen, vertices[: len(chosen)], progress)
        if self.guide is not None:
            terms["guidance"] = weights.guidance * self._guidance_loss(self.guide, chosen, vertices[: len(chosen)])
        energy = self.arap.energy(vertices[:, self.first])
        terms["arap"] = hold * weights.arap * energy[: len(chosen)].mean()
        if len(between):
            terms["arap_between"] = hold * weights.arap_between * energy[len(chosen) :].mean()
        terms["normals"] = weights.normals * self.normals(vertices[: len(chosen), self.first])
        terms["edges"] = hold * weights.edges * edge_loss(self.motion.graph, poses, radius)
        if weights.depth:
            terms["depth"] = weights.depth * self._depth(chosen, vertices[: len(chosen)])
        if weights.acceleration:
            terms["acceleration"] = weights.acceleration * self._acceleration()
        return terms

    def _pictures(self, chosen: list[int], vertices: Float[Tensor, "f v 3"], progress: float) -> dict[str, Tensor]:
        config, weights = self.config, self.config.loss
        factor = config.coarse if progress < config.coarse_steps else 1
        picked, rows = [], []
        for row, frame in enumerate(chosen):
            views = self.views[frame]
            order = torch.randperm(len(views), generator=self.random)[: config.views_per_step]
            picked.append(views[order])
            rows += [row] * len(order)
        views = torch.cat(picked).to(vertices.device)
        cameras = with_views(self.cameras, views, factor)
        colors, alphas = self.painter.paint(vertices, torch.tensor(rows, device=vertices.device), cameras)
        targets, masks = self.footage.read(views, factor)
        share = weights.ssim if min(targets.shape[1:3]) >= _SSIM_WINDOW else 0.0
        images = on_white(colors, alphas)
        rgb = losses.photometric(images, targets, share)
        fall = weights.mask_start + (1 - weights.mask_start) * min(1.0, 2 * progress)
        gaps = torch.cat([images - targets, (alphas - masks)[..., None]], -1)
        return {
            "rgb": weights.rgb * rgb,
            "mask": weights.mask * fall * (alphas - masks).square().mean(),
            "blurred": weights.blurred * blurred_loss(gaps),
        }

    def _guidance_loss(self, guide: Guide, chosen: list[int], vertices: Float[Tensor, "f v 3"]) -> Tensor:
        """What the guidance says of some of the frames on white from random sides."""
        count, size = self.config.sds.views, self.config.sds.size
        cameras = guide.orbit.random_cameras(count, guide.reference, size, self.random)
        rows = torch.randint(len(chosen), (count,), generator=self.random)
        images = on_white(*self.painter.paint(vertices, rows.to(vertices.device), cameras))
        frames = torch.tensor(chosen)[rows].to(vertices.device)
        return guide.guidance.loss(images, guide.orbit.relative(cameras, guide.reference, frames), self.random)

    def _depth(self, chosen: list[int], vertices: Float[Tensor, "f v 3"]) -> Tensor:
        """How far the surface goes from where it rests, along the axis of the first camera of each frame."""
        first = torch.stack([self.views[frame][0] for frame in chosen]).to(vertices.device)
        axes = self.cameras.viewmats[first][:, 2, :3]
        ways = ((vertices - self.motion.mesh.vertices) * axes[:, None]).sum(-1) / self.motion.radius
        return ways.square().mean()

    @torch.no_grad()
    def _strains(self) -> Tensor:
        """Mean strain of each edge over the active frames."""
        active = spread(sorted(self.order[: self.num_active]), _YIELD_FRAMES)
        blocks = self.footage.times[active].split(_BLOCK)
        sums = [self.stiff.strains(self.motion.vertices(some)[:, self.first]).sum(0) for some in blocks]
        return torch.stack(sums).sum(0) / len(active)

    def _acceleration(self) -> Tensor:
        """Over all active frames: a step sees too few that follow each other."""
        active = sorted(self.order[: self.num_active])
        times = self.footage.times[active]
        return acceleration_loss(self.motion.field(times).translations, times, self.motion.radius)

    def _let_in(self, progress: float) -> None:
        """Frames that come in begin where their active neighbour stands."""
        config, count = self.config, len(self.order)
        wanted = count if progress >= config.grow else min(count, 1 + math.ceil(count * progress / config.grow))
        while self.num_active < wanted:
            frame = self.order[self.num_active]
            if self.num_active:
                near = sorted(self.order[: self.num_active], key=lambda other: abs(other - frame))
                self.motion.field.start_from(*self.footage.times[[frame, near[0], near[min(1, len(near) - 1)]]].tolist())
            self.num_active += 1

    def _choose(self, progress: float) -> list[int]:
        """Frames of a step: while frames come in, the newest is one of them."""
        active = self.order[: self.num_active]
        order = torch.randperm(len(active), generator=self.random).tolist()
        if progress < self.config.grow:
            order = [len(active) - 1, *(i for i in order if i != len(active) - 1)]
        return [active[i] for i in order[: self.config.frames_per_step]]

    def _between(self, count: int) -> Float64[Tensor, " b"]:
        """Random times between active frames."""
        active = sorted(self.order[: self.num_active])
        if not self.config.loss.arap_between or len(active) < 2:
            return self.footage.times[:0]
        gaps = torch.randint(len(active) - 1, (count,), generator=self.random)
        shares = torch.rand(count, generator=self.random, dtype=torch.float64)
        times = self.footage.times[active]
        return torch.lerp(times[gaps], times[gaps + 1], shares)

    def _since_all_are_in(self, progress: float) -> float:
        """0 while frames come in, then up to 1 at the end."""
        return max(0.0, (progress - self.config.grow) / max(1 - self.config.grow, 1e-9))

    def _rate(self, progress: float) -> float:
        """Factor on the learning rates: 1 while frames come in, then down along a cosine."""
        return _FINAL_RATE + (1 - _FINAL_RATE) * (1 + math.cos(math.pi * self._since_all_are_in(progress))) / 2
