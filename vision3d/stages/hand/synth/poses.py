"""Random poses of the fingers: gestures and independent angles, without fingers that pass through each other."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.stages.hand.gestures import GESTURES, gesture
from vision3d.stages.hand.template import HandTemplate

_DEVIATION = 0.12
"""Standard deviation of the angles of a gesture [rad]."""
_RADII = (10.0, 9.0, *(9.0, 8.0, 7.0) * 4)
"""Radii of the phalanges from the thumb's proximal one to the little finger's distal one [mm]."""
_PALM_RADIUS = 11.0
_OVERLAP = 0.62
"""Axes of two bones may come as close as this share of the sum of their radii: flesh gives way."""
_PINCH = 0.33
"""The same for the thumb's distal phalanx and the last two of a finger, which press on each other."""
_BONES = ((2, 3), (3, 4), *((first + k, first + k + 1) for first in (5, 9, 13, 17) for k in range(3)))
_PALM = ((0, 5), (0, 9), (0, 13), (0, 17))
_TRIES = 6
_CLOSED = (75.0, 95.0, 55.0)
"""Flexion of the three joints of a closed finger [degrees]."""
_OPPOSED, _BESIDE = ((8.0, 40.0, 12.0, 24.0), (-10.0, 6.0, 0.0, 8.0))
"""Angles of a thumb in front of the fingers, and beside the palm [degrees]."""


def sample_angles(
    hand: HandTemplate,
    count: int,
    generator: torch.Generator,
    *,
    gestures: float = 0.35,
    together: float = 0.0,
    names: tuple[str, ...] = tuple(GESTURES),
) -> Float[Tensor, "count 20"]:
    """Random poses within the limits.

    Args:
        hand: The template.
        count: Number of poses.
        generator: Random numbers, on the CPU.
        gestures: Share of poses near a named gesture or between two of them.
        together: Share of poses whose fingers bend together, as around an object, or are each either stretched or closed; the
            others have independent angles.
        names: The gestures.
    """
    angles = _draw(hand, count, generator, (gestures, together), names)
    for _ in range(_TRIES):
        wrong = penetrates(hand.pose(angles).skeleton)
        if not bool(wrong.any()):
            return angles
        angles = torch.where(wrong[:, None], _draw(hand, count, generator, (gestures, together), names), angles)
    wrong = penetrates(hand.pose(angles).skeleton)
    return torch.where(wrong[:, None], gesture("relaxed").to(angles), angles)


def penetrates(skeleton: Float[Tensor, "*batch 21 3"]) -> Bool[Tensor, "*batch"]:
    """Whether two fingers, or a finger and the palm, pass through each other.

    Args:
        skeleton: Centers of the joints [m], of a hand of about the template's size.
    """
    bones = torch.tensor(_BONES + _PALM, device=skeleton.device)
    radii = skeleton.new_tensor([*_RADII, *(_PALM_RADIUS,) * len(_PALM)]) / 1000
    owner = torch.tensor([0, 0, *(finger for finger in range(1, 5) for _ in range(3)), *(9,) * 4], device=skeleton.device)
    # The proximal phalanges begin at the palm, so only the two behind them may touch it.
    first = torch.tensor([*(k for k in range(14) for _ in range(k + 1, 14)), *(1, 3, 4, 6, 7, 9, 10, 12, 13) * 4])
    second = torch.tensor([*(j for k in range(14) for j in range(k + 1, 14)), *(14 + k for k in range(4) for _ in range(9))])
    apart = owner[first] != owner[second]
    first, second = first[apart], second[apart]
    start, end = skeleton[..., bones[:, 0], :], skeleton[..., bones[:, 1], :]
    distance = segment_distance(start[..., first, :], end[..., first, :], start[..., second, :], end[..., second, :])
    is_pinch = (first == 1) & (second < 14) & ((second - 2) % 3 > 0)
    share = torch.where(is_pinch.to(distance.device), _PINCH, _OVERLAP)
    return (distance < share * (radii[first] + radii[second])).any(-1)


def segment_distance(
    a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*batch 3"], c: Float[Tensor, "*batch 3"], d: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch"]:
    """Distance between the segments ab and cd (Ericson 2005, "Real-Time Collision Detection", section 5.1.9)."""
    u, v, w = b - a, d - c, a - c
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    tiny = torch.finfo(a.dtype).tiny
    s = ((uv * vw - vv * uw) / (uu * vv - uv * uv).clamp(min=tiny)).clamp(0, 1)
    t = ((uv * s + vw) / vv.clamp(min=tiny)).clamp(0, 1)
    s = ((uv * t - uw) / uu.clamp(min=tiny)).clamp(0, 1)
    return torch.linalg.vector_norm(w + s[..., None] * u - t[..., None] * v, dim=-1)


def _draw(
    hand: HandTemplate, count: int, generator: torch.Generator, shares: tuple[float, float], names: tuple[str, ...]
) -> Float[Tensor, "count 20"]:
    free = hand.random_angles(count, generator)
    bank = torch.stack([gesture(name) for name in names]).to(free)
    pair = torch.randint(len(names), (2, count), generator=generator)
    share = torch.rand(count, 1, generator=generator) * (torch.rand(count, 1, generator=generator) < 0.5)
    named = torch.lerp(bank[pair[0]], bank[pair[1]], share.to(free))
    named = named + _DEVIATION * torch.randn(count, free.shape[1], generator=generator).to(free)
    low, high = hand.angle_limits.to(free).T
    kind, (gestures, together) = torch.rand(count, 1, generator=generator), shares
    poses = torch.where(kind < gestures, named.clamp(low, high), free)
    if together:
        bent = bent_together(count, generator).to(free).clamp(low, high)
        poses = torch.where((kind >= gestures) & (kind < gestures + together), bent, poses)
    return poses


def bent_together(count: int, generator: torch.Generator) -> Float[Tensor, "count 20"]:
    """Poses whose joints of a finger bend together, as tendons make them, and whose fingers do so more often than not [rad]."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    common = 0.1 + 0.9 * torch.rand(count, 1, generator=generator)
    closure = common + 0.14 * normal(4) + 0.12 * normal(1) * torch.linspace(-1, 1, 4)
    is_each = torch.rand(count, 1, generator=generator) < 0.35  # as when counting
    either = torch.where(torch.rand(count, 4, generator=generator) < 0.5, 0.05, 0.95) + 0.1 * normal(4)
    closure = torch.where(is_each, either, closure).clamp(0, 1.1)
    flexion = closure[..., None] * torch.tensor(_CLOSED) + 8 * normal(4, 3)
    spread = (4 * normal(1) + 3) * torch.tensor([1.0, 0.2, -0.5, -1.0]) * (1 - 0.7 * closure) + 2 * normal(4)
    fingers = torch.stack([flexion[..., 0], spread, flexion[..., 1], flexion[..., 2]], -1)
    opposed = torch.rand(count, 1, generator=generator) ** 0.6
    thumb = torch.lerp(torch.tensor(_BESIDE), torch.tensor(_OPPOSED), opposed) + 9 * normal(4)
    return torch.cat([thumb, fingers.flatten(1)], 1).deg2rad()
