"""The viewer without its window: effect of each action on the image, and written files."""

import json
import time

import numpy as np
import pytest
import torch

from tests.support.datasets import write_ring_photographs
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.errors import InputError
from vision3d.geometry import shapes
from vision3d.io.images import read_image
from vision3d.io.video import read_video
from vision3d.optim.metrics import psnr
from vision3d.render import render_views
from vision3d.scene import Boxes, Cameras, FrameSequence, Mesh, PointCloud, Scene, Selection
from vision3d.viewer.content import Content, whole_bounds
from vision3d.viewer.layers import Layers
from vision3d.viewer.models import Dots, Lines, Splats, Surface
from vision3d.viewer.session import Session

WAIT = 60
SIZE = (96, 64)


@pytest.fixture
def ring(tmp_path):
    ring_scene(400).save(tmp_path / "ring.ply")
    return tmp_path / "ring.ply"


@pytest.fixture
def photographs(tmp_path):
    return write_ring_photographs(tmp_path / "photographs")


@pytest.fixture
def open_session(tmp_path):
    sessions = []

    def open_(*paths, **options):
        said, shown = [], []
        session = Session(
            Layers.open(paths, up=torch.tensor([0.0, 0.0, 1.0])), size=SIZE, out=tmp_path / "out", say=said.append,
            show=shown.append, **options,
        )  # fmt: skip
        session.said, session.shown = said, shown
        sessions.append(session)
        return session

    yield open_
    for session in sessions:
        session.close()


def image_of(session):
    """The full-quality image of the current state."""
    session.request(is_moving=False)
    assert session.loop.wait(WAIT)
    return session.last.pixels


def moving(folder, frames=5):
    mesh = Mesh(0.5 * shapes.icosphere(2)[0], shapes.icosphere(2)[1])
    shift = torch.linspace(-1, 1, frames)[:, None, None] * torch.tensor([1.0, 0, 0])
    FrameSequence(mesh, 0.5 * torch.arange(frames), {"vertices": mesh.vertices + shift}).save(folder / "ball.zarr")
    return folder / "ball.zarr"


def test_every_kind_of_layer_becomes_a_model(tmp_path):
    Scene(
        {
            "splats": ring_scene(50), "mesh": Mesh(*shapes.icosphere(1)), "points": PointCloud(torch.rand(9, 3)),
            "boxes": Boxes(torch.tensor([[1.0, 2, 3, 4, 2, 1, 0]])), "eyes": ring_cameras(),
        }
    ).save(tmp_path / "scene")  # fmt: skip
    content = Content(Layers.open([tmp_path / "scene"]))
    kinds = {layer.name: type(content.model(layer, 0.0)) for layer in content.layers}
    assert kinds == {"splats": Splats, "mesh": Surface, "points": Dots, "boxes": Lines, "eyes": Lines}
    first, second = content.models(), content.models()
    assert [a is b for a, b in zip(first, second)] == [True] * len(first)
    content.layers.show("mesh", False)
    assert not any(isinstance(model, Surface) for model in content.models())
    content.dot_size = 5
    assert [model.size for model in content.models() if isinstance(model, Dots)] == [5]


def test_gaussians_of_several_layers_are_one_model(tmp_path, ring):
    ring_scene(30, sh_degree=0).save(tmp_path / "more.ply")
    content = Content(Layers.open([ring, tmp_path / "more.ply"]))
    models = content.models()
    assert len(models) == 1 and len(models[0]) == 600 + 45
    assert content.models()[0] is models[0]
    content.layers.show("more", False)
    assert len(content.models()[0]) == 600


def test_the_bounds_of_an_object_without_surroundings_contain_all_of_it(tmp_path):
    scene = ring_scene(2000)
    scene = scene[scene.means[:, 2] > 0.2]  # the ring without its floor
    scene.save(tmp_path / "ring.ply")
    bounds = whole_bounds(Layers.open([tmp_path / "ring.ply"]))
    away = (scene.means - bounds.center).norm(dim=-1)
    assert float((away > bounds.radius).float().mean()) < 0.01


def test_a_scene_is_visible_at_once(open_session, ring):
    session = open_session(ring)
    want = next(render_views(ring_scene(400), session.camera())).image.clamp(0, 1)
    got = torch.from_numpy(image_of(session).copy()).float() / 255
    assert got.std() > 0.1  # something is in view
    assert psnr(got, want) > 50


def test_hiding_a_layer_and_another_background(open_session, ring):
    session = open_session(ring, background=(1.0, 0.0, 0.0))
    session.layers.show("ring", False)
    assert np.unique(image_of(session).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def test_the_first_view_is_that_of_the_first_camera_with_its_photo(open_session, photographs, ring):
    session = open_session(photographs, ring)
    assert session.chosen == ("photographs", 0) and session.is_at_camera
    # The camera's image is fitted into the window: 96 x 64 for 48 x 36, height 64.
    assert torch.allclose(session.camera().viewmats, ring_cameras(8).viewmats[:1], atol=1e-5)
    end = time.monotonic() + WAIT
    while session._photograph.placed is None and time.monotonic() < end:
        time.sleep(0.01)
    session.photograph_weight = 0.0
    without = image_of(session).astype(float)
    session.photograph_weight = 1.0
    over = image_of(session)
    photo = torch.nn.functional.interpolate(
        read_image(photographs / "images" / "000.png").permute(2, 0, 1)[None], size=(64, 85), mode="bilinear", antialias=True
    )[0].permute(1, 2, 0)
    middle = torch.from_numpy(over[:, 6:-5].copy()).float() / 255
    assert psnr(middle, photo) > 22
    assert np.array_equal(over[:, :4], without[:, :4])  # outside the photo
    session.photograph_weight = 0.5
    assert np.abs(image_of(session) - (0.5 * without + 0.5 * over)).max() <= 1.01


def test_leaving_a_camera_shows_the_frusta(open_session, photographs):
    session = open_session(photographs)
    at_camera = image_of(session)
    session.move(session.view.zoomed(2.5))
    assert not session.is_at_camera
    away = image_of(session)
    assert (away != 0).any(), session.said
    session.with_cameras = False
    assert not (image_of(session) != 0).any()
    assert at_camera.shape == away.shape


def test_thumbnails_fill_the_frusta(open_session, photographs):
    session = open_session(photographs)
    session.resize(480, 320)
    session.move(session.view.zoomed(1.5))
    before = image_of(session)
    session.load_thumbnails()
    for thumbnails in session._thumbnails:
        thumbnails._thread.join(WAIT)
    assert sum(surface.shaded.mesh.num_faces for surface in session.content.photographs) == 2 * 8
    after = image_of(session)
    assert not session.said, session.said[0]
    assert (after.astype(int).sum(-1) > 0).sum() > (before.astype(int).sum(-1) > 0).sum()


def test_missing_camera(open_session, photographs):
    session = open_session(photographs)
    with pytest.raises(InputError, match=r"no camera 8 in photographs; it has 8"):
        session.choose_camera("photographs", 8)


def test_the_time_changes_the_image_and_plays(open_session, tmp_path):
    session = open_session(moving(tmp_path))
    first = image_of(session)
    session.set_time(2.0)
    last = image_of(session)
    assert (first != last).any()
    session.step_frame(-1)
    assert session.time == 1.5
    session.step_frame(-9)
    assert session.time == 0.0
    assert np.array_equal(image_of(session), first)
    session.is_playing = True
    session._ticked -= 0.6
    session.tick()
    assert 0.6 <= session.time < 1.5
    session.time, session._ticked = 2.4, session._ticked - 0.3  # the last frame lasts as long as the others; then it loops
    session.tick()
    assert 0.1 <= session.time < 1.5


def test_a_click_picks_and_is_marked(open_session, ring):
    session = open_session(ring)
    before = image_of(session)
    found = session.click(SIZE[0] / 2, SIZE[1] / 2)
    assert found.layer == "ring" and 0 <= found.index < 600
    assert torch.equal(found.position, ring_scene(400).means[found.index])
    assert (image_of(session) != before).any()
    assert session.click(0.5, 0.5) is None


@pytest.mark.parametrize("kind", ["sphere", "box"])
def test_a_click_selects_and_the_selection_is_written(open_session, ring, kind):
    session = open_session(ring)
    before = image_of(session)
    session.region_kind = kind
    session.resize_region(0.4)
    found = session.click(SIZE[0] / 2, SIZE[1] / 2)
    assert (image_of(session) != before).any()
    path = session.save_selection()
    assert path.name == "selection_001.json"
    loaded = Selection.load(path)
    assert [region.kind for region in loaded.regions] == [kind]
    means = ring_scene(400).means
    away = (means - found.position).abs().amax(-1) if kind == "box" else (means - found.position).norm(dim=-1)
    assert torch.equal(loaded.mask(means), away <= 0.4) and bool(loaded.mask(means).any())
    session.resize_region(0.2)
    assert float(session.regions[-1].size[0]) == pytest.approx(0.2)
    assert session.save_selection().name == "selection_002.json"
    session.clear_regions()
    with pytest.raises(InputError, match=r"nothing is selected; choose sphere or box and click into the image"):
        session.save_selection()


def test_the_selection_is_shown_in_another_color(open_session, ring):
    session = open_session(ring)
    session.region_kind = "sphere"
    session.put_region(torch.tensor([0.0, 0.0, 0.5]))
    session.resize_region(50.0)
    colors = session.content.models(regions=session.regions)[0].colors
    plain = session.content.models()[0].colors
    assert float((colors - 0.4 * plain).sub(0.6 * torch.tensor([1.0, 0.55, 0.1])).abs().max()) < 1e-6


def test_a_camera_path_is_recorded_played_saved_and_loaded(open_session, ring):
    session = open_session(ring)
    with pytest.raises(InputError, match=r"the camera path has 0 keys; add at least two views"):
        session.fly(True)
    with pytest.raises(InputError, match=r"the camera path has no keys; add views"):
        session.save_path()
    first = session.view
    session.add_key()
    session.move(session.view.orbited(1.0, 0.0))
    session.add_key()
    last = session.view
    path = session.save_path()
    cameras = Cameras.load(path)
    assert len(cameras) == 2 and path.name == "path_001.cameras.json"
    assert torch.allclose(cameras.camtoworlds[1].double(), last.camtoworld, atol=1e-5)
    session.fly(True)
    session._ticked -= 0.5 * session.flight.seconds
    session.tick()
    middle = session.view.position
    assert float((middle - first.position).norm()) > 0.1 and float((middle - last.position).norm()) > 0.1
    session.fly(False)
    session.clear_path()
    session.load_path(path)
    assert torch.allclose(session.flight.keys[1].camtoworld, last.camtoworld, atol=1e-5)
    assert session.flight.keys[1].fov_deg == pytest.approx(last.fov_deg, abs=1e-3)
    with pytest.raises(InputError, match=r"ring\.ply: is not a cameras file; want a cameras\.json"):
        session.load_path(ring)


def test_a_screenshot_is_the_full_image(open_session, ring, tmp_path):
    session = open_session(ring)
    path = session.save_screenshot()
    assert path == tmp_path / "out" / "view_001.png"
    assert np.array_equal((read_image(path).numpy() * 255).round().astype(np.uint8), image_of(session))
    assert session.save_screenshot().name == "view_002.png"


def test_a_recording_is_a_video(open_session, ring, tmp_path):
    session = open_session(ring)
    image_of(session)
    session.record(True)
    assert session.is_recording
    for _ in range(3):
        session.move(session.view.orbited(0.3, 0.0))
        assert session.loop.wait(WAIT)
    session.record(False)
    video = read_video(tmp_path / "out" / "recording_001.mp4")
    assert (video.width, video.height) == SIZE
    assert len(list(video)) >= 3
    assert f"{tmp_path / 'out' / 'recording_001.mp4'}: " in session.said[-1]


def test_another_renderer_gets_requests_and_recordings_continue(open_session, ring, tmp_path):
    session = open_session(ring)
    assert session.loop.wait(WAIT)
    taken, before = [], len(session.shown)
    session.drawer = taken.append
    session.move(session.view.zoomed(0.9))
    assert len(taken) == 1 and session.loop.wait(WAIT) and len(session.shown) == before
    session.record(True)
    session.move(session.view.zoomed(0.9))
    assert len(taken) == 3 and session.loop.wait(WAIT) and len(session.shown) > before
    session.record(False)
    assert (tmp_path / "out" / "recording_001.mp4").is_file()


def test_a_video_of_an_animation(open_session, tmp_path):
    session = open_session(moving(tmp_path))
    path = session.render_path()
    session._video.join(WAIT)
    frames = list(read_video(path))
    assert len(frames) == 60  # 2 s
    assert float((frames[0] - frames[-1]).abs().mean()) > 0.01
    assert session.said[-1] == f"{path}: 60 frames"


def test_a_video_is_canceled_by_a_second_call(open_session, tmp_path):
    session = open_session(moving(tmp_path))
    path = session.render_path()
    thread = session._video
    assert session.render_path() is None
    thread.join(WAIT)
    assert not path.exists() and session.said[-1] == "the video was canceled"


def test_a_video_needs_a_path_or_an_animation(open_session, ring):
    with pytest.raises(InputError, match=r"no camera path with two keys and no animation"):
        open_session(ring).render_path()


def test_a_rewritten_file_is_updated(open_session, tmp_path):
    from vision3d.io.zarr_store import SequenceWriter

    writer = SequenceWriter(tmp_path / "drops.zarr", PointCloud(torch.zeros(5, 3)))
    for moment in (0.0, 0.5):
        writer.append(moment, points=torch.rand(5, 3))
    session = open_session(tmp_path / "drops.zarr")
    writer.append(1.0, points=torch.rand(5, 3))
    session._refreshed -= 10
    session.tick()
    session._refreshing.join(WAIT)
    assert session.layers.times.tolist() == [0.0, 0.5, 1.0]
    assert session.said == ["drops: 3 frames"]


def test_another_direction_up_and_another_size(open_session, ring):
    session = open_session(ring)
    session.set_up(torch.tensor([1.0, 0.0, 0.0]))
    assert session.view.up.tolist() == [1.0, 0.0, 0.0] == session.home.up.tolist()
    session.resize(50, 70)
    assert image_of(session).shape == (70, 50, 3)


def test_saved_paths_are_readable_by_other_programs(open_session, ring):
    """cameras.json is a superset of transforms.json."""
    session = open_session(ring)
    session.add_key()
    content = json.loads(session.save_path().read_text())
    assert len(content["frames"]) == 1 and (content["w"], content["h"]) == SIZE
