"""Synthetic LiDAR frames with labels: procedural streets, vehicles and people, scanned by ray casting."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.detect.synth.config import FrameConfig, SynthConfig
    from vision3d.stages.detect.synth.frames import Frame, frame
    from vision3d.stages.detect.synth.run import SynthResult, synthesize

__all__ = ["Frame", "FrameConfig", "SynthConfig", "SynthResult", "frame", "synthesize"]

__getattr__ = lazy_names(
    __name__,
    {
        "Frame": ".frames",
        "FrameConfig": ".config",
        "SynthConfig": ".config",
        "SynthResult": ".run",
        "frame": ".frames",
        "synthesize": ".run",
    },
)
