"""Edits of objects by text, after Instructive3D (Kathare et al. 2025, arXiv 2501.04374)."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.edit.adapter_training import TrainResult, train_adapter
    from vision3d.stages.edit.config import AdapterTrainConfig, PlanesTrainConfig
    from vision3d.stages.edit.editor import Edited, Editor
    from vision3d.stages.edit.evaluate import EditEvalResult, evaluate_edits
    from vision3d.stages.edit.network.adapter_files import AdapterModel, load_adapter, save_adapter
    from vision3d.stages.edit.network.files import PlanesModel, load_planes_model, save_planes_model
    from vision3d.stages.edit.planes_training import train_planes
    from vision3d.stages.edit.reconstruct import ReconstructResult, reconstruct
    from vision3d.stages.edit.run import EditResult, edit
    from vision3d.stages.edit.run_config import EditConfig, EditEvalConfig, ReconstructConfig

_PUBLIC = {
    "AdapterModel": ".network.adapter_files",
    "AdapterTrainConfig": ".config",
    "TrainResult": ".adapter_training",
    "EditConfig": ".run_config",
    "EditEvalConfig": ".run_config",
    "EditEvalResult": ".evaluate",
    "EditResult": ".run",
    "Edited": ".editor",
    "Editor": ".editor",
    "PlanesModel": ".network.files",
    "PlanesTrainConfig": ".config",
    "ReconstructConfig": ".run_config",
    "ReconstructResult": ".reconstruct",
    "edit": ".run",
    "evaluate_edits": ".evaluate",
    "load_adapter": ".network.adapter_files",
    "load_planes_model": ".network.files",
    "reconstruct": ".reconstruct",
    "save_adapter": ".network.adapter_files",
    "save_planes_model": ".network.files",
    "train_adapter": ".adapter_training",
    "train_planes": ".planes_training",
}

__all__ = [
    "AdapterModel",
    "AdapterTrainConfig",
    "EditConfig",
    "EditEvalConfig",
    "EditEvalResult",
    "EditResult",
    "Edited",
    "Editor",
    "PlanesModel",
    "PlanesTrainConfig",
    "ReconstructConfig",
    "ReconstructResult",
    "TrainResult",
    "edit",
    "evaluate_edits",
    "load_adapter",
    "load_planes_model",
    "reconstruct",
    "save_adapter",
    "save_planes_model",
    "train_adapter",
    "train_planes",
]

__getattr__ = lazy_names(__name__, _PUBLIC)
