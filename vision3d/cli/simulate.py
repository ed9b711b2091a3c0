"""`vision3d simulate`: simulate a scene, or parts of it, by physics."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from vision3d.cli.inputs import cameras_beside, load_objects
from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.output import now_open
from vision3d.cli.stage import stage_verb
from vision3d.core.config import from_dict, load_yaml, presets
from vision3d.core.errors import InputError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import ProgressCallback
from vision3d.stages.simulate.config import RESUMABLE, Material, SimulateConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder

_UP = {".glb": (0.0, 1.0, 0.0), ".gltf": (0.0, 1.0, 0.0), ".obj": (0.0, 1.0, 0.0)} | dict.fromkeys(
    (".spz", ".sog", ".splat", ".ksplat"), (0.0, -1.0, 0.0)
)
"""Default up direction by format; z for others. Splats of phones and COLMAP have y down."""
_TELLS = (".glb", ".gltf")
"""Formats whose standard defines the up direction; for others it is the most common one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulateOptions(RunOptions):
    """Simulate a scene, or parts of it, by physics: jelly, rubber, metal, sand, snow, water, foam."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("preset",),
    }

    scene: Annotated[Path, tyro.conf.Positional]
    """Gaussians (.ply, .spz, ...), Gaussians on a mesh (.safetensors), a mesh (.glb, .obj), or a run folder with scene.ply."""
    preset: str | None = None
    """Material of the body: jelly, rubber, metal, sand, snow, water, foam, or a YAML file; --material.* options change it
    [default: jelly]. Or gasp: the published method, with flat Gaussians, a particle for each corner, and Taichi."""
    settings: Settings[SimulateConfig] = dataclasses.field(default_factory=SimulateConfig)


def _with_preset(settings: SimulateConfig, value: str | None) -> SimulateConfig:
    """The settings with the material of --preset, or with those of a method such as gasp."""
    if value is not None and value in presets("simulate"):
        return load_yaml(SimulateConfig, value, stage="simulate", base=settings)
    return settings if value is None else dataclasses.replace(settings, material=_material(value))


def _material(name: str) -> Material:
    return from_dict(SimulateConfig, {"material": name}).material


def _simulate(options: SimulateOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.scene import Scene
    from vision3d.stages.simulate import simulate

    scene = load_objects(options.scene)
    if isinstance(scene, Scene):
        scene = scene.gaussians()
    if options.settings.bodies and options.preset is not None and options.preset not in presets("simulate"):
        raise InputError("--preset is for a single body; with `bodies` in --config each has its own material")
    up, source = _up_of(options.scene), "format" if options.scene.suffix.lower() in _TELLS else "guess"
    cameras = cameras_beside(options.scene)
    given: dict[str, Any] = {"cameras": cameras, "default_up": up, "up_from": source}
    return simulate(options.settings, scene, **given, run_folder=run_folder, progress=progress).summary


def _up_of(path: Path) -> tuple[float, float, float]:
    """Up direction: as recorded in the mesh file of a scene, else by format.

    Folders with the meta.json of SOG and .compressed.ply count as .sog (SuperSplat).
    """
    from vision3d.io.glb import scene_up
    from vision3d.scene.upright import turn_to_y_up

    if path.is_file() and (axis := scene_up(path)) is not None:
        x, y, z = turn_to_y_up(axis)[1].tolist()
        return x, y, z
    suffix = path.suffix.lower()
    if path.name.lower().endswith(".compressed.ply") or (path.is_dir() and (path / "meta.json").is_file()):
        suffix = ".sog"
    return _UP.get(suffix, (0.0, 0.0, 1.0))


def _text(out: Path, results: Mapping[str, Any]) -> str:
    names = {
        "video.mp4": "the video",
        "report.html": "everything on one page",
        "frames.zarr": "the frames, for `vision3d view`",
        "frames": "a .ply of each frame",
    }
    lines = [
        f"{results['frames']} frames, {results['particles']:,} particles ({results['particles_inside']:,} inside), "
        f"{results['substeps']:,} steps in {results['simulation_minutes']:.2f} minutes: "
        f"{results['million_particle_substeps_per_s']:.3g} million particle steps/s by the {results['engine']} engine",
        *now_open(out, names),
    ]
    if results["kept"]:
        lines.insert(1, f"particles were clamped to the grid {results['kept']:,} times: increase --room")
    return "\n".join(lines)


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    return _VERB(arguments)


_VERB = stage_verb(
    "simulate",
    SimulateOptions,
    _simulate,
    stage="simulate",
    resumable=RESUMABLE,
    text_of=_text,
    bases={"--preset": _with_preset},
)
