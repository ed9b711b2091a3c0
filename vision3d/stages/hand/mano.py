"""MANO_RIGHT.pkl and MANO_LEFT.pkl of a user: https://mano.is.tue.mpg.de, which needs a registration. Nothing is unpickled."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from vision3d.core.errors import FileFormatError
from vision3d.stages.hand.pickles import read_arrays

_SHAPES = {
    "v_template": (778, 3),
    "f": (1538, 3),
    "weights": (778, 16),
    "J_regressor": (16, 778),
    "kintree_table": (2, 16),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "hands_components": (45, 45),
    "hands_mean": (45,),
}


@dataclass(frozen=True, eq=False)
class Mano:
    """The arrays of a MANO model, in float64."""

    vertices: Float[Tensor, "778 3"]
    """At rest [m]."""
    faces: Int64[Tensor, "1538 3"]
    weights: Float[Tensor, "778 16"]
    """Skin weights."""
    joint_regressor: Float[Tensor, "16 778"]
    """The 16 joints that move the mesh, from the vertices."""
    parents: tuple[int, ...]
    """Parent of each joint; -1 for the wrist."""
    shape_offsets: Float[Tensor, "778 3 10"]
    """Offsets that a shape parameter of 1 adds to the vertices [m]."""
    pose_offsets: Float[Tensor, "778 3 135"]
    """Offsets that the elements of the 15 rotation matrices minus the identity add [m]."""
    pose_components: Float[Tensor, "45 45"]
    """Principal components of the 15 rotation vectors, as rows."""
    pose_mean: Float[Tensor, "45"]
    """Mean of the 15 rotation vectors [rad]."""


def read_mano(path: Path | str) -> Mano:
    """Read a MANO model without executing anything that is in the file.

    Args:
        path: MANO_RIGHT.pkl or MANO_LEFT.pkl.

    Raises:
        MissingFileError: The file does not exist.
        HiddenCodeError: It names something other than arrays.
        FileFormatError: It is damaged, or not a MANO model.
    """
    found, arrays = read_arrays(path), {}
    if missing := [name for name in _SHAPES if name not in found]:
        there = ", ".join(sorted(found)[:8]) or "nothing"
        raise FileFormatError(path, f"holds {there}, but lacks {', '.join(missing)}; want a MANO model")
    for name, shape in _SHAPES.items():
        arrays[name] = _checked(path, name, found[name], shape)
    faces, parents = arrays["f"].astype(np.int64), arrays["kintree_table"][0].astype(np.int64)
    if faces.min() < 0 or faces.max() >= len(arrays["v_template"]):
        raise FileFormatError(path, f"has a face with vertex {faces.max()}, want vertices from 0 to 777", "array f")
    parents[0] = -1  # stored as the largest unsigned number
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents.tolist()) if joint):
        raise FileFormatError(path, f"has parents {parents.tolist()}, want earlier joints", "array kintree_table")
    floats = {name: torch.from_numpy(arrays[name].astype(np.float64)) for name in _SHAPES if name not in ("f", "kintree_table")}
    return Mano(
        vertices=floats["v_template"],
        faces=torch.from_numpy(faces),
        weights=floats["weights"],
        joint_regressor=floats["J_regressor"],
        parents=tuple(parents.tolist()),
        shape_offsets=floats["shapedirs"],
        pose_offsets=floats["posedirs"],
        pose_components=floats["hands_components"],
        pose_mean=floats["hands_mean"],
    )


def _checked(path: Path | str, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.shape != shape:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise FileFormatError(path, f"holds {got}, want numbers of shape {shape}", f"array {name}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise FileFormatError(path, "holds values that are not finite", f"array {name}")
    return value
