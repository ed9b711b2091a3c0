"""Equivariant networks: convolutions on groups of affine maps, and the affNIST experiment.

Papers: Mironenco & Forre 2024 (arXiv 2310.11366), Lie group decompositions for equivariant networks, whose layers are
implemented here as published and, faster, with separable kernels; MacDonald et al. 2022 (arXiv 2111.08251) for homNIST.

Differences from the first: the division by det g uses the input's sample; the chart of rotations is smooth at the identity
(cos and sin); rotations are evenly spaced without duplicates; samples are weighted by the invariant measure; the same norm
masks kernels of all groups. In addition there is a network that normalizes images to a canonical position by their moments, so
that an affine warp leaves only a rotation, and convolves on SO(2)."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "AffnistConfig": "vision3d.stages.equivariant.config",
    "ModelConfig": "vision3d.stages.equivariant.config",
    "Classifier": "vision3d.stages.equivariant.classifier",
    "load_classifier": "vision3d.stages.equivariant.classifier",
    "save_classifier": "vision3d.stages.equivariant.classifier",
    "AffnistResult": "vision3d.stages.equivariant.run",
    "reproduce_affnist": "vision3d.stages.equivariant.run",
    "LiftConv": "vision3d.stages.equivariant.layers",
    "GroupConv": "vision3d.stages.equivariant.layers",
    "ProjectConv": "vision3d.stages.equivariant.layers",
    "SeparableGroupConv": "vision3d.stages.equivariant.layers",
    "make_network": "vision3d.stages.equivariant.networks",
}

__all__ = [
    "AffnistConfig",
    "AffnistResult",
    "Classifier",
    "GroupConv",
    "LiftConv",
    "ModelConfig",
    "ProjectConv",
    "SeparableGroupConv",
    "load_classifier",
    "make_network",
    "reproduce_affnist",
    "save_classifier",
]

if TYPE_CHECKING:
    from vision3d.stages.equivariant.classifier import Classifier, load_classifier, save_classifier
    from vision3d.stages.equivariant.config import AffnistConfig, ModelConfig
    from vision3d.stages.equivariant.layers import GroupConv, LiftConv, ProjectConv, SeparableGroupConv
    from vision3d.stages.equivariant.networks import make_network
    from vision3d.stages.equivariant.run import AffnistResult, reproduce_affnist


__getattr__ = lazy_names(__name__, _PUBLIC)
