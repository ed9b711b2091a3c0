"""The report of a run: one self-contained HTML page, without other files or a network."""

import base64
import html
from collections.abc import Mapping
from importlib import resources
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.core.plain import from_json
from vision3d.core.runs import read_metrics
from vision3d.report.canvas import fitted
from vision3d.report.curves import draw_curves, run_curves
from vision3d.report.sheets import read_pairs, spread

_SIDE = 640  # longest side of an image on the page [px]
_MAX_VIDEO = 8 << 20  # bytes; larger videos are not embedded
_MAX_IMAGE = 4 << 20
_UNITS = {
    "psnr": "dB",
    "psnr_nearest": "dB",
    "above_nearest": "dB",
    "psnr_exposed": "dB",
    "training_s": "s",
    "training_cpu_s": "s",
    "evaluation_cpu_s": "s",
}
_MACHINE = (
    "vision3d",
    "git",
    "python",
    "torch",
    "numpy",
    "platform",
    "processor",
    "cores",
    "threads",
    "native",
    "gpu",
    "device",
)


def write_report(run_folder: Path | str) -> Path:
    """Write `report.html` to a run folder: results, curves, held-out views with a slider, options, versions.

    Args:
        run_folder: A folder with summary.json; optional contents (metrics.jsonl, eval.json with renders, config.yaml, videos)
            are shown as well.

    Returns:
        The page.

    Raises:
        MissingFileError: No summary.json.
        FileFormatError: A file of the folder is damaged or unexpected.

    Example:
        >>> write_report("runs/fox")
        PosixPath('runs/fox/report.html')
    """
    folder = Path(run_folder)
    summary = _read_json(folder / "summary.json")
    if summary is None:
        raise MissingFileError(folder / "summary.json", "want a run folder")
    command = summary.get("command", [])
    words = {
        "title": html.escape(folder.resolve().name),
        "command": html.escape(" ".join(["vision3d", *map(str, command[1:])]) if isinstance(command, list) else str(command)),
        "status": html.escape(str(summary.get("status", ""))),
        "metrics": _metrics(summary.get("results", {})),
        "tables": _tables(summary.get("results", {})),
        "curves": _curves(folder),
        "views": _views(folder),
        "images": _images(folder),
        "videos": _videos(folder),
        "config": _config(folder),
        "machine": _rows({name: summary[name] for name in _MACHINE if summary.get(name) is not None}),
    }
    template = (resources.files("vision3d.report") / "page.html").read_text("utf-8")
    path = folder / "report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(Template(template).substitute(words), "utf-8")
    return path


def _metrics(results: Mapping[str, Any]) -> str:
    if not isinstance(results, Mapping):
        return ""
    tiles = []
    for name, value in results.items():
        if isinstance(value, bool | int | float | str):
            shown = _shown(value)
            unit = "%" if "accuracy" in name else _UNITS.get(name, "")
            unit = f" <small>{unit}</small>" if unit else ""
            tiles.append(f"<div><b>{html.escape(shown)}{unit}</b><span>{html.escape(name.replace('_', ' '))}</span></div>")
    return "".join(tiles)


def _tables(results: Mapping[str, Any]) -> str:
    """Results that are lists of rows with the same keys become tables, lists of sentences become lists."""
    found = []
    for name, value in results.items() if isinstance(results, Mapping) else ():
        if not isinstance(value, list) or not value:
            continue
        title = html.escape(name.replace("_", " ").capitalize())
        if all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
            keys = [key for key in value[0] if not any(isinstance(row[key], list | dict) for row in value)]
            head = "".join(f"<th>{html.escape(key.replace('_', ' '))}</th>" for key in keys)
            rows = ["".join(f"<td>{_cell(row[key])}</td>" for key in keys) for row in value]
            body = "".join(f"<tr>{row}</tr>" for row in rows)
            found.append(_section(title, f'<table class="grid"><tr>{head}</tr>{body}</table>', "scroll"))
        elif all(isinstance(item, str) for item in value):
            found.append(_section(title, "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in value) + "</ul>"))
    return "".join(found)


def _cell(value: object) -> str:
    return html.escape(_shown(value)) if isinstance(value, bool | int | float | str) else "-"


def _shown(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value


def _curves(folder: Path) -> str:
    if not (folder / "metrics.jsonl").exists():
        return ""
    curves = run_curves(read_metrics(folder / "metrics.jsonl"))
    shown = (f'<img class="curves" alt="{curve.title}" src="{_data(draw_curves([curve]), "PNG")}">' for curve in curves)
    return _section("Curves", "".join(shown), "charts")  # one image each, so that a narrow window has them one below the other


def _views(folder: Path) -> str:
    evaluation = _read_json(folder / "eval.json")
    if evaluation is None or not (folder / "renders").is_dir():
        return ""
    rows = evaluation.get("views")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"name", "file", "psnr"} <= row.keys() for row in rows):
        raise FileFormatError(folder / "eval.json", "lacks the names, files and metrics of its views")
    captions = {Path(str(row["file"])).name: f"{row['name']}   PSNR {row['psnr']:.2f} dB" for row in spread(rows)}
    shown = []
    for pair in read_pairs(folder / "renders", captions):
        photo, render = (_data(fitted(image, _SIDE, _SIDE), "WEBP") for image in (pair.photo, pair.render))
        caption = html.escape(pair.caption)
        shown.append(
            f'<figure><div class="pair"><img alt="photo" src="{photo}"><img alt="render" src="{render}">'
            f'<input type="range" min="0" max="100" value="50" aria-label="render or photo, {caption}"></div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return _section("Held-out views: photo on the left of the line, render on the right", "".join(shown), "views")


def _images(folder: Path) -> str:
    """Images written by the run, figures/*.png."""
    shown = []
    for path in sorted((folder / "figures").glob("*.png")):
        if path.stat().st_size <= _MAX_IMAGE:
            data = base64.b64encode(path.read_bytes()).decode()
            shown.append(f'<img class="drawn" alt="{html.escape(path.stem)}" src="data:image/png;base64,{data}">')
    return _section("Images", "".join(shown))


def _videos(folder: Path) -> str:
    shown = []
    for path in sorted(folder.glob("*.mp4")):
        if path.stat().st_size <= _MAX_VIDEO:
            data = base64.b64encode(path.read_bytes()).decode()
            shown.append(f'<video controls loop muted playsinline src="data:video/mp4;base64,{data}"></video>')
    return _section("Videos", "".join(shown))


def _config(folder: Path) -> str:
    path = folder / "config.yaml"
    return (
        f"<details><summary>Options</summary><pre>{html.escape(path.read_text('utf-8'))}</pre></details>"
        if path.exists()
        else ""
    )


def _section(title: str, content: str, kind: str = "") -> str:
    return f'<h2>{title}</h2><div class="{kind}">{content}</div>' if content else ""


def _rows(values: Mapping[str, Any]) -> str:
    return "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in values.items())


def _data(image: Float[Tensor, "h w 3"], kind: str) -> str:
    """An image as a data URI."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray((image.clamp(0, 1) * 255).round().byte().cpu().numpy()).save(buffer, kind, quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = from_json(path.read_bytes())
    except ValueError as error:
        raise FileFormatError(path, f"is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise FileFormatError(path, "is not a JSON object")
    return value
