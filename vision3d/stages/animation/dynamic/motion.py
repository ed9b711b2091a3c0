"""A mesh that the nodes of a deformation graph move in time."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.scene import Mesh
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

    def _skinned(self, poses: NodePoses) -> Tensor:
        return self.graph.deform(self.mesh.vertices, *poses, method=self.config.method)


@torch.no_grad()
def all_vertices(motion: Motion, times: Float64[Tensor, " t"], block: int = 16) -> Float[Tensor, "t v 3"]:
    """Vertices at many times, a few at once."""
    return torch.cat([motion.vertices(some) for some in times.split(block)])
