"""The box of the grid: room around the moving part, above its floor."""

import math

import torch
from torch import Tensor

from vision3d.core.errors import ConfigError
from vision3d.stages.simulate.config import SimulateConfig
from vision3d.stages.simulate.setup.obstacles import Placement
from vision3d.stages.simulate.world.particles import Grid

_PADDING = 3  # cells on each side of the grid


def grid_around(
    config: SimulateConfig,
    x: Tensor,
    spacing: float,
    size: float,
    up: Tensor,
    base: float | None,
    placement: Placement,
    ends: bool,
) -> Grid:
    """A grid with room for the moving part.

    Args:
        config: Options.
        x: Initial positions of the moving part [m].
        spacing: Spacing of the nodes [m].
        size: Longest side of the moving part [m].
        up: Up direction, unit length.
        base: Height of the floor along `up` [m]; None: no floor.
        placement: Placement of the scene in the simulation.
        ends: Whether the floor has an end beyond which objects fall.

    Raises:
        ConfigError: The moving part is not within the box of the options.
    """
    margin = config.room * size + (_PADDING + 1) * spacing
    low, high = x.amin(0), x.amax(0)
    if base is not None:  # room to fall onto the floor
        lowest = float((x @ up).min())
        fall = min(base - lowest, 0.0) * up
        low, high = torch.minimum(low, low + fall), torch.maximum(high, high + fall)
    low, high = low - margin, high + margin
    if base is not None:  # and none below it
        axis = int(up.abs().argmax())
        tilt = float((up.abs().sum() - up.abs()[axis]) / up.abs()[axis]) * float((high - low).max())
        depth = base / float(up[axis])
        below = (_PADDING + 2) * spacing + tilt + (config.room * size if ends else 0.0)  # particles fall off its end
        if up[axis] > 0:
            low[axis] = max(float(low[axis]), depth - below)
        else:
            high[axis] = min(float(high[axis]), depth + below)
        # Except for particles that start below it: the floor lifts them, or `check_apart` reports them.
        low, high = torch.minimum(low, x.amin(0) - below), torch.maximum(high, x.amax(0) + below)
    if config.box is not None:
        corners = placement.to_metres(torch.tensor(config.box, dtype=torch.float64).view(2, 3))
        is_out = ((x < corners[0]) | (x > corners[1])).any(-1)
        if bool(is_out.any()):
            raise ConfigError("box", f"{int(is_out.sum())} of {len(x)} moving points start outside it; make it larger")
        low, high = corners[0] - (_PADDING + 1) * spacing, corners[1] + (_PADDING + 1) * spacing
    counts = [math.ceil(length / spacing) + 1 for length in (high - low).tolist()]
    return Grid((float(low[0]), float(low[1]), float(low[2])), spacing, (counts[0], counts[1], counts[2]), _PADDING)


def floor_space(config: SimulateConfig, x: Tensor, size: float, spacing: float, placement: Placement) -> tuple[Tensor, Tensor]:
    """A box that contains the grid."""
    if config.box is not None:
        low, high = placement.to_metres(torch.tensor(config.box, dtype=torch.float64).view(2, 3))
    else:
        low, high = x.amin(0) - config.room * size, x.amax(0) + config.room * size
    return low - 16 * spacing, high + 16 * spacing
