"""Edits of files by text: an object in, the same object with other colors out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from vision3d.core.device import resolve_device
from vision3d.core.errors import InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io import glb
from vision3d.scene.codecs import load
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.selecting import Selector
from vision3d.scene.selection import Selection
from vision3d.scene.triplane import Triplane
from vision3d.scene.upright import Axis, up_by_convention
from vision3d.stage import stage
from vision3d.stages.edit.editor import Edited, Editor
from vision3d.stages.edit.instructions.understanding import Understanding, understand
from vision3d.stages.edit.network.adapter_files import load_adapter
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.objects.recolor import recolor_gaussians, recolor_mesh
from vision3d.stages.edit.run_config import EditConfig
from vision3d.stages.edit.views import write_before_after

logger = logging.getLogger(__name__)

Editable = GaussianScene | Mesh | Triplane
_SUFFIXES = {GaussianScene: ".ply", Mesh: ".glb", Triplane: ".safetensors"}
_SOLID = 0.3  # opacity of Gaussians that connect others


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
        inputs: A mesh, Gaussians or a triplane, or its file.
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
    value, suffix = (inputs, "") if isinstance(inputs, Editable) else (_loaded(inputs), Path(inputs).suffix)
    value.validate()
    up: Axis = up_by_convention(value, suffix) if config.up == "auto" else config.up
    selected = _selected(value, select)
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
        has_material = isinstance(value, Mesh) and selected is None and _is_whole(understood)
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
            _write(path / f"edited{_SUFFIXES[type(value)]}", changed, material)
            edited.edited.save(path / "planes.safetensors")
            write_before_after(path / "before_after.png", value, changed, up, config, ", then ".join(given))
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


def _write(path: Path, value: Editable, material: tuple[float, float] | None) -> None:
    if isinstance(value, Mesh) and material is not None:
        glb.write_mesh(path, value, material=material)
    else:
        value.save(path)


def _loaded(path: Path | str) -> Editable:
    value = load(path)
    if isinstance(value, Editable):
        return value
    raise InputError(f"{path}: holds {type(value).__name__}, want a mesh, Gaussians or a triplane")


def _selected(value: Editable, select: Selection | Sequence[str] | None) -> Bool[Tensor, " n"] | None:
    """Mask of the Gaussians or vertices to change; None: all."""
    if select is None or (not isinstance(select, Selection) and not list(select)):
        return None
    if isinstance(value, Triplane):
        raise InputError("select: a triplane has no parts to select, want a mesh or Gaussians")
    is_mesh = isinstance(value, Mesh)
    points = value.vertices if is_mesh else value.means
    noun = "vertices" if is_mesh else "Gaussians"
    if isinstance(select, Selection):
        found = select.mask(points)
        if not bool(found.any()):
            raise InputError(f"select: holds none of {len(found)} {noun}, want at least one")
        return found
    solid = torch.ones(len(points), dtype=torch.bool) if is_mesh else value.opacities > _SOLID
    return Selector(points, None if is_mesh else value.labels, solid, noun).mask(list(select), "select")


def _encoded(editor: Editor, value: Editable, up: Axis, selected: Tensor | None) -> Edited:
    if isinstance(value, Triplane):
        return editor.of_triplane(value)
    if isinstance(value, GaussianScene):
        return editor.encode_gaussians(value, up, selected)
    if selected is None:
        return editor.encode_mesh(value, up)
    faces = selected[value.faces].all(1)
    return editor.encode_mesh(Mesh(
        value.vertices, value.faces[faces], None if value.corner_uvs is None else value.corner_uvs[faces], None,
        value.texture, value.vertex_colors,
    ), up)  # fmt: skip


def _recolored(value: Editable, edited: Edited, selected: Tensor | None, size: int) -> tuple[Editable, float]:
    if isinstance(value, Triplane):
        return edited.edited, 0.0
    if isinstance(value, GaussianScene):
        changed, clipped = recolor_gaussians(value, edited, selected)
    else:
        faces = None if selected is None else selected[value.faces].all(1)
        changed, clipped = recolor_mesh(value, edited, selected=faces, texture_size=size)
    return changed, clipped.share
