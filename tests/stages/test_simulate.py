import json
import logging
import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.config import dump_yaml, load_yaml
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.core.progress import silent
from vision3d.core.runs import RunFolder
from vision3d.scene import FrameSequence, GaussianScene, Region, Selection
from vision3d.stages.simulate import Boundary, Material, SimulateConfig, load_material, simulate, simulate_frames
from vision3d.stages.simulate.scene.followers import Followers
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.world.cells import cell_volumes
from vision3d.stages.simulate.world.particles import Particles

SOFT = Material("jelly", youngs_modulus=2e4, poisson_ratio=0.3)
UPRIGHT = {"up": (0.0, 0.0, 1.0), "floor": "below", "fill": "none", "engine": "reference"}
QUICK = SimulateConfig(SOFT, frames=4, fps=20.0, cells=6, drop=2.0, **UPRIGHT)


def cube(side=9, edge=1.0, center=(0.0, 0.0, 0.0), mode="3dgs"):
    """A scene of Gaussians of different shapes that fill a cube."""
    line = (torch.arange(side) / (side - 1) - 0.5) * edge
    means = torch.cartesian_prod(line, line, line) + torch.tensor(center)
    scene = GaussianScene.from_points(means, torch.rand_like(means), opacity=0.8, sh_degree=1, mode=mode)
    log_scales = scene.log_scales.clone()
    log_scales[:, :2] += 0.5 * torch.randn(len(means), 2)
    return replace(scene, log_scales=log_scales, quats=torch.randn(len(means), 4))


def frames_of(scene, config, **options):
    return list(simulate_frames(config, scene, **options))


@pytest.mark.parametrize(("up", "size"), [((0.0, 0.0, 1.0), None), ((0.0, -2.0, 0.0), 0.5), ((1.0, 1.0, 0.0), 3.0)])
def test_a_scene_falls_according_to_its_size(up, size):
    """g t^2 / 2 in meters, along the up direction; nothing is deformed."""
    scene = cube(center=(5.0, -3.0, 2.0))
    config = replace(QUICK, up=up, size=size, floor="none", room=3.0)
    meters = 1.0 if size is None else size
    rest = frames_of(scene, replace(config, frames=1))[0]
    torch.testing.assert_close(rest.channels["means"], scene.means)
    for frame in frames_of(scene, config):
        shift = (frame.channels["means"] - scene.means).double() * meters
        direction = torch.tensor(up).double() / math.sqrt(sum(c * c for c in up))
        late = 9.81 * frame.time * frame.metrics["dt_s"] / 2  # symplectic Euler is half a step ahead
        assert (shift @ direction + 9.81 * frame.time**2 / 2).abs().max() < 1.01 * late + 1e-5
        assert (shift - (shift @ direction)[:, None] * direction).abs().max() < 1e-5
        torch.testing.assert_close(frame.channels["covar_factors"], rest.channels["covar_factors"], atol=1e-6, rtol=1e-4)
        assert frame.metrics["height_m"] == pytest.approx(float((shift @ direction).mean()), abs=1e-5)


@pytest.mark.parametrize("floor_kind", ["separate", "sticky"])
def test_a_cube_of_jelly_bounces_without_gaining_energy(floor_kind):
    scene = cube(side=9, edge=0.4)
    config = replace(QUICK, frames=30, fps=25.0, cells=5, drop=0.25, floor_kind=floor_kind)
    frames = frames_of(scene, config)
    floor = -0.2 - 0.25 * 0.4
    lowest = torch.stack([frame.channels["means"][:, 2].min() for frame in frames])
    assert floor - 0.4 / 5 < lowest.min() < floor + 0.4 / 5  # within a cell of the floor
    assert all(frame.metrics["kept"] == 0 for frame in frames)
    total = torch.tensor([sum(f.metrics[name] for name in ("kinetic_J", "elastic_J", "potential_J")) for f in frames])
    given = max(frame.metrics["kinetic_J"] for frame in frames)
    assert total.diff().max() < 1e-3 * given
    assert total[0] - total[-1] > 0.2 * given  # the affine transfers damp
    assert max(frame.metrics["elastic_J"] for frame in frames) > given  # gravity does work while it is compressed
    heights = torch.tensor([frame.metrics["height_m"] for frame in frames])
    lowest = int(heights.argmin())
    assert heights[lowest:].max() - heights[lowest] > 0.4 * 0.25 * 0.4  # it rebounds by more than 0.4 of its drop
    shapes = [frame.channels["covar_factors"] for frame in frames]
    assert (shapes[7] - shapes[0]).abs().max() > 1e-3 * scene.scales.mean()


def test_the_mass_does_not_depend_on_the_number_of_gaussians():
    masses = []
    for side in (12, 24):
        particles = set_up(cube(side=side), replace(QUICK, cells=5)).particles
        masses.append(float(particles.mass.sum()))
    assert abs(masses[1] / masses[0] - 1) < 1e-6
    assert abs(masses[0] / 1000.0 - 1.2**3) < 1e-5  # sides of L + h


def test_cell_volumes_share_cells():
    x = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0.1, 0], [3.0, 0, 0]]).double()
    torch.testing.assert_close(cell_volumes(x, 1.0), torch.tensor([1 / 3, 1 / 3, 1 / 3, 1]).double())


def test_only_the_selection_moves():
    scene = cube(side=6).merge(cube(side=6, center=(3.0, 0.0, 0.0)))
    select = Selection((Region.box(torch.zeros(3), torch.full((3,), 0.6)),))
    rest, *_, frame = frames_of(scene, replace(QUICK, cells=3), select=select)
    first = frame.channels["means"][:216] - scene.means[:216]
    assert (first[:, 2] < -0.05).all()
    assert torch.equal(frame.channels["means"][216:], scene.means[216:])
    assert torch.equal(frame.channels["covar_factors"][216:], rest.channels["covar_factors"][216:])


@pytest.mark.parametrize(("mode", "channel"), [("3dgs", "covar_factors"), ("2dgs", "edges"), ("flat", "edges")])
def test_frames_are_scenes_of_the_same_mode(mode, channel):
    scene = cube(side=5, mode=mode)
    moving = simulate(replace(QUICK, cells=3, frames=2), scene, progress=silent).sequence
    assert isinstance(moving, FrameSequence) and set(moving.channels) == {"means", channel, "turns"}
    assert moving.times.tolist() == pytest.approx([0.0, 0.05])
    frame = moving.validate().frame(1)
    assert isinstance(frame, GaussianScene) and frame.validate().mode == mode
    torch.testing.assert_close(moving.frame(0).means, scene.means)
    if mode == "3dgs":
        torch.testing.assert_close(moving.frame(0).covars, scene.covars, atol=1e-7, rtol=1e-4)
    assert torch.equal(moving.frame(0).sh, scene.sh)
    torch.testing.assert_close(frame.sh.square().sum(1), scene.sh.square().sum(1))  # preserved per band by rotation


def test_deformations_of_gaussians_are_clamped():
    scene, velocity = cube(side=7), (0.0, 0.0, -12.0)
    config = replace(QUICK, velocity=velocity, drop=0.05, cells=4, frames=3, max_stretch=1.2, floor_kind="sticky", gravity=0.0)
    lengths = torch.linalg.svdvals(frames_of(scene, replace(config, frames=1))[0].channels["covar_factors"])
    configs = (config, replace(config, max_stretch=1e3))
    shown, free = ([f.channels["covar_factors"] for f in frames_of(scene, c)] for c in configs)
    for factors in shown:
        ratio = torch.linalg.svdvals(factors) / lengths
        assert ratio.max() < 1.2001 and ratio.min() > 1 / 1.2001
    ratio = torch.linalg.svdvals(free[-1]) / lengths
    assert ratio.max() > 1.3 or ratio.min() < 1 / 1.3


def test_followers_are_exact_for_affine_motions():
    x, points = torch.rand(40, 3).double(), torch.rand(25, 3).double()
    followers = Followers.around(torch.arange(25), points, x)
    A, shift = torch.eye(3).double() + 0.3 * torch.randn(3, 3).double(), torch.randn(3).double()
    start = Particles.at_rest(x, torch.ones(40).double(), (SOFT,))
    positions, F = followers.positions(start.replace(x=x @ A.T + shift, F_total=A.expand(40, 3, 3)))
    torch.testing.assert_close(positions, points @ A.T + shift)
    torch.testing.assert_close(F, A.expand(25, 3, 3))
    torch.testing.assert_close(followers.weights.sum(1), torch.ones(25).double())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_particles_have_followers(count):
    x, points = torch.rand(count, 3).double(), torch.rand(6, 3).double()
    followers = Followers.around(torch.arange(6), points, x)
    positions, _ = followers.positions(Particles.at_rest(x + 1, torch.ones(count).double(), (SOFT,)))
    torch.testing.assert_close(positions, points + 1)


def test_simulating_a_tenth_moves_all():
    """Against all of them simulated: after impact, within a quarter of a cell in the median, one at the 99th percentile."""
    scene = cube(side=13)
    config = replace(QUICK, cells=5, frames=8, fps=20.0, drop=0.2)
    whole = frames_of(scene, config)[-1]
    few = frames_of(scene, replace(config, max_particles=len(scene) // 10))[-1]
    assert few.metrics["particles"] == len(scene) // 10
    error = (few.channels["means"] - whole.channels["means"]).norm(dim=-1) * 5
    moved = (whole.channels["means"] - scene.means).norm(dim=-1) * 5
    assert moved.min() > 0.9
    assert error.median() < 0.25 and error.quantile(0.99) < 1.0


def test_transparent_gaussians_follow():
    scene = cube(side=6)
    logits = scene.opacity_logits.clone()
    logits[::3] = -6.0
    frame = frames_of(replace(scene, opacity_logits=logits), replace(QUICK, cells=3))[-1]
    assert frame.metrics["particles"] == 144
    fall = (frame.channels["means"] - scene.means)[:, 2]
    assert fall.std() < 1e-4 and fall.mean() < -0.05


def test_obstacles_are_in_units_of_the_scene():
    """A sphere below one side: that side is supported, the other falls past it. Scene units are half meters."""
    scene = cube(side=9, center=(4.0, 0.0, 0.0))
    ball = Boundary("sphere", (3.5, 0.0, -0.8), radius=0.35, kind="sticky")
    config = replace(QUICK, cells=6, frames=8, fps=20.0, size=0.5, boundaries=(ball,))
    placed, floor = set_up(scene, config).world.boundaries
    assert placed.radius == pytest.approx(0.175) and placed.half_size == pytest.approx((0.25, 0.25, 0.25))
    assert placed.center == pytest.approx((-0.25, 0.0, -0.4))
    assert floor.shape == "plane" and floor.center == pytest.approx((0.0, 0.0, -0.25 - 2 * 0.5))
    means = frames_of(scene, config)[-1].channels["means"]
    distance = (means - torch.tensor(ball.center)).norm(dim=-1)
    assert 0.35 - 1 / 6 < distance.min() < 0.35 + 1 / 6
    fall = scene.means[:, 2] - means[:, 2]
    near, far = scene.means[:, 0] < 3.8, scene.means[:, 0] > 4.3
    assert fall[far].mean() > fall[near].mean() + 0.1


def test_bitwise_reproducible_by_seed():
    scene, config = cube(side=7), replace(QUICK, cells=4, max_particles=200)
    first, second = frames_of(scene, config)[-1], frames_of(scene, config)[-1]
    assert torch.equal(first.channels["means"], second.channels["means"])
    other = frames_of(scene, replace(config, seed=1, velocity=(0.1, 0.2, 0.3)))[-1]
    assert not torch.equal(first.channels["means"], other.channels["means"])


# Run folders


def test_a_run_folder_gets_frames_and_metrics(tmp_path):
    scene, config = cube(side=5), replace(QUICK, cells=3, frames=3)
    seen = []
    folder = RunFolder.create(tmp_path / "run", config)
    moving = simulate(
        config, scene, run_folder=folder, progress=lambda task, step, total, values: seen.append((task, step, total))
    ).sequence
    assert seen == [("simulate", 1, 3), ("simulate", 2, 3), ("simulate", 3, 3)]
    in_memory = simulate(config, scene, progress=silent).sequence
    assert len(moving) == len(in_memory) == 3
    for a, b in zip(moving, in_memory):
        torch.testing.assert_close(a.means, b.means)
        torch.testing.assert_close(a.covars, b.covars)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert lines[2]["steps"] > 0 and lines[2]["height_m"] < lines[1]["height_m"] < 0
    again = simulate(config, scene, run_folder=folder, progress=silent).sequence  # an existing run is resumed
    assert torch.equal(again.frame(2).means, moving.frame(2).means)
    other = replace(scene, means=scene.means + 1)
    with pytest.raises(FileFormatError, match="checkpoint: belongs to a different scene; use that one, or start over"):
        simulate(config, other, run_folder=folder, progress=silent)


def test_files_of_a_stopped_run_are_complete(tmp_path):
    scene, config = cube(side=5), replace(QUICK, cells=3, frames=5)
    folder = RunFolder.create(tmp_path / "run", config)

    def stop(task, step, total, values):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(config, scene, run_folder=folder, progress=stop)
    assert len(FrameSequence.load(folder.path / "frames.zarr").validate()) == 3


# Options and input


def test_configurations_round_trip_through_yaml(tmp_path):
    config = SimulateConfig(load_material("sand"), up=(0.0, 1.0, 0.0), boundaries=(Boundary("sphere", radius=0.2, start=1.0),))
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    assert load_yaml(SimulateConfig, path) == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"frames": 0}, "frames: got 0, want at least 1"),
        ({"gravity": float("nan")}, "gravity: got nan, want a number"),
        ({"fps": 0.0}, "fps: got 0.0, want a number > 0"),
        ({"size": -1.0}, "size: got -1.0, want a length > 0"),
        ({"drop": -1.0}, "drop: got -1.0, want at least 0"),
        ({"share": 1.5}, "share: got 1.5, want at most 1"),
        ({"share": 0.5, "grouping": "none"}, "share: got 0.5 with grouping none, which does not move the others; want 1"),
        (
            {"box": (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)},
            "box: got (0.0, 0.0, 0.0, 1.0, 0.0, 1.0), want three lower and three higher numbers",
        ),
        ({"video_size": (8, 8)}, "video_size: got (8, 8), want 16 to 8192 pixels per side"),
        ({"fill": "foam"}, "fill: got 'foam', want one of auto, none, density, mesh"),
        ({"up": (0.0, 0.0, 0.0)}, "up: got (0, 0, 0), want a direction"),
        ({"velocity": (0.0, float("inf"), 0.0)}, "velocity: got (0.0, inf, 0.0), want three numbers"),
        ({"max_stretch": 0.5}, "max_stretch: got 0.5, want at least 1"),
        ({"min_opacity": 1.0}, "min_opacity: got 1.0, want less than 1"),
        ({"floor_kind": "ice"}, "floor_kind: got 'ice', want one of sticky, slip, separate"),
    ],
)
def test_wrong_options_are_named(values, text):
    with pytest.raises(ConfigError) as error:
        SimulateConfig(**values)
    assert str(error.value) == text


def test_wrong_input_is_named_before_the_first_frame():
    scene = cube(side=4)
    nothing = Selection((Region.sphere(torch.full((3,), 9.0), 0.1),))
    with pytest.raises(InputError, match="selection: holds none of 64 Gaussians, want at least one"):
        simulate_frames(QUICK, scene, select=nothing)
    faint = replace(scene, opacity_logits=torch.full((64,), -6.0))
    with pytest.raises(InputError, match=r"no opacity of 64 Gaussians is above min_opacity = 0\.02, the highest is 0\.00247"):
        simulate_frames(QUICK, faint)
    with pytest.raises(
        ConfigError, match=r"cells: 400 of them make a grid of .* nodes, which with 65 particles needs .* GB, max_memory is 4;"
    ):
        simulate_frames(replace(QUICK, cells=400, max_memory=4.0), scene)
    with pytest.raises(ConfigError, match=r"cells: 4000 of them make a grid of .* GB, free are "):
        simulate_frames(replace(QUICK, cells=4000), scene)
    with pytest.raises(ConfigError, match="engine: got 'magic', want one of auto"):
        simulate_frames(replace(QUICK, engine="magic"), scene)
    broken = replace(scene, means=scene.means.clone().fill_(float("nan")))
    with pytest.raises(InputError, match="means"):
        simulate_frames(QUICK, broken)
    with pytest.raises(InputError, match="got 0 Gaussians"):
        simulate_frames(QUICK, scene[:0])
    with pytest.raises(MissingFileError, match="a preset of materials"):
        load_material("cheese")


def test_warnings_for_thin_and_sparse_bodies(caplog):
    flat = cube(side=6)
    flat = replace(flat, means=flat.means * torch.tensor([1.0, 1.0, 0.05]))
    with caplog.at_level(logging.WARNING, "vision3d.physics"):
        set_up(flat, replace(QUICK, cells=8))
    assert "the moving part is 0.05 m thin, less than a cell of 0.125 m; 20 cells would resolve it" in caplog.text
    caplog.clear()
    plate = replace(flat, means=flat.means * torch.tensor([1.0, 1.0, 4.0]))
    for law, is_told in (("jelly", True), ("sand", False)):
        set_up(plate, replace(QUICK, cells=8, material=load_material(law)))
        want = "0.2 m thin, 1.6 cells, and bends 1.2 to 1.5 times too far; 15 cells make it three"
        assert (want in caplog.text) == is_told
        caplog.clear()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "vision3d.physics"):
        set_up(cube(side=4), replace(QUICK, cells=16))
    assert "got 1.0 particles per cell, want 4 to 8 so that bodies hold together; use fewer cells" in caplog.text


def test_warnings_for_parts_that_may_break_off(caplog):
    """A stick on a cube of jelly; sand falls apart anyway."""
    stick = torch.zeros(60, 3)
    stick[:, 2] = torch.linspace(0.5, 1.5, 60)
    body = cube(side=8)
    both = body.merge(GaussianScene.from_points(stick, opacity=0.9, sh_degree=1))
    for law, is_told in (("jelly", True), ("sand", False)):
        set_up(both, replace(QUICK, cells=16, material=load_material(law), fill="auto"))
        want = "% of its points are in parts thinner than a cell of 0.125 m, which bend too far and may break off"
        assert (want in caplog.text) == is_told, caplog.text
        caplog.clear()
    set_up(body, replace(QUICK, cells=16, fill="auto"))
    assert "break off" not in caplog.text


def test_a_single_gaussian_falls():
    scene = cube(side=2)[:1]
    frame = frames_of(scene, replace(QUICK, cells=2, floor="none", room=50.0, frames=2))[-1]
    assert frame.channels["means"][0, 2] < scene.means[0, 2]
