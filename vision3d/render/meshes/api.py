"""The operations of the mesh rasterizer. Shapes: i images, v vertices, f faces, h x w pixels, d channels."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from vision3d.core.errors import ShapeError
from vision3d.core.index_ranges import remember
from vision3d.render.meshes import checks


class Fragments(NamedTuple):
    """Visible surface of each pixel."""

    face_ids: Int32[Tensor, "i h w"]
    """The nearest face, -1 for none."""
    barycentrics: Float[Tensor, "i h w 3"]
    """Perspective-correct barycentric coordinates, which sum to 1; zero outside the mesh."""
    depths: Float[Tensor, "i h w"]
    """Depth of the surface [m]; zero outside the mesh."""


def rasterize(
    positions: Float[Tensor, "i v 4"],
    faces: Int[Tensor, "f 3"],
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    backend: str = "auto",
) -> Fragments:
    """The nearest face at every pixel center; on a CPU bit-identical for any number of threads.

    Edge functions of homogeneous points (Olano and Greer 1997), so faces that cross the near plane need no clipping. A
    pixel center on an edge belongs to the face for which it is a left or top edge: exactly one of two faces at an edge draws
    it. Depths are compared in float32; at equal depth the lower face index wins. Both sides of a face are drawn; faces of zero
    area and those with a non-finite corner are not.

    Gradients of barycentrics and depths flow to `positions`; visibility has none: see `antialias`.

    Args:
        positions: Homogeneous pixel positions (X, Y, depth, W) of `screen_positions`.
        faces: Corners of each face, int64 or int32.
        width: Image width [px]; at most 2^28 pixels in all images of a call.
        height: Image height [px].
        near_plane: Minimum visible depth [m].
        far_plane: Maximum visible depth [m].
        backend: auto, native or reference (plain torch).

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; the message has its name, got and want.
        InputError: A number is out of range, or a face has an invalid vertex index.
        BackendError: The backend is not available here.

    Example:
        >>> corners = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [4.0, 0.0, 1.0, 1.0], [0.0, 4.0, 1.0, 1.0]]])
        >>> rasterize(corners, torch.tensor([[0, 1, 2]]), 4, 2).face_ids
        tensor([[[ 0,  0,  0, -1],
                 [ 0,  0, -1, -1]]], dtype=torch.int32)
    """
    checks.check_positions(positions)
    triangles = checks.check_faces(faces, positions.shape[1], positions)
    checks.check_image(len(positions), width, height, near_plane, far_plane)
    kernels = checks.kernels(backend, positions.device)
    fragments = Fragments(*kernels.rasterize(positions, triangles, width, height, float(near_plane), float(far_plane)))
    remember(fragments.face_ids, -1, len(triangles) - 1)
    return fragments


def interpolate(
    attributes: Float[Tensor, "v d"] | Float[Tensor, "s v d"],
    faces: Int[Tensor, "f 3"],
    fragments: Fragments,
    *,
    backend: str = "auto",
) -> Float[Tensor, "i h w d"]:
    """Attributes of the vertices at every pixel: the sum over the face's corners of barycentric times attribute.

    Gradients flow to the attributes and the barycentrics.

    Args:
        attributes: Per vertex; one set for all images, or one each.
        faces: Rows of `attributes` for the corners of each face: those given to `rasterize`, or others of the same
            number, such as the faces of texture coordinates.
        fragments: Result of `rasterize`.
        backend: auto, native or reference.

    Returns:
        Values; zero outside the mesh.

    Raises:
        ShapeError: A tensor has the wrong shape or dtype; the message has its name, got and want.
        InputError: A face or a pixel has an invalid index.
        BackendError: The backend is not available here.
    """
    checks.check_floats("attributes", attributes, "(V, D) or (I, V, D)")
    if attributes.dim() not in (2, 3):
        raise ShapeError("attributes", tuple(attributes.shape), "(V, D) or (I, V, D)")
    sets = attributes[None] if attributes.dim() == 2 else attributes
    triangles = checks.check_faces(faces, sets.shape[1], attributes)
    check_fragments(fragments, attributes)
    images = len(fragments.face_ids)
    if len(sets) not in (1, images):
        raise ShapeError("attributes", tuple(attributes.shape), f"one set, or {images} as there are images")
    checks.check_face_ids(fragments.face_ids, triangles)
    kernels = checks.kernels(backend, attributes.device)
    return kernels.interpolate(sets, triangles, fragments.face_ids, fragments.barycentrics)


def check_fragments(fragments: Fragments, like: Tensor) -> None:
    """Check shapes, dtypes and devices of fragments.

    Raises:
        ShapeError: One has the wrong shape or dtype.
        DeviceError: One is on a different device than `like`.
    """
    shape = tuple(fragments.face_ids.shape)
    if len(shape) != 3:
        raise ShapeError("fragments.face_ids", shape, "(I, H, W)")
    checks.check_tensor("fragments.face_ids", fragments.face_ids, shape, like, dtype=torch.int32)
    checks.check_tensor("fragments.barycentrics", fragments.barycentrics, (*shape, 3), like)
    checks.check_tensor("fragments.depths", fragments.depths, shape, like)
