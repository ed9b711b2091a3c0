"""Motion of nodes that follow given vertices, such as those of a simulation or a rig."""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.geometry.deformation_graph import DeformationGraph
from vision3d.scene import Mesh
from vision3d.scene.checks import check_shape
from vision3d.stages.animate.dynamic.config import AnimateConfig
from vision3d.stages.animate.dynamic.fields import DiscreteField, rigid_poses
from vision3d.stages.animate.dynamic.motion import Motion

_FINAL_LR = 0.01  # factor on the learning rate at the end
_FRAMES = 16  # per step


def fit_vertices(
    config: AnimateConfig,
    mesh: Mesh,
    vertices: Float[Tensor, "t v 3"],
    times: Float64[Tensor, " t"],
    *,
    graph: DeformationGraph | None = None,
    progress: ProgressCallback | None = None,
) -> Motion:
    """The motion of a deformation graph that is closest to given vertices (least squares).

    Each frame is initialized with the rigid motions of the nodes' regions (Kabsch 1976) and refined with Adam.

    Args:
        config: `nodes`, `neighbors`, `method`, `motion` (of kind discrete), `steps` and `seed` are used.
        mesh: Rest pose.
        vertices: Vertices of the mesh in each frame [m].
        times: Times of the frames [s], ascending.
        graph: Deformation graph of the mesh; made when None.
        progress: Progress callback.

    Raises:
        InputError: The kind of the field is not discrete.
        ShapeError: The vertices do not match the mesh or the times.
    """
    if config.motion.kind != "discrete":
        raise InputError(f"motion.kind: got {config.motion.kind}, want discrete")
    check_shape("vertices", vertices, (len(times), mesh.num_vertices, 3))
    vertices = vertices.detach()  # constants, even if they come from another motion
    if graph is None:
        graph = DeformationGraph.of(mesh.vertices, mesh.faces, config.nodes, config.neighbors)
    # No frame is the reference: the rest mesh need not be one of them.
    motion = Motion(mesh, graph, config, times, float(times[0]) - 1.0)
    assert isinstance(motion.field, DiscreteField)
    with torch.no_grad():  # the first key is the reference
        motion.field.values[1:, :, :7] = rigid_poses(graph, mesh.vertices, vertices, motion.radius)
    optimizer = torch.optim.Adam(motion.field.groups(config.motion), betas=(0.9, 0.99), eps=1e-15)
    random = torch.Generator().manual_seed(config.seed)
    steps = config.total_steps(len(times))
    with Progress(steps, "track", progress) as bar:
        for step in range(steps):
            share = _FINAL_LR + (1 - _FINAL_LR) * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = config.motion.discrete_rate * share
            chosen = torch.randperm(len(times), generator=random)[:_FRAMES].sort().values
            gaps = motion.vertices(times[chosen]) - vertices[chosen]
            loss = (gaps / motion.radius).square().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update(step + 1, loss=loss.detach())
    return motion
