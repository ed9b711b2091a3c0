"""Names that options and functions of geometry take, without torch, so that `--help` and checks of options start fast."""

import itertools
from typing import Literal

SkinningMethod = Literal["lbs", "dqs", "hybrid"]
"""Linear skinning, dual quaternions, or between the two."""
EULER_ORDERS = tuple(
    "".join(order)
    for letters in ("XYZ", "xyz")
    for order in itertools.product(letters, repeat=3)
    if order[0] != order[1] != order[2]
)
"""Orders of Euler angles: capital letters about axes that move along, small ones about fixed axes."""
