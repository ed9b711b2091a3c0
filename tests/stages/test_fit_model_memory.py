"""Parameters of a fit do not share memory with its input."""

import torch

from tests.support.gaussians import random_gaussians
from vision3d import GaussianScene
from vision3d.stages.fit.config import FitConfig
from vision3d.stages.fit.model import Model


def test_a_fit_does_not_change_its_initial_scene():
    g = random_gaussians(6)
    scene = GaussianScene(g["means"], g["quats"], g["scales"].log(), g["opacities"].logit(), torch.rand(6, 4, 3))
    before = {name: getattr(scene, name).clone() for name in ("means", "quats", "log_scales", "opacity_logits", "sh")}
    model = Model(scene, FitConfig())
    for _ in range(3):
        for param in model.params.values():
            param.grad = torch.ones_like(param)
        model.optimizer.step()
    for name, value in before.items():
        assert torch.equal(getattr(scene, name), value), name
        assert not torch.equal(model.params[name].detach(), value), name
