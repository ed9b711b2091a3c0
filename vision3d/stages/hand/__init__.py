"""Hands in images: joints, meshes and positions by a network, a rigged template, and generated images of it."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.hand.detections import Detections, Finder
    from vision3d.stages.hand.evaluate import EvalResult, evaluate_hands
    from vision3d.stages.hand.gestures import GESTURES, gesture
    from vision3d.stages.hand.mano import Mano, read_mano
    from vision3d.stages.hand.network.files import HandModel, load_hand_model, save_hand_model
    from vision3d.stages.hand.predict.fitting import fit_poses
    from vision3d.stages.hand.predict.predictor import HandPredictor, boxes_of
    from vision3d.stages.hand.predict.result import HandResult
    from vision3d.stages.hand.predict.tracker import HandTracker
    from vision3d.stages.hand.run import HandFrame, HandRun, hand
    from vision3d.stages.hand.run_config import EvalConfig, HandConfig, SynthConfig
    from vision3d.stages.hand.shape import HandShape
    from vision3d.stages.hand.synth_run import SynthResult, synthesize_hands
    from vision3d.stages.hand.template import HandTemplate, PosedHand
    from vision3d.stages.hand.tone import skin_color
    from vision3d.stages.hand.train import TrainResult, train_hand
    from vision3d.stages.hand.train_config import TrainConfig

_PUBLIC = {
    "Detections": ".detections",
    "EvalConfig": ".run_config",
    "EvalResult": ".evaluate",
    "Finder": ".detections",
    "GESTURES": ".gestures",
    "HandConfig": ".run_config",
    "HandFrame": ".run",
    "HandModel": ".network.files",
    "HandPredictor": ".predict.predictor",
    "HandResult": ".predict.result",
    "HandRun": ".run",
    "HandShape": ".shape",
    "HandTemplate": ".template",
    "HandTracker": ".predict.tracker",
    "Mano": ".mano",
    "PosedHand": ".template",
    "SynthConfig": ".run_config",
    "SynthResult": ".synth_run",
    "TrainConfig": ".train_config",
    "TrainResult": ".train",
    "boxes_of": ".predict.predictor",
    "evaluate_hands": ".evaluate",
    "fit_poses": ".predict.fitting",
    "gesture": ".gestures",
    "hand": ".run",
    "load_hand_model": ".network.files",
    "read_mano": ".mano",
    "save_hand_model": ".network.files",
    "skin_color": ".tone",
    "synthesize_hands": ".synth_run",
    "train_hand": ".train",
}

__all__ = [
    "GESTURES",
    "Detections",
    "EvalConfig",
    "EvalResult",
    "Finder",
    "HandConfig",
    "HandFrame",
    "HandModel",
    "HandPredictor",
    "HandResult",
    "HandRun",
    "HandShape",
    "HandTemplate",
    "HandTracker",
    "Mano",
    "PosedHand",
    "SynthConfig",
    "SynthResult",
    "TrainConfig",
    "TrainResult",
    "boxes_of",
    "evaluate_hands",
    "fit_poses",
    "gesture",
    "hand",
    "load_hand_model",
    "read_mano",
    "save_hand_model",
    "skin_color",
    "synthesize_hands",
    "train_hand",
]

__getattr__ = lazy_names(__name__, _PUBLIC)
