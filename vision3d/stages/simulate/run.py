"""The stage: simulate a scene frame by frame, in memory or to a run folder."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import Interrupted, RunFolder, finish_step_on_interrupt
from vision3d.io.zarr_store import SequenceWriter
from vision3d.scene import Cameras, FrameSequence, Selection
from vision3d.stage import check_config, stage
from vision3d.stages.simulate.config import RESUMABLE, SimulateConfig, Vector
from vision3d.stages.simulate.output.files import write_frame, write_images, write_video
from vision3d.stages.simulate.output.frame import Frame
from vision3d.stages.simulate.scene.representations import Movable
from vision3d.stages.simulate.scene.upright import UpFrom
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.simulation import Simulation, Stopped

logger = logging.getLogger("vision3d.physics")

FRAMES = "frames.zarr"
VIDEO = "video.mp4"


@dataclass(frozen=True)
class SimulateResult:
    """A simulated scene."""

    sequence: FrameSequence
    """Frames with the channels `means`, `covar_factors` (3dgs) or `edges` (2dgs, flat), and `turns` for view-dependent colors;
    or `vertices`. Read lazily from the run folder if there is one."""
    summary: dict[str, Any]
    """Results as plain values: frames, particles, steps, times."""
    run_folder: Path | None = None
    """The run folder, if any."""


def simulate_frames(
    config: SimulateConfig | None,
    scene: Movable,
    *,
    select: Selection | None = None,
    cameras: Cameras | None = None,
    default_up: Vector = (0.0, 0.0, 1.0),
) -> Iterator[Frame]:
    """The frames of a simulation one by one, the initial state first; each is computed on demand.

    Args, errors: as for `simulate`. Errors of the input are raised at once instead of with the first frame.
    """
    config = SimulateConfig() if config is None else config
    check_config(simulate_frames, config)
    return Simulation(set_up(scene, config, select, cameras=cameras, default_up=default_up), config).frames()


@stage("simulate", {"scene": "scene"}, resumable=RESUMABLE, config=SimulateConfig)
def simulate(
    config: SimulateConfig | None,
    scene: Movable,
    *,
    select: Selection | None = None,
    cameras: Cameras | None = None,
    default_up: Vector = (0.0, 0.0, 1.0),
    up_from: UpFrom = "caller",
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> SimulateResult:
    """Simulate a scene, or parts of it, by physics.

    Args:
        config: Options; defaults when None.
        scene: Gaussians of any mode, each a particle whose covariance follows the deformation, F Sigma F^T; Gaussians on a
            mesh, or a mesh, whose vertices are the particles.
        select: The moving part, instead of `config.select`. The rest of the scene is static and not an obstacle.
        cameras: Cameras of the photos, which determine the up direction.
        default_up: Up direction if options, cameras and floor do not determine it.
        up_from: Source of `default_up`: the caller, the format of the file, or a guess.
        run_folder: Receives frames.zarr, complete after each frame, one line of metrics per frame, checkpoints, charts, and
            other outputs of the options. A `RunFolder` with checkpoints resumes from the newest.
        progress: Progress callback, called for every frame.

    Raises:
        InputError: The scene is empty or not finite, nothing is selected, or nothing is opaque enough.
        ConfigError: An option does not match the scene, or the grid needs more memory than available.
        NumericalError: The motion is no longer finite.
        Interrupted: Stopped by Ctrl-C or SIGTERM, with a run folder; resuming continues after the last complete frame.

    Example:
        >>> from vision3d import GaussianScene, simulate
        >>> from vision3d.stages.simulate import SimulateConfig, load_material
        >>> result = simulate(SimulateConfig(load_material("sand"), frames=25, size=0.5), GaussianScene.load("scene.ply"))
        >>> result.sequence.save("sand.zarr")
    """
    config = SimulateConfig() if config is None else config
    setup = set_up(scene, config, select, cameras=cameras, default_up=default_up, up_from=up_from)
    simulation = Simulation(setup, config)
    if not isinstance(run_folder, RunFolder):
        return SimulateResult(_in_memory(simulation, progress), simulation.summary())
    moving = _in_folder(simulation, run_folder, progress)
    summary = simulation.summary()
    write_images(run_folder, moving, setup, config)
    if config.video:
        write_video(run_folder.path / VIDEO, moving, setup, config, progress)
        summary["video"] = str(run_folder.path / VIDEO)
    return SimulateResult(moving, summary, run_folder.path)


def _in_memory(simulation: Simulation, progress: ProgressCallback | None) -> FrameSequence:
    kept: list[Frame] = []
    with Progress(simulation.config.frames, "simulate", progress) as bar:
        for frame in simulation.frames():
            kept.append(frame)
            bar.update(frame.index + 1, steps=frame.metrics["steps"])
    times = torch.tensor([frame.time for frame in kept], dtype=torch.float64)
    channels = {name: torch.stack([frame.channels[name] for frame in kept]) for name in kept[0].channels}
    return FrameSequence(simulation.setup.representation.base, times, channels)


def _in_folder(simulation: Simulation, run_folder: RunFolder, progress: ProgressCallback | None) -> FrameSequence:
    config, base, path = simulation.config, simulation.setup.representation.base, run_folder.path / FRAMES
    checkpoint = run_folder.restore()
    if checkpoint is not None:
        simulation.restore(checkpoint.state)
        logger.info("resumes after frame %d", checkpoint.step)
    else:
        shutil.rmtree(path, ignore_errors=True)
    writer = SequenceWriter(path, base, resume=checkpoint is not None, keep=simulation.next, compress=False)
    with finish_step_on_interrupt() as stop, Progress(config.frames, "simulate", progress) as bar:
        simulation.is_stopped = lambda: stop.requested
        while simulation.next < config.frames:
            try:
                frame = simulation.step()
            except Stopped:
                run_folder.save_checkpoint(simulation.next - 1, simulation.state())
                raise Interrupted(f"stopped after frame {simulation.next - 1}") from None
            writer.append(frame.time, **frame.channels)
            run_folder.log(frame.index, time_s=frame.time, **frame.metrics)
            if config.ply:
                write_frame(run_folder.path / "frames", frame, simulation.setup, config)
            if frame.index % config.checkpoint_every == 0:
                run_folder.save_checkpoint(frame.index, simulation.state())
            bar.update(frame.index + 1, steps=frame.metrics["steps"])
            if stop.requested and frame.index + 1 < config.frames:
                run_folder.save_checkpoint(frame.index, simulation.state())
                raise Interrupted(f"stopped after frame {frame.index}")
    return FrameSequence.load(path)
