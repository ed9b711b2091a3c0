"""Rendering of mesh attributes with antialiased silhouettes in one call."""

from jaxtyping import Float, Int, Int32
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.render.meshes import checks
from vision3d.render.meshes.api import interpolate, rasterize
from vision3d.render.meshes.silhouettes import antialias, edge_neighbors


def draw_attributes(
    attributes: Float[Tensor, "v d"] | Float[Tensor, "s v d"],
    positions: Float[Tensor, "i v 4"],
    faces: Int[Tensor, "f 3"],
    width: int,
    height: int,
    *,
    neighbors: Int32[Tensor, "f 3"] | None = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    backend: str = "auto",
) -> Float[Tensor, "i h w d"]:
    """Same as `antialias(interpolate(attributes, faces, fragments), positions, faces, fragments)` after `rasterize`.

    The image is identical; on a CPU it takes about 0.6 of the time, since intermediate results are not stored and have no
    gradients of their own. The background is zero: an additional attribute of ones gives the coverage of every pixel, to
    composite the image on another background. Gradients flow to `attributes` and `positions`; on a CPU they are bit-identical
    for any number of threads.

    Args:
        attributes: Per vertex, such as colors; one set for all images, or one each.
        positions: Homogeneous pixel positions (X, Y, depth, W) of `screen_positions`.
        faces: Corners of each face, int64 or int32. Vertices must be shared, see `antialias`.
        width: Image width [px]; at most 2^28 pixels in all images of a call.
        height: Image height [px].
        neighbors: Result of `edge_neighbors(faces)`, to compute it once for many calls.
        near_plane: Minimum visible depth [m].
        far_plane: Maximum visible depth [m].
        backend: auto, native or reference (plain torch).

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; the message has its name, got and want.
        InputError: A number is out of range, or a face has an invalid vertex index.
        BackendError: The backend is not available here.

    Example:
        >>> import torch
        >>> corners = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [4.0, 0.0, 1.0, 1.0], [0.0, 4.0, 1.0, 1.0]]])
        >>> draw_attributes(torch.ones(3, 1), corners, torch.tensor([[0, 1, 2]]), 4, 2)[..., 0]
        tensor([[[1.0000, 1.0000, 1.0000, 0.5000],
                 [1.0000, 1.0000, 0.5000, 0.0000]]])
    """
    checks.check_positions(positions)
    images, vertices, _ = positions.shape
    checks.check_floats("attributes", attributes, "(V, D) or (I, V, D)")
    if attributes.dim() not in (2, 3):
        raise ShapeError("attributes", tuple(attributes.shape), "(V, D) or (I, V, D)")
    sets = attributes[None] if attributes.dim() == 2 else attributes
    if len(sets) not in (1, images):
        raise ShapeError("attributes", tuple(attributes.shape), f"one set, or {images} as there are images")
    checks.check_tensor("attributes", attributes, (*attributes.shape[:-2], vertices, attributes.shape[-1]), positions)
    if positions.device.type != "cpu" or not checks.is_native(backend, positions.device):
        fragments = rasterize(positions, faces, width, height, near_plane=near_plane, far_plane=far_plane, backend=backend)
        colors = interpolate(attributes, faces, fragments, backend=backend)
        return antialias(colors, positions, faces, fragments, neighbors=neighbors, backend=backend)
    triangles = checks.check_faces(faces, vertices, positions)
    checks.check_image(images, width, height, near_plane, far_plane)
    neighbors = edge_neighbors(faces) if neighbors is None else neighbors
    checks.check_neighbors(neighbors, faces, positions)
    from vision3d.render.meshes.native_drawing import draw

    return draw(sets, positions, triangles, neighbors, int(width), int(height), float(near_plane), float(far_plane))
