"""Animated meshes as obstacles: a solid for each joint, as rigid movers have it."""

from dataclasses import replace

import pytest
import torch

from tests.stages.test_simulate import QUICK, cube, frames_of
from tests.support.skins import arm
from vision3d.core.config import dump_yaml, from_dict
from vision3d.core.errors import ConfigError, InputError
from vision3d.geometry import shapes
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import so3_exp
from vision3d.scene import Channel, Clip, Mesh, SkinnedMesh
from vision3d.stages.simulate import AnimatedObstacle, Boundary, SimulateConfig, simulate
from vision3d.stages.simulate.config import Keyframe, Mover
from vision3d.stages.simulate.output.obstacle_meshes import obstacle_meshes
from vision3d.stages.simulate.setup.builder import set_up

PUSHED = replace(QUICK, drop=0.0, gravity=0.0, floor="none", cells=5, frames=9, fps=20.0, room=1.0, engine="auto")
STEPS = torch.tensor([0.0, 0.2, 0.4], dtype=torch.float64)


def puppet() -> SkinnedMesh:
    """Two cubes of side 0.4, one beside the other, each on a joint of its own; the second is the child of the first.

    The first moves by -1 m/s along x, the second rotates about it by 2 rad/s about z.
    """
    vertices, faces = shapes.box((0.4, 0.4, 0.4))
    mesh = Mesh(
        torch.cat([vertices, vertices + torch.tensor([0.0, 0.6, 0.0])]).float(), torch.cat([faces, faces + len(vertices)])
    )
    binds = torch.eye(4).repeat(2, 1, 1)
    binds[1, 1, 3] = -0.6
    moves = Channel("translation", 0, STEPS, torch.tensor([[1.0, 0, 0], [0.8, 0, 0], [0.6, 0, 0]]))
    turns = torch.stack([so3_exp(torch.tensor([0.0, 0.0, 2.0 * time])) for time in STEPS.tolist()]).float()
    spins = Channel("rotation", 1, STEPS, rotmat_to_quat(turns))
    one = torch.tensor([[1.0, 0, 0, 0], [1, 0, 0, 0]])
    return SkinnedMesh(
        mesh, ("first", "second"), (-1, 0), torch.tensor([[1.0, 0, 0], [0, 0.6, 0]]), one, torch.ones(2, 3), binds,
        torch.arange(2).repeat_interleave(len(vertices))[:, None], torch.ones(2 * len(vertices), 1),
        clips=(Clip("push", (moves, spins)),),
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    puppet().save(tmp_path / "puppet.glb")
    return str(tmp_path / "puppet.glb")


def test_it_is_that_of_rigid_movers(path, tmp_path):
    Mesh(*shapes.box((0.4, 0.4, 0.4))).save(tmp_path / "box.glb")
    box = Boundary("mesh", mesh=str(tmp_path / "box.glb"))
    half = so3_exp(torch.tensor([0.0, 0.0, 0.4]))
    w, x, y, z = rotmat_to_quat(half @ half).tolist()
    movers = (
        Mover(box, (Keyframe(0.0, (1.0, 0.0, 0.0)), Keyframe(0.4, (0.6, 0.0, 0.0)))),
        Mover(box, (Keyframe(0.0, (1.0, 0.6, 0.0)), Keyframe(0.4, (0.6, 0.6, 0.0), (w, x, y, z)))),
    )
    scene, config = cube(side=14, edge=1.4), replace(PUSHED, cells=9)
    want = frames_of(scene, replace(config, movers=movers))
    got = frames_of(scene, replace(config, animated=(AnimatedObstacle(path),)))
    assert (want[-1].channels["means"] - scene.means).norm(dim=-1).max() > 0.1
    for ours, theirs in zip(got, want):
        torch.testing.assert_close(ours.channels["means"], theirs.channels["means"], rtol=0, atol=2e-4)
    assert all(frame.metrics["kept"] == 0 for frame in got)


def test_more_intervals_than_the_engine_takes_obstacles(path):
    """Two joints and 60 frames are 118 boundaries; the engine sees those of a frame."""
    config = replace(PUSHED, frames=60, fps=100.0, cells=3, animated=(AnimatedObstacle(path, center=(0.5, 0.0, 0.0)),))
    setup = set_up(cube(side=3), config)
    assert len(setup.world.boundaries) == 118 and len(setup.world.fields) == 2
    there = setup.world.during(0.1, 0.11)
    assert len(there.boundaries) == 2 and {boundary.start for boundary in there.boundaries} == {0.1}
    assert len(frames_of(cube(side=3), replace(config, frames=2 + 59))) == 61


def test_placed_delayed_and_shown(path):
    turned = AnimatedObstacle(path, center=(0.0, 2.0, 1.0), quat=(0.7071068, 0, 0, 0.7071068), scale=0.5, start=0.1)
    setup = set_up(cube(side=4), replace(PUSHED, animated=(turned,)))
    still, moved = (obstacle_meshes(setup, time)[0] for time in (0.1, 0.3))
    assert len(obstacle_meshes(setup, 0.1)) == 1 and still.num_vertices >= 16
    first = still.vertices[: still.num_vertices // 2]
    torch.testing.assert_close(first.mean(0), torch.tensor([0.0, 2.5, 1.0]), rtol=0, atol=1e-5)  # x is y now
    assert (first.amax(0) - first.amin(0) - 0.2).abs().max() < 1e-5
    shift = moved.vertices[: len(first)].mean(0) - first.mean(0)
    torch.testing.assert_close(shift, torch.tensor([0.0, -0.1, 0.0]), rtol=0, atol=1e-5)
    start = [boundary for boundary in setup.world.boundaries if boundary.start == 0]
    assert all(boundary.velocity == (0, 0, 0) for boundary in start)


def test_the_collider_moves_if_its_file_does(path):
    scene = cube(side=6, edge=1.0)
    by_hand = frames_of(scene, replace(PUSHED, animated=(AnimatedObstacle(path, friction=0.4),)))
    as_collider = frames_of(scene, replace(PUSHED, collider=path))
    assert torch.equal(by_hand[-1].channels["means"], as_collider[-1].channels["means"])
    assert (by_hand[-1].channels["means"] - scene.means).norm(dim=-1).max() > 0.05


def test_a_hidden_joint_is_no_obstacle(tmp_path):
    skin = puppet()
    scales = Channel("scale", 0, STEPS, torch.tensor([[1.0] * 3, [1e-3] * 3, [1.0] * 3]), "STEP")
    clip = replace(skin.clips[0], channels=(*skin.clips[0].channels, scales))
    replace(skin, clips=(clip,)).save(tmp_path / "blinks.glb")
    setup = set_up(cube(side=4), replace(PUSHED, animated=(AnimatedObstacle(str(tmp_path / "blinks.glb")),)))
    times = sorted({round(boundary.start, 6) for boundary in setup.world.boundaries})
    assert times == [0.0, 0.05, 0.1]  # hidden from 0.2 on, until the last frame


def test_a_resumed_run_is_bitwise_equal(path, tmp_path):
    config = replace(PUSHED, cells=4, checkpoint_every=2, animated=(AnimatedObstacle(path),))
    scene = cube(side=5)
    whole = simulate(config, scene, run_folder=tmp_path / "whole", progress=lambda *_, **__: None).sequence
    from vision3d.core.runs import RunFolder
    from vision3d.stages.simulate.config import RESUMABLE

    short = replace(config, frames=5)
    simulate(
        short, scene, run_folder=RunFolder.create(tmp_path / "half", short, ignore=RESUMABLE), progress=lambda *_, **__: None
    )
    again = RunFolder.create(tmp_path / "half", config, resume=True, ignore=RESUMABLE)
    half = simulate(config, scene, run_folder=again, progress=lambda *_, **__: None).sequence
    assert torch.equal(half.frame(8).means, whole.frame(8).means)


def test_what_cannot_be_an_animated_obstacle(tmp_path, path):
    scene = cube(side=4)
    Mesh(*shapes.box((1.0, 1.0, 1.0))).save(tmp_path / "still.glb")
    replace(arm(), clips=()).save(tmp_path / "no_clip.glb")
    skin = puppet()
    SkinnedMesh.from_frames(skin.mesh, skin.mesh.vertices.expand(2, -1, -1), [0.0, 1.0]).save(tmp_path / "morphs.glb")
    for name, text in (
        ("none.glb", "none.glb: does not exist"), ("still.glb", "animated"), ("no_clip.glb", "has no clip"),
        ("morphs.glb", "moves no joint; want a clip of joints"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            set_up(scene, replace(PUSHED, animated=(AnimatedObstacle(str(tmp_path / name)),)))
    with pytest.raises(InputError, match="no clip is called 'wave'; there is push"):
        set_up(scene, replace(PUSHED, animated=(AnimatedObstacle(path, clip="wave"),)))
    with pytest.raises(InputError, match=r"the parts of all joints are thinner than a cell of .* m; want more --cells"):
        set_up(scene, replace(PUSHED, animated=(AnimatedObstacle(path, scale=1e-3),)))
    for options, text in (
        ({"mesh": ""}, "mesh"),
        ({"scale": 0}, "scale"),
        ({"start": -1}, "start"),
        ({"kind": "soft"}, "kind"),
    ):
        with pytest.raises(ConfigError, match=text):
            AnimatedObstacle(**{"mesh": "a.glb", **options})


def test_options_as_yaml(path):
    config = SimulateConfig(animated=(AnimatedObstacle(path, friction=0.5),))
    assert "animated:" in dump_yaml(config)
    assert from_dict(SimulateConfig, {"animated": [{"mesh": path, "friction": 0.5}]}) == config
