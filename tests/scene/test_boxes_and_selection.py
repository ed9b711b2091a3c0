import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.io.kitti import read_calibration, read_labels, write_labels
from vision3d.scene import Boxes, Region, Selection, load

BOXES = torch.tensor([[10.0, 2, -1, 4, 1.8, 1.5, 0.3], [5, -2, -0.5, 0.8, 0.6, 1.7, -2]])
CALIB = """R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0.1 0 0 -1 -0.2 1 0 0 -0.3
"""


@pytest.fixture
def boxes():
    return Boxes(BOXES, torch.tensor([1, 0]), torch.tensor([0.9, 0.25]), ("Car", "Van"))


def test_boxes_json_round_trip_is_exact(boxes, tmp_path):
    for value in (boxes, Boxes(BOXES), Boxes(BOXES[:0])):
        value.save(tmp_path / "b.json")
        again = load(tmp_path / "b.json")
        assert isinstance(again, Boxes) and again.classes == value.classes
        for name, tensor in value._tensors().items():
            assert (tensor is None) == (getattr(again, name) is None)
            assert tensor is None or torch.equal(getattr(again, name), tensor)


def test_corners_of_a_rotated_box():
    quarter = Boxes(torch.tensor([[1.0, 2, 3, 4, 2, 6, math.pi / 2]])).corners[0]
    torch.testing.assert_close(quarter[0], torch.tensor([0.0, 4, 0]))  # front left: forward is now y, left is -x
    torch.testing.assert_close(quarter.amax(0), torch.tensor([2.0, 4, 6]))
    torch.testing.assert_close(quarter.mean(0), torch.tensor([1.0, 2, 3]))


def test_kitti_round_trip(boxes, tmp_path):
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib" / "7.txt").write_text(CALIB)
    write_labels(tmp_path / "label_2" / "7.txt", boxes, tmp_path / "calib" / "7.txt")
    again = Boxes.load(tmp_path / "label_2" / "7.txt")
    torch.testing.assert_close(again.boxes, boxes.boxes, rtol=0, atol=3e-6)  # six decimals
    torch.testing.assert_close(again.scores, boxes.scores)
    assert again.classes == ("Van", "Car") and again.labels.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"KITTI labels need a calibration: use vision3d\.io\.kitti\.write_labels"):
        boxes.save(tmp_path / "x.txt")
    with pytest.raises(InputError, match="needs labels and classes"):
        write_labels(tmp_path / "x.txt", Boxes(BOXES), tmp_path / "calib" / "7.txt")


def test_real_labels_contain_points(shared_data):
    from vision3d.scene import PointCloud

    boxes = Boxes.load(shared_data / "kitti" / "label_2" / "000000.txt")
    points = PointCloud.load(shared_data / "kitti" / "velodyne" / "000000.bin").points
    assert boxes.classes == ("Pedestrian",) and boxes.boxes[0, 0] == pytest.approx(8.7, abs=0.2)
    x, y, z, *size, yaw = boxes.boxes[0].tolist()
    quat = torch.tensor([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
    region = Region.box(torch.tensor([x, y, z]), torch.tensor(size) / 2, quat)
    assert 100 < int(region.contains(points).sum()) < 2000


@pytest.mark.parametrize(
    "text, message",
    [
        ("Car 1 2\n", "line 1: has 2 values after the class, want 14 or 15 numbers"),
        ("\nCar" + " nan" * 14, "line 2: has 14 values"),
        ("Car 0 0 0 0 0 0 0 0 1 1 0 0 9 0\n", "box 0 has a size that is not positive"),
        ("Car 0 0 0 0 0 0 0 1 1 1 0 0 9 0 7\n", "scores go from 7 to 7, want 0 to 1"),
    ],
)
def test_damaged_labels(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_labels(tmp_path / "a.txt", torch.eye(4))
    with pytest.raises(MissingFileError, match="the calibration of the labels"):
        Boxes.load(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "lacks R0_rect"),
        ("R0_rect: 1 2", "has not 9 numbers"),
        (CALIB.replace("0.1", "inf"), "Tr_velo_to_cam is not finite"),
    ],
)
def test_damaged_calibration(tmp_path, text, message):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_calibration(tmp_path / "c.txt")


def test_wrong_boxes(boxes):
    with pytest.raises(ShapeError, match=r"Boxes.boxes: got shape \(2, 6\), want shape \(B, 7\)"):
        Boxes(BOXES[:, :6])
    with pytest.raises(InputError, match="labels go from 0 to 1, want 0 to 0"):
        replace(boxes, classes=("Car",)).validate()
    with pytest.raises(InputError, match="boxes is not finite in 1 of 2 rows"):
        replace(boxes, boxes=BOXES * torch.tensor([[1.0], [math.nan]])).validate()
    assert repr(boxes[:1]) == "Boxes(1 boxes, Car Van, scores, cpu)" and "length" in boxes._repr_html_()
    assert boxes.to("meta").scores.device.type == "meta"


def test_regions_against_closed_forms():
    points = torch.randn(500, 3)
    assert torch.equal(Region.sphere(torch.ones(3), 1.5).contains(points), (points - 1).norm(dim=1) <= 1.5)
    assert torch.equal(Region.plane(torch.ones(3), torch.tensor([0.0, 0, -2])).contains(points), points[:, 2] <= 1)
    turned = Region.box(torch.zeros(3), torch.tensor([2.0, 1, 9]), torch.tensor([1.0, 0, 0, 1]))  # 90 degrees about z
    assert torch.equal(turned.contains(points), (points[:, 0].abs() <= 1) & (points[:, 1].abs() <= 2))


def test_selection_combines_regions_and_indices(tmp_path):
    points = torch.randn(50, 3)
    ball, half = Region.sphere(torch.zeros(3), 1.0), Region.plane(torch.zeros(3), torch.tensor([1.0, 0, 0]))
    inside, right = ball.contains(points), points[:, 0] >= 0
    assert torch.equal(Selection((ball, half)).mask(points), inside | right)
    both = replace(Selection.of(points, torch.tensor([4, 9])), regions=(ball, half), combine="all")
    expected = (inside & right).index_fill(0, torch.tensor([4, 9]), True)
    assert torch.equal(both.mask(points), expected)
    assert not Selection().mask(points).any()
    assert torch.equal(Selection.of(points, inside).mask(points), inside)
    both.save(tmp_path / "s.json")
    again = load(tmp_path / "s.json")
    assert isinstance(again, Selection) and torch.equal(again.mask(points), expected)
    with pytest.raises(InputError, match=r"indices refer to other points than these 50 \(their hashes differ\)"):
        again.mask(points + 1)
    with pytest.raises(InputError, match="names row 9, but there are 5 points"):
        replace(again, points_hash="").mask(points[:5])
    assert repr(again) == "Selection(all of sphere, plane; 2 indices)" and "sphere" in again._repr_html_()
    assert again.to("meta").indices.device.type == "meta"


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30)
@given(st.lists(FINITE, min_size=3, max_size=3), st.lists(st.integers(0, 2**62), max_size=4))
def test_any_selection_round_trips(tmp_path_factory, center, indices):
    path = tmp_path_factory.mktemp("s") / "s.json"
    Selection((Region.sphere(torch.tensor(center), 1.0),), indices=torch.tensor(indices, dtype=torch.int64)).save(path)
    again = Selection.load(path)
    assert again.regions[0].center.tolist() == torch.tensor(center).tolist() and again.indices.tolist() == indices


@pytest.mark.parametrize(
    "kind, change, message",
    [
        ("boxes", {"boxes": [[1, 2]]}, r"is not a valid boxes \(ShapeError: Boxes.boxes: got shape \(1, 2\)"),
        ("boxes", {"boxes": [["a"] * 7]}, "is not a valid boxes"),
        ("boxes", {"boxes": [[math.nan] * 7] * 2}, "boxes is not finite"),
        ("boxes", {"labels": [0.5]}, "want a list of whole numbers"),
        ("boxes", {"labels": [2**70]}, "is not a valid boxes"),
        ("boxes", {"vision3d": {"type": "boxes", "version": 2}}, "is version 2 of boxes; version 1 is read"),
        ("selection", {"regions": [{"kind": "cone", "center": [0] * 3, "size": [0] * 3, "quat": [1, 0, 0, 0]}]}, "got 'cone'"),
        ("selection", {"regions": [{"kind": "box"}]}, "KeyError"),
        ("selection", {"combine": "none"}, "want 'any' or 'all'"),
        ("selection", {"indices": [-1]}, "names row -1"),
    ],
)
def test_damaged_json(boxes, tmp_path, kind, change, message):
    (boxes if kind == "boxes" else Selection()).save(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text()) | change
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=message):
        load(tmp_path / "a.json")
