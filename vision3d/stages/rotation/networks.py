"""The three networks of Zhou et al. 2019, each with a `RotationHead` as output."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.geometry.heads import RotationHead

_FEATURES = 1024  # per cloud


class SanityNet(nn.Module):
    """From a rotation matrix to a rotation matrix."""

    def __init__(self, rep: str, width: int = 128) -> None:
        super().__init__()
        self.body = mlp(9, width, width, width)
        self.head = RotationHead(rep, width)

    def forward(self, rotmats: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
        return self.head(self.body(rotmats.flatten(-2)))


class PoseNet(nn.Module):
    """From joint positions to joint rotations relative to the parents."""

    def __init__(self, rep: str, places: int, joints: int, width: int = 1024) -> None:
        super().__init__()
        self.body = mlp(3 * places, width, width, width)
        self.head = RotationHead(rep, width, joints)

    def forward(self, places: Float[Tensor, "*batch p 3"]) -> Float[Tensor, "*batch j 3 3"]:
        return self.head(self.body(places.flatten(-2)))


class SiamesePointNet(nn.Module):
    """From a cloud and rotated copies to the rotations: PointNet of both, then two layers."""

    def __init__(self, rep: str) -> None:
        super().__init__()
        self.points = mlp(3, 64, 128)
        self.features = nn.Linear(128, _FEATURES)
        self.first, self.second = nn.Linear(_FEATURES, 512), nn.Linear(_FEATURES, 512, bias=False)
        self.head = RotationHead(rep, 512)

    def encode(self, clouds: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch 1024"]:
        """Features of clouds: the maximum over the points of each."""
        batch = clouds.shape[:-2]
        hidden = self.points(clouds).reshape(-1, *clouds.shape[-2:-1], 128)
        return max_over_points(hidden, self.features.weight, self.features.bias).reshape(*batch, _FEATURES)

    def forward(self, clouds: Float[Tensor, "s n 3"], turned: Float[Tensor, "s r m 3"]) -> Float[Tensor, "s r 3 3"]:
        """Rotations from clouds to their rotated copies.

        Args:
            clouds: Each is encoded once.
            turned: Rotated copies of each.
        """
        # One layer of the concatenated features is the sum of a layer of each.
        joined = self.first(self.encode(clouds))[:, None] + self.second(self.encode(turned))
        return self.head(functional.leaky_relu(joined, 0.01))


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of these sizes with a LeakyReLU after each; the network of the paper ends without the last one."""
    layers: list[nn.Module] = []
    for below, above in itertools.pairwise(sizes):
        layers += [nn.Linear(below, above), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


def max_over_points(
    hidden: Float[Tensor, "b n c"], weight: Float[Tensor, "d c"], bias: Float[Tensor, " d"]
) -> Float[Tensor, "b d"]:
    """The maximum of a linear layer's outputs over the points.

    Only the points that win have a gradient, at most one for each feature. On CPUs the backward pass processes only these,
    which makes it cheap compared with the forward pass.
    """
    if hidden.device.type == "cpu" and hidden.dtype == torch.float32:
        return _Winners.apply(hidden, weight) + bias
    return (hidden @ weight.mT).amax(-2) + bias


class _Winners(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden = hidden.contiguous()
        count, points, _ = hidden.shape
        # Cloud by cloud, so that the product fits the cache; numpy finds the index of a maximum four times faster.
        product = torch.empty(len(weight), points)
        winners, greatest = torch.empty(count, len(weight), dtype=torch.int64), torch.empty(count, len(weight))
        for i in range(count):
            torch.mm(weight.detach(), hidden[i].detach().T, out=product)
            product.numpy().argmax(1, out=winners[i].numpy())
            torch.gather(product, 1, winners[i, :, None], out=greatest[i, :, None])
        ctx.save_for_backward(hidden, weight, winners)
        return greatest

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, weight, winners = ctx.saved_tensors
        count, points, width = hidden.shape
        rows = (winners + points * torch.arange(count)[:, None]).contiguous()
        grad_weight = functional.embedding_bag(
            rows.T.contiguous(), hidden.view(-1, width), per_sample_weights=grad.T.contiguous(), mode="sum"
        )
        # The features that each point wins, one bag per point.
        order = rows.view(-1).argsort(stable=True)
        sizes = torch.bincount(rows.view(-1), minlength=count * points)
        grad_hidden = functional.embedding_bag(
            order % len(weight), weight, sizes.cumsum(0) - sizes, per_sample_weights=grad.reshape(-1)[order], mode="sum"
        )
        return grad_hidden.view_as(hidden), grad_weight
