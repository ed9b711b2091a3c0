"""Connected components of points in the cells of a lattice."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import InputError


def connected_parts(points: Float[Tensor, "n 3"], spacing: float) -> Int64[Tensor, " n"]:
    """The connected component of each point, 0 the largest: points are connected if their cells touch, at least at a corner.

    So points closer than `spacing` always are, and those farther apart than 2 sqrt(3) spacings only through others.

    Example:
        >>> connected_parts(torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [9.0, 0, 0]]), 1.0)
        tensor([0, 0, 1])
    """
    if not 0 < spacing < float("inf"):
        raise InputError(f"spacing: got {spacing}, want a length > 0")
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    cells = ((points.double() - points.double().amin(0)) / spacing).floor().long().cpu()
    cells = cells.clamp(max=(1 << 20) - 2) + 1
    keys, inverse = torch.unique((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2], return_inverse=True)
    steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)[14:]  # half of the 26 neighbors; the others are symmetric
    rows, columns = [], []
    for x, y, z in steps.tolist():
        wanted = keys + (x * (1 << 42) + y * (1 << 21) + z)
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        found = (keys[place] == wanted).nonzero()[:, 0]
        rows.append(found)
        columns.append(place[found])
    row, column = torch.cat(rows).numpy(), torch.cat(columns).numpy()
    graph = coo_array((torch.ones(len(row)).numpy(), (row, column)), shape=(len(keys), len(keys)))
    count, part_of_cell = connected_components(graph, directed=False)
    part = torch.from_numpy(part_of_cell).long()[inverse]
    sizes = torch.bincount(part, minlength=count)
    rank = torch.empty_like(sizes)
    rank[sizes.argsort(descending=True, stable=True)] = torch.arange(count)
    return rank[part].to(points.device)
