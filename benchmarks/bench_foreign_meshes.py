"""Mesh files of a folder, such as trimesh's own models, against trimesh: faces and bounds of each; refusals with their reason.

python benchmarks/bench_foreign_meshes.py FOLDER, which holds what `trimesh.load_scene` reads; files that trimesh refuses, or in
which it finds no triangles, are only counted. trimesh's scenes are compared in world coordinates.
"""

import argparse
import logging
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from support import ForeignLoad, add_options, write

from vision3d.core.errors import Vision3DError
from vision3d.scene import Mesh, SkinnedMesh
from vision3d.scene.codecs import load

_CLOSE = 1e-4
"""Difference of bounds relative to the diagonal that counts as equal."""


def of_peer(path: Path) -> tuple[int, np.ndarray] | None:
    """Number of triangles and bounds as trimesh reads them; None without triangles, or if it refuses the file."""
    try:
        mesh = trimesh.load_scene(path, process=False).to_mesh()
    except Exception:  # whatever its readers raise
        return None
    return (len(mesh.faces), mesh.bounds) if len(mesh.faces) else None


def ours(path: Path) -> Mesh:
    """The mesh of a file in its rest pose."""
    value: Any = load(path)
    if isinstance(value, SkinnedMesh):
        return value.at_rest()
    if not isinstance(value, Mesh):
        raise TypeError(type(value).__name__)
    return value


def compared(path: Path) -> dict[str, Any] | None:
    """The result for a file; None if trimesh reads no mesh from it."""
    peer = of_peer(path)
    if peer is None:
        return None
    faces, bounds = peer
    try:
        mesh = ours(path)
    except Vision3DError as error:
        return {"result": "refused", "why": str(error).replace(str(path.parent), "")[:300]}
    except TypeError as error:
        return {"result": "other kind", "why": f"read as {error}"}
    used = mesh.vertices[mesh.faces.unique()].double()
    found = np.array([used.amin(0).tolist(), used.amax(0).tolist()])
    off = float(np.abs(found - bounds).max() / max(np.linalg.norm(bounds[1] - bounds[0]), 1e-12))
    is_equal = mesh.num_faces == faces and off < _CLOSE
    row = {"faces": mesh.num_faces, "faces_trimesh": faces, "off": float(f"{off:.2g}")}
    return {"result": "equal" if is_equal else "different", **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    rows = {}
    with ForeignLoad() as load_of_others:
        for path in sorted(path for path in options.folder.rglob("*") if path.is_file()):
            row = compared(path)
            if row is not None:
                name = str(path.relative_to(options.folder))
                rows[name] = row
                if row["result"] != "equal":
                    print(name, row, flush=True)
    counts = dict(Counter(row["result"] for row in rows.values()))
    print(counts)
    kept = {name: row for name, row in rows.items() if row["result"] != "equal"}
    write(
        "foreign_meshes",
        {"trimesh": trimesh.__version__, "files": len(rows), "counts": counts, "others": kept},
        load_of_others.share,
    )


if __name__ == "__main__":
    main()
