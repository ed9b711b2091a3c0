"""A diffusion model over the latents of planes, conditioned on the tokens of a text and on the latents of the source.

As InstructPix2Pix does for images (Brooks et al. 2023), and Instructive3D for triplanes: source and noisy latents are
concatenated, and the text is read by attention. Network and schedules are those of the package diffusers.
"""

import warnings
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from vision3d.core.errors import MissingDependencyError
from vision3d.stages.edit.config import PlanesConfig
from vision3d.stages.edit.diffusion_config import DenoiserConfig, Sampling, VaeConfig
from vision3d.stages.edit.network.places import PLACES, axis_features, place_features, texels_at
from vision3d.stages.edit.network.texts import TEXT_WIDTH
from vision3d.stages.edit.network.vae import TriVae

TIMES = 1000
SCHEDULE = {
    "prediction_type": "v_prediction",
    "beta_schedule": "squaredcos_cap_v2",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}
"""The defaults of diffusers begin from noise that holds mean colors, and clip normalised latents to [-1, 1]."""


class DiffusionNet(nn.Module):
    """VAE and denoiser.

    Args:
        planes: The network whose planes are edited.
        vae: Sizes of the VAE.
        config: Sizes of the denoiser.

    Raises:
        MissingDependencyError: diffusers is not installed.
    """

    def __init__(self, planes: PlanesConfig, vae: VaeConfig, config: DenoiserConfig) -> None:
        super().__init__()
        self.planes, self.config = planes, config
        self.vae = TriVae(planes, vae).requires_grad_(False)
        latents = 3 * vae.latents
        shape = 3 * planes.density_channels + 3 * PLACES + 1
        self.enter = nn.Conv2d(shape, config.widths[0], 1)
        self.null = nn.Parameter(torch.zeros(1, 1, TEXT_WIDTH))
        self.unet = diffusers().UNet2DConditionModel(
            sample_size=self.vae.size, in_channels=2 * latents + config.widths[0], out_channels=latents,
            block_out_channels=config.widths, layers_per_block=config.layers,
            down_block_types=("CrossAttnDownBlock2D",) * len(config.widths), mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D",) * len(config.widths), cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=config.heads, norm_num_groups=config.groups,
        )  # fmt: skip
        with torch.no_grad():  # at first, nothing is known of the source
            self.unet.conv_in.weight[:, latents : 2 * latents] = 0

    def train(self, mode: bool = True) -> "DiffusionNet":
        """The VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def shape_features(
        self, planes: Float[Tensor, "b 3 c h w"], box: Float[Tensor, "b 2 3"], baked: Float[Tensor, " b"]
    ) -> Float[Tensor, "b f i j"]:
        """What the denoiser sees of the shape: density and place of each cell, and whether materials are painted."""
        size, reduce = self.vae.size, self.vae.config.reduce
        density = planes[:, :, : self.planes.density_channels].flatten(1, 2)
        middle = torch.arange(size, device=planes.device) * reduce + reduce // 2
        columns, rows = texels_at(middle, middle, len(planes))
        places = place_features(axis_features(box, planes.shape[-1]), columns, rows)
        places = places.transpose(2, 3).flatten(1, 2).unflatten(2, (size, size))
        painted = baked[:, None, None, None].expand(-1, 1, size, size)
        return torch.cat([nn.functional.avg_pool2d(density, reduce), places, painted], 1)

    def predict(
        self,
        noisy: Float[Tensor, "b l i j"],
        times: Int64[Tensor, " b"],
        source: Float[Tensor, "b l i j"],
        shape: Float[Tensor, "b f i j"],
        tokens: Float[Tensor, "b t 384"],
        mask: Bool[Tensor, "b t"],
        has_text: Bool[Tensor, " b"],
        has_source: Bool[Tensor, " b"],
    ) -> Float[Tensor, "b l i j"]:
        """The velocity v = alpha noise - sigma latents.

        Args:
            noisy: Latents with noise.
            times: Of the schedule.
            source: Latents of the source.
            shape: Of `shape_features`.
            tokens: Of the text.
            mask: Which tokens belong to it.
            has_text: Where False, the text is left out.
            has_source: Where False, the latents of the source are.
        """
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        tokens = torch.where(has_text[:, None, None], tokens, self.null)
        mask = torch.where(has_text[:, None], mask, first)
        seen = torch.cat([noisy, source * has_source[:, None, None, None], self.enter(shape)], 1)
        return self.unet(seen, times, tokens, encoder_attention_mask=mask).sample

    @torch.no_grad()
    def sample(
        self,
        planes: Float[Tensor, "b 3 c h w"],
        box: Float[Tensor, "b 2 3"],
        tokens: Float[Tensor, "b t 384"],
        mask: Bool[Tensor, "b t"],
        baked: Float[Tensor, " b"],
        sampling: Sampling,
        seed: int,
    ) -> Float[Tensor, "b 3 k h w"]:
        """The change of the channels of color: that of the decoded latents, so that what the VAE loses of the source stays.

        Args:
            planes, box, tokens, mask, baked: As for `AdapterNet.forward`.
            sampling: How.
            seed: Of the noise; the objects of a batch have seeds of their own, from this one on.
        """
        source, shape = self.vae.encode(planes[:, :, self.planes.density_channels :]), self.shape_features(planes, box, baked)
        noise = torch.stack([
            torch.randn(source.shape[1:], generator=torch.Generator().manual_seed(seed + row)) for row in range(len(source))
        ]).to(source)  # fmt: skip
        schedule = make_schedule(sampling.scheduler)
        with warnings.catch_warnings():  # of numpy, about a tensor that diffusers converts
            warnings.simplefilter("ignore", DeprecationWarning)
            schedule.set_timesteps(sampling.steps)
        times = schedule.timesteps[round((1 - sampling.start) * sampling.steps) :]
        if sampling.start < 1:
            x = schedule.add_noise(source, noise, times[:1].expand(len(source)))
            if hasattr(schedule, "set_begin_index"):
                schedule.set_begin_index(len(schedule.timesteps) - len(times))
        else:
            x = noise * schedule.init_noise_sigma
        for time in times:
            v = self._guided(schedule.scale_model_input(x, time), time, source, shape, tokens, mask, sampling)
            after = schedule.step(v, time, x)
            x = after.prev_sample
            if time == times[-1]:  # where the count does not divide the times of training, DDIM would leave some noise
                x = getattr(after, "pred_original_sample", x)
        return self.vae.decode(x) - self.vae.decode(source)

    def _guided(
        self, x: Tensor, time: Tensor, source: Tensor, shape: Tensor, tokens: Tensor, mask: Tensor, sampling: Sampling
    ) -> Tensor:
        """v(0, 0) + s_source (v(source, 0) - v(0, 0)) + s_text (v(source, text) - v(source, 0)), Brooks et al., eq. 3.

        A term whose factor is 0 is not computed.
        """
        text, own = sampling.guidance, sampling.source_guidance
        parts = [(factor, flags) for factor, flags in (
            (text, (True, True)), (own - text, (False, True)), (1 - own, (False, False)),
        ) if factor != 0]  # fmt: skip
        total = torch.zeros_like(source)
        for factor, (has_text, has_source) in parts:
            given = [torch.full((len(x),), flag, device=x.device) for flag in (has_text, has_source)]
            times = time.to(x.device).expand(len(x))
            total = total + factor * self.predict(x, times, source, shape, tokens, mask, *given)
        return total


def make_schedule(name: str = "ddim") -> Any:
    """A schedule of diffusers with the options of `SCHEDULE`.

    Raises:
        MissingDependencyError: diffusers is not installed.
    """
    package = diffusers()
    if name == "ddim":
        return package.DDIMScheduler(num_train_timesteps=TIMES, **SCHEDULE)
    # It has no option clip_sample; its counterpart is off by default.
    options = {key: value for key, value in SCHEDULE.items() if key != "clip_sample"}
    return package.DPMSolverMultistepScheduler(num_train_timesteps=TIMES, thresholding=False, **options)


def diffusers() -> Any:
    """The package.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import diffusers as package
        from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("diffusers", "guidance", "edits by diffusion") from error
    return package
