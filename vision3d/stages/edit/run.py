"""Edits of files by text: an object in, the same object with other colors out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.selection import Selection
from vision3d.scene.skin import SkinnedMesh
from vision3d.scene.triplane import Triplane
from vision3d.scene.upright import Axis
from vision3d.stage import stage
from vision3d.stages.edit.editor import Edited, Editor
from vision3d.stages.edit.instructions.understanding import Understanding, understand
from vision3d.stages.edit.network.adapter_files import load_adapter
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.objects.files import SUFFIXES, Editable, Opened, selected_points, surface_of
from vision3d.stages.edit.objects.recolor import recolor_gaussians, recolor_mesh, recolor_skin
from vision3d.stages.edit.run_config import EditConfig
from vision3d.stages.edit.views import write_before_after

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EditResult:
    """Result of an edit."""

    object: Editable
    """The object after the edit, of the same kind."""
    planes: Edited
    """Its planes before and after."""
    understood: tuple[Understanding, ...]
    """What the texts were taken for."""
    material: tuple[float, float] | None
    """Metallic and roughness factor of a mesh if the edits changed them; the .glb has them."""
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("edit run", {"inputs": "path", "texts": "text", "select": "select"})
def edit(
    config: EditConfig,
    inputs: Editable | Path | str,
    texts: str | Sequence[str],
    *,
    select: Selection | Sequence[str] | None = None,
    editor: Editor | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> EditResult:
    """Change colors, patterns and material of an object by text; positions, shapes and opacities stay bit by bit.

    Args:
        config: Options.
        inputs: A mesh, also with joints, morphs and clips, Gaussians or a triplane, or its file.
        texts: One instruction, or several in order, such as "make it red".
        select: What to change: a selection, or texts as of `scene.selecting`; everything when None.
        editor: The networks; None loads those of the configuration.
        run_folder: Receives edited.glb (meshes), .ply (Gaussians) or .safetensors (triplanes), planes.safetensors and
            before_after.png. None: nothing is written.
        progress: Progress callback.

    Raises:
        InstructionError: A text is not understood; the message says what is.
        InputError: The file cannot be read, contains something else, or nothing is selected.
        MissingDependencyError: The encoder of texts is not installed (extra `edit`).

    Example:
        >>> from vision3d import EditConfig, edit  # doctest: +SKIP
        >>> edit(EditConfig(), "vase.glb", "make it red").object.save("red.glb")  # doctest: +SKIP
    """
    device = resolve_device(config.device)
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given:
        raise InputError("text: got none, want at least one instruction")
    opened = Opened.of(inputs)
    value, up = opened.value, opened.up if config.up == "auto" else config.up
    selected = selected_points(value, select)
    with Progress(3, "edit", progress) as bar:
        if editor is None:
            adapter = None if config.adapter is None else load_adapter(config.adapter).to(device)
            editor = Editor(load_planes_model(config.planes).to(device), adapter)
        understood = tuple(understand(text, editor.encoder) for text in given)
        for found in understood:
            for note in found.notes:
                logger.warning("%r: %s", found.text, note)
        bar.update(1)
        started = time.perf_counter()
        before = _encoded(editor, value, up, selected)
        has_material = isinstance(value, Mesh | SkinnedMesh) and selected is None and _is_whole(understood)
        if config.method == "adapter":
            sentences = [found.text for found in understood]
            edited = editor.edit(before, sentences, strength=config.strength, baked=not has_material)
        else:
            edits = [one for found in understood for one in found.edits]
            edited = editor.apply(before, edits, baked=not has_material)
        bar.update(2)
        changed, clipped = _recolored(value, edited, selected, config.texture_size)
        material = editor.material(edited) if has_material else None
        seconds = time.perf_counter() - started
        path = None if run_folder is None else run_folder.path
        if path is not None:
            opened.write(path / f"edited{SUFFIXES[type(value)]}", changed, material)
            edited.edited.save(path / "planes.safetensors")
            shown = [surface_of(one) if isinstance(one, SkinnedMesh) else one for one in (value, changed)]
            write_before_after(path / "before_after.png", *shown, up, config, ", then ".join(given))
        bar.update(3)
    summary = {
        "method": config.method,
        "understood": [str(one) for found in understood for one in found.edits],
        "similarity": round(min(found.similarity for found in understood), 3),
        "selected": 1.0 if selected is None else round(float(selected.float().mean()), 4),
        "clipped": clipped,
        **({} if material is None else {"metallic": round(material[0], 3), "roughness": round(material[1], 3)}),
        "edit_s": round(seconds, 3),
        "up": up,
        "device": str(device),
    }
    return EditResult(changed, edited, understood, material, summary, path)


def _is_whole(understood: Sequence[Understanding]) -> bool:
    """Whether a material of the whole object can show the edits; factors of a part would need a texture of their own."""
    return all(one.part is None for found in understood for one in found.edits)


def _encoded(editor: Editor, value: Editable, up: Axis, selected: Tensor | None) -> Edited:
    if isinstance(value, Triplane):
        return editor.of_triplane(value)
    if isinstance(value, GaussianScene):
        return editor.encode_gaussians(value, up, selected)
    mesh = surface_of(value)
    if selected is None:
        return editor.encode_mesh(mesh, up)
    faces = selected[mesh.faces].all(1)
    return editor.encode_mesh(Mesh(
        mesh.vertices, mesh.faces[faces], None if mesh.corner_uvs is None else mesh.corner_uvs[faces], None,
        mesh.texture, mesh.vertex_colors,
    ), up)  # fmt: skip


def _recolored(value: Editable, edited: Edited, selected: Tensor | None, size: int) -> tuple[Editable, float]:
    if isinstance(value, Triplane):
        return edited.edited, 0.0
    if isinstance(value, GaussianScene):
        changed, clipped = recolor_gaussians(value, edited, selected)
    else:
        faces = None if selected is None else selected[surface_of(value).faces].all(1)
        recolor = recolor_skin if isinstance(value, SkinnedMesh) else recolor_mesh
        changed, clipped = recolor(value, edited, selected=faces, texture_size=size)
    return changed, clipped.share
