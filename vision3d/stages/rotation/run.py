"""The experiments: train every representation with every seed, evaluate, write tables and charts."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.core.device import resolve_device
from vision3d.core.progress import ProgressCallback
from vision3d.core.runs import RunFolder, finish_step_on_interrupt
from vision3d.io.images import write_image
from vision3d.stage import stage
from vision3d.stages.rotation.clouds import read_clouds
from vision3d.stages.rotation.config import GROWS, RESUMABLE, IkConfig, PointCloudConfig, SanityConfig, TrainingConfig
from vision3d.stages.rotation.experiment import Experiment
from vision3d.stages.rotation.experiments import PointCloudExperiment, SanityExperiment
from vision3d.stages.rotation.ik import IkExperiment, read_poses
from vision3d.stages.rotation.plots import percentile_sheet
from vision3d.stages.rotation.published import differences, published_mean
from vision3d.stages.rotation.training import Training, train
from vision3d.training.group import Group

TRAININGS = "trainings"


@dataclass(frozen=True)
class RotationResult:
    """Result of a run."""

    trainings: tuple[Training, ...]
    """Trainings by representation, then seed."""
    summary: dict[str, Any]
    """Results as plain values: one row per representation, the data, and differences from the publication."""
    run_folder: Path | None = None


@stage("reproduce rotation sanity", {}, resumable=RESUMABLE, grows=GROWS)
def reproduce_rotation_sanity(
    config: SanityConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> RotationResult:
    """Train networks that reproduce their input rotation (Zhou et al. 2019, section 5.1).

    Args:
        config: Options.
        run_folder: Output folder. A `RunFolder` with trainings is resumed: finished trainings are skipped.
        progress: Progress callback.

    Raises:
        ConfigError: The run folder belongs to a run with other options.
        NumericalError: A loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.

    Example:
        >>> from vision3d.stages.rotation import SanityConfig, reproduce_rotation_sanity
        >>> reproduce_rotation_sanity(SanityConfig(representations=("6d", "quat"))).summary["by_representation"][0]["mean"]
    """
    experiment = SanityExperiment(config, resolve_device(config.device), Group.current())
    return _reproduce(experiment, config, run_folder, progress)


@stage("reproduce rotation pointcloud", {"inputs": "data"}, resumable=RESUMABLE, grows=GROWS)
def reproduce_rotation_pointcloud(
    config: PointCloudConfig,
    inputs: Path | str,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> RotationResult:
    """Train networks that estimate the rotation between a cloud and its rotated copy (Zhou et al. 2019, section 5.2).

    Args:
        config: Options.
        inputs: The clouds (docs/data.md).
        run_folder: As for `reproduce_rotation_sanity`.
        progress: Progress callback.

    Raises:
        InputError: The clouds are invalid.
        ConfigError: The run folder belongs to a run with other options or other clouds.
        NumericalError: A loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    clouds = read_clouds(inputs, config.points)
    experiment = PointCloudExperiment(config, clouds, resolve_device(config.device), Group.current())
    return _reproduce(experiment, config, run_folder, progress)


@stage("reproduce rotation ik", {"train": "clips", "test": "test"}, resumable=RESUMABLE, grows=GROWS)
def reproduce_rotation_ik(
    config: IkConfig,
    train: Sequence[Path | str],
    test: Sequence[Path | str],
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> RotationResult:
    """Train networks that estimate joint rotations from joint positions (Zhou et al. 2019, section 5.3).

    Args:
        config: Options.
        train: Motion clips (.bvh) of one skeleton.
        test: Clips of the same skeleton to evaluate on.
        run_folder: As for `reproduce_rotation_sanity`.
        progress: Progress callback.

    Raises:
        InputError: The clips are invalid, have different skeletons, or one is in both parts.
        ConfigError: The run folder belongs to a run with other options or other clips.
        NumericalError: A loss is not finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM; a checkpoint was written.
    """
    experiment = IkExperiment(config, read_poses(train, test, config), resolve_device(config.device), Group.current())
    return _reproduce(experiment, config, run_folder, progress)


def _reproduce(
    experiment: Experiment, config: TrainingConfig, folder: RunFolder | Path | str | None, progress: ProgressCallback | None
) -> RotationResult:
    assert isinstance(folder, RunFolder | None)  # `stage` opened it
    path = None if folder is None else folder.path
    device = resolve_device(config.device)
    trainings = []
    with finish_step_on_interrupt() as stop:
        for rep in config.representations:
            for seed in config.seeds:
                own = None if path is None else path / TRAININGS / f"{rep}_seed{seed}"
                trainings.append(train(experiment, config, rep, seed, device=device, folder=own, stop=stop, progress=progress))
    summary = summarise(experiment, config, trainings)
    summary["device"] = str(device)
    if path is not None:
        write_image(path / "figures" / "percentiles.png", _sheet(experiment, config, trainings))
    return RotationResult(tuple(trainings), summary, path)


def summarise(experiment: Experiment, config: TrainingConfig, trainings: Sequence[Training]) -> dict[str, Any]:
    """Statistics of trainings: means over the seeds, the maximum error, and the spread over the seeds."""
    rows = []
    for rep in config.representations:
        found = [training for training in trainings if training.rep == rep]
        means = [training.errors.mean for training in found]
        row: dict[str, Any] = {
            "representation": rep,
            "mean": statistics.fmean(means),
            "max": max(training.errors.max for training in found),
            "std": statistics.fmean(training.errors.std for training in found),
            "median": statistics.fmean(training.errors.median for training in found),
            "p95": statistics.fmean(training.errors.at(95) for training in found),
            "p99": statistics.fmean(training.errors.at(99) for training in found),
            "mean_of_seeds": means,
            "max_of_seeds": [training.errors.max for training in found],
            "std_over_seeds": statistics.stdev(means) if len(means) > 1 else None,
            "published_mean": published_mean(experiment.name, rep, config),
            "loss": statistics.fmean(training.loss for training in found),
            "parameters": sum(p.numel() for p in found[0].network.network.parameters()),
            "training_cpu_s": statistics.fmean(training.cpu_s for training in found),
        }
        rows.append(row)
    about = experiment.about()
    return {
        "experiment": experiment.name,
        "unit": experiment.unit,
        **{f"mean_error_{row['representation']}": row["mean"] for row in rows},
        **about,
        "steps": config.steps,
        "seeds": list(config.seeds),
        "data": experiment.source,
        "by_representation": rows,
        "differs_from_publication": differences(config, about),
    }


def table(results: dict[str, Any]) -> str:
    """The rows of a summary as text, with the published means."""
    unit = results["unit"]
    head = ("", f"mean [{unit}]", "over seeds", "median", "95 %", "max", "std", "published mean", "CPU-s")
    lines: list[tuple[str, ...]] = [head]
    for row in results["by_representation"]:
        spread, published = row["std_over_seeds"], row["published_mean"]
        lines.append(
            (
                row["representation"], _number(row["mean"]), "-" if spread is None else f"+- {_number(spread)}",
                _number(row["median"]), _number(row["p95"]), _number(row["max"]), _number(row["std"]),
                "-" if published is None else f"{published:g}", f"{row['training_cpu_s']:.0f}",
            )
        )  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    )


def _number(value: float) -> str:
    return f"{value:.{max(0, min(3, 2 - math.floor(math.log10(value))))}f}" if value > 0 else f"{value:g}"


def _sheet(experiment: Experiment, config: TrainingConfig, trainings: Sequence[Training]) -> Any:
    curves = {}
    for rep in config.representations:
        found = [training.errors.percentiles for training in trainings if training.rep == rep]
        curves[rep] = [statistics.fmean(values) for values in zip(*found)]
    seeds = f"{len(config.seeds)} seeds" if len(config.seeds) > 1 else "one seed"
    title = {
        "sanity": "Reproduction of the input rotation",
        "pointcloud": "The rotation between two clouds",
        "ik": "Joint positions of the predicted rotations",
    }[experiment.name]
    count = f"{trainings[0].errors.count:,} tests"
    return percentile_sheet(curves, title, experiment.unit, f"{count}, {config.steps:,} steps, {seeds}; {experiment.source}")
