"""The encoder of images of TripoSR: a vision transformer, with the parameter names of its checkpoint.

Dosovitskiy et al. 2021 (arXiv 2010.11929); trained by DINO (Caron et al. 2021, arXiv 2104.14294).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.edit.lrm.sizes import VitSizes

_EPS = 1e-12


class VisionTransformer(nn.Module):
    """Tokens of an image.

    Args:
        sizes: Of the network.
    """

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.embeddings: Any = nn.Module()
        self.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + sizes.grid**2, width))
        self.embeddings.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, width, sizes.patch, sizes.patch)})
        self.encoder: Any = nn.ModuleDict({"layer": nn.ModuleList(VitLayer(sizes) for _ in range(sizes.layers))})
        self.layernorm = nn.LayerNorm(width, _EPS)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})  # in the checkpoint, but TripoSR does not use it

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """The class token, then those of the patches, row by row."""
        patches: Tensor = self.embeddings.patch_embeddings["projection"](images)
        rows, columns = patches.shape[2:]
        tokens = torch.cat([self.embeddings.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], 1)
        tokens = tokens + self._positions(rows, columns)
        for layer in self.encoder["layer"]:
            tokens = layer(tokens)
        return self.layernorm(tokens)

    def _positions(self, rows: int, columns: int) -> Float[Tensor, "1 n c"]:
        """Embeddings of positions for another grid, bicubic.

        The scale is (n + 0.1) / grid, as in DINO and in the version of transformers that TripoSR was released with: places are
        those of a grid that is a tenth of a patch larger.
        """
        every, grid = self.embeddings.position_embeddings, self.sizes.grid
        if (rows, columns) == (grid, grid):
            return every
        own = every[:, 1:].mT.unflatten(2, (grid, grid))
        scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        other = nn.functional.interpolate(own, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([every[:, :1], other.flatten(2).mT], 1)


class VitLayer(nn.Module):
    """Attention and a perceptron, each with a norm before it.

    Args:
        sizes: Of the network.
    """

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        width = sizes.width
        self.heads = width // sizes.head
        parts = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention: Any = nn.ModuleDict({"attention": parts, "output": nn.ModuleDict({"dense": nn.Linear(width, width)})})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, sizes.mlp)})
        self.output = nn.ModuleDict({"dense": nn.Linear(sizes.mlp, width)})
        self.layernorm_before = nn.LayerNorm(width, _EPS)
        self.layernorm_after = nn.LayerNorm(width, _EPS)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """The tokens plus what the layers add."""
        y, parts = self.layernorm_before(x), self.attention["attention"]
        mixed = attend(parts["query"](y), parts["key"](y), parts["value"](y), self.heads)
        x = x + self.attention["output"]["dense"](mixed)
        y = nn.functional.gelu(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.output["dense"](y)


def attend(
    queries: Float[Tensor, "b n c"], keys: Float[Tensor, "b m c"], values: Float[Tensor, "b m c"], heads: int
) -> Float[Tensor, "b n c"]:
    """Scaled dot product attention in several heads."""
    queries, keys, values = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    return nn.functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
