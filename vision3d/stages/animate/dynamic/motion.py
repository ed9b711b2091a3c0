"""A mesh animated by its joints and the nodes of a deformation graph."""

from dataclasses import replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.scene import Mesh, SkinnedMesh
from vision3d.scene.clip import Channel, Clip, frame_rate
from vision3d.stages.animate.dynamic.config import AnimateConfig
from vision3d.stages.animate.dynamic.fields import DiscreteField, NodePoses, make_field, rigid_poses
from vision3d.stages.animate.dynamic.joints import JointField, JointTree


class Motion:
    """Vertices at any time: hybrid skinning by the node field's poses, then the joints' rotations.

    With joints, the nodes deform the rest mesh, like morph targets in glTF, and only once `uses_nodes` is set. At the reference
    time the mesh is exactly in its rest pose.

    Args:
        mesh: Rest pose.
        graph: Deformation graph of the mesh.
        config: Options of the field and of skinning.
        times: Times of the fitted frames [s], ascending.
        reference: Time of the rest pose [s].
        tree: Joints of the mesh; None for nodes only.
        is_borrowed: Whether the joints are only used to find the poses (`surface_rig`), after which the nodes take over
            (`hand_over`).
    """

    def __init__(
        self,
        mesh: Mesh,
        graph: DeformationGraph,
        config: AnimateConfig,
        times: Float64[Tensor, " t"],
        reference: float,
        tree: JointTree | None = None,
        *,
        is_borrowed: bool = False,
    ) -> None:
        self.is_borrowed = is_borrowed
        self.mesh, self.graph, self.config = mesh, graph, config
        self.radius = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()) / 2
        self.field = make_field(config.motion, graph.nodes, times, reference, self.radius).to(mesh.device)
        self.joints = None if tree is None else JointField(tree, times, reference, self.radius).to(mesh.device)
        self.uses_nodes = tree is None
        # Skinning reproduces the rest pose only up to rounding, which is subtracted.
        self.rounding = self._skinned(self.field.decode(self.field.zeros(1)))[0] - mesh.vertices
        self.joint_rounding = torch.zeros_like(mesh.vertices)
        if self.joints is not None:
            still = self.joints.split(torch.zeros_like(self.joints.values[:1]))
            self.joint_rounding = (self.joints.tree.pose(mesh.vertices, *still)[0] - mesh.vertices).detach()

    def vertices(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t v 3"]:
        """Vertices of the mesh at these times [m]."""
        return self.jointed(self.deformed(self.field(times)) if self.uses_nodes else None, times)

    def deformed(self, poses: NodePoses) -> Float[Tensor, "t v 3"]:
        """The rest mesh deformed by these poses of the nodes [m]."""
        return self._skinned(poses) - self.rounding

    def jointed(self, deformed: Float[Tensor, "t v 3"] | None, times: Float64[Tensor, " t"]) -> Float[Tensor, "t v 3"]:
        """The mesh deformed by the nodes, posed by the joints at these times [m]; None stands for the rest mesh."""
        if self.joints is None:
            assert deformed is not None
            return deformed
        vertices = self.mesh.vertices if deformed is None else deformed
        return self.joints.tree.pose(vertices, *self.joints(times)) - self.joint_rounding

    @torch.no_grad()
    def hand_over(self) -> None:
        """Set the nodes to the motion of the joints, and drop the joints; the field must be a `DiscreteField`."""
        assert isinstance(self.field, DiscreteField)
        vertices = all_vertices(self, self.field.get_buffer("keys"))
        self.field.values[..., :7] = rigid_poses(self.graph, self.mesh.vertices, vertices, self.radius)
        self.joints, self.uses_nodes = None, True

    def etas(self, times: Float64[Tensor, " t"]) -> Float[Tensor, "t v"] | None:
        """Blend factor of each vertex at these times: 1 linear, 0 dual quaternions; None unless the method is hybrid."""
        if self.config.method != "hybrid" or not self.uses_nodes:
            return None
        return (self.graph.weights * self.field(times).blends[:, self.graph.indices]).sum(-1)

    def _skinned(self, poses: NodePoses) -> Tensor:
        return self.graph.deform(self.mesh.vertices, *poses, method=self.config.method)


@torch.no_grad()
def moving_skin(motion: Motion, vertices: Float[Tensor, "t v 3"], times: Float64[Tensor, " t"]) -> SkinnedMesh:
    """The mesh with a clip of its joints' rotations and one morph target per frame for the deformation by the nodes.

    Without joints the morph targets are the frames; with joints only, it has no morph targets. Also stores the blend factors of
    hybrid skinning: their mean, and the offset of each target.
    """
    etas = motion.etas(times)
    if motion.joints is None:
        skin = SkinnedMesh.from_frames(motion.mesh, vertices, times)
    else:
        skin = motion.joints.tree.skin
        channels = motion.joints.tree.channels(times, *motion.joints(times))
        if motion.uses_nodes:
            targets = torch.cat([motion.deformed(motion.field(some)) for some in times.split(16)]) - motion.mesh.vertices
            skin = replace(skin, morphs=targets)
            channels.append(Channel("weights", -1, times - times[:1], torch.eye(len(times)).to(targets)))
        skin = replace(skin, clips=(Clip("frames", tuple(channels)),), fps=frame_rate(times))
    return skin if etas is None else replace(skin, etas=etas.mean(0), morph_etas=etas - etas.mean(0))


@torch.no_grad()
def all_vertices(motion: Motion, times: Float64[Tensor, " t"], block: int = 16) -> Float[Tensor, "t v 3"]:
    """Vertices at many times, computed in blocks."""
    return torch.cat([motion.vertices(some) for some in times.split(block)])
