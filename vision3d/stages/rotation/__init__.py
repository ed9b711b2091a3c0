"""Comparison of rotation representations for networks: the output head, and the experiments.

Paper: Zhou et al. 2019 (arXiv 1812.07035), On the continuity of rotation representations in neural networks: reproducing a
rotation, the rotation between two point clouds, joint rotations from joint positions. Projection of nine numbers as in
Levinson et al. 2020 (arXiv 2006.14616).

Differences from the first: a one-cycle learning rate instead of a constant one of 1e-5; uniform test rotations; nine numbers
are projected to a rotation and never to a reflection; distances with gradients everywhere; heads initialized at the identity; a
backward pass that only processes the points that win the maximum of a cloud."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "SanityConfig": "vision3d.stages.rotation.config",
    "PointCloudConfig": "vision3d.stages.rotation.config",
    "IkConfig": "vision3d.stages.rotation.config",
    "RotationNetwork": "vision3d.stages.rotation.network_files",
    "load_rotation_network": "vision3d.stages.rotation.network_files",
    "save_rotation_network": "vision3d.stages.rotation.network_files",
    "RotationResult": "vision3d.stages.rotation.run",
    "reproduce_rotation_sanity": "vision3d.stages.rotation.run",
    "reproduce_rotation_ik": "vision3d.stages.rotation.run",
    "reproduce_rotation_pointcloud": "vision3d.stages.rotation.run",
}

__all__ = [
    "IkConfig",
    "PointCloudConfig",
    "RotationNetwork",
    "RotationResult",
    "SanityConfig",
    "load_rotation_network",
    "reproduce_rotation_ik",
    "reproduce_rotation_pointcloud",
    "reproduce_rotation_sanity",
    "save_rotation_network",
]

if TYPE_CHECKING:
    from vision3d.stages.rotation.config import IkConfig, PointCloudConfig, SanityConfig
    from vision3d.stages.rotation.network_files import RotationNetwork, load_rotation_network, save_rotation_network
    from vision3d.stages.rotation.run import (
        RotationResult,
        reproduce_rotation_ik,
        reproduce_rotation_pointcloud,
        reproduce_rotation_sanity,
    )


__getattr__ = lazy_names(__name__, _PUBLIC, moved={"RotationHead": "vision3d.geometry"})
