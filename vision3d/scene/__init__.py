"""The types that stages exchange: cameras, photos, Gaussians, meshes, points, boxes, sequences, scenes.

All are frozen dataclasses of tensors: `to(device)` moves them, `validate()` checks their values, `save`/`load` use the codec
of the file suffix (`vision3d.scene.codecs`).
"""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.scene.boxes import Boxes
    from vision3d.scene.cameras import Cameras
    from vision3d.scene.clip import Channel, Clip
    from vision3d.scene.codecs import load, save
    from vision3d.scene.gaussians import GaussianScene
    from vision3d.scene.images import PosedImages
    from vision3d.scene.mesh import Mesh
    from vision3d.scene.mesh_gaussians import MeshGaussians
    from vision3d.scene.motion import Motion, Skeleton
    from vision3d.scene.points import PointCloud
    from vision3d.scene.scene import Scene
    from vision3d.scene.selection import Region, Selection
    from vision3d.scene.sequence import FrameSequence
    from vision3d.scene.skin import SkinnedMesh
    from vision3d.scene.triplane import Triplane

_PUBLIC = {
    "Boxes": ".boxes",
    "Cameras": ".cameras",
    "Channel": ".clip",
    "Clip": ".clip",
    "GaussianScene": ".gaussians",
    "Mesh": ".mesh",
    "MeshGaussians": ".mesh_gaussians",
    "Motion": ".motion",
    "PointCloud": ".points",
    "PosedImages": ".images",
    "Region": ".selection",
    "Scene": ".scene",
    "Selection": ".selection",
    "FrameSequence": ".sequence",
    "Skeleton": ".motion",
    "SkinnedMesh": ".skin",
    "Triplane": ".triplane",
    "load": ".codecs",
    "save": ".codecs",
}

__all__ = [
    "Boxes",
    "Cameras",
    "Channel",
    "Clip",
    "FrameSequence",
    "GaussianScene",
    "Mesh",
    "MeshGaussians",
    "Motion",
    "PointCloud",
    "PosedImages",
    "Region",
    "Scene",
    "Selection",
    "Skeleton",
    "SkinnedMesh",
    "Triplane",
    "load",
    "save",
]


__getattr__ = lazy_names(__name__, _PUBLIC, moved={"Skin": f"{__name__}:SkinnedMesh", "Sequence": f"{__name__}:FrameSequence"})
