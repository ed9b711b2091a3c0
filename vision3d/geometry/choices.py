"""Names of choices in options and functions of geometry, without torch, so that `--help` and option checks start fast."""

import itertools
from typing import Literal

SkinningMethod = Literal["lbs", "dqs", "hybrid"]
"""Linear blend skinning, dual quaternions, or a mixture of the two."""
EULER_ORDERS = tuple(
    "".join(order)
    for letters in ("XYZ", "xyz")
    for order in itertools.product(letters, repeat=3)
    if order[0] != order[1] != order[2]
)
"""Orders of Euler angles: upper-case letters are intrinsic (moving axes), lower-case letters extrinsic (fixed axes)."""
