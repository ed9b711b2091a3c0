"""The 21 joints of a hand, in the order of FreiHAND (Zimmermann et al. 2019)."""

import torch
from jaxtyping import Float
from torch import Tensor

FINGERS = ("thumb", "index", "middle", "ring", "little")
NAMES = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in FINGERS[1:] for part in ("mcp", "pip", "dip", "tip")),
)
"""Names of the joints: wrist, then each finger from its base to its tip."""
PARENTS = tuple(-1 if joint == 0 else 0 if joint % 4 == 1 else joint - 1 for joint in range(21))
"""The joint before each; -1: none."""
BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)
"""The 20 bones as (parent, child)."""
WRIST, ROOT = 0, 9
"""The wrist, and the joint that root-relative coordinates are relative to (MCP joint of the middle finger)."""


def hand_adjacency() -> Float[Tensor, "21 21"]:
    """D^-1/2 (A + I) D^-1/2 of the bones' graph, D the degrees with the loop (Kipf and Welling 2017)."""
    links = torch.eye(len(NAMES))
    for parent, child in BONES:
        links[parent, child] = links[child, parent] = 1
    scale = links.sum(1).rsqrt()
    return scale[:, None] * links * scale
