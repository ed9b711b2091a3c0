"""Small networks of edits with random parameters, and an encoder of texts that needs no package."""

import hashlib

import torch

from vision3d.stages.edit.config import AdapterConfig, PlanesConfig
from vision3d.stages.edit.diffusion_config import DenoiserConfig, VaeConfig
from vision3d.stages.edit.instructions.text import TextEncoder, TextTokens
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.adapter_files import AdapterModel, describe, planes_digest
from vision3d.stages.edit.network.denoiser import DiffusionNet
from vision3d.stages.edit.network.diffusion_files import DescribedDiffusion, DescribedVae, DiffusionModel, VaeModel
from vision3d.stages.edit.network.files import PlanesModel
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.network.vae import TriVae
from vision3d.training.weights import Card

PLANES = PlanesConfig(size=16, channels=6, density_channels=2, width=8, levels=2, hidden=8)
ADAPTER = AdapterConfig(width=8, reduce=2, levels=2, style=16, queries=2, context=4, hidden=8)
VAE = VaeConfig(latents=2, reduce=2, width=8, blocks=1)
DENOISER = DenoiserConfig(widths=(8, 8), heads=2, groups=4)


class WordEncoder:
    """Random but constant tokens for every word."""

    digest = "d" * 64

    def encode(self, texts: list[str]) -> TextTokens:
        rows = [torch.stack([self._word(word) for word in text.lower().split()]) for text in texts]
        longest = max(len(row) for row in rows)
        tokens = torch.zeros(len(rows), longest, 384)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for index, row in enumerate(rows):
            tokens[index, : len(row)], mask[index, : len(row)] = row, True
        pooled = torch.nn.functional.normalize(tokens.sum(1), dim=1)
        return TextTokens(tokens, mask, pooled)

    def _word(self, word: str) -> torch.Tensor:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little")
        return torch.randn(384, generator=torch.Generator().manual_seed(seed))


def card(kind: str) -> Card:
    return Card.of_now(kind, config={}, data="nothing", seed=0, cpu_hours=0)


def random_planes() -> PlanesModel:
    """An encoder and decoder."""
    torch.manual_seed(0)
    return PlanesModel(PlaneNet(PLANES).eval(), PLANES, card("edit_planes"))


def random_adapter(planes: PlanesModel, encoder: TextEncoder | WordEncoder) -> AdapterModel:
    """An adapter that changes something, unlike a fresh one."""
    torch.manual_seed(1)
    network = AdapterNet(PLANES, ADAPTER).eval()
    torch.nn.init.normal_(network.leave.weight, std=0.5)
    return AdapterModel(network, describe(ADAPTER, planes, encoder), card("edit_adapter"))


def random_vae(planes: PlanesModel) -> VaeModel:
    """A VAE."""
    torch.manual_seed(2)
    return VaeModel(TriVae(PLANES, VAE).eval(), DescribedVae(VAE, PLANES, planes_digest(planes)), card("edit_vae"))


def random_diffusion(planes: PlanesModel, encoder: TextEncoder | WordEncoder) -> DiffusionModel:
    """A diffusion model that has learned nothing."""
    torch.manual_seed(3)
    config = DescribedDiffusion(DENOISER, VAE, PLANES, planes_digest(planes), encoder.digest)
    network = DiffusionNet(PLANES, VAE, DENOISER).eval()
    torch.nn.init.normal_(network.unet.conv_in.weight, std=0.05)
    return DiffusionModel(network, config, card("edit_diffusion"))
