"""Small runs of the commands on the pretended GPU: `python -m tests.support.pretended_runs FOLDER NAME...` in its own process.

The last line of the output is JSON: the counts of each of RUNS that was named or, for the name `steps`, those of single steps.
"""

import dataclasses
import functools
import json
import sys
import traceback
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.support.balls import ball, bare, photos_of
from tests.support.clips import worm
from tests.support.clouds import write_clip, write_clouds
from tests.support.digits import drawn_digits, write_idx
from tests.support.fits import FEW
from tests.support.photos import ring, write_photos
from tests.support.pretend import Counts, PretendedGpu, pretended_gpu
from tests.support.rigs import moving_worm, shorten_searches
from tests.support.scenes import ring_scene
from tests.support.skins import arm
from vision3d.core.progress import silent
from vision3d.core.runs import RunFolder
from vision3d.scene import GaussianScene
from vision3d.stages.animate import AnimateConfig, StaticConfig, animate, bind_gaussians
from vision3d.stages.animate.dynamic.config import FieldConfig
from vision3d.stages.equivariant import AffnistConfig, ModelConfig, reproduce_affnist
from vision3d.stages.fit import fit
from vision3d.stages.fit.config import AdcConfig, LossConfig, McmcConfig
from vision3d.stages.rotation import (
    IkConfig,
    PointCloudConfig,
    SanityConfig,
    reproduce_rotation_ik,
    reproduce_rotation_pointcloud,
    reproduce_rotation_sanity,
)
from vision3d.stages.simulate import Material, SimulateConfig, simulate
from vision3d.stages.simulate.engines.native import NativeEngine

Run = Callable[[], Any]
FIT = replace(FEW, steps=24, resolution_start=2, device="cuda")
STEADY = replace(
    FIT,
    steps=16,
    resolution_start=1,
    sh_every=0.0,
    mcmc=McmcConfig(refine_every=1000),
    adc=AdcConfig(refine_every=1000),
    loss=LossConfig(distortion_start=0.0, normal_start=0.0),
    log_every=1000,
    checkpoint_every=0,
    eval_every=0,
)
"""Without refinement, output or change of resolution, so that steps are alike."""
MOTION = AnimateConfig(
    nodes=10, steps=24, frames_per_step=2, checkpoint_every=9, log_every=5, hold_out_every=3, device="cuda", reference=0
)
SIMULATION = SimulateConfig(
    Material("jelly", youngs_modulus=2e4, poisson_ratio=0.3), frames=3, fps=20.0, cells=6, drop=0.3, up=(0.0, 0.0, 1.0),
    floor="below", fill="none", engine="native", device="cuda",
)  # fmt: skip
TRAINING = {"steps": 6, "log_every": 2, "checkpoint_every": 3, "representations": ("6d", "quat"), "device": "cuda"}


def _fit(folder: Path, **changes: Any) -> Run:
    with_alpha = changes.get("background") == "random"
    masks = [torch.ones(48, 48, 1).index_fill(0, torch.arange(5), 0.0)] * 12 if "mode" in changes else None
    photos = write_photos(folder / "photos", with_alpha=with_alpha, masks=masks)
    config = replace(FIT, **changes)

    def run() -> None:
        fit(config, photos, run_folder=folder / "run", progress=silent)
        longer = replace(config, steps=30)
        fit(longer, photos, run_folder=RunFolder.create(folder / "run", longer, resume=True, grows={"steps"}), progress=silent)

    return run


def _scene(folder: Path) -> Path:
    ring_scene(300).save(folder / "scene.ply")
    return folder / "scene.ply"


def _cube() -> GaussianScene:
    line = torch.linspace(-0.5, 0.5, 7)
    means = torch.cartesian_prod(line, line, line)
    return GaussianScene.from_points(means, torch.rand_like(means), opacity=0.8, sh_degree=1)


def _simulate(folder: Path, **changes: Any) -> Run:
    return lambda: simulate(replace(SIMULATION, **changes), _cube(), run_folder=folder / "run", progress=silent)


def _animate(folder: Path, **changes: Any) -> Run:
    clip = worm(frames=5, cameras=2)
    footage = clip.footage()
    config = replace(MOTION, **changes)
    return lambda: animate(config, footage, clip.mesh, truth=clip.vertices, run_folder=folder / "run", progress=silent)


def _animate_joints(folder: Path, cameras: int, **changes: Any) -> Run:
    """With the joints of a skin, and searches for lost frames."""
    shorten_searches(types.SimpleNamespace(setattr=setattr))
    skin, clip, truth = moving_worm(frames=3, cameras=cameras)
    footage = clip.footage()
    config = replace(MOTION, hold_out_every=0, **changes)
    return lambda: animate(config, footage, skin, truth=truth, run_folder=folder / "run", progress=silent)


def _rig(folder: Path) -> Run:
    arm().save(folder / "arm.glb")
    moves = ("--pose", "joint_1=0,0,30", "joint_2=0,20,0", "--method", "dqs", "--render", "gaussians", "--per-face", 1)
    return _command(
        "animate", "rig", folder / "arm.glb", *moves, "--video-size", 32, 24, "--frames", 2, "--out", folder / "run"
    )


def _static(folder: Path) -> Run:
    photos = photos_of(ball(), folder / "photos")
    config = StaticConfig(steps=12, per_face=3, coarse=1, log_every=4, checkpoint_every=5, device="cuda")
    return lambda: bind_gaussians(config, bare(ball()), data=photos, run_folder=folder / "run", progress=silent)


def _command(*arguments: object) -> Run:
    from vision3d.cli.app import execute

    def run() -> None:
        code = execute([*map(str, arguments), "--device", "cuda", "--quiet", "--traceback"])
        assert code == 0, f"exit code {code}"

    return run


def _mesh(folder: Path) -> Run:
    few = ("--views", 8, "--view-size", 64, "--resolution", 32, "--faces", 300, "--texture-size", 64, "--refine", 20)
    return _command("mesh", _scene(folder), "--out", folder / "mesh.glb", *few)


def _render(folder: Path) -> Run:
    options = ("--path", "orbit", "--frames", 3, "--size", "33x25", "--depth", "--normals")
    return _command("render", _scene(folder), *options, "--out", folder / "video.mp4")


def _eval(folder: Path) -> Run:
    scene = _scene(folder)
    photos = write_photos(folder / "photos", scene=GaussianScene.load(scene), cameras=ring(size=48))
    return _command("eval", scene, photos, "--exposed")


def _rotations(folder: Path, name: str) -> Run:
    if name == "sanity":
        config = SanityConfig(**TRAINING, seeds=(0,), batch_size=8, width=16, test_rotations=50)
        return lambda: reproduce_rotation_sanity(config, run_folder=folder / "run")
    if name == "pointcloud":
        write_clouds(folder / "clouds.npz")
        config = PointCloudConfig(**TRAINING, clouds=2, rotations=3, points=16, test_rotations=2)
        return lambda: reproduce_rotation_pointcloud(config, folder / "clouds.npz", run_folder=folder / "run")
    write_clip(folder / "a.bvh")
    write_clip(folder / "b.bvh", seed=1)
    config = IkConfig(**TRAINING, seeds=(0,), batch_size=8, width=16)
    return lambda: reproduce_rotation_ik(config, [folder / "a.bvh"], [folder / "b.bvh"], run_folder=folder / "run")


def _equivariant(folder: Path, method: Any) -> Run:
    digits = write_idx(folder / "digits", drawn_digits(84))
    model = ModelConfig(method=method, channels=2, samples=2)
    config = AffnistConfig(
        model=model, epochs=1, batch_size=16, test_digits=20, copies=2, log_every=1, checkpoint_every=2, device="cuda"
    )
    return lambda: reproduce_affnist(config, digits, run_folder=folder / "run")


_part = functools.partial
RUNS: dict[str, Callable[[Path], Run]] = {
    "fit": _part(_fit, background="random"),
    "fit-corrected": _part(_fit, pose_opt=True, exposure_opt=True, antialiased=True),
    "fit-adc": _part(_fit, strategy="adc", batch_size=2),
    "fit-adc-absgrad": _part(_fit, strategy="adc", adc=replace(FIT.adc, absgrad=True)),
    "fit-2dgs": _part(_fit, mode="2dgs"),
    "fit-2dgs-adc": _part(_fit, mode="2dgs", strategy="adc"),
    "simulate": _simulate,
    "simulate-reference": _part(_simulate, engine="reference", frames=2),
    "animate-fit": _part(_animate, fit="graph"),
    "animate-fit-network": _part(_animate, motion=FieldConfig(kind="hexplane"), steps=8, video=False),
    "animate-fit-gaussians": _part(_animate, renderer="gaussians", per_face=1, steps=8),
    "animate-fit-joints": _part(_animate_joints, cameras=2, steps=12),
    "animate-fit-one-camera": _part(_animate_joints, cameras=1, steps=8, video=False),
    "animate-rig": _rig,
    "animate-static": _static,
    "mesh": _mesh,
    "render": _render,
    "eval": _eval,
    "rotation-sanity": _part(_rotations, name="sanity"),
    "rotation-pointcloud": _part(_rotations, name="pointcloud"),
    "rotation-ik": _part(_rotations, name="ik"),
    **{f"equivariant-{name}": _part(_equivariant, method=name) for name in ("rotation", "full", "separable", "canonical")},
}


def run(name: str, folder: Path) -> PretendedGpu:
    """One of RUNS."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    start = RUNS[name](folder)
    with pretended_gpu() as gpu:
        start()
    return gpu


class _Steps:
    """Counts between the calls of the progress callback of a training."""

    def __init__(self, gpu: PretendedGpu, task: str, first: int) -> None:
        self.gpu, self.task, self.first = gpu, task, first
        self.before: Counts | None = None
        self.found: list[Counts] = []
        self.places: Counter[str] = Counter()

    def __call__(self, task: str, step: int, total: int, values: Any) -> None:
        if task != self.task or step == total:
            return
        if self.before is not None:
            self.found.append(self.gpu.snapshot() - self.before)
            self.places = self.gpu.places.copy()
        elif step >= self.first:
            self.gpu.places.clear()
        if step >= self.first:
            self.before = self.gpu.snapshot()


def _training_steps(task: str, first: int, start: Callable[[Any], Any]) -> tuple[list[Counts], Counter[str]]:
    with pretended_gpu() as gpu:
        steps = _Steps(gpu, task, first)
        start(steps)
    return steps.found, steps.places


def _fit_steps(folder: Path, **changes: Any) -> tuple[list[Counts], Counter[str]]:
    photos = write_photos(folder / "photos")
    config = replace(STEADY, **changes)
    return _training_steps("fit", 13, lambda steps: fit(config, photos, progress=steps))  # each of the 10 views was used once


def _animate_steps(_folder: Path) -> tuple[list[Counts], Counter[str]]:
    clip = worm(frames=5, cameras=2)
    footage = clip.footage()
    config = replace(MOTION, fit="graph", log_every=1000, checkpoint_every=0, video=False)
    return _training_steps("animate", 21, lambda steps: animate(config, footage, clip.mesh, progress=steps))


def _physics(_folder: Path) -> tuple[list[Counts], Counter[str]]:
    """Of calls of the engine, each of which does many time steps."""
    found: list[Counts] = []
    advance = NativeEngine.advance
    with pretended_gpu() as gpu:

        def counted(self: NativeEngine, *arguments: Any) -> Any:
            gpu.places.clear()
            before = gpu.snapshot()
            report = advance(self, *arguments)
            found.append(gpu.snapshot() - before)
            last.update(gpu.places)
            return report

        last: Counter[str] = Counter()
        NativeEngine.advance = counted  # type: ignore[method-assign]
        simulate(SIMULATION, _cube(), progress=silent)
    return found, last


STEPS: dict[str, Callable[[Path], tuple[list[Counts], Counter[str]]]] = {
    "fit 3dgs mcmc": _fit_steps,
    "fit 3dgs adc": _part(_fit_steps, strategy="adc"),
    "fit 2dgs mcmc": _part(_fit_steps, mode="2dgs"),
    "fit 2dgs adc": _part(_fit_steps, mode="2dgs", strategy="adc"),
    "fit corrected": _part(_fit_steps, pose_opt=True, exposure_opt=True, background="random"),
    "animate fit": _animate_steps,
    "simulate advance": _physics,
}


def counts_of_steps(folder: Path) -> dict[str, dict[str, int]]:
    """The largest counts of a step, for each of STEPS; where its waits and copies are goes to standard error."""
    found = {}
    for name, measure in STEPS.items():
        torch.manual_seed(0)
        counts, places = measure(folder / name.replace(" ", "-"))
        assert counts
        found[name] = {field.name: max(getattr(count, field.name) for count in counts) for field in dataclasses.fields(Counts)}
        sys.stderr.write(f"\n{name}, {len(counts)} steps\n")
        for place, times in sorted(places.items()):
            sys.stderr.write(f"  {times / len(counts):5.2f} {place}\n")
    return found


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    if names == ["steps"]:
        sys.stdout.write(json.dumps(counts_of_steps(folder)) + "\n")
        return
    found = {}
    for name in names:
        try:
            found[name] = dataclasses.asdict(run(name, folder / name).counts)
        except Exception:
            sys.stderr.write(f"\n{name} failed:\n")
            traceback.print_exc(file=sys.stderr)
    sys.stdout.write(json.dumps(found) + "\n")
    sys.exit(len(found) < len(names))


if __name__ == "__main__":
    main()
