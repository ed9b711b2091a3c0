"""What the outputs of the network mean in the image: pixels, axes of its camera, probabilities, position."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vision3d.stages.hand.crop import apply_homography
from vision3d.stages.hand.joints import ROOT
from vision3d.stages.hand.network.hand_net import HandNet
from vision3d.stages.hand.translation import translation


class Outputs(nn.Module):
    """A network whose outputs are plain tensors: uv, vertices, joints, and logits of confidence, side and presence.

    The logits of a network without any are so large that everything is certain, and right.

    Args:
        network: The network.
    """

    _CERTAIN = 30.0

    def __init__(self, network: HandNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> tuple[Tensor, ...]:
        """The outputs for crops."""
        found = self.network(images)
        if found.confidence is None or found.side is None or found.presence is None:
            certain = torch.full_like(found.uv[..., 0], self._CERTAIN)
            return found.uv, found.vertices, found.joints, certain, torch.zeros_like(certain[:, 0]), certain[:, 0]
        return found.uv, found.vertices, found.joints, found.confidence, found.side, found.presence


def locate(size: int) -> Callable[..., tuple[Tensor, ...]]:
    """The function from outputs to hands, for crops of a size [px].

    It takes uv, vertices, joints, confidence and presence of a network, H and G of crops, and the image's intrinsics (n, 3, 3).
    It returns 2D joints [px], joints and vertices relative to the root in the camera's axes [m], confidence, scores, and the
    root's position [m].
    """

    def located(
        uv: Tensor, vertices: Tensor, joints: Tensor, confidence: Tensor, presence: Tensor, H: Tensor, G: Tensor, Ks: Tensor
    ) -> tuple[Tensor, ...]:
        pixels = apply_homography(torch.linalg.inv(H), uv * size)
        root = joints[:, ROOT : ROOT + 1]
        joints, vertices = (joints - root) @ G, (vertices - root) @ G  # G is orthogonal
        confidence = confidence.sigmoid()
        scores = (presence.sigmoid() * confidence.mean(1)).sqrt()  # in photographs the confidence of hands is about 0.2
        return pixels, joints, vertices, confidence, scores, translation(joints, pixels, Ks, confidence)

    return located
