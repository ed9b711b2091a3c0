"""Conversion from and to the types of Open3D, trimesh, kornia and PyTorch3D, in memory (extra `interop`).

`to_*` takes a type of `vision3d.scene`, `from_*` one of the other package, whose type determines the result. Axes, the
direction of texture coordinates and the order of quaternions are converted; docs/interop.md has the details. What the other
type cannot represent is logged as one warning.
"""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "to_open3d": ".with_open3d",
    "from_open3d": ".with_open3d",
    "to_trimesh": ".with_trimesh",
    "from_trimesh": ".with_trimesh",
    "to_kornia": ".with_kornia",
    "from_kornia": ".with_kornia",
    "to_pytorch3d": ".with_pytorch3d",
    "from_pytorch3d": ".with_pytorch3d",
}

__all__ = [*sorted(_PUBLIC)]

if TYPE_CHECKING:
    from vision3d.interop.with_kornia import from_kornia, to_kornia
    from vision3d.interop.with_open3d import from_open3d, to_open3d
    from vision3d.interop.with_pytorch3d import from_pytorch3d, to_pytorch3d
    from vision3d.interop.with_trimesh import from_trimesh, to_trimesh

__getattr__ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
