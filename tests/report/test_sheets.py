import pytest
import torch

from vision3d.core.errors import InputError, MissingFileError, ShapeError
from vision3d.io.images import image_size, read_image, write_image
from vision3d.report import Pair, contact_sheet, error_to_rgb, frame_sheet, read_pairs, write_contact_sheet
from vision3d.report.canvas import Canvas, fitted, text_width
from vision3d.report.sheets import broken


def pair(color, width=40, height=30, caption="a"):
    photo = torch.tensor(color).expand(height, width, 3)
    return Pair(photo, photo + 0.1, caption)


def test_error_colors_rise_from_black():
    photo = torch.zeros(1, 6, 3)
    render = torch.tensor([0.0, 0.05, 0.1, 0.15, 0.25, 3.0])[None, :, None].expand(1, 6, 3)
    brightness = error_to_rgb(photo, render).sum(-1)[0]
    assert brightness[0] == 0 and (brightness.diff()[:4] > 0).all()
    assert brightness[4] == brightness[5]  # clamped at the top value


def test_error_of_images_of_other_sizes():
    with pytest.raises(ShapeError, match=r"render: got shape \(3, 4, 3\), want shape \(3, 5, 3\)"):
        error_to_rgb(torch.zeros(3, 5, 3), torch.zeros(3, 4, 3))


def test_images_are_on_the_sheet_in_order():
    colors = [[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.7]]
    sheet = contact_sheet([pair(color) for color in colors], title="Title", subtitle="words")
    places = []
    for color in colors:
        is_photo = (sheet - torch.tensor(color)).abs().amax(-1) < 0.01
        is_render = (sheet - torch.tensor(color) - 0.1).abs().amax(-1) < 0.01
        assert int(is_photo.sum()) == int(is_render.sum()) == 40 * 30  # complete, and only once
        assert is_photo.nonzero()[:, 1].max() < is_render.nonzero()[:, 1].min()
        places.append(int(is_photo.nonzero()[0, 0]))
    assert places == sorted(places) and places[0] > 60


def test_many_views_are_in_two_columns_and_some_are_skipped():
    pairs = [pair([i / 40, 0.2, 0.9]) for i in range(40)]
    sheet = contact_sheet(pairs, most=10)
    shown = [i for i, p in enumerate(pairs) if bool(((sheet - p.photo[0, 0]).abs().amax(-1) < 0.005).any())]
    assert shown == list(range(0, 40, 4))
    lefts = [int(((sheet - pairs[i].photo[0, 0]).abs().amax(-1) < 0.005).nonzero()[0, 1]) for i in shown]
    assert lefts[:5] == [lefts[0]] * 5 and lefts[5:] == [lefts[5]] * 5 and lefts[5] > lefts[0]


def test_large_and_unequal_images_are_resized():
    sheet = contact_sheet([pair([0.2, 0.4, 0.6], 300, 100), pair([0.6, 0.4, 0.2], 50, 80)], cell=60)
    is_first = (sheet - torch.tensor([0.2, 0.4, 0.6])).abs().amax(-1) < 0.01
    is_second = (sheet - torch.tensor([0.6, 0.4, 0.2])).abs().amax(-1) < 0.01
    assert int(is_first.sum()) == 60 * 20 and int(is_second.sum()) == 38 * 60


def test_empty_sheet():
    with pytest.raises(InputError, match="pairs: got none"):
        contact_sheet([])


def test_written_sheet_and_pairs_of_a_folder(tmp_path):
    photo, render = torch.rand(20, 24, 3), torch.rand(20, 24, 3)
    write_image(tmp_path / "r" / "b.png", torch.cat([photo, render], 1))
    write_image(tmp_path / "r" / "a.png", torch.cat([render, photo], 1))
    first, second = read_pairs(tmp_path / "r")
    assert (first.caption, second.caption) == ("a", "b")
    assert (first.photo - render).abs().max() < 0.003 and (second.render - render).abs().max() < 0.003
    write_contact_sheet(tmp_path / "sheet.png", [first, second])
    assert image_size(tmp_path / "sheet.png") == tuple(reversed(contact_sheet([first, second]).shape[:2]))
    assert read_image(tmp_path / "sheet.png").min() < 0.2

    (only,) = read_pairs(tmp_path / "r", {"b.png": "words"})
    assert only.caption == "words" and torch.equal(only.photo, second.photo)
    with pytest.raises(MissingFileError, match=r"c\.png"):
        read_pairs(tmp_path / "r", {"c.png": "words"})
    with pytest.raises(InputError, match=r"none: got no \.png files, want at least one"):
        read_pairs(tmp_path / "none")


def test_text_is_truncated_to_its_width():
    canvas = Canvas(200, 30)
    canvas.text(0, 0, "many words that are too long for this place", room=80)
    dark = (canvas.image().mean(-1) < 0.7).nonzero()
    assert 40 < dark[:, 1].max() <= 82
    assert text_width("many words") > text_width("many")


def test_small_images_are_unchanged():
    image = torch.rand(5, 7, 3)
    assert fitted(image, 7, 5) is image
    assert fitted(image, 14, 3).shape == (3, 4, 3)


def test_frames_in_rows_of_four():
    images = [torch.full((20, 30, 3), i / 10) for i in range(6)]
    sheet = frame_sheet(images, [f"{i} s" for i in range(6)])
    assert sheet.shape == (2 * 42, 4 * 34, 3)
    for i in range(6):
        assert sheet[(i // 4) * 42 + 5, (i % 4) * 34 + 5].tolist() == pytest.approx([i / 10] * 3, abs=1 / 255)
    assert frame_sheet(images[:2], ["", ""]).shape == (42, 68, 3)
    with pytest.raises(InputError, match="got no images"):
        frame_sheet([], [])


def test_long_captions_are_broken_at_spaces():
    text = "one two three four five six seven eight"
    lines = broken(text, 60, 4)
    assert " ".join(lines) == text and 1 < len(lines) <= 4
    assert all(text_width(line) <= 60 for line in lines[:-1])
    assert broken(text, 60, 1) == [text] and broken("", 60, 3) == [""] and broken("one", 60, 3) == ["one"]
    assert broken("a-word-without-any-space-that-is-long", 10, 3) == ["a-word-without-any-space-that-is-long"]
    images = [torch.zeros(10, 60, 3)] * 2
    one, several = frame_sheet(images, [text, "a"]), frame_sheet(images, [text, "a"], lines=4)
    assert several.shape[0] > one.shape[0] and several.shape[1] == one.shape[1]
