"""Reports: renders as files, contact sheets, training curves, and the HTML page of a run."""

from typing import TYPE_CHECKING

from vision3d.core.lazy import lazy_names

_PUBLIC = {
    "write_renders": "vision3d.report.renders",
    "Pair": "vision3d.report.sheets",
    "contact_sheet": "vision3d.report.sheets",
    "error_to_rgb": "vision3d.report.sheets",
    "frame_sheet": "vision3d.report.sheets",
    "read_pairs": "vision3d.report.sheets",
    "write_contact_sheet": "vision3d.report.sheets",
    "draw_curves": "vision3d.report.curves",
    "write_report": "vision3d.report.page",
    "write_run_curves": "vision3d.report.curves",
}

__all__ = [
    "Pair",
    "contact_sheet",
    "draw_curves",
    "error_to_rgb",
    "frame_sheet",
    "read_pairs",
    "write_contact_sheet",
    "write_renders",
    "write_report",
    "write_run_curves",
]

if TYPE_CHECKING:
    from vision3d.report.curves import draw_curves, write_run_curves
    from vision3d.report.page import write_report
    from vision3d.report.renders import write_renders
    from vision3d.report.sheets import Pair, contact_sheet, error_to_rgb, frame_sheet, read_pairs, write_contact_sheet


__getattr__ = lazy_names(__name__, _PUBLIC)
