"""The Gaussians of a fit as parameters with an optimizer, and their rendering in one view."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.optim.adam import SplatAdam
from vision3d.render.splats import rasterize, rasterize_2dgs
from vision3d.scene import GaussianScene
from vision3d.scene.gaussians import FLAT_LOG_SCALE
from vision3d.stages.fit.config import FitConfig


@dataclass
class Leaves:
    """The Gaussians in the format of the rasterizer, leaves of the graph of one step."""

    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    sh: Float[Tensor, "n k 3"]

    def all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """In the order of the rasterizer's arguments."""
        return self.means, self.quats, self.scales, self.opacities, self.sh

    def gradients(self) -> list[Tensor]:
        """Accumulated gradients, in the same order; zeros before the first step."""
        for leaf in self.all():
            if leaf.grad is None:
                leaf.grad = torch.zeros_like(leaf)
        return [leaf.grad for leaf in self.all() if leaf.grad is not None]


@dataclass
class RenderedView:
    """An image of the Gaussians with its maps."""

    image: Float[Tensor, "h w 3"]
    info: dict[str, Any]
    """Info dictionary for the strategy."""
    alphas: Float[Tensor, "h w 1"]
    normals: Float[Tensor, "h w 3"] | None = None
    surface_normals: Float[Tensor, "h w 3"] | None = None
    distortions: Float[Tensor, "h w 1"] | None = None
    depths: Float[Tensor, "h w 1"] | None = None
    """Sums of weight times depth."""


class Model:
    """Parameters of N Gaussians in the world of the fit.

    The few element-wise functions between parameters and rasterizer (exp, sigmoid) are differentiated by hand, since
    autograd would copy every harmonic twice.

    Args:
        scene: The Gaussians at step 0.
        config: Options of the fit.
    """

    def __init__(self, scene: GaussianScene, config: FitConfig) -> None:
        self.config = config
        self.is_flat = scene.mode != "3dgs"
        params = {
            "means": scene.means.clone(),  # steps change the parameters in place, but the scene belongs to the caller
            "quats": scene.quats.clone(),
            "log_scales": scene.log_scales.clone(),
            "opacity_logits": scene.opacity_logits.clone(),
            "sh": scene.sh.clone(),
        }
        rates = config.rates
        learning_rates = {
            "means": rates.means,
            "quats": rates.quats,
            "log_scales": rates.scales,
            "opacity_logits": rates.opacities,
            "sh": rates.shN if scene.sh.shape[1] > 1 else rates.sh0,
        }
        self.optimizer = SplatAdam(params, learning_rates)

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters by name; the strategies replace the entries."""
        return self.optimizer.params

    def __len__(self) -> int:
        return len(self.params["means"])

    def leaves(self) -> Leaves:
        """The Gaussians of this step."""
        p = {name: param.detach() for name, param in self.params.items()}
        values = (p["means"], p["quats"], p["log_scales"].exp(), p["opacity_logits"].sigmoid(), p["sh"])
        return Leaves(*(value.requires_grad_() for value in values))

    @torch.no_grad()
    def pull_back(self, leaves: Leaves) -> None:
        """Propagate the gradients of the leaves to the parameters, plus those of the mcmc regularizers."""
        v_means, v_quats, v_scales, v_opacities, v_sh = leaves.gradients()
        if self.config.strategy == "mcmc":
            axes = 2 if self.is_flat else 3
            v_opacities = v_opacities + self.config.loss.opacity / len(self)
            v_scales = v_scales + self.config.loss.scale / (axes * len(self))
        v_scales = v_scales * leaves.scales
        if self.is_flat:
            v_scales[:, 2] = 0
        params = self.params
        params["means"].grad, params["quats"].grad, params["log_scales"].grad = v_means, v_quats, v_scales
        params["opacity_logits"].grad = v_opacities * leaves.opacities * (1 - leaves.opacities)
        params["sh"].grad = v_sh

    @torch.no_grad()
    def step(self, means_lr: float, is_valid: Bool[Tensor, ""] | None = None) -> None:
        """One step of the optimizer, after `pull_back`; it changes nothing if `is_valid` is False."""
        self.optimizer.learning_rates["means"] = means_lr
        sh = self.params["sh"].detach()
        before = sh[:, 0].clone()
        self.optimizer.step(None if is_valid is None else is_valid.expand(len(self)).contiguous())
        self.optimizer.zero_grad()
        if sh.shape[1] > 1:
            # Adam steps are proportional to the learning rate: degree 0 moves further by the ratio of the rates, which saves
            # the copies that two tensors would need.
            sh[:, 0] = torch.lerp(before, sh[:, 0], self.config.rates.sh0 / self.config.rates.shN)

    @torch.no_grad()
    def flatten(self) -> None:
        """Reset the third axis of flat and 2dgs Gaussians to zero thickness, after a strategy changed scales."""
        if self.is_flat:
            self.params["log_scales"][:, 2] = FLAT_LOG_SCALE

    def scene(self) -> GaussianScene:
        """A copy of the current Gaussians."""
        return scene_of({name: param.detach().clone() for name, param in self.params.items()}, self.config)

    def state_dict(self) -> dict[str, Any]:
        """State needed for exact resume."""
        params = {name: param.detach().clone() for name, param in self.params.items()}
        return {"params": params, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`, for any number of Gaussians."""
        device = self.params["means"].device
        params = {name: value.to(device) for name, value in state["params"].items()}
        self.optimizer = SplatAdam(params, self.optimizer.learning_rates)
        self.optimizer.load_state_dict(state["optimizer"])


def scene_of(params: Mapping[str, Tensor], config: FitConfig) -> GaussianScene:
    """The scene of a model's parameters."""
    return GaussianScene(
        params["means"],
        torch.nn.functional.normalize(params["quats"], dim=-1),
        params["log_scales"],
        params["opacity_logits"],
        params["sh"],
        mode=config.mode,
        antialiased=config.antialiased,
    )


def render(
    leaves: Leaves,
    viewmat: Float[Tensor, "4 4"],
    K: Float[Tensor, "3 3"],
    size: tuple[int, int],
    background: Float[Tensor, " 3"] | None,
    sh_degree: int,
    config: FitConfig,
    *,
    with_distortion: bool = False,
    with_normals: bool = False,
    with_depth: bool = False,
) -> RenderedView:
    """The image of one pinhole view, differentiable.

    Args:
        leaves: The Gaussians.
        viewmat: World to camera.
        K: Intrinsics [px].
        size: Width and height [px].
        background: Background color; black when None.
        sh_degree: Degree of the harmonics to use.
        config: Options of the fit.
        with_distortion: Compute the depth distortion (2dgs).
        with_normals: Compute the normals of 2D Gaussians and of the depth (2dgs).
        with_depth: Compute the depth.
    """
    behind = None if background is None else background[None]
    cameras = (viewmat[None], K[None], *size)
    if config.mode == "2dgs":
        image, alphas, normals, surface_normals, distortions, _, info = rasterize_2dgs(
            *leaves.all(), *cameras, sh_degree=sh_degree, packed=True, backgrounds=behind,
            render_mode="RGB+ED" if with_normals or with_depth else "RGB", distloss=with_distortion, alpha_max=config.alpha_max,
            backend=config.backend,
        )  # fmt: skip
        info = {**info, "means2d": info["gradient_2dgs"]}
        surface = surface_normals[0] if with_normals and surface_normals is not None else None
        depth = image[0, ..., 3:] * alphas[0] if with_depth else None
        return RenderedView(image[0, ..., :3], info, alphas[0], normals[0], surface, distortions[0], depth)
    image, alphas, info = rasterize(
        *leaves.all(), *cameras, sh_degree=sh_degree, backgrounds=behind, render_mode="RGB+D" if with_depth else "RGB",
        absgrad=config.strategy == "adc" and config.adc.absgrad,
        rasterize_mode="antialiased" if config.antialiased else "classic", alpha_max=config.alpha_max,
        backend=config.backend,
    )  # fmt: skip
    if with_depth:
        return RenderedView(image[0, ..., :3], info, alphas[0], depths=image[0, ..., 3:])
    return RenderedView(image[0], info, alphas[0])
