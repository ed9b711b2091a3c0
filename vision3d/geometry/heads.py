"""The last layer of a network that gives rotations."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ConfigError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.representations import from_rotmat, representation, to_rotmat

_SATURATED = 2.0  # beyond it tanh, through which `hopf` goes, passes on next to nothing
_FIRST_WEIGHTS = 0.1


class RotationHead(nn.Module):
    """Rotation matrices out of features, by any representation.

    It begins at the identity: the bias is the identity's numbers and the weights are small. (`hopf` begins beside it, since
    its numbers there have no gradient.) `9d_direct` gives the matrix as it is while training, and after `eval()` the nearest
    rotation.

    Args:
        rep: A name of docs/rotations.md.
        in_features: Features of the input, which a linear layer brings to the numbers; None: the input is the numbers.
        count: Rotations that are given; the result has an axis for them. None: one, without the axis.

    Raises:
        ConfigError: No such representation, or a size below 1.

    Example:
        >>> head = RotationHead("6d", in_features=32)
        >>> head(torch.zeros(4, 32))[0]
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]], grad_fn=<SelectBackward0>)
    """

    def __init__(self, rep: str = "6d", in_features: int | None = None, count: int | None = None) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("count", count)):
            if value is not None and value < 1:
                raise ConfigError(name, f"got {value}, want at least 1, or None")
        self.rep, self.count = rep, count
        self.dimension = representation(rep).dimension
        self.numbers = self.dimension * (count or 1)
        self.linear: nn.Linear | None = None
        if in_features is not None:
            self.linear = nn.Linear(in_features, self.numbers)
            with torch.no_grad():
                self.linear.weight.mul_(_FIRST_WEIGHTS)
                identity = from_rotmat(torch.eye(3), rep).clamp(-_SATURATED, _SATURATED)
                self.linear.bias.copy_(identity.repeat(count or 1))

    def forward(self, features: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch_and_count 3 3"]:
        """Rotations of features, or of raw numbers."""
        values = features if self.linear is None else self.linear(features)
        check_trailing("features", values, self.numbers)
        # Gram-Schmidt and projections lose too much in half precision.
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        if self.count is not None:
            values = values.unflatten(-1, (self.count, self.dimension))
        return to_rotmat(values, self.rep, project=self.is_projected)

    @property
    def is_projected(self) -> bool:
        """Whether the result is brought to the nearest rotation after the representation's own map."""
        return not self.training and not representation(self.rep).is_rotation

    def extra_repr(self) -> str:
        return f"rep={self.rep!r}, count={self.count}"
