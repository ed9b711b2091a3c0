"""Foreign scenes: followers in flows, floors that end, thin parts, seams, extreme values."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

from tests.stages.test_physics_rest import needs
from tests.stages.test_simulate import QUICK, cube, frames_of
from tests.stages.test_simulate_setup import room
from vision3d.cli.simulate import _up_of
from vision3d.core import native
from vision3d.core.config import dump_yaml
from vision3d.core.errors import ConfigError, InputError
from vision3d.core.progress import silent
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.geometry import shapes
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.spherical_harmonics import eval_sh
from vision3d.io.glb import write_mesh
from vision3d.scene import FrameSequence, GaussianScene, Mesh
from vision3d.scene.selecting import Selector
from vision3d.stages.simulate import Boundary, Material, SimulateConfig, load_material, simulate, simulate_frames
from vision3d.stages.simulate.points3 import simulate_points, to_sequence
from vision3d.stages.simulate.scene.colliders import floor_field
from vision3d.stages.simulate.scene.filling import Surface
from vision3d.stages.simulate.scene.followers import Followers, bounded
from vision3d.stages.simulate.scene.mesh_floors import floor_faces
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.world.boundaries import distance
from vision3d.stages.simulate.world.fields import load_mesh
from vision3d.stages.simulate.world.particles import Particles

FAST = replace(QUICK, engine="auto", up=(0.0, 0.0, 1.0))
needs_native = pytest.mark.skipif(native.module() is None, reason="no native module")


# Followers


def test_followers_stay_near_flowing_particles():
    """Drops with a total deformation of a million move nothing far away: followers stay within twice their rest distances."""
    x = torch.rand(60, 3, dtype=torch.float64)
    points = torch.rand(40, 3, dtype=torch.float64)
    followers = Followers.around(torch.arange(40), points, x)
    water = (load_material("water"),)
    flown = Particles.at_rest(x, torch.ones(60).double(), water)
    flown = flown.replace(F_total=1e6 * torch.randn(60, 3, 3, dtype=torch.float64), x=x + 5)
    places, F = followers.positions(flown)
    reach = 2 * followers.offsets.norm(dim=-1).amax(1) + (x[followers.parents] - points[:, None]).norm(dim=-1).amax(1)
    assert ((places - points - 5).norm(dim=-1) < reach).all()
    assert torch.linalg.svdvals(F).max() < 2.0 + 1e-9


def test_bounded_deformations_are_exact_within_the_bounds():
    F = torch.eye(3, dtype=torch.float64) + 0.2 * torch.randn(50, 3, 3, dtype=torch.float64)
    sizes = torch.linalg.svdvals(F)
    inside = (sizes.amax(1) < 2) & (sizes.amin(1) > 0.5)
    torch.testing.assert_close(bounded(F)[inside], F[inside], atol=1e-12, rtol=0)
    assert torch.linalg.svdvals(bounded(50 * F)).max() < 2 + 1e-9


@pytest.mark.parametrize("engine", ["native", "taichi", pytest.param("reference", marks=pytest.mark.slow)])
def test_the_default_grouping_follows_water_with_every_engine(engine):
    """A fifth of a block of water is simulated; the others are never far from the simulated ones."""
    if why := needs(engine):
        pytest.skip(why)
    scene = cube(side=13, edge=0.5)
    config = SimulateConfig(
        load_material("water"), frames=9, fps=20.0, cells=6, drop=0.2, share=0.2, up=(0.0, 0.0, 1.0), floor="below",
        fill="none", engine=engine,
    )  # fmt: skip
    last = frames_of(scene, config)[-1].channels["means"]
    setup = set_up(scene, config)
    heavy = setup.core_rows[setup.particles.mass[setup.core_particles] > 0]
    near = torch.cdist(last, last[heavy]).amin(1)
    assert near.max() < 2 * setup.world.grid.spacing and near.median() < 0.6 * setup.world.grid.spacing


def test_points_rotate_view_dependent_colors():
    """Rotated by 90 degrees: seen from a rotated direction, colors are those of the rest pose."""
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)

    class Turn:
        def begin(self, points):
            self.x = points.x

        def advance(self, duration, time):
            return self.x @ quarter.T

    for mode, flatten in (("3dgs", False), ("3dgs", True), ("2dgs", False)):
        scene = cube(side=3, mode=mode)
        scene = replace(scene, sh=torch.randn(len(scene), 4, 3))
        moving = to_sequence(scene, simulate_points(scene, Turn(), frames=2, flatten=flatten))
        directions = torch.nn.functional.normalize(torch.randn(len(scene), 3), dim=-1)
        before = eval_sh(scene.sh, directions)
        after = eval_sh(moving.frame(1).sh, directions @ quarter.float().T)
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
        turned = quat_to_rotmat(moving.channels["turns"][1].double())
        torch.testing.assert_close(turned, quarter.expand_as(turned), atol=1e-6, rtol=0)
    plain = replace(scene, sh=scene.sh[:, :1])
    assert "turns" not in next(iter(simulate_points(plain, Turn(), frames=1))).channels


# Long frames


def test_a_stop_within_a_frame_keeps_the_last_complete_one(tmp_path, monkeypatch):
    """With slices of one step, the signal arrives within a frame; the resumed run is bitwise equal to an uninterrupted one."""
    engine = set_up(cube(side=5), FAST).engine
    monkeypatch.setattr(engine, "particle_steps_a_second", 1.0)
    scene, config = cube(side=5), replace(FAST, frames=4, fps=5.0)
    whole = simulate(config, scene, progress=silent).sequence
    advance, calls = engine.advance, []

    def counted(self, *values):
        calls.append(values)
        if len(calls) == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return advance(self, *values)

    monkeypatch.setattr(engine, "advance", counted)
    with pytest.raises(Interrupted, match="stopped after frame"):
        simulate(config, scene, run_folder=RunFolder.create(tmp_path / "run", config), progress=silent)
    assert len(calls) == 30  # immediately, not at the end of the frame
    done = len(FrameSequence.load(tmp_path / "run" / "frames.zarr"))
    assert done == 2
    moving = simulate(
        config, scene, run_folder=RunFolder.create(tmp_path / "run", config, resume=True), progress=silent
    ).sequence
    assert torch.equal(moving.channels["means"][3], whole.channels["means"][3])


@pytest.mark.slow
@needs_native
def test_a_frame_of_many_steps_reacts_to_sigterm(tmp_path):
    """A frame of minutes: the program exits within seconds (1 s on an idle machine) with exit code 130, and can be resumed."""
    torch.manual_seed(0)
    scene = cube(side=40)
    scene.save(tmp_path / "scene.ply")
    config = SimulateConfig(
        Material("jelly", youngs_modulus=1e9), frames=3, fps=0.5, cells=24, up=(0.0, 0.0, 1.0), floor="below", fill="none"
    )
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    options = [str(tmp_path / "scene.ply"), "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "vision3d", "simulate", *options], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "frames.zarr" / "means" / "0.0.0").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        killer = threading.Timer(20, process.kill)
        killer.start()
        process.send_signal(signal.SIGTERM)
        process.communicate()
        killer.cancel()
    finally:
        process.kill()
    assert process.returncode == 130
    assert len(FrameSequence.load(tmp_path / "run" / "frames.zarr")) == 1


# Numbers


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"gravity": 1e9}, r"gravity: got 1e\+09 m/s\^2, a fall of .* times the speed of sound"),
        ({"velocity": (1e6, 0.0, 0.0)}, r"velocity: got 1e\+06 m/s: .* cells per frame; want at most 100 times"),
        ({"angular_velocity": (0.0, 0.0, 1e7)}, r"angular_velocity: got up to .* m/s at the rim"),
    ],
)
def test_excessive_speeds_are_rejected(values, text):
    with pytest.raises(ConfigError, match=text):
        set_up(cube(side=5), replace(FAST, **values))


def test_warnings_for_fast_impacts(caplog):
    set_up(cube(side=5), replace(FAST, velocity=(100.0, 0.0, 0.0)))
    assert "times the speed of sound" in caplog.text


@pytest.mark.parametrize("count", [1, 2, 300])
def test_one_gaussian_or_many_coincident_ones_can_be_simulated(tmp_path, count):
    torch.manual_seed(0)
    scene = GaussianScene.from_points(torch.full((count, 3), 0.3), opacity=0.9)
    scene = replace(scene, log_scales=torch.full((count, 3), -4.0))
    config = SimulateConfig(frames=3, up=(0.0, 0.0, 1.0), floor="below")
    moving = simulate(config, scene, run_folder=RunFolder.create(tmp_path / "run", config), progress=silent).sequence
    assert moving.channels["means"][2].isfinite().all()
    assert (tmp_path / "run" / "figures" / "frames.png").is_file()


def test_gaussians_of_extreme_size_are_named():
    scene = cube(side=5)
    huge = scene.log_scales.clone()
    huge[7] = 50.0
    with pytest.raises(InputError, match=r"1 of 125 Gaussians have a log scale above 20.7 \(the largest 50,"):
        set_up(replace(scene, log_scales=huge), FAST)
    with pytest.raises(InputError, match=r"reaches 5e\+19 units from the origin .* want at most 1e\+09"):
        set_up(replace(scene, means=1e20 * scene.means), FAST)


def test_water_slips_on_the_floor_by_default(caplog):
    water = load_material("water")
    assert water.contact_friction == 0 and load_material("sand").contact_friction == 1
    scene = cube(side=5)
    for options, want in (({"material": water}, 0.4), ({"material": water, "friction": 0.2}, 0.2), ({}, 0.4)):
        assert set_up(scene, replace(FAST, **options)).world.boundaries[-1].friction == want
    assert "friction 0.2 has no effect: the friction_scale of the moving part is 0" in caplog.text
    caplog.clear()
    set_up(scene, replace(FAST, material=replace(water, friction_scale=1.0), friction=0.2))
    assert "no effect" not in caplog.text


# Selections and parts


def test_parts_do_not_include_the_floor():
    """Two boxes on a disc: the largest part is the larger box, whatever the disc's size; parts of the floor come last."""
    disc = torch.randn(4000, 3) * torch.tensor([1.0, 1.0, 0.002])
    first = torch.rand(1500, 3) * 0.5 + torch.tensor([0.2, 0.2, 0.02])
    second = torch.rand(800, 3) * 0.4 + torch.tensor([-0.8, -0.8, 0.02])
    scene = GaussianScene.from_points(torch.cat([disc, first, second]), opacity=0.9)
    for text, low, high in (("component", 4000, 5500), ("component:0", 4000, 5500), ("component:2", 5500, 6300)):
        setup = set_up(scene, replace(FAST, up=None, floor="auto", drop=0.0, cells=8, select=(text,)))
        chosen = torch.cat([setup.core_rows, setup.followers.rows])
        assert ((chosen >= low) & (chosen < high)).float().mean() > 0.99, text
        assert len(chosen) > 0.9 * (high - low)
    with pytest.raises(ConfigError, match="want component:N with N >= 1"):
        Selector(scene.means, None, torch.ones(6300, dtype=torch.bool)).mask(["component:-1"], "select")


def stem_on_a_block(side=17, stem=5):
    """A block of Gaussians and, above it, a few that are much longer than a cell and thinner."""
    block = cube(side=side, edge=0.4)
    step = 0.4 / stem
    height = 0.2 + step * (torch.arange(stem) + 0.5)
    points = torch.stack([0.3 * height - 0.06, 0 * height, height], -1)
    thin = GaussianScene.from_points(points, opacity=0.95)
    scales = torch.tensor([0.006, 0.006, 0.5 * step]).log().expand(stem, 3)
    return block, replace(thin, log_scales=scales, quats=torch.tensor([1.0, 0, 0.15, 0]).expand(stem, 4).contiguous())


@pytest.mark.parametrize("thin", [0.25, 0.6])
def test_stems_of_long_gaussians_hold_together(thin, caplog):
    """Much longer than a cell and thinner: their particles are half a cell apart, so a fall does not separate them."""
    block, stem = stem_on_a_block()
    stem = replace(stem, log_scales=torch.tensor([0.025 * thin, 0.025 * thin, 0.04]).log().expand(5, 3))
    scene = block.merge(stem)
    config = replace(FAST, frames=14, fps=24.0, cells=20, drop=0.1, fill="auto", min_component=0.0, max_particles=None)
    setup = set_up(scene, config)
    h = setup.world.grid.spacing
    x = setup.particles.x
    line = x[x[:, 2] > x[:, 2].max() - 0.25]
    assert torch.cdist(line, line).fill_diagonal_(9).amin(1).max() < 0.55 * h
    assert "move on their own" not in caplog.text
    last = frames_of(scene, config)[-1].channels["means"].double()
    gaps = (last[len(block) + 1 :] - last[len(block) : -1]).norm(dim=-1)
    assert gaps.max() < 2 * 0.08  # 0.08 in the rest pose
    assert (last[len(block)] - last[: len(block)]).norm(dim=-1).min() < 0.08


def test_points_without_neighbors_within_a_cell_are_reported(caplog):
    block, stem = stem_on_a_block(side=21)
    scene = block.merge(*[stem] * 12)
    config = replace(FAST, cells=20, min_component=0.0)
    set_up(scene, replace(config, fill="none"))
    assert "move on their own; use fewer cells or fill it" in caplog.text
    caplog.clear()
    set_up(scene, replace(config, fill="none", material=load_material("water")))
    set_up(scene, replace(config, fill="auto"))
    assert "move on their own" not in caplog.text


def soup(mesh):
    """Every face with separate vertices."""
    return Mesh(mesh.vertices[mesh.faces].flatten(0, 1), torch.arange(3 * mesh.num_faces).view(-1, 3))


@pytest.mark.parametrize("kind", ["plain", "seams", "normals", "soup"])
def test_meshes_with_seams_move_as_one_without(tmp_path, kind):
    """Corners with separate uvs or normals, or all separate: the same motion, closed seams, in a run folder."""
    vertices, faces = shapes.icosphere(2, 0.2)
    plain = Mesh(vertices, faces)
    uvs = torch.rand(len(faces), 3, 2)
    mesh = {
        "plain": plain,
        "seams": Mesh(vertices, faces, uvs=uvs, texture=torch.rand(8, 8, 3)),
        "normals": replace(soup(plain), normals=torch.nn.functional.normalize(torch.randn(3 * len(faces), 3), dim=-1)),
        "soup": soup(plain),
    }[kind]
    config = replace(FAST, frames=4, drop=0.1, cells=8, fill="auto")
    want = simulate(config, plain, progress=silent).sequence
    path = tmp_path / "mesh.glb"
    mesh.save(path)
    moving = simulate(config, mesh, run_folder=RunFolder.create(tmp_path / "run", config), progress=silent).sequence
    corners = moving.frame(3).vertices[moving.base.faces]
    torch.testing.assert_close(corners, want.frame(3).vertices[plain.faces], atol=1e-6, rtol=0)
    FrameSequence(mesh, torch.tensor([0.0]), {"vertices": mesh.vertices[None]}).save(tmp_path / "still.zarr")
    still = FrameSequence.load(tmp_path / "still.zarr")
    torch.testing.assert_close(still.frame(0).vertices[still.base.faces], mesh.vertices[mesh.faces])


def test_every_vertex_of_a_mesh_moves():
    """A sphere of many vertices and a distant box of 8, which would be floaters among Gaussians: no face is stretched."""
    (first, faces), (second, more) = shapes.icosphere(5, 0.2), shapes.box((0.05, 0.05, 0.05))
    mesh = Mesh(torch.cat([first, second + torch.tensor([0.0, 0.0, 1.5])]), torch.cat([faces, more + len(first)]))
    moved = frames_of(mesh, replace(FAST, frames=3, drop=0.5))[-1].channels["vertices"] - mesh.vertices
    assert (moved[:, 2] < -0.02).all()


# Floors that end


def table(radius=1.0, count=6000):
    """A round table of Gaussians with a sphere in its middle, which occludes it from below."""
    angle, r = 2 * math.pi * torch.rand(count), radius * torch.rand(count).sqrt()
    disc = torch.stack([r * angle.cos(), r * angle.sin(), 0.003 * torch.randn(count)], -1)
    ball = torch.nn.functional.normalize(torch.randn(1500, 3), dim=-1) * 0.2 + torch.tensor([0.0, 0.0, 0.21])
    scene = GaussianScene.from_points(torch.cat([disc, ball]), opacity=0.9)
    return replace(scene, log_scales=torch.full_like(scene.log_scales, math.log(0.02)))


@needs_native
@pytest.mark.parametrize("extent", ["seen", "endless"])
def test_objects_that_leave_the_table_fall(extent):
    """A sphere that slides over the edge falls below the table's height; on an infinite floor it stays."""
    config = SimulateConfig(
        load_material("rubber"), velocity=(2.5, 0.0, 0.0), friction=0.0, frames=21, cells=10, room=6.0, floor_extent=extent
    )
    frames = frames_of(table(), config)
    ball = torch.stack([frame.channels["means"][6000:] for frame in frames]).mean(1)
    on_table = ball[:, 0] < 0.8
    assert ball[on_table, 2].min() > 0.15  # supported while it is over the table
    assert ball[-1, 0] > 1.2
    assert (ball[-1, 2] < -0.3) if extent == "seen" else (ball[-1, 2] > 0.15)


@needs_native
def test_objects_on_the_table_are_supported():
    """The footprint is closed below objects."""
    frames = frames_of(table(), SimulateConfig(load_material("rubber"), frames=12, cells=10))
    heights = torch.stack([frame.channels["means"][6000:, 2].mean() for frame in frames])
    assert (heights - 0.21).abs().max() < 0.05


def joined(*meshes):
    """Vertices and faces of several meshes joined."""
    starts = [sum(len(vertices) for vertices, _ in meshes[:index]) for index in range(len(meshes))]
    faces = [own + start for (_, own), start in zip(meshes, starts)]
    return Mesh(torch.cat([vertices for vertices, _ in meshes]), torch.cat(faces))


def moved_to(solid, *center):
    vertices, faces = solid
    return vertices + torch.tensor(center), faces


def mesh_table():
    """A sphere on a table of 60 faces, a board and four legs, with its top at z = 0; number of the sphere's vertices."""
    legs = [moved_to(shapes.box((0.1, 0.1, 0.9)), x, y, -0.55) for x in (-0.9, 0.9) for y in (-0.7, 0.7)]
    ball = moved_to(shapes.icosphere(3, 0.2), 0.0, 0.0, 0.2)
    return joined(ball, moved_to(shapes.box((2.0, 1.6, 0.1)), 0.0, 0.0, -0.05), *legs), len(ball[0])


@needs_native
@pytest.mark.parametrize("extent", ["seen", "endless"])
def test_objects_that_leave_a_mesh_table_fall(extent):
    mesh, count = mesh_table()
    config = SimulateConfig(
        load_material("rubber"), velocity=(2.5, 0.0, 0.0), friction=0.0, frames=21, cells=10, room=6.0, floor_extent=extent
    )
    vertices = torch.stack([frame.channels["vertices"] for frame in frames_of(mesh, config)])
    torch.testing.assert_close(vertices[-1, count:], mesh.vertices[count:])  # the table stays
    ball = vertices[:, :count].mean(1)
    on_table = ball[:, 0] < 0.8
    assert ball[on_table, 2].min() > 0.15 and ball[on_table, 2].max() < 0.25
    assert ball[-1, 0] > 1.2
    assert (ball[-1, 2] < -0.3) if extent == "seen" else (ball[-1, 2] > 0.15)


@needs_native
def test_objects_on_a_mesh_move_including_their_feet():
    """A box with its bottom on the table: nothing of it stays behind when it is lifted."""
    board = moved_to(shapes.box((2.0, 1.6, 0.1)), 0.0, 0.0, -0.05)
    mesh = joined(moved_to(shapes.box((0.4, 0.4, 0.5)), 0.3, 0.0, 0.25), board)
    moved = frames_of(mesh, replace(FAST, up=None, floor="auto", frames=1, drop=0.5))[-1].channels["vertices"] - mesh.vertices
    assert moved[:8, 2].min() > 0.2 and moved[8:].abs().max() == 0


def test_parts_of_a_mesh_are_connected_by_its_surface():
    """Two boxes of 8 vertices on a board, closer to each other than their own vertices: the larger is the first part."""
    board = moved_to(shapes.box((2.0, 1.6, 0.1)), 0.0, 0.0, -0.05)
    boxes = moved_to(shapes.box((0.4, 0.4, 0.5)), 0.3, 0.0, 0.25), moved_to(shapes.box((0.3, 0.3, 0.3)), -0.2, 0.0, 0.15)
    mesh = joined(*boxes, board)
    for text, rows in (("component", range(8)), ("component:2", range(8, 16)), ("component:3", range(16, 24))):
        setup = set_up(mesh, replace(FAST, up=None, floor="auto", drop=0.0, cells=8, select=(text,)))
        assert setup.core_rows.tolist() == list(rows), text


@needs_native
def test_a_selection_of_a_mesh_collides_with_the_static_faces():
    """A sphere over a closed block rests on it; with --collider none it falls through."""
    ball = moved_to(shapes.icosphere(3, 0.2), 0.0, 0.0, 0.42)
    mesh, count = joined(ball, shapes.box((1.0, 1.0, 0.4))), len(ball[0])
    chosen = SimulateConfig(
        load_material("rubber"), ("sphere:0,0,0.42,0.205",), up=(0.0, 0.0, 1.0), floor="none", frames=14, cells=10, room=3.0
    )
    heights = {}
    for collider in ("auto", "none"):
        last = frames_of(mesh, replace(chosen, collider=collider))[-1].channels["vertices"]
        heights[collider] = float(last[:count, 2].mean())
    assert abs(heights["auto"] - 0.4) < 0.06 and heights["none"] < 0.0


def test_a_vast_ground_costs_no_more_than_the_simulated_space():
    """Two triangles of a kilometer and a long sliver: only nearby pieces are used."""
    ground = 1000 * torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]).double()
    sliver = torch.tensor([[-1e3, 0.0, 1e-3], [1e3, 0, 1e-3], [0, 1e-3, 1e-3]]).double()
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    space = torch.full((3,), -1.0).double(), torch.full((3,), 1.0).double()
    up = torch.tensor([0.0, 0.0, 1.0]).double()
    found = floor_faces(torch.cat([ground, sliver]), faces, up, 0.0, 0.01, 0.05, space).means
    assert len(found) < 30_000
    assert torch.cdist(torch.rand(200, 2).double() * 2 - 1, found[:, :2]).amin(1).max() < 0.05


def test_a_floor_that_moves_has_no_footprint():
    """`simulate --select` of everything at the height of the floor leaves no splat of it."""
    none = Surface(torch.zeros(0, 3).double(), torch.zeros(0, 4), torch.zeros(0, 3).double(), torch.zeros(0))
    space = torch.full((3,), -1.5).double(), torch.full((3,), 1.5).double()
    assert floor_field(none, torch.eye(3).double(), torch.zeros(3).double(), 0.02, space) is None


def test_a_floor_of_few_large_splats_supports():
    """9 discs much larger than a cell, and a distant piece of floor: no holes between samples, no cost for the distant one."""
    places = torch.cartesian_prod(torch.linspace(-1, 1, 3), torch.linspace(-1, 1, 3))
    means = torch.nn.functional.pad(torch.cat([places, torch.tensor([[500.0, 0.0]])]), (0, 1))
    flat = torch.tensor([0.4, 0.4, 1e-3]).expand(10, 3)
    splats = Surface(means.double(), torch.tensor([1.0, 0, 0, 0]).expand(10, 4), flat.double(), torch.ones(10))
    space = torch.full((3,), -1.5).double(), torch.full((3,), 1.5).double()
    field = floor_field(splats, torch.eye(3).double(), torch.zeros(3).double(), 0.02, space)
    assert field is not None and field.spacing == 0.02
    points = torch.rand(2000, 3, dtype=torch.float64) * torch.tensor([2.0, 2.0, 0.04]) - torch.tensor([1.0, 1.0, 0.03])
    found, _ = distance(Boundary("mesh", mesh="floor"), points, field=field)
    torch.testing.assert_close(found, points[:, 2], atol=1e-9, rtol=0)
    above, _ = distance(
        Boundary("mesh", mesh="floor"), torch.tensor([[1.9, 0.0, -0.01], [-3.0, 0.0, -0.01]]).double(), field=field
    )
    assert (above > 0.05).all()  # there is no support outside the space and the splats


@needs_native
def test_the_scene_or_a_mesh_is_a_collider(tmp_path):
    """A sphere over a static block: it falls through, or rests on the block, or on a mesh of it."""
    block = (torch.rand(6000, 3) - 0.5) * torch.tensor([1.0, 1.0, 0.4])
    ball = torch.nn.functional.normalize(torch.randn(1200, 3), dim=-1) * 0.2 + torch.tensor([0.0, 0.0, 0.45])
    scene = GaussianScene.from_points(torch.cat([block, ball]), opacity=0.9)
    scene = replace(scene, log_scales=torch.full_like(scene.log_scales, math.log(0.02)))
    vertices, faces = shapes.box((1.0, 1.0, 0.4))
    Mesh(vertices, faces).save(tmp_path / "block.glb")
    config = SimulateConfig(
        load_material("rubber"),
        select=("sphere:0,0,0.45,0.22",),
        up=(0.0, 0.0, 1.0),
        floor="none",
        frames=14,
        cells=10,
        room=3.0,
    )
    heights = {}
    for collider in ("none", "scene", str(tmp_path / "block.glb")):
        last = frames_of(scene, replace(config, collider=collider))[-1].channels["means"]
        heights[collider] = float(last[6000:, 2].mean())
    assert heights["none"] < 0.0
    assert abs(heights["scene"] - 0.4) < 0.06 and abs(heights[str(tmp_path / "block.glb")] - 0.4) < 0.06


def test_the_collider_is_checked():
    with pytest.raises(InputError, match=r"nothing\.glb: does not exist"):
        set_up(cube(side=5), replace(FAST, collider="nothing.glb"))


def test_a_mesh_of_a_scene_is_a_collider_in_its_axes(tmp_path):
    mesh = Mesh(*shapes.box((1.0, 2.0, 0.5)))
    write_mesh(tmp_path / "mesh.glb", mesh, scene_up="z")
    assert torch.allclose(load_mesh(tmp_path / "mesh.glb").vertices, mesh.vertices)
    assert _up_of(tmp_path / "mesh.glb") == (0.0, 0.0, 1.0)
    mesh.save(tmp_path / "plain.glb")
    assert _up_of(tmp_path / "plain.glb") == (0.0, 1.0, 0.0)


def test_a_room_has_its_floor():
    points, _ = room(count=3000)
    scene = GaussianScene.from_points(points, opacity=0.9)
    boundary = set_up(scene, replace(FAST, up=None, floor="auto", drop=0.0, cells=8)).world.boundaries[-1]
    assert boundary.shape == "mesh" and boundary.mesh == "the detected floor"
    boundary = set_up(scene, replace(FAST, up=None, floor="auto", floor_extent="endless", drop=0.0)).world.boundaries[-1]
    assert boundary.shape == "plane"
    assert list(simulate_frames(replace(FAST, frames=1), scene))
