"""Strategies that move, add and remove Gaussians during a fit: `MCMC` (fixed budget, the default) and `ADC` (classic)."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.optim.densification.adc import ADC
    from vision3d.optim.densification.mcmc import MCMC
    from vision3d.optim.densification.strategy import Strategy

__all__ = ["ADC", "MCMC", "Strategy"]

__getattr__ = lazy_names(__name__, {"ADC": ".adc", "MCMC": ".mcmc", "Strategy": ".strategy"})
