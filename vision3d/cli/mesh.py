"""`vision3d mesh`: a scene of Gaussians -> a triangle mesh with a texture."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro

from vision3d.cli.inputs import cameras_beside, load_cameras, load_gaussians
from vision3d.cli.options import ConfigOptions, Flag, Settings, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.config import dump_yaml
from vision3d.core.errors import ConfigError, OutputExistsError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import TerminalProgress
from vision3d.stages.mesh.config import MeshConfig

_WRITTEN = (".glb", ".obj", ".ply", ".stl")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshOptions(ConfigOptions):
    """Extract a textured triangle mesh from a Gaussian scene."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "views and depth": ("cameras", "up"),
    }

    scene: tyro.conf.Positional[Path]
    """Gaussian scene (.ply, .spz, .sog, .splat, ...), run folder with scene.ply, or folder with scene.json."""
    out: Path | None = None
    """Mesh to write: .glb with the texture; .obj, .ply, .stl need trimesh [default: mesh.glb next to the scene]."""
    cameras: Path | None = None
    """Cameras of the photos: cameras.json, transforms.json or a data set folder [default: cameras.json next to the
    scene, else cameras all around it]."""
    up: Literal["auto", "x", "-x", "y", "-y", "z", "-z"] = "auto"
    """Up axis of the scene. A .glb is rotated so that it becomes y; other files keep the axes of the scene
    [auto: the axis nearest to up in the images of the cameras; y, without rotation, for a scene without cameras]."""
    overwrite: Flag = False
    """Replace an existing file."""
    settings: Settings[MeshConfig] = dataclasses.field(default_factory=MeshConfig)


def run(arguments: Sequence[str]) -> None:
    """Extract a mesh and write it."""
    options = parse(MeshOptions, arguments, "mesh", stage="mesh")
    set_up_output(options)
    if options.print_config:
        print(dump_yaml(options.settings), end="")
        return
    folder = options.scene if options.scene.is_dir() else options.scene.parent
    out = options.out or folder / "mesh.glb"
    if out.suffix.lower() not in _WRITTEN:
        raise ConfigError("--out", f"got {out}, want a name that ends in {', '.join(_WRITTEN)}")
    if out.is_dir():
        raise ConfigError("--out", f"{out} is a folder; want the name of a mesh, such as {out / 'mesh.glb'}")
    if out.exists() and not options.overwrite:
        raise OutputExistsError(out, "give --overwrite or another --out")
    scene = load_gaussians(options.scene)
    cameras = cameras_beside(options.scene) if options.cameras is None else load_cameras(options.cameras)

    from vision3d.stages.mesh import mesh_scene

    with TerminalProgress(quiet=options.quiet) as progress:
        result = mesh_scene(options.settings, scene, cameras, progress=progress)
    from vision3d.scene.upright import up_of

    mesh, up = result.mesh, options.up
    if up == "auto":
        up = up_of(cameras)
    if out.suffix.lower() == ".glb":
        from vision3d.io.glb import write_mesh

        write_mesh(out, mesh, scene_up=up)
    else:
        mesh.save(out)
    values: dict[str, Any] = {"out": str(out), **result.summary, "up": up, "bytes": out.stat().st_size}
    print_summary(options, _text(out, values) + _hint(options.scene, scene.mode), values)


def _hint(path: Path, mode: str) -> str:
    """A line that suggests a 2dgs fit, for a run folder whose Gaussians need not be on surfaces."""
    if mode == "2dgs" or not ((path if path.is_dir() else path.parent) / "config.yaml").is_file():
        return ""
    return "\na fit with `vision3d fit PHOTOS --config surface` may give a better mesh of a single object (docs/mesh.md)"


def _text(out: Path, values: dict[str, Any]) -> str:
    size, state = values["texture_size"], "closed" if values["is_closed"] else "open"
    colors = f"a texture of {size}x{size}" if size else "vertex colors"
    return (
        f"{out}: {values['faces']:,} faces, {state}, {colors}, {values['bytes']:,} bytes\n"
        f"{values['method']} with voxels of {values['voxel']:.4g} m ({values['resolution']} along the longest side), "
        f"{values['views']} views, {values['wall_s']:.1f} s"
    )
