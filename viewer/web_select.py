"""Regions placed with the mouse, counted, and written as a selection."""

import re
from pathlib import Path
from typing import Any

import torch

from vision3d.core.errors import InputError, OutputExistsError
from vision3d.geometry import se3
from vision3d.scene import GaussianScene, Mesh, PointCloud, Selection
from vision3d.scene.lines import region_lines
from vision3d.scene.selection import Region
from vision3d.viewer.layers import Layers
from vision3d.viewer.web_draw import Drawer

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SUFFIX = ".selection.json"
_COLOR, _ACTIVE_COLOR = (255, 170, 0), (230, 60, 0)


class SelectionTool:
    """Boxes and spheres with a gizmo each, in a folder of the page's panel.

    Args:
        server: A `viser.ViserServer`.
        drawer: Draws the layers.
        folder: Folder for selections.
    """

    def __init__(self, server: Any, drawer: Drawer, folder: Path) -> None:
        self.server, self.drawer, self.folder = server, drawer, folder
        self._written: set[Path] = set()
        self._regions: list[tuple[Region, Any, Any]] = []  # with its gizmo and its lines
        gui = server.gui
        with gui.add_folder("Selection", order=4, expand_by_default=False):
            self._add = gui.add_button_group("Add", ("box", "sphere"))
            self._size = gui.add_vector3("Half edges [m]", (1.0, 1.0, 1.0), min=(0.0, 0.0, 0.0), step=1e-4)
            self._combine = gui.add_dropdown("Inside", ("any region", "all regions"), hint="Which points count")
            self._count = gui.add_markdown("nothing selected")
            self._name = gui.add_text("File name", "part")
            self._save = gui.add_button("Write selection")
            self._remove = gui.add_button("Remove the last region")
        self._add.on_click(lambda _: self.add("box" if self._add.value == "box" else "sphere"))
        self._size.on_update(lambda event: self._resized() if event.client is not None else None)
        self._combine.on_update(lambda _: self._recount())
        self._save.on_click(lambda event: self._write(event.client))
        self._remove.on_click(lambda _: self.remove())

    @property
    def selection(self) -> Selection:
        """The current regions."""
        combine = "all" if self._combine.value == "all regions" else "any"
        return Selection(tuple(region for region, _, _ in self._regions), combine)

    def add(self, kind: str) -> None:
        """Adds a region at the center of the content, a third of its size."""
        with self.drawer.lock:
            bounds = self.drawer.bounds
            radius = float(f"{bounds.radius / 3:.2g}")
            center = bounds.center.clone()
            region = Region.sphere(center, radius) if kind == "sphere" else Region.box(center, torch.full((3,), radius))
            name = f"/selection/{len(self._regions)}"
            gizmo = self.server.scene.add_transform_controls(
                name, scale=1.3 * radius, disable_rotations=kind == "sphere", depth_test=False, position=center.numpy()
            )
            place = len(self._regions)
            self._regions.append((region, gizmo, None))
            gizmo.on_update(lambda _: self._moved(place))
            self._size.value = tuple(region.size.tolist())
            self._redraw()

    def remove(self) -> None:
        """Removes the last region."""
        with self.drawer.lock:
            if self._regions:
                _, gizmo, lines = self._regions.pop()
                gizmo.remove()
                lines.remove()
            if self._regions:
                self._size.value = tuple(self._regions[-1][0].size.tolist())
            self._redraw()

    def write(self, name: str) -> Path:
        """Writes the selection into the folder.

        Raises:
            InputError: No region is selected, or the name is not a plain file name.
            OutputExistsError: A file of this name exists that this viewer did not write.
        """
        if not self._regions:
            raise InputError("selection: got no region; add a box or a sphere first")
        stem = name.strip().removesuffix(_SUFFIX)
        if not _NAME.fullmatch(stem):  # chosen by any visitor of the page, so it must not leave the folder
            raise InputError(f"file name: got {name!r}; want letters, digits, _ . - with a letter or digit first")
        path = self.folder / f"{stem}{_SUFFIX}"
        if path.exists() and path not in self._written:
            raise OutputExistsError(path, "choose another name")
        self.selection.save(path)
        self._written.add(path)
        return path

    def _moved(self, place: int) -> None:
        with self.drawer.lock:
            if place >= len(self._regions):
                return
            region, gizmo, lines = self._regions[place]
            center = torch.tensor(gizmo.position, dtype=torch.float32)
            quat = torch.tensor(gizmo.wxyz, dtype=torch.float32)
            self._regions[place] = (Region(region.kind, center, region.size, quat), gizmo, lines)
            self._redraw(place)

    def _resized(self) -> None:
        with self.drawer.lock:
            if not self._regions:
                return
            region, gizmo, lines = self._regions[-1]
            size = torch.tensor(self._size.value, dtype=torch.float32).clamp(min=0)
            if region.kind == "sphere":  # one radius: the changed number counts
                size = size[(size - region.size).abs().argmax()].expand(3).clone()
                if not bool((torch.tensor(self._size.value) == size).all()):
                    self._size.value = tuple(size.tolist())
            self._regions[-1] = (Region(region.kind, region.center, size, region.quat), gizmo, lines)
            self._redraw(len(self._regions) - 1)

    def _redraw(self, only: int | None = None) -> None:
        last = len(self._regions) - 1
        for place, (region, gizmo, _) in enumerate(self._regions):
            if only is not None and place != only:
                continue
            color = _ACTIVE_COLOR if place == last else _COLOR
            points = region_lines(region).numpy()
            name = f"/selection/lines_{place}"
            lines = self.server.scene.add_line_segments(name, points, color, thickness=2.5, thickness_units="screen")
            self._regions[place] = (region, gizmo, lines)
        self._recount()

    def _recount(self) -> None:
        counts = count_selected(self.selection, self.drawer.layers) if self._regions else {}
        rows = [f"{name}: {inside:,} of {total:,}" for name, (inside, total) in counts.items()]
        self._count.content = "  \n".join(rows) or "nothing selected"

    def _write(self, client: Any) -> None:
        try:
            path = self.write(self._name.value)
        except (InputError, OutputExistsError) as error:
            title, body, color = "Not written", str(error), "red"
        else:
            title, body, color = "Selection written", str(path), "green"
        if client is not None:
            client.add_notification(title, body, auto_close_seconds=8.0, color=color)


def count_selected(selection: Selection, layers: Layers) -> dict[str, tuple[int, int]]:
    """Number of selected and of all Gaussians, points or vertices of each visible layer in its rest state."""
    counts = {}
    for layer in layers:
        value = getattr(layer.value, "base", layer.value)
        points = value.means if isinstance(value, GaussianScene) else None
        points = value.points if isinstance(value, PointCloud) else points
        points = value.vertices if isinstance(value, Mesh) else points
        if points is None or not layer.visible:
            continue
        world = se3.transform_points(layer.transform.to(points), points)
        counts[layer.name] = (int(selection.mask(world).sum()), len(points))
    return counts
