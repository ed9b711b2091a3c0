"""The side panel of the window: each section is a box of Open3D widgets connected to a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vision3d.core.errors import Vision3DError
from vision3d.scene import PosedImages
from vision3d.viewer.help import help_dialog
from vision3d.viewer.layers import describe
from vision3d.viewer.navigation import UP_AXES
from vision3d.viewer.rigs import LEGENDS, Rig
from vision3d.viewer.session import Session
from vision3d.viewer.session_edits import SessionEdits
from vision3d.viewer.widgets import Widgets, shortened

BACKGROUNDS = {"black": (0.0, 0.0, 0.0), "gray": (0.22, 0.23, 0.25), "white": (1.0, 1.0, 1.0)}
_PICK_LINES = 4
_ROW = 38  # characters beside a checkbox
_MAX_ROWS = 10  # maximum layers without scrolling


class Panel:
    """Sections for layers, time, cameras, view, selection, edits, camera path and files.

    Args:
        gui: The module `open3d.visualization.gui`.
        window: Its window.
        session: Changed by the widgets.
    """

    def __init__(self, gui: Any, window: Any, session: Session) -> None:
        self._gui, self._window, self._session = gui, window, session
        em = window.theme.font_size
        self._make = Widgets(gui, em, self.say)
        # A ScrollableVert hides the tracks of sliders; the scroll bar of a Vert lies over its right margin.
        edge = round(0.7 * em)
        self.widget = gui.Vert(round(0.5 * em), gui.Margins(edge, edge, round(1.6 * em), edge))
        self.foot = gui.Vert(0, gui.Margins(round(0.7 * em), round(0.3 * em)))
        self.status = gui.Label("")
        self.foot.add_child(self.status)
        self.time_bar: Any = None
        self.has_dialog = False
        self._checks: dict[str, Any] = {}
        self._camera_names: list[tuple[str, int]] = []
        self._tools()
        self._layer_box = self._make.section(self.widget, "Layers", True)
        if len(list(session.layers)) > _MAX_ROWS:
            rows = gui.ScrollableVert(round(0.35 * em))
            self._layer_box.add_child(rows)
            self._layer_box = rows
        self.update_layers()
        self._rigs()
        self._cameras()
        self._selection()
        self._edits()
        self._view()
        self._path()
        if len(session.layers.times) > 1:
            self._time()

    # Reacting

    def update_layers(self) -> None:
        """Adds rows for new layers and updates the counts of changed ones."""
        for layer in self._session.layers:
            count = describe(layer, self._session.layers.frame(layer.name, self._session.time))
            text = f"{shortened(layer.name, _ROW - len(count))}   {count}"
            check = self._checks.get(layer.name)
            if check is None or check[1] != text:
                if check is None:
                    proxy = self._gui.WidgetProxy()
                    self._layer_box.add_child(proxy)
                else:
                    proxy = check[0]
                widget = self._gui.Checkbox(text)
                widget.checked = layer.visible
                widget.set_on_checked(self._make.on(lambda on, name=layer.name: self._show_layer(name, on)))
                proxy.set_widget(widget)
                self._checks[layer.name] = (proxy, text)

    def update(self) -> None:
        """Updates the widgets to the state of the session."""
        session = self._session
        if self.time_bar is not None:
            times = session.layers.times
            is_still = len(times) < 2
            limits = (0.0, 1.0) if is_still else (float(times[0]), float(times[-1]))
            if limits != self._limits:
                self._slider.set_limits(*limits)
                self._limits = limits
            self._slider.enabled = self._play.enabled = not is_still
            self._slider.double_value = session.time
            self._play.text = "Pause" if session.is_playing else "Play"
            self._clock.text = f"{session.time:.3f} s"
        text = self._pick_text()
        if text != self._pick_label.text:
            self._pick_label.text = text
            self._window.set_needs_layout()
        self._region_label.text = f"{len(session.regions)} placed" if session.regions else "nothing selected"
        self._path_label.text = f"{len(session.flight.keys)} keys" if session.flight.keys else "no keys yet"
        self._fly.text = "Stop" if session.flight.time is not None else "Play"
        self._record.text = "Stop" if session.is_recording else "Record"
        if self._camera_names:
            self._frusta.checked = session.with_cameras
            if session.chosen in self._camera_names:
                self._list.selected_index = self._camera_names.index(session.chosen)

    def act(self, action: Callable[[], Any], done: str = "") -> None:
        """Runs a button's action; the status line shows the error, or `done` with the result."""
        try:
            result = action()
        except Vision3DError as error:
            self.say(str(error))
        else:
            if done:
                self.say(done.format(result))
        self.update()

    def say(self, text: str) -> None:
        """Shows a line at the bottom of the panel."""
        width = 40
        words, lines = text.split(), [""]
        for word in words:
            parts = [word[i : i + width] for i in range(0, len(word), width)] or [""]
            for part in parts:
                if len(lines[-1]) + len(part) + 1 > width:
                    lines.append("")
                lines[-1] = f"{lines[-1]} {part}".strip()
        self.status.text = "\n".join(lines[:4])
        self._window.post_redraw()

    def next_camera(self, step: int) -> None:
        """Jumps to another camera in the list."""
        if not self._camera_names:
            return
        chosen = self._session.chosen
        now = self._camera_names.index(chosen) if chosen in self._camera_names else -step
        self.act(lambda: self._session.choose_camera(*self._camera_names[(now + step) % len(self._camera_names)]))

    def toggle_path(self) -> None:
        """Plays the camera path, or stops it."""
        self.act(lambda: self._session.fly(self._session.flight.time is None))

    def toggle_recording(self) -> None:
        """Starts or stops recording."""
        self.act(lambda: self._session.record(not self._session.is_recording))

    def screenshot(self) -> None:
        """Saves a screenshot."""
        self.act(self._session.save_screenshot, "wrote {}")

    def show_help(self) -> None:
        """Shows mouse and keys in a dialog."""
        self._show_dialog(help_dialog(self._make, self._window.content_rect.width, self.close_dialog))

    def _show_dialog(self, dialog: Any) -> None:
        self.has_dialog = True
        self._window.show_dialog(dialog)

    def close_dialog(self) -> None:
        """Closes the dialog, if there is one."""
        if self.has_dialog:
            self.has_dialog = False
            self._window.close_dialog()

    # Sections

    def _show_layer(self, name: str, on: bool) -> None:
        self._session.layers.show(name, on)
        self._session.request(is_moving=False)

    def _rigs(self) -> None:
        """Clip and coloring for each mesh with joints; its skeleton is a layer."""
        rigs = self._session.layers.rigs
        for name, rig in rigs.items():
            box = self._make.section(self.widget, "Joints" if len(rigs) == 1 else f"Joints of {name}", True)
            clips = self._make.choice(
                rig.clips, rig.clips.index(rig.clip), lambda clip, name=name: self._change_rig(name, clip=clip)
            )
            self._make.row(box, self._gui.Label("clip"), clips)
            if len(rig.colorings) > 1:
                self._colorings(box, name, rig)

    def _colorings(self, box: Any, name: str, rig: Rig) -> None:
        """Coloring, and a legend if it is continuous."""
        kinds, legend = {words: kind for kind, words in rig.colorings.items()}, self._gui.Label("")

        def tell(kind: str) -> None:
            legend.text = "\n".join(LEGENDS.get(kind, ()))
            legend.visible = kind in LEGENDS
            self._window.set_needs_layout()

        def recolor(text: str) -> None:
            self._change_rig(name, colors=kinds[text])
            tell(kinds[text])

        colors = self._make.choice(list(kinds), list(kinds.values()).index(rig.colors), recolor)
        self._make.row(box, self._gui.Label("colors"), colors)
        box.add_child(legend)
        tell(rig.colors)

    def _change_rig(self, name: str, **choice: str) -> None:
        session = self._session

        def change() -> None:
            session.layers.change_rig(name, **choice)
            session.set_time(session.layers.nearest_time(session.time))

        self.act(change)
        self.update_layers()

    def _cameras(self) -> None:
        session, gui = self._session, self._gui
        layers = session.content.camera_layers
        if not layers:
            return
        box = self._make.section(self.widget, "Cameras", True)
        self._frusta = gui.Checkbox("show frustums")
        self._frusta.checked = True
        self._frusta.set_on_checked(self._make.on(self._show_cameras))
        box.add_child(self._frusta)
        names = []
        for layer in layers:
            cameras = layer.cameras
            for index in range(len(cameras)):  # pyright: ignore[reportArgumentType]
                self._camera_names.append((layer.name, index))
                name = cameras.names[index] if cameras is not None and cameras.names else str(index)
                names.append(name if len(layers) == 1 else f"{layer.name} {name}")
        self._list = gui.ListView()
        self._list.set_items(names)
        self._list.set_max_visible_items(min(6, len(names)))
        self._list.set_on_selection_changed(self._make.on(lambda name, is_double: self._jump(self._list.selected_index)))
        box.add_child(self._list)
        self._make.row(
            box,
            self._make.button("Previous", lambda: self.next_camera(-1)),
            self._make.button("Next", lambda: self.next_camera(1)),
        )
        if any(isinstance(layer.value, PosedImages) for layer in layers):
            box.add_child(gui.Label("photo over the render"))
            box.add_child(self._make.slider(0, 1, session.photograph_weight, self._set_weight))

    def _jump(self, index: int) -> None:
        if 0 <= index < len(self._camera_names):
            self.act(lambda: self._session.choose_camera(*self._camera_names[index]))

    def _show_cameras(self, on: bool) -> None:
        self._session.with_cameras = on
        self._session.request(is_moving=False)

    def _set_weight(self, weight: float) -> None:
        self._session.photograph_weight = weight
        self._session.request(is_moving=False)

    def _view(self) -> None:
        session, gui = self._session, self._gui
        box = self._make.section(self.widget, "View", False)
        axes = gui.Combobox()
        names = ["as opened", *UP_AXES]
        for name in names:
            axes.add_item(name)
        first_up = session.home.up
        axes.set_on_selection_changed(
            self._make.on(lambda name, index: session.set_up(torch.tensor(UP_AXES[name]) if name in UP_AXES else first_up))
        )
        self._make.row(box, gui.Label("up"), axes)
        colors = gui.Combobox()
        for name in BACKGROUNDS:
            colors.add_item(name)
        if session.background in BACKGROUNDS.values():
            colors.selected_index = list(BACKGROUNDS.values()).index(session.background)
        colors.set_on_selection_changed(self._make.on(lambda name, index: self._set_background(name)))
        self._make.row(box, gui.Label("background"), colors)
        box.add_child(gui.Label("size of points"))
        dots = gui.Slider(gui.Slider.INT)
        dots.set_limits(1, 8)
        dots.int_value = session.content.dot_size
        dots.set_on_value_changed(self._make.on(self._set_dots))
        box.add_child(dots)

    def _set_background(self, name: str) -> None:
        self._session.background = BACKGROUNDS[name]
        self._session.request(is_moving=False)

    def _set_dots(self, size: float) -> None:
        self._session.content.dot_size = int(size)
        self._session.request(is_moving=False)

    def _selection(self) -> None:
        session, gui = self._session, self._gui
        box = self._make.section(self.widget, "Pick and select", True)
        self._pick_label = gui.Label(self._pick_text())
        box.add_child(self._pick_label)
        kinds = gui.Combobox()
        for name in ("nothing", "sphere", "box"):
            kinds.add_item(name)
        kinds.set_on_selection_changed(
            self._make.on(lambda name, index: setattr(session, "region_kind", None if index == 0 else name))
        )
        self._make.row(box, gui.Label("a click places"), kinds)
        radius = session.content.radius
        size = self._make.slider(
            0.005 * radius, radius, session.region_size, lambda value: self.act(lambda: session.resize_region(value))
        )
        box.add_child(size)
        self._region_label = gui.Label("nothing selected")
        self._make.row(
            box,
            self._make.button("Save", lambda: self.act(session.save_selection, "wrote {}")),
            self._make.button("Clear", lambda: self.act(session.clear_regions)),
            self._region_label,
        )

    def _edits(self) -> None:
        """A text that changes the colors of what is selected."""
        edits = SessionEdits(self._session)
        box = self._make.section(self.widget, "Edit by text", False)
        text = self._gui.TextEdit()
        box.add_child(text)
        box.add_child(self._gui.Label("such as: make it red"))
        self._make.row(
            box,
            self._make.button("Apply", lambda: self.act(lambda: edits.apply(text.text_value))),
            self._make.button("Undo", lambda: self.act(edits.undo, "{}")),
            self._make.button("Save", lambda: self.act(edits.save, "wrote {}")),
        )

    def _pick_text(self) -> str:
        picked, lines = self._session.picked, ["click into the image"]
        if picked is not None:
            lines = picked.lines(self._session.layers.frame(picked.layer, self._session.time))
        return "\n".join(lines + [""] * (_PICK_LINES - len(lines)))  # so that the layout below does not move

    def _path(self) -> None:
        session, gui = self._session, self._gui
        box = self._make.section(self.widget, "Camera path", False)
        self._path_label = gui.Label("no keys yet")
        self._fly = self._make.button("Play", self.toggle_path)
        self._make.row(box, self._make.button("Add view", lambda: self.act(session.add_key)), self._fly, self._path_label)
        self._make.row(
            box,
            self._make.button("Save", lambda: self.act(session.save_path, "wrote {}")),
            self._make.button("Load", self._load_path),
            self._make.button("Clear", lambda: self.act(session.clear_path)),
            self._make.button("Video", lambda: self.act(session.render_path, "writing {}; press again to cancel")),
        )

    def _load_path(self) -> None:
        dialog = self._gui.FileDialog(self._gui.FileDialog.OPEN, "Cameras", self._window.theme)
        dialog.add_filter(".json", "Cameras (.json)")
        dialog.set_path(str(self._session.out.resolve()))
        dialog.set_on_cancel(self._make.on(self.close_dialog))

        def done(path: str) -> None:
            self.close_dialog()
            self.act(lambda: self._session.load_path(Path(path)))

        dialog.set_on_done(self._make.on(done))
        self._show_dialog(dialog)

    def _tools(self) -> None:
        self._record = self._make.button("Record", self.toggle_recording)
        self._make.row(
            self.widget,
            self._make.button("First view", lambda: self._session.move(self._session.home)),
            self._make.button("Screenshot", self.screenshot),
            self._record,
            self._make.button("Help", self.show_help),
        )

    def _time(self) -> None:
        session, gui = self._session, self._gui
        times = session.layers.times
        self._limits = (float(times[0]), float(times[-1]))
        em = self._make.em
        self.time_bar = gui.Horiz(round(0.6 * em), gui.Margins(round(0.6 * em), round(0.3 * em)))
        self._play = self._make.button("Play", self.toggle_time)
        self._slider = self._make.slider(float(times[0]), float(times[-1]), session.time, session.set_time)
        self._clock = gui.Label(f"{session.time:.3f} s")
        for widget in (self._play, self._make.lowered(self._slider), self._make.lowered(self._clock)):
            self.time_bar.add_child(widget)

    def toggle_time(self) -> None:
        """Plays or pauses the animation."""
        self._session.is_playing = not self._session.is_playing
        self.update()
