"""The anchor head: codec, matching, ignored objects, losses, boxes, and a training with it."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import ConfigError
from vision3d.geometry.rotated_boxes import box_iou
from vision3d.stages.detect.config import AnchorConfig, BevConfig, GridConfig, LossConfig, ModelConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.data.sweeps import IGNORED, LabelledSweep
from vision3d.stages.detect.data.targets import make_targets
from vision3d.stages.detect.network.anchors import (
    AnchorHead,
    AnchorOutputs,
    decode_boxes,
    directions_of,
    encode_boxes,
    is_across,
)
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.losses import class_focal

GRID = GridConfig(low=(0, -8, -3), high=(16, 8, 1), voxel=(0.4, 0.4, 0.5))
SHAPE = (40, 40)
BEV = BevConfig(channels=(16, 24), layers=(1, 1), up_channels=16)
MODEL = ModelConfig(method="pillars", grid=GRID, channels=16, bev=BEV, head="anchor")
SIZES = {0: (3.9, 1.6, 1.56), 1: (0.8, 0.6, 1.73), 2: (1.76, 0.6, 1.73)}


def head(config=None):
    return AnchorHead(4, GRID, config or AnchorConfig())


def sweep(*rows):
    """Objects (class, x, y, yaw) of the anchors' sizes on the ground, or with their own (l, w, h)."""
    boxes = [[x, y, -1.0, *(size[0] if size else SIZES[max(label, 0)]), yaw] for label, x, y, yaw, *size in rows]
    labels = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    return LabelledSweep(torch.zeros(0, 4), torch.tensor(boxes).reshape(-1, 7), labels)


def targets_of(*sweeps):
    return make_targets(list(sweeps), GRID, 3)


def assigned(*rows, config=None):
    targets = targets_of(sweep(*rows))
    return head(config).assign(targets.objects, targets.labels, targets.counted[0])


def perfect(targets, samples=1):
    """Outputs without a loss."""
    own = head()
    classes = torch.full((samples, 6, 3, *SHAPE), -9.0)
    boxes, direction = torch.zeros(samples, 6, 7, *SHAPE), torch.zeros(samples, 6, 2, *SHAPE)
    for sample in range(samples):
        here = targets.samples == sample
        objects, labels = targets.objects[here], targets.labels[here]
        owner, _ = own.assign(objects, labels, targets.counted[sample])
        anchor, x, y = (owner >= 0).nonzero(as_tuple=True)
        object_of = owner[anchor, x, y]
        classes[sample, anchor, labels[object_of], x, y] = 9.0
        boxes[sample, anchor, :, x, y] = encode_boxes(objects[object_of], own.anchors(anchor, x, y, SHAPE))
        direction[sample, anchor, directions_of(objects[object_of, 6]), x, y] = 9.0
    return AnchorOutputs(classes, boxes, direction)


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-3, 3), st.floats(0.3, 15), st.floats(-3.1, 3.1), st.integers(0, 5))
def test_boxes_are_decoded_to_themselves(x, y, z, length, yaw, anchor):
    box = torch.tensor([[x, y, z, length, 1.8, 1.5, yaw]], dtype=torch.float64)
    anchors = head().anchors(torch.tensor([anchor]), torch.tensor([20]), torch.tensor([7]), SHAPE).double()
    assert (decode_boxes(encode_boxes(box, anchors), anchors) - box).abs().max() < 1e-9


def test_anchors_have_the_place_size_and_height_of_their_class():
    anchors = head().anchors(torch.arange(6), torch.full((6,), 10), torch.full((6,), 30), SHAPE)
    assert torch.allclose(anchors[:, :2], torch.tensor([4.2, 4.2]).expand(6, 2), atol=1e-5)
    assert torch.allclose(anchors[0, 2:], torch.tensor([-1.78 + 0.78, 3.9, 1.6, 1.56, 0.0]))
    assert torch.allclose(anchors[5, 2:], torch.tensor([-0.6 + 0.865, 1.76, 0.6, 1.73, math.pi / 2]))


@pytest.mark.parametrize(("degrees", "across"), [(0, 0), (44, 0), (46, 1), (134, 1), (136, 0), (180, 0), (-90, 1), (-44, 0)])
def test_boxes_turn_to_the_nearest_axis(degrees, across):
    assert bool(is_across(torch.tensor(math.radians(degrees)))) == bool(across)


def test_an_object_on_an_anchor_is_matched_by_the_overlap():
    """A car on the anchor at (20, 20): shifted by s along its length the overlap is (3.9 - s) / (3.9 + s)."""
    owner, learned = assigned((0, 8.2, 0.2, 0.0))
    shift = 3.9 * (1 - 0.6) / (1 + 0.6)  # 0.975 m: 2 cells of 0.4 m
    across = 1.6 * (1 - 0.6) / (1 + 0.6)  # 0.4 m on the border: 0 cells, as rounded
    assert owner[0, 18:23, 20].tolist() == [0] * 5
    assert owner[0, 17, 20] == owner[0, 23, 20] == -1
    assert 2 * 0.4 < shift < 3 * 0.4
    assert abs(across - 0.4) < 1e-6
    assert (owner[1:] == -1).all()
    # Shifted by 3 cells the overlap is 0.53, by 4 cells 0.42.
    assert not learned[0, 17, 20] and not learned[0, 23, 20]
    assert learned[0, 16, 20] and learned[0, 24, 20]
    assert learned[2:].all()


@pytest.mark.parametrize("seed", range(3))
def test_random_objects_are_matched_as_by_the_overlaps_of_all_pairs(seed):
    """With the overlap of rotated boxes, of objects turned to the nearest axis."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(5):
        x, y, yaw, label = (torch.rand(4, generator=generator) * torch.tensor([12, 12, 6.2, 2.999])).tolist()
        rows.append((int(label), x + 2, y - 6, yaw - 3.1))
    targets, own = targets_of(sweep(*rows)), head()
    owner, learned = own.assign(targets.objects, targets.labels, targets.counted[0])
    anchor, x, y = (torch.ones_like(owner) > 0).nonzero(as_tuple=True)
    flat = targets.objects.clone()
    flat[:, 6] = (flat[:, 6] / (math.pi / 2)).round() * (math.pi / 2)
    overlaps = box_iou(flat.double(), own.anchors(anchor, x, y, SHAPE).double())
    overlaps[targets.labels[:, None] != anchor // 2] = 0
    best = overlaps.max(0)
    config = AnchorConfig()
    positive = best.values >= torch.tensor(config.positive)[anchor // 2] + 1e-5
    assert torch.equal(owner.flatten()[positive], best.indices[positive])
    # The others are the best of an object, or have too little overlap.
    forced = (owner.flatten() >= 0) & (best.values < torch.tensor(config.positive)[anchor // 2] - 1e-5)
    tops = overlaps.max(1).values
    for place in forced.nonzero()[:, 0].tolist():
        assert overlaps[owner.flatten()[place], place] > tops[owner.flatten()[place]] - 1e-5
    assert set(range(5)) == set(owner[owner >= 0].tolist())
    between = best.values >= torch.tensor(config.negative)[anchor // 2]
    assert torch.equal(learned.flatten(), (owner.flatten() >= 0) | ~between)


def test_turned_objects_match_the_anchors_across():
    owner, _ = assigned((0, 8.2, 0.2, math.radians(80)))
    assert (owner[0] == -1).all()
    assert owner[1, 20, 18:23].tolist() == [0] * 5
    assert (owner[2:] == -1).all()


def test_the_best_anchor_of_an_object_is_positive_whatever_its_overlap():
    owner, learned = assigned((0, 8.2, 0.2, 0.0, (12.0, 2.5, 3.0)))  # overlap 6.24 / 30 with the best
    assert (owner >= 0).sum() >= 1
    anchor, x, y = (owner >= 0).nonzero()[0].tolist()
    assert anchor == 0
    assert abs(x - 20) <= 11 and abs(y - 20) <= 2
    assert learned[anchor, x, y]
    assert int((owner >= 0).sum()) == 1


def test_an_object_between_all_anchors_has_none():
    targets = targets_of(sweep((1, 7.9, 0.1, 0.0)))
    owner, learned = head().assign(targets.objects, targets.labels, torch.ones(2, 2, dtype=torch.bool))  # cells of 8 m
    assert (owner == -1).all()
    assert learned.all()


def test_objects_share_anchors_by_their_overlap():
    owner, _ = assigned((1, 8.2, 0.2, 0.0), (1, 8.6, 0.2, 0.0))
    assert owner[2, 20, 20] == 0
    assert owner[2, 21, 20] == 1
    same, _ = assigned((1, 8.2, 0.2, 0.0), (1, 8.25, 0.2, 0.0))
    assert same[2, 20, 20] == 0


def test_classes_match_their_own_anchors():
    owner, _ = assigned((2, 8.2, 0.2, 0.0))
    assert (owner[:4] == -1).all()
    assert owner[4, 20, 20] == 0


def test_ignored_objects_are_neither_positive_nor_negative():
    owner, learned = assigned((IGNORED, 8.2, 0.2, 0.0))
    assert (owner == -1).all()
    assert not learned[:, 20, 20].any()
    assert learned[:, 5, 5].all()
    own, targets = head(), targets_of(sweep((IGNORED, 8.2, 0.2, 0.0)))
    outputs = perfect(targets)
    quiet = float(own.parts(outputs, targets)["heat"])
    outputs.classes[0, :, :, ~targets.counted[0]] = 4.0
    assert float(own.parts(outputs, targets)["heat"]) == pytest.approx(quiet, abs=1e-6)
    outputs.classes[0, 0, 0, 5, 5] = 4.0
    assert float(own.parts(outputs, targets)["heat"]) > quiet + 2


def test_an_object_within_an_ignored_one_is_learned():
    owner, learned = assigned((IGNORED, 8.2, 0.2, 0.0), (1, 8.2, 0.2, 0.0))
    assert owner[2, 20, 20] == 0
    assert learned[2, 20, 20] and not learned[:, 22, 20].any()


def test_a_perfect_prediction_has_no_loss_and_is_decoded_to_the_boxes():
    rows = [(0, 5.1, -3.3, 2.5, (4.3, 1.7, 1.6)), (1, 10.0, 4.0, -1.0), (2, 13.1, -5.2, 0.9), (0, 10.5, 0.0, -math.pi / 2)]
    two = sweep(*rows[:3]), sweep(rows[3])
    targets = targets_of(*two)
    outputs, own = perfect(targets, 2), head()
    loss, parts = own.loss(outputs, targets, LossConfig())
    assert 0 <= float(loss) < 0.01
    assert set(parts) == {"loss_heat", "loss_box", "loss_direction"}
    for found, want in zip(own.decode(outputs, lowest=0.5), two):
        order = found.boxes[:, 0].argsort()
        rows = want.boxes[:, 0].argsort()
        assert torch.equal(found.labels[order], want.labels[rows])
        assert (found.boxes[order] - want.boxes[rows]).abs().max() < 1e-4


def test_wrong_predictions_cost_what_they_should():
    """One positive anchor off by known errors."""
    targets = targets_of(sweep((1, 8.2, 0.2, 0.0)))
    own = head()
    outputs = perfect(targets)
    count = int((own.assign(targets.objects, targets.labels, targets.counted[0])[0] >= 0).sum())
    right = {name: float(value) for name, value in own.parts(outputs, targets).items()}
    outputs.boxes[0, 2, 0, 20, 20] += 0.5
    assert float(own.parts(outputs, targets)["box"]) == pytest.approx((0.5 - 1 / 18) / count, rel=1e-4)
    outputs.boxes[0, 2, 0, 20, 20] -= 0.5
    outputs.boxes[0, 2, 6, 20, 20] += math.pi
    assert float(own.parts(outputs, targets)["box"]) == pytest.approx(right["box"], abs=1e-5)
    outputs.direction[0, 2, :, 20, 20] = 0.0
    assert float(own.parts(outputs, targets)["direction"]) == pytest.approx(math.log(2) / count, rel=1e-3)


def test_focal_loss_of_classes():
    logits = torch.tensor([0.0, 0.0, 8.0])
    found = class_focal(logits, torch.tensor([1.0, 0.0, 1.0]))
    assert found[0] == pytest.approx(0.25 * 0.25 * math.log(2))
    assert found[1] == pytest.approx(0.75 * 0.25 * math.log(2))
    assert found[2] < 1e-7


def test_of_overlapping_boxes_the_best_remains():
    outputs = perfect(targets_of(sweep()))
    for x, logit in ((20, 1.0), (21, 2.0), (22, 0.5), (31, 0.0)):
        outputs.classes[0, 0, 0, x, 20] = logit
    outputs.classes[0, 2, 1, 21, 20] = 1.5  # a pedestrian in the car
    found = head().decode(outputs, lowest=0.3)[0]
    assert found.labels.tolist() == [0, 0]
    assert torch.allclose(found.boxes[:, 0], torch.tensor([8.6, 12.6]))
    assert torch.allclose(found.scores, torch.tensor([2.0, 0.0]).sigmoid())
    assert len(head().decode(outputs, lowest=0.3, count=1)[0].boxes) == 1


@pytest.mark.parametrize("objects", [False, True])
def test_losses_and_gradients_are_finite(objects):
    network = make_network(MODEL)
    points = torch.rand(200, 4) * torch.tensor([16, 16, 4, 1]) + torch.tensor([0, -8, -3, 0])
    one = sweep((0, 8.2, 0.2, 0.3), (1, 3.0, 3.0, 1.0), (IGNORED, 12.0, 0.0, 0.0)) if objects else sweep()
    targets = make_targets([one, sweep()], GRID, 3, MODEL.cells)
    loss, parts = network.head.loss(network(PointBatch.of([points, torch.zeros(0, 4)])), targets, LossConfig())
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert (parts["loss_box"] > 0) == objects
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in network.encoder.parameters())


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="got 3 for 2 classes, want one a class"):
        replace(MODEL, classes=("Car", "Van"))
    with pytest.raises(ConfigError, match="got 3 sizes, 2 bottoms"):
        AnchorConfig(bottoms=(-1.0, 0.0))
    with pytest.raises(ConfigError, match=r"got 0\.4 with negative 0\.45"):
        AnchorConfig(positive=(0.4, 0.5, 0.5))
    with pytest.raises(ConfigError, match="want positive numbers"):
        AnchorConfig(sizes=((3.9, 1.6, 0.0), (1, 1, 1), (1, 1, 1)))
    with pytest.raises(ConfigError, match="want finite numbers"):
        AnchorConfig(bottoms=(math.nan, 0.0, 0.0))
