"""The network: a crop of a right hand to 2D joints, vertices and 3D joints."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vision3d.core.errors import ConfigError, ShapeError
from vision3d.geometry.heads import RotationHead
from vision3d.geometry.reference.rotation import gram_schmidt
from vision3d.stages.hand.config import OWN_BACKBONE, STRIDE, NetworkConfig
from vision3d.stages.hand.joints import NAMES, ROOT
from vision3d.stages.hand.network.backbone import make_backbone
from vision3d.stages.hand.network.expansion import Expansion, SampledExpansion
from vision3d.stages.hand.network.heads import HeatmapUv, LinearUv, small_linear
from vision3d.stages.hand.network.interaction import (
    BoneTokens,
    NodeUpsampling,
    ReleasedBlock,
    SelfBlock,
    SkeletonBlock,
    upsampling_matrices,
)
from vision3d.stages.hand.network.mobilenet import fold_norms
from vision3d.stages.hand.network.pyramid import Pyramid


@dataclass(frozen=True)
class HandOutputs:
    """Predictions of a batch of crops; 3D in the axes of the crop's camera (x right, y down, z forward)."""

    uv: Float[Tensor, "n 21 2"]
    """2D joints (across, down) in crop sides; [0, 1] is the crop."""
    vertices: Float[Tensor, "n v 3"]
    """Vertices relative to the root joint [m]."""
    joints: Float[Tensor, "n 21 3"]
    """Joints [m]: the joint matrix times the vertices."""
    confidence: Float[Tensor, "n 21"] | None = None
    """Logit that a joint is in the crop and its `uv` is right; None without `logits`."""
    side: Float[Tensor, " n"] | None = None
    """Logit of a right hand; None without `logits`."""
    presence: Float[Tensor, " n"] | None = None
    """Logit that the crop shows a hand; None without `logits`."""
    heat: Float[Tensor, "n 21 u v"] | None = None
    """Logits of the heat maps of the 2D joints, in training only."""

    def rooted(self) -> Self:
        """The same with the root joint exactly at zero: the network only learns to put it there."""
        root = self.joints[:, ROOT, None]
        return replace(self, vertices=self.vertices - root, joints=self.joints - root)


POOLED = ("logits", "log_scale", "rotation", "uv_head.shift", "uv_head.linear", "pyramid.shift")
"""Linear layers on pooled features, which are all positive: at the common rate a step moves their outputs by a crop side."""


class HandNet(nn.Module):
    """ReJSHand (arXiv 2503.05995): features, 2D joints, tokens at these, three stages of interaction with more tokens each.

    `interaction="released"` is the network of the published code; `skeleton` and coordinate attention follow the paper's text.

    Args:
        config: The network.
        joint_matrix: Joints from vertices.
        template_vertices: Rest pose of the mesh [m], in the axes of `canonical6d`.
        upsampling: First weights of the three layers that make more tokens; by default as `config.upsampling` has it.
        backbone: Another backbone than that of the configuration (`vision3d.stages.hand.network.backbone.Backbone`).

    Raises:
        ShapeError: Matrix and template do not match.
        ConfigError: The backbone is unknown.
        MissingDependencyError: It needs timm.
    """

    mean: Tensor
    std: Tensor
    joint_matrix: Tensor
    template: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        joint_matrix: Float[Tensor, "21 v"],
        template_vertices: Float[Tensor, "v 3"],
        *,
        upsampling: Sequence[Float[Tensor, "outputs inputs"]] | None = None,
        backbone: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if template_vertices.ndim != 2 or template_vertices.shape[1] != 3:
            raise ShapeError("template_vertices", template_vertices.shape, "(V, 3)")
        if tuple(joint_matrix.shape) != (len(NAMES), len(template_vertices)):
            raise ShapeError("joint_matrix", joint_matrix.shape, f"({len(NAMES)}, {len(template_vertices)}), as the template")
        self.config = config
        joint_matrix, template = joint_matrix.float(), template_vertices.float()
        joints = joint_matrix @ template
        # Of the template, not of the training: they are not in files of weights.
        self.register_buffer("joint_matrix", joint_matrix, persistent=False)
        self.register_buffer("template", template - joints[ROOT], persistent=False)
        self.backbone: Any = make_backbone(config.backbone, levels=bool(config.pyramid)) if backbone is None else backbone
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(self.backbone.std).view(3, 1, 1))

        inputs, first, last = self.backbone.channels, config.dims[0], config.dims[-1]
        inner = [(first, first), *itertools.pairwise(config.dims)]  # features of a token before and after each projection
        self.pyramid: Pyramid | None = None
        self.uv_head: LinearUv | HeatmapUv | None = None
        self.expansion: Expansion | SampledExpansion | None = None
        if config.pyramid:
            if not hasattr(self.backbone, "levels"):
                raise ConfigError(
                    "pyramid", f"{config.backbone} gives features of one stride; want the backbone {OWN_BACKBONE}"
                )
            self.pyramid = Pyramid(self.backbone.level_channels, config.pyramid, len(NAMES), first)
        else:
            self.uv_head = (LinearUv if config.uv_head == "linear" else HeatmapUv)(inputs, len(NAMES))
            self.expansion = Expansion(inputs, first, config.reduce, config.coordinate_attention)
        self.positions = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(count, before)) for count, (before, _) in zip(config.tokens, inner)
        )
        self.projections = nn.ModuleList(nn.Linear(before, after) for before, after in inner)
        self.blocks = nn.ModuleList(_block(config, stage) for stage in range(3))
        if upsampling is None and config.upsampling == "template":
            upsampling = upsampling_matrices(template, joints, config.tokens[1:])
        matrices = [None] * 3 if upsampling is None else upsampling
        counts = itertools.pairwise((*config.tokens, len(template)))
        self.upsampling = nn.ModuleList(NodeUpsampling(*count, matrix) for count, matrix in zip(counts, matrices, strict=True))
        self.bones = BoneTokens(first, config.bone_samples) if config.interaction == "skeleton" else None
        self.rotation: RotationHead | None = None
        if config.head == "canonical6d":
            self.vertex_head, self.rotation = small_linear(last, 3), RotationHead("6d", in_features=inputs)
            self.log_scale = small_linear(inputs, 1)
        else:
            self.vertex_head = nn.Linear(last, 3)
        self.logits = nn.Linear(inputs, len(NAMES) + 2) if config.logits else None
        # As the image is: faster on a CPU.
        self.backbone.to(memory_format=torch.channels_last)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> HandOutputs:
        """The predictions for crops.

        Args:
            images: Red, green and blue in [0, 1]; sides are multiples of 32 pixels, of any size.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < STRIDE:
            raise ShapeError("images", images.shape, f"(N, 3, H, W), sides of at least {STRIDE}")
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        pyramid, expansion, uv_head = self.pyramid, self.expansion, self.uv_head
        if pyramid is not None:
            levels = self.backbone.levels(images)
            pooled, image = levels[-1].mean((2, 3)), pyramid(levels)
            uv, heat = pyramid.uv(image, pooled)
            return self._decoded(uv, heat, pooled, lambda points: pyramid.tokens(image, points))
        assert uv_head is not None and expansion is not None
        features = self.backbone(images)
        pooled = features.mean((2, 3))
        uv, heat = uv_head(features, pooled)
        return self._decoded(uv, heat, pooled, lambda points: expansion.tokens(features, points))

    def _decoded(self, uv: Tensor, heat: Tensor | None, pooled: Tensor, sampled: Callable[[Tensor], Tensor]) -> HandOutputs:
        """The predictions from 2D joints, pooled features and tokens at points."""
        heat = heat if self.training else None
        points = uv if self.bones is None else torch.cat([uv, self.bones.points(uv)], 1)
        tokens = sampled(points)
        x = tokens[:, : uv.shape[1]]
        bones = None if self.bones is None else self.bones(tokens[:, uv.shape[1] :], uv)
        for position, projection, block, upsampling in zip(self.positions, self.projections, self.blocks, self.upsampling):
            x = projection(x + position)
            x = block(x, bones) if isinstance(block, SkeletonBlock) else block(x)
            x = upsampling(x)
        vertices = self._vertices(x, pooled)
        joints = self.joint_matrix @ vertices
        if self.logits is None:
            return HandOutputs(uv, vertices, joints, heat=heat)
        logits = self.logits(pooled)
        return HandOutputs(uv, vertices, joints, logits[:, :-2], logits[:, -2], logits[:, -1], heat)

    def for_inference(self) -> Self:
        """A copy for inference: norms are parts of the convolutions, and the feature map is computed only where it is used.

        The results are the same up to rounding. The copy is in evaluation mode; its parameters have other names.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        if getattr(network.backbone, "foldable", True):
            fold_norms(network.backbone)
        if network.pyramid is not None:
            fold_norms(network.pyramid)
        for layers in (module for module in network.modules() if isinstance(module, nn.Sequential)):
            for index, (layer, norm) in enumerate(itertools.pairwise(list(layers))):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    layers[index], layers[index + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
        if isinstance(network.expansion, Expansion) and network.expansion.attention is None:
            network.expansion = SampledExpansion(network.expansion)
        return network

    def _vertices(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        # Coordinates in half precision are rounded to up to 1 mm.
        with torch.autocast(tokens.device.type, enabled=False):
            vertices = self.vertex_head(tokens.float())
            if self.rotation is None:
                return vertices
            pooled = pooled.float()
            scale = self.log_scale(pooled).exp()[..., None]
            return scale * (vertices + self.template) @ self._rotmats(pooled).mT

    def _rotmats(self, pooled: Tensor) -> Tensor:
        head = self.rotation
        assert head is not None and head.linear is not None
        if self.training and not torch.compiler.is_compiling():
            return head(pooled)
        # Without the native operation: an exported graph has none, and its first call takes seconds.
        return gram_schmidt(head.linear(pooled))


def _block(config: NetworkConfig, stage: int) -> nn.Module:
    dim, heads = config.dims[stage], config.heads
    if config.interaction == "released":
        return ReleasedBlock(dim, heads)
    if stage == 0:
        return SkeletonBlock(dim, heads, config.mlp_ratio)
    return SelfBlock(dim, heads, config.mlp_ratio)
