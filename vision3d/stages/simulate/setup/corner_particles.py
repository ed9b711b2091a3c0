"""Corners of Gaussians as individual particles: three per disc, four per ellipsoid, as in GASP."""

from dataclasses import replace

import torch

from vision3d.stages.simulate.points3 import Corners
from vision3d.stages.simulate.scene.representations import FDrive
from vision3d.stages.simulate.setup.prepared import Setup
from vision3d.stages.simulate.world.particles import Particles

_MIN_EDGE = 0.1  # cells; shorter ones vanish in float32


def with_corners(setup: Setup) -> Setup:
    """The same scene with each simulated Gaussian's particle replaced by particles at its corners, which share its mass."""
    assert isinstance(setup.representation, FDrive)
    old, count = setup.particles, len(setup.core_rows)
    factors = setup.representation.rest[setup.core_rows] * setup.scale
    corners = Corners.of(old.x[setup.core_particles].double(), factors, _MIN_EDGE * setup.world.grid.spacing)
    each = factors.shape[-1] + 1
    places = corners.points().x
    others = torch.ones(len(old), dtype=torch.bool).index_fill_(0, setup.core_particles, False).nonzero()[:, 0]
    source = torch.cat([setup.core_particles.repeat_interleave(each), others])
    x = torch.cat([places.to(old.x), old.x[others]])
    share = torch.cat([old.volume.new_full((count * each,), 1 / each), old.volume.new_ones(len(others))])
    v = old.v[source] + (old.C[source] @ (x - old.x[source])[..., None])[..., 0]
    # Corners of huge Gaussians extend beyond the grid; at its border, rounding could put them outside.
    low, high = setup.world.grid.bounds(x)
    low, high = low + setup.world.grid.spacing, high - setup.world.grid.spacing
    particles = Particles.at_rest(
        x.clamp(low, high),
        old.volume[source] * share,
        setup.world.materials,
        old.body[source],
        v=v,
        C=old.C[source],
        motion=old.motion[source],
    )
    new = torch.empty(len(old), dtype=torch.int64)  # new index of the means
    new[setup.core_particles] = each * torch.arange(count)
    new[others] = each * count + torch.arange(len(others))
    pushes = tuple(replace(push, rows=torch.isin(source, push.rows).nonzero()[:, 0]) for push in setup.pushes)
    return replace(
        setup,
        particles=particles,
        core_particles=new[setup.core_particles],
        followers=replace(setup.followers, parents=new[setup.followers.parents]),
        pushes=pushes,
        corners=corners,
    )
