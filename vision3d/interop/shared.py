"""Shared by the conversions."""

import importlib
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.core.errors import InputError, MissingDependencyError
from vision3d.scene.cameras import Cameras

logger = logging.getLogger("vision3d")


def require(package: str, purpose: str) -> ModuleType:
    """Import an optional package, or a module of one.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(package.partition(".")[0], "interop", purpose) from error


def wrong_type(name: str, value: object, want: str) -> InputError:
    """The error for a value that cannot be converted."""
    kind = type(value)
    return InputError(f"{name}: got {kind.__module__.partition('.')[0]} {kind.__name__}, want {want}")


def log_lost(name: str, value: object, fields: Sequence[str]) -> None:
    """Log one warning for the fields that are set but cannot be represented."""
    lost = [field for field in fields if _is_there(getattr(value, field))]
    if lost:
        logger.warning("%s cannot hold %s of a %s; dropped", name, ", ".join(lost), type(value).__name__)


def array(values: Tensor, dtype: Any = np.float32) -> np.ndarray:
    """Copy a tensor to an array."""
    return np.array(values.detach().cpu().numpy(), dtype)


def tensor(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    """Copy an array to a tensor."""
    return torch.from_numpy(np.array(values)).to(dtype)


def flipped(uvs: np.ndarray) -> np.ndarray:
    """Texture coordinates with v measured from the other edge."""
    result = uvs.copy()
    result[..., 1] = 1 - result[..., 1]
    return result


def to_bytes(colors: Tensor) -> np.ndarray:
    """Colors in [0, 1], such as a texture, as bytes."""
    return array((colors.detach().clamp(0, 1) * 255).round(), np.uint8)


def plain_pinhole(name: str, cameras: Cameras) -> Cameras:
    """Cameras that the other type can represent; names and times are dropped.

    Raises:
        InputError: They are not pinhole cameras, or have distortion or skew.
    """
    if cameras.model != "pinhole":
        raise InputError(f"{name}: cameras are {cameras.model}, want pinhole")
    if cameras.distortion is not None and bool(cameras.distortion.any()):
        raise InputError(f"{name}: cameras have lens distortion, want undistorted ones")
    if bool((cameras.Ks[:, 0, 1] != 0).any()):
        raise InputError(f"{name}: cameras have skew, want none")
    log_lost(name, cameras, ("names", "times"))
    return cameras


def _is_there(value: Any) -> bool:
    return value is not None and value is not False and (not hasattr(value, "__len__") or len(value) > 0)
