"""TripoSR (Tochilkin et al. 2024, arXiv 2403.02151): from one image to a triplane, with the names of its checkpoint."""

import itertools
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ShapeError
from vision3d.scene.triplane import AXES
from vision3d.stages.edit.lrm.sizes import LrmSizes
from vision3d.stages.edit.lrm.vit import VisionTransformer, attend

LEVEL = 25.0
"""Density of the surface [1 / segment of a ray in the cube]."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GROUPS, _CHUNK = 32, 1 << 16


class TripoSR(nn.Module):
    """The network.

    Args:
        sizes: Of its parts.
    """

    def __init__(self, sizes: LrmSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.image_tokenizer = nn.ModuleDict({"model": VisionTransformer(sizes.vit)})
        self.tokenizer = nn.ParameterDict({"embeddings": torch.zeros(3, sizes.width, sizes.plane, sizes.plane)})
        self.backbone = Backbone(sizes)
        self.post_processor = nn.ModuleDict({"upsample": nn.ConvTranspose2d(sizes.width, sizes.channels, 2, 2)})
        widths = [3 * sizes.channels, *[sizes.neurons] * sizes.hidden, 4]
        layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.SiLU())]
        self.decoder = nn.ModuleDict({"layers": nn.Sequential(*layers[:-1])})

    def forward(self, image: Float[Tensor, "h w 3"]) -> Float[Tensor, "3 c h2 w2"]:
        """The planes of the object in an image.

        Args:
            image: sRGB in [0, 1], of the side `image_size`; the object on gray.
        """
        side = self.sizes.image_size
        if image.shape != (side, side, 3):
            raise ShapeError("image", tuple(image.shape), f"({side}, {side}, 3)")
        mean, std = image.new_tensor(_MEAN), image.new_tensor(_STD)
        seen = self.image_tokenizer["model"](((image - mean) / std).permute(2, 0, 1)[None])
        planes = self.tokenizer["embeddings"]
        tokens = self.backbone(planes.permute(1, 0, 2, 3).flatten(1)[None], seen)
        planes = tokens[0].unflatten(1, (3, self.sizes.plane, self.sizes.plane)).transpose(0, 1)
        return self.post_processor["upsample"](planes)

    @torch.no_grad()
    def query(
        self, planes: Float[Tensor, "3 c h w"], points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Density, and sRGB color, at points.

        Args:
            planes: From `forward`.
            points: In [-radius, radius], z up; the object is seen from +x.
        """
        parts = [self._query(planes, part / self.sizes.radius) for part in points.split(_CHUNK)]
        density, colors = (torch.cat(values) for values in zip(*parts))
        return density, colors

    def _query(self, planes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        grid = torch.stack([places[:, axes] for axes in AXES])[:, :, None]
        features = nn.functional.grid_sample(planes, grid, align_corners=False)[..., 0]  # (3, c, n), 0 beyond the border
        raw = self.decoder["layers"](features.flatten(0, 1).T)
        return (raw[:, 0] + self.sizes.density_bias).exp(), raw[:, 1:].sigmoid()


class Backbone(nn.Module):
    """Tokens of the planes attend to each other and to those of the image.

    Args:
        sizes: Of the network.
    """

    def __init__(self, sizes: LrmSizes) -> None:
        super().__init__()
        inner = sizes.heads * sizes.head
        self.norm = nn.GroupNorm(_GROUPS, sizes.width, eps=1e-6)
        self.proj_in = nn.Linear(sizes.width, inner)
        self.transformer_blocks = nn.ModuleList(BackboneBlock(inner, sizes.heads, sizes.context) for _ in range(sizes.layers))
        self.proj_out = nn.Linear(inner, sizes.width)

    def forward(self, tokens: Float[Tensor, "b c n"], image: Float[Tensor, "b m k"]) -> Float[Tensor, "b c n"]:
        """The tokens of the planes after all blocks.

        Args:
            tokens: Learned.
            image: Tokens of the image.
        """
        x = self.proj_in(self.norm(tokens).mT)
        for block in self.transformer_blocks:
            x = block(x, image)
        return tokens + self.proj_out(x).mT


class BackboneBlock(nn.Module):
    """Attention among the tokens, then to the image, then a gated perceptron, each with a norm before it.

    Args:
        width: Channels of a token.
        heads: Of the attention.
        context: Channels of a token of the image.
    """

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1, self.attn2 = (_attention(width, inputs) for inputs in (width, context))
        # In `net`, number 1 is a dropout without parameters.
        gate = nn.ModuleDict({"proj": nn.Linear(width, 8 * width)})
        self.ff = nn.ModuleDict({"net": nn.ModuleList([gate, nn.Identity(), nn.Linear(4 * width, width)])})

    def forward(self, x: Float[Tensor, "b n c"], image: Float[Tensor, "b m k"]) -> Float[Tensor, "b n c"]:
        """The tokens plus what the layers add."""
        y = self.norm1(x)
        x = x + self._mixed(self.attn1, y, y)
        x = x + self._mixed(self.attn2, self.norm2(x), image)
        net = cast(nn.ModuleList, self.ff["net"])
        value, gate = cast(nn.ModuleDict, net[0])["proj"](self.norm3(x)).chunk(2, -1)
        return x + net[2](value * nn.functional.gelu(gate))

    def _mixed(self, layers: nn.ModuleDict, x: Tensor, other: Tensor) -> Tensor:
        found = attend(layers["to_q"](x), layers["to_k"](other), layers["to_v"](other), self.heads)
        return cast(nn.ModuleList, layers["to_out"])[0](found)


def _attention(width: int, inputs: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "to_q": nn.Linear(width, width, bias=False),
            "to_k": nn.Linear(inputs, width, bias=False),
            "to_v": nn.Linear(inputs, width, bias=False),
            "to_out": nn.ModuleList([nn.Linear(width, width)]),
        }
    )
