"""Evaluation of edits on objects of a split, or on meshes in files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision3d.core.atomic import atomic_write
from vision3d.core.plain import to_json
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.edit.data.instructions import random_edit
from vision3d.stages.edit.data.samples import ObjectSource
from vision3d.stages.edit.editor import Editor
from vision3d.stages.edit.evaluation.accuracy import (
    Adapter,
    ClosedForm,
    Edits,
    Method,
    Outcome,
    copied,
    drawn,
    figures_of,
    outcomes,
    text_only,
)
from vision3d.stages.edit.evaluation.objects import EvalObject, mesh_files, objects_of_files, objects_of_samples
from vision3d.stages.edit.instructions.families import Edit, fine_edits
from vision3d.stages.edit.network.diffusion_files import DiffusionModel
from vision3d.stages.edit.network.editing import load_editing
from vision3d.stages.edit.network.files import load_planes_model
from vision3d.stages.edit.run_config import EditEvalConfig

_SEED = 2_000_000_000  # of objects that no training makes
_COLUMNS = ("accuracy", "family_accuracy", "delta_e", "delta_e_source", "psnr", "count")


@dataclass(frozen=True)
class EditEvalResult:
    """Result of an evaluation."""

    outcomes: dict[str, list[Outcome]]
    """By row of the table."""
    summary: dict[str, Any]
    run_folder: Path | None = None


@stage("edit eval", {"paths": "paths"})
def evaluate_edits(
    config: EditEvalConfig,
    paths: Sequence[Path | str] = (),
    *,
    editor: Editor | None = None,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> EditEvalResult:
    """Evaluate edits at points of the surface, where their targets are known in closed form.

    Without an adapter, texts are parsed and the closed forms applied to the colors of the planes: what is lost then is lost by
    the understanding of texts, by planes and by the transfer.

    Args:
        config: Options.
        paths: Meshes, or folders of them; without any, objects are generated or taken from the furniture.
        editor: The networks; None loads `config.planes` and the weights of `config.method`.
        run_folder: Receives evaluation.txt and evaluation.json.
        progress: Progress callback, called for every row of the table.

    Raises:
        InputError: A file cannot be read, or a folder has no meshes.
        MissingDependencyError: The encoder of texts, or embreex for generated objects, is not installed.
    """
    assert isinstance(run_folder, RunFolder | None)  # `stage` opened it
    if editor is None:
        editor = Editor(load_planes_model(config.planes), load_editing(config.method, config.weights))
    objects = _objects(config, paths, progress)
    generator = torch.Generator().manual_seed(config.seed)
    basic = drawn(objects, config.each, config.seed)
    two = [[(_single(generator), _single(generator)) for _ in range(config.each)] for _ in objects]
    fine = [[(_choice(fine_edits(), generator),) for _ in range(config.each)] for _ in objects]
    new = [[(_choice(fine_edits(held_out=True), generator),) for _ in range(config.each)] for _ in objects]
    same: list[list[Edits]] = [[(Edit("unchanged"),)] for _ in objects]
    rows: dict[str, tuple[Method, list[list[Edits]], bool]] = {}
    method: Method = ClosedForm(editor.planes, editor.encoder, config.refine)
    if editor.adapter is not None:
        change = editor.adapter.network
        if isinstance(editor.adapter, DiffusionModel):
            change = editor.adapter.changing(config.sampling, config.seed)
        method = Adapter(change, editor.planes, editor.encoder, refine=config.refine)
        alone = Adapter(change, editor.planes, editor.encoder, transferred=False, refine=config.refine)
        rows["planes alone"] = (alone, basic, False)
    rows |= {
        "training phrasings": (method, basic, False),
        "held-out phrasings": (method, basic, True),
        "two edits": (method, two, False),
        "fine colors": (method, fine, False),
        "held-out color words": (method, new, True),
        "leave it": (method, same, False),
        "copy of the source": (copied, basic, False),
        "text only": (text_only, basic, False),
    }
    found: dict[str, list[Outcome]] = {}
    with Progress(len(rows), "evaluate", progress) as bar:
        for number, (name, (each, edits, held_out)) in enumerate(rows.items(), 1):
            found[name] = outcomes(each, objects, edits, editor.encoder, held_out=held_out, seed=config.seed)
            bar.update(number)
    figures = {name: figures_of(one) for name, one in found.items() if one}
    path = None if run_folder is None else run_folder.path
    if path is not None:
        with atomic_write(path / "evaluation.txt") as temporary:
            temporary.write_text(_table(figures), "utf-8")
        with atomic_write(path / "evaluation.json") as temporary:
            temporary.write_text(to_json([_record(name, one) for name, rows in found.items() for one in rows]), "utf-8")
    first = figures["training phrasings"]
    table = [{"instructions": name, **row} for name, row in figures.items()]
    name = "closed-form" if editor.adapter is None else "diffusion" if isinstance(editor.adapter, DiffusionModel) else "adapter"
    summary = {
        "method": name,
        "objects": len(objects),
        "accuracy": first["accuracy"],
        "delta_e": first["delta_e"],
        "table": table,
    }
    return EditEvalResult(found, summary, path)


def _objects(config: EditEvalConfig, paths: Sequence[Path | str], progress: ProgressCallback | None) -> list[EvalObject]:
    if paths:
        files = [file for path in paths for file in mesh_files(Path(path))]
        return objects_of_files(files, config.points)
    share = 0.0 if config.furniture is None else 1.0
    samples = ObjectSource(config.furniture, config.split, share, _SEED + config.seed).samples(config.objects)
    samples.prepare(progress)
    return objects_of_samples(samples, config.points)


def _single(generator: torch.Generator) -> Edit:
    """An edit of the whole that changes something."""
    while True:
        edit = random_edit(generator)
        if edit.kind != "unchanged" and edit.part is None:
            return edit


def _choice(edits: list[Edit], generator: torch.Generator) -> Edit:
    return edits[int(torch.randint(len(edits), (1,), generator=generator))]


def _record(name: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "row": name,
        "object": outcome.name,
        "text": outcome.text,
        "edits": [str(edit) for edit in outcome.edits],
        "nearest": [str(edit) for edit in outcome.nearest],
        "delta_e": round(outcome.error, 3),
        "delta_e_source": round(outcome.source_error, 3),
    }


def _table(figures: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':22}" + "".join(f"{name.replace('_', ' '):>17}" for name in _COLUMNS)]
    lines += [f"{name:22}" + "".join(f"{row[column]:17g}" for column in _COLUMNS) for name, row in figures.items()]
    return "\n".join(lines) + "\n"
