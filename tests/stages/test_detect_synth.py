"""Synthetic LiDAR frames: labels agree with points, seeds repeat."""

import math

import numpy as np
import pytest
import torch

from vision3d.core.errors import ConfigError, MissingFileError
from vision3d.render.lidar.materials import NAMES
from vision3d.stages.detect.synth import Frame, FrameConfig, frame, people, profiles, scenery, streets, vehicles

pytest.importorskip("embreex")

SMALL = FrameConfig(sensor="vlp16", variety=8)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [frame(3, FrameConfig(variety=8), index) for index in range(4)]


def inside(points: torch.Tensor, box: torch.Tensor, margin: float = 0.0) -> torch.Tensor:
    local = points[:, :3] - box[:3]
    cosine, sine = box[6].cos(), box[6].sin()
    x, y = cosine * local[:, 0] + sine * local[:, 1], cosine * local[:, 1] - sine * local[:, 0]
    half = box[3:6] / 2 + margin
    return (x.abs() <= half[0]) & (y.abs() <= half[1]) & (local[:, 2].abs() <= half[2])


def test_points_of_objects_are_inside_their_boxes_and_counted(frames: list[Frame]):
    for one in frames:
        assert len(one.names) == len(one.boxes) == len(one.num_points) == len(one.boxes_2d) == len(one.occlusion)
        assert (one.num_points > 0).all()
        for k, box in enumerate(one.boxes):
            own = one.owner == k
            assert int(own.sum()) == int(one.num_points[k])
            assert inside(one.points[own], box, 0.06).all()


def test_points_inside_boxes_belong_to_the_object(frames: list[Frame]):
    """Apart from the ground below, whose noise reaches into the box, from other objects that touch it, and from rain."""
    total = foreign = 0
    for one in frames:
        for k, box in enumerate(one.boxes):
            shrunk = box.clone()
            shrunk[2] += 0.15
            shrunk[3:6] -= torch.tensor([0.2, 0.2, 0.3])
            if (shrunk[3:6] <= 0).any():
                continue
            within = inside(one.points, shrunk)
            total += int(within.sum())
            foreign += int((within & (one.owner != k)).sum())
    assert total > 2000
    assert foreign < 0.02 * total


def test_objects_stand_on_the_ground_and_do_not_overlap(frames: list[Frame]):
    for one in frames:
        bottom = one.boxes[:, 2] - one.boxes[:, 5] / 2 + one.sensor_height
        away = one.boxes[:, :2].norm(dim=1)
        assert (bottom.abs() < 0.35 + 0.08 * away).all()
        gaps = torch.cdist(one.boxes[:, :2], one.boxes[:, :2]) + 9 * torch.eye(len(one.boxes))
        assert gaps.min() > 0.2


def test_same_seed_same_frame_and_other_indices_differ():
    first, other = frame(5, SMALL, 2), frame(5, SMALL, 3)
    frame(6, SMALL, 0)  # shapes made in between change nothing
    again = frame(5, SMALL, 2)
    assert torch.equal(first.points, again.points)
    assert torch.equal(first.boxes, again.boxes)
    assert first.names == again.names
    assert not torch.equal(first.points[:100], other.points[:100])


def test_frames_are_the_same_whatever_was_made_before():
    from vision3d.stages.detect.synth import library as module

    first = frame(7, SMALL, 1)
    module.library.cache_clear()
    again = frame(7, SMALL, 1)
    assert torch.equal(first.points, again.points)


def test_splits_share_no_family_and_no_layout():
    from vision3d.stages.detect.synth.library import CARS, library

    assert not set(CARS) & set(profiles.VALIDATION)
    assert not set(streets.LAYOUTS) & set(streets.VALIDATION_LAYOUTS)
    val = library("val", 8)
    rng = np.random.default_rng(0)
    assert {val.pick(kind, rng).info["family"] for kind in ("Car", "Van") for _ in range(40)} <= set(profiles.VALIDATION)
    assert frame(0, FrameConfig(sensor="vlp16", split="val", variety=8)).layout in streets.VALIDATION_LAYOUTS


def test_occlusion_and_2d_boxes(frames: list[Frame]):
    limits = torch.tensor([0.8, 0.4, 0.1])
    for one in frames:
        assert ((one.visible >= 0) & (one.visible <= 1)).all()
        assert torch.equal(one.occlusion, (one.visible[:, None] <= limits).sum(1))
        ahead = one.truncation < 1
        assert (one.boxes[~ahead, 0] < 60).all()
        left, top, right, bottom = one.boxes_2d[ahead].unbind(1)
        assert ((left >= 0) & (right <= 1241) & (top >= 0) & (bottom <= 374) & (left < right) & (top < bottom)).all()
        assert (one.boxes_2d[~ahead] == 0).all()


def test_sector_has_only_its_points():
    one = frame(1, FrameConfig(sensor="vlp16", azimuth=90, variety=8))
    bearing = torch.atan2(one.points[:, 1], one.points[:, 0])
    assert bearing.abs().max() < math.radians(46)
    assert len(one.points) > 1000


@pytest.mark.parametrize("family", profiles.PROFILES)
def test_cars_fill_their_boxes(family: str):
    """Without mirrors and plates the body is as long, wide and high as its box says."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        car = vehicles.car(family, rng)
        length, width, height = car.info["size"]
        is_body = np.isin(car.materials, [NAMES.index("tyre"), NAMES.index("paint"), NAMES.index("glass")])
        used = car.vertices[car.faces[is_body]].reshape(-1, 3)
        assert abs(np.ptp(used[:, 0]) - length) < 0.06
        assert abs(used[:, 2].max() - height) < 0.03
        assert abs(used[:, 2].min()) < 0.02
        assert width <= np.ptp(used[:, 1]) + 0.02 < width + 0.4
        assert (car.materials == NAMES.index("glass")).sum() > 10


def test_people_and_riders_have_human_sizes():
    rng = np.random.default_rng(2)
    sizes = np.array([people.pedestrian(rng, child=False).info["size"] for _ in range(60)])
    assert ((sizes[:, 2] > 1.4) & (sizes[:, 2] < 2.1)).all()
    assert ((sizes[:, 1] > 0.35) & (sizes[:, 1] < 1.1)).all()
    assert 0.4 < sizes[:, 0].mean() < 1.1
    riders = np.array([people.cyclist(rng).info["size"] for _ in range(40)])
    assert (np.abs(riders.mean(0) - [1.76, 0.62, 1.73]) < [0.2, 0.15, 0.2]).all()


@pytest.mark.parametrize(
    "make", [scenery.facade, scenery.tree, scenery.hedge, scenery.shrub, scenery.pole, scenery.clutter, scenery.fence]
)
def test_scenery_stands_on_the_ground(make):
    rng = np.random.default_rng(3)
    for _ in range(15):
        shape = make(rng)
        assert abs(shape.corners[0, 2]) < 0.45
        assert shape.corners[-1, 2] > 0.2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cars": (5, 2)}, "cars"),
        ({"people": (-1, 2)}, "people"),
        ({"height": (0.0, 2.0)}, "height"),
        ({"azimuth": 0.0}, "azimuth"),
        ({"azimuth": math.nan}, "azimuth"),
        ({"tilt": 50.0}, "tilt"),
        ({"rain": 2.0}, "rain"),
        ({"variety": 0}, "variety"),
    ],
)
def test_wrong_options(change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        FrameConfig(**change)


def test_unknown_sensor():
    with pytest.raises(MissingFileError, match="hdl64e"):
        frame(0, FrameConfig(sensor="hdl65e"))


def test_a_frame_without_objects():
    one = frame(0, FrameConfig(sensor="vlp16", cars=(0, 0), people=(0, 0), cyclists=(0, 0), variety=8))
    assert not set(one.names) & {"Pedestrian", "Cyclist"}
    assert one.boxes.shape[1] == 7


def test_mixed_sensors_keep_one_for_validation():
    beams = [int(frame(0, FrameConfig(sensor="mixed", variety=8, azimuth=60), k).beam.max()) + 1 for k in range(6)]
    assert len(set(beams)) > 1
    assert max(beams) <= 64
    assert int(frame(0, FrameConfig(sensor="mixed", split="val", variety=8, azimuth=60)).beam.max()) > 64


def test_objects_stand_before_the_facades():
    from vision3d.stages.detect.synth.library import library
    from vision3d.stages.detect.synth.populate import LABELLED, populate

    checked = 0
    for index in range(24):
        rng = np.random.default_rng(index)
        where = streets.street([*streets.LAYOUTS, *streets.VALIDATION_LAYOUTS][index % 6], rng)
        for one in populate(where, SMALL, library("train", 8), rng):
            if one.kind in LABELLED and not (one.kind == "Car" and where.side_road is not None):
                turned = one.yaw - where.heading
                length, width, _ = np.array(one.shape.info["size"]) * one.scale
                if abs(math.sin(turned)) < 0.2 and where.curvature * 70 < 0.1:
                    reach = abs(one.across) + width / 2
                else:
                    reach = abs(one.across) + min(length, width) / 2
                assert reach < where.room(1 if one.across > 0 else -1) + 0.3, (where.family, one.kind)
                checked += 1
    assert checked > 300
