"""Guidance by image diffusion: score distillation with Zero123-class networks from a folder of the user.

Papers: DreamFusion, Poole et al. 2023 (arXiv 2209.14988), for score distillation; Zero-1-to-3, Liu et al. 2023 (arXiv
2303.11328), for the network. No weights are bundled, and results with weights were not measured.

A stage takes a `Guidance` and adds its loss:

    cameras = orbit.random_cameras(2, reference, 128, generator)
    frames = images of these cameras on white
    loss = loss + weight * guidance.loss(frames, orbit.relative(cameras, reference), generator)
"""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.animate.guidance.base import Guidance, check_time
    from vision3d.stages.animate.guidance.config import SdsConfig
    from vision3d.stages.animate.guidance.folder import load_guidance
    from vision3d.stages.animate.guidance.zero123 import Zero123

__all__ = ["Guidance", "SdsConfig", "Zero123", "check_time", "load_guidance"]

__getattr__ = lazy_names(
    __name__,
    {
        "Guidance": ".base",
        "SdsConfig": ".config",
        "Zero123": ".zero123",
        "check_time": ".base",
        "load_guidance": ".folder",
    },
)
