"""The networks that edit planes by a text, by the name of the method."""

import torch

from vision3d.stages.edit.network.adapter_files import AdapterModel, load_adapter
from vision3d.stages.edit.network.diffusion_files import DiffusionModel, load_diffusion


def load_editing(method: str, weights: str, device: torch.device | str = "cpu") -> AdapterModel | DiffusionModel | None:
    """The network of a method; None for closed forms.

    Args:
        method: closed-form, adapter or diffusion.
        weights: A file, or the name of bundled ones.
        device: Where to compute.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged or contains something else.
        MissingDependencyError: Diffusion needs diffusers.
    """
    device = torch.device(device)
    if method == "adapter":
        return load_adapter(weights).to(device)
    return load_diffusion(weights).to(device) if method == "diffusion" else None
