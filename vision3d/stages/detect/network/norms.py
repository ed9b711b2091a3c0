"""Batch norm over rows of which there may be any number."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class RowNorm(nn.BatchNorm1d):
    """Batch norm of rows; fewer than two rows have no variance, so the running averages are used for them."""

    def forward(self, input: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        if self.training and len(input) < 2:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )  # fmt: skip
        return super().forward(input)
