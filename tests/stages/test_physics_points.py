import importlib.util
import logging
import math
import subprocess
import sys

import pytest
import torch

from tests.support.particles import lattice
from vision3d import GaussianScene
from vision3d.core.errors import ConfigError, InputError, MissingDependencyError, ShapeError
from vision3d.core.install import install_command
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.geometry.rotation import so3_exp
from vision3d.scene import Region, Selection
from vision3d.stages.simulate.config import Boundary, Material, SimulateConfig
from vision3d.stages.simulate.engines.cage import CageEngine
from vision3d.stages.simulate.engines.points import MpmPoints, PointEngine
from vision3d.stages.simulate.engines.warp_points import WarpEngine
from vision3d.stages.simulate.points3 import Corners, gram_schmidt_edges, simulate_points, to_sequence
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.world.particles import Grid
from vision3d.stages.simulate.world.world import World

needs_warp = pytest.mark.skipif(importlib.util.find_spec("warp") is None, reason="warp-lang is not installed")


def gaussians(count, mode="flat", low=-5.0, high=-3.0, means=None):
    """Gaussians with scales of 10^low to 10^high anywhere in the unit box."""
    scales = 10 ** (low + (high - low) * torch.rand(count, 3))
    if mode != "3dgs":
        scales[:, 2] = 1e-8
    return GaussianScene(
        means=torch.rand(count, 3) if means is None else means,
        quats=random_quats(count),
        log_scales=scales.log(),
        opacity_logits=torch.full((count,), 2.0),
        sh=torch.zeros(count, 1, 3),
        mode=mode,
    )


class Affine:
    """An engine that moves all points by a time-dependent matrix and translation."""

    def __init__(self, matrix, shift=(0.0, 0.0, 0.0), dtype=torch.float64, edge_share=0.0):
        self.matrix, self.shift, self.dtype, self.edge_share = matrix, torch.tensor(shift).double(), dtype, edge_share

    def begin(self, points):
        self.points = points

    def advance(self, duration, time):
        x = self.points.x.to(self.dtype)
        return x @ self.matrix(time + duration).to(x).T + self.shift.to(x)


def last(scene, engine, **options):
    """Means and covariances of the second frame, float64, from the channels."""
    *_, frame = simulate_points(scene, engine, frames=2, fps=1.0, max_stretch=options.pop("max_stretch", None), **options)
    factors = frame.channels["edges" if "edges" in frame.channels else "covar_factors"].double()
    return frame.channels["means"], factors, factors @ factors.mT


def covariances(scene):
    rotmats = quat_to_rotmat(scene.quats.double())
    lengths = scene.scales.double().clone()
    if scene.mode != "3dgs":
        lengths[:, 2] = 0
    factors = rotmats * lengths[:, None]
    return factors @ factors.mT


def relative(found, want):
    return ((found - want).norm(dim=(1, 2)) / want.norm(dim=(1, 2))).max()


# The representation


@pytest.mark.parametrize("mode", ["flat", "2dgs", "3dgs"])
def test_covariances_follow_affine_maps(mode):
    """Random maps I + N(0, 0.5) of splats of 10 um to 1 mm at a distance of one meter, channels in float32."""
    for seed in range(20):
        scene, A = gaussians(500, mode), torch.eye(3) + 0.5 * torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))
        A = A.double()
        means, _, found = last(scene, Affine(lambda time, A=A: A, (0.3, -2.0, 1.0)))
        assert relative(found, A @ covariances(scene) @ A.T) < 1e-6
        torch.testing.assert_close(
            means.double(), scene.means.double() @ A.T + torch.tensor([0.3, -2.0, 1.0]), atol=1e-6, rtol=0
        )


def test_round_trip_keeps_the_orientation():
    """The published code is off by 24 to 129 degrees here; includes nearly round discs."""
    scene = gaussians(20_000)
    near = scene.log_scales[:, 0] + 10 ** (-7 + 5 * torch.rand(20_000))
    round_ones = torch.rand(20_000) < 0.3
    log_scales = scene.log_scales.clone()
    log_scales[:, 1] = torch.where(round_ones, near, log_scales[:, 1])
    scene = GaussianScene(scene.means, scene.quats, log_scales, scene.opacity_logits, scene.sh, mode="flat")
    turn = torch.tensor([0.7, -1.1, 0.4]).double()
    moving = to_sequence(scene, simulate_points(scene, Affine(lambda time: so3_exp(turn * math.sin(time * math.pi))), 3, 2.0))
    middle, back = moving.frame(1), moving.frame(2)
    want = so3_exp(turn) @ quat_to_rotmat(scene.quats.double())
    assert largest_angle(quat_to_rotmat(middle.quats.double()), want) < 0.05
    assert largest_angle(quat_to_rotmat(back.quats.double()), quat_to_rotmat(scene.quats.double())) < 0.05
    assert relative(covariances(back), covariances(scene)) < 1e-5


def largest_angle(found, want):
    """Angle between axes, in any order and with any sign [degrees]."""
    partner = (found.mT @ want).abs().argmax(-1)
    matched = want.gather(2, partner[:, None].expand(-1, 3, -1))
    return torch.rad2deg(torch.linalg.cross(found, matched, dim=1).norm(dim=1).clamp(max=1).asin().max())


def test_float32_engines_get_edges_above_their_precision():
    scene, A = gaussians(2000), torch.eye(3).double() + 0.3
    want = A @ covariances(scene) @ A.T
    as_published = last(scene, Affine(lambda time: A, dtype=torch.float32))[2]
    resolved = last(scene, Affine(lambda time: A, dtype=torch.float32, edge_share=0.5))[2]
    assert relative(as_published, want) > 1e-3
    assert relative(resolved, want) < 3e-5


def test_gram_schmidt_loses_shear_and_exact_keeps_it():
    scene = GaussianScene(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[1.0, 1.0, 1e-8]]).log(),
        torch.tensor([2.0]), torch.zeros(1, 1, 3), mode="flat",
    )  # fmt: skip
    shear = torch.tensor([[1.0, 1.0, 0], [0, 1.0, 0], [0, 0, 1.0]]).double()
    lengths = {}
    for method in ("exact", "gram_schmidt"):
        _, edges, _ = last(scene, Affine(lambda time: shear), method=method)
        lengths[method] = torch.linalg.svdvals(edges[0])
    torch.testing.assert_close(lengths["exact"], torch.tensor([1.618034, 0.618034]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(lengths["gram_schmidt"], torch.ones(2).double())
    edges = torch.randn(5, 3, 2).double()
    orthogonal = gram_schmidt_edges(edges)
    torch.testing.assert_close((orthogonal[..., 0] * orthogonal[..., 1]).sum(-1), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(gram_schmidt_edges(orthogonal), orthogonal)


def test_points_are_the_published_corners():
    scene = gaussians(3)
    corners = Corners.of(scene.means, quat_to_rotmat(scene.quats)[..., :2] * scene.scales[:, None, :2])
    points = corners.points(torch.tensor([3.0, 6.0, 9.0]))
    assert points.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert points.masses.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert points.edges.tolist()[:3] == [[0, 1], [0, 2], [1, 2]] and points.edges.tolist()[3] == [3, 4]
    torch.testing.assert_close(points.x[::3], scene.means.double())
    axes = (points.x[1::3] - points.x[::3]) / scene.scales[:, :1]
    torch.testing.assert_close(axes.float(), quat_to_rotmat(scene.quats)[..., 0], atol=1e-5, rtol=0)
    means, factors = corners.read(points.x)
    assert torch.equal(means, corners.means)
    torch.testing.assert_close(factors, corners.factors, atol=1e-15, rtol=0)


def test_only_selected_and_opaque_gaussians_move():
    scene = gaussians(300, "3dgs")
    logits = torch.where(torch.arange(300) < 100, -6.0, 2.0)
    scene = GaussianScene(scene.means, scene.quats, scene.log_scales, logits, scene.sh, mode="3dgs")
    half = Selection((Region.plane(torch.tensor([0.5, 0, 0]), torch.tensor([1.0, 0, 0])),))
    engine = Affine(lambda time: torch.eye(3), (0.0, 0.0, 9.0))
    frames = list(simulate_points(scene, engine, 2, 1.0, select=half, center=torch.tensor([0.5, 0.5, 0.5]), scale=3.0))
    moves = (frames[1].channels["means"] - scene.means)[:, 2]
    is_moving = half.mask(scene.means) & (torch.arange(300) >= 100)
    torch.testing.assert_close(moves, 3.0 * is_moving, atol=1e-6, rtol=0)
    assert frames[1].metrics == {"points": 4.0 * int(is_moving.sum()), "largest_move_m": pytest.approx(9.0)}
    assert frames[0].time == 0.0 and torch.equal(frames[0].channels["means"], scene.means)


def test_sizes_are_clamped_and_ellipsoids_can_be_flattened(caplog):
    scene, engine = gaussians(50, "3dgs"), Affine(lambda time: 4 * torch.eye(3))
    _, _, found = last(scene, engine, max_stretch=1.5)
    assert relative(found, 2.25 * covariances(scene)) < 1e-5
    with caplog.at_level(logging.INFO, "vision3d.physics"):
        _, factors, _ = last(scene, engine, flatten=True)
    assert (torch.linalg.svdvals(factors)[:, 2] < 1e-7 * 4e-3).all()
    assert "three points per Gaussian lose" in caplog.text


# Engines


def test_a_cage_is_exact_for_affine_maps():
    scene, A = gaussians(300, "3dgs", -3, -2), torch.eye(3).double() + 0.4 * torch.randn(3, 3).double()
    for weights, shape in (("bernstein", (4, 3, 2)), ("linear", (4, 3, 5)), ("bernstein", (2, 2, 2))):
        for box in ((None, None), ((0.2, 0.2, 0.2), (0.7, 0.8, 0.9))):  # including points outside the cage
            cage = CageEngine(lambda rest, time: rest @ A.T + torch.tensor([0.0, 0.0, time]), shape, *box, weights)
            means, _, found = last(scene, cage)
            assert relative(found, A @ covariances(scene) @ A.T) < 1e-6
            want = scene.means.double() @ A.T + torch.tensor([0.0, 0.0, 1.0])
            torch.testing.assert_close(means.double(), want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("weights", ["bernstein", "linear"])
def test_a_cage_interpolates_its_control_points(weights):
    """Trilinear weights interpolate the control points; both kinds are continuous and stay in the convex hull."""

    def lift(rest, time):
        rest[1, 1, 1, 2] += 0.3
        return rest

    cage = CageEngine(lift, (3, 3, 3), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), weights)
    cage.begin(Corners.of(torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 1.0], [0.25, 0.5, 0.5]]), torch.zeros(3, 3, 2)).points())
    heights = cage.advance(1.0, 0.0)[::3, 2]
    want = {"bernstein": [0.5 + 0.3 / 8, 1.0, 0.5 + 0.3 * 3 / 32], "linear": [0.8, 1.0, 0.65]}[weights]
    torch.testing.assert_close(heights, torch.tensor(want).double())


def test_a_material_of_points_falls_and_lands():
    x, _ = lattice((3, 3, 3), (0.3, 0.3, 0.3), 1 / 16)
    scene = gaussians(len(x), "flat", -3.0, -2.0, x.float())
    material = Material("jelly", youngs_modulus=2e4, poisson_ratio=0.3)
    floor = Boundary("plane", (0.0, 0.0, 0.29))
    world = World(Grid((0.0, 0.0, 0.0), 1 / 16, (17, 17, 17)), (material,), boundaries=(floor,))
    frames = list(simulate_points(scene, MpmPoints(world, "reference", (0.0, 0.0, -0.5)), 6, 40.0))
    heights = [float(frame.channels["means"][:, 2].mean()) for frame in frames]
    assert heights[1] < heights[0] - 0.01
    assert frames[-1].channels["means"][:, 2].min() > 0.29 - 1 / 16
    assert frames[-1].channels["edges"].isfinite().all()
    engine = MpmPoints(World(world.grid, (material,)), "reference")
    *_, frame = simulate_points(scene, engine, 3, 40.0, max_stretch=None)  # no contact: all fall equally
    fall = scene.means[:, 2] - frame.channels["means"][:, 2]
    assert fall.std() < 1e-6 and 0.5 * 9.81 * 0.05**2 < fall.mean() < 0.6 * 9.81 * 0.05**2
    assert relative(frame.channels["edges"].double() @ frame.channels["edges"].double().mT, covariances(scene)) < 1e-5


def test_a_prepared_scene_as_points():
    """How a caller with options of the stage uses it."""
    x, _ = lattice((3, 3, 3), (5.0, 5.0, 5.0), 0.3)
    scene = gaussians(len(x), "3dgs", -2.0, -1.5, x.float())
    config = SimulateConfig(Material("jelly", 1e5, 0.3), size=0.2, cells=6, velocity=(0.0, 0.0, -0.5), frames=4, drop=0.5)
    setup = set_up(scene, config)
    engine = MpmPoints(setup.world, "reference", config.velocity)
    frames = simulate_points(scene, engine, config.frames, config.fps, center=setup.center, scale=setup.scale)
    moving = to_sequence(scene, frames)
    assert torch.equal(moving.frame(0).means, scene.means)
    fall = (scene.means - moving.frame(1).means)[:, 2].mean() * setup.scale
    assert 0.5 / 24 < fall < 0.5 / 24 + 0.6 * 9.81 / 24**2
    assert moving.frame(3).log_scales.isfinite().all()
    huge = GaussianScene(
        scene.means, scene.quats, scene.log_scales + 5, scene.opacity_logits, scene.sh, mode="3dgs"
    )  # fmt: skip
    with pytest.raises(InputError, match=r"\d+ of 864 points are outside the grid; increase the room of the grid"):
        simulate_points(huge, engine, center=setup.center, scale=setup.scale)


@needs_warp
def test_a_net_on_warp_falls_in_closed_form_and_stays_connected():
    x, _ = lattice((4, 4, 4), (0.0, 0.0, 0.2), 0.1)
    scene = gaussians(len(x), "flat", -4.0, -2.5, x.float())
    engine = WarpEngine(floor=(0.0, 0.0, 0.0), velocity=(0.3, 0.0, 0.0))
    frames = list(simulate_points(scene, engine, 31, 30.0, max_stretch=None))
    time = frames[5].time
    steps = round(time / 1e-3) + 2  # each frame has an integer number of steps of at most 1 ms
    move = (frames[5].channels["means"] - scene.means).double()
    torch.testing.assert_close(move[:, 0], torch.full((len(x),), 0.3 * time).double(), atol=2e-4, rtol=0)
    torch.testing.assert_close(move[:, 2].mean(), torch.tensor(-9.81 * time**2 / 2).double(), rtol=2 / steps, atol=0)
    edges = frames[5].channels["edges"].double()
    assert relative(edges @ edges.mT, covariances(scene)) < 1e-2
    end = frames[-1].channels["means"]
    assert end[:, 2].min() > -0.01 and end[:, 2].mean() < scene.means[:, 2].mean() - 0.15
    spreads, before = (torch.linalg.svdvals(means - means.mean(0)) for means in (end, scene.means))
    assert ((spreads / before - 1).abs() < 0.05).all()  # its shape is preserved
    again = list(
        simulate_points(scene, WarpEngine(floor=(0.0, 0.0, 0.0), velocity=(0.3, 0.0, 0.0)), 31, 30.0, max_stretch=None)
    )
    assert torch.equal(again[-1].channels["means"], end)


@needs_warp
def test_braces_support_a_hollow_shell():
    """Without them, it collapses on the floor."""
    directions = torch.nn.functional.normalize(torch.randn(600, 3), dim=-1)
    corners = Corners.of(0.2 * directions + torch.tensor([0.0, 0.0, 0.25]), 0.01 * torch.eye(3)[:, :2].expand(600, 3, 2))
    heights = {}
    for braces in (0, 4):
        points, engine = corners.points(), WarpEngine(floor=(0.0, 0.0, 0.0), braces=braces)
        engine.begin(points)
        heights[braces] = float(engine.advance(1.0, 0.0)[:, 2].max()) / 0.4
    assert heights[0] < 0.5 and 0.7 < heights[4] < 1.1


@needs_warp
def test_a_free_net_on_warp_keeps_its_momentum():
    x, _ = lattice((3, 3, 3), (0.0, 0.0, 0.0), 0.1)
    corners = Corners.of(x, torch.zeros(len(x), 3, 2))
    points = corners.points()
    engine = WarpEngine(gravity=(0.0, 0.0, 0.0))
    engine.begin(points)
    v = torch.randn(len(points), 3) * 0.1
    engine.v.assign(v.numpy())
    end = engine.advance(0.1, 0.0)
    torch.testing.assert_close((end - points.x).mean(0), 0.1 * v.mean(0).double(), atol=1e-6, rtol=0)


@needs_warp
def test_warp_starts_without_output():
    code = "from vision3d.stages.simulate.engines.warp_points import WarpEngine; WarpEngine()"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=100, text=True, capture_output=True)
    assert done.stdout == done.stderr == ""


def test_without_warp_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(MissingDependencyError) as error:
        WarpEngine()
    assert str(error.value) == f"warp-lang is needed for the engine of points on Warp: {install_command('warp')}"


# Custom engines, and their errors


def test_an_engine_needs_only_two_methods():
    assert isinstance(Affine(None), PointEngine)
    with pytest.raises(ConfigError, match=r"engine: list has no methods begin\(points\) and advance\(duration, time\)"):
        simulate_points(gaussians(5), [])


def test_the_result_of_an_engine_is_checked():
    class Short(Affine):
        def advance(self, duration, time):
            return self.points.x[1:]

    class Lost(Affine):
        def advance(self, duration, time):
            return self.points.x * torch.where(torch.arange(len(self.points)) == 4, math.nan, 1.0)[:, None]

    with pytest.raises(ShapeError, match=r"Short\.advance: got shape \(14, 3\), want shape \(15, 3\)"):
        list(simulate_points(gaussians(5), Short(None), 2))
    with pytest.raises(InputError, match=r"Lost\.advance: 1 of 15 points are not finite at 0\.25 s"):
        list(simulate_points(gaussians(5), Lost(None), 2, 4.0))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"frames": 0}, "frames: got 0, want at least 1"),
        ({"fps": 0.0}, "fps: got 0.0, want a number > 0"),
        ({"scale": -1.0}, "scale: got -1.0, want a number > 0"),
        ({"max_stretch": 0.5}, "max_stretch: got 0.5, want at least 1, or None"),
        ({"method": "qr"}, "method: got 'qr', want exact or gram_schmidt"),
        ({"edge_share": -1.0}, "edge_share: got -1.0, want at least 0, or None"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ConfigError) as error:
        simulate_points(gaussians(5), Affine(None), **options)
    assert str(error.value) == text


def test_wrong_scenes_and_cages_are_named():
    with pytest.raises(ConfigError, match="method: gram_schmidt is for triangles; give flatten=True"):
        simulate_points(gaussians(5, "3dgs"), Affine(None), method="gram_schmidt")
    nothing = Selection((Region.sphere(torch.tensor([9.0, 9, 9]), 1.0),))
    with pytest.raises(InputError, match="selection: holds none of 5 Gaussians, want at least one"):
        simulate_points(gaussians(5), Affine(None), select=nothing)
    with pytest.raises(InputError, match=r"no opacity of 5 Gaussians is above min_opacity = 0\.99, the highest is 0\.881"):
        simulate_points(gaussians(5), Affine(None), min_opacity=0.99)
    with pytest.raises(ConfigError, match=r"shape: got \(1, 2, 2\), want at least 2 control points along each axis"):
        CageEngine(lambda rest, time: rest, (1, 2, 2))
    with pytest.raises(ConfigError, match="weights: got 'cubic', want bernstein or linear"):
        CageEngine(lambda rest, time: rest, weights="cubic")
    with pytest.raises(ConfigError, match="high: got"):
        CageEngine(lambda rest, time: rest, low=(0.0, 0.0, 0.0), high=(1.0, 0.0, 1.0))
    cage = CageEngine(lambda rest, time: rest[:1])
    with pytest.raises(ShapeError, match=r"controls: got shape \(1, 3, 3, 3\), want shape \(3, 3, 3, 3\)"):
        list(simulate_points(gaussians(5), cage, 2))


@needs_warp
def test_wrong_numbers_of_a_net_are_named():
    for options, text in (
        ({"friction": -1.0}, "friction: got -1.0, want at least 0"),
        ({"step": 0.0}, "step: got 0.0, want a time > 0"),
        ({"neighbors": 0}, "neighbors: got 0, want at least 1"),
        ({"braces": -1}, "braces: got -1, want at least 0"),
    ):
        with pytest.raises(ConfigError) as error:
            WarpEngine(**options)
        assert str(error.value) == text
