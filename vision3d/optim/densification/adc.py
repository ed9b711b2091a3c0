"""Adaptive density control (Kerbl et al. 2023, section 5): duplicate, split, prune, and reset opacities."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.optim.adam import SplatAdam
from vision3d.optim.densification.strategy import (
    Schedule,
    cpu_generator,
    in_half_images,
    normal_noise,
    require_groups,
)

SPLIT_SHRINK = 1.6  # the scale of a child is its parent's divided by this


class ADC:
    """Duplicates small and splits large Gaussians whose projected center has a large gradient.

    The criterion is the norm of the gradient of `means2d` in units of half an image, summed over the views of a step and
    averaged over the views that saw the Gaussian since the last refinement. The thresholds apply to a loss that is averaged
    over the views of the step.

    Args:
        scene_scale: Extent of the scene [m]: 1.1 times the largest distance of a camera from the mean camera.
        total_steps: Steps of the run; None if `after_step` is given the progress.
        cap_max: Maximum number of Gaussians after growth; those with the largest gradients first; None for no limit.
        refine_every: Steps between refinements.
        refine_start: Progress at which refinement starts.
        refine_stop: Progress at which refinement and opacity resets stop.
        reset_every: Progress between opacity resets.
        grow_grad2d: Gradient above which a Gaussian grows; 8e-4 suits absgrad.
        grow_scale3d: Maximum scale, relative to the scene, that is duplicated instead of split.
        prune_opacity: Gaussians below it are removed.
        prune_scale3d: Gaussians above this fraction of the scene scale are removed, once opacities have been reset.
        absgrad: Use `means2d.absgrad` (sums of absolute values over pixels) instead of the gradient.
        generator: Random generator on the CPU; None makes one with seed 0.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        scene_scale: float,
        total_steps: int | None = None,
        *,
        cap_max: int | None = None,
        refine_every: int = 100,
        refine_start: float = 500 / 30000,
        refine_stop: float = 15000 / 30000,
        reset_every: float = 3000 / 30000,
        grow_grad2d: float = 2e-4,
        grow_scale3d: float = 0.01,
        prune_opacity: float = 0.005,
        prune_scale3d: float = 0.1,
        absgrad: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if scene_scale <= 0:
            raise ConfigError("scene_scale", f"got {scene_scale}, want meters > 0")
        if cap_max is not None and cap_max < 1:
            raise ConfigError("cap_max", f"got {cap_max}, want at least 1")
        if reset_every <= 0:
            raise ConfigError("reset_every", f"got {reset_every}, want a fraction > 0")
        if not 0 < prune_opacity < 0.5:
            raise ConfigError("prune_opacity", f"got {prune_opacity}, want a number in (0, 0.5)")
        self.schedule = Schedule(total_steps, refine_every, refine_start, refine_stop)
        self.scene_scale, self.cap_max, self.reset_every = scene_scale, cap_max, reset_every
        self.grow_grad2d, self.grow_scale3d = grow_grad2d, grow_scale3d
        self.prune_opacity, self.prune_scale3d = prune_opacity, prune_scale3d
        self.absgrad = absgrad
        self.generator = cpu_generator(generator)
        self.resets = 0
        self.pulls: Tensor | None = None
        self.views: Tensor | None = None

    def before_backward(self, info: Mapping[str, Any]) -> None:
        """Retain the gradient of `means2d`."""
        if not self.absgrad and info["means2d"].requires_grad:
            info["means2d"].retain_grad()

    @torch.no_grad()
    def after_step(
        self,
        step: int,
        params: dict[str, Tensor],
        optimizer: SplatAdam,
        info: Mapping[str, Any],
        lr: float,
        *,
        progress: float | None = None,
    ) -> dict[str, int]:
        """Accumulate the gradients of this step; refine and reset opacities when due."""
        require_groups(params, optimizer)
        fraction = self.schedule.progress(step, progress)
        if fraction >= self.schedule.stop:
            return {}
        pulls, views = self._gather(params, info)
        counts = {}
        if self.schedule.acts(step, fraction):
            counts = self._refine(params, optimizer, pulls, views)
            self.drop_sums()
        if int(fraction / self.reset_every + 1e-9) > self.resets:
            self.resets = int(fraction / self.reset_every + 1e-9)
            self._reset_opacities(params, optimizer)
            counts["reset"] = len(params["means"])
        return counts

    def state_dict(self) -> dict[str, Tensor]:
        """State of the generator, number of resets, and the gradient sums since the last refinement."""
        state = {"generator": self.generator.get_state(), "resets": torch.tensor(self.resets)}
        if self.pulls is not None and self.views is not None:
            state |= {"pulls": self.pulls.clone(), "views": self.views.clone()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`."""
        self.generator.set_state(state["generator"].cpu())
        self.resets = int(state["resets"])
        self.pulls = state["pulls"].clone() if "pulls" in state else None
        self.views = state["views"].clone() if "views" in state else None

    def drop_sums(self) -> None:
        """Discard the gradients since the last refinement."""
        self.pulls = self.views = None

    def _gather(self, params: dict[str, Tensor], info: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Add this step to the sums of gradients and views, and return them."""
        count, means = len(params["means"]), params["means"]
        if self.pulls is None or self.views is None or len(self.pulls) != count:
            self.pulls, self.views = means.new_zeros(count), means.new_zeros(count)
        means2d = info["means2d"]
        grad = getattr(means2d, "absgrad", None) if self.absgrad else means2d.grad
        if grad is None:
            have = "absgrad (rasterize with absgrad=True)" if self.absgrad else "grad (call before_backward first)"
            raise InputError(f"info['means2d']: has no {have}")
        pulls = (in_half_images(grad, info["width"], info["height"]) * info["n_cameras"]).norm(dim=-1)
        if means2d.ndim == 2:  # packed: one row per visible pair
            rows = info["gaussian_ids"]
        else:
            radii = info["radii"]
            is_visible = (radii > 0).all(-1) if radii.ndim == means2d.ndim else radii > 0
            rows = is_visible.nonzero()[:, -1]
            pulls = pulls[is_visible]
        self.pulls.index_add_(0, rows, pulls.to(self.pulls))
        self.views.index_add_(0, rows, torch.ones_like(pulls, dtype=self.views.dtype))
        return self.pulls, self.views

    def _refine(self, params: dict[str, Tensor], optimizer: SplatAdam, pulls: Tensor, views: Tensor) -> dict[str, int]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for sums in (pulls, views):  # each process saw different images, but all must refine identically
                torch.distributed.all_reduce(sums)
        pulls = pulls / views.clamp(min=1)
        grows = self._limit(pulls, pulls > self.grow_grad2d)
        is_small = params["log_scales"].exp().amax(-1) <= self.grow_scale3d * self.scene_scale
        duplicates, splits = (grows & is_small).nonzero().squeeze(1), (grows & ~is_small).nonzero().squeeze(1)
        new = {name: torch.cat([p.detach()[duplicates], p.detach()[splits]]) for name, p in params.items()}
        self._split(params, optimizer, splits, {name: rows[len(duplicates) :] for name, rows in new.items()})
        if len(duplicates) + len(splits):
            optimizer.append(new)
        is_useless = self._is_useless(params)
        pruned = int(is_useless.sum())
        if 0 < pruned < len(is_useless):
            optimizer.keep(~is_useless)
        else:
            pruned = 0
        return {"duplicated": len(duplicates), "split": len(splits), "pruned": pruned}

    def _limit(self, pulls: Float[Tensor, " n"], grows: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """The rows that can grow within the cap, largest gradients first."""
        room = len(pulls) if self.cap_max is None else max(self.cap_max - len(pulls), 0)
        if int(grows.sum()) <= room:
            return grows
        strongest = torch.where(grows, pulls, -1).argsort(descending=True, stable=True)[:room]
        return torch.zeros_like(grows).index_fill_(0, strongest, True)

    def _split(self, params: dict[str, Tensor], optimizer: SplatAdam, rows: Tensor, new: dict[str, Tensor]) -> None:
        """Two children per row: one in its place, one in `new` (views of the rows to be appended)."""
        scales = params["log_scales"].detach()[rows].exp()
        rotmats = quat_to_rotmat(params["quats"].detach()[rows])
        centers = params["means"].detach()[rows]
        for target, where in ((params, rows), (new, slice(None))):
            offsets = rotmats @ (scales * normal_noise(scales, self.generator)).unsqueeze(-1)
            target["means"][where] = centers + offsets.squeeze(-1)
            target["log_scales"][where] = torch.log(scales / SPLIT_SHRINK)
        optimizer.reset(rows)

    def _is_useless(self, params: dict[str, Tensor]) -> Bool[Tensor, " n"]:
        useless = torch.sigmoid(params["opacity_logits"]) < self.prune_opacity
        if self.resets:
            useless |= params["log_scales"].exp().amax(-1) > self.prune_scale3d * self.scene_scale
        return useless

    def _reset_opacities(self, params: dict[str, Tensor], optimizer: SplatAdam) -> None:
        limit = torch.logit(torch.tensor(2 * self.prune_opacity)).item()  # on the CPU
        params["opacity_logits"].clamp_(max=limit)
        optimizer.reset(groups=("opacity_logits",))
