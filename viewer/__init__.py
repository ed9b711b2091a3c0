"""Scene viewers, installed as `vision3d.viewer`."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

if TYPE_CHECKING:
    from vision3d.viewer.show import view

__all__ = ["view"]

__getattr__ = lazy_names(__name__, {"view": ".show"})
