"""Trained VAEs and diffusion models: network, configuration, digests of what they belong to, and model card, in one file."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError
from vision3d.stages.edit.config import PlanesConfig
from vision3d.stages.edit.diffusion_config import DenoiserConfig, Sampling, VaeConfig
from vision3d.stages.edit.instructions.text import TextEncoder
from vision3d.stages.edit.network.adapter_files import check_partners, planes_digest
from vision3d.stages.edit.network.denoiser import SCHEDULE, DiffusionNet, diffusers
from vision3d.stages.edit.network.files import PlanesModel
from vision3d.stages.edit.network.vae import TriVae
from vision3d.training.models import ModelFormat, TrainedModel
from vision3d.training.weights import find_weights

VAE_KIND, DIFFUSION_KIND = "edit_vae", "edit_diffusion"


@dataclass(frozen=True)
class DescribedVae:
    """A VAE and what it belongs to."""

    vae: VaeConfig = field(default_factory=VaeConfig)
    planes: PlanesConfig = field(default_factory=PlanesConfig)
    planes_digest: str = ""
    """Of the parameters of the encoder and decoder of planes."""


@dataclass(frozen=True)
class Schedule:
    """Options of the noise that a model was trained with."""

    prediction_type: str = str(SCHEDULE["prediction_type"])
    beta_schedule: str = str(SCHEDULE["beta_schedule"])
    rescale_betas_zero_snr: bool = bool(SCHEDULE["rescale_betas_zero_snr"])
    timestep_spacing: str = str(SCHEDULE["timestep_spacing"])
    clip_sample: bool = bool(SCHEDULE["clip_sample"])


@dataclass(frozen=True)
class DescribedDiffusion:
    """A diffusion model and what it belongs to."""

    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    planes: PlanesConfig = field(default_factory=PlanesConfig)
    planes_digest: str = ""
    """Of the parameters of the encoder and decoder of planes."""
    text_digest: str = ""
    """Of the file of the encoder of texts."""
    schedule: Schedule = field(default_factory=Schedule)
    """What sampling has to use, too."""


class VaeModel(TrainedModel[TriVae, DescribedVae]):
    """A VAE of the planes of one encoder."""

    def check(self, planes: PlanesModel) -> "VaeModel":
        """Raise an InputError if it was trained with others."""
        if self.config.planes_digest != planes_digest(planes):
            raise InputError("vae: was trained with another encoder of planes; want weights that match")
        return self


class DiffusionModel(TrainedModel[DiffusionNet, DescribedDiffusion]):
    """A diffusion model that edits the planes of one encoder by the tokens of one text encoder."""

    def check(self, planes: PlanesModel, encoder: TextEncoder) -> "DiffusionModel":
        """Raise an InputError if it was trained with others."""
        check_partners("diffusion", self.config.planes_digest, self.config.text_digest, planes, encoder)
        return self

    def changing(self, sampling: Sampling, seed: int) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The change of planes by a text, with the arguments of an adapter."""
        return changing(self.network, sampling, seed)


def changing(
    network: DiffusionNet, sampling: Sampling, seed: int
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The change of planes by a text, with the arguments of an adapter."""

    def change(planes: Tensor, box: Tensor, tokens: Tensor, mask: Tensor, baked: Tensor) -> Tensor:
        return network.sample(planes, box, tokens, mask, baked, sampling, seed)

    return change


VAE_FORMAT = ModelFormat(VAE_KIND, DescribedVae, lambda config: TriVae(config.planes, config.vae))
DIFFUSION_FORMAT = ModelFormat(
    DIFFUSION_KIND, DescribedDiffusion, lambda config: DiffusionNet(config.planes, config.vae, config.denoiser)
)


def save_vae(path: Path | str, model: VaeModel) -> None:
    """Write a model as .safetensors atomically: numbers as float16."""
    VAE_FORMAT.save(path, model)


def load_vae(path: Path | str) -> VaeModel:
    """Load a model in evaluation mode; arguments and errors as for `training.weights.load_network`."""
    return VaeModel(*VAE_FORMAT.load(path))


def save_diffusion(path: Path | str, model: DiffusionModel) -> None:
    """Write a model as .safetensors atomically: numbers as float16."""
    DIFFUSION_FORMAT.save(path, model)


def load_diffusion(path: Path | str) -> DiffusionModel:
    """Load a model in evaluation mode.

    Raises:
        MissingDependencyError: diffusers is not installed.
        FileFormatError: It was trained with another noise schedule; further errors as for `training.weights.load_network`.
    """
    diffusers()  # before a file that nobody without it has
    model = DiffusionModel(*DIFFUSION_FORMAT.load(path))
    for key, value in asdict(model.config.schedule).items():
        if value != SCHEDULE[key]:
            raise FileFormatError(find_weights(path), f"has a schedule with {key} {value}, want {SCHEDULE[key]}")
    return model
