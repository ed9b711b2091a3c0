"""The contact sheet of an evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision3d.report.sheets import read_pairs, spread, write_contact_sheet

if TYPE_CHECKING:
    from vision3d.training.evaluation import Evaluation


def write_evaluation_sheet(
    path: Path | str, renders: Path | str, evaluation: "Evaluation", summary: dict[str, Any] | None = None
) -> None:
    """Write photo, render and difference of every held-out view with its metrics, as one image.

    Args:
        path: The image file.
        renders: The folder written by `evaluate(..., renders=...)`.
        evaluation: Its result.
        summary: `FitResult.summary`, for a line about the fit.
    """
    mean = evaluation.mean()
    captions = {
        evaluation.file_name(i): f"{Path(view.name).stem}   PSNR {view.psnr:.2f} dB   SSIM {view.ssim:.3f}"
        for i, view in spread(list(enumerate(evaluation.views)))
    }
    words = []
    if summary is not None:
        counts = f"{summary['gaussians']:,} Gaussians, {summary['steps']:,} steps"
        words.append(f"{counts} in {summary['training_s']:.0f} s")
    if "psnr_nearest" in mean:
        words.append(f"the nearest training view shown instead: {mean['psnr_nearest']:.2f} dB")
    title = f"Held-out views: PSNR {mean['psnr']:.2f} dB, SSIM {mean['ssim']:.3f}"
    write_contact_sheet(path, read_pairs(renders, captions), title=title, subtitle="; ".join(words))
