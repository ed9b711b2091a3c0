"""Output layer of networks that predict rotations."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.core.errors import ConfigError
from vision3d.geometry.checks import check_trailing
from vision3d.geometry.representations import from_rotmat, representation, to_rotmat

_SATURATED = 2.0  # beyond it the gradient of tanh, which `hopf` uses, nearly vanishes
_FIRST_WEIGHTS = 0.1


class RotationHead(nn.Module):
    """Map features to rotation matrices with any representation.

    It starts at the identity: the bias is the representation of the identity and the weights are small. (`hopf` starts near it,
    since its gradient vanishes there.) `9d_direct` returns the raw matrix in training, and after `eval()` the nearest rotation.

    Args:
        rep: A name in docs/rotations.md.
        in_features: Number of input features, for a linear layer; None if the input is the representation itself.
        count: Number of rotations, on an extra axis of the result. None: one, without the axis.

    Raises:
        ConfigError: The representation is unknown, or a size is below 1.

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
        """Rotations from features, or from raw numbers."""
        values = features if self.linear is None else self.linear(features)
        check_trailing("features", values, self.numbers)
        # Gram-Schmidt and projections are too inaccurate in half precision.
        values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
        if self.count is not None:
            values = values.unflatten(-1, (self.count, self.dimension))
        return to_rotmat(values, self.rep, project=self.is_projected)

    @property
    def is_projected(self) -> bool:
        """Whether the result is projected to the nearest rotation after the representation's own map."""
        return not self.training and not representation(self.rep).is_rotation

    def extra_repr(self) -> str:
        return f"rep={self.rep!r}, count={self.count}"
