"""Node fields: motion of the nodes of a deformation graph over time.

Each gives 14 raw numbers per node and time, initially all zero: translation [radii], quaternion minus identity, strain (xx,
yy, zz, xy, xz, yz), and the logit of the blend. All zero is the rest pose.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from vision3d.core.device import sent
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.geometry.quaternion import normalize, rotmat_to_quat
from vision3d.geometry.registration import kabsch
from vision3d.stages.animate.dynamic.config import FieldConfig
from vision3d.stages.animate.dynamic.splines import extrapolated, spline

WIDTHS = (3, 4, 6, 1)
_MAX_AHEAD = 2.0  # maximum extrapolation of a motion, in gaps between frames
_UNIT_QUAT, _UNIT_STRETCH = (1.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)


class NodePoses(NamedTuple):
    """Arguments of `DeformationGraph.deform`, for each time."""

    quats: Float[Tensor, "t n 4"]
    translations: Float[Tensor, "t n 3"]
    stretches: Float[Tensor, "t n 6"]
    blends: Float[Tensor, "t n"]


class NodeField(nn.Module, ABC):
    """Poses of N nodes at any time, the rest pose at the reference time.

    Args:
        nodes: Rest positions [m].
        times: Times of the frames [s], ascending.
        reference: Time of the rest pose [s].
        radius: Unit of translations [m].
        config: Options.
    """

    def __init__(
        self, nodes: Float[Tensor, "n 3"], times: Float64[Tensor, " t"], reference: float, radius: float, config: FieldConfig
    ) -> None:
        super().__init__()
        self.reference, self.radius, self.stretch = reference, radius, config.stretch
        self.register_buffer("unit_quat", nodes.new_tensor(_UNIT_QUAT), persistent=False)
        self.register_buffer("unit_stretch", nodes.new_tensor(_UNIT_STRETCH), persistent=False)
        self.num_nodes = len(nodes)

    @abstractmethod
    def raw(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t n 14"]:
        """The raw numbers at these times [s]."""

    def zeros(self, count: int) -> Float[Tensor, "t n 14"]:
        """The raw numbers of the rest pose."""
        like = next(self.parameters())
        return like.new_zeros(count, self.num_nodes, sum(WIDTHS))

    def forward(self, times: Float64[Tensor, " t"]) -> NodePoses:
        """The poses at these times [s]."""
        return self.decode(self.raw(sent(times, next(self.parameters()).device)))

    def decode(self, raw: Float[Tensor, "t n 14"]) -> NodePoses:
        """Convert raw numbers to poses."""
        shift, turn, strain, logit = raw.split(WIDTHS, -1)
        stretches = self.get_buffer("unit_stretch").to(shift).expand_as(strain)
        return NodePoses(
            quats=normalize(turn + self.get_buffer("unit_quat").to(turn)),
            translations=shift * self.radius,
            stretches=stretches + strain if self.stretch else stretches,
            blends=logit[..., 0].sigmoid(),
        )

    def groups(self, config: FieldConfig) -> list[dict]:
        """Parameters with their learning rates, for an optimizer."""
        return [{"params": list(self.parameters()), "lr": config.rate}]

    def start_from(self, time: float, other: float, before: float) -> None:
        """Initialize a frame that was not fitted yet from another frame, extrapolated by the motion since `before`; networks
        extrapolate by themselves."""


class DiscreteField(NodeField):
    """Free parameters for each frame, with cubic Hermite splines between the frames (Catmull-Rom tangents)."""

    def __init__(
        self, nodes: Float[Tensor, "n 3"], times: Float64[Tensor, " t"], reference: float, radius: float, config: FieldConfig
    ) -> None:
        super().__init__(nodes, times, reference, radius, config)
        keys = torch.unique(torch.cat([times, times.new_tensor([reference])]))
        self.register_buffer("keys", keys)
        self.register_buffer("is_free", (keys != reference).to(nodes)[:, None, None])
        self.values = nn.Parameter(nodes.new_zeros(len(keys), len(nodes), sum(WIDTHS)))

    def raw(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t n 14"]:
        return spline(cast(Tensor, self.keys), self.values * cast(Tensor, self.is_free), times)

    def groups(self, config: FieldConfig) -> list[dict]:
        return [{"params": [self.values], "lr": config.discrete_rate}]

    @torch.no_grad()
    def start_from(self, time: float, other: float, before: float) -> None:
        keys = cast(Tensor, self.keys)
        row = int(torch.searchsorted(keys, keys.new_tensor([time])))
        self.values[row] = extrapolated(keys, self.values, time, other, before, _MAX_AHEAD)


class _Heads(nn.Module):
    """Residual heads for translation, rotation, strain and blend, whose last layers are initialized to zero (DreamMesh4D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in WIDTHS)
        self.last = nn.ModuleList(nn.Linear(width, out) for out in WIDTHS)
        for layer in self.last:
            nn.init.zeros_(cast(nn.Linear, layer).weight)
            nn.init.zeros_(cast(nn.Linear, layer).bias)

    def forward(self, features: Float[Tensor, "t n w"]) -> Float[Tensor, "t n 14"]:
        active = features.relu()
        return torch.cat([last(active + hidden(active)) for hidden, last in zip(self.hidden, self.last)], -1)


class _NetworkField(NodeField):
    """A network of position and time. It is exactly the rest pose at the reference time, since its output is multiplied by
    1 - exp(-((t - t_ref) / tau)^2), with tau half of the mean gap between frames."""

    def __init__(
        self, nodes: Float[Tensor, "n 3"], times: Float64[Tensor, " t"], reference: float, radius: float, config: FieldConfig
    ) -> None:
        super().__init__(nodes, times, reference, radius, config)
        center = (nodes.amin(0) + nodes.amax(0)) / 2
        self.register_buffer("places", (nodes - center) / (nodes - center).abs().amax().clamp(min=1e-12))
        self.first, self.span = float(times[0]), max(float(times[-1] - times[0]), 1e-12)
        self.tau = 0.5 * self.span / max(len(times) - 1, 1)
        self.build(len(times), config)
        self.heads = _Heads(config.width)

    @abstractmethod
    def build(self, num_times: int, config: FieldConfig) -> None:
        """Build the layers that `features` needs; these are `width` wide."""

    @abstractmethod
    def features(self, moments: Float[Tensor, " t"]) -> Float[Tensor, "t n w"]:
        """Features of each node at times scaled to [-1, 1]."""

    def raw(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t n 14"]:
        places = cast(Tensor, self.places)
        moments = (2 * (times - self.first) / self.span - 1).to(places)
        gate = -torch.expm1(-((times - self.reference) / self.tau).square()).to(places)
        return gate[:, None, None] * self.heads(self.features(moments))


class FourierField(_NetworkField):
    """An MLP on sines and cosines of position and time (Tancik et al. 2020, with powers of two)."""

    def build(self, num_times: int, config: FieldConfig) -> None:
        places = cast(Tensor, self.places)
        # Up to a period of four frames: a higher frequency would oscillate between them.
        in_time = max(1, math.floor(math.log2(max(num_times, 2) / 2)))
        self.register_buffer("in_space", math.pi * 2.0 ** torch.arange(config.frequencies).to(places))
        self.register_buffer("in_time", math.pi / 2 * 2.0 ** torch.arange(in_time).to(places))
        width = 4 + 6 * config.frequencies + 2 * in_time
        layers: list[nn.Module] = []
        for _ in range(config.layers):
            layers += [nn.Linear(width, config.width), nn.SiLU()]
            width = config.width
        self.trunk = nn.Sequential(*layers)

    def features(self, moments: Float[Tensor, " t"]) -> Float[Tensor, "t n w"]:
        places = cast(Tensor, self.places)
        space = (places[..., None] * cast(Tensor, self.in_space)).flatten(1)
        time = moments[:, None] * cast(Tensor, self.in_time)
        of_place = torch.cat([places, space.sin(), space.cos()], -1).expand(len(moments), -1, -1)
        of_time = torch.cat([moments[:, None], time.sin(), time.cos()], -1)[:, None].expand(-1, len(places), -1)
        return self.trunk(torch.cat([of_place, of_time], -1))


class HexPlaneField(_NetworkField):
    """Six feature planes, over xy, xz, yz, xt, yt and zt, multiplied; several spatial resolutions are concatenated (Cao and
    Johnson 2023; Fridovich-Keil et al. 2023)."""

    def build(self, num_times: int, config: FieldConfig) -> None:
        places = cast(Tensor, self.places)
        cells = max(2, num_times)
        self.planes = nn.ParameterList()
        for size in config.resolutions:
            space = places.new_empty(3, config.features, size, size).uniform_(0.1, 0.5)
            self.planes.append(nn.Parameter(space))
            self.planes.append(nn.Parameter(places.new_ones(3, config.features, cells, size)))
        self.trunk = nn.Linear(config.features * len(config.resolutions), config.width)

    def features(self, moments: Float[Tensor, " t"]) -> Float[Tensor, "t n w"]:
        places, found = cast(Tensor, self.places), []
        pairs = torch.stack([places[:, [0, 1]], places[:, [0, 2]], places[:, [1, 2]]])
        when = moments[:, None].expand(3, -1, len(places))
        moving = torch.stack([places.T[:, None, :].expand_as(when), when], -1)
        for space, time in zip(list(self.planes)[::2], list(self.planes)[1::2]):
            still = _sampled(space, pairs[:, None]).prod(0)  # (C, 1, N)
            found.append((still * _sampled(time, moving).prod(0)).movedim(0, -1))
        return self.trunk(torch.cat(found, -1))

    def groups(self, config: FieldConfig) -> list[dict]:
        rest = [*self.trunk.parameters(), *self.heads.parameters()]
        return [{"params": list(self.planes), "lr": config.plane_rate}, {"params": rest, "lr": config.rate}]


def make_field(
    config: FieldConfig, nodes: Float[Tensor, "n 3"], times: Float64[Tensor, " t"], reference: float, radius: float
) -> NodeField:
    """The field for the options; see `NodeField` for the other arguments."""
    made = {"discrete": DiscreteField, "mlp": FourierField, "hexplane": HexPlaneField}[config.kind]
    return made(nodes, times, reference, radius, config)


@torch.no_grad()
def rigid_poses(
    graph: DeformationGraph, rest: Float[Tensor, "v 3"], vertices: Float[Tensor, "t v 3"], radius: float
) -> Float[Tensor, "t n 7"]:
    """Raw translations and quaternions of the rigid motion of each node's vertices (Kabsch 1976).

    The sign of each quaternion is the one closer to that of the previous frame.

    Args:
        graph: The deformation graph.
        rest: Vertices in the rest pose [m].
        vertices: In each frame [m].
        radius: Unit of translations [m].
    """
    count = len(graph)
    shares = rest.new_zeros(count, len(rest)).scatter_add_(0, graph.indices.T, graph.weights.T)
    last, identity = rest.new_tensor(_UNIT_QUAT), rest.new_tensor(_UNIT_QUAT)
    found = []
    for pose in vertices:
        turns, shifts = kabsch(rest.expand(count, -1, -1), pose.expand(count, -1, -1), shares)
        quats = rotmat_to_quat(turns)
        last = quats = torch.where((quats * last).sum(-1, keepdim=True) < 0, -quats, quats)
        moved = (turns @ graph.nodes[..., None])[..., 0] + shifts - graph.nodes
        found.append(torch.cat([moved / radius, quats - identity], -1))
    return torch.stack(found)


def _sampled(planes: Float[Tensor, "p c h w"], places: Float[Tensor, "p a b 2"]) -> Float[Tensor, "p c a b"]:
    return nn.functional.grid_sample(planes, places, mode="bilinear", padding_mode="border", align_corners=True)
