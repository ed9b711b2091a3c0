"""A Zero123-class pipeline with random numbers in place of weights: it shows that the wires are right, and nothing else."""

from pathlib import Path

import torch

EMBEDDING, CONTEXT = 16, 24


def write_tiny_pipeline(folder: Path, projection: str = "cc_projection") -> Path:
    """Write a folder in the layout of diffusers; needs diffusers and transformers."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=8, out_channels=4, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=CONTEXT, attention_head_dim=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=2,
    )  # fmt: skip
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, projection_dim=EMBEDDING, num_hidden_layers=2, num_attention_heads=2,
            patch_size=56,
        )
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    for name, part in {"unet": unet, "vae": vae, "image_encoder": encoder, "scheduler": scheduler}.items():
        part.save_pretrained(folder / name)
    (folder / projection).mkdir()
    tensors = {"projection.weight": torch.randn(CONTEXT, EMBEDDING + 4), "projection.bias": torch.randn(CONTEXT)}
    save_file(tensors, folder / projection / "diffusion_pytorch_model.safetensors")
    return folder
