"""`vision3d eval`: evaluate a scene on held-out photos."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from vision3d.cli.inputs import load_gaussians
from vision3d.cli.options import VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.device import BackendName
from vision3d.core.errors import ConfigError, InputError, OutputExistsError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import TerminalProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions(VerbOptions):
    """Render the held-out views of a data set and compare them with the photos: PSNR, SSIM, MS-SSIM, and what the
    nearest training photo would score in their place."""

    HELP_GROUPS: ClassVar[HelpGroups] = {
        "main options": ("split_every", "background", "lpips_weights", "downscale", "masks"),
        "photos": ("skip_missing", "exposed"),
        "rendering": ("alpha_max", "device", "backend"),
    }

    scene: Annotated[Path, tyro.conf.Positional]
    """Gaussians in the world of the data set's cameras: a .ply of any program, or a run folder with scene.ply."""
    data: Annotated[Path, tyro.conf.Positional]
    """Photos with cameras, as for fit."""
    out: Path | None = None
    """Folder for eval.json, a contact sheet, and images with the photo on the left and the render on the right."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace existing files."""
    split_every: int = 8
    """Hold out every N-th view, unless the data set has its own split."""
    downscale: float = 1.0
    """Divide the size of the images by this, at least 1."""
    skip_missing: tyro.conf.FlagCreatePairsOff[bool] = False
    """Skip views whose image is missing or unreadable."""
    background: tuple[float, float, float] | None = None
    """Red, green, blue in [0, 1] behind the Gaussians [default: white where images have an alpha channel, else black]."""
    masks: bool = True
    """Ignore the pixels that the masks of the data set mark black."""
    exposed: bool = False
    """Also measure each right half after a color transform fitted to the left half."""
    alpha_max: float = 0.99
    """Maximum alpha of a Gaussian: 0.99 for scenes of vision3d, 0.999 for those of gsplat 1.5.3 and OpenSplat."""
    lpips_weights: Path | None = None
    """Weights for LPIPS: features of AlexNet and the five linear heads, .safetensors or .pt."""
    device: str = "auto"
    """auto, cpu or cuda."""
    backend: BackendName = "auto"
    """Rasterizer: auto, native, reference (slow) or gsplat (CUDA)."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha_max < 1:
            raise ConfigError("--alpha-max", f"got {self.alpha_max}, want a number in (0, 1)")
        if self.background is not None and any(not 0 <= value <= 1 for value in self.background):
            raise ConfigError("--background", f"got {self.background}, want three numbers in [0, 1]")


def run(arguments: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(EvalOptions, arguments, "eval")
    set_up_output(options)
    out = options.out
    if out is not None and out.exists() and not options.overwrite and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(out, "give --overwrite or another --out")
    made = [] if out is None else [folder for folder in (out / "renders", out) if not folder.exists()]
    started = time.perf_counter()
    from vision3d.io.dataset import WHITE, load_dataset
    from vision3d.report.evaluation_sheet import write_evaluation_sheet
    from vision3d.stages.fit import evaluate
    from vision3d.stages.fit.run import SFM_FOLDER

    scene = load_gaussians(options.scene)
    cameras = options.scene / SFM_FOLDER  # written by --sfm
    images = load_dataset(
        options.data, sfm=cameras.is_dir(), sfm_folder=cameras,
        split_every=options.split_every, downscale=options.downscale, skip_missing=options.skip_missing,
        background=options.background or WHITE,
    )  # fmt: skip
    with TerminalProgress(quiet=options.quiet) as progress, _dropped_on_wrong_input(made):
        evaluation = evaluate(
            scene, images, background=options.background, alpha_max=options.alpha_max, masks=options.masks,
            exposed=options.exposed, lpips_weights=options.lpips_weights,
            renders=None if out is None else out / "renders",
            device=options.device, backend=options.backend, progress=progress,
        )  # fmt: skip
    means = evaluation.mean()
    results = {**means, "held_out_views": len(evaluation.views), "gaussians": scene.num_gaussians}
    if out is not None:
        evaluation.save(out / "eval.json", scene=str(options.scene), data=str(options.data))
        write_evaluation_sheet(out / "contact_sheet.png", out / "renders", evaluation)
    width = max(len(view.name) for view in evaluation.views)
    lines = [f"{view.name:{width}}  PSNR {view.psnr:6.2f} dB  SSIM {view.ssim:.4f}" for view in evaluation.views]
    lines += [f"{name}: {value:.4g}" for name, value in results.items()]
    print_summary(options, "\n".join(lines), {**results, "wall_s": round(time.perf_counter() - started, 3)})


@contextlib.contextmanager
def _dropped_on_wrong_input(made: list[Path]) -> Iterator[None]:
    """Remove the folders that this command created, renders first, so that it can be repeated after an error."""
    try:
        yield
    except InputError:
        with contextlib.suppress(OSError):  # they contain something else by now
            for folder in made:
                for image in folder.glob("*.png"):
                    image.unlink()
                folder.rmdir()
        raise
