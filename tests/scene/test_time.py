"""State of objects and scenes at a given time."""

from dataclasses import replace

import pytest
import torch

from tests.support.balls import ball as ball_mesh
from vision3d.core.errors import InputError
from vision3d.geometry import rotvec_to_rotmat
from vision3d.scene import Cameras, FrameSequence, Mesh, PointCloud, Scene, SkinnedMesh

TIMES = torch.tensor([1.0, 1.5, 2.0])


def rolling():
    mesh = ball_mesh()
    return FrameSequence(mesh, TIMES, {"vertices": mesh.vertices + torch.tensor([0.0, 1, 2])[:, None, None]})


def wobbling():
    mesh = ball_mesh()
    return SkinnedMesh.from_frames(mesh, mesh.vertices + torch.tensor([0.0, 1, 2])[:, None, None], [0.5, 1.0, 1.5])


def shift(mesh):
    return float((mesh.vertices - ball_mesh().vertices).mean())


@pytest.mark.parametrize(
    ("time", "held", "looped"),
    [(-3.0, 0, 1), (1.0, 0, 0), (1.49, 0, 0), (1.5, 1, 1), (2.0, 2, 2), (2.49, 2, 2), (2.51, 2, 0), (3.1, 2, 1), (9.0, 2, 1)],
)
def test_sequences_hold_the_last_frame_or_loop(time, held, looped):
    assert shift(rolling().at(time)) == pytest.approx(held)
    # A period is three frames of half a second.
    assert shift(rolling().at(time, loop=True)) == pytest.approx(((time - 1) % 1.5) // 0.5) == pytest.approx(looped)


@pytest.mark.parametrize(("time", "held", "looped"), [(0.0, 0, 1), (0.75, 0.5, 0.5), (1.5, 2, 0), (1.75, 2, 0.5)])
def test_skins_are_posed_between_their_keys(time, held, looped):
    skin = wobbling()
    assert shift(skin.at(time)) == pytest.approx(held, abs=1e-6)
    assert shift(skin.at(time, loop=True)) == pytest.approx(looped, abs=1e-6)
    assert shift(skin.at(time, clip="frames")) == pytest.approx(held, abs=1e-6)
    assert skin.span == (0.5, 1.5)
    with pytest.raises(InputError, match="no clip is called 'walk'; there is frames"):
        skin.at(time, clip="walk")


def test_a_mesh_rotates_its_normals():
    mesh = ball_mesh()
    mesh = replace(mesh, normals=mesh.vertices / mesh.vertices.norm(dim=-1, keepdim=True))
    turned = torch.stack([mesh.vertices, mesh.vertices @ rotvec_to_rotmat(torch.tensor([0.0, 0, 1.5])).mT])
    for moving in (
        FrameSequence(mesh, torch.tensor([0.0, 1.0]), {"vertices": turned}),
        SkinnedMesh.from_frames(mesh, turned, [0.0, 1.0]),
    ):
        found = moving.at(1.0)
        assert isinstance(found, Mesh)
        cosines = (found.normals * torch.nn.functional.normalize(found.vertices, dim=-1)).sum(-1)
        assert cosines.min() > 0.95


def test_cameras_move_between_their_times():
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0.0, 2, 4])
    poses[:, :3, :3] = rotvec_to_rotmat(torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, 0, 0]]))
    cameras = Cameras.from_camtoworlds(poses, torch.eye(3) * torch.tensor([40.0, 40, 1]), 8, 6, times=TIMES)
    for time, x, angle in ((0.0, 0, 0), (1.0, 0, 0), (1.25, 1, 0.5), (1.5, 2, 1), (1.875, 3.5, 0.25), (9.0, 4, 0)):
        camera = cameras.at(time)
        assert len(camera) == 1 and float(camera.camtoworlds[0, 0, 3]) == pytest.approx(x, abs=1e-5)
        want = rotvec_to_rotmat(torch.tensor([0.0, 0, angle]))
        torch.testing.assert_close(camera.camtoworlds[0, :3, :3], want, atol=1e-5, rtol=0)
    rig = replace(cameras, times=torch.tensor([1.0, 1.0, 2.0]), names=("a", "b", "c"))
    assert rig.at(1.9).names == ("a", "b") and rig.at(2.0).names == ("c",) and rig.at(0.0).names == ("a", "b")
    still = replace(cameras, times=None)
    assert still.at(1.2) is still


def test_a_scene_at_a_time():
    matrix = torch.eye(4)
    points = PointCloud(torch.rand(2, 3))
    cameras = Cameras.from_camtoworlds(torch.eye(4).repeat(3, 1, 1), torch.eye(3), 8, 6, times=TIMES)
    scene = Scene(cameras=cameras).add("roll", rolling(), matrix).add("wobble", wobbling()).add("points", points)
    assert scene.span == (0.5, 2.0)
    moment = scene.at(1.75)
    assert isinstance(moment["roll"], Mesh) and shift(moment["roll"]) == pytest.approx(1)
    assert shift(moment["wobble"]) == pytest.approx(0.5), "clips are repeated"
    assert moment["points"] is points and torch.equal(moment.transforms["roll"], matrix) and len(moment.cameras) == 1
    assert shift(scene.at(1.75, loop=False)["wobble"]) == pytest.approx(2)
    assert shift(scene.at(2.6, loop=True)["roll"]) == pytest.approx(0)
    assert moment.at(5.0)["roll"] is moment["roll"] and Scene().span == (0.0, 0.0)
    with pytest.raises(InputError, match="has 0 frames"):
        Scene().add("empty", FrameSequence(ball_mesh(), torch.zeros(0))).at(0.0)
