"""Edits by text: accuracy and color errors on objects of the test split and on meshes in files, requests, times.

Without an adapter, edits are closed forms, as are the targets they are compared with: the table shows what the parser of texts,
planes of 64 texels and the transfer lose. Requests are those of tests/stages/edit/requests_held_out.txt.
"""

import argparse
import json
import re
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, wall_times, write

from vision3d.geometry.shapes import icosphere
from vision3d.scene import GaussianScene, Mesh
from vision3d.scene.upright import up_by_convention
from vision3d.stages.edit import EditEvalConfig, Editor, evaluate_edits
from vision3d.stages.edit.evaluation.detail import detail_kept
from vision3d.stages.edit.evaluation.objects import mesh_files
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.parser import expanded
from vision3d.stages.edit.instructions.understanding import InstructionError, understand
from vision3d.stages.edit.objects.recolor import recolor_gaussians, recolor_mesh
from vision3d.stages.edit.run_config import REFINE

REQUESTS = Path(__file__).parents[1] / "tests" / "stages" / "edit" / "requests_held_out.txt"
GAUSSIANS, TEXTURE = 100_000, 1024
DETAIL_EDITS = [Edit("color", "red"), Edit("color", "blue"), Edit("darker"), Edit("lighter"), Edit("grey")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("meshes", type=Path, nargs="*", help="files or folders")
    parser.add_argument("--furniture", type=Path, help="folder with .sh3f files of sweethome3d-furniture")
    parser.add_argument("--objects", type=int, default=40)
    parser.add_argument("--each", type=int, default=3)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    editor = Editor()
    results: dict[str, Any] = {}
    with ForeignLoad() as load:
        results["times"] = times(editor)
        results["requests"] = requests()
        config = EditEvalConfig(furniture=options.furniture, split="test", objects=options.objects, each=options.each)
        results["test"] = evaluate_edits(config, editor=editor).summary["table"]
        if options.meshes:
            found = evaluate_edits(config, options.meshes, editor=editor)
            results["files"] = {"meshes": [path.name for path in options.meshes], "table": found.summary["table"]}
            results["detail"] = detail(editor, options.meshes)
    print(json.dumps(results, indent=1))
    write("edit", results, load.share)


def times(editor: Editor) -> dict[str, Any]:
    """Wall seconds of an edit after loading, from the object in memory to the edited object."""
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(GAUSSIANS, 3, generator=generator), dim=1)
    scene = GaussianScene.from_points(points, torch.rand(GAUSSIANS, 3, generator=generator), sh_degree=3, opacity=0.8)
    vertices, faces = icosphere(5)
    mesh = Mesh(vertices, faces, vertex_colors=vertices * 0.5 + 0.5)
    unwrapped, _ = recolor_mesh(mesh, editor.encode_mesh(mesh, "z"), texture_size=TEXTURE)
    stripes = [Edit("stripes")]

    def of_gaussians() -> None:
        recolor_gaussians(scene, editor.apply(editor.encode_gaussians(scene, "z", refine=REFINE), stripes))

    def of_texture() -> None:
        recolor_mesh(unwrapped, editor.apply(editor.encode_mesh(unwrapped, "z", REFINE), stripes), texture_size=TEXTURE)

    def of_new_texture() -> None:
        recolor_mesh(mesh, editor.apply(editor.encode_mesh(mesh, "z", REFINE), stripes), texture_size=TEXTURE)

    started = time.perf_counter()
    understand("make it red", editor.encoder)
    first = time.perf_counter() - started
    return {
        f"{GAUSSIANS} Gaussians of SH degree 3": wall_times(of_gaussians, 3, 1),
        f"mesh of {len(faces)} faces with a texture of {TEXTURE} px": wall_times(of_texture, 3, 1),
        f"mesh of {len(faces)} faces that gets one": wall_times(of_new_texture, 3, 1),
        "first text": {"median": first},
        "text": wall_times(lambda: understand("make it blue", editor.encoder), 5, 1),
    }


def detail(editor: Editor, paths: list[Path]) -> dict[str, Any]:
    """What edits of colors keep of the detail of the meshes that have a texture of their own."""
    files = [file for path in paths for file in (mesh_files(path) if path.is_dir() else [path])]
    rows = []
    for file in files:
        mesh = Mesh.load(file).validate()
        if mesh.texture is None:
            continue
        before = editor.encode_mesh(mesh, up_by_convention(mesh, file.suffix), REFINE)
        for edit in DETAIL_EDITS:
            after, _ = recolor_mesh(mesh, editor.apply(before, [edit]))
            if after.texture is not None and after.texture.shape[:2] == mesh.texture.shape[:2]:
                found = detail_kept(mesh.texture[..., :3], after.texture[..., :3])
                rows.append({"mesh": file.stem, "edit": str(edit), "energy": found.energy, "clipped": found.clipped})
    energies = [row["energy"] for row in rows if row["energy"] == row["energy"]]
    return {
        "meshes": len({row["mesh"] for row in rows}),
        "edits": len(rows),
        "median": statistics.median(energies),
        "in 0.9 to 1.1": statistics.mean(0.9 <= value <= 1.1 for value in energies),
        "clipped": statistics.mean(row["clipped"] for row in rows),
        "rows": rows,
    }


def requests() -> dict[str, int]:
    """Known and unknown requests, and how many of them were misread, refused and accepted."""
    found = {"known": 0, "misread": 0, "refused": 0, "unknown": 0, "accepted": 0}
    for line in REQUESTS.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        meaning, text = line.split(" | ", 1)
        # Two colors of a pattern are the ground, then the marks.
        meaning = re.sub(r"(stripes|checks|dots): (\w+) on (\w+)( \(\w+\))?", r"\3\4 + \1: \2\4", meaning)
        try:
            edits = " + ".join(str(edit) for edit in expanded(understand(text).edits))
        except InstructionError:
            edits = None
        if meaning == "-":
            found["unknown"] += 1
            found["accepted"] += edits is not None
        else:
            found["known"] += 1
            found["refused"] += edits is None
            found["misread"] += edits not in (None, meaning)
    return found


if __name__ == "__main__":
    main()
