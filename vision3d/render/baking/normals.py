"""Normals of every vertex of a mesh."""

import torch
from torch import Tensor

from vision3d.geometry import mesh as geometry
from vision3d.geometry.vectors import unit
from vision3d.scene import Mesh


def normals_of(mesh: Mesh) -> Tensor:
    """Unit normals of the vertices; at degenerate faces, those of their other vertices."""
    normals = geometry.vertex_normals(mesh.vertices.double(), mesh.faces)
    around = torch.zeros_like(normals)
    around.index_add_(0, mesh.faces.flatten(), normals[mesh.faces].sum(1).repeat_interleave(3, 0))
    is_known = normals.any(1, keepdim=True)
    return unit(torch.where(is_known, normals, around), normals.new_tensor([0.0, 0.0, 1.0])).float()
