"""Masks of an object in front of a plain background, if they are unambiguous."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

_SAME, _OTHER = 4 / 255, 16 / 255
"""Pixels closer to the background color than the first are background; farther than the second, object."""
_MAX_DOUBT = 0.05
"""Maximum fraction of an object's pixels in between, as at its silhouette."""


def mask_of_background(
    images: Sequence[Float[Tensor, "h w 3"]],
) -> tuple[list[Float[Tensor, "h w 1"]] | None, str]:
    """Masks by the color at the border of all images.

    Background pixels have that color and are connected to the border, so that spots of the color on the object are kept.

    Returns:
        The masks, and the color as #rrggbb; or None, and the reason.
    """
    from scipy.ndimage import label

    borders = torch.cat([torch.cat([p[0], p[-1], p[:, 0], p[:, -1]]) for p in images])
    color = borders.median(0).values
    if float((borders - color).abs().max()) > _SAME:
        return None, "the border has several colors"
    masks = []
    for image in images:
        distance = (image - color).abs().amax(-1)
        groups = torch.from_numpy(cast(tuple[Any, int], label((distance <= _SAME).numpy()))[0])
        outer = torch.cat([groups[0], groups[-1], groups[:, 0], groups[:, -1]]).unique()
        mask = ~torch.isin(groups, outer[outer > 0])
        doubt = (mask & (distance <= _OTHER) & (distance > _SAME)).sum()
        if float(doubt) > _MAX_DOUBT * max(int(mask.sum()), 1):
            return None, "the object has almost the color of the background"
        masks.append(mask[..., None].float())
    return masks, "#" + "".join(f"{round(float(c) * 255):02x}" for c in color)
