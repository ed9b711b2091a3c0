"""A mesh that the nodes of a deformation graph move in time."""

from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.scene import Mesh, Skin
from vision3d.stages.animation.dynamic.config import AnimateConfig
from vision3d.stages.animation.dynamic.fields import NodePoses, make_field


class Motion:
    """Vertices at any time: the node field's poses, through hybrid skinning about the nodes.

    At the reference time the mesh is as at rest, to the last bit.

    Args:
        mesh: At rest.
        graph: On it.
        config: Options of the field and of skinning.
        times: Of the frames that are fitted [s], ascending.
        reference: When the mesh is at rest [s].
    """

    def __init__(
        self, mesh: Mesh, graph: DeformationGraph, config: AnimateConfig, times: Float64[Tensor, " t"], reference: float
    ) -> None:
        self.mesh, self.graph, self.config = mesh, graph, config
        self.radius = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()) / 2
        self.field = make_field(config.motion, graph.nodes, times, reference, self.radius).to(mesh.device)
        # What skinning makes of the rest pose differs from it by rounding, which is taken off.
        self.rounding = self._skinned(self.field.decode(self.field.zeros(1)))[0] - mesh.vertices

    def vertices(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t v 3"]:
        """Of the mesh at these times [m]."""
        return self.posed(self.field(times))

    def posed(self, poses: NodePoses) -> Float[Tensor, "t v 3"]:
        """Of the mesh in these poses [m]."""
        return self._skinned(poses) - self.rounding

    def etas(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t v"] | None:
        """How each vertex is skinned at these times: 1 linear, 0 dual quaternions; None unless by the method hybrid."""
        if self.config.method != "hybrid":
            return None
        return (self.graph.weights * self.field(times).blends[:, self.graph.indices]).sum(-1)

    def _skinned(self, poses: NodePoses) -> Tensor:
        return self.graph.deform(self.mesh.vertices, *poses, method=self.config.method)


@torch.no_grad()
def moving_skin(motion: Motion, vertices: Float[Tensor, "t v 3"], times: Float64[Tensor, " t"]) -> Skin:
    """The mesh with a morph target a frame, and how hybrid skinning made each: its mean, and what the frames add to that."""
    skin, etas = Skin.from_frames(motion.mesh, vertices, times), motion.etas(times)
    return skin if etas is None else replace(skin, etas=etas.mean(0), morph_etas=etas - etas.mean(0))


@torch.no_grad()
def all_vertices(motion: Motion, times: Float64[Tensor, " t"], block: int = 16) -> Float[Tensor, "t v 3"]:
    """Vertices at many times, a few at once."""
    return torch.cat([motion.vertices(some) for some in times.split(block)])
