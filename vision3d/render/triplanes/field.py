"""Values of triplanes at points: bilinear features of three planes, decoded by two small networks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.scene.triplane import AXES, Triplane

DENSITY = 80.0
"""Density inside an object [1 / half side of the cube]: two texels of 64 hide all but a percent of what is behind them."""
METALLIC, ROUGHNESS = 0.0, 0.8
"""Default material factors, for objects without a material."""
_CHUNK = 1 << 17


@dataclass(frozen=True, eq=False)
class FieldValues:
    """Values at N points."""

    logits: Float[Tensor, " n"]
    """Logit of being inside; outside the cube, -inf."""
    colors: Float[Tensor, "n 3"]
    """sRGB in [0, 1]."""
    metallic: Float[Tensor, " n"]
    """In [0, 1], as in glTF."""
    roughness: Float[Tensor, " n"]
    """In [0, 1], as in glTF."""

    @property
    def density(self) -> Float[Tensor, " n"]:
        """[1 / half side of the cube]"""
        return DENSITY * self.logits.sigmoid()


def sample_planes(planes: Float[Tensor, "b 3 c h w"], points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3*c"]:
    """Bilinear features of the projections of points in the cube; those of the border beyond the outer texel centers.

    Args:
        planes: Of B objects.
        points: In [-1, 1].
    """
    if planes.ndim != 5 or planes.shape[1] != 3 or points.ndim != 3 or points.shape[::2] != (len(planes), 3):
        raise ShapeError("planes, points", (tuple(planes.shape), tuple(points.shape)), "(B, 3, C, H, W), (B, N, 3)")
    count = points.shape[1]
    grid = torch.stack([points[..., axes] for axes in AXES], 1).flatten(0, 1)[:, :, None]
    found = torch.nn.functional.grid_sample(planes.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    return found.view(len(planes), 3, planes.shape[2], count).permute(0, 3, 1, 2).flatten(2)


def decode(decoder: Mapping[str, Tensor], name: str, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b k"]:
    """The layers `name.0`, `name.1`, ... with SiLU in between."""
    number = 0
    while f"{name}.{number}.weight" in decoder:
        if number:
            features = torch.nn.functional.silu(features)
        features = torch.nn.functional.linear(features, decoder[f"{name}.{number}.weight"], decoder[f"{name}.{number}.bias"])
        number += 1
    return features


def shaded(raw: Float[Tensor, "*b 5"]) -> Float[Tensor, "*b 5"]:
    """Red, green, blue, metallic, roughness from what the decoder gives."""
    return unclamped(raw).clamp(0, 1)


def unclamped(raw: Float[Tensor, "*b 5"]) -> Float[Tensor, "*b 5"]:
    """The same with values a little beyond [0, 1], so that 0 and 1 are reached."""
    return 1.04 * raw.sigmoid() - 0.02


def query(triplane: Triplane, points: Float[Tensor, "n 3"]) -> FieldValues:
    """The values at points of the cube.

    Args:
        triplane: Its planes and decoder may need gradients.
        points: In the cube [-1, 1]^3 of the object; `triplane.matrix` maps it to the world.

    Example:
        >>> decoder = {"density.0.weight": torch.ones(1, 3), "density.0.bias": torch.zeros(1)}
        >>> decoder |= {"color.0.weight": torch.ones(5, 3), "color.0.bias": torch.zeros(5)}
        >>> query(Triplane(torch.zeros(3, 2, 4, 4), decoder, 1, torch.eye(4)), torch.zeros(1, 3)).colors.shape
        torch.Size([1, 3])
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ShapeError("points", tuple(points.shape), "(N, 3)")
    found = [_query(triplane, part) for part in points.split(_CHUNK)] or [_query(triplane, points)]
    logits, values = (torch.cat(parts) for parts in zip(*found))
    return FieldValues(logits, values[:, :3], values[:, 3], values[:, 4])


def _query(triplane: Triplane, points: Tensor) -> tuple[Tensor, Tensor]:
    features = sample_planes(triplane.planes[None], points.to(triplane.planes)[None])[0].unflatten(1, (3, -1))
    count = triplane.num_density
    logits = decode(triplane.decoder, "density", features[:, :, :count].flatten(1))[:, 0]
    is_inside = (points.abs() <= 1).all(1)
    values = shaded(decode(triplane.decoder, "color", features[:, :, count:].flatten(1)))
    return torch.where(is_inside, logits, -torch.inf), values
