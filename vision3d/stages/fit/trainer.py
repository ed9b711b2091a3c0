"""Training steps of a fit: views, loss, gradients, optimizer, strategy."""

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core import plugins
from vision3d.core.device import sent
from vision3d.core.errors import ConfigError, NumericalError
from vision3d.optim import losses, schedules
from vision3d.optim.densification import ADC, MCMC
from vision3d.optim.densification.strategy import in_half_images
from vision3d.optim.training_views import Order, TrainingView, TrainingViews
from vision3d.scene import Cameras, GaussianScene
from vision3d.stages.fit.config import FitConfig
from vision3d.stages.fit.model import Leaves, Model, RenderedView, render
from vision3d.stages.fit.poses import PoseParameters, learning_rate
from vision3d.stages.fit.rows import ViewParameters
from vision3d.training.group import Group
from vision3d.training.late_check import LateCheck

HINT = "the checkpoint of the previous step was written; lower the learning rates or check the views"


@dataclass(frozen=True)
class ScheduleState:
    """Values of the schedules at a step."""

    sh_degree: int
    factor: int
    """Downscale factor of the images."""
    means_lr: float
    with_distortion: bool
    with_normals: bool


class Trainer:
    """The state of a fit and its steps, in the world of the fit.

    Args:
        config: Options.
        scene: The Gaussians at step 0.
        views: The training views.
        cameras: Their cameras in the world of the fit.
        background: Background color; None is black. Not used with `random` backgrounds.
        group: The processes that share the work.
    """

    def __init__(
        self,
        config: FitConfig,
        scene: GaussianScene,
        views: TrainingViews,
        cameras: Cameras,
        background: Float[Tensor, " 3"] | None,
        group: Group,
    ) -> None:
        self.config, self.views, self.group = config, views, group
        self.background = background
        self.share = group.share(config.batch_size)
        self.model = Model(scene, config)
        self.viewmats = cameras.viewmats.to(scene.device)
        self.order = Order(len(views), config.seed)
        self.strategy = _strategy(config)
        self.random = torch.Generator().manual_seed(config.seed + 1)
        self.extra = [(_loss_of_another_package(name), weight) for name, weight in config.loss.extra_weights().items()]
        self.late_check = LateCheck()
        self.poses = self.exposures = None
        if config.pose_opt:
            self.poses = PoseParameters(cameras, scene.means, config.loss.pose)
        if config.exposure_opt:
            identity = torch.eye(3, 4, device=scene.device).flatten().expand(len(views), 12)
            self.exposures = ViewParameters(identity.clone(), config.loss.exposure)

    def step(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Do step number `step` (from 0) at this progress.

        Returns:
            The loss, the number of Gaussians, the progress, and the counts of changes by the strategy.

        Raises:
            NumericalError: The loss or a gradient is not finite; the state is that before the step. On a GPU it is raised by
                the next `step`, `state_dict` or `scene`.
        """
        schedule = self._schedule(progress)
        places = self.order.take(self.config.batch_size)
        colors = torch.rand(len(places), 3, generator=self.random) if self.config.background == "random" else None
        leaves = self.model.leaves()
        total, infos = torch.zeros((), device=leaves.means.device), []
        for at in self.share:
            background = self.background if colors is None else sent(colors[at], leaves.means.device)
            loss, info = self._backward(leaves, places[at], background, schedule)
            total += loss
            infos.append(info)
        self._sum_over_group(total, leaves)
        self.model.pull_back(leaves)
        is_valid = self._check(step, total)
        counts = self._update(step, progress, schedule, places, infos, is_valid)
        return {"loss": total, "gaussians": len(self.model), "progress": round(progress, 6), **counts}

    def _backward(
        self, leaves: Leaves, place: int, background: Tensor | None, schedule: ScheduleState
    ) -> tuple[Tensor, dict[str, Any]]:
        """Add the gradients of one view's part of the loss."""
        view = self.views.get(place, schedule.factor)
        viewmat, pose, exposure = self.viewmats[place], None, None
        if self.poses is not None:
            pose = self.poses.leaf(place)
            viewmat = self.poses.motion(place, pose) @ viewmat
        rendered = render(
            leaves, viewmat, view.K, view.size, background, schedule.sh_degree, self.config,
            with_distortion=schedule.with_distortion, with_normals=schedule.with_normals, with_depth=view.depth is not None,
        )  # fmt: skip
        if self.exposures is not None:
            exposure = self.exposures.leaf(place)
            rendered.image = exposed(rendered.image, exposure.view(3, 4))
        loss = self._loss(rendered, view, background) / self.config.batch_size
        self.strategy.before_backward(rendered.info)
        loss.backward()
        for parameters, leaf in ((self.poses, pose), (self.exposures, exposure)):
            if parameters is not None and leaf is not None:
                parameters.collect(place, leaf)
        return loss.detach(), rendered.info

    def _loss(self, rendered: RenderedView, view: TrainingView, background: Tensor | None) -> Tensor:
        target, weights = view.image, self.config.loss
        if view.alpha is not None and background is not None:
            target = target + (1 - view.alpha) * background
        loss = losses.photometric(rendered.image, target, weights.ssim, view.mask)
        if rendered.depths is not None and view.depth is not None:
            loss = loss + weights.depth * losses.depth_loss(rendered.depths, rendered.alphas, view.depth, view.mask)
        if rendered.distortions is not None and weights.distortion > 0:
            loss = loss + weights.distortion * losses.distortion_loss(rendered.distortions, view.mask)
        if rendered.normals is not None and rendered.surface_normals is not None:
            maps = (rendered.normals, rendered.surface_normals, rendered.alphas)
            loss = loss + weights.normal * losses.normal_consistency_loss(*maps, view.mask)
        for extra, weight in self.extra:
            loss = loss + weight * extra(rendered.image, target, view.mask)
        return loss

    def _sum_over_group(self, total: Tensor, leaves: Leaves) -> None:
        tensors = [total, *leaves.gradients()]
        for parameters in (self.poses, self.exposures):
            if parameters is not None:
                tensors += [parameters.grads, parameters.seen]
        self.group.sum(tensors)

    def _check(self, step: int, total: Tensor) -> Bool[Tensor, ""] | None:
        """Raise if the loss or a gradient is not finite. On a GPU that is for the previous step, and this one gets a flag."""
        if total.device.type != "cpu":
            self._check_last()
            grads = {name: param.grad for name, param in self.model.params.items() if param.grad is not None}
            corrections = {"poses": self.poses, "exposures": self.exposures}
            grads |= {name: parameters.grads for name, parameters in corrections.items() if parameters is not None}
            named = {f"the gradient of {name}": grad for name, grad in grads.items()}
            return self.late_check.put(step, {"the loss": total, **named})
        quantity = None
        if not bool(torch.isfinite(total)):
            quantity = "the loss"
        elif (name := self.model.optimizer.nonfinite_group()) is not None:
            quantity = f"the gradient of {name}"
        for name, parameters in (("poses", self.poses), ("exposures", self.exposures)):
            if quantity is None and parameters is not None and not bool(torch.isfinite(parameters.grads).all()):
                quantity = f"the gradient of {name}"
        if quantity is not None:
            self._forget()
            raise NumericalError(step, quantity, HINT)
        return None

    def _check_last(self) -> None:
        """Raise if the last step on a GPU was not finite."""
        failed = self.late_check.read()
        if failed is None:
            return
        self._forget()
        self.model.optimizer.uncount()
        if isinstance(self.strategy, ADC):
            self.strategy.drop_sums()
        raise NumericalError(*failed, HINT)

    def _forget(self) -> None:
        self.model.optimizer.zero_grad()
        for parameters in (self.poses, self.exposures):
            if parameters is not None:
                parameters.drop()

    def _update(
        self,
        step: int,
        progress: float,
        schedule: ScheduleState,
        places: list[int],
        infos: list[dict[str, Any]],
        is_valid: Bool[Tensor, ""] | None,
    ) -> dict[str, int]:
        optimizer, rates = self.model.optimizer, self.config.rates
        self.model.step(schedule.means_lr, is_valid)
        for parameters in (self.poses, self.exposures):
            if parameters is not None and is_valid is not None:
                parameters.seen *= is_valid
        if self.poses is not None:
            self.poses.step(learning_rate(rates.poses, step, progress, places, len(self.views)), places)
        if self.exposures is not None:
            self.exposures.step(rates.exposures, places)
        info = infos[0] if self.config.strategy == "mcmc" else _joined(infos, self.config)
        counts = self.strategy.after_step(step, optimizer.params, optimizer, info, schedule.means_lr, progress=progress)
        self.model.flatten()
        return counts

    def scene(self) -> GaussianScene:
        """The current Gaussians."""
        self._check_last()
        return self.model.scene()

    def corrected_viewmats(self) -> Float[Tensor, "c 4 4"]:
        """World to camera of the training views, with pose corrections."""
        return self.viewmats if self.poses is None else self.poses.motions() @ self.viewmats

    def exposure_matrices(self) -> Float[Tensor, "c 3 4"] | None:
        """Color transforms of the training views, if they are optimized."""
        return None if self.exposures is None else self.exposures.values.view(-1, 3, 4).clone()

    def state_dict(self) -> dict[str, Any]:
        """State needed for exact resume."""
        self._check_last()
        state = {
            "model": self.model.state_dict(),
            "strategy": self.strategy.state_dict(),
            "order": self.order.state_dict(),
            "random": self.random.get_state(),
        }
        for name, parameters in (("poses", self.poses), ("exposures", self.exposures)):
            if parameters is not None:
                state[name] = parameters.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.strategy.load_state_dict(state["strategy"])
        self.order.load_state_dict(state["order"])
        self.random.set_state(state["random"].cpu())
        for name, parameters in (("poses", self.poses), ("exposures", self.exposures)):
            if parameters is not None:
                parameters.load_state_dict(state[name])

    def _schedule(self, progress: float) -> ScheduleState:
        config, loss = self.config, self.config.loss
        is_2dgs = config.mode == "2dgs"
        return ScheduleState(
            schedules.sh_degree(progress, config.sh_degree, config.sh_every),
            schedules.downscale_factor(progress, config.resolution_start, config.resolution_doublings),
            config.rates.means * schedules.exponential_decay(progress, config.rates.means_final),
            is_2dgs and loss.distortion > 0 and progress >= loss.distortion_start,
            is_2dgs and loss.normal > 0 and progress >= loss.normal_start,
        )


def exposed(image: Float[Tensor, "*batch 3"], exposure: Float[Tensor, "3 4"]) -> Float[Tensor, "*batch 3"]:
    """Colors after an affine transform A c + b, [A b] = exposure."""
    return image @ exposure[:, :3].mT + exposure[:, 3]


def _strategy(config: FitConfig) -> MCMC | ADC:
    generator = torch.Generator().manual_seed(config.seed + 2)
    if config.strategy == "mcmc":
        own = config.mcmc
        return MCMC(
            config.max_gaussians,
            refine_every=own.refine_every,
            refine_start=own.refine_start,
            refine_stop=own.refine_stop,
            grow_factor=own.grow_factor,
            min_opacity=own.min_opacity,
            noise_scale=own.noise,
            generator=generator,
        )
    own = config.adc
    return ADC(
        1.0,
        cap_max=config.max_gaussians,
        refine_every=own.refine_every,
        refine_start=own.refine_start,
        refine_stop=own.refine_stop,
        reset_every=own.reset_every,
        grow_grad2d=own.grow_grad2d,
        grow_scale3d=own.grow_scale,
        prune_opacity=own.prune_opacity,
        prune_scale3d=own.prune_scale,
        absgrad=own.absgrad,
        generator=generator,
    )


def _joined(infos: list[dict[str, Any]], config: FitConfig) -> dict[str, Any]:
    """Merge the infos of single views, as from one call with all views of the batch.

    Views may differ in size, so gradients are converted to units of half an image here, and the sizes are 2.
    """
    use_absolute = config.adc.absgrad
    pulls = []
    for info in infos:
        means2d = info["means2d"]
        grad = means2d.absgrad if use_absolute else means2d.grad
        pulls.append(in_half_images(grad, info["width"], info["height"]))
    joined = torch.cat(pulls)
    means2d = torch.empty_like(joined)
    if use_absolute:
        means2d.absgrad = joined  # pyright: ignore[reportAttributeAccessIssue]
    else:
        means2d.grad = joined
    ids = torch.cat([info["gaussian_ids"] for info in infos])
    return {"means2d": means2d, "gaussian_ids": ids, "width": 2, "height": 2, "n_cameras": config.batch_size}


def _loss_of_another_package(name: str) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """A function of an image (H, W, 3), its target and the mask of valid pixels that returns a scalar."""
    found = plugins.load("vision3d.losses", name, FunctionType)
    if found is None:
        known = ", ".join(plugins.names("vision3d.losses")) or "none"
        raise ConfigError(
            "loss.extra",
            f"no installed package provides a loss {name!r} (entry points vision3d.losses: {known}); yours is MODULE:FUNCTION",
        )
    return found
