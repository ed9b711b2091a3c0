"""From posed photos to a scene of Gaussians (3D Gaussian Splatting, Kerbl et al. 2023), for CPUs and GPUs.

Papers: Kerbl et al. 2023 (arXiv 2308.04079); MCMC densification, Kheradmand et al. 2024 (arXiv 2404.09591); 2D Gaussians, Huang
et al. 2024 (arXiv 2403.17888); antialiasing, Yu et al. 2024 (arXiv 2311.16493); absolute gradients, Ye et al. 2024
(arXiv 2404.10484); flat Gaussians, Waczynska et al. 2024 (arXiv 2402.01459).

Differences from them: every schedule depends on the completed fraction of the run, in steps or in minutes; the fit runs in a
world of extent 1, so that learning rates, noise and regularizers are independent of the size of the scene; training starts on
images of a quarter of the size; a random start places points on the rays of the training pixels, with their colors.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision3d.stages.fit.config import FitConfig
    from vision3d.stages.fit.run import FitResult, run as fit
    from vision3d.training.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "FitConfig", "FitResult", "evaluate", "fit"]

_PUBLIC = {
    "fit": (".run", "run"),
    "FitResult": (".run", "FitResult"),
    "FitConfig": (".config", "FitConfig"),
    "evaluate": ("vision3d.training.evaluation", "evaluate"),
    "Evaluation": ("vision3d.training.evaluation", "Evaluation"),
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(importlib.import_module(module, __name__), attribute)
    globals()[name] = value
    return value
