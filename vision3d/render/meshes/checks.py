"""Checks of the arguments of the mesh rasterizer: one-line errors with the argument, got and want."""

from collections.abc import Sequence
from numbers import Integral
from types import ModuleType

import torch
from torch import Tensor

from vision3d.core.device import resolve_backend
from vision3d.core.errors import BackendError, DeviceError, InputError, ShapeError
from vision3d.core.index_ranges import index_range
from vision3d.core.op_checks import check_image_size


def check_floats(name: str, tensor: object, want: str) -> None:
    """Check that this is a tensor of float32 or float64."""
    if not isinstance(tensor, Tensor):
        raise ShapeError(name, type(tensor).__name__, f"a torch.Tensor {want}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ShapeError(name, tensor.dtype, "torch.float32 or torch.float64")


def check_tensor(name: str, tensor: object, shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> None:
    """Check that a tensor has this shape, the dtype (of `like` unless given) and the device of `like`."""
    if not isinstance(tensor, Tensor):
        raise ShapeError(name, type(tensor).__name__, f"a torch.Tensor of shape {tuple(shape)}")
    if tuple(tensor.shape) != tuple(shape):
        raise ShapeError(name, tuple(tensor.shape), tuple(shape))
    if tensor.dtype != (dtype or like.dtype):
        raise ShapeError(name, tensor.dtype, dtype or like.dtype)
    if tensor.device != like.device:
        raise DeviceError(f"{name}: got device {tensor.device}, want {like.device}")


def check_positions(positions: object) -> None:
    """Check that these are (I, V, 4) floats."""
    check_floats("positions", positions, "(I, V, 4)")
    if positions.dim() != 3 or positions.shape[-1] != 4:  # type: ignore[attr-defined]
        raise ShapeError("positions", tuple(positions.shape), "(I, V, 4)")  # type: ignore[attr-defined]


def check_faces(faces: object, vertices: int, like: Tensor) -> Tensor:
    """The faces in the format of the kernels: contiguous int32 (F, 3) with valid vertex indices.

    Raises:
        ShapeError: The shape is wrong, or the dtype is not int32 or int64.
        InputError: A face has an invalid vertex index; the message has the face.
    """
    if not isinstance(faces, Tensor):
        raise ShapeError("faces", type(faces).__name__, "a torch.Tensor (F, 3)")
    if faces.dim() != 2 or faces.shape[1] != 3:
        raise ShapeError("faces", tuple(faces.shape), "(F, 3)")
    if faces.dtype not in (torch.int32, torch.int64):
        raise ShapeError("faces", faces.dtype, "torch.int64 or torch.int32")
    if faces.device != like.device:
        raise DeviceError(f"faces: got device {faces.device}, want {like.device}")
    if len(faces):
        low, high = index_range(faces)
        if low < 0 or high >= vertices:
            bad = int(((faces < 0) | (faces >= vertices)).any(1).nonzero()[0])
            raise InputError(f"faces: face {bad} is {faces[bad].tolist()}, but there are {vertices} vertices")
    return faces.detach().to(torch.int32).contiguous()


def check_face_ids(face_ids: Tensor, faces: Tensor) -> None:
    """Check that pixels refer to faces of this list.

    Raises:
        InputError: A pixel has another face.
    """
    if face_ids.numel():
        low, high = index_range(face_ids)
        if low < -1 or high >= len(faces):
            bad = low if low < -1 else high
            raise InputError(f"fragments.face_ids: a pixel has face {bad}, but there are {len(faces)} faces")


def check_neighbors(neighbors: object, faces: Tensor, like: Tensor) -> None:
    """Check that these are int32 (F, 3) with valid face indices, or -1.

    Raises:
        ShapeError: The shape or dtype is wrong.
        InputError: One is not a valid face index; the message has it.
    """
    check_tensor("neighbors", neighbors, tuple(faces.shape), like, torch.int32)
    if len(faces):
        low, high = index_range(neighbors)  # type: ignore[arg-type]
        if low < -1 or high >= len(faces):
            bad = int(((neighbors < -1) | (neighbors >= len(faces))).any(1).nonzero()[0])  # type: ignore[operator]
            raise InputError(f"neighbors: those of face {bad} are {neighbors[bad].tolist()}, but there are {len(faces)} faces")  # type: ignore[index]


def check_image(num_images: int, width: object, height: object, near_plane: float, far_plane: float) -> None:
    """Check image sizes and clipping planes.

    Raises:
        InputError: A number is out of range.
    """
    for name, value in (("width", width), ("height", height)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name}: got {value!r}, want an int >= 1")
    check_image_size(num_images, int(width), int(height))  # type: ignore[call-overload]
    if not near_plane < far_plane:
        raise InputError(f"near_plane, far_plane: got {near_plane}, {far_plane}, want near_plane < far_plane")


def kernels(backend: str, device: torch.device) -> ModuleType:
    """The module with the operations of the requested backend on this device.

    Raises:
        BackendError: It is unknown, not built, or does not support meshes.
    """
    if is_native(backend, device):
        from vision3d.render.meshes import native_ops

        return native_ops
    from vision3d.render.reference import meshes

    return meshes


def is_native(backend: str, device: torch.device) -> bool:
    """Whether this backend uses the compiled kernels.

    Raises:
        BackendError: As for `kernels`.
    """
    chosen = resolve_backend(backend, device)
    if chosen == "gsplat" and backend != "auto":
        raise BackendError("backend gsplat: does not draw meshes; use backend='native' or 'reference'")
    return chosen == "native"
