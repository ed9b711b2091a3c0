"""The stage: a scene moves, frame by frame."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.edge_factors import clamp_factors, factors_svd, gaussians_to_factors
from vision3d.geometry.triangles import gaussians_to_edges
from vision3d.io.zarr_store import SequenceWriter
from vision3d.progress import Progress, ProgressCallback
from vision3d.runs import RunFolder
from vision3d.scene import GaussianScene, Selection, Sequence
from vision3d.stages.physics.config import SimulateConfig
from vision3d.stages.physics.engines import Engine, make_engine
from vision3d.stages.physics.particles import Particles
from vision3d.stages.physics.setup import Setup, set_up
from vision3d.stages.physics.world import Advance

logger = logging.getLogger("vision3d.physics")

FRAMES = "frames.zarr"


@dataclass(frozen=True, eq=False)
class Frame:
    """A scene at one time."""

    index: int
    time: float
    """[s]."""
    channels: dict[str, Tensor]
    """`means`, and `covar_factors` (n, 3, 3) of ellipsoids or `edges` (n, 3, 2) of discs, as in `Sequence.channels`."""
    figures: dict[str, float]
    """steps, dt_s (the shortest), kept (particles kept inside the grid), kinetic_J, elastic_J, potential_J (in the middle of
    the last step, see `reference.mpm.energies`), height_m (centre of mass above its place at rest), momentum_kg_m_s,
    particles."""


def simulate_frames(
    scene: GaussianScene, config: SimulateConfig | None = None, *, select: Selection | None = None
) -> Iterator[Frame]:
    """The frames of a simulation one by one, the first at rest; each is computed when it is asked for.

    Args, errors: as of `simulate`. What is wrong with the input is raised at once and not with the first frame.
    """
    config = SimulateConfig() if config is None else config
    return _frames(scene, config, set_up(scene, config, select))


def simulate(
    scene: GaussianScene,
    config: SimulateConfig | None = None,
    run_folder: RunFolder | None = None,
    progress: ProgressCallback | None = None,
    *,
    select: Selection | None = None,
) -> Sequence:
    """Let Gaussians move by physics: each is a particle whose covariance follows the deformation, F Sigma F^T.

    Harmonics stay as they are: colours that depend on the view do not turn with the material yet.

    Args:
        scene: Of any mode. Without filling: a hollow shell crumples.
        config: Options; defaults when None.
        run_folder: Takes frames.zarr, whole after each frame, and a line of figures a frame.
        progress: Takes every frame.
        select: What moves; all when None. The rest stays, and is no obstacle.

    Returns:
        Frames with the channels `means` and `covar_factors` (3dgs) or `edges` (2dgs, flat); read lazily from the run folder
        where there is one.

    Raises:
        InputError: The scene is empty or not finite, nothing is selected, or nothing is opaque enough.
        ConfigError: The grid needs more than `max_memory`.
        NumericalError: The motion is no longer finite.
        OutputExistsError: The run folder has frames already.

    Example:
        >>> from vision3d import GaussianScene
        >>> from vision3d.stages.physics import SimulateConfig, load_material, simulate
        >>> moving = simulate(GaussianScene.load("scene.ply"), SimulateConfig(load_material("jelly"), frames=25, size=0.5))
        >>> moving.save("jelly.zarr")
    """
    config = SimulateConfig() if config is None else config
    frames = simulate_frames(scene, config, select=select)
    writer = None if run_folder is None else SequenceWriter(run_folder.path / FRAMES, scene)
    kept: list[Frame] = []
    with Progress(config.frames, "simulate", progress) as bar:
        for frame in frames:
            if writer is None or run_folder is None:
                kept.append(frame)
            else:
                writer.append(frame.time, **frame.channels)
                run_folder.log(frame.index, time_s=frame.time, **frame.figures)
            bar.update(frame.index + 1, steps=frame.figures["steps"])
    if run_folder is not None:
        return Sequence.load(run_folder.path / FRAMES)
    times = torch.tensor([frame.time for frame in kept], dtype=torch.float64)
    return Sequence(scene, times, {name: torch.stack([f.channels[name] for f in kept]) for name in kept[0].channels})


def _frames(scene: GaussianScene, config: SimulateConfig, setup: Setup) -> Iterator[Frame]:
    engine, start = make_engine(config.engine, setup.particles, setup.world), setup.particles.center
    rest = _factors(scene).double()
    lengths = factors_svd(rest)[1]
    report, num_kept = Advance(0, 0.0, 0.0, 0), 0
    for index in range(config.frames):
        time = index / config.fps
        if index:
            before = (index - 1) / config.fps
            report = engine.advance(time - before, before)
            if report.num_kept and not num_kept:
                logger.warning("frame %d: particles reach the end of the grid and are kept there; give more room", index)
            num_kept += report.num_kept
        yield Frame(
            index, time, _channels(scene, config, setup, engine.particles, rest, lengths), _figures(engine, report, start)
        )


def _factors(scene: GaussianScene) -> Tensor:
    quats, scales = scene.quats.detach().cpu(), scene.scales.detach().cpu()
    return gaussians_to_factors(quats, scales) if scene.mode == "3dgs" else gaussians_to_edges(quats, scales, flat_axis=2)


def _channels(
    scene: GaussianScene,
    config: SimulateConfig,
    setup: Setup,
    particles: Particles,
    rest: Float[Tensor, "n 3 k"],
    lengths: Float[Tensor, "n k"],
) -> dict[str, Tensor]:
    means, factors = scene.means.detach().cpu().double(), rest.clone()
    positions, F = setup.followers.positions(particles)
    rows = torch.cat([setup.cores, setup.followers.rows])
    means[rows] = setup.to_scene(torch.cat([particles.x, positions]))
    moved = torch.cat([particles.F_total, F]) @ rest[rows]
    factors[rows] = clamp_factors(moved, lengths[rows], config.max_stretch)
    name = "covar_factors" if scene.mode == "3dgs" else "edges"
    return {"means": means.to(scene.means), name: factors.to(scene.means)}


def _figures(engine: Engine, report: Advance, start: Tensor) -> dict[str, float]:
    particles, world = engine.particles, engine.world
    energy = engine.energies(report.last_dt)
    pull = torch.tensor(world.gravity, dtype=particles.x.dtype)
    up = -pull / pull.norm() if bool(pull.any()) else torch.zeros_like(pull)
    return {
        "steps": report.steps,
        "dt_s": report.shortest_dt,
        "kept": report.num_kept,
        "kinetic_J": energy.kinetic,
        "elastic_J": energy.elastic,
        "potential_J": energy.potential,
        "height_m": float((particles.center - start) @ up),
        "momentum_kg_m_s": float(particles.momentum.norm()),
        "particles": len(particles),
    }
