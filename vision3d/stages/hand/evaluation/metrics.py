"""Metrics of hands by the protocol of FreiHAND (Zimmermann et al. 2019): errors after alignment, F-scores, area under PCK.

Points in meters, results in millimeters where they are lengths. Everything is batched and in float64.
"""

from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.geometry.procrustes import orthogonal
from vision3d.geometry.registration import umeyama
from vision3d.stages.hand.joints import ROOT

Alignment = Literal["proper", "official"]
Points = Float[Tensor, "n p 3"]
PerHand = Float[Tensor, " n"]

MM = 1000.0
F_DISTANCES_MM = (5.0, 15.0)
PCK_LIMIT_MM, PCK_STEPS = 50.0, 100
_BLOCK = 1 << 20  # distances at a time


@dataclass(frozen=True)
class HandErrors:
    """Metrics of each hand."""

    pa_mpjpe: PerHand
    """Mean distance of joints after similarity alignment of the joints [mm]."""
    pa_mpvpe: PerHand
    """Mean distance of vertices after similarity alignment of the vertices [mm]."""
    f5: PerHand
    """F-score of the aligned vertices at 5 mm, in [0, 1]."""
    f15: PerHand
    """F-score of the aligned vertices at 15 mm, in [0, 1]."""
    mpjpe: PerHand
    """Mean distance of joints, both relative to their root joint, without alignment [mm]."""
    scale: PerHand
    """Error of the size: that of the predicted joints as aligned relative to the true size, minus 1."""
    joint_auc: float
    """Area under PCK of the aligned joints, 0 to 50 mm, relative to the largest possible."""
    vertex_auc: float
    """The same of the aligned vertices."""

    def summary(self) -> dict[str, float]:
        """The means over hands; of `scale`, the mean of the absolute error."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["scale"] = self.scale.abs()
        return {name: value if isinstance(value, float) else float(value.mean()) for name, value in values.items()}


def hand_errors(
    joints: Points,
    true_joints: Points,
    vertices: Points,
    true_vertices: Points,
    alignment: Alignment = "proper",
) -> HandErrors:
    """All metrics of predicted hands.

    Args:
        joints: Predicted joints [m].
        true_joints: True joints [m].
        vertices: Predicted vertices [m].
        true_vertices: True vertices [m].
        alignment: As for `aligned`.
    """
    joints, true_joints, vertices, true_vertices = (
        points.double() for points in (joints, true_joints, vertices, true_vertices)
    )
    joints_pa, vertices_pa = aligned(joints, true_joints, alignment), aligned(vertices, true_vertices, alignment)
    joint_distances, vertex_distances = _distances(joints_pa, true_joints), _distances(vertices_pa, true_vertices)
    f5, f15 = f_scores(vertices_pa, true_vertices, F_DISTANCES_MM)
    return HandErrors(
        pa_mpjpe=joint_distances.mean(1),
        pa_mpvpe=vertex_distances.mean(1),
        f5=f5,
        f15=f15,
        mpjpe=mpjpe(joints, true_joints),
        scale=scale_error(joints, true_joints),
        joint_auc=pck_auc(joint_distances),
        vertex_auc=pck_auc(vertex_distances),
    )


def aligned(points: Points, targets: Points, alignment: Alignment = "proper") -> Points:
    """Points after the similarity with the smallest squared distance to the targets.

    Args:
        points: Predictions.
        targets: Truth.
        alignment: `proper`: a rotation. `official`: as the published evaluator, which takes any orthogonal matrix, so that a
            mirrored hand fits.

    Raises:
        ShapeError: The shapes differ.
        ConfigError: The alignment is unknown.
    """
    if points.shape != targets.shape or points.ndim != 3 or points.shape[2] != 3:
        raise ShapeError("points", points.shape, f"that of the targets, (N, P, 3), here {tuple(targets.shape)}")
    points, targets = points.double(), targets.double()
    if alignment == "proper":
        scales, matrices, translations = umeyama(points, targets)
        return scales[:, None, None] * points @ matrices.mT + translations[:, None]
    if alignment != "official":
        raise ConfigError("alignment", f"got {alignment!r}, want proper or official")
    middle, target_middle = points.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    inner, outer = points - middle, targets - target_middle
    moments = outer.mT @ inner
    matrices = orthogonal(moments)
    spread = inner.square().sum((1, 2))
    scales = (matrices * moments).sum((1, 2)) / torch.where(spread == 0, 1, spread)
    return scales[:, None, None] * inner @ matrices.mT + target_middle


def pa_error(points: Points, targets: Points, alignment: Alignment = "proper") -> PerHand:
    """Mean distance after alignment [mm]: PA-MPJPE of joints, PA-MPVPE of vertices."""
    return _distances(aligned(points, targets, alignment), targets.double()).mean(1)


def mpjpe(joints: Points, targets: Points, root: int = ROOT) -> PerHand:
    """Mean distance of joints relative to their root joint [mm]."""
    joints, targets = joints.double(), targets.double()
    return _distances(joints - joints[:, root, None], targets - targets[:, root, None]).mean(1)


def scale_error(points: Points, targets: Points) -> PerHand:
    """Relative error of the size: 0.1 if the points are 10 % too large."""
    return 1 / umeyama(points.double(), targets.double())[0] - 1


def f_scores(points: Points, targets: Float[Tensor, "n q 3"], distances_mm: tuple[float, ...]) -> list[PerHand]:
    """F-scores 2 P R / (P + R): P the share of points nearer than a distance to a target, R that of targets to a point.

    Args:
        points: Aligned predictions [m].
        targets: Truth [m]; any number of points.
        distances_mm: Distances [mm].
    """
    points, targets = points.double(), targets.double()
    rows = max(1, _BLOCK // max(1, points.shape[1] * targets.shape[1]))
    to_target, to_point = [], []
    for some, others in zip(points.split(rows), targets.split(rows)):
        distances = torch.cdist(some, others, compute_mode="donot_use_mm_for_euclid_dist")
        to_target.append(distances.amin(2))
        to_point.append(distances.amin(1))
    found = []
    for distance in distances_mm:
        precision = (torch.cat(to_target) < distance / MM).double().mean(1)
        recall = (torch.cat(to_point) < distance / MM).double().mean(1)
        total = precision + recall
        found.append(torch.where(total > 0, 2 * precision * recall / torch.where(total > 0, total, 1), 0))
    return found


def pck_auc(distances_mm: Float[Tensor, "*batch"], limit_mm: float = PCK_LIMIT_MM, steps: int = PCK_STEPS) -> float:
    """Area under the share of distances of at most x, for `steps` values of x from 0 to the limit, divided by the limit.

    Args:
        distances_mm: Distances of all points of all hands [mm]; NaN counts as far.
        limit_mm: Largest distance [mm].
        steps: Values, with both ends; trapezoids between them.
    """
    limits = torch.linspace(0, limit_mm, steps, dtype=torch.float64, device=distances_mm.device)
    values = distances_mm.double().flatten().nan_to_num(nan=torch.inf).sort().values
    counts = torch.searchsorted(values, limits, right=True).double()
    return float(torch.trapezoid(counts / max(1, len(values)), limits) / limit_mm)


def _distances(points: Points, targets: Points) -> Float[Tensor, "n p"]:
    return MM * torch.linalg.vector_norm(points - targets, dim=-1)
