"""Boxes of objects in point clouds, after LION (Liu et al. 2024, arXiv 2407.18232)."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.detect.config import DetectConfig, EvalConfig, TrainConfig
    from vision3d.stages.detect.evaluate import EvalResult, evaluate_detector
    from vision3d.stages.detect.network.files import Detector, load_detector, save_detector
    from vision3d.stages.detect.run import DetectResult, detect
    from vision3d.stages.detect.train import TrainResult, train_detector

__all__ = [
    "DetectConfig",
    "DetectResult",
    "Detector",
    "EvalConfig",
    "EvalResult",
    "TrainConfig",
    "TrainResult",
    "detect",
    "evaluate_detector",
    "load_detector",
    "save_detector",
    "train_detector",
]

__getattr__ = lazy_names(
    __name__,
    {
        "DetectConfig": ".config",
        "DetectResult": ".run",
        "Detector": ".network.files",
        "EvalConfig": ".config",
        "EvalResult": ".evaluate",
        "TrainConfig": ".config",
        "TrainResult": ".train",
        "detect": ".run",
        "evaluate_detector": ".evaluate",
        "load_detector": ".network.files",
        "save_detector": ".network.files",
        "train_detector": ".train",
    },
)
