"""Images of triplanes by volume rendering."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.render.triplanes.field import DENSITY, query
from vision3d.render.views import View
from vision3d.scene.cameras import Cameras
from vision3d.scene.triplane import Triplane

_GRID = 64  # cells along a side of the grid that says where the field is empty
_EMPTY = 0.01  # probability of being inside below which a cell is empty
_ROWS = 1 << 15  # rays at once


def render_triplane(
    triplane: Triplane, cameras: Cameras, *, samples: int = 128, background: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Iterator[Float[Tensor, "h w 3"]]:
    """Render a field from each camera, one at a time.

    The segment of each ray in the cube is cut into equal steps; alpha_i = 1 - exp(-density_i * step), weights as in NeRF
    (Mildenhall et al. 2020, eq. 3). Steps in empty cells of a coarse grid are skipped.

    Args:
        triplane: The field.
        cameras: Pinholes without lens distortion.
        samples: Steps along a ray.
        background: sRGB behind the object.

    Raises:
        InputError: The cameras are not pinholes, or a number is out of range.
    """
    for view in triplane_views(triplane, cameras, samples=samples, background=background):
        assert view.image is not None
        yield view.image


def triplane_views(
    triplane: Triplane, cameras: Cameras, *, samples: int = 128, background: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Iterator[View]:
    """As `render_triplane`, with opacity and expected depth; the depth of empty pixels is 0."""
    if cameras.model != "pinhole" or cameras.distortion is not None:
        raise InputError("cameras: want pinholes without lens distortion for a triplane")
    if samples < 1:
        raise InputError(f"samples: got {samples}, want at least 1")
    filled = filled_cells(triplane)
    inverse = torch.linalg.inv(triplane.matrix.double())
    behind = torch.tensor(background)
    for index in range(len(cameras)):
        camera = cameras[index : index + 1]
        width, height = int(camera.width), int(camera.height)
        starts, directions = _rays(camera, inverse)
        parts = [_seen(triplane, filled, starts, rays, samples) for rays in directions.float().split(_ROWS)]
        colors, alpha, depth = (torch.cat(values) for values in zip(*parts))
        image = (colors + (1 - alpha)[:, None] * behind).view(height, width, 3)
        yield View(image, alpha.view(height, width), (depth / alpha.clamp(min=1e-6)).view(height, width), None)


@torch.no_grad()
def filled_cells(triplane: Triplane, size: int = _GRID) -> Bool[Tensor, "x y z"]:
    """Cells of the cube that the field does not leave empty, and their neighbors."""
    at = (2 * torch.arange(size) + 1) / size - 1
    points = torch.cartesian_prod(at, at, at).to(triplane.planes)
    inside = (query(triplane, points).logits.sigmoid() > _EMPTY).float().view(1, 1, size, size, size)
    return torch.nn.functional.max_pool3d(inside, 3, 1, 1)[0, 0] > 0


def _rays(camera: Cameras, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Center of a camera, and a direction per pixel, in the cube; directions have the length of one unit of depth."""
    width, height = int(camera.width), int(camera.height)
    K = camera.Ks[0].double()
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], -1).reshape(-1, 3).double()
    rays = pixels @ torch.linalg.inv(K).T @ camera.viewmats[0, :3, :3].double()
    center = inverse[:3, :3] @ camera.centers[0].double() + inverse[:3, 3]
    return center.float(), rays @ inverse[:3, :3].T


def _seen(triplane: Triplane, filled: Tensor, start: Tensor, rays: Tensor, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Accumulated colors, opacity and depth of rays that begin at one point."""
    safe = torch.where(rays.abs() < 1e-9, 1e-9, rays)
    first, second = (-1 - start) / safe, (1 - start) / safe
    near = torch.minimum(first, second).amax(1).clamp(min=0)
    far = torch.maximum(first, second).amin(1)
    step = (far - near).clamp(min=0) / samples
    at = near[:, None] + step[:, None] * (torch.arange(samples) + 0.5)
    points = start + at[..., None] * rays[:, None]
    cells = ((points + 1) * (0.5 * len(filled))).long().clamp(0, len(filled) - 1)
    asked = filled[cells[..., 0], cells[..., 1], cells[..., 2]] & (step > 0)[:, None]
    values = query(triplane, points[asked])
    optical = torch.zeros(asked.shape)
    lengths = (step * torch.linalg.vector_norm(rays, dim=1))[:, None].expand_as(asked)
    optical[asked] = DENSITY * values.logits.sigmoid() * lengths[asked]
    passed = torch.exp(-torch.cat([torch.zeros(len(rays), 1), optical.cumsum(1)], 1))
    weights = passed[:, :-1] - passed[:, 1:]
    colors = torch.zeros(*asked.shape, 3)
    colors[asked] = values.colors
    return (weights[..., None] * colors).sum(1), 1 - passed[:, -1], (weights * at).sum(1)
