"""Edits of what the viewer shows by text, with undo; nothing here draws."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Bool
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.geometry import se3
from vision3d.io.glb import scene_up
from vision3d.scene import FrameSequence, GaussianScene, Mesh, Selection, SkinnedMesh
from vision3d.scene.upright import from_y_up, nearest_axis
from vision3d.viewer.layers import Layer, Layers
from vision3d.viewer.recording import next_path

if TYPE_CHECKING:
    from vision3d.io.gltf_material import Material
    from vision3d.stages.edit.editor import Editor
    from vision3d.stages.edit.instructions.families import Edit

Value = GaussianScene | Mesh | SkinnedMesh
MAX_UNDO = 20
"""Edits that can be undone; each keeps the colors of what it changed."""
_TEXTURE = 1024


@dataclass(frozen=True, eq=False)
class _State:
    """A layer's value after some edits."""

    value: Value
    material: "Material | Mesh"
    shown: Value
    """What the layer shows: a material is painted on, as the viewers have no reflections."""
    is_edited: bool = True


@dataclass(frozen=True, eq=False)
class _Step:
    """An edit, and what the layers were before."""

    text: str
    before: dict[str, _State]


class TextEdits:
    """Edits of the visible layers.

    Args:
        layers: The layers.
        make_editor: Loads the networks when the first text is given; the bundled ones when None.
        lock: Held while layers change.

    Example:
        >>> edits = TextEdits(layers)  # doctest: +SKIP
        >>> edits.apply("make it red")  # doctest: +SKIP
        'red: chair (1.2 s)'
    """

    def __init__(
        self,
        layers: Layers,
        make_editor: "Callable[[], Editor] | None" = None,
        lock: AbstractContextManager | None = None,
    ) -> None:
        self.layers = layers
        self._make_editor = make_editor
        self._editor: Editor | None = None
        self._changing = nullcontext() if lock is None else lock
        self._running = threading.Lock()
        self._states: dict[str, _State] = {}
        self._steps: list[_Step] = []

    @property
    def undoable(self) -> str | None:
        """The text that `undo` would undo; None if there is none."""
        return self._steps[-1].text if self._steps else None

    def apply(self, text: str, selection: Selection | None = None, *, picked: str | None = None, moment: float = 0.0) -> str:
        """Changes the colors of what is selected.

        Args:
            text: An instruction, such as "make it red".
            selection: Regions in the world; None or without regions: all of a layer.
            picked: The layer to change if nothing is selected and several are visible.
            moment: The time that is shown, at which moving meshes are in the regions [s].

        Returns:
            What was done.

        Raises:
            InstructionError: The text is not understood.
            InputError: Nothing that can be edited is selected, or another edit is running.
            MissingDependencyError: The encoder of texts is not installed.
        """
        from vision3d.stages.edit.instructions.understanding import check_text, understand

        if not self._running.acquire(blocking=False):
            raise InputError("another edit is running; wait until it is done")
        try:
            check_text(text)
            targets = self._targets(selection, picked, moment)
            editor = self._loaded()
            found = understand(text, editor.encoder)
            started = time.perf_counter()
            before = {name: self._state(name) for name in targets}
            after = {name: self._edited(name, editor, found.edits, mask) for name, mask in targets.items()}
            self._put(after)
            self._steps = [*self._steps, _Step(text, before)][-MAX_UNDO:]
            where = ", ".join(_share(mask) + name for name, mask in targets.items())
            done = f"{', then '.join(map(str, found.edits))}: {where} ({time.perf_counter() - started:.1f} s)"
            return "; ".join([done, *found.notes])
        finally:
            self._running.release()

    def undo(self) -> str:
        """Undoes the last edit; layers whose files have changed since then stay as they are.

        Raises:
            InputError: There is nothing to undo, or an edit is running.
        """
        if not self._running.acquire(blocking=False):
            raise InputError("another edit is running; wait until it is done")
        try:
            if not self._steps:
                raise InputError("nothing to undo")
            step = self._steps.pop()
            self._put({name: state for name, state in step.before.items() if self._is_current(name)})
            return f"undone: {step.text}"
        finally:
            self._running.release()

    def write(self, folder: Path) -> list[Path]:
        """Writes the edited layers: meshes as .glb with their material, Gaussians as .ply.

        Raises:
            InputError: Nothing was edited.
        """
        from vision3d.stages.edit.objects.files import SUFFIXES, write_object

        edited = {name: state for name, state in self._states.items() if state.is_edited and self._is_current(name)}
        if not edited:
            raise InputError("nothing was edited; enter an instruction first")
        paths = []
        for name, state in edited.items():
            stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("._-") or "layer"
            path = next_path(folder, f"{stem}_edited", SUFFIXES[type(state.value)])
            source, value = self.layers[name].source, state.value
            up = scene_up(source) if isinstance(value, Mesh) and source.is_file() else None
            value = from_y_up(value, up) if isinstance(value, Mesh) and up is not None else value
            assert not isinstance(state.material, Mesh)  # an edit leaves texels of their own
            write_object(path, value, state.material, up)
            paths.append(path)
        return paths

    def _targets(self, selection: Selection | None, picked: str | None, moment: float) -> dict[str, Bool[Tensor, " n"] | None]:
        """The layers to change, with the mask of their selected elements; None: all."""
        visible = [layer for layer in self.layers if layer.visible and layer.kind in ("gaussians", "mesh")]
        can = [layer for layer in visible if layer.rig is not None or not isinstance(layer.value, FrameSequence)]
        if not can:
            why = f"{', '.join(layer.name for layer in visible)} moves" if visible else "no mesh and no Gaussians are visible"
            raise InputError(f"{why}; want a mesh, also with joints, or Gaussians")
        if selection is not None and selection.regions:
            masks = {layer.name: self._inside(layer, selection, moment) for layer in can}
            found = {name: mask for name, mask in masks.items() if bool(mask.any())}
            if not found:
                raise InputError(f"the selection holds nothing of {', '.join(masks)}; move it, or remove it to edit all")
            return dict(found)
        if len(can) > 1 and picked not in {layer.name for layer in can}:
            names = ", ".join(layer.name for layer in can)
            raise InputError(f"{names} are visible; select a part with a box or a sphere, or hide the others")
        return {picked if len(can) > 1 and picked is not None else can[0].name: None}

    def _inside(self, layer: Layer, selection: Selection, moment: float) -> Bool[Tensor, " n"]:
        """Mask of the Gaussians or vertices in the regions, where they are at a time."""
        value = self.layers.frame(layer.name, moment)
        assert isinstance(value, GaussianScene | Mesh)
        points = value.means if isinstance(value, GaussianScene) else value.vertices
        return selection.mask(se3.transform_points(layer.transform.to(points), points))

    def _edited(self, name: str, editor: "Editor", edits: "Sequence[Edit]", mask: Tensor | None) -> _State:
        from vision3d.stages.edit.objects.files import Opened
        from vision3d.stages.edit.versions import Workpiece

        layer, state = self.layers[name], self._state(name)
        up = nearest_axis(layer.transform[:3, :3].cpu().T @ self.layers.up.to(layer.transform).cpu())
        piece = Workpiece(editor, Opened(state.value, up, material=state.material), up, mask, _TEXTURE)
        version = piece.by_edits(piece.encoded(), edits)
        value, shown = version.object, piece.shown(version)
        assert isinstance(value, Value) and isinstance(shown, Value)
        return _State(value, version.material, shown)

    def _state(self, name: str) -> _State:
        """What a layer holds now; read from the layer if its file has changed since the last edit."""
        if not self._is_current(name):
            from vision3d.stages.edit.objects.files import material_of

            layer = self.layers[name]
            value = layer.value if layer.rig is None else layer.rig.skin
            assert isinstance(value, Value)
            mesh = None if isinstance(value, GaussianScene) or not layer.source.is_file() else value
            material = material_of("") if mesh is None else material_of(layer.source, mesh)
            self._states[name] = _State(value, material, value, is_edited=False)
        return self._states[name]

    def _is_current(self, name: str) -> bool:
        layer, state = self.layers[name], self._states.get(name)
        return state is not None and state.shown is (layer.value if layer.rig is None else layer.rig.skin)

    def _put(self, states: dict[str, _State]) -> None:
        with self._changing:
            for name, state in states.items():
                self.layers.change_value(name, state.shown)
                self._states[name] = state

    def _loaded(self) -> "Editor":
        if self._editor is None:
            from vision3d.stages.edit.editor import Editor

            self._editor = Editor() if self._make_editor is None else self._make_editor()
        return self._editor


def _share(mask: Tensor | None) -> str:
    return "" if mask is None else f"{100 * float(mask.float().mean()):.0f} % of "
