"""The viewer without its window: what is seen, from where, when, and what mouse, keys and buttons do to it."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.errors import InputError, Vision3DError
from vision3d.geometry.paths import interpolate_poses
from vision3d.scene import Cameras, PosedImages, Selection
from vision3d.scene.selection import Region
from vision3d.viewer.content import Content
from vision3d.viewer.layers import Layers
from vision3d.viewer.loop import PictureLoop, Request, Shown
from vision3d.viewer.navigation import FreeCamera
from vision3d.viewer.photographs import Thumbnails, blended, placed
from vision3d.viewer.picking import Pick, pick
from vision3d.viewer.picture import Color, draw, to_bytes
from vision3d.viewer.recording import Recorder, next_path, save_picture, write_video
from vision3d.viewer.viewpoint import Bounds, start_viewpoint

SECONDS_PER_KEY = 2.0
"""Of a camera path."""
VIDEO_FPS = 30.0
_REFRESH_S = 1.0


def first_view(layers: Layers, bounds: Bounds) -> FreeCamera:
    """Where a viewer of these layers begins."""
    up = layers.up
    return FreeCamera.of(start_viewpoint(layers, bounds, up), up)


class Session:
    """Everything that a window shows and does.

    Args:
        layers: What is shown.
        size: Width and height of the picture [px].
        out: Folder for what is written.
        background: Colour behind everything.
        show: Takes each picture, in the thread that draws.
        say: Takes a line for people, in any thread.
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
        """Takes requests in place of the loop that draws on the processor, but those with a photograph."""
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
        """What a click places: sphere, box, or nothing."""
        self.region_size = 0.15 * self.content.radius
        self.picked: Pick | None = None
        self.keys: list[FreeCamera] = []
        self.path_time: float | None = None
        self.last: Shown | None = None
        self._at_camera: FreeCamera | None = None
        self._photograph: tuple[FreeCamera, tuple[np.ndarray, np.ndarray]] | None = None
        self._recorder: Recorder | None = None
        self._video: threading.Thread | None = None
        self._is_open = True
        self._refreshing: threading.Thread | None = None
        self._refreshed = self._ticked = time.perf_counter()
        self._thumbnails: list[Thumbnails] = []
        self.loop = PictureLoop(self._on_picture, on_error=lambda error: say(f"could not draw: {error}"))
        if start is None and self.content.camera_layers:
            self.choose_camera(self.content.camera_layers[0].name, 0)

    # Looking

    def camera(self) -> Cameras:
        """The camera of the picture."""
        return self.view.camera(*self.size)

    def move(self, view: FreeCamera) -> None:
        """Look from elsewhere: coarse at once, whole when nothing more comes."""
        self.view = view
        self.request(is_moving=True)

    def resize(self, width: int, height: int) -> None:
        """The picture has another size [px]."""
        if (width, height) != self.size and min(width, height) > 0:
            self.size = (width, height)
            if self.is_at_camera and self.chosen is not None:
                self.choose_camera(*self.chosen)
            self.request(is_moving=True)

    def request(self, is_moving: bool = True) -> None:
        """Ask for a picture of the state as it is now."""
        if not self._is_open:
            return
        request = self.now(is_moving)
        if self.drawer is not None and request.finish is None:
            self.drawer(request)
        else:
            self.loop.request(request)

    def now(self, is_moving: bool = True) -> Request:
        """The request for a picture of the state as it is now."""
        at_camera = self.is_at_camera
        options = {
            "chosen": self.chosen,
            "with_cameras": self.with_cameras and not at_camera,
            "regions": self.regions,
            "mark": None if self.picked is None else self.picked.position,
            "path": None if self.path_time is not None or not self.keys else self._path_points(),
        }
        moment, finish = self.time, None
        if at_camera and self._photograph is not None and self.photograph_weight > 0 and self._photograph[0] is self.view:
            photograph, weight = self._photograph[1], self.photograph_weight
            finish = lambda pixels: blended(pixels, photograph, weight)  # noqa: E731
        models = lambda: self.content.models(moment, **options)  # noqa: E731
        return Request(models, self.camera(), self.background, is_moving, finish)

    @property
    def is_at_camera(self) -> bool:
        """Whether the view is that of the chosen camera."""
        return self.chosen is not None and self._at_camera is self.view

    def choose_camera(self, layer: str, index: int) -> None:
        """Jump to a camera and show its photograph over the picture.

        Raises:
            InputError: There is no such layer or camera.
        """
        cameras = self.layers[layer].cameras
        if cameras is None or not 0 <= index < len(cameras):
            raise InputError(f"no camera {index} in {layer}; it has {0 if cameras is None else len(cameras)}")
        depth = float((self.content.bounds.center - cameras.centers[index].cpu()) @ cameras.camtoworlds[index, :3, 2].cpu())
        distance = depth if depth > 0.1 * self.content.radius else self.content.radius
        self.chosen = (layer, index)
        self.view = self._at_camera = FreeCamera.of_camera(cameras[index], self.home.up, distance, self.size)
        self.path_time = None
        self._read_photograph(layer, index, self.view)
        self.request(is_moving=True)

    def set_up(self, up: Float[Tensor, "3"]) -> None:
        """Another direction is up."""
        self.home = self.home.with_up(up)
        self.move(self.view.with_up(up))

    def load_thumbnails(self) -> None:
        """Read the photographs of the camera layers, small, into their frusta."""
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
        """Show another moment [s] of what moves."""
        self.time = moment
        self.request(is_moving=True)

    def step_frame(self, steps: int) -> None:
        """Go some frames on or back."""
        times = self.layers.times
        if len(times):
            now = int(torch.searchsorted(times, self.time + 1e-9, right=True)) - 1
            self.set_time(float(times[max(0, min(len(times) - 1, now + steps))]))

    def tick(self) -> None:
        """Let time pass: what plays goes on, and what is being written is read again."""
        now = time.perf_counter()
        passed, self._ticked = now - self._ticked, now
        if self.is_playing and len(times := self.layers.times) > 1:
            # As long again as the last frame before it starts anew.
            period = float(times[-1] - times[0]) * len(times) / (len(times) - 1)
            self.set_time(float(times[0]) + (self.time - float(times[0]) + passed) % period)
        if self.path_time is not None and len(self.keys) > 1:
            self.path_time = (self.path_time + passed) % self.path_seconds
            self.move(self._on_path(self.path_time))
        is_reading = self._refreshing is not None and self._refreshing.is_alive()
        if self.layers.is_followed and now - self._refreshed > _REFRESH_S and not is_reading:
            self._refreshed = now
            self._refreshing = threading.Thread(target=self._refresh, name="refresh", daemon=True)
            self._refreshing.start()

    # Picking and selecting

    def click(self, x: float, y: float) -> Pick | None:
        """Pick what is at a place of the picture; a region is put there if one is to be placed."""
        self.picked = pick(self.content.named(self.time), self.camera(), x, y)
        if self.picked is not None and self.region_kind is not None:
            self.put_region(self.picked.position)
        self.request(is_moving=False)
        return self.picked

    def put_region(self, center: Float[Tensor, "3"]) -> None:
        """Add a sphere or box of the chosen size."""
        center = center.float()
        if self.region_kind == "box":
            region = Region.box(center, torch.full((3,), self.region_size))
        else:
            region = Region.sphere(center, self.region_size)
        self.regions = (*self.regions, region)
        self.request(is_moving=False)

    def resize_region(self, size: float) -> None:
        """Another size for the last region and those to come [m]."""
        self.region_size = size
        if self.regions:
            last = self.regions[-1]
            self.regions = (*self.regions[:-1], replace(last, size=torch.full((3,), size)))
        self.request(is_moving=True)

    def clear_regions(self) -> None:
        """Nothing is selected."""
        self.regions = ()
        self.request(is_moving=False)

    def save_selection(self) -> Path:
        """Write the regions as a selection.

        Raises:
            InputError: There are none.
        """
        if not self.regions:
            raise InputError("nothing is selected; choose sphere or box and click into the picture")
        path = next_path(self.out, "selection", ".json")
        self.out.mkdir(parents=True, exist_ok=True)
        Selection(self.regions).save(path)
        return path

    # Camera paths

    @property
    def path_seconds(self) -> float:
        """How long the camera path takes [s]."""
        return SECONDS_PER_KEY * max(len(self.keys) - 1, 1)

    def add_key(self) -> None:
        """The view becomes the next key of the camera path."""
        self.keys.append(self.view)
        self.request(is_moving=False)

    def play_path(self, on: bool) -> None:
        """Fly along the camera path, or stop.

        Raises:
            InputError: It has fewer than two keys.
        """
        if on and len(self.keys) < 2:
            raise InputError(f"the camera path has {len(self.keys)} keys; add at least two views")
        self.path_time = 0.0 if on else None
        self._ticked = time.perf_counter()
        self.request()

    def clear_path(self) -> None:
        """Forget the keys."""
        self.keys, self.path_time = [], None
        self.request(is_moving=False)

    def save_path(self) -> Path:
        """Write the keys as a cameras.json.

        Raises:
            InputError: There are none.
        """
        if not self.keys:
            raise InputError("the camera path has no keys; add views")
        path = next_path(self.out, "path", ".cameras.json")
        self.out.mkdir(parents=True, exist_ok=True)
        width, height = self.size
        Cameras.cat([key.camera(width, height) for key in self.keys]).save(path)
        return path

    def load_path(self, path: Path) -> None:
        """Take the cameras of a file as the keys.

        Raises:
            Vision3DError: It cannot be read.
        """
        cameras = Cameras.load(path).validate()
        self.keys = [
            FreeCamera.of_camera(camera, self.home.up, self.view.distance, (int(camera.width), int(camera.height)))
            for camera in cameras
        ]
        self.path_time = None
        self.request(is_moving=False)

    # Files

    def save_screenshot(self) -> Path:
        """Write the picture of the present view, whole."""
        request = self.now(is_moving=False)
        pixels = to_bytes(draw(request.models(), request.camera, request.background).image)
        if request.finish is not None:
            pixels = request.finish(pixels)
        return save_picture(next_path(self.out, "view", ".png"), pixels)

    @property
    def is_recording(self) -> bool:
        return self._recorder is not None

    def record(self, on: bool) -> None:
        """Write what is seen to a video, until it is switched off."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            count = recorder.close()
            self.say(f"{recorder.path}: {count} frames" if count else "nothing was recorded")
        if on:
            self._recorder = Recorder(next_path(self.out, "recording", ".mp4"))
            self.request()

    def render_path(self) -> Path | None:
        """Write a video along the camera path, or of the time line where there are no keys, every picture whole.

        It goes on in the background; a second call gives it up and returns None.

        Raises:
            InputError: There is neither a path nor something that moves.
        """
        if self._video is not None and self._video.is_alive():
            self._video = None
            return None
        times = self.layers.times
        if len(self.keys) < 2 and len(times) < 2:
            raise InputError("there is no camera path with two keys and nothing moves")
        seconds = self.path_seconds if len(self.keys) > 1 else float(times[-1] - times[0])
        count = max(2, round(seconds * VIDEO_FPS))
        path = next_path(self.out, "path", ".mp4")
        self._video = threading.Thread(target=self._render_path, args=(path, count, self.now(), self.time), daemon=True)
        self._video.start()
        return path

    def close(self) -> None:
        """End all threads and finish all files."""
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

    def _on_picture(self, shown: Shown) -> None:
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

    def _read_photograph(self, layer: str, index: int, view: FreeCamera) -> None:
        """In a thread of its own: a photograph takes longer than a picture."""
        images = self.layers[layer].value
        self._photograph = None
        if not isinstance(images, PosedImages):
            return
        size = self.size

        def read() -> None:
            try:
                with torch.inference_mode():
                    scale = max(
                        1.0, float(images.cameras.height[index]) / size[1], float(images.cameras.width[index]) / size[0]
                    )
                    photograph, _, camera = images.read(index, downscale=scale)
                    self._photograph = (view, placed(photograph.cpu(), camera.to("cpu"), view.camera(*size)))
            except Vision3DError as error:
                self.say(str(error))
                return
            if self.is_at_camera and self.view is view:
                self.request(is_moving=False)

        threading.Thread(target=read, name="photograph", daemon=True).start()

    def _path_points(self) -> Float[Tensor, "n 3"]:
        if len(self.keys) < 2:
            return torch.stack([key.position for key in self.keys]).float()
        return interpolate_poses(torch.stack([key.camtoworld for key in self.keys]), 16 * len(self.keys))[:, :3, 3].float()

    def _on_path(self, seconds: float, count: int = 0) -> FreeCamera:
        """The view at a time of the camera path."""
        steps = count or 1 + round(self.path_seconds * VIDEO_FPS)
        poses = interpolate_poses(torch.stack([key.camtoworld for key in self.keys]), steps)
        place = min(seconds / self.path_seconds, 1.0) * (steps - 1)
        share = place * (len(self.keys) - 1) / (steps - 1)
        first = min(int(share), len(self.keys) - 2)
        fov = math.fsum(
            weight * key.fov_deg for weight, key in zip((1 - (share - first), share - first), self.keys[first : first + 2])
        )
        return replace(self.keys[0], camtoworld=poses[round(place)], fov_deg=fov)

    def _render_path(self, path: Path, count: int, request: Request, start: float) -> None:
        me = threading.current_thread()
        times = self.layers.times

        def pictures():
            for number in range(count):
                share = number / (count - 1)
                moment = start if len(times) < 2 else float(times[0] + share * (times[-1] - times[0]))
                models = self.content.models(moment, with_cameras=False, regions=())
                camera = request.camera
                if len(self.keys) > 1:
                    camera = self._on_path(share * self.path_seconds, count).camera(int(camera.width), int(camera.height))
                yield to_bytes(draw(models, camera, request.background).image)

        def is_wanted(number: int) -> bool:
            self.say(f"{path.name}: frame {number} of {count}")
            return self._video is me

        try:
            written = write_video(path, pictures(), VIDEO_FPS, is_wanted)
        except Vision3DError as error:
            self.say(str(error))
            return
        self.say(f"{path}: {written} frames" if written else "the video was given up")
