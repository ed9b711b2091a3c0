"""Checkpoints of TripoSR: the published layout written down name by name, tensors for it, and the equations by einsum."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

SMALL = {
    "image": 48, "patch": 8, "vit": 128, "vit_layers": 2, "vit_mlp": 160, "grid": 4, "plane": 6, "width": 64, "heads": 2,
    "head": 32, "layers": 2, "channels": 5, "neurons": 16, "hidden": 3, "radius": 0.87,
}  # fmt: skip
PUBLISHED = {
    "image": 512, "patch": 16, "vit": 768, "vit_layers": 12, "vit_mlp": 3072, "grid": 14, "plane": 32, "width": 1024,
    "heads": 16, "head": 64, "layers": 16, "channels": 40, "neurons": 64, "hidden": 9, "radius": 0.87,
}  # fmt: skip


def layout(n: dict) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    vit, v = "image_tokenizer.model", n["vit"]
    shapes[f"{vit}.embeddings.cls_token"] = (1, 1, v)
    shapes[f"{vit}.embeddings.position_embeddings"] = (1, n["grid"] ** 2 + 1, v)
    shapes[f"{vit}.embeddings.patch_embeddings.projection.weight"] = (v, 3, n["patch"], n["patch"])
    shapes[f"{vit}.embeddings.patch_embeddings.projection.bias"] = (v,)
    for i in range(n["vit_layers"]):
        layer = f"{vit}.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.attention.{name}", v, v)
        linear(f"{layer}.attention.output.dense", v, v)
        linear(f"{layer}.intermediate.dense", v, n["vit_mlp"])
        linear(f"{layer}.output.dense", n["vit_mlp"], v)
        norm(f"{layer}.layernorm_before", v)
        norm(f"{layer}.layernorm_after", v)
    norm(f"{vit}.layernorm", v)
    linear(f"{vit}.pooler.dense", v, v)
    width = n["width"]
    shapes["tokenizer.embeddings"] = (3, width, n["plane"], n["plane"])
    norm("backbone.norm", width)
    linear("backbone.proj_in", width, width)
    linear("backbone.proj_out", width, width)
    for i in range(n["layers"]):
        block = f"backbone.transformer_blocks.{i}"
        for name in ("norm1", "norm2", "norm3"):
            norm(f"{block}.{name}", width)
        for name, inputs in (("attn1", width), ("attn2", v)):
            linear(f"{block}.{name}.to_q", width, width, False)
            linear(f"{block}.{name}.to_k", inputs, width, False)
            linear(f"{block}.{name}.to_v", inputs, width, False)
            linear(f"{block}.{name}.to_out.0", width, width)
        linear(f"{block}.ff.net.0.proj", width, 8 * width)
        linear(f"{block}.ff.net.2", 4 * width, width)
    shapes["post_processor.upsample.weight"] = (width, n["channels"], 2, 2)
    shapes["post_processor.upsample.bias"] = (n["channels"],)
    for i in range(n["hidden"] + 1):
        inputs = 3 * n["channels"] if i == 0 else n["neurons"]
        linear(f"decoder.layers.{2 * i}", inputs, 4 if i == n["hidden"] else n["neurons"])
    return shapes


def random_tensors(n: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors for a layout, of a size that keeps all layers active."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in layout(n).items():
        value = torch.randn(shape, generator=generator)
        inputs = math.prod(shape[1:]) if len(shape) > 1 and "embedding" not in name and "cls" not in name else 1
        found[name] = 0.3 * value if len(shape) == 1 else value / math.sqrt(inputs)
        if "norm" in name and name.endswith("weight"):
            found[name] = 1 + 0.3 * value
    return found


def config(n: dict) -> str:
    """A config.yaml, with references as the published one has."""
    return f"""
cond_image_size: {n["image"]}
image_tokenizer_cls: tsr.models.tokenizers.image.DINOSingleImageTokenizer
image_tokenizer: {{pretrained_model_name_or_path: "facebook/dino-vitb16"}}
tokenizer_cls: tsr.models.tokenizers.triplane.Triplane1DTokenizer
tokenizer: {{plane_size: {n["plane"]}, num_channels: {n["width"]}}}
backbone_cls: tsr.models.transformer.transformer_1d.Transformer1D
backbone:
  in_channels: ${{tokenizer.num_channels}}
  num_attention_heads: {n["heads"]}
  attention_head_dim: {n["head"]}
  num_layers: {n["layers"]}
  cross_attention_dim: {n["vit"]}
post_processor_cls: tsr.models.network_utils.TriplaneUpsampleNetwork
post_processor: {{in_channels: {n["width"]}, out_channels: {n["channels"]}}}
decoder_cls: tsr.models.network_utils.NeRFMLP
decoder: {{in_channels: {3 * n["channels"]}, n_neurons: {n["neurons"]}, n_hidden_layers: {n["hidden"]}, activation: silu}}
renderer_cls: tsr.models.nerf_renderer.TriplaneNeRFRenderer
renderer: {{radius: {n["radius"]}, feature_reduction: concat, density_activation: exp, density_bias: -1.0}}
"""


def write_lrm(folder: Path, tensors: dict[str, torch.Tensor], n: dict = SMALL) -> Path:
    """A folder as users have it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config(n), "utf-8")
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def ball_tensors(radius: float = 0.5, seed: int = 0) -> dict[str, torch.Tensor]:
    """A network that ignores the image: a ball of a radius, red where x > 0 and blue elsewhere (axes of TripoSR, from -1 to 1).

    The tokens are as learned, since the last layer of the backbone is 0. Channels 0 and 1 of the planes are squares and the
    first coordinate; SiLU(x) is x for large x, so that with an offset the hidden layers let them through.
    """
    n, offset = SMALL, 30.0
    tensors = random_tensors(n, seed)
    for name in ("backbone.proj_out.weight", "backbone.proj_out.bias"):
        tensors[name].zero_()
    size = 2 * n["plane"]
    at = (2 * torch.arange(size) + 1) / size - 1
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    # A texel of the planes is one of four outputs of a token: each token holds the four values of a channel.
    squares = ((rows**2 + columns**2) / 2).view(n["plane"], 2, n["plane"], 2).permute(1, 3, 0, 2).flatten(0, 1)
    first = columns.reshape(n["plane"], 2, n["plane"], 2).permute(1, 3, 0, 2).flatten(0, 1)
    tokens = tensors["tokenizer.embeddings"].zero_()
    tokens[:, :4], tokens[:, 4:8] = squares, first
    upsample = tensors["post_processor.upsample.weight"].zero_()
    tensors["post_processor.upsample.bias"].zero_()
    for corner in range(4):
        upsample[corner, 0, corner // 2, corner % 2] = 1
        upsample[4 + corner, 1, corner // 2, corner % 2] = 1
    for i in range(n["hidden"] + 1):
        weight, bias = tensors[f"decoder.layers.{2 * i}.weight"].zero_(), tensors[f"decoder.layers.{2 * i}.bias"].zero_()
        if i == 0:
            weight[0, [0, n["channels"], 2 * n["channels"]]] = 1  # x^2 + y^2 + z^2: each twice, halved
            weight[1, [1, n["channels"] + 1]] = 0.5  # x is along the columns of the first two planes
            bias[:2] = offset
        elif i < n["hidden"]:
            weight[0, 0] = weight[1, 1] = 1
        else:
            slope = 60.0
            weight[0, 0], bias[0] = -slope, slope * (radius**2 + offset) + math.log(25) + 1
            weight[1, 1], bias[1] = 60.0, -60.0 * offset
            weight[3, 1], bias[3] = -60.0, 60.0 * offset
            bias[2] = -6.0
    return tensors
