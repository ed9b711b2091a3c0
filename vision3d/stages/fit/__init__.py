"""From posed photographs to a scene of Gaussians (3D Gaussian Splatting, Kerbl et al. 2023), for CPUs and GPUs.

Papers: Kerbl et al. 2023 (arXiv 2308.04079); MCMC densification, Kheradmand et al. 2024 (arXiv 2404.09591); 2D Gaussians, Huang
et al. 2024 (arXiv 2403.17888); antialiasing, Yu et al. 2024 (arXiv 2311.16493); absolute gradients, Ye et al. 2024
(arXiv 2404.10484); flat Gaussians, Waczynska et al. 2024 (arXiv 2402.01459).

What differs from them: every schedule follows the part of the run that is over, in steps or in minutes; the fit runs in a
world of extent 1, so that rates, noise and regularisers do not depend on the size of the scene; pictures begin at a
quarter of their size; a random start lies on the rays of the training pixels and has their colours.
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
