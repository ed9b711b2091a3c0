"""Losses of the network, in float32."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from vision3d.core.errors import InputError
from vision3d.geometry.cameras import project
from vision3d.geometry.mesh import unique_edges
from vision3d.geometry.vectors import unit
from vision3d.stages.hand.config import LossConfig
from vision3d.stages.hand.joints import BONES, ROOT, WRIST
from vision3d.stages.hand.network.hand_net import HandOutputs

_HEAT_SPREAD = 0.8  # deviation of the Gaussians [texels]
Batch = TypeVar("Batch", HandOutputs, "HandTargets")


@dataclass(frozen=True)
class HandTargets:
    """The truth of a batch of crops, in the axes of the crop's camera."""

    uv: Float[Tensor, "n 21 2"]
    """2D joints (across, down) in crop sides."""
    in_crop: Bool[Tensor, "n 21"]
    """Joints inside the crop; the others' `uv` does not count."""
    joints: Float[Tensor, "n 21 3"]
    """Joints relative to the root joint [m]."""
    vertices: Float[Tensor, "n v 3"]
    """Vertices relative to the root joint [m]."""
    is_right: Bool[Tensor, " n"] | None = None
    """Whether the hand as shown is a right one; None: all are."""
    is_hand: Bool[Tensor, " n"] | None = None
    """Whether the crop shows a hand; without one only `presence` counts. None: all do."""
    root: Float[Tensor, "n 3"] | None = None
    """Position of the root joint [m], for `reprojection`."""
    Ks: Float[Tensor, "n 3 3"] | None = None
    """Intrinsics of the crop, with the crop's side as unit, for `reprojection`."""

    def to(self, device: torch.device) -> "HandTargets":
        """The same on a device."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(self, **{name: value.to(device) for name, value in values.items()})


class HandLoss:
    """Weighted sum of the losses.

    L1 losses are sums over coordinates and means over points, then over the batch. The 3D losses of a crop with neither wrist
    nor root joint inside, and the 2D losses of joints outside, are zero and count in these means.

    Args:
        config: Weights.
        faces: Of the mesh, for `edge` and `normal`.
    """

    def __init__(self, config: LossConfig, faces: Int64[Tensor, "f 3"]) -> None:
        self.config, self.faces = config, faces
        self.edges = unique_edges(faces)[0]
        self.bones = torch.tensor(BONES, device=faces.device)

    def __call__(self, outputs: HandOutputs, targets: HandTargets) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss, and its parts without their weights and without gradient.

        Raises:
            InputError: A loss needs targets or outputs that are missing.
        """
        with torch.autocast(outputs.uv.device.type, enabled=False):
            parts = self.parts(_in_float32(outputs), _in_float32(targets))
        total = sum((getattr(self.config, name) * value for name, value in parts.items()), outputs.uv.new_zeros(()).float())
        return total, {name: value.detach() for name, value in parts.items()}

    def parts(self, outputs: HandOutputs, targets: HandTargets) -> dict[str, Tensor]:
        """Each loss with a weight that is not zero, by its name in `LossConfig`."""
        is_hand = torch.ones_like(targets.in_crop[:, 0]) if targets.is_hand is None else targets.is_hand
        in_crop = targets.in_crop & is_hand[:, None]
        has_3d = in_crop[:, WRIST] | in_crop[:, ROOT]
        # Where nothing counts the truth may be NaN, which would reach the gradient through its zero.
        targets = dataclasses.replace(
            targets,
            uv=torch.where(in_crop[..., None], targets.uv, 0),
            joints=torch.where(has_3d[:, None, None], targets.joints, 0),
            vertices=torch.where(has_3d[:, None, None], targets.vertices, 0),
            root=None if targets.root is None else torch.where(has_3d[:, None], targets.root, 1),
        )
        losses: dict[str, Callable[[], Tensor]] = {
            "uv": lambda: _l1(outputs.uv, targets.uv, in_crop),
            "heat": lambda: _heat(outputs, targets, in_crop),
            "joints": lambda: _l1(outputs.joints, targets.joints, has_3d[:, None]),
            "vertices": lambda: _l1(outputs.vertices, targets.vertices, has_3d[:, None]),
            "edge": lambda: _lengths(outputs.vertices, targets.vertices, self.edges, has_3d),
            "bone": lambda: _lengths(outputs.joints, targets.joints, self.bones, has_3d),
            "normal": lambda: _masked(self._normal(outputs.vertices, targets.vertices), has_3d[:, None]),
            "reprojection": lambda: _reprojection(outputs.joints, targets, in_crop & has_3d[:, None]),
            "confidence": lambda: self._confidence(outputs, targets, in_crop),
            "side": lambda: _side(outputs, targets, is_hand),
            "presence": lambda: _cross_entropy(_logits(outputs.presence, "presence"), is_hand.float()).mean(),
        }
        return {name: loss() for name, loss in losses.items() if getattr(self.config, name)}

    def _normal(self, vertices: Tensor, wanted: Tensor) -> Float[Tensor, "n corners"]:
        corners = wanted[:, self.faces]
        normals = unit(torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]))
        corners = vertices[:, self.faces]
        edges = unit(corners.roll(-1, 2) - corners)
        return (edges * normals[:, :, None]).sum(-1).abs().flatten(1)

    def _confidence(self, outputs: HandOutputs, targets: HandTargets, in_crop: Tensor) -> Tensor:
        errors = torch.linalg.vector_norm(outputs.uv.detach() - targets.uv, dim=-1)
        wanted = torch.where(in_crop, (-errors / self.config.confidence_scale).exp(), 0)
        return _cross_entropy(_logits(outputs.confidence, "confidence"), wanted).mean()


def _heat(outputs: HandOutputs, targets: HandTargets, counts: Tensor) -> Tensor:
    logits = _logits(outputs.heat, "heat")
    rows, columns = logits.shape[2:]
    y, x = torch.arange(rows).to(logits) + 0.5, torch.arange(columns).to(logits) + 0.5
    u, v = (targets.uv[..., axis, None, None] * size for axis, size in ((0, columns), (1, rows)))
    wanted = functional.softmax((-((y[:, None] - v) ** 2 + (x - u) ** 2) / (2 * _HEAT_SPREAD**2)).flatten(2), -1)
    return _masked(-(wanted * functional.log_softmax(logits.flatten(2), -1)).sum(-1), counts)


def _side(outputs: HandOutputs, targets: HandTargets, is_hand: Tensor) -> Tensor:
    wanted = torch.ones_like(is_hand) if targets.is_right is None else targets.is_right
    return _masked(_cross_entropy(_logits(outputs.side, "side"), wanted.float()), is_hand)


def _reprojection(joints: Tensor, targets: HandTargets, counts: Tensor) -> Tensor:
    if targets.root is None or targets.Ks is None:
        raise InputError("reprojection: got targets without root or Ks, want both, or the weight 0")
    return _l1(project(joints + targets.root[:, None], targets.Ks), targets.uv, counts)


def _l1(values: Tensor, wanted: Tensor, counts: Tensor) -> Tensor:
    return _masked((values - wanted).abs().sum(-1), counts)


def _lengths(points: Tensor, wanted: Tensor, pairs: Tensor, counts: Tensor) -> Tensor:
    def lengths(ends: Tensor) -> Tensor:
        return torch.linalg.vector_norm(ends[:, pairs[:, 0]] - ends[:, pairs[:, 1]], dim=-1)

    return _masked((lengths(points) - lengths(wanted)).abs(), counts[:, None])


def _masked(values: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts, values, 0).mean()


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _logits(values: Tensor | None, name: str) -> Tensor:
    if values is None:
        raise InputError(f"{name}: the network has no such output; want a network that has it, in training, or the weight 0")
    return values


def _in_float32(values: Batch) -> Batch:
    floats = {name: v.float() for name, v in vars(values).items() if v is not None and v.is_floating_point()}
    return dataclasses.replace(values, **floats)
