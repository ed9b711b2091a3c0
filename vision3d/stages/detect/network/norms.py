"""Batch norm over rows of which there may be any number, and folded into the layers in front of it."""

import copy
import itertools

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


class RowNorm(nn.BatchNorm1d):
    """Batch norm of rows; fewer than two rows have no variance, so the running averages are used for them."""

    def forward(self, input: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        if self.training and len(input) < 2:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )  # fmt: skip
        return super().forward(input)


def folded(network: nn.Module) -> nn.Module:
    """A copy for inference whose batch norms are parts of the convolutions and linear layers in front of them."""
    network = copy.deepcopy(network).eval()
    for layers in list(network.modules()):
        if not isinstance(layers, nn.Sequential):
            continue
        for index, (layer, norm) in enumerate(itertools.pairwise(list(layers))):
            if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                layers[index] = fuse_linear_bn_eval(layer, norm)
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
                layers[index] = fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
            else:
                continue
            layers[index + 1] = nn.Identity()
    return network
