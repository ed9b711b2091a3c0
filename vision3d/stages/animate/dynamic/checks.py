"""Warnings about a fitted motion, from the motion and the images that it was fitted to."""

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.mesh import unique_edges, weld_vertices
from vision3d.render.meshes.shading import first_of_each
from vision3d.scene import Mesh
from vision3d.stages.animate.dynamic.evaluation import MotionEvaluation

STRETCH = 2.0
"""Ratio of an edge's length to its rest length above which it counts as stretched."""
_MAX_STRETCHED = 0.005  # fraction of the edges of a frame; joints of good rigs stretch a few
_FALL = 0.05  # decrease of the IoU from the first third of the frames to the last


@torch.no_grad()
def stretched_edges(mesh: Mesh, vertices: Float[Tensor, "t v 3"]) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Fraction of edges longer than `STRETCH` times their rest length, and the largest such ratio, for each frame.

    Edges of zero rest length are ignored.
    """
    places, faces, place = weld_vertices(mesh.vertices, mesh.faces)
    (a, b), first = unique_edges(faces)[0].T, first_of_each(place)
    lengths = torch.linalg.vector_norm(places[a] - places[b], dim=-1)
    is_long = lengths > 1e-6 * lengths.max()
    ratios = torch.stack([torch.linalg.vector_norm(v[first][a] - v[first][b], dim=-1) / lengths for v in vertices])
    ratios = ratios[:, is_long]
    return (ratios > STRETCH).float().mean(1), ratios.amax(1)


def frame_ious(evaluation: MotionEvaluation) -> dict[int, float]:
    """Mean mask IoU over the fitted images of each frame."""
    found: dict[int, list[float]] = {}
    for row in evaluation.views:
        if row.split == "fitted":
            found.setdefault(row.frame, []).append(row.iou)
    return {frame: sum(values) / len(values) for frame, values in sorted(found.items())}


def motion_warnings(evaluation: MotionEvaluation, mesh: Mesh, vertices: Float[Tensor, "t v 3"]) -> list[str]:
    """Warnings, one line each."""
    found = []
    shares, factors = stretched_edges(mesh, vertices)
    worst = int(shares.argmax())
    if float(shares[worst]) > _MAX_STRETCHED:
        found.append(
            f"{100 * float(shares[worst]):.1f} % of the edges are stretched beyond {STRETCH:g}x in frame {worst}"
            f" (up to {float(factors[worst]):.1f}x): parts of the mesh may be misplaced"
        )
    ious = list(frame_ious(evaluation).items())
    third = len(ious) // 3
    if third:
        first, last = (sum(iou for _, iou in some) / third for some in (ious[:third], ious[-third:]))
        if last < first - _FALL:
            found.append(f"the mask IoU of the fitted images decreases along the clip, from {first:.3f} to {last:.3f}")
    return found
