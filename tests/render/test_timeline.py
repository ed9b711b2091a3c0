"""Sequences are rendered over time: one image per frame, never all frames in one image."""

import pytest
import torch

from tests.support.balls import ball as ball_mesh
from vision3d.core.errors import InputError
from vision3d.core.progress import silent
from vision3d.geometry.cameras import look_at
from vision3d.io.images import read_image
from vision3d.io.video import read_video
from vision3d.render import path_cameras, render_scene
from vision3d.render.timeline import Timeline
from vision3d.report.renders import write_renders
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, PointCloud, Scene, SkinnedMesh

TIMES = torch.tensor([0.0, 0.125, 0.25])


def camera(count=1):
    K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    pose = look_at(torch.tensor([[0.0, 0, -6]]), torch.zeros(3), torch.tensor([0.0, -1, 0]))
    return Cameras.from_camtoworlds(pose.expand(count, 4, 4), K, 48, 32)


def shifts():
    return torch.tensor([[-1.5, 0, 0], [0, 0, 0], [1.5, 0, 0]])


def rolling_mesh():
    mesh = ball_mesh()
    return FrameSequence(mesh, TIMES, {"vertices": mesh.vertices + shifts()[:, None]})


def rolling_splats():
    means = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    base = GaussianScene.from_points(means, torch.rand(60, 3))
    return FrameSequence(base, TIMES, {"means": means + shifts()[:, None]})


@pytest.mark.parametrize("make", [rolling_mesh, rolling_splats])
def test_one_view_per_frame(make):
    moving = make()
    views = list(render_scene(moving, camera(), render_mode="RGB+ED"))
    assert len(views) == 3
    for i, view in enumerate(views):
        frame = moving.mesh_at(i) if isinstance(moving.base, Mesh) else moving.frame(i)
        (alone,) = render_scene(frame, camera(), render_mode="RGB+ED")
        assert torch.equal(view.image, alone.image) and torch.equal(view.alpha, alone.alpha)
    columns = [view.alpha.sum(0).argmax().item() for view in views]
    assert columns[0] < columns[1] < columns[2]  # it moves through the image
    each = list(render_scene(moving, camera(3), render_mode="RGB+ED"))
    assert all(torch.equal(a.image, b.image) for a, b in zip(views, each))


def test_static_objects_are_in_every_frame_and_others_hold_their_frame():
    wall = ball_mesh()
    slow = FrameSequence(wall, torch.tensor([0.0, 0.2]), {"vertices": torch.stack([wall.vertices, wall.vertices + 1])})
    splats = rolling_splats()
    got = list(render_scene([splats, slow], camera()))
    moments = [[splats.frame(i), slow.mesh_at(at)] for i, at in enumerate((0, 0, 1))]
    want = [next(iter(render_scene(moment, camera()))) for moment in moments]
    assert len(got) == 3 and all(torch.equal(a.image, b.image) for a, b in zip(got, want))


def test_sequences_in_a_scene_move_with_their_transform():
    matrix = torch.eye(4)
    matrix[1, 3] = 0.5
    points = FrameSequence(PointCloud(torch.rand(2, 3)), torch.arange(9.0), {"points": torch.rand(9, 2, 3)})  # not drawn
    scene = Scene().add("ball", rolling_mesh(), matrix).add("points", points)
    got = list(render_scene(scene, camera()))
    assert len(got) == 3
    for i, view in enumerate(got):
        (alone,) = render_scene(rolling_mesh().mesh_at(i).transform(matrix), camera())
        assert torch.equal(view.image, alone.image)


def test_files(tmp_path):
    moving = rolling_mesh()
    write_renders(moving, camera(), tmp_path / "images", depth=True, progress=silent)
    names = sorted(path.name for path in (tmp_path / "images").glob("*.png"))
    assert names == ["00000.png", "00001.png", "00002.png"]
    for i, name in enumerate(names):
        (alone,) = render_scene(moving.mesh_at(i), camera())
        assert (read_image(tmp_path / "images" / name) - alone.image.clamp(0, 1)).abs().max() < 0.003
    assert len(list((tmp_path / "images" / "depth").glob("*.npy"))) == 3
    write_renders(moving, camera(), tmp_path / "ball.mp4", progress=silent)
    assert read_video(tmp_path / "ball.mp4").fps == pytest.approx(8)  # frame rate of the frames
    turning = path_cameras(moving, "orbit", num=3, size=(32, 32))
    write_renders(moving, turning, tmp_path / "turn", progress=silent)
    assert len(list((tmp_path / "turn").glob("*.png"))) == 3
    with pytest.raises(InputError, match=r"one\.png: got 3 cameras for one image"):
        write_renders(moving, camera(), tmp_path / "one.png", progress=silent)


def test_wrong_numbers_of_cameras_and_frames():
    with pytest.raises(InputError, match="cameras: got 2 for a sequence of 3 frames; want one, or one for each frame"):
        render_scene(rolling_mesh(), camera(2))
    points = FrameSequence(PointCloud(torch.rand(2, 3)), TIMES, {"points": torch.rand(3, 2, 3)})
    with pytest.raises(InputError, match="a sequence of PointCloud is not drawn; want GaussianScene, Mesh, MeshGaussians"):
        render_scene([points], camera())
    with pytest.raises(InputError, match="a sequence has 0 frames, want at least one"):
        render_scene(FrameSequence(ball_mesh(), torch.zeros(0)), camera())


def test_skinned_meshes_play_their_clip():
    mesh = ball_mesh()
    skin = SkinnedMesh.from_frames(mesh, mesh.vertices + shifts()[:, None], TIMES.tolist())
    views = list(render_scene(skin, camera()))
    wanted = [next(iter(render_scene(skin.at(time), camera()))) for time in TIMES[:2].tolist()]
    assert len(views) == 3 and all(torch.equal(a.image, b.image) for a, b in zip(views, wanted))
    scene = Scene().add("skin", skin).add("ball", rolling_mesh())
    assert len(list(render_scene(scene, camera()))) == 3


def test_a_timeline_sets_the_frames():
    mesh = ball_mesh()
    skin = SkinnedMesh.from_frames(mesh, mesh.vertices + shifts()[:, None], [0.0, 0.125, 0.25])
    timeline = Timeline.of(skin).resampled(7)
    assert timeline.fps == 8 and len(timeline) == 7
    columns = [view.alpha.sum(0).argmax().item() for view in render_scene(timeline, camera())]
    assert columns[:2] == columns[2:4] == columns[4:6], "a clip of two frame intervals is repeated"
    held = Timeline.of(rolling_mesh()).resampled(5)
    columns = [view.alpha.sum(0).argmax().item() for view in render_scene(held, camera(5))]
    assert columns[2] == columns[3] == columns[4] and columns[0] < columns[1] < columns[2]
