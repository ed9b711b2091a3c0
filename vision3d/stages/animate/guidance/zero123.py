"""Score distillation with a Zero123-class network."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.stages.animate.guidance.config import SdsConfig
from vision3d.stages.animate.orbits import RelativeViews

SIDE = 256  # image size of the autoencoder [px]
_CLIP_SIDE = 224
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Zero123:
    """A `Guidance`: guides images of an object from other sides than those of its reference images.

    With latents z of an image, noise eps at time t and z_t = sqrt(abar_t) z + sqrt(1 - abar_t) eps, the gradient of the
    loss with respect to z is (1 - abar_t) (eps_hat - eps) / batch, where eps_hat = eps_u + scale (eps_c - eps_u) (Poole et al.
    2023, eq. 3; Ho and Salimans 2022). The network is not differentiated; non-finite values are set to zero.

    Args:
        unet: diffusers' UNet2DConditionModel, 8 channels in.
        vae: diffusers' AutoencoderKL.
        encoder: transformers' CLIPVisionModelWithProjection; not stored.
        alphas: abar_t of the scheduler.
        projection: Weight and bias of the linear layer from embedding and camera to the network's context.
        references: Reference images on white in [0, 1].
        config: Options.
        label: Name of the guidance, for reports.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        encoder: Any,
        alphas: Float[Tensor, " t"],
        projection: tuple[Float[Tensor, "c e"], Float[Tensor, " c"]],
        references: Float[Tensor, "t h w 3"],
        config: SdsConfig,
        label: str,
    ) -> None:
        self.unet, self.vae = unet.eval().requires_grad_(False), vae.eval().requires_grad_(False)
        self.projection, self.config, self.label = projection, config, label
        self.alphas = alphas.to(projection[0])
        with torch.no_grad():
            images = square(references)
            self.embeddings = encoder.eval()(clip_pixels(images).to(encoder.dtype)).image_embeds.float()
            self.latents_of_references = self.vae.encode(self._pixels(images)).latent_dist.mode()

    def loss(self, frames: Float[Tensor, "b h w 3"], views: RelativeViews, generator: torch.Generator) -> Float[Tensor, ""]:
        """Half the squared norm of the gradient with respect to the latents, over the batch; its derivative is that gradient.

        Args:
            frames: Images on white in [0, 1].
            views: Viewing directions relative to the reference.
            generator: Random generator of the noise, on the CPU.
        """
        return self.loss_of_latents(self.latents(frames, generator), views, generator)

    def latents(self, frames: Float[Tensor, "b h w 3"], generator: torch.Generator) -> Float[Tensor, "b 4 l l"]:
        """Latents of images, sampled from the autoencoder's distribution; differentiable."""
        found = self.vae.encode(self._pixels(square(frames))).latent_dist
        noise = torch.randn(found.mean.shape, generator=generator).to(found.mean)
        return (self.vae.config.scaling_factor * (found.mean + found.std * noise)).float()

    def loss_of_latents(
        self, latents: Float[Tensor, "b 4 l l"], views: RelativeViews, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """The loss of given latents."""
        batch, last = len(latents), len(self.alphas) - 1
        low, high = (round(part * last) for part in (self.config.t_min, self.config.t_max))
        times = torch.randint(low, high + 1, (batch,), generator=generator)
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        with torch.no_grad():
            gradient = self.gradient(latents.detach(), views, times.to(latents.device), noise)
        # The value of |gradient|^2 / 2 with the gradient itself as derivative, without the rounding of z - (z - gradient).
        return (0.5 * gradient.square() + (latents - latents.detach()) * gradient).sum() / batch

    def gradient(
        self,
        latents: Float[Tensor, "b 4 l l"],
        views: RelativeViews,
        times: Int64[Tensor, " b"],
        noise: Float[Tensor, "b 4 l l"],
    ) -> Float[Tensor, "b 4 l l"]:
        """(1 - abar_t) (eps_hat - eps)."""
        alphas = self.alphas[times][:, None, None, None]
        noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
        context, beside = self.context(views)[:, None], self.latents_of_references[views.frame]
        # For the unconditional prediction both the context and the concatenated latents are zero.
        pair = torch.cat([torch.cat([noisy, noisy]), torch.cat([torch.zeros_like(beside), beside])], 1)
        contexts = torch.cat([torch.zeros_like(context), context])
        dtype = self.unet.dtype
        found = self.unet(pair.to(dtype), times.repeat(2), encoder_hidden_states=contexts.to(dtype)).sample.float()
        unconditional, conditional = found.chunk(2)
        guided = unconditional + self.config.scale * (conditional - unconditional)
        return torch.nan_to_num((1 - alphas) * (guided - noise), nan=0.0, posinf=0.0, neginf=0.0)

    def context(self, views: RelativeViews) -> Float[Tensor, "b c"]:
        """Input of cross-attention: the embedding of the reference and (d polar, sin d azimuth, cos d azimuth, last)."""
        last = views.distance if self.config.camera == "zero123" else torch.full_like(views.polar, views.reference_polar)
        camera = torch.stack([views.polar, views.azimuth.sin(), views.azimuth.cos(), last], -1).to(self.embeddings)
        weight, bias = self.projection
        return torch.cat([self.embeddings[views.frame], camera], -1) @ weight.T + bias

    def _pixels(self, images: Float[Tensor, "b 3 s s"]) -> Tensor:
        """Images in the format of the autoencoder."""
        resized = torch.nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
        return (2 * resized - 1).to(self.vae.dtype)


def square(images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
    """Channels first, with white on both sides of the shorter axis."""
    height, width = images.shape[1:3]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    pads = (left, side - width - left, top, side - height - top)
    return torch.nn.functional.pad(images.movedim(-1, 1), pads, value=1.0)


def clip_pixels(images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 224 224"]:
    """Images in the format of CLIP."""
    resized = torch.nn.functional.interpolate(images, (_CLIP_SIDE, _CLIP_SIDE), mode="bicubic", antialias=True)
    mean, std = (resized.new_tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_STD))
    return (resized.clamp(0, 1) - mean) / std
