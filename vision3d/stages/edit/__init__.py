"""Edits of objects by text, after Instructive3D (Kathare et al. 2025, arXiv 2501.04374)."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.stages.edit.adapter_training import TrainResult, train_adapter
    from vision3d.stages.edit.config import AdapterTrainConfig, PlanesTrainConfig
    from vision3d.stages.edit.diffusion_config import DiffusionTrainConfig, Sampling, VaeTrainConfig
    from vision3d.stages.edit.diffusion_training import train_diffusion
    from vision3d.stages.edit.editor import Edited, Editor
    from vision3d.stages.edit.evaluate import EditEvalResult, evaluate_edits
    from vision3d.stages.edit.network.adapter_files import AdapterModel, load_adapter, save_adapter
    from vision3d.stages.edit.network.diffusion_files import DiffusionModel, VaeModel, load_diffusion, load_vae
    from vision3d.stages.edit.network.files import PlanesModel, load_planes_model, save_planes_model
    from vision3d.stages.edit.planes_training import train_planes
    from vision3d.stages.edit.reconstruct import ReconstructResult, reconstruct
    from vision3d.stages.edit.run import EditResult, edit
    from vision3d.stages.edit.run_config import EditConfig, EditEvalConfig, EditSynthConfig, ReconstructConfig
    from vision3d.stages.edit.synth import SynthResult, synthesize_edits
    from vision3d.stages.edit.vae_training import train_vae

_PUBLIC = {
    "AdapterModel": ".network.adapter_files",
    "AdapterTrainConfig": ".config",
    "DiffusionModel": ".network.diffusion_files",
    "DiffusionTrainConfig": ".diffusion_config",
    "EditConfig": ".run_config",
    "EditEvalConfig": ".run_config",
    "EditEvalResult": ".evaluate",
    "EditResult": ".run",
    "EditSynthConfig": ".run_config",
    "Edited": ".editor",
    "Editor": ".editor",
    "PlanesModel": ".network.files",
    "PlanesTrainConfig": ".config",
    "ReconstructConfig": ".run_config",
    "ReconstructResult": ".reconstruct",
    "Sampling": ".diffusion_config",
    "SynthResult": ".synth",
    "TrainResult": ".adapter_training",
    "VaeModel": ".network.diffusion_files",
    "VaeTrainConfig": ".diffusion_config",
    "edit": ".run",
    "evaluate_edits": ".evaluate",
    "load_adapter": ".network.adapter_files",
    "load_diffusion": ".network.diffusion_files",
    "load_planes_model": ".network.files",
    "load_vae": ".network.diffusion_files",
    "reconstruct": ".reconstruct",
    "save_adapter": ".network.adapter_files",
    "save_planes_model": ".network.files",
    "synthesize_edits": ".synth",
    "train_adapter": ".adapter_training",
    "train_diffusion": ".diffusion_training",
    "train_planes": ".planes_training",
    "train_vae": ".vae_training",
}

__all__ = [
    "AdapterModel",
    "AdapterTrainConfig",
    "DiffusionModel",
    "DiffusionTrainConfig",
    "EditConfig",
    "EditEvalConfig",
    "EditEvalResult",
    "EditResult",
    "EditSynthConfig",
    "Edited",
    "Editor",
    "PlanesModel",
    "PlanesTrainConfig",
    "ReconstructConfig",
    "ReconstructResult",
    "Sampling",
    "SynthResult",
    "TrainResult",
    "VaeModel",
    "VaeTrainConfig",
    "edit",
    "evaluate_edits",
    "load_adapter",
    "load_diffusion",
    "load_planes_model",
    "load_vae",
    "reconstruct",
    "save_adapter",
    "save_planes_model",
    "synthesize_edits",
    "train_adapter",
    "train_diffusion",
    "train_planes",
    "train_vae",
]

__getattr__ = lazy_names(__name__, _PUBLIC)
