"""Interaction blocks between tokens, and the layers that make more tokens of fewer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vision3d.core.errors import ShapeError
from vision3d.geometry.geodesics import farthest_points
from vision3d.geometry.neighbors import knn
from vision3d.geometry.vectors import length, unit
from vision3d.stages.hand.joints import BONES, hand_adjacency
from vision3d.stages.hand.network.attention import Attention


class ReleasedBlock(nn.Module):
    """The block of the published code: ReLU(W_f (attention(W_1 x) + x) + x), without norms, dropout or MLP.

    Args:
        channels: Features of a token.
        heads: Heads of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.attention = Attention(channels, heads)

    def forward(self, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        """The tokens after interaction."""
        return functional.relu(self.last(self.attention(self.first(x)) + x) + x)


class SelfBlock(nn.Module):
    """Self-attention and MLP, each added to its input, with norms in front.

    Args:
        channels: Features of a token.
        heads: Heads of the attention.
        mlp_ratio: Hidden features of the MLP, as a multiple of `channels`.
    """

    def __init__(self, channels: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        hidden = mlp_ratio * channels
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        """The tokens after interaction."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class GraphLayer(nn.Module):
    """GELU(A x W) for tokens that are the nodes of a graph (Kipf and Welling 2017).

    Args:
        channels: Features of a token.
        adjacency: Normalized adjacency matrix A.
    """

    adjacency: Tensor

    def __init__(self, channels: int, adjacency: Float[Tensor, "t t"]) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.register_buffer("adjacency", adjacency, persistent=False)

    def forward(self, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n t c"]:
        """Features of the neighbors."""
        return functional.gelu(self.adjacency.to(x.dtype) @ self.linear(x))


class SkeletonBlock(nn.Module):
    """Joints along the graph of the hand, bones to joints, joints to bones, joints to joints, MLP; norms in front of each.

    Bones attend first: what they learn from the joints would otherwise reach no output.

    Args:
        channels: Features of a token.
        heads: Heads of each attention.
        mlp_ratio: Hidden features of the MLP, as a multiple of `channels`.
        adjacency: Normalized adjacency of the joints; the hand's when None.
    """

    def __init__(self, channels: int, heads: int, mlp_ratio: int, adjacency: Float[Tensor, "t t"] | None = None) -> None:
        super().__init__()
        self.graph = GraphLayer(channels, hand_adjacency() if adjacency is None else adjacency)
        self.to_bones, self.to_joints = Attention(channels, heads), Attention(channels, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(5))
        self.own = SelfBlock(channels, heads, mlp_ratio)

    def forward(self, joints: Float[Tensor, "n t c"], bones: Float[Tensor, "n b c"]) -> Float[Tensor, "n t c"]:
        """The joints after interaction."""
        graph_norm, query, key, bone_query, bone_key = self.norms
        joints = joints + self.graph(graph_norm(joints))
        bones = bones + self.to_joints(bone_query(bones), bone_key(joints))
        joints = joints + self.to_bones(query(joints), key(bones))
        return self.own(joints)


class BoneTokens(nn.Module):
    """Features of bones: the mean of the feature map at points on each, and its direction and length in the crop.

    Args:
        channels: Features of the map and of a token.
        samples: Points on a bone.
    """

    starts: Tensor
    ends: Tensor

    def __init__(self, channels: int, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.linear = nn.Linear(channels + 3, channels)
        starts, ends = torch.tensor(BONES).unbind(1)
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("ends", ends, persistent=False)

    def points(self, uv: Float[Tensor, "n 21 2"]) -> Float[Tensor, "n points 2"]:
        """Points on the bones, evenly spaced without the ends; those of a bone in a row."""
        shares = torch.arange(1, self.samples + 1, dtype=uv.dtype, device=uv.device)[:, None] / (self.samples + 1)
        start, end = uv[:, self.starts, None], uv[:, self.ends, None]
        return torch.lerp(start, end, shares).flatten(1, 2)

    def forward(self, sampled: Float[Tensor, "n points c"], uv: Float[Tensor, "n 21 2"]) -> Float[Tensor, "n 20 c"]:
        """Tokens of the bones.

        Args:
            sampled: The feature map at `points(uv)`.
            uv: Joints in the crop.
        """
        between = uv[:, self.ends] - uv[:, self.starts]
        means = sampled.unflatten(1, (-1, self.samples)).mean(2)
        return self.linear(torch.cat([means, unit(between), length(between)[..., None]], -1))


class NodeUpsampling(nn.Module):
    """A linear map from tokens to more tokens, the same for each feature.

    Args:
        inputs: Tokens.
        outputs: Tokens of the result.
        matrix: First weights; random when None.
    """

    def __init__(self, inputs: int, outputs: int, matrix: Float[Tensor, "outputs inputs"] | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        if matrix is not None:
            if tuple(matrix.shape) != (outputs, inputs):
                raise ShapeError("matrix", matrix.shape, f"({outputs}, {inputs})")
            with torch.no_grad():
                self.linear.weight.copy_(matrix)
                nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "n t c"]) -> Float[Tensor, "n s c"]:
        """The new tokens."""
        return torch.baddbmm(self.linear.bias[:, None], self.linear.weight.expand(x.shape[0], -1, -1), x)


def upsampling_matrices(
    vertices: Float[Tensor, "v 3"], joints: Float[Tensor, "21 3"], counts: Sequence[int], neighbors: int = 4
) -> list[Float[Tensor, "outputs inputs"]]:
    """Matrices from joints to more and more points of a template and at last to its vertices, by inverse distances.

    A point is the mean of the nearest points of the step before, weighted by the inverse of their distances; the points are
    farthest-point samples of the vertices.

    Args:
        vertices: Template [m].
        joints: Its joints [m].
        counts: Number of points of each step between joints and vertices.
        neighbors: Points that count.
    """
    vertices, points, found = vertices.detach(), joints.detach(), []
    for count in (*counts, len(vertices)):
        after = vertices if count == len(vertices) else vertices[farthest_points(vertices, count)]
        distances, idx = knn(points, after, k=min(neighbors, len(points)))
        # A point that is among those of the step before is a copy of it.
        shares = 1 / distances.clamp(min=1e-9)
        found.append(torch.zeros(len(after), len(points)).scatter(1, idx, (shares / shares.sum(1, keepdim=True)).float()))
        points = after
    return found
