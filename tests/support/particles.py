"""Particles on a lattice."""

import torch


def lattice(cells, corner, spacing):
    """Particles in a box of whole cells, 8 per cell on a regular lattice: positions and volumes, float64."""
    axes = [(torch.arange(2 * n, dtype=torch.float64) + 0.5) * spacing / 2 for n in cells]
    x = torch.cartesian_prod(*axes) + torch.tensor(corner, dtype=torch.float64)
    return x, torch.full((len(x),), (spacing / 2) ** 3, dtype=torch.float64)
