"""The control panel of the web page: layers, time, views and screenshots."""

import io
import logging
import math
from typing import Any

import numpy as np

from vision3d.core.errors import Vision3DError
from vision3d.viewer.layers import Layers, describe
from vision3d.viewer.rigs import LEGENDS, Rig
from vision3d.viewer.viewpoint import Viewpoint
from vision3d.viewer.web_draw import Drawer
from vision3d.viewer.widgets import shortened

logger = logging.getLogger("vision3d.view")

_ROW_CHARACTERS = 34  # that fit beside a checkbox
# viser gives labels a third of the panel, so that names wrap letter by letter; and a narrow window's panel has a fixed width.
# Rules that match nothing, in another version of viser or an old browser, leave its page as it is.
_ROW = 'div:has(> div > p > label):has(> div input[type="checkbox"])'
_SHEET = 'div[style*="max-height: 60%"][style*="20em"]'
_STYLE = f"""<style>
{_ROW} {{ flex-direction: row-reverse; gap: 0.6em; }}
{_ROW} > div:has(> p) {{ width: auto !important; flex: 1 1 0 !important; min-width: 0; padding: 0; }}
{_ROW} > div:not(:has(> p)) {{ flex-grow: 0 !important; }}
{_ROW} > div > p {{ white-space: nowrap; overflow: hidden; text-overflow: ellipsis; letter-spacing: normal !important; }}
{_ROW} wbr {{ display: none; }}
@media (max-width: 36em) {{
  {_SHEET} {{ width: 100% !important; max-height: 45% !important; }}
  {_SHEET} div[style*="width: 20em"] {{ width: 100% !important; }}
}}
</style>"""


class Panel:
    """Controls next to the image.

    Args:
        server: A `viser.ViserServer`.
        layers: The layers.
        drawer: Draws the layers.
    """

    def __init__(self, server: Any, layers: Layers, drawer: Drawer) -> None:
        self.server, self.layers, self.drawer = server, layers, drawer
        self.time_s = 0.0
        gui = server.gui
        gui.add_html(_STYLE, order=10)
        self._note = gui.add_markdown("", order=0)
        self._layer_folder = gui.add_folder("Layers", order=2)
        self._checkboxes: dict[str, Any] = {}
        self._rig_names: set[str] = set()
        self._time_folder: Any = None
        self._slider: Any = None
        self._moments: list[float] = []
        with gui.add_folder("View", order=3):
            self._reset = gui.add_button("Reset view")
            self._cameras = gui.add_dropdown("Cameras of", ("-",), visible=False)
            self._camera = gui.add_slider("Camera", 0, 1, 1, 0, visible=False)
            self._save = gui.add_button("Save image")
        self._reset.on_click(lambda event: self.look(event.client, self.layers.start))
        self._cameras.on_update(lambda event: self._choose(event.client))
        self._camera.on_update(lambda event: self._jump(event.client))
        self._save.on_click(lambda event: self._save_image(event.client))
        self.rebuild()

    @property
    def is_playing(self) -> bool:
        return self._slider is not None and bool(self._play.value)

    @property
    def frame_seconds(self) -> float:
        """Duration of a frame while playing."""
        return 1 / float(self._speed.value)

    def rebuild(self) -> None:
        """Updates layers, frames and notes."""
        self._note.content = self.layers.note()
        self._note.visible = bool(self._note.content)
        for layer in self.layers:
            count = describe(layer, self.layers.frame(layer.name))
            label = f"{shortened(layer.name, _ROW_CHARACTERS - len(count))} ({count})"
            hint = f"{layer.name} ({count})"
            box = self._checkboxes.get(layer.name)
            if box is None:
                with self._layer_folder:
                    box = self.server.gui.add_checkbox(label, layer.visible, hint=hint)
                box.on_update(lambda _, name=layer.name, box=box: self._show(name, bool(box.value)))
                self._checkboxes[layer.name] = box
            elif box.label != label:
                box.label, box.hint = label, hint
        for name, rig in self.layers.rigs.items():
            if name not in self._rig_names:
                self._rig_names.add(name)
                self._add_rig(name, rig)
        self._rebuild_time()
        names = tuple(layer.name for layer in self.layers if layer.cameras is not None and len(layer.cameras))
        if names and self._cameras.options != names:
            self._cameras.options = names
            self._cameras.visible = len(names) > 1
            self._choose(None)

    def advance(self) -> None:
        """Moves one frame forward, from the last to the first."""
        if self._slider is not None and self._moments:
            self._slider.value = (int(self._slider.value) + 1) % len(self._moments)
            self._moved()

    def look(self, client: Any, view: Viewpoint) -> None:
        """Moves a browser's camera to a viewpoint."""
        if client is None:
            return
        with client.atomic():
            client.camera.up_direction = view.up.double().numpy()
            client.camera.position = view.position.double().numpy()
            client.camera.look_at = view.target.double().numpy()
            client.camera.fov = math.radians(view.fov_deg)

    def look_through(self, client: Any, name: str, index: int) -> None:
        """Moves a browser's camera to where a photo was taken."""
        cameras = self.layers[name].cameras
        if cameras is not None:
            self.look(client, Viewpoint.of_camera(cameras.to("cpu"), index, self.drawer.bounds))

    def _show(self, name: str, visible: bool) -> None:
        self.drawer.show(name, visible)
        self.drawer.draw(self.time_s)

    def _add_rig(self, name: str, rig: Rig) -> None:
        """Clip and coloring of a mesh with joints; its skeleton is a layer."""
        gui = self.server.gui
        kinds = {words: kind for kind, words in rig.colorings.items()}
        with gui.add_folder(f"Joints of {name}", order=2.5):
            clip = gui.add_dropdown("Clip", rig.clips, initial_value=rig.clip)
            shown = rig.colorings[rig.colors]
            colors = gui.add_dropdown("Colors", tuple(kinds), initial_value=shown, visible=len(kinds) > 1)
            legend = gui.add_markdown("")

        def tell(kind: str) -> None:
            legend.content = "  \n".join(LEGENDS.get(kind, ()))
            legend.visible = kind in LEGENDS

        def recolor(_: Any) -> None:
            self._change_rig(name, colors=kinds[colors.value])
            tell(kinds[colors.value])

        clip.on_update(lambda _: self._change_rig(name, clip=clip.value))
        colors.on_update(recolor)
        tell(rig.colors)

    def _change_rig(self, name: str, **choice: str) -> None:
        with self.drawer.lock:
            self.layers.change_rig(name, **choice)
            self.rebuild()
            self.drawer.draw(self.time_s)

    def _rebuild_time(self) -> None:
        moments = self.layers.times.tolist()
        if moments == self._moments:
            return
        self._moments = moments
        if self._time_folder is not None:
            self._time_folder.visible = len(moments) > 1
        if len(moments) < 2:
            self.time_s = moments[0] if moments else 0.0
            return
        gui = self.server.gui
        if self._slider is None:
            self._time_folder = gui.add_folder("Time", order=1)
            with self._time_folder:
                self._slider = gui.add_slider("Frame", 0, len(moments) - 1, 1, 0)
                self._clock = gui.add_markdown("")
                self._play = gui.add_checkbox("Play", False)
                self._speed = gui.add_slider("Frames per second", 1, 60, 1, 12)
            self._slider.on_update(lambda _: self._moved())
        self._slider.max = len(moments) - 1
        self._slider.value = min(int(self._slider.value), len(moments) - 1)
        self._moved()

    def _moved(self) -> None:
        if not self._moments:  # the slider is hidden
            return
        index = min(int(self._slider.value), len(self._moments) - 1)
        self.time_s = self._moments[index]
        self._clock.content = f"{self.time_s:.4g} s"
        try:
            self.drawer.draw(self.time_s)
        except Vision3DError as error:  # a damaged frame: the previous one stays
            logger.warning("%s", error)

    def _choose(self, client: Any) -> None:
        cameras = self.layers[self._cameras.value].cameras
        if cameras is None:
            return
        self._camera.visible = len(cameras) > 1
        if len(cameras) > 1:
            self._camera.max = len(cameras) - 1
            self._camera.value = min(int(self._camera.value), len(cameras) - 1)
        self._jump(client)

    def _jump(self, client: Any) -> None:
        if client is not None and self._cameras.value in self._checkboxes:
            self.look_through(client, self._cameras.value, int(self._camera.value))

    def _save_image(self, client: Any) -> None:
        """Saves the browser's rendering."""
        if client is None:
            return
        try:
            image = client.get_render(client.camera.image_height, client.camera.image_width, transport_format="png", timeout=60)
        except (RuntimeError, TimeoutError) as error:
            client.add_notification("No image", str(error), auto_close_seconds=8.0, color="red")
            return
        client.send_file_download("vision3d.png", png_of(image), save_immediately=True)


def png_of(pixels: np.ndarray) -> bytes:
    """Encodes an image (H, W, 3 or 4) of bytes as a PNG, on white where it is transparent."""
    from PIL import Image

    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = (pixels[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
