"""Average precision of KITTI: closed cases, and random sets against an implementation in plain loops."""

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest

from tests.support.kitti_ap import slow_ap
from vision3d.core.errors import InputError, ShapeError
from vision3d.stages.detect.evaluation import FrameObjects, evaluate, upright_boxes
from vision3d.stages.detect.evaluation.average_precision import recall_thresholds

NAMES = np.array(["Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "Truck", "DontCare"])


def random_frame(rng: np.random.Generator, labels: int, hits: float = 0.8) -> tuple[FrameObjects, FrameObjects]:
    """Objects of all classes and difficulties, some overlapping; detections near most of them, and at random, in any order."""
    count = int(rng.integers(0, labels + 1))
    names = rng.choice(NAMES, count, p=[0.4, 0.15, 0.15, 0.1, 0.05, 0.05, 0.1])
    corners = rng.uniform(0, 300, (count, 2))
    boxes_2d = np.concatenate([corners, corners + rng.uniform(15, 120, (count, 2))], 1)
    boxes = np.concatenate(
        [rng.uniform(-12, 12, (count, 2)), rng.uniform(-0.3, 0.3, (count, 1)), rng.uniform(1, 4, (count, 3)),
         rng.uniform(-4, 4, (count, 1))], 1,
    )  # fmt: skip
    alphas = rng.uniform(-3, 3, count)
    truth = FrameObjects(
        list(names), boxes, boxes_2d, rng.choice([0, 0.1, 0.2, 0.4, 0.9], count), rng.integers(0, 4, count), alphas
    )
    copies = np.concatenate([np.nonzero(rng.random(count) < hits)[0] for _ in range(2)]).astype(int)
    copies = copies[names[copies] != "DontCare"]
    near = boxes[copies] + rng.normal(0, 0.06, (len(copies), 7))
    near_2d = boxes_2d[copies] + rng.normal(0, 3, (len(copies), 4))
    extra = int(rng.integers(0, 4))
    places = rng.uniform(0, 300, (extra, 2))
    found_names = np.concatenate([np.where(rng.random(len(copies)) < 0.9, names[copies], "Car"), rng.choice(NAMES[:3], extra)])
    found_2d = np.concatenate([near_2d, np.concatenate([places, places + rng.uniform(15, 80, (extra, 2))], 1)])
    far = np.concatenate([rng.uniform(-12, 12, (extra, 3)), rng.uniform(1, 4, (extra, 3)), np.zeros((extra, 1))], 1)
    order = rng.permutation(len(found_names))
    found_alphas = np.concatenate([alphas[copies] + rng.normal(0, 0.5, len(copies)), np.zeros(extra)])
    scores = np.round(rng.random(len(order)), 2)  # equal scores occur
    found = FrameObjects(
        list(found_names[order]), np.concatenate([near, far])[order], found_2d[order], alphas=found_alphas, scores=scores
    )
    return truth, found


def random_set(seed: int, frames: int, labels: int = 14) -> tuple[list[FrameObjects], list[FrameObjects]]:
    rng = np.random.default_rng(seed)
    pairs = [random_frame(rng, labels) for _ in range(frames)]
    return [truth for truth, _ in pairs], [found for _, found in pairs]


def cars(count: int, **change: Any) -> list[FrameObjects]:
    """One easy car a frame, each with its own score."""
    frames = []
    for i in range(count):
        values = {
            "boxes": [[10.0 + i, 2, -1, 4, 1.6, 1.5, 0.1]], "boxes_2d": [[100.0, 100, 200, 160]], "truncation": [0.0],
            "occlusion": [0], "alphas": [0.3], "scores": [1 - i / 1000], **change,
        }  # fmt: skip
        frames.append(FrameObjects(["Car"], **values))
    return frames


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_sets_against_loops(seed):
    labels, detections = random_set(seed, 60)
    result = evaluate(labels, detections)
    for name in ("Car", "Pedestrian", "Cyclist"):
        for metric in ("2d", "bev", "3d"):
            for difficulty, want in slow_ap(labels, detections, name, metric).items():
                row = result.get(name, metric, difficulty)
                assert (row.r11, row.r40, row.valid) == pytest.approx((want[0], want[1], want[4]), abs=1e-9), row
                if metric == "2d":
                    turned = result.get(name, "aos", difficulty)
                    assert (turned.r11, turned.r40) == pytest.approx(want[2:4], abs=1e-9)
    assert 5 < result.get("Car", "3d", "moderate").r40 < 95


@pytest.mark.parametrize("count", [1, 10, 20, 41, 42, 100])
def test_a_perfect_detector(count):
    frames = cars(count)
    for metric in ("2d", "bev", "3d", "aos"):
        row = evaluate(frames, frames).get("Car", metric, "easy")
        short = min(count, 41)
        assert row.r40 == pytest.approx(100 * (short - 1) / 40)
        assert row.r11 == pytest.approx(100 * (1 + (short - 1) // 4) / 11)
        assert row.exact == pytest.approx(100) and row.valid == count
        assert row.is_reliable == (count >= 41)


def test_no_labels_and_no_detections():
    nothing = [FrameObjects([], np.zeros((0, 7)))] * 3
    row = evaluate(nothing, nothing).get("Car", "3d", "hard")
    assert row.valid == 0 and math.isnan(row.r40) and math.isnan(row.exact)
    row = evaluate(cars(3), nothing).get("Car", "3d", "hard")
    assert (row.valid, row.r40, row.r11, row.exact) == (3, 0, 0, 0)
    assert math.isnan(evaluate(nothing, cars(3)).get("Car", "3d", "hard").exact)
    assert evaluate([], []).get("Car", "3d", "easy").valid == 0


def test_overlap_must_be_larger_than_the_limit():
    labels, detections = cars(1, boxes=[[0.0, 0, 0, 4, 2, 1, 0]]), cars(1, boxes=[[0.0, 0, 0, 2, 2, 1, 0]])
    for limit, want in ((0.5, 0), (0.499, 100)):
        assert evaluate(labels, detections, min_overlaps={"car": limit}).get("Car", "bev", "easy").exact == want


def with_extra(frames: list[FrameObjects], **values: Any) -> list[FrameObjects]:
    """One more object in every frame."""
    out = []
    for frame in frames:
        row = {
            "names": "Car",
            "boxes": [30.0, 30, 0, 4, 2, 1, 0],
            "boxes_2d": [300.0, 100, 400, 160],
            "truncation": 0,
            **values,
        }
        row = {"occlusion": 0, "alphas": 0.0, "scores": 2.0, **row}
        out.append(FrameObjects(**{key: [*getattr(frame, key), value] for key, value in row.items()}))
    return out


@pytest.mark.parametrize(
    ("label", "detection", "difficulty", "metric", "precision"),
    [
        (None, {}, "easy", "3d", 0.5),  # a false positive of a higher score
        ({"names": "Van"}, {}, "easy", "3d", 1.0),
        ({"names": "Truck"}, {}, "easy", "3d", 0.5),
        ({"occlusion": 1}, {}, "easy", "3d", 1.0),
        ({"occlusion": 1}, None, "easy", "3d", 1.0),  # not missed
        ({"truncation": 0.4}, {}, "moderate", "bev", 1.0),
        ({"boxes_2d": [300.0, 100, 400, 140]}, None, "easy", "3d", 1.0),  # 40 px is too small for a label
        (None, {"boxes_2d": [300.0, 100, 400, 139.9]}, "easy", "3d", 1.0),  # too small for a detection
        (None, {"boxes_2d": [300.0, 100, 400, 140]}, "easy", "3d", 0.5),
        ({"names": "DontCare", "boxes_2d": [250.0, 50, 450, 200]}, {}, "easy", "2d", 1.0),
        ({"names": "DontCare", "boxes_2d": [250.0, 50, 450, 200]}, {}, "easy", "3d", 0.5),
        ({"names": "DontCare", "boxes_2d": [300.0, 100, 370, 160]}, {}, "easy", "2d", 0.5),  # covers 0.7, not more
        (None, {"names": "Pedestrian"}, "easy", "3d", 1.0),
    ],
)
def test_ignored_objects(label, detection, difficulty, metric, precision):
    frames = cars(60)
    labels = frames if label is None else with_extra(frames, **label)
    detections = frames if detection is None else with_extra(frames, **detection)
    row = evaluate(labels, detections).get("Car", metric, difficulty)
    assert row.valid == 60
    assert row.r11 == pytest.approx(100 * precision)
    # Each true positive follows 60 false ones.
    exact = np.mean([k / (60 + k) for k in range(1, 61)]) if precision < 1 else 1.0
    assert row.exact == pytest.approx(100 * exact)


def test_exact_average_by_hand():
    """Scores 0.9 true, 0.8 false, 0.7 true, 0.7 false, one label missed: (1 + 2 / 4) / 3."""
    labels = cars(3)
    far = [[90.0, 2, -1, 4, 1.6, 1.5, 0.1]]
    detections = cars(3)
    detections[0] = dataclasses.replace(detections[0], scores=[0.9])
    detections[1] = dataclasses.replace(detections[1], scores=[0.7])
    detections[2] = FrameObjects(["Car", "Car"], far * 2, [[100.0, 100, 200, 160]] * 2, alphas=[0, 0], scores=[0.8, 0.7])
    assert evaluate(labels, detections).get("Car", "3d", "easy").exact == pytest.approx(50)


def test_a_second_detection_of_an_object_is_false():
    twice = [
        FrameObjects(["Car"] * 2, frame.boxes * 2, frame.boxes_2d * 2, alphas=[0, 0], scores=frame.scores * 2)
        for frame in cars(50)
    ]
    assert evaluate(cars(50), twice).get("Car", "3d", "easy").r11 == pytest.approx(50)


def test_orientation():
    labels = cars(60)
    for turn, want in ((0.0, 1.0), (math.pi / 2, 0.5), (math.pi, 0.0)):
        row = evaluate(labels, cars(60, alphas=[0.3 + turn])).get("Car", "aos", "easy")
        assert row.r40 == pytest.approx(100 * want) and row.exact == pytest.approx(100 * want)
    for alphas in (None, [-10.0]):
        rows = evaluate(labels, cars(60, alphas=alphas)).rows
        assert {row.metric for row in rows} == {"2d", "bev", "3d"}


def test_without_boxes_in_the_image():
    rows = evaluate(cars(60, boxes_2d=None), cars(60, boxes_2d=None)).rows
    assert {row.metric for row in rows} == {"bev", "3d"}
    assert evaluate(cars(60, boxes_2d=None), cars(60)).get("Car", "3d", "easy").r40 == pytest.approx(100)


def test_order_of_frames_and_objects_does_not_matter():
    labels, detections = random_set(5, 50)
    want = evaluate(labels, detections).records()
    order = np.random.default_rng(0).permutation(50)
    assert evaluate([labels[i] for i in order], [detections[i] for i in order]).records() == [
        {key: pytest.approx(value) for key, value in row.items()} for row in want
    ]


def test_recall_thresholds():
    scores = np.linspace(1, 0, 400)
    thresholds = recall_thresholds(scores, 400)
    assert len(thresholds) == 41 and thresholds[0] == 1 and thresholds[-1] == 0
    np.testing.assert_array_equal(thresholds[1:], scores[9::10])
    assert len(recall_thresholds(scores, 800)) == 21  # half of the labels are found
    assert len(recall_thresholds(np.zeros(0), 5)) == 0


def test_camera_frame():
    """A car ahead at 20 m, 1.5 m high on the ground 1.7 m below the camera, seen from behind (rotation -pi / 2)."""
    box = upright_boxes([[1.5, 1.6, 4, 1.0, 1.7, 20, -math.pi / 2]])
    np.testing.assert_allclose(box, [[20, -1, -0.95, 4, 1.6, 1.5, 0]], atol=1e-12)


def test_table_and_lookup():
    result = evaluate(cars(10), cars(10), classes=["Car"])
    table = result.table().splitlines()
    assert table[0].split() == ["class", "metric", "difficulty", "IoU", ">", "objects", "AP", "R11", "AP", "R40", "AP", "exact"]
    assert "22.50*" in table[1] and "100.00" in table[1]
    assert result.records()[0]["r40"] == pytest.approx(22.5)
    with pytest.raises(InputError, match="Car 3d moderat was not evaluated; did you mean Car 3d moderate"):
        result.get("Car", "3d", "moderat")
    assert evaluate([], [], classes=["Car"]).records()[0]["exact"] is None
    assert " - " in evaluate([], [], classes=["Car"]).table()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"boxes": [[10.0, math.nan, -1, 4, 1.6, 1.5, 0.1]]},
            "detections, frame 0: boxes of a car is .*nan",
        ),
        ({"boxes": [[10.0, 2, -1, 4, -1.6, 1.5, 0.1]]}, r"frame 0: sizes of a car are \[4.0, -1.6, 1.5\], want positive ones"),
        ({"scores": [math.inf]}, "scores of a car is inf"),
        ({"boxes_2d": [[0.0, 0, 0, 0]]}, "boxes_2d of all 3 detections are empty"),
        ({"scores": None}, "detections: a frame has no scores"),
        ({"boxes": None}, "detections: a frame has no boxes"),
    ],
)
def test_invalid_values(change, message):
    with pytest.raises(InputError, match=message):
        evaluate(cars(3), cars(3, **change))


def test_invalid_arguments():
    with pytest.raises(InputError, match="detections: got 2 frames, want 3, as many as labels"):
        evaluate(cars(3), cars(2))
    with pytest.raises(ShapeError, match=r"labels, frame 0: boxes: got shape \(1, 6\), want shape \(1, 7\)"):
        evaluate(cars(3, boxes=[[0.0] * 6]), cars(3))
    with pytest.raises(InputError, match="min_overlaps: got none for the class Tram, want a number from 0 to 1"):
        evaluate(cars(3), cars(3), classes=["Tram"])
    with pytest.raises(InputError, match=r"min_overlaps: got 1.5 for Car, want at least 0"):
        evaluate(cars(3), cars(3), min_overlaps={"Car": 1.5})
    with pytest.raises(InputError, match="only some of the frames have boxes_2d"):
        evaluate(cars(3), cars(2) + cars(1, boxes_2d=None))


@pytest.mark.slow
def test_time_of_the_validation_set():
    labels, detections = random_set(0, 3769, 40)
    assert 15 < np.mean([len(frame.names) for frame in labels]) < 25
    start = time.process_time()
    evaluate(labels, detections)
    assert time.process_time() - start < 30
