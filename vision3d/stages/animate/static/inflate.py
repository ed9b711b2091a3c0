"""An initial shape from one image: its silhouette, inflated."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry.isosurface import surface_nets
from vision3d.scene import Cameras, Mesh, PosedImages
from vision3d.scene.resample import resize_area
from vision3d.stages.animate.orbits import Orbit

_SIDE = 96  # size of the silhouette that is inflated [px]


def inflated_mesh(images: PosedImages, orbit: Orbit, cells: int) -> Mesh:
    """A closed mesh whose silhouette in the first camera is that of the image, as thick as it is wide.

    Half the thickness h of a pixel solves Laplace(h^2) = -4 inside the silhouette with h = 0 on it, which makes a ball of a
    disc (in the spirit of Teddy, Igarashi et al. 1999). Each vertex has the color of the image at its pixel, so the back
    mirrors the front.

    Args:
        images: An image with an alpha channel, of one object.
        orbit: Around the object; the mesh is centered in it.
        cells: Grid cells along the longest side of the mesh.

    Raises:
        InputError: The silhouette is too thin for the grid.
    """
    color, alpha = _read(images)
    camera, mask = images.cameras[0], alpha > 0.5
    too_thin = InputError(f"{images.source}: its silhouette is too thin to be inflated on {cells} cells")
    if not bool(mask.any()):
        raise too_thin
    origin, step, size = _grid(mask, camera, orbit, cells)
    values = _field(_thickness(mask), origin, step, size, camera, orbit)
    try:
        vertices, faces = surface_nets(values)
    except InputError as error:
        raise too_thin from error
    vertices = origin + vertices @ step
    places = _pixels(vertices, camera)
    spread = _spread(color, alpha)
    colors = _read_at(spread, places, (int(camera.width), int(camera.height)))
    return Mesh(vertices.float(), faces, vertex_colors=colors.clamp(0, 1).float())


def _read(images: PosedImages) -> tuple[Tensor, Tensor]:
    """Colors and alpha, downscaled."""
    from vision3d.io.images import read_image

    image = read_image(images.image_paths[0]).double()
    factor = min(1.0, _SIDE / max(image.shape[:2]))
    height, width = (max(1, round(factor * side)) for side in image.shape[:2])
    image = torch.cat([image[..., :3] * image[..., 3:], image[..., 3:]], -1)
    small = resize_area(image, width, height)
    return small[..., :3], small[..., 3]


def _thickness(mask: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Squared half thickness [pixels^2] inside; negative outside, decreasing with the distance from the silhouette."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import spsolve

    inside = np.pad(mask.numpy(), 1)
    rows, columns = inside.nonzero()
    number = np.full(inside.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    entries = []
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        other = number[rows + down, columns + right]
        entries.append((np.arange(len(rows))[other >= 0], other[other >= 0]))
    i, j = (np.concatenate(parts) for parts in zip(*entries))
    laplace = diags_array(np.full(len(rows), 4.0)) - coo_array((np.ones(len(i)), (i, j)), shape=(len(rows),) * 2)
    found = np.zeros(inside.shape)
    found[rows, columns] = np.asarray(spsolve(laplace.tocsc(), np.full(len(rows), 4.0)))
    away = np.asarray(distance_transform_edt(~inside)) * math.sqrt(max(float(found.max()), 1.0))
    return torch.from_numpy(np.where(inside, found, -2 * away)[1:-1, 1:-1])


def _grid(mask: Tensor, camera: Cameras, orbit: Orbit, cells: int) -> tuple[Tensor, Tensor, tuple[int, int, int]]:
    """A grid of cubes along the camera's axes around the object: its first point, its three steps (rows), and its size."""
    rows, columns = mask.nonzero().unbind(-1)
    scale = float(camera.height) / mask.shape[0]
    depth = float(torch.linalg.vector_norm(camera.centers[0].double() - orbit.center))
    meters = scale * depth / float(camera.Ks[0, 0, 0])  # size of a pixel of the mask, at the center
    spans = [float(places.max() - places.min()) + 1 for places in (columns, rows)]
    side = meters * max(spans) / cells
    counts = [math.ceil(meters * span / side) + 6 for span in (*spans, min(spans))]
    axes = camera.viewmats[0, :3, :3].double()
    middle = torch.tensor([float(columns.max() + columns.min() + 1), float(rows.max() + rows.min() + 1)]).double() / 2 * scale
    K = camera.Ks[0].double()
    center = camera.centers[0].double() + depth * (
        axes[2] + (middle[0] - K[0, 2]) / K[0, 0] * axes[0] + (middle[1] - K[1, 2]) / K[1, 1] * axes[1]
    )
    step = side * axes
    first = center - 0.5 * (torch.tensor(counts).double() - 1) @ step
    return first, step, (counts[0], counts[1], counts[2])


def _field(
    squares: Tensor, origin: Tensor, step: Tensor, size: tuple[int, int, int], camera: Cameras, orbit: Orbit
) -> Float[Tensor, "x y z"]:
    """h^2 - t^2 at the points of the grid, t the distance from the plane through the center perpendicular to the view [m^2]."""
    index = torch.stack(torch.meshgrid(*(torch.arange(count).double() for count in size), indexing="ij"), -1)
    points = origin + index.reshape(-1, 3) @ step
    depths = (points - camera.centers[0].double()) @ camera.viewmats[0, 2, :3].double()
    depth = float((orbit.center - camera.centers[0].double()) @ camera.viewmats[0, 2, :3].double())
    meters = float(camera.height) / squares.shape[0] * depth / float(camera.Ks[0, 0, 0])
    height = _read_at(squares[..., None], _pixels(points, camera), (int(camera.width), int(camera.height)))[:, 0]
    return (meters**2 * height - (depths - depth).square()).view(size)


def _pixels(points: Float[Tensor, "n 3"], camera: Cameras) -> Float[Tensor, "n 2"]:
    viewmat, K = camera.viewmats[0].double(), camera.Ks[0].double()
    seen = (points @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
    return seen[:, :2] / seen[:, 2:]


def _read_at(image: Tensor, pixels: Tensor, size: tuple[int, int]) -> Float[Tensor, "n c"]:
    """Bilinear samples of an image at pixels of an image of another size; clamped at the border."""
    grid = 2 * pixels / torch.tensor(size).double() - 1
    values = torch.nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], grid[None, None], padding_mode="border", align_corners=False
    )
    return values[0, :, 0].T


def _spread(color: Tensor, alpha: Tensor) -> Float[Tensor, "h w 3"]:
    """Colors extended beyond the silhouette from nearby opaque pixels."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    solid = alpha > 0.9 if bool((alpha > 0.9).any()) else alpha >= alpha.max()
    nearest = distance_transform_edt(~solid.numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(np.asarray(nearest)).long()
    return (color / alpha[..., None].clamp(min=1e-6))[rows, columns]
