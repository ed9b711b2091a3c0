"""`vision3d view`: show scenes, meshes, points, boxes, cameras, sequences and runs in a window, a browser, or an image."""

import dataclasses
import math
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro

from vision3d.cli.inputs import load_cameras, parse_color, parse_size
from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.errors import ConfigError, OutputExistsError
from vision3d.core.option_marks import HelpGroups

if TYPE_CHECKING:
    from vision3d.viewer.layers import Layers

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewOptions(VerbOptions):
    """Show files and folders together in one world: scenes of Gaussians, meshes, points, boxes, cameras with their photos,
    selections, sequences, scene folders, and runs, which are followed while they run."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("web", "offscreen", "size", "colors", "time"),
        "camera": ("cameras", "camera", "up", "azimuth", "elevation", "zoom", "fov"),
        "display": ("clip", "skeleton", "background", "renderer"),
        "web": ("host", "port", "open"),
    }

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Files and folders."""
    offscreen: Path | None = None
    """Write one image (.png, .jpg, .webp) instead of opening a window; needs neither Open3D nor a display."""
    size: str = "1280x720"
    """WIDTHxHEIGHT of the image [px]."""
    cameras: Path | None = None
    """Look from one of these cameras: cameras.json, transforms.json or a data set."""
    camera: int | None = None
    """Index of the camera, from 0 [default: 0 with --cameras; otherwise chosen from the contents]."""
    up: Literal["x", "-x", "y", "-y", "z", "-z"] | None = None
    """Upward axis of the world [default: the mean of the cameras, otherwise that of the file format]."""
    azimuth: float | None = None
    """Azimuth of the first view, counter-clockwise from above [degrees]."""
    elevation: float | None = None
    """Elevation of the first view above the center [degrees]."""
    zoom: float = 1.0
    """Divide the distance of the first view by this."""
    fov: float | None = None
    """Vertical field of view [degrees]."""
    time: float | None = None
    """Time of moving scenes [s] [default: the first]."""
    clip: str | None = None
    """Clip of meshes with joints, or rest [default: the first]."""
    colors: str = "own"
    """Colors of meshes with joints: their own, blend weights in the colors of the joints (weights), the joint with the largest
    weight (dominant), or the weights of one joint, by its name. For results of `animate fit`: eta, from dual quaternions (0,
    blue) to linear skinning (1, orange)."""
    skeleton: Literal["auto", "on", "off"] = "auto"
    """Draw the joints and bones of meshes and motion capture over them; in a browser, where the mesh then becomes transparent,
    they are off at first."""
    background: str = "black"
    """Background color: black, white, gray, #rrggbb, or r,g,b in 0 to 1."""
    renderer: Literal["auto", "cpu", "open3d"] = "auto"
    """Renderer of the window: the CPU, or Open3D on a GPU [default: Open3D if there is a GPU]."""
    out: Path = Path()
    """Folder for screenshots, videos, selections and camera paths of the window."""
    overwrite: Flag = False
    """Replace the image of --offscreen if it exists."""
    web: Flag = False
    """Show it in a browser instead of a window."""
    host: str = "127.0.0.1"
    """Address on which the page of --web is served; 0.0.0.0 lets other machines connect, with the token in the printed
    address."""
    port: int = 8080
    """Port of the page of --web; 0 chooses a free one."""
    open: bool = True
    """Open the page of --web in the desktop's browser."""


def run(arguments: Sequence[str]) -> int:
    """Open a window, serve a page, or write an image."""
    options = parse(ViewOptions, arguments, "view")
    set_up_output(options)
    _check(options)
    size = parse_size("--size", options.size)
    background = parse_color("--background", options.background)
    if options.web:
        return _serve(options, _open(options))
    return _offscreen(options, size, background) if options.offscreen is not None else _window(options, size, background)


def _offscreen(options: ViewOptions, size: tuple[int, int], background: tuple[float, float, float]) -> int:
    from vision3d.viewer.offscreen import write_view

    out = options.offscreen
    assert out is not None
    if out.exists() and not options.overwrite:
        raise OutputExistsError(out, "give --overwrite or another --offscreen")
    layers = _open(options)
    write_view(layers, out, size=size, start=_start(options, layers, size), background=background, time=options.time)
    text = f"{out}: {size[0]}x{size[1]}, {', '.join(layer.name for layer in layers)}"
    print_summary(options, text, {"file": str(out), "layers": {layer.name: layer.kind for layer in layers}})
    return 0


def _window(options: ViewOptions, size: tuple[int, int], background: tuple[float, float, float]) -> int:
    from vision3d.viewer.probe import Probe

    probe = Probe()  # runs while the files are read
    try:
        from vision3d.viewer.window import leave, open_window

        layers = _open(options)
        graphics = probe.result()
    finally:
        probe.close()
    use_open3d = options.renderer == "open3d" or (options.renderer == "auto" and graphics.has_gpu)
    start = _start(options, layers, size)
    stopped = open_window(layers, size=size, out=options.out, background=background, use_open3d=use_open3d, start=start)
    values = {"open3d": graphics.open3d, "has_gpu": graphics.has_gpu, "used_open3d": use_open3d}
    print_summary(options, "the window was closed", values)
    leave(130 if stopped else 0)
    return 0


def _serve(options: ViewOptions, layers: "Layers") -> int:
    from vision3d.viewer.web import WebViewer, open_browser, warn_if_public

    warn_if_public(options.host)
    try:
        with WebViewer(layers, host=options.host, port=options.port, folder=options.out) as viewer:
            names = [layer.name for layer in layers]
            print_summary(options, f"{viewer.url}  (Ctrl-C to stop)", {"url": viewer.url, "layers": names})
            sys.stdout.flush()
            if options.open:
                open_browser(viewer.url)
            # A flag, since an exception raised in a finalizer is lost.
            stop = threading.Event()
            before = signal.signal(signal.SIGINT, lambda *_: stop.set())
            try:
                viewer.run(stop.is_set)
            finally:
                signal.signal(signal.SIGINT, before)
    except KeyboardInterrupt:  # while the page was created
        pass
    return 0


def _open(options: ViewOptions) -> "Layers":
    import torch

    from vision3d.viewer.layers import Layers
    from vision3d.viewer.navigation import UP_AXES

    layers = Layers.open(options.paths, up=None if options.up is None else torch.tensor(UP_AXES[options.up]))
    if not layers.rigs and (options.clip is not None or options.colors != "own"):
        name = "--clip" if options.clip is not None else "--colors"
        raise ConfigError(name, "is for meshes with joints or clips, and none is shown")
    has_none = not any(options.colors in rig.colorings for rig in layers.rigs.values())
    for name, rig in layers.rigs.items():
        # If there are several, each shows what it can; if none can, the first one raises the error.
        colors = options.colors if has_none or options.colors in rig.colorings else None
        layers.change_rig(name, clip=options.clip, colors=colors)
    for layer in layers:
        if layer.kind == "skeleton":
            layers.show(layer.name, options.skeleton == "on" or (options.skeleton == "auto" and not options.web))
    return layers


def _start(options: ViewOptions, layers: "Layers", size: tuple[int, int]) -> Any:
    """The first view, or None for the default of the layers."""
    from vision3d.viewer.navigation import FreeCamera
    from vision3d.viewer.offscreen import placed_view

    given = (options.azimuth, options.elevation, options.fov)
    if options.cameras is None and options.camera is None and given == (None, None, None) and options.zoom == 1:
        return None
    cameras = None
    if options.cameras is not None:
        cameras = load_cameras(options.cameras)
    elif options.camera is not None:
        found = [layer.cameras for layer in layers if layer.cameras is not None and len(layer.cameras)]
        if not found:
            raise ConfigError("--camera", "no cameras are shown; give --cameras FILE")
        cameras = found[0]
    if cameras is not None:
        index = options.camera or 0
        if not 0 <= index < len(cameras):
            raise ConfigError("--camera", f"got {index}, want 0 to {len(cameras) - 1}")
        view = FreeCamera.of_camera(cameras[index].to("cpu"), layers.up, layers.bounds.radius, size)
    else:
        view = placed_view(layers, options.azimuth, options.elevation)
    if options.fov is not None:
        view = dataclasses.replace(view, fov_deg=options.fov)
    return view.zoomed(1 / options.zoom)


def _check(options: ViewOptions) -> None:
    for name, value, is_right, want in (
        ("--zoom", options.zoom, 0 < options.zoom < math.inf, "a number > 0"),
        ("--fov", options.fov, options.fov is None or 0 < options.fov < 180, "degrees between 0 and 180"),
        ("--elevation", options.elevation, options.elevation is None or abs(options.elevation) <= 90, "degrees from -90 to 90"),
        ("--azimuth", options.azimuth, options.azimuth is None or abs(options.azimuth) < math.inf, "degrees"),
        ("--time", options.time, options.time is None or abs(options.time) < math.inf, "seconds"),
    ):
        if not is_right:
            raise ConfigError(name, f"got {value}, want {want}")
    if options.web and options.offscreen is not None:
        raise ConfigError("--web", "shows a page and --offscreen writes an image; give one of them")
    if options.offscreen is not None and options.offscreen.suffix.lower() not in _SUFFIXES:
        raise ConfigError("--offscreen", f"got {options.offscreen}, want an image ({', '.join(_SUFFIXES)})")
    if options.cameras is not None or options.camera is not None:
        for name, value in (("--azimuth", options.azimuth), ("--elevation", options.elevation)):
            if value is not None:
                raise ConfigError(name, "rotates the view about the center; give either it or --camera and --cameras")
