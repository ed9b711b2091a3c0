"""Loading a folder with a Zero123-class pipeline: required parts, forbidden files, and its name."""

from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core import plugins
from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError
from vision3d.core.plain import from_json
from vision3d.stages.animate.guidance.base import Guidance
from vision3d.stages.animate.guidance.config import SdsConfig
from vision3d.stages.animate.guidance.zero123 import Zero123

PARTS = ("unet", "vae", "image_encoder", "scheduler")
PROJECTIONS = ("cc_projection", "clip_camera_projection")
"""Names used by different programs for the linear layer of the image embedding and the camera."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
REAL_PARAMETERS = 500_000_000
"""A smaller network was not trained as Zero123 (860 million parameters)."""


def load_guidance(
    folder: Path | str, references: Float[Tensor, "t h w 3"], config: SdsConfig, device: torch.device
) -> Guidance:
    """Load the guidance from a folder in the layout of diffusers, with safetensors files; nothing in it is executed.

    Args:
        folder: With the folders unet, vae, image_encoder, scheduler and cc_projection; or the name of a guidance of another
            package (entry points `vision3d.guidance`: functions of the other three arguments).
        references: Reference images on white in [0, 1].
        config: Options of the distillation.
        device: Where it runs; half precision on a GPU.

    Raises:
        InputError: The folder contains pickles, lacks parts, or a network has a wrong shape.
        MissingDependencyError: diffusers or transformers is not installed.

    Example:
        >>> guidance = load_guidance("zero123", photo[None], SdsConfig(), torch.device("cuda"))
        >>> guidance.label
    """
    folder = Path(folder)
    make = None if folder.exists() else plugins.load("vision3d.guidance", folder.name, FunctionType)
    if make is not None:
        return make(references, config, device)
    projection = check_folder(folder)
    try:
        import diffusers
        import transformers
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPVisionModelWithProjection
    except ImportError as error:
        raise MissingDependencyError("diffusers and transformers", "guidance", "guidance by diffusion") from error
    for package in (diffusers, transformers):
        package.utils.logging.disable_progress_bar()
    local: dict[str, Any] = {"local_files_only": True}
    networks = {"use_safetensors": True, **local}
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **networks)
        vae: Any = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype, **networks)
        # Its layer norms need full precision; it is used once and released.
        encoder: Any = CLIPVisionModelWithProjection.from_pretrained(folder, subfolder="image_encoder", **networks)
        scheduler: Any = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", **local)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = str(error).strip().partition("\n")[0]
        raise FileFormatError(folder, f"cannot be read as a pipeline of diffusers ({first})") from error
    weight, bias = _linear(projection)
    _check_shapes(folder, unet.config, encoder.config, weight)
    return Zero123(
        unet=unet.to(device), vae=vae.to(device), encoder=encoder.to(device), alphas=scheduler.alphas_cumprod,
        projection=(weight.to(device), bias.to(device)), references=references.to(device), config=config,
        label=label_of(folder, sum(parameter.numel() for parameter in unet.parameters())),
    )  # fmt: skip


def check_folder(folder: Path) -> Path:
    """The folder of the linear layer of a pipeline that is complete and has no pickles.

    Raises:
        MissingFileError: The folder does not exist.
        InputError: It contains pickles, or lacks parts; the message lists them.
    """
    if not folder.is_dir():
        raise MissingFileError(folder, f"a folder with {', '.join(PARTS)} and {PROJECTIONS[0]}")
    pickles = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        more = f" and {len(pickles) - 1} more" if len(pickles) > 1 else ""
        raise InputError(
            f"{folder}: holds {pickles[0]}{more}, which may run code when it is loaded; want .safetensors alone "
            "(docs/animate.md says how to convert)"
        )
    found = [folder / name for name in PROJECTIONS if (folder / name).is_dir()]
    missing = [name for name in PARTS if not (folder / name).is_dir()] + ([] if found else [PROJECTIONS[0]])
    if missing:
        raise InputError(f"{folder}: lacks the folders {', '.join(missing)}; want a Zero123-class pipeline of diffusers")
    return found[0]


def label_of(folder: Path, num_parameters: int) -> str:
    """Name of the guidance for reports: as recorded in the folder, unless its network is too small for that."""
    if num_parameters < REAL_PARAMETERS:
        return f"untrained test pipeline ({num_parameters:,} parameters)"
    path = folder / "model_index.json"
    try:
        index = from_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise FileFormatError(path, "is not JSON") from error
    name = index.get("_name_or_path") or index.get("_class_name") if isinstance(index, dict) else None
    return f"{name} (according to its folder)" if name else f"weights without a name from {folder.name}"


def _linear(folder: Path) -> tuple[Tensor, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise FileFormatError(path, f"is damaged ({error})") from error
    weights = [value for value in tensors.values() if value.dim() == 2]
    biases = [value for value in tensors.values() if value.dim() == 1]
    if len(weights) != 1 or len(biases) != 1:
        raise FileFormatError(folder, f"holds {len(tensors)} tensors, want the weight and the bias of one linear layer")
    return weights[0].float(), biases[0].float()


def _check_shapes(folder: Path, unet: Any, encoder: Any, weight: Tensor) -> None:
    width = encoder.projection_dim
    if unet.in_channels != 8 or unet.out_channels != 4:
        found = f"{unet.in_channels} channels in and {unet.out_channels} out"
        raise InputError(f"{folder}: unet has {found}; want 8 and 4: latents, and those of the reference beside them")
    if tuple(weight.shape) != (unet.cross_attention_dim, width + 4):
        raise InputError(
            f"{folder}: the projection has shape {tuple(weight.shape)}, want {(unet.cross_attention_dim, width + 4)}: "
            "the embedding of the image and 4 numbers of the camera"
        )
