"""A configuration of `fit` that uses everything within a second or two."""

from vision3d.stages.fit import FitConfig
from vision3d.stages.fit.config import AdcConfig, LossConfig, McmcConfig

FEW = FitConfig(
    steps=36,
    max_gaussians=70,
    sh_degree=1,
    mcmc=McmcConfig(refine_every=5),
    adc=AdcConfig(refine_every=5, grow_grad2d=2e-5),
    loss=LossConfig(distortion_start=0.2, normal_start=0.3),
    log_every=7,
    checkpoint_every=10,
    eval_every=9,
)
