"""`vision3d view`: scenes, meshes, points, boxes, cameras, sequences and runs in a browser."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from vision3d.cli.app import UsageError
from vision3d.cli.options import Flag, VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output

_UP = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewOptions(VerbOptions):
    """Look at scenes of Gaussians, meshes, points, boxes, cameras, data sets, sequences (.zarr), scene folders and runs; a run
    that is still going on is followed."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """Files and folders, shown together."""
    up: Literal["x", "-x", "y", "-y", "z", "-z"] | None = None
    """Axis of the world that is up [default: that of the cameras, or as the kind of file has it]."""
    out: Path = Path()
    """Folder for selections."""
    web: Flag = False
    """Show it in a browser."""
    host: str = "127.0.0.1"
    """Address that the page is served on; 0.0.0.0 lets other machines in."""
    port: int = 8080
    """Port of the page; 0 takes a free one."""
    open: bool = True
    """Open the page in the browser of this desktop."""


def run(arguments: Sequence[str]) -> int:
    """Show files and folders until the user ends it."""
    options = parse(ViewOptions, arguments, "view")
    set_up_output(options)
    if not options.web:
        raise UsageError("vision3d view: say where to show it: --web")

    import torch

    from vision3d.viewer.layers import Layers

    up = None
    if options.up is not None:
        up = torch.tensor(_UP[options.up[-1]]) * (-1 if options.up.startswith("-") else 1)
    layers = Layers.open(options.paths, up=up)
    return _serve(options, layers)


def _serve(options: ViewOptions, layers) -> int:
    from vision3d.viewer.web import WebViewer, open_browser, warn_if_public

    warn_if_public(options.host)
    try:
        with WebViewer(layers, host=options.host, port=options.port, folder=options.out) as viewer:
            names = [layer.name for layer in layers]
            print_summary(options, f"{viewer.url}  (Ctrl-C ends)", {"url": viewer.url, "layers": names})
            sys.stdout.flush()
            if options.open:
                open_browser(viewer.url)
            viewer.run()
    except KeyboardInterrupt:  # the way to end it
        pass
    return 0
