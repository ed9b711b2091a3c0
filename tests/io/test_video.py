import itertools

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError, Vision3DError
from vision3d.io.images import read_image
from vision3d.io.video import ImageSequenceWriter, VideoWriter, open_webcam, read_video


def frames(count, height, width):
    """Smooth moving colors."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return [torch.stack([x, y, torch.full_like(x, i / count)], -1) for i in range(count)]


@pytest.mark.parametrize("height, width", [(48, 64), (47, 63), (48, 63)])
def test_round_trip_pads_odd_sizes(tmp_path, height, width):
    written = frames(9, height, width)
    with VideoWriter(tmp_path / "v.mp4", fps=12.5, crf=4) as video:
        for frame in written:
            video.append(frame)
        assert not (tmp_path / "v.mp4").exists()
    video = read_video(tmp_path / "v.mp4")
    assert (video.width, video.height, video.fps) == (width + width % 2, height + height % 2, 12.5)
    assert video.duration == pytest.approx(9 / 12.5, abs=0.05)
    read = torch.stack(list(video))
    assert read.shape == (9, video.height, video.width, 3)
    assert (read[:, :height, :width] - torch.stack(written)).abs().mean() < 0.01
    assert len(list(tmp_path.iterdir())) == 1


def test_reading_may_stop_early_and_start_again(tmp_path):
    with VideoWriter(tmp_path / "v.mp4") as video:
        for frame in frames(20, 16, 16):
            video.append(frame)
    video = read_video(tmp_path / "v.mp4")
    first = next(iter(video))
    assert torch.equal(first, next(iter(video))) and len(list(video)) == 20


def test_gray_frames(tmp_path):
    with VideoWriter(tmp_path / "v.mkv") as video:
        video.append(torch.full((16, 16), 0.5))
        video.append(torch.full((16, 16, 1), 0.5))
    assert torch.stack(list(read_video(tmp_path / "v.mkv"))).sub(0.5).abs().max() < 0.02


def test_an_error_leaves_nothing(tmp_path):
    def write():
        with VideoWriter(tmp_path / "v.mp4") as video:
            video.append(torch.zeros(16, 16, 3))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        write()
    assert not list(tmp_path.iterdir())


def test_a_failing_encoder_keeps_the_previous_video(tmp_path):
    with VideoWriter(tmp_path / "v.mp4") as video:
        video.append(torch.zeros(16, 16, 3))
    earlier = (tmp_path / "v.mp4").read_bytes()
    video = VideoWriter(tmp_path / "v.mp4")
    video.append(torch.ones(16, 16, 3))
    video._encoder.kill()
    with pytest.raises(Vision3DError, match=r"v\.mp4: ffmpeg failed after 1 frames"):
        video.close()
    assert (tmp_path / "v.mp4").read_bytes() == earlier and len(list(tmp_path.iterdir())) == 1


def test_bad_frames_and_arguments(tmp_path):
    with pytest.raises(InputError, match=r"no video format for '\.avi'; want \.mp4"):
        VideoWriter(tmp_path / "v.avi")
    with pytest.raises(InputError, match="got fps 0"):
        VideoWriter(tmp_path / "v.mp4", fps=0)
    with pytest.raises(InputError, match="got no frames"):
        VideoWriter(tmp_path / "v.mp4").close()
    with VideoWriter(tmp_path / "v.mp4") as video:
        with pytest.raises(ShapeError, match=r"frame: got shape \(4, 4, 2\)"):
            video.append(torch.zeros(4, 4, 2))
        with pytest.raises(InputError, match="1 values are not finite"):
            video.append(torch.tensor([[0.0, float("inf")]]))
        video.append(torch.zeros(4, 4, 3))
        with pytest.raises(ShapeError, match=r"frame: got 6x4 px, want 4x4 px as the first frame"):
            video.append(torch.zeros(4, 6, 3))
    with pytest.raises(InputError, match="the writer is closed"):
        video.append(torch.zeros(4, 4, 3))


def test_files_that_are_not_videos(tmp_path):
    (tmp_path / "v.mp4").write_text("hello")
    with pytest.raises(FileFormatError, match="is not a video that ffmpeg can read"):
        read_video(tmp_path / "v.mp4")
    with pytest.raises(MissingFileError, match="want a video"):
        read_video(tmp_path / "w.mp4")


def test_image_sequence(tmp_path):
    with ImageSequenceWriter(tmp_path / "out") as sequence:
        for frame in frames(3, 6, 7):
            sequence.append(frame)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    torch.testing.assert_close(read_image(tmp_path / "out" / "00002.png"), frames(3, 6, 7)[2], atol=0.51 / 255, rtol=0)


@pytest.fixture
def camera(monkeypatch):
    """A camera in whose place ffmpeg generates images: `camera(filters)`."""

    def open_(filters, rate=20):
        options = ("-f", "lavfi", "-i", f"testsrc2=size=96x64:rate={rate},{filters}")
        monkeypatch.setattr("vision3d.io.video._capture_options", lambda index: options)
        return open_webcam(0)

    return open_


@pytest.mark.parametrize(
    ("filters", "times"),
    [
        ("null", [0, 0.05, 0.1, 0.15, 0.2]),
        (r"select=not(eq(n\,3))", [0, 0.05, 0.1, 0.2, 0.25]),  # a frame that the camera drops
        ("setpts=N*N/20/TB", [0, 0.05, 0.2, 0.45, 0.8]),  # less light, longer exposures
        ("setpts=PTS+3600/TB", [0, 0.05, 0.1, 0.15, 0.2]),  # the clock of the device
    ],
)
def test_frames_of_a_camera_have_the_times_of_their_capture(camera, filters, times):
    """From the second image on: ffmpeg looks at the first one to learn its size."""
    found = list(itertools.islice(camera(filters).timed(), 4))
    assert [at for at, _ in found] == pytest.approx([at - times[1] for at in times[1:]], abs=1e-4)
    for (_, before), (_, after) in itertools.pairwise(found):
        assert not torch.equal(before, after)  # none is repeated


def test_times_of_a_camera_ascend(camera):
    """A clock that stands still or goes back."""
    found = [at for at, _ in itertools.islice(camera(r"setpts=if(lt(N\,3)\,N/20/TB\,1/20/TB)").timed(), 5)]
    assert all(after > before for before, after in itertools.pairwise(found)) and found[-1] < 1


def test_a_camera_without_times_has_even_ones(camera, monkeypatch):
    monkeypatch.setattr("vision3d.io.video._read_stamps", lambda messages, stamps: messages.read())
    monkeypatch.setattr("vision3d.io.video._LATEST_S", 0.01)
    assert [at for at, _ in itertools.islice(camera("null").timed(), 3)] == pytest.approx([0, 0.05, 0.1])


def test_times_of_a_video_are_even(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", fps=8) as video:
        for frame in frames(3, 16, 16):
            video.append(frame)
    assert [at for at, _ in read_video(tmp_path / "v.mp4").timed()] == [0, 0.125, 0.25]
