"""From options to bodies, obstacles and motions: selections, up directions, errors and log messages."""

import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.stages.test_simulate import QUICK, SOFT, cube, frames_of
from vision3d.core.config import dump_yaml, from_dict, load_yaml
from vision3d.core.errors import ConfigError, DeviceError, InputError, MissingDependencyError
from vision3d.core.install import install_command
from vision3d.geometry import shapes
from vision3d.geometry.cameras import look_at
from vision3d.geometry.edge_factors import clamp_factors
from vision3d.scene import Cameras, GaussianScene, Mesh, MeshGaussians, Region, Selection
from vision3d.scene.selecting import Selector
from vision3d.stages.simulate import (
    Body,
    Boundary,
    Impulse,
    Keyframe,
    KinematicPart,
    Material,
    Mover,
    SimulateConfig,
    Wind,
    load_material,
    simulate,
)
from vision3d.stages.simulate.engines.taichi_engine import TaichiEngine
from vision3d.stages.simulate.output import files as outputs
from vision3d.stages.simulate.scene.representations import clamped
from vision3d.stages.simulate.scene.upright import find_floor, stand_upright
from vision3d.stages.simulate.setup.builder import set_up
from vision3d.stages.simulate.setup.obstacles import Placement, keyframed
from vision3d.stages.simulate.simulation import Simulation

PLAIN = replace(QUICK, engine="auto", cells=None)


def pair(apart=3.0, side=6, other_side=None):
    """Two cubes of edge 1."""
    return cube(side=side).merge(cube(side=other_side or side, center=(apart, 0.0, 0.0)))


# Selections


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("box:0,0,0,0.6,0.6,0.6", 216),
        ("box:0,0,0,0.6,0.6,0.6,1,0,0,0", 216),
        ("sphere:3,0,0,0.9", 216),
        ("plane:1.5,0,0,1,0,0", 216),
        ("component", 343),
        ("component:2", 216),
        ("label:4", 216),
        ("all", 216 + 343),
    ],
)
def test_selections_as_text(text, count):
    scene = cube(side=7, center=(3.0, 0.0, 0.0)).merge(cube(side=6)) if "component" in text else pair()
    labels = torch.where(torch.arange(len(scene)) < 216, 4, 7)
    selector = Selector(scene.means, labels, torch.ones(len(scene), dtype=torch.bool))
    want = 432 if text == "all" else count
    assert int(selector.mask([text], "select").sum()) == want


def test_selections_are_united_and_read_from_files(tmp_path):
    scene = pair()
    Selection((Region.sphere(torch.zeros(3), 0.3),)).save(tmp_path / "ball.json")
    selector = Selector(scene.means, None, torch.ones(432, dtype=torch.bool))
    ball = selector.mask([str(tmp_path / "ball.json")], "select")
    assert torch.equal(ball, scene.means.norm(dim=-1) <= 0.3)
    both = selector.mask([str(tmp_path / "ball.json"), "box:3,0,0,1,1,1"], "select")
    assert int(both.sum()) == int(ball.sum()) + 216
    assert int(selector.mask(["rest"], "select", taken=ball).sum()) == 432 - int(ball.sum())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("box:1,2,3", "select: got box:1,2,3, want box:CX,CY,CZ,HX,HY,HZ (half extents; optionally a quaternion W,X,Y,Z)"),
        ("box:0,0,0,1,0,1", "select: got box:0,0,0,1,0,1, want lengths > 0"),
        ("sphere:a,b,c,1", "select: got sphere:a,b,c,1, want sphere:CX,CY,CZ,R"),
        ("label:x", "select: got label:x, want label:N"),
        ("sphere:9,9,9,0.1", "select: sphere:9,9,9,0.1 holds none of 432 points, want at least one"),
        ("label:1", "select: label:1 needs labels, and the scene has none"),
    ],
)
def test_wrong_selections_are_named(text, error):
    selector = Selector(pair().means, None, torch.ones(432, dtype=torch.bool))
    with pytest.raises((ConfigError, InputError)) as found:
        selector.mask([text], "select")
    assert str(found.value) == error


def test_a_misspelled_selection_gets_a_hint():
    selector = Selector(pair().means, None, torch.ones(432, dtype=torch.bool))
    with pytest.raises(ConfigError, match=r"select: 'spere:0,0,0,1' is not a selection; did you mean sphere\? want box:CX"):
        selector.mask(["spere:0,0,0,1"], "select")


# Upright


def room(tilt_deg=0.0, count=4000, up=(0.0, 0.0, 1.0)):
    """A disc with a cube on it, z up before it is rotated about x and mapped to another up axis."""
    disc = torch.randn(count, 3) * torch.tensor([1.0, 1.0, 0.002])
    block = torch.rand(count // 2, 3) * 0.8 + torch.tensor([0.0, 0.0, 0.05])
    angle = math.radians(tilt_deg)
    turn = torch.tensor([[1.0, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    points = torch.cat([disc, block]) @ turn.T
    return points, turn[:, 2].double()


@pytest.mark.parametrize("tilt", [0.0, 8.0, 90.0, 180.0])
def test_a_floor_defines_the_up_direction(tilt):
    points, up = room(tilt)
    floor = find_floor(points, torch.ones(len(points)), None)
    assert floor is not None
    assert float(floor.normal @ up) > math.cos(math.radians(0.5))
    assert abs(floor.height) < 0.01
    on_it = floor.contains(points)
    assert on_it[:4000].float().mean() > 0.99 and on_it[4000:].float().mean() < 0.02


def test_objects_without_a_floor():
    ball = torch.nn.functional.normalize(torch.randn(3000, 3), dim=-1)
    for points in (torch.rand(3000, 3), ball, torch.randn(3000, 3)):
        assert find_floor(points, torch.ones(3000), None) is None


@pytest.mark.parametrize("up", [None, torch.tensor([0.0, 0.0, 1.0]).double()])
def test_the_bottom_of_a_box_is_not_a_floor_but_that_of_a_room_is(up):
    """A hollow box has nothing around it; in a room, the cameras stand on the floor."""
    vertices, _ = shapes.box((4.0, 4.0, 1.5), 24)
    weights = torch.ones(len(vertices))
    assert find_floor(vertices, weights, up) is None
    eyes = torch.rand(20, 3) - 0.5
    floor = find_floor(vertices, weights, torch.tensor([0.0, 0.0, 1.0]).double(), eyes)
    assert floor is not None and abs(floor.height + 0.75) < 0.02  # and not the ceiling


def slab(thickness, count=4000):
    """A flat object, with x and y as its long sides."""
    return (torch.rand(count, 3) - 0.5) * torch.tensor([1.0, 0.8, thickness])


@pytest.mark.parametrize("thickness", [0.005, 0.02, 0.06])
def test_the_large_side_of_a_flat_object_is_not_a_floor(thickness):
    """An upright logo: a back plate with letters on part of it. Objects on a floor are higher than these."""
    letters = slab(thickness, 2500) * torch.tensor([0.5, 0.5, 1.0]) + torch.tensor([0.1, 0.1, thickness])
    points = torch.cat([slab(thickness / 10), letters])
    up, floor = stand_upright(points, torch.ones(len(points)), SimulateConfig(), None, (0.0, 1.0, 0.0))
    assert up.tolist() == [0, 1, 0] and floor is None


@pytest.mark.parametrize("turn", [0, 1])
def test_a_much_larger_floor_overrules_the_expected_direction(turn):
    """A wall perpendicular to the expected direction, with fewer points than the floor."""
    points, _ = room(count=4000)
    wall = torch.cat([torch.rand(800, 1) * 2 - 1, torch.full((800, 1), -2.5), torch.rand(800, 1) * 2], 1)
    points = torch.cat([points, wall]).roll(turn, 1)
    up, floor = stand_upright(points, torch.ones(len(points)), SimulateConfig(), None, (0.0, 1.0, 0.0))
    want = torch.eye(3, dtype=torch.float64)[(2 + turn) % 3]
    assert floor is not None and float(up @ want) > 0.999


def cameras_above(up):
    axes = torch.eye(3)[torch.tensor(up) == 0]
    eyes = 3 * torch.cat([axes, -axes]) + 2 * torch.tensor(up)
    poses = look_at(eyes, torch.zeros(3), torch.tensor(up))
    return Cameras.from_camtoworlds(poses, torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]]), 64, 48)


def test_where_the_upward_direction_comes_from(caplog):
    points, weights = torch.rand(500, 3), torch.ones(500)
    caplog.set_level(logging.INFO, "vision3d.physics")
    config = SimulateConfig()
    up, floor = stand_upright(points, weights, config, None, (0.0, -1.0, 0.0))
    assert up.tolist() == [0, -1, 0] and floor is None
    want = "up axis assumed: 0 -1 0 (not defined by the file, cameras or a floor; set it with --up X Y Z); floor below"
    assert want in caplog.text and not [one for one in caplog.records if one.levelname == "WARNING"]
    stand_upright(points, weights, config, None, (0.0, -1.0, 0.0), up_from="guess")
    assert next(one.message for one in caplog.records if one.levelname == "WARNING").startswith(want)
    caplog.clear()
    up, _ = stand_upright(points, weights, config, None, (0.0, 1.0, 0.0), up_from="format")
    assert up.tolist() == [0, 1, 0] and "up axis: 0 1 0, by the format (change it with --up X Y Z)" in caplog.text
    up, _ = stand_upright(points, weights, config, cameras_above((0.0, 1.0, 0.0)))
    torch.testing.assert_close(up, torch.tensor([0.0, 1.0, 0.0]).double(), atol=1e-6, rtol=0)
    assert "of the cameras (change it with --up X Y Z)" in caplog.text
    up, _ = stand_upright(points, weights, replace(config, up=(3.0, 0.0, 0.0)), cameras_above((0.0, 1.0, 0.0)))
    assert up.tolist() == [1, 0, 0] and "as given" in caplog.text
    tilted, want = room(8.0)
    up, floor = stand_upright(tilted, torch.ones(len(tilted)), config, cameras_above((0.0, 0.0, 1.0)))
    assert floor is not None and float(up @ want) > math.cos(math.radians(0.5))
    assert "along the normal of the detected floor" in caplog.text


def test_by_default_objects_on_the_floor_move_and_floaters_stay(caplog):
    points, _ = room(count=3000)
    floaters = torch.tensor([[0.4, 0.4, 2.5]])
    scene = GaussianScene.from_points(torch.cat([points, floaters]), opacity=0.9)
    setup = set_up(scene, replace(PLAIN, up=None, floor="auto", drop=0.0, cells=8))
    want = "1 Gaussians in 1 small parts apart from it are floaters: they stay in the air (--min-component 0 moves them)"
    assert any(want in one.message for one in caplog.records if one.levelname == "WARNING")
    rows = torch.cat([setup.core_rows, setup.followers.rows])
    moves = torch.zeros(len(scene), dtype=torch.bool).index_fill_(0, rows, True)
    assert moves[:3000].float().mean() < 0.01 and moves[3000:4500].float().mean() > 0.95 and not moves[-1]
    assert setup.floor_point is None
    assert setup.up[2] > 0.999
    frames = frames_of(
        scene, replace(PLAIN, up=None, floor="auto", drop=0.0, cells=8, frames=6, material=load_material("rubber"))
    )
    fall = (frames[-1].channels["means"] - scene.means)[moves][:, 2]
    assert fall.abs().max() < 0.15  # it stands still


def test_feet_thinner_than_the_noise_of_the_scene_move_with_their_object():
    """A foot of 0.03 on a floor of 4 units with a noise of 0.06: without it, a vase would stand on its stem and fall over."""
    disc = torch.randn(4000, 3) * torch.tensor([1.0, 1.0, 0.002])
    foot = torch.rand(400, 3) * torch.tensor([0.4, 0.4, 0.02]) + torch.tensor([0.3, 0.3, 0.012])
    stem = torch.rand(300, 3) * torch.tensor([0.2, 0.2, 0.3]) + torch.tensor([0.4, 0.4, 0.03])
    body = torch.rand(2000, 3) * torch.tensor([0.6, 0.6, 0.8]) + torch.tensor([0.2, 0.2, 0.3])
    scene = GaussianScene.from_points(torch.cat([disc, foot, stem, body]), opacity=0.9)
    setup = set_up(scene, replace(PLAIN, up=None, floor="auto", drop=0.0, cells=12))
    moves = torch.zeros(len(scene), dtype=torch.bool)
    moves[torch.cat([setup.core_rows, setup.followers.rows])] = True
    assert moves[4400:].float().mean() > 0.95
    assert moves[4000:4400].float().mean() > 0.95
    assert moves[:4000].float().mean() < 0.01


@pytest.mark.parametrize("shade", [1.0, 0.3])
def test_undersides_of_another_color_than_the_floor_move_with_their_object(shade):
    """A blue disc below a box, at the height of a noisy brown floor; brown ones there, in shadow or not, stay."""
    torch.manual_seed(0)
    disc = torch.randn(4000, 3) * torch.tensor([1.0, 1.0, 0.002])
    box = torch.rand(2000, 3) * torch.tensor([0.5, 0.5, 0.8]) + torch.tensor([0.3, 0.3, 0.01])
    under = torch.rand(60, 3) * torch.tensor([0.5, 0.5, 0.002]) + torch.tensor([0.3, 0.3, -0.002])
    brown, blue = torch.tensor([0.6, 0.4, 0.2]), torch.tensor([0.1, 0.5, 0.9])
    colors = torch.cat(
        [brown + 0.02 * torch.randn(4000, 3), blue.expand(2000, 3), blue.expand(30, 3), (shade * brown).expand(30, 3)]
    )
    scene = GaussianScene.from_points(torch.cat([disc, box, under]), colors=colors.clamp(0, 1), opacity=0.9)
    setup = set_up(scene, replace(PLAIN, up=None, floor="auto", drop=0.2, cells=12))
    moves = torch.zeros(len(scene), dtype=torch.bool)
    moves[torch.cat([setup.core_rows, setup.followers.rows])] = True
    assert moves[6000:6030].all()
    assert not moves[6030:].any()
    assert moves[:4000].float().mean() < 0.01


def test_the_floor_itself_and_what_is_below_it_can_be_selected():
    points, _ = room(count=3000)
    scene = GaussianScene.from_points(torch.cat([points, points[3000:] - torch.tensor([0.0, 0.0, 0.7])]), opacity=0.9)
    setup = set_up(scene, replace(PLAIN, up=None, floor="auto", drop=0.0, cells=8, select=("all",)))
    grid, x = setup.world.grid, setup.particles.x.double()
    end = x.new_tensor(grid.origin) + grid.spacing * (x.new_tensor(grid.shape) - 1)
    assert (x > x.new_tensor(grid.origin) + grid.spacing).all() and (x < end - grid.spacing).all()
    assert len(setup.core_rows) > 5500


def test_the_moving_part_is_lifted_from_a_detected_floor():
    points, _ = room(count=3000)
    scene = GaussianScene.from_points(points, opacity=0.9)
    config = replace(PLAIN, up=None, floor="auto", drop=0.5, cells=8, frames=1)
    setup, (frame,) = set_up(scene, config), frames_of(scene, config)
    rows = setup.core_rows
    lift = (frame.channels["means"] - scene.means)[rows]
    side = float((scene.means[rows].amax(0) - scene.means[rows].amin(0)).max())
    torch.testing.assert_close(lift, torch.tensor([0.0, 0.0, 0.5 * side]).expand_as(lift), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("edge", "want"), [(1.0, 1.0), (0.2, 1.0), (500.0, 1 / 500), (0.001, 1000.0)])
def test_implausible_sizes_are_scaled_to_one_meter(edge, want, caplog):
    caplog.set_level(logging.INFO, "vision3d.physics")
    assert set_up(cube(side=6, edge=edge), PLAIN).scale == pytest.approx(want, rel=1e-4)
    assert ("scaled to 1 m (change it with --size METERS)" in caplog.text) == (want != 1)


# Bodies


def test_several_bodies_have_their_materials_and_velocities():
    bodies = (
        Body(load_material("sand"), ("box:0,0,0,0.6,0.6,0.6",), velocity=(1.0, 0.0, 0.0), fill="none"),
        Body(load_material("rubber"), velocity=(0.0, 0.0, 2.0), angular_velocity=(0.0, 0.0, 3.0), fill="none"),
    )
    setup = set_up(pair(), replace(PLAIN, bodies=bodies, cells=12))
    particles = setup.particles
    assert [m.law for m in setup.world.materials] == ["drucker_prager", "neo_hookean"]
    assert torch.bincount(particles.body).tolist() == [216, 216]
    assert (particles.v[particles.body == 0] == torch.tensor([1.0, 0, 0])).all()
    spinning = particles.body == 1
    arms = particles.x[spinning] - particles.x[spinning].mean(0)
    want = torch.tensor([0.0, 0.0, 2.0]) + torch.linalg.cross(torch.tensor([0.0, 0.0, 3.0]).expand_as(arms), arms)
    torch.testing.assert_close(particles.v[spinning], want, atol=1e-5, rtol=1e-5)
    assert torch.equal(particles.C[spinning][0], torch.tensor([[0.0, -3, 0], [3.0, 0, 0], [0, 0, 0]]))
    assert float(particles.mass[particles.body == 0].sum() / particles.mass[spinning].sum()) == pytest.approx(2.0, rel=1e-4)


def test_the_motion_does_not_depend_on_the_number_of_splats():
    """Two cubes of the same size and material collide head-on, one with 11 times as many Gaussians: masses are equal, so the
    common center of mass stays in place, to 1e-5 of their path."""
    bodies = (
        Body(SOFT, ("box:0,0,0,0.6,0.6,0.6",), velocity=(1.5, 0.0, 0.0), fill="none"),
        Body(SOFT, ("box:1.4,0,0,0.6,0.6,0.6",), velocity=(-1.5, 0.0, 0.0), fill="none"),
    )
    scene = pair(apart=1.4, side=9, other_side=20)
    config = replace(PLAIN, bodies=bodies, cells=17, frames=13, floor="none", gravity=0.0)
    setup = set_up(scene, config)
    masses = [float(setup.particles.mass[setup.particles.body == i].double().sum()) for i in (0, 1)]
    assert len(setup.particles) == 729 + 8000
    assert abs(masses[0] / masses[1] - 1) < 1e-6
    simulation = Simulation(setup, config)
    speeds, start = [], setup.particles.center.double()
    for _ in simulation.frames():
        particles = simulation.particles
        speeds.append(float(particles.v[particles.body == 0, 0].mean()))
        assert (particles.center.double() - start).norm() < 1e-5 * 1.5 * 0.6
    assert speeds[0] == 1.5 and speeds[-1] < 0.2  # they have collided


def test_two_bodies_that_select_the_rest_are_rejected():
    with pytest.raises(ConfigError, match="bodies: two bodies select the rest; give all but one a `select`"):
        SimulateConfig(bodies=(Body(), Body()))
    with pytest.raises(ConfigError, match="select: is for one body; with `bodies` each has its own"):
        SimulateConfig(select=("all",), bodies=(Body(),))
    with pytest.raises(InputError, match=r"second: no particles are left of 432 Gaussians, 432 are of other bodies"):
        set_up(pair(), replace(PLAIN, bodies=(Body(SOFT, ("all",)), Body(SOFT, ("all",), name="second"))))


# Actions on bodies


def test_fixed_parts_stay_until_they_are_released():
    scene = cube(side=9)
    config = replace(PLAIN, fixed=("plane:0,0,0.4,0,0,1",), release=0.2, frames=9, fps=20.0, cells=8, drop=3.0)
    frames = frames_of(scene, config)
    top, bottom = scene.means[:, 2] > 0.45, scene.means[:, 2] < -0.45
    shift = [(frame.channels["means"] - scene.means)[:, 2] for frame in frames]
    assert shift[4][top].abs().max() < 1e-5 and shift[4][bottom].max() < -0.01
    assert shift[8][top].max() < -0.05  # 0.2 s later


def test_kinematic_parts_follow_their_motion():
    """Rotated by 90 degrees about a vertical axis through their center."""
    scene = cube(side=7)
    part = KinematicPart(("all",), angular_velocity=(0.0, 0.0, math.pi), end=0.5)
    frame = frames_of(scene, replace(PLAIN, kinematic=(part,), frames=11, fps=20.0, cells=6, gravity=0.0))[-1]
    x, y, z = scene.means.unbind(-1)
    torch.testing.assert_close(frame.channels["means"], torch.stack([-y, x, z], -1), atol=1e-3, rtol=0)


def test_impulses_act_at_their_time():
    """Between two frames; the displacement is the velocity times the remaining time."""
    config = replace(PLAIN, impulses=(Impulse((2.0, 0.0, 0.0), 0.12),), gravity=0.0, floor="none", frames=5, fps=20.0, room=2.0)
    scene = cube(side=6)
    shifts = [(f.channels["means"] - scene.means) for f in frames_of(scene, replace(config, cells=6))]
    assert shifts[2].abs().max() < 1e-6
    for index in (3, 4):
        want = torch.tensor([2.0 * (index / 20 - 0.12), 0.0, 0.0])
        torch.testing.assert_close(shifts[index], want.expand_as(shifts[index]), atol=1e-4, rtol=0)
    work = frames_of(scene, replace(config, cells=6))[-1].metrics["work_J"]
    mass = float(set_up(scene, replace(config, cells=6)).particles.mass.sum())
    assert work == pytest.approx(mass * 2.0**2 / 2, rel=1e-4)


def test_impulses_on_a_part():
    impulse = Impulse((0.0, 1.0, 0.0), 0.0, ("sphere:3,0,0,1",))
    config = replace(PLAIN, impulses=(impulse,), gravity=0.0, floor="none", frames=2, cells=12)
    shift = (frames_of(pair(), config)[-1].channels["means"] - pair().means)[:, 1]
    assert shift[:216].abs().max() < 1e-6 and (shift[216:] - 0.05).abs().max() < 1e-4


def test_wind_blows_in_its_box():
    wind = Wind((5.0, 0.0, 0.0), drag=2.0, low=(-1.0, -1.0, -1.0), high=(1.7, 1.0, 1.0))
    config = replace(PLAIN, winds=(wind,), gravity=0.0, floor="none", frames=9, cells=12)
    frame = frames_of(pair(), config)[-1]
    shift = (frame.channels["means"] - pair().means)[:, 0]
    speed = 5.0 * (1 - math.exp(-2.0 * frame.time))
    way = 5.0 * frame.time - speed / 2.0
    ahead = float(shift[:216].mean()) - way  # symplectic Euler is half a step ahead
    assert ahead == pytest.approx(speed * frame.metrics["dt_s"] / 2, rel=0.1) and shift[216:].abs().max() < 1e-5


def test_keyframes_become_continuous_boundaries():
    """Each segment starts where the previous one ends, with the orientation of its keyframe."""
    quarter = (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))
    frames = (Keyframe(0.5, (0.0, 0, 0)), Keyframe(1.0, (2.0, 0, 0), quarter), Keyframe(2.0, (2.0, 0, 4.0), quarter))
    mover = Mover(Boundary("box", half_size=(0.1, 0.2, 0.3)), frames)
    before, first, second, after = keyframed(mover, Placement(torch.tensor([1.0, 0, 0]).double(), 0.5))
    assert [b.start for b in (before, first, second, after)] == [0, 0.5, 1.0, 2.0]
    assert [b.end for b in (before, first, second, after)] == [0.5, 1.0, 2.0, math.inf]
    assert before.center == first.center == (-0.5, 0.0, 0.0) and before.half_size == (0.05, 0.1, 0.15)
    assert first.velocity == pytest.approx((2.0, 0, 0)) and first.angular_velocity == pytest.approx((0, 0, math.pi))
    assert second.center == (0.5, 0.0, 0.0) and second.velocity == pytest.approx((0, 0, 2.0))
    assert second.angular_velocity == pytest.approx((0, 0, 0), abs=1e-9) and after.velocity == (0, 0, 0)
    assert after.center == (0.5, 0.0, 2.0) and after.quat == quarter


def test_a_mover_pushes_particles_in_its_path():
    frames = (Keyframe(0.0, (-1.2, 0, 0)), Keyframe(0.5, (-0.2, 0, 0)))
    mover = Mover(Boundary("box", half_size=(0.5, 2.0, 2.0), kind="slip"), frames)
    frame = frames_of(cube(side=7), replace(PLAIN, movers=(mover,), gravity=0.0, floor="none", frames=11, cells=8, room=1.0))[
        -1
    ]
    assert frame.channels["means"][:, 0].min() > 0.3 - 0.125


def test_a_mesh_is_an_obstacle(tmp_path):
    """A sphere of triangles supports a cube like the analytic sphere."""
    Mesh(*shapes.icosphere(3, 0.6)).save(tmp_path / "ball.glb")
    common = {"center": (0.0, 0.0, -1.2), "kind": "sticky"}
    found = []
    for boundary in (Boundary("mesh", mesh=str(tmp_path / "ball.glb"), **common), Boundary("sphere", radius=0.6, **common)):
        config = replace(PLAIN, boundaries=(boundary,), cells=6, frames=9, floor="none", room=1.0)
        found.append(frames_of(cube(side=9), config)[-1].channels["means"])
    assert (found[0] - found[1]).norm(dim=-1).median() < 0.02
    assert (found[0] - cube(side=9).means)[:, 2].mean() > -0.7  # free fall is 0.78 m


def test_a_mesh_that_cannot_be_an_obstacle_is_rejected(tmp_path):
    Mesh(*shapes.plane()).save(tmp_path / "sheet.glb")
    boundary = Boundary("mesh", mesh=str(tmp_path / "sheet.glb"))
    with pytest.raises(InputError, match=r"encloses nothing at a spacing of .* m; want a closed mesh, or a finer grid"):
        set_up(cube(side=6), replace(PLAIN, boundaries=(boundary,)))


def test_a_body_inside_an_obstacle_is_rejected():
    boundary = Boundary("sphere", radius=3.0)
    with pytest.raises(
        InputError, match=r"the moving part: 1?\d* of its \d+ particles start inside obstacle 0; move one of the"
    ):
        set_up(cube(side=9), replace(PLAIN, boundaries=(boundary,)))
    set_up(cube(side=9), replace(PLAIN, boundaries=(replace(boundary, hollow=True),)))


def test_a_body_outside_the_box_is_rejected():
    with pytest.raises(ConfigError, match=r"box: \d+ of 216 moving points start outside it; make it larger"):
        set_up(cube(side=6), replace(PLAIN, box=(0.0, -1.0, -1.0, 1.0, 1.0, 1.0)))
    grid = set_up(cube(side=6), replace(PLAIN, box=(-1.0, -2.0, -1.0, 1.0, 2.0, 1.0))).world.grid
    assert grid.shape[1] - grid.shape[0] == pytest.approx(2 / grid.spacing, abs=1.01)


# Representations and grouping


def test_a_mesh_with_gaussians_moves_by_its_vertices():
    """Free fall, and a rotation: Gaussians follow their faces."""
    bound = MeshGaussians.from_mesh(Mesh(*shapes.icosphere(3, 0.3)), 3)
    config = replace(PLAIN, floor="none", frames=3, cells=10, fill="auto", room=3.0)
    setup = set_up(bound, config)
    assert setup.representation.name == "mesh" and setup.num_inside > 100
    assert float(setup.particles.mass.double().sum()) == pytest.approx(1000 * 4 / 3 * math.pi * 0.3**3, rel=0.02)
    frame = frames_of(bound, config)[-1]
    fall = frame.channels["vertices"] - bound.mesh.vertices
    assert fall[:, 2].mean() == pytest.approx(-9.81 * 0.1**2 / 2, rel=0.05) and fall[:, :2].abs().max() < 1e-5
    from vision3d.stages.simulate import simulate

    moving = simulate(config, bound, progress=lambda *_: None).sequence
    assert isinstance(moving.frame(2), GaussianScene) and len(moving.frame(2)) == len(bound)


@pytest.mark.parametrize(("mode", "corners"), [("3dgs", 4), ("flat", 3)])
def test_corners_as_particles(mode, corners):
    """Masses are preserved; free fall and rotation are the same as with one particle per Gaussian, including shapes."""
    scene = cube(side=6, mode=mode)
    body = Body(SOFT, angular_velocity=(0.0, 0.0, 2.0), fill="none")
    config = replace(PLAIN, bodies=(body,), floor="none", frames=4, cells=6, room=2.0, max_stretch=10.0)
    one, three = set_up(scene, config), set_up(scene, replace(config, representation="points3"))
    assert len(three.particles) == corners * len(one.particles)
    assert float(three.particles.mass.sum()) == pytest.approx(float(one.particles.mass.sum()), rel=1e-5)
    frames, others = frames_of(scene, config), frames_of(scene, replace(config, representation="points3"))
    channel = "covar_factors" if mode == "3dgs" else "edges"
    torch.testing.assert_close(others[0].channels[channel], frames[0].channels[channel], atol=1e-6, rtol=1e-4)
    assert (others[3].channels["means"] - frames[3].channels["means"]).norm(dim=-1).median() < 0.02
    first, second = (f[3].channels[channel] @ f[3].channels[channel].mT for f in (frames, others))
    assert ((first - second).norm(dim=(1, 2)) / first.norm(dim=(1, 2))).median() < 0.1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_none_is_used():
    setup, config = set_up(cube(side=4), PLAIN), replace(PLAIN, device="auto")
    assert Simulation(setup, config).device == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"device cuda: torch .* sees no GPU; use --device cpu"):
        Simulation(setup, replace(PLAIN, device="cuda"))


@pytest.mark.gpu
def test_a_gpu_moves_a_scene_like_a_cpu():
    """The native engine if it is built with CUDA; float32 sums have another order."""
    scene, config = cube(side=9), replace(PLAIN, engine="native", frames=4, cells=8)
    first, second = (frames_of(scene, replace(config, device=device))[-1] for device in ("cpu", "cuda"))
    torch.testing.assert_close(first.channels["means"], second.channels["means"], atol=1e-4, rtol=0)


def test_without_taichi_another_engine_is_used(monkeypatch, caplog):
    """One message names the requested engine and the missing package."""

    def missing(cls):
        raise MissingDependencyError("taichi", "physics", "engine taichi")

    monkeypatch.setattr(TaichiEngine, "check_available", classmethod(missing))
    setup = set_up(cube(side=4), replace(PLAIN, engine="taichi"))
    assert setup.engine.name in ("native", "reference")
    text = f"taichi is needed for engine taichi: {install_command('physics')}; using engine {setup.engine.name} instead"
    assert caplog.messages[0] == text


def test_unsuitable_representations_are_rejected():
    with pytest.raises(ConfigError, match="representation: mesh moves meshes and Gaussians on meshes"):
        set_up(cube(side=4), replace(PLAIN, representation="mesh"))
    with pytest.raises(ConfigError, match="representation: got 'blob', want one of auto, "):
        set_up(cube(side=4), replace(PLAIN, representation="blob"))
    with pytest.raises(ConfigError, match="grouping: hierarchy go without points3, whose particles are corners"):
        set_up(cube(side=4), replace(PLAIN, representation="points3", grouping="hierarchy"))
    with pytest.raises(ConfigError, match="fill: mesh needs a mesh or Gaussians on a mesh"):
        set_up(cube(side=4), replace(PLAIN, fill="mesh"))


@pytest.mark.parametrize("grouping", ["tracers", "followers", "hierarchy"])
def test_simulating_a_tenth_moves_all(grouping):
    """Against all of them simulated, after impact: within a quarter of a cell in the median, one at the 99th percentile."""
    scene = cube(side=16)
    config = replace(PLAIN, cells=5, frames=8, fps=20.0, drop=0.2, grouping=grouping)
    whole, few = frames_of(scene, config)[-1], frames_of(scene, replace(config, share=0.1))[-1]
    assert few.metrics["particles"] == pytest.approx(len(scene) / 10, rel=0.25 if grouping == "hierarchy" else 0.01)
    error = (few.channels["means"] - whole.channels["means"]).norm(dim=-1) * 5
    moved = (whole.channels["means"] - scene.means).norm(dim=-1) * 5
    assert moved.min() > 0.9
    assert error.median() < 0.25 and error.quantile(0.99) < 1.0


def test_without_grouping_transparent_gaussians_stay():
    scene = cube(side=6)
    logits = scene.opacity_logits.clone()
    logits[::3] = -6.0
    frame = frames_of(replace(scene, opacity_logits=logits), replace(PLAIN, cells=4, grouping="none"))[-1]
    fall = (frame.channels["means"] - scene.means)[:, 2]
    assert (fall[::3] == 0).all() and fall[1::3].max() < -0.05


def test_sizes_are_clamped_like_by_the_decomposition():
    """Including flat, collapsed and inverted ones: the same covariances."""
    F = torch.eye(3).double() + 0.8 * torch.randn(500, 3, 3).double()
    F[:20, :, 0] = 0
    F[20:40] = -F[20:40]
    rest = torch.linalg.qr(torch.randn(500, 3, 3).double())[0] * torch.rand(500, 1, 3).double().pow(4)
    rest[40:80, :, 2] *= 1e-8
    lengths = torch.linalg.svdvals(rest)
    for limit in (None, 0.3):
        want, found = clamp_factors(F @ rest, lengths, 1.5, limit), clamped(F @ rest, lengths, 1.5, limit)
        error = (found @ found.mT - want @ want.mT).norm(dim=(1, 2)) / (want @ want.mT).norm(dim=(1, 2))
        assert error.median() < 1e-13 and error.max() < 1e-6


def test_flattening_reports_the_loss(caplog):
    caplog.set_level(logging.INFO, "vision3d.physics")
    scene = cube(side=5)
    moving = frames_of(scene, replace(PLAIN, flatten=True, cells=4, frames=1))[0]
    assert set(moving.channels) == {"means", "edges", "turns"}
    squares = scene.scales.square()
    lost = float((squares.amin(-1) / squares.sum(-1)).mean())
    assert f"flattened: {100 * lost:.3g} % of the trace of the covariances is lost" in caplog.text


# Files


def test_the_scene_file_of_the_guide_is_valid(tmp_path):
    guide = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text("utf-8")
    (tmp_path / "fall.yaml").write_text(guide.split("```yaml")[1].split("```")[0])
    config = load_yaml(SimulateConfig, tmp_path / "fall.yaml")
    assert [body.name for body in config.bodies] == ["bear", "heap", "others"]
    assert config.bodies[1].material == replace(load_material("sand"), friction_deg=35.0)
    assert len(config.boundaries) == 3 and config.boundaries[2].hollow and len(config.movers[0].keyframes) == 2


def test_bodies_too_stiff_to_reach_a_frame_are_rejected(caplog):
    stiff = replace(PLAIN, cells=4, material=replace(PLAIN.material, youngs_modulus=1e30))
    with pytest.raises(
        ConfigError, match=r"material\.youngs_modulus: the moving part: sound of .* m/s crosses .* steps per frame"
    ):
        set_up(cube(side=4), stiff)
    set_up(cube(side=4), replace(stiff, material=replace(PLAIN.material, youngs_modulus=1e13)))
    assert "time steps per frame; a lower youngs_modulus or fewer cells are faster" in caplog.text


def test_scene_files_are_strict():
    with pytest.raises(ConfigError, match=r"bodies\[0\]\.materail: unknown; did you mean material\?"):
        from_dict(SimulateConfig, {"bodies": [{"materail": "sand"}]})
    with pytest.raises(
        ConfigError, match=r"bodies\[1\]\.material: 'sandd' is neither a file nor a preset of materials; did you mean sand\?"
    ):
        from_dict(SimulateConfig, {"bodies": [{"select": ["all"]}, {"material": "sandd"}]})
    with pytest.raises(
        ConfigError, match=r"bodies\[0\]\.material\.poisson_ratio: got 0\.5, want at least 0 and less than 0\.5"
    ):
        from_dict(SimulateConfig, {"bodies": [{"material": {"preset": "jelly", "poisson_ratio": 0.5}}]})
    with pytest.raises(ConfigError, match=r"movers\[0\]\.keyframes: got none, want at least one"):
        from_dict(SimulateConfig, {"movers": [{"solid": {}, "keyframes": []}]})
    with pytest.raises(ConfigError, match=r"impulses\[0\]\.velocity: missing; it has no default"):
        from_dict(SimulateConfig, {"impulses": [{}]})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"youngs_modulus": -1.0}, "material.youngs_modulus: got -1.0, want a number > 0"),
        ({"poisson_ratio": 0.5}, "material.poisson_ratio: got 0.5, want at least 0 and less than 0.5"),
        ({"density": 0.0}, "material.density: got 0.0, want a number > 0"),
    ],
)
def test_wrong_materials_are_named(values, text):
    with pytest.raises(ConfigError) as error:
        from_dict(SimulateConfig, {"material": values})
    assert str(error.value) == text


def test_unknown_materials_list_all():
    with pytest.raises(ConfigError) as error:
        from_dict(SimulateConfig, {"material": "cheese"})
    assert "foam, jelly, metal, rubber, sand, snow, water" in str(error.value)
    with pytest.raises(ConfigError, match=r"material.law: 'cheese' is not a material; all: corotated \(elastic, jelly"):
        from_dict(SimulateConfig, {"material": {"law": "cheese"}})


def test_whole_scenes_round_trip_through_yaml(tmp_path):
    config = SimulateConfig(
        bodies=(Body(Material("sand"), ("all",), name="heap"), Body(fill="none")),
        movers=(Mover(Boundary("sphere", radius=0.2), (Keyframe(0.0, (0.0, 0.0, 1.0)),)),),
        kinematic=(KinematicPart(("box:0,0,0,1,1,1",), end=2.0),),
        impulses=(Impulse((1.0, 0.0, 0.0)),),
        winds=(Wind((1.0, 0.0, 0.0)),),
    )
    (tmp_path / "scene.yaml").write_text(dump_yaml(config))
    assert load_yaml(SimulateConfig, tmp_path / "scene.yaml") == config


def test_presets_as_materials():
    config = from_dict(SimulateConfig, {"material": {"preset": "sand", "friction_deg": 40.0}})
    assert config.material == replace(load_material("sand"), friction_deg=40.0)
    assert SimulateConfig().material == load_material("jelly")
    assert from_dict(SimulateConfig, {"material": "water"}).material == load_material("water")


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_frames_of_a_mesh_are_drawn_at_any_scale(unit):
    """A sphere of millimeters must not be closer to the camera than the near plane, which gave empty images."""
    vertices, faces = shapes.icosphere(2)
    ball = Mesh(unit * vertices, faces)
    config = SimulateConfig(frames=1, cells=8, up=(0.0, 0.0, 1.0), engine="native")
    moving, setup = simulate(config, ball).sequence, set_up(ball, config)
    image = outputs._render(moving, 0, setup, outputs._camera(moving, setup, (32, 24)))
    assert image[12, 16].max() < 0.95  # the sphere in front of the white background


def test_points_without_faces_along_their_plane_have_no_floor():
    """No faces along the plane of their points: no floor, and no internal error."""
    points = torch.rand(500, 3) * torch.tensor([1.0, 1.0, 0.0])
    facing = torch.tensor([1.0, 0.0, 0.0]).expand(500, 3)
    assert find_floor(points, torch.ones(500), torch.tensor([0.0, 0.0, 1.0]).double(), facing=facing) is None
