"""What all operators share: padded and ragged calls, carried state, and the parts of their blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.detect.operators import native_layers
from vision3d.stages.detect.operators.groups import Groups

States = dict[str, Tensor]
"""What a causal operator carries from one part of a sequence to the next, by name; the first axis is the group."""


class Operator(nn.Module, ABC):
    """A sequence operator with its residual: features of groups in, features of the same shape out.

    Args:
        channels: C.
        bidirectional: Every row sees its whole group; otherwise only the rows before it.
        drop_path: Probability that a group's update is dropped in training.

    Raises:
        InputError: channels or drop_path is out of range.
    """

    def __init__(self, channels: int, *, bidirectional: bool = True, drop_path: float = 0.0) -> None:
        super().__init__()
        if channels < 1:
            raise InputError(f"channels: got {channels}, want at least 1")
        if not 0 <= drop_path < 1:
            raise InputError(f"drop_path: got {drop_path}, want 0 to less than 1")
        self.channels, self.bidirectional, self.drop_path = channels, bidirectional, drop_path

    def forward(self, x: Float[Tensor, "groups size c"]) -> Float[Tensor, "groups size c"]:
        """Groups of equal size.

        Raises:
            ShapeError: The shape is not (groups, size, channels).
        """
        if x.dim() != 3 or x.shape[-1] != self.channels:
            raise ShapeError("x", x.shape, f"(groups, size, {self.channels})")
        return self.update(x.flatten(0, 1), Groups.equal(x.shape[0], x.shape[1], x.device))[0].view_as(x)

    def forward_ragged(self, x: Float[Tensor, "t c"], starts: Int64[Tensor, " groups+1"]) -> Float[Tensor, "t c"]:
        """Groups of any sizes without padding.

        Args:
            x: Features of all groups, one after the other.
            starts: First row of each group, and the number of rows.

        Raises:
            ShapeError: The shape is not (T, channels).
            InputError: starts does not begin at 0, decreases or does not end at T.
        """
        if x.dim() != 2 or x.shape[-1] != self.channels:
            raise ShapeError("x", x.shape, f"(T, {self.channels})")
        groups = Groups(starts)
        groups.check("x", x)
        return self.update(x, groups)[0]

    def forward_part(self, x: Float[Tensor, "t c"], groups: Groups, states: States | None) -> tuple[Tensor, States]:
        """The next rows of each group, from what the previous call returned (None at the beginning).

        Raises:
            InputError: The operator is bidirectional.
        """
        if self.bidirectional:
            raise InputError("bidirectional: got True, want False for a sequence in parts")
        return self.update(x, groups, states)

    @abstractmethod
    def update(self, x: Tensor, groups: Groups, states: States | None = None) -> tuple[Tensor, States]:
        """The operator on rows (T, C) and the states behind them, which are only used if it is causal."""

    def add(self, x: Tensor, change: Tensor, groups: Groups) -> Tensor:
        """The residual connection, with whole groups dropped in training."""
        return x + (groups.drop(change, self.drop_path) if self.training else change)

    def both_ways(
        self, scan: Callable[..., tuple[Tensor, Tensor]], states: States | None, name: str = "state"
    ) -> tuple[Tensor, States]:
        """The sum of a scan and the reversed one, or the causal one with its state: scan(state=, reverse=) -> (y, state)."""
        y, last = scan(state=None if states is None else states[name], reverse=False)
        if self.bidirectional:
            y = y + scan(state=None, reverse=True)[0]
        return y, {name: last}


class RMSNorm(nn.RMSNorm):
    """x weight / sqrt(mean(x^2) + eps) over the last axis; torch's has no loop of its own on a CPU."""

    def __init__(self, size: int) -> None:
        super().__init__(size, 1e-6)

    def forward(self, x: Float[Tensor, "*rows c"]) -> Float[Tensor, "*rows c"]:
        if native_layers.is_native(x) and self.weight.dtype == x.dtype:
            return native_layers.rms_norm(x.reshape(-1, x.shape[-1]), self.weight, 1e-6).view(x.shape)
        return super().forward(x)


def silu_gate(gate: Float[Tensor, "t c"], x: Float[Tensor, "t c"]) -> Float[Tensor, "t c"]:
    """x SiLU(gate)."""
    if native_layers.is_native(x) and gate.dtype == x.dtype:
        return native_layers.silu_gate(gate, x)
    return nn.functional.silu(gate) * x


def softplus(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """log(1 + e^x)."""
    return native_layers.softplus(x) if native_layers.is_native(x) else nn.functional.softplus(x)


class SwiGLU(nn.Module):
    """W3 (SiLU(W1 x) * W2 x)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate(x).chunk(2, -1)
        return self.out(silu_gate(gate, value))


def split_heads(name: str, channels: int, heads: int) -> int:
    """Channels of a head.

    Raises:
        InputError: They cannot be divided.
    """
    if heads < 1 or channels < heads or channels % heads:
        raise InputError(f"heads: got {heads}, want a divisor of the {channels} channels of {name}")
    return channels // heads
