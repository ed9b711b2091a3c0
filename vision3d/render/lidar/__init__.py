"""Scans of meshes with a LiDAR: sensors, rays, and the errors of real measurements."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "Errors": "vision3d.render.lidar.returns",
    "Sensor": "vision3d.render.lidar.sensor",
    "scan": "vision3d.render.lidar.scanning",
}

__all__ = ["Errors", "Sensor", "scan"]

if TYPE_CHECKING:
    from vision3d.render.lidar.returns import Errors
    from vision3d.render.lidar.scanning import scan
    from vision3d.render.lidar.sensor import Sensor

__getattr__ = lazy_names(__name__, _PUBLIC)
