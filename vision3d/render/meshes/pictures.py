"""Attributes of meshes drawn with silhouettes in one call."""

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
    """`antialias(interpolate(attributes, faces, fragments), positions, faces, fragments)` of the fragments of `rasterize`.

    The same picture; on a CPU in about 0.6 of the time, as nothing in between is written down or has gradients of its
    own. Behind the mesh all attributes are zero: one more attribute of ones gives the share of the mesh in every pixel, to put
    the picture on another background. Gradients reach `attributes` and `positions`; on a CPU they have the same bits for
    any number of threads.

    Args:
        attributes: Of each vertex, such as colours; one set for all images, or one each.
        positions: Homogeneous pixel positions (X, Y, depth, W) of `screen_positions`.
        faces: Corners of each face, int64 or int32. Vertices must be shared, see `antialias`.
        width: Image width [px]; all images of a call have at most 2^28 pixels.
        height: Image height [px].
        neighbors: Of `edge_neighbors(faces)`, to compute it once for many calls.
        near_plane: Smallest depth that is seen [m].
        far_plane: Largest depth that is seen [m].
        backend: auto, native or reference (plain torch).

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; names it, with got and want.
        InputError: A number is out of range, or a face names a vertex that is not there.
        BackendError: The backend does not run here.

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
    from vision3d.render.meshes.native_picture import picture

    return picture(sets, positions, triangles, neighbors, int(width), int(height), float(near_plane), float(far_plane))
