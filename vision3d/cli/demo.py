"""`vision3d demo`: train on the bundled photos and report held-out quality."""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.cli.options import RunOptions, Settings
from vision3d.cli.output import now_open
from vision3d.cli.stage import stage_verb
from vision3d.core.config import load_yaml
from vision3d.core.errors import MissingFileError
from vision3d.core.progress import ProgressCallback
from vision3d.stages.fit.config import GROWS, RESUMABLE, FitConfig

if TYPE_CHECKING:
    from vision3d.core.runs import RunFolder

FRAMES, FPS, SIZE = 120, 24, (320, 320)


def _preset() -> FitConfig:
    return load_yaml(FitConfig, "demo", stage="fit")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions(RunOptions):
    """Fit a scene to 48 bundled photos of a still life, and evaluate it on 8 held-out views."""

    out: Path | None = Path("runs/demo")
    """Run folder."""
    settings: Settings[FitConfig] = dataclasses.field(default_factory=_preset)


def photo_set() -> Path:
    """The folder of the bundled photos.

    Raises:
        MissingFileError: This installation does not include them.
    """
    folder = Path(str(files("vision3d") / "assets" / "demo"))
    if not (folder / "transforms.json").is_file():
        raise MissingFileError(folder, "the bundled photo set, which this installation lacks")
    return folder


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    stage_verb("demo", DemoOptions, _demo, stage="fit", resumable=RESUMABLE, grows=GROWS, text_of=_text)(arguments)


def _demo(options: DemoOptions, run_folder: "RunFolder", progress: ProgressCallback) -> Mapping[str, Any]:
    from vision3d.render import path_cameras
    from vision3d.report import write_renders
    from vision3d.stages.fit import fit

    result = fit(options.settings, photo_set(), run_folder=run_folder, progress=progress)
    out, summary = run_folder.path, result.summary
    cameras = path_cameras(result.scene, "orbit", result.cameras, num=FRAMES, size=SIZE)
    red, green, blue = summary["background"]
    write_renders(
        result.scene,
        cameras.to(result.scene.device),
        out / "orbit.mp4",
        fps=FPS,
        background=(red, green, blue),
        alpha_max=options.settings.alpha_max,
        backend=options.settings.backend,
        overwrite=True,
        progress=progress,
    )
    return summary


def _text(out: Path, results: Mapping[str, Any]) -> str:
    lines = []
    if "psnr" in results:
        count = results["held_out_views"]
        lines += [
            f"{count} held-out views: PSNR {results['psnr']:.2f} dB, SSIM {results['ssim']:.3f}",
            f"nearest training view shown instead: PSNR {results['psnr_nearest']:.2f} dB",
        ]
    lines += [
        f"{results['gaussians']:,} Gaussians after {results['steps']:,} steps in {results['training_s']:.0f} s",
    ]
    names = {
        "report.html": "everything on one page",
        "contact_sheet.png": "held-out photos, renders and differences",
        "orbit.mp4": "an orbit around the scene",
        "curves.png": "training curves",
        "scene.ply": "the scene, for `vision3d render` and any viewer of Gaussian scenes",
    }
    return "\n".join([*lines, *now_open(out, names)])
