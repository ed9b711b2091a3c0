"""From world vertices to the homogeneous pixel positions of the mesh rasterizer."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError, nearest_names
from vision3d.render.meshes.checks import check_floats, check_tensor


def screen_positions(
    vertices: Float[Tensor, "v 3"] | Float[Tensor, "c v 3"],
    viewmats: Float[Tensor, "c 4 4"],
    Ks: Float[Tensor, "c 3 3"],
    camera_model: str = "pinhole",
) -> Float[Tensor, "c v 4"]:
    """Homogeneous pixel positions (X, Y, depth, W) of vertices for every camera: pixel x = X / W, y = Y / W.

    Plain torch, so gradients flow to vertices, poses and intrinsics.

    Args:
        vertices: In the world [m]; one set for all cameras, or one each.
        viewmats: World to camera, rigid, OpenCV axes.
        Ks: Intrinsics [px].
        camera_model: pinhole (W is the depth), or ortho (W is 1; fx and fy are pixels per meter).

    Raises:
        ShapeError: A tensor has the wrong shape or dtype.
        InputError: The camera model is not supported.

    Example:
        >>> K = torch.tensor([[[10.0, 0.0, 8.0], [0.0, 10.0, 8.0], [0.0, 0.0, 1.0]]])
        >>> screen_positions(torch.tensor([[0.5, 0.0, 2.0]]), torch.eye(4)[None], K)  # x = 21 / 2, y = 16 / 2
        tensor([[[21., 16.,  2.,  2.]]])
    """
    check_floats("vertices", vertices, "(V, 3) or (C, V, 3)")
    if vertices.dim() not in (2, 3) or vertices.shape[-1] != 3:
        raise ShapeError("vertices", tuple(vertices.shape), "(V, 3) or (C, V, 3)")
    if not isinstance(viewmats, Tensor) or viewmats.dim() != 3:
        raise ShapeError("viewmats", getattr(viewmats, "shape", type(viewmats).__name__), "(C, 4, 4)")
    count = len(viewmats)
    check_tensor("viewmats", viewmats, (count, 4, 4), vertices)
    check_tensor("Ks", Ks, (count, 3, 3), vertices)
    if vertices.dim() == 3:
        check_tensor("vertices", vertices, (count, vertices.shape[1], 3), vertices)
    if camera_model not in ("pinhole", "ortho"):
        raise InputError(f"camera_model: got {camera_model!r}; {nearest_names(str(camera_model), ('pinhole', 'ortho'))}")
    # One 4x4 matrix per camera: products of many small rows are slow.
    if camera_model == "pinhole":
        image = Ks @ viewmats[:, :3]
    else:
        image = Ks[:, :, :2] @ viewmats[:, :2]
        image = torch.cat([image[..., :3], image[..., 3:] + Ks[..., 2:]], -1)
    matrix = torch.cat([image[:, :2], viewmats[:, 2:3], image[:, 2:]], 1).mT  # (C, 4, 4): columns X, Y, depth, W
    if count == 1:
        flat = vertices if vertices.dim() == 2 else vertices[0]
        return torch.addmm(matrix[0, 3], flat, matrix[0, :3])[None]
    return torch.baddbmm(matrix[:, 3:], vertices.expand(count, -1, -1), matrix[:, :3])
