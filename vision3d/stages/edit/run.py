"""Edits of files by text: an object in, the same object with other colors out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.core.device import resolve_device
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.io.gltf_material import Material
from vision3d.scene.selection import Selection
from vision3d.scene.triplane import Triplane
from vision3d.stage import stage
from vision3d.stages.edit.editor import Edited, Editor
from vision3d.stages.edit.instructions.understanding import Understanding, understand
from vision3d.stages.edit.network.editing import load_editing
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.objects.files import SUFFIXES, Editable, Opened, selected_points, still, write_object
from vision3d.stages.edit.run_config import EditConfig
from vision3d.stages.edit.versions import Version, Workpiece, described
from vision3d.stages.edit.views import write_before_after, write_variants

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
    material: Material
    """Metallic and roughness factor of a mesh, of all of it or of the texels at its uvs."""
    summary: dict[str, Any]
    run_folder: Path | None = None
    variants: tuple[Version, ...] = ()
    """All versions, with `variants` of the configuration; the first is `object`."""

    def save(self, path: Path | str) -> None:
        """Write the object in the format of the suffix; a .glb has its material, and a triplane is a mesh in it."""
        write_object(path, self.object, self.material)


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
    """Change colors, patterns and material of an object by text; positions, shapes and opacities stay bit by bit, unless
    `allow_geometry` makes the result the surface of the edited planes.

    Args:
        config: Options.
        inputs: A mesh, also with joints, morphs and clips, Gaussians or a triplane, or its file.
        texts: One instruction, or several in order, such as "make it red".
        select: What to change: a selection, or texts as of `scene.selecting`; everything when None.
        editor: The networks; None loads those of the configuration.
        run_folder: Receives edited.glb (meshes), .ply (Gaussians) or .safetensors (triplanes), or edited.glb by the
            configuration, planes.safetensors and before_after.png; of several variants edited_0.glb, ..., and variants.png.
            None: nothing is written.
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
    up = opened.up if config.up == "auto" else config.up
    selected = selected_points(opened.value, select)
    if config.allow_geometry and selected is not None:
        raise ConfigError("allow_geometry", "got it with a selection, want it for the whole object")
    with Progress(3, "edit", progress) as bar:
        if editor is None:
            editor = Editor(load_planes_model(config.planes).to(device), load_editing(config.method, config.weights, device))
        understood = tuple(understand(text, editor.encoder) for text in given)
        for found in understood:
            for note in found.notes:
                logger.warning("%r: %s", found.text, note)
        bar.update(1)
        started = time.perf_counter()
        piece = Workpiece(editor, opened, up, selected, config.texture_size, config.refine, config.allow_geometry)
        before = piece.encoded()
        if config.method == "adapter":
            made = piece.all_by_texts(before, given, config.strength, config.variants, config.seed)
        elif config.method == "diffusion":
            made = piece.all_by_samples(before, given, config.strength, config.variants, config.seed, config.sampling)
        else:
            edits = [one for found in understood for one in found.edits]
            made = piece.all_by_edits(before, edits, config.variants, config.seed)
            if len({version.planes.targets for version in made}) < len(made):
                logger.warning("%s leaves nothing open; all %d variants are the same", made[0].text, len(made))
        bar.update(2)
        seconds = time.perf_counter() - started
        path = None if run_folder is None else run_folder.path
        if path is not None:
            _write(path, piece, made, config, ", then ".join(given))
        bar.update(3)
    version = made[0]
    summary = {
        "method": config.method,
        "understood": [str(one) for found in understood for one in found.edits],
        "similarity": round(min(found.similarity for found in understood), 3),
        "selected": 1.0 if selected is None else round(float(selected.float().mean()), 4),
        "clipped": version.clipped,
        **described(version.material),
        **({} if len(made) < 2 else {"variants": [one.text for one in made], "seed": config.seed}),
        "edit_s": round(seconds, 3),
        "up": up,
        "device": str(device),
    }
    return EditResult(version.object, version.planes, understood, version.material, summary, path, tuple(made))


def _write(folder: Path, piece: Workpiece, made: Sequence[Version], config: EditConfig, text: str) -> None:
    """The files of a run: those of several versions have their number."""
    for number, version in enumerate(made):
        ending = f"_{number}" if len(made) > 1 else ""
        is_own = config.format == "own" and (isinstance(piece.opened.value, Triplane) or not config.allow_geometry)
        suffix = SUFFIXES[type(version.object)] if is_own else ".glb"
        path = folder / f"edited{ending}{suffix}"
        piece.opened.write(path, version.object, version.material, config.texture_size)
        version.planes.edited.save(folder / f"planes{ending}.safetensors")
    before, shown = still(piece.opened.value), [still(piece.shown(one)) for one in made]
    write_before_after(folder / "before_after.png", before, shown[0], piece.up, config, text)
    if len(made) > 1:
        texts = [one.text for one in made]
        write_variants(folder / "variants.png", list(zip(shown, texts)), before, piece.up, config)
