"""Strategies that move, add and remove Gaussians in a fit: `MCMC` (fixed budget, the default) and `ADC` (classic)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision3d.optim.densification.adc import ADC
    from vision3d.optim.densification.mcmc import MCMC
    from vision3d.optim.densification.strategy import Strategy

__all__ = ["ADC", "MCMC", "Strategy"]

_MODULES = {"ADC": "adc", "MCMC": "mcmc", "Strategy": "strategy"}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
