"""Regularization terms of the motion."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vision3d.core.device import sent
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.geometry.mesh import face_adjacency, face_normals
from vision3d.geometry.quaternion import rotate
from vision3d.stages.animate.dynamic.fields import NodePoses


def edge_loss(graph: DeformationGraph, poses: NodePoses, radius: float) -> Float[Tensor, ""]:
    """Mean of |R_j (g_k - g_j) + g_j + T_j - (g_k + T_k)|^2 over neighboring nodes in both directions (Sumner et al. 2007,
    E_reg).

    Args:
        graph: Rest positions of the nodes and their neighbors.
        poses: Poses at some times.
        radius: Radius of the object, the unit of length [m].
    """
    if not len(graph.edges):
        return poses.translations.new_zeros(())
    j, k = torch.cat([graph.edges, graph.edges.flip(-1)]).T
    between = graph.nodes[k] - graph.nodes[j]
    predicted = rotate(poses.quats[:, j], between) - between
    gaps = predicted + poses.translations[:, j] - poses.translations[:, k]
    return (gaps / radius).square().sum(-1).mean()


def acceleration_loss(shifts: Float[Tensor, "t n 3"], times: Float64[Tensor, " t"], radius: float) -> Float[Tensor, ""]:
    """Mean squared second difference of the nodes' translations in time, in radii; uneven gaps are scaled to the mean gap."""
    if len(times) < 3:
        return shifts.new_zeros(())
    gaps = times.diff()
    mean = gaps.mean()
    middle = (gaps[1:] + gaps[:-1]) / 2
    gaps, middle, square = (sent(value.to(shifts.dtype), shifts.device) for value in (gaps, middle, mean.square()))
    slopes = shifts.diff(dim=0) / gaps[:, None, None]
    return (slopes.diff(dim=0) / middle[:, None, None] * square / radius).square().sum(-1).mean()


class NormalConsistency:
    """Mean squared change of the cosine between the normals of adjacent faces.

    DreamMesh4D uses 1 - cos, which flattens every edge of a coarse mesh; here the target is the rest pose.

    Args:
        vertices: Rest pose [m].
        faces: Faces of welded vertices.
    """

    def __init__(self, vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> None:
        self.faces, self.pairs = faces, face_adjacency(faces)[0]
        self.rest = self._cosines(vertices)

    def __call__(self, vertices: Float[Tensor, "t v 3"]) -> Float[Tensor, ""]:
        if not len(self.pairs):
            return vertices.new_zeros(())
        return torch.stack([(self._cosines(pose) - self.rest).square().mean() for pose in vertices]).mean()

    def _cosines(self, vertices: Tensor) -> Tensor:
        normals = face_normals(vertices, self.faces)
        return (normals[self.pairs[:, 0]] * normals[self.pairs[:, 1]]).sum(-1)


def blurred_loss(gaps: Float[Tensor, "i h w c"], levels: int = 5) -> Float[Tensor, ""]:
    """Mean squared difference of images, summed over the coarser levels of their pyramid (Burt and Adelson 1983).

    A thin limb that is far from its target has no overlapping edges; blurred images overlap and attract it.

    Args:
        gaps: Rendered minus target images.
        levels: Number of halvings after a tent filter; at most until one pixel remains.
    """
    maps, total = gaps.movedim(-1, 1), gaps.new_zeros(())
    for _ in range(levels):
        if max(maps.shape[2:]) == 1:
            break
        # Two box filters make a tent.
        maps = torch.nn.functional.avg_pool2d(maps, 2, 1, padding=1)
        maps = torch.nn.functional.avg_pool2d(maps, 2, 2, ceil_mode=True, count_include_pad=False)
        total = total + maps.square().mean()
    return total
