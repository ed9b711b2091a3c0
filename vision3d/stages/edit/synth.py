"""Write pairs of an object and the same after an instruction, as files."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, Vision3DError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import Interrupted, RunFolder, finish_step_on_interrupt
from vision3d.scene.mesh import Mesh
from vision3d.stage import stage
from vision3d.stages.edit.data.instructions import random_edit
from vision3d.stages.edit.data.samples import furniture_models
from vision3d.stages.edit.data.shapes import Shape, random_shape
from vision3d.stages.edit.editor import Editor
from vision3d.stages.edit.instructions.phrases import phrase
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.objects.files import Opened, still, write_object
from vision3d.stages.edit.run_config import EditConfig, EditSynthConfig
from vision3d.stages.edit.versions import Workpiece, described
from vision3d.stages.edit.views import write_before_after

_LONGEST = 0.06
"""Longest edge of procedural objects, whose patterns are colors of vertices, relative to their size."""
_SPLITS = 5
_Y_UP = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
"""Rows of the rotation from z up to y up, as glTF has it."""
INDEX = "pairs.jsonl"


@dataclass(frozen=True)
class SynthResult:
    """A folder of pairs."""

    folder: Path
    """Contains pairs.jsonl and pairs/NUMBER."""
    summary: dict[str, Any]


@stage("edit synth", {}, grows=("pairs",))
def synthesize_edits(
    config: EditSynthConfig,
    *,
    editor: Editor | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> SynthResult:
    """Write objects, instructions, and the objects after these, by closed forms.

    Args:
        config: Options.
        editor: The networks; None loads those of the configuration.
        run_folder: Receives pairs/NUMBER/{source.glb, edited.glb, before_after.png, pair.json}, with `save_planes` also
            source.safetensors and edited.safetensors, and pairs.jsonl, a line for each pair. In a folder that was interrupted,
            or is resumed for more pairs, only those that are missing are made.
        progress: Progress callback, called for every pair.

    Raises:
        ConfigError: No folder is given.
        InputError: The folder has no furniture.
        MissingDependencyError: The encoder of texts is not installed (extra `edit`).
    """
    if not isinstance(run_folder, RunFolder):
        raise ConfigError("run_folder", "got None, want a folder for the pairs")
    started = time.process_time()
    editor = editor or Editor(load_planes_model(config.planes).to(resolve_device(config.device)))
    rows, written = [], 0
    with finish_step_on_interrupt() as stop, Progress(config.pairs, "synth", progress) as bar:
        for number in range(config.pairs):
            folder = run_folder.path / "pairs" / f"{number:06d}"
            done = folder / "pair.json"  # written last
            if not done.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                row = _pair(config, editor, number, folder)
                with atomic_write(done) as temporary:
                    temporary.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
                written += 1
            rows.append(json.loads(done.read_text("utf-8")))
            bar.update(number + 1)
            if stop.requested and number + 1 < config.pairs:
                raise Interrupted(f"stopped after {number + 1} pairs")
    with atomic_write(run_folder.path / INDEX) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    seconds = time.process_time() - started
    summary = {"pairs": config.pairs, "written": written, "cpu_s": round(seconds, 2)}
    return SynthResult(run_folder.path, summary)


def _pair(config: EditSynthConfig, editor: Editor, number: int, folder: Path) -> dict[str, Any]:
    """Makes a pair; it depends on its number and the options only."""
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + number) % 2**62)
    mesh, about = _object(config, number, generator)
    count = 1 + int(float(torch.rand(1, generator=generator)) < config.two)
    edits = [random_edit(generator, config.basic) for _ in range(count)]
    text = phrase(edits, generator, held_out=config.phrasings == "held-out")
    piece = Workpiece(editor, Opened(mesh, "y"), "y", None, config.texture_size, config.refine)
    before = piece.encoded()
    version = piece.by_edits(before, edits)
    write_object(folder / "source.glb", mesh)
    write_object(folder / "edited.glb", version.object, version.material)
    if config.save_planes:
        before.edited.save(folder / "source.safetensors")
        version.planes.edited.save(folder / "edited.safetensors")
    views = EditConfig(views=config.views, view_size=config.view_size)
    write_before_after(folder / "before_after.png", still(mesh), still(piece.shown(version)), "y", views, text)
    place = folder.relative_to(folder.parent.parent)
    return {
        "source": f"{place.as_posix()}/source.glb",
        "edited": f"{place.as_posix()}/edited.glb",
        "text": text,
        "edits": [str(edit) for edit in edits],
        **described(version.material),
        **about,
    }


def _object(config: EditSynthConfig, number: int, generator: torch.Generator) -> tuple[Mesh, Mapping[str, Any]]:
    """An object, y up, and where it is from."""
    if config.furniture is not None and float(torch.rand(1, generator=generator)) < config.share:
        models = furniture_models(config.furniture, config.split)
        archive, item = models[int(torch.randint(len(models), (1,), generator=generator))]
        try:
            mesh = archive.mesh(item)
            mesh.validate()
            return _y_up(mesh), {"object": item.name, "creator": item.creator, "license": item.license}
        except Vision3DError:  # a model without faces of any area
            pass
    return _y_up(shape_mesh(random_shape(generator))), {"object": f"procedural {number}"}


def shape_mesh(shape: Shape) -> Mesh:
    """A procedural object with colors at vertices that are close enough to show its patterns."""
    size = float((shape.vertices.amax(0) - shape.vertices.amin(0)).max())
    corners, parts = shape.vertices[shape.faces], shape.parts
    for _ in range(_SPLITS):
        edges = torch.linalg.vector_norm(corners - corners.roll(1, 1), dim=2).amax(1)
        is_long = edges > _LONGEST * size
        if not bool(is_long.any()):
            break
        # All of them: a face that is split beside one that is not would leave cracks.
        a, b, c = corners.unbind(1)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = torch.stack([*_triangle(a, ab, ca), *_triangle(ab, b, bc), *_triangle(ca, bc, c), *_triangle(ab, bc, ca)], 1)
        corners, parts = corners.reshape(-1, 3, 3), parts.repeat_interleave(4)
    keyed = torch.cat([corners, parts[:, None, None].expand(-1, 3, 1).to(corners)], 2).view(-1, 4)
    vertices, faces = torch.unique(keyed, dim=0, return_inverse=True)
    colors, of = torch.zeros(len(vertices), 3), vertices[:, 3].long()
    for part, paint in enumerate(shape.colors):
        colors[of == part] = paint(vertices[of == part, :3])
    return Mesh(vertices[:, :3].contiguous(), faces.view(-1, 3), vertex_colors=colors.clamp(0, 1))


def _triangle(*corners: Tensor) -> tuple[Tensor, ...]:
    return corners


def _y_up(mesh: Mesh) -> Mesh:
    turned = mesh.vertices @ mesh.vertices.new_tensor(_Y_UP).T
    return Mesh(turned, mesh.faces, mesh.corner_uvs, None, mesh.texture, mesh.vertex_colors)
