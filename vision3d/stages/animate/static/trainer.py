"""Training steps of the static stage: images, loss, gradients, optimizer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vision3d.core.errors import NumericalError
from vision3d.io.dataset import WHITE
from vision3d.optim import losses
from vision3d.optim.shape_losses import ShapeLosses
from vision3d.optim.training_views import Order, TrainingViews
from vision3d.render.splats import rasterize
from vision3d.scene import GaussianScene, MeshGaussians
from vision3d.stages.animate.guidance.base import Guide
from vision3d.stages.animate.static.config import StaticConfig
from vision3d.stages.animate.static.images import TargetImages
from vision3d.stages.animate.static.model import StaticModel

_HINT = "the checkpoint of the previous step was written; lower the learning rates or check the images"


class StaticTrainer:
    """The state of a refinement and its steps.

    Args:
        config: Options.
        bound: The Gaussians at step 0.
        targets: The target images.
        views: The training views.
        guide: Optional guidance for random sides.
    """

    def __init__(
        self,
        config: StaticConfig,
        bound: MeshGaussians,
        targets: TargetImages,
        views: TrainingViews,
        guide: Guide | None = None,
    ) -> None:
        self.config, self.targets, self.views, self.guide = config, targets, views, guide
        self.random = torch.Generator().manual_seed(config.seed + 1)
        self.model = StaticModel(bound, config)
        self.shape = ShapeLosses(self.model.places.vertices, self.model.places.faces)
        self.order = Order(len(views), config.seed)
        self.viewmats = views.cameras.viewmats.to(bound.device)
        self.before: dict[str, float] | None = None
        """Metrics of the held-out views at step 0."""

    def step(self, step: int, progress: float) -> dict[str, Tensor | float]:
        """Do step number `step` (from 0) at this progress.

        Returns:
            The loss and its terms.

        Raises:
            NumericalError: The loss or a gradient is not finite; the state is that before the step.
        """
        taken, drawn = self.order.state_dict(), self.random.get_state()
        self.model.optimizer.zero_grad()
        terms = self._terms(self.config.coarse if progress < self.config.coarse_steps else 1)
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()
        name = self.model.nonfinite()
        if name is not None or not bool(torch.isfinite(loss)):
            self.order.load_state_dict(taken)
            self.random.set_state(drawn)
            raise NumericalError(step, "the loss" if name is None else f"the gradient of {name}", _HINT)
        self.model.step(progress)
        return {"loss": loss.detach(), **{f"loss_{name}": term.detach() for name, term in terms.items()}}

    def _terms(self, factor: int) -> dict[str, Tensor]:
        """The weighted terms of the loss with images downscaled by `factor`."""
        weights, batch = self.config.loss, self.config.batch_size
        scene = self.model.gaussians().to_gaussians()
        terms: dict[str, list[Tensor]] = {"rgb": []}
        for place in self.order.take(batch):
            view = self.views.get(place, factor)
            target, alpha, mask = self.targets.target(view, self.config)
            image, opacity = self._draw(scene, self.viewmats[place], view.K, view.size, self.targets.background)
            terms["rgb"].append(losses.photometric(image, target, weights.ssim, mask) / batch)
            if alpha is not None and weights.mask:
                counted = 1.0 if mask is None else mask[..., None]
                terms.setdefault("mask", []).append(weights.mask * (counted * (opacity - alpha).square()).mean() / batch)
        if self.guide is not None:
            terms["guidance"] = [weights.guidance * self._guidance_loss(self.guide, scene)]
        terms["keep"] = [weights.keep / len(self.views) * self.model.change()]
        if self.config.vertices:
            vertices = self.model.vertices
            terms["normals"] = [weights.normals * self.shape.normals(vertices)]
            terms["laplacian"] = [weights.laplacian * self.shape.laplacian(vertices)]
        return {name: torch.stack(values).sum() for name, values in terms.items()}

    def _guidance_loss(self, guide: Guide, scene: GaussianScene) -> Tensor:
        """Guidance loss of images on white from random sides."""
        count, size = self.config.sds.views, self.config.sds.size
        cameras = guide.orbit.random_cameras(count, guide.reference, size, self.random)
        frames = [self._draw(scene, *view, (size, size), WHITE)[0] for view in zip(cameras.viewmats, cameras.Ks)]
        return guide.guidance.loss(torch.stack(frames), guide.orbit.relative(cameras, guide.reference), self.random)

    def _draw(
        self, scene: GaussianScene, viewmat: Tensor, K: Tensor, size: tuple[int, int], background: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Colors on a background, and opacity."""
        behind = scene.means.new_tensor(background)[None]
        image, alpha, _ = rasterize(
            scene.means, scene.quats, scene.scales, scene.opacities, scene.sh, viewmat[None], K[None], *size,
            sh_degree=scene.sh_degree, backgrounds=behind, backend=self.config.backend,
        )  # fmt: skip
        return image[0], alpha[0]

    def state_dict(self) -> dict[str, Any]:
        """State needed for exact resume."""
        own = {"model": self.model.state_dict(), "order": self.order.state_dict(), "random": self.random.get_state()}
        return {**own, "before": self.before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.order.load_state_dict(state["order"])
        self.random.set_state(state["random"].cpu())
        self.before = state["before"]
