"""A background color that contrasts with the object."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.stages.animate.dynamic.footage import Footage

_BACKGROUNDS = (
    (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0),
    (1.0, 0.0, 1.0), (1.0, 1.0, 0.0),
)  # fmt: skip
_COLOR_VIEWS, _COLOR_PIXELS = 16, 20_000  # number of images and pixels sampled for colors
_COLOR_SHARE = 0.02  # fraction of pixels that may be closer to the background


@torch.no_grad()
def background_color(footage: Footage) -> Float[Tensor, " 3"]:
    """The color among white, black, gray and the corners of the color cube that is farthest from those of the object.

    With a background similar to the object, missing parts of the object would not be visible in an image.
    """
    values = footage.images[:: max(1, len(footage) // _COLOR_VIEWS)].float() / 255
    colors = values[values[..., 3] > 0.5][:, :3]
    colors = colors[:: max(1, len(colors) // _COLOR_PIXELS)]
    known = colors.new_tensor(_BACKGROUNDS)
    distances = torch.cdist(known, colors).quantile(_COLOR_SHARE, dim=1)
    return known[int(distances.argmax())]
