"""The elephant of libigl: a mesh, 24 bones with dense weights, 457 frames."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vision3d.scene import Mesh


def read_dmat(path: Path) -> np.ndarray:
    """Reads a matrix of libigl: text or doubles, column by column."""
    data = path.read_bytes()
    head, _, rest = data.partition(b"\n")
    columns, rows = map(int, head.split())
    if (columns, rows) == (0, 0):
        size, _, rest = rest.partition(b"\n")
        columns, rows = map(int, size.split())
        return np.frombuffer(rest, "<f8", columns * rows).reshape(columns, rows).T.copy()
    return np.array(rest.split(), np.float64).reshape(columns, rows).T


def read_elephant(folder: Path) -> tuple[Mesh, Tensor, Tensor]:
    """Reads the rest mesh, weights (V, 24) and matrices (457, 24, 3, 4), float64, from a folder `skinning`."""
    weights, frames = read_dmat(folder / "elephant-weights.dmat"), read_dmat(folder / "elephant-anim.dmat")
    matrices = frames.T.reshape(-1, 3, 24, 4).transpose(0, 2, 1, 3)  # 3 columns of 96 numbers, 4 per bone
    return Mesh.load(folder / "elephant.obj"), torch.from_numpy(weights), torch.from_numpy(matrices.copy())
