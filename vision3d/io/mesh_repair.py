"""Values of a mesh that are not finite and do not matter to its shape: a warning, not an error."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from vision3d.scene.mesh import Mesh

logger = logging.getLogger("vision3d")


def with_finite_values(path: Path, mesh: Mesh) -> Mesh:
    """The mesh without values that are not finite: normals are dropped, rows of uvs become 0, of colors white; one warning."""
    changes: dict[str, torch.Tensor | None] = {}
    notes = []
    for name in ("normals", "uvs", "vertex_colors"):
        values = getattr(mesh, name)
        if values is None or bool(torch.isfinite(values).all()):
            continue
        bad = ~torch.isfinite(values).all(-1)
        how = {"normals": "dropped", "uvs": "set to 0", "vertex_colors": "shown white"}[name]
        notes.append(f"{name} not finite in {int(bad.sum())} of {bad.numel()} rows; {how}")
        fill = 0.0 if name == "uvs" else 1.0
        changes[name] = None if name == "normals" else torch.where(bad[..., None], fill, values)
    if notes:
        logger.warning("%s: %s", path, "; ".join(notes))
    return replace(mesh, **changes) if changes else mesh
