"""The viewer without its window: content, view and time, and the actions of mouse, keys and buttons."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import InputError, Vision3DError
from vision3d.scene import Cameras, PosedImages, Selection
from vision3d.scene.selection import Region
from vision3d.viewer.content import Content
from vision3d.viewer.drawing import Color, draw, to_bytes
from vision3d.viewer.flight import FPS, Flight
from vision3d.viewer.layers import Layers
from vision3d.viewer.loop import RenderLoop, Request, Shown
from vision3d.viewer.navigation import FreeCamera
from vision3d.viewer.photographs import Photograph, Thumbnails, blended
from vision3d.viewer.picking import Pick, pick
from vision3d.viewer.recording import Recorder, next_path, save_image, write_video
from vision3d.viewer.viewpoint import Bounds, start_viewpoint

_REFRESH_S = 1.0


def first_view(layers: Layers, bounds: Bounds) -> FreeCamera:
    """The initial view of these layers."""
    return FreeCamera.of(start_viewpoint(layers, bounds, layers.up), layers.up)


class Session:
    """State and actions of a window.

    Args:
        layers: The layers.
        size: Width and height of the image [px].
        out: Folder for written files.
        background: Background color.
        show: Receives each image, in the rendering thread.
        say: Receives status messages, in any thread.
        start: The first view; that of the layers when None.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        size: tuple[int, int] = (1280, 720),
        out: Path = Path(),
        background: Color = (0.0, 0.0, 0.0),
        show: Callable[[Shown], None] = lambda shown: None,
        say: Callable[[str], None] = lambda text: None,
        start: FreeCamera | None = None,
    ) -> None:
        self.layers, self.size, self.out, self.background = layers, size, out, background
        self._show, self.say = show, say
        self.content = Content(layers)
        self.drawer: Callable[[Request], None] | None = None
        """Receives requests instead of the CPU rendering loop, except those with a photo."""
        self.home = start or first_view(layers, self.content.bounds)
        self.view = self.home
        times = layers.times
        self.time = float(times[0]) if len(times) else 0.0
        self.is_playing = False
        self.with_cameras = True
        self.chosen: tuple[str, int] | None = None
        self.photograph_weight = 0.5
        self.regions: tuple[Region, ...] = ()
        self.region_kind: str | None = None
        """Region placed by a click: sphere, box, or nothing."""
        self.region_size = 0.15 * self.content.radius
        self.picked: Pick | None = None
        self.flight = Flight()
        self.last: Shown | None = None
        self._at_camera: FreeCamera | None = None
        self._photograph: Photograph | None = None
        self._recorder: Recorder | None = None
        self._video: threading.Thread | None = None
        self._is_open, self._asking = True, threading.Lock()
        self._refreshing: threading.Thread | None = None
        self._refreshed = self._ticked = time.perf_counter()
        self._thumbnails: list[Thumbnails] = []
        self.loop = RenderLoop(self._on_image, on_error=lambda error: say(f"rendering failed: {error}"))
        if start is None and self.content.camera_layers:
            self.choose_camera(self.content.camera_layers[0].name, 0)

    # Looking

    def camera(self) -> Cameras:
        """The current camera."""
        return self.view.camera(*self.size)

    def move(self, view: FreeCamera) -> None:
        """Changes the view."""
        self.view = view
        self.request(is_moving=True)

    def resize(self, width: int, height: int) -> None:
        """Changes the size of the image [px]."""
        if (width, height) != self.size and min(width, height) > 0:
            self.size = (width, height)
            if self.is_at_camera and self.chosen is not None:
                self.choose_camera(*self.chosen)
            self.request(is_moving=True)

    def request(self, is_moving: bool = True) -> None:
        """Requests an image of the current state."""
        with self._asking:  # so that the last request has the latest state, from any thread
            request = self.now(is_moving)
            if not self._is_open:
                return
            if self.drawer is not None and request.finish is None:
                self.drawer(request)
                if self._recorder is None:
                    return
            self.loop.request(request)

    def now(self, is_moving: bool = True) -> Request:
        """A request for an image of the current state."""
        at_camera = self.is_at_camera
        options = {
            "chosen": self.chosen,
            "with_cameras": self.with_cameras and not at_camera,
            "regions": self.regions,
            "mark": None if self.picked is None else self.picked.position,
            "path": None if self.flight.time is not None else self.flight.points(),
        }
        moment, finish = self.time, None
        photo = self._photograph.placed if at_camera and self._photograph is not None else None
        if photo is not None and self.photograph_weight > 0:
            weight = self.photograph_weight
            finish = lambda pixels: blended(pixels, photo, weight)  # noqa: E731
        models = lambda: self.content.models(moment, **options)  # noqa: E731
        return Request(models, self.camera(), self.background, is_moving, finish)

    @property
    def is_at_camera(self) -> bool:
        """Whether the view is that of the selected camera."""
        return self.chosen is not None and self._at_camera is self.view

    def choose_camera(self, layer: str, index: int) -> None:
        """Jumps to a camera and blends its photo over the image.

        Raises:
            InputError: The layer or camera does not exist.
        """
        cameras = self.layers[layer].cameras
        if cameras is None or not 0 <= index < len(cameras):
            raise InputError(f"no camera {index} in {layer}; it has {0 if cameras is None else len(cameras)}")
        depth = float((self.content.bounds.center - cameras.centers[index].cpu()) @ cameras.camtoworlds[index, :3, 2].cpu())
        distance = depth if depth > 0.1 * self.content.radius else self.content.radius
        self.chosen = (layer, index)
        self.view = self._at_camera = FreeCamera.of_camera(cameras[index], self.home.up, distance, self.size)
        self.flight.stop()
        images = self.layers[layer].value
        self._photograph = None
        if isinstance(images, PosedImages):
            self._photograph = Photograph(images, index, self.camera(), lambda: self.request(is_moving=False), self.say)
        self.request(is_moving=True)

    def set_up(self, up: Float[Tensor, "3"]) -> None:
        """Changes the up direction."""
        self.home = self.home.with_up(up)
        self.move(self.view.with_up(up))

    def load_thumbnails(self) -> None:
        """Reads thumbnails of the photos into the frusta of the camera layers."""
        parts: dict[str, tuple] = {}

        def show(name: str, surfaces: tuple) -> None:
            parts[name] = surfaces
            self.content.photographs = [surface for part in parts.values() for surface in part]
            self.request(is_moving=False)

        for layer in self.content.camera_layers:
            cameras = layer.cameras
            if isinstance(layer.value, PosedImages) and cameras is not None:
                self._thumbnails.append(
                    Thumbnails(layer.value, cameras, self.content.radius, lambda made, name=layer.name: show(name, tuple(made)))
                )

    # Time

    def set_time(self, moment: float) -> None:
        """Shows another time [s] of the animation."""
        self.time = moment
        self.request(is_moving=True)

    def step_frame(self, steps: int) -> None:
        """Moves forward or back by some frames."""
        times = self.layers.times
        if len(times):
            now = int(torch.searchsorted(times, self.time + 1e-9, right=True)) - 1
            self.set_time(float(times[max(0, min(len(times) - 1, now + steps))]))

    def tick(self) -> None:
        """Advances the time: plays the animation and rereads growing files."""
        now = time.perf_counter()
        passed, self._ticked = now - self._ticked, now
        if self.is_playing and len(times := self.layers.times) > 1:
            # The last frame is shown for one frame duration before the loop restarts.
            period = float(times[-1] - times[0]) * len(times) / (len(times) - 1)
            self.set_time(float(times[0]) + (self.time - float(times[0]) + passed) % period)
        if (view := self.flight.advance(passed)) is not None:
            self.move(view)
        is_reading = self._refreshing is not None and self._refreshing.is_alive()
        if self.layers.is_followed and now - self._refreshed > _REFRESH_S and not is_reading:
            self._refreshed = now
            self._refreshing = threading.Thread(target=self._refresh, name="refresh", daemon=True)
            self._refreshing.start()

    # Picking and selecting

    def click(self, x: float, y: float) -> Pick | None:
        """Picks the element at an image position, and places a region there if one is selected."""
        self.picked = pick(self.content.named(self.time), self.camera(), x, y)
        if self.picked is not None and self.region_kind is not None:
            self.put_region(self.picked.position)
        self.request(is_moving=False)
        return self.picked

    def put_region(self, center: Float[Tensor, "3"]) -> None:
        """Adds a sphere or box of the selected size."""
        center = center.float()
        if self.region_kind == "box":
            region = Region.box(center, torch.full((3,), self.region_size))
        else:
            region = Region.sphere(center, self.region_size)
        self.regions = (*self.regions, region)
        self.request(is_moving=False)

    def resize_region(self, size: float) -> None:
        """Resizes the last region and sets the size for new ones [m]."""
        self.region_size = size
        if self.regions:
            last = self.regions[-1]
            self.regions = (*self.regions[:-1], replace(last, size=torch.full((3,), size)))
        self.request(is_moving=True)

    def clear_regions(self) -> None:
        """Clears the selection."""
        self.regions = ()
        self.request(is_moving=False)

    def save_selection(self) -> Path:
        """Writes the regions as a selection.

        Raises:
            InputError: No regions.
        """
        if not self.regions:
            raise InputError("nothing is selected; choose sphere or box and click into the image")
        Selection(self.regions).save(path := next_path(self.out, "selection", ".json"))
        return path

    # Camera paths

    def add_key(self) -> None:
        """Adds the view to the camera path."""
        self.flight.add(self.view)
        self.request(is_moving=False)

    def fly(self, on: bool) -> None:
        """Plays the camera path, or stops it.

        Raises:
            InputError: It has fewer than two keys, or all are the same.
        """
        self.flight.start() if on else self.flight.stop()
        self._ticked = time.perf_counter()
        self.request()

    def clear_path(self) -> None:
        """Removes all keys."""
        self.flight.clear()
        self.request(is_moving=False)

    def save_path(self) -> Path:
        """Writes the keys of the camera path as a cameras.json.

        Raises:
            InputError: No keys.
        """
        self.flight.save(path := next_path(self.out, "path", ".cameras.json"), self.size)
        return path

    def load_path(self, path: Path) -> None:
        """Loads the cameras of a file as the keys.

        Raises:
            Vision3DError: The file cannot be read.
        """
        self.flight.load(path, self.home.up, self.view.distance)
        self.request(is_moving=False)

    # Files

    def save_screenshot(self) -> Path:
        """Writes an image of the current view in full quality."""
        request = self.now(is_moving=False)
        pixels = to_bytes(draw(request.models(), request.camera, request.background).image)
        if request.finish is not None:
            pixels = request.finish(pixels)
        return save_image(next_path(self.out, "view", ".png"), pixels)

    @property
    def is_recording(self) -> bool:
        return self._recorder is not None

    def record(self, on: bool) -> None:
        """Starts or stops recording the window to a video."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            count = recorder.close()
            self.say(f"{recorder.path}: {count} frames" if count else "nothing was recorded")
        if on:
            self._recorder = Recorder(next_path(self.out, "recording", ".mp4"))
            self.request()

    def render_path(self) -> Path | None:
        """Writes a video along the camera path, or of the time line without keys, in full quality.

        It runs in the background; a second call cancels it and returns None.

        Raises:
            InputError: Neither a path nor an animation.
        """
        if self._video is not None and self._video.is_alive():
            self._video = None
            return None
        times = self.layers.times
        keys = self.flight.keys
        if len(keys) < 2 and len(times) < 2:
            raise InputError("no camera path with two keys and no animation")
        seconds = self.flight.seconds if len(keys) > 1 else float(times[-1] - times[0])
        count = max(2, round(seconds * FPS))
        path, flight = next_path(self.out, "path", ".mp4"), Flight()
        flight.keys = keys
        self._video = threading.Thread(target=self._render_path, args=(path, count, self.now(), self.time, flight), daemon=True)
        self._video.start()
        return path

    def close(self) -> None:
        """Stops all threads and finishes all files."""
        self._is_open = False
        self.record(False)
        video, self._video = self._video, None
        if video is not None:
            video.join()
        for thumbnails in self._thumbnails:
            thumbnails.close()
        if self._refreshing is not None:
            self._refreshing.join()
        self.loop.close()

    def _on_image(self, shown: Shown) -> None:
        self.last = shown
        recorder = self._recorder
        if recorder is not None:
            recorder.append(shown.pixels)
        self._show(shown)

    def _refresh(self) -> None:
        try:
            changed = self.layers.refresh()
        except Vision3DError as error:
            self.say(str(error))
            return
        if changed:
            self.say(self.layers.note())
            self.request(is_moving=False)

    def _render_path(self, path: Path, count: int, request: Request, start: float, flight: Flight) -> None:
        me, times = threading.current_thread(), self.layers.times
        size = (int(request.camera.width), int(request.camera.height))

        def images() -> Iterator[np.ndarray]:
            for number in range(count):
                share = number / (count - 1)
                moment = start if len(times) < 2 else float(times[0] + share * (times[-1] - times[0]))
                models = self.content.models(moment, with_cameras=False)
                camera = flight.at(share * flight.seconds).camera(*size) if len(flight.keys) > 1 else request.camera
                yield to_bytes(draw(models, camera, request.background).image)

        def is_wanted(number: int) -> bool:
            self.say(f"{path.name}: frame {number} of {count}")
            return self._video is me

        try:
            written = write_video(path, images(), FPS, is_wanted)
        except Vision3DError as error:
            self.say(str(error))
            return
        self.say(f"{path}: {written} frames" if written else "the video was canceled")
