"""Geometry core: rotations, cameras, spherical harmonics, triangles and meshes as functions of torch tensors.

Conventions, the same everywhere in vision3d (other conventions are converted only in `vision3d.io`):

- Quaternions are stored wxyz, multiply as Hamilton defined and rotate column vectors actively: x' = R(q) x.
- The world is right-handed, in meters. Cameras follow OpenCV: x right, y down, z forward.
- `viewmats` map world to camera, x_cam = R x_world + t; `camtoworlds` are their inverses. Matrices are row-major.
- `Ks` are in pixels; pixel (row i, column j) has its center at (j + 0.5, i + 0.5).
- Images are (H, W, 3), float in [0, 1], sRGB unless the name begins with `linear_`.
- Angles are radians, times seconds, masses kilograms.
"""

from vision3d.core.lazy import lazy_names, names_of_stub

_PUBLIC = names_of_stub(__name__, __file__)  # the list of all names is in __init__.pyi

__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__ = lazy_names(__name__, _PUBLIC)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
