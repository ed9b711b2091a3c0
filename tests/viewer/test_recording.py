"""Names of written files, and duration of images in a recording."""

import numpy as np
import pytest

from vision3d.io.video import read_video
from vision3d.viewer.recording import Recorder, next_path, write_video


def gray(value, size=(32, 48)):
    return np.full((*size, 3), value, np.uint8)


def test_the_next_name_is_one_more_than_the_highest(tmp_path):
    assert next_path(tmp_path / "new", "view", ".png").name == "view_001.png"
    for name in ("view_001.png", "view_007.png", "view_010.mp4", "overview_099.png", "view_.png"):
        (tmp_path / name).touch()
    assert next_path(tmp_path, "view", ".png").name == "view_008.png"


def test_each_image_lasts_as_long_as_it_was_visible(tmp_path):
    now = [100.0]
    recorder = Recorder(tmp_path / "a.mp4", fps=10, clock=lambda: now[0])
    for value, seconds in ((40, 0.5), (120, 0.3), (220, 0.25)):
        recorder.append(gray(value))
        now[0] += seconds
    assert recorder.close() == 11  # 1.05 s and the last image
    levels = [round(float(frame.mean()) * 255) for frame in read_video(tmp_path / "a.mp4")]
    assert [min((40, 120, 220), key=lambda want: abs(want - level)) for level in levels] == [40] * 5 + [120] * 3 + [220] * 3


def test_images_of_another_size_are_skipped_and_an_empty_recording_has_no_file(tmp_path):
    recorder = Recorder(tmp_path / "b.mp4", fps=10, clock=lambda: 0.0)
    assert recorder.close() == 0
    assert not (tmp_path / "b.mp4").exists()
    recorder = Recorder(tmp_path / "c.mp4", fps=10, clock=lambda: 0.0)
    recorder.append(gray(10))
    recorder.append(gray(10, (20, 20)))
    assert recorder.close() == 1


@pytest.mark.parametrize("last", [3, 99])
def test_a_video_is_complete_or_absent(tmp_path, last):
    count = write_video(tmp_path / "d.mp4", (gray(20 * i) for i in range(5)), 10, lambda number: number < last)
    assert count == (0 if last == 3 else 5)
    assert (tmp_path / "d.mp4").exists() == (last == 99)
    assert [path.name for path in tmp_path.iterdir()] == (["d.mp4"] if last == 99 else [])
