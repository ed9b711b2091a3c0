"""Targets and head of the detector: codec of the boxes, heat maps, ignored objects, crops and augmentations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from vision3d.core.errors import InputError
from vision3d.stages.detect.config import AugmentConfig, GridConfig, LossConfig, ModelConfig
from vision3d.stages.detect.data.augment import augmented, cropped
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.data.sweeps import IGNORED, LabelledSweep, inside, labels_of, turned
from vision3d.stages.detect.data.targets import gaussian_radius, make_targets
from vision3d.stages.detect.network.centers import CenterHead, CenterOutputs, boxes_at, encoded, unit_vectors
from vision3d.stages.detect.network.detector import make_network
from vision3d.training.heat import heat_focal

GRID = GridConfig()
SMALL = GridConfig(low=(0, -4, -3), high=(8, 4, 1), voxel=(0.5, 0.5, 0.5))


def car(x=10.0, y=2.0, yaw=0.3, label=0, points=None):
    points = torch.zeros(0, 4) if points is None else points
    return LabelledSweep(points, torch.tensor([[x, y, -1.0, 4.0, 1.8, 1.5, yaw]]), torch.tensor([label]))


@given(st.floats(0.5, 50), st.floats(-25, 25), st.floats(-math.pi, math.pi), st.floats(0.3, 15))
def test_the_head_decodes_what_it_should_have_predicted(x, y, yaw, length):
    box = torch.tensor([[x, y, -1.0, length, 1.8, 1.5, yaw]], dtype=torch.float64)
    at = [torch.tensor([int((box[0, i] - GRID.low[i]) / 0.32)]) for i in range(2)]
    values = encoded(box, *at, GRID, GRID.shape[:2])
    # A vector up to nearly 90 degrees off tells front from back.
    for error in (-1.5, 0, 0.7, 1.5):
        found = boxes_at(values, 0.1 * unit_vectors(box[:, 6] + error), *at, GRID, GRID.shape[:2])
        turn = math.remainder(float(found[0, 6] - box[0, 6]), 2 * math.pi)
        assert (found[:, :6] - box[:, :6]).abs().max() < 1e-9 and abs(turn) < 1e-9


@given(st.floats(-math.pi, math.pi), st.floats(-3, 3), st.floats(-3, 3))
def test_the_loss_of_the_direction_is_the_same_at_every_yaw(yaw, forward, left):
    def loss(yaw):
        targets = make_targets([car(yaw=yaw)], GRID, 3, GRID.shape[:2])
        axis = unit_vectors(torch.tensor([yaw, yaw + math.pi / 2]))
        vector = (torch.tensor([forward, left]) @ axis)[None, :, None, None].expand(1, 2, *GRID.shape[:2])
        image = torch.zeros(1, 1, *GRID.shape[:2])
        outputs = CenterOutputs(image.expand(-1, 3, -1, -1), image.expand(-1, 8, -1, -1), vector, image)
        return float(CenterHead(1, 1, 3, GRID).parts(outputs, targets)["direction"])

    assert loss(yaw) == pytest.approx(math.log1p(math.exp(-forward)), abs=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_perfect_prediction_is_decoded_to_the_box(stride):
    sweep = car(yaw=2.5)
    width, height = GRID.shape[0] // stride, GRID.shape[1] // stride
    targets = make_targets([sweep], GRID, 3, (width, height))
    values, direction = torch.zeros(1, 8, width, height), torch.zeros(1, 2, width, height)
    sample, x, y = targets.at.unbind(1)
    values[sample, :, x, y] = encoded(targets.boxes, x, y, GRID, (width, height))
    direction[sample, :, x, y] = unit_vectors(targets.boxes[:, 6])
    heat = torch.logit(targets.heat.clamp(1e-4, 1 - 1e-4))
    peaks = CenterHead(1, 1, 3, GRID).decode(
        CenterOutputs(heat, values, direction, torch.ones(1, 1, width, height)), lowest=0.5
    )[0]
    assert peaks.labels.tolist() == [0]
    assert (peaks.boxes - sweep.boxes).abs().max() < 1e-4


def test_the_radius_leaves_the_overlap():
    length, width = torch.tensor([12.0, 2.0, 6.0]), torch.tensor([5.0, 2.0, 6.0])
    radius = gaussian_radius(length, width, 0.3)
    common = (length - radius) * (width - radius)
    assert torch.allclose(common / (2 * length * width - common), torch.full((3,), 0.3), atol=1e-5)


def test_heat_is_one_at_centers_and_only_there():
    targets = make_targets([car(), car(20, -3)], GRID, 3)
    assert (targets.heat == 1).sum() == 2
    assert targets.heat[0, 0, int(10 / 0.32), int(27.6 / 0.32)] == 1
    assert targets.heat[:, 1:].max() == 0
    assert targets.counted.all()
    assert len(targets.at) == 18


def test_ignored_objects_are_neither_positive_nor_negative():
    targets = make_targets([car(label=IGNORED)], GRID, 3)
    assert targets.heat.max() == 0
    assert len(targets.at) == 0
    hidden = ~targets.counted[0]
    assert 40 < int(hidden.sum()) < 160  # 5 m x 2.8 m of cells of 0.32 m: 137
    logits = torch.full((1, 3, *GRID.shape[:2]), -8.0)
    quiet = float(heat_focal(logits, targets.heat, targets.counted))
    logits[:, :, hidden] = 3.0
    assert float(heat_focal(logits, targets.heat, targets.counted)) == pytest.approx(quiet, abs=1e-3)
    logits[:, :, 0, 0] = 3.0
    assert float(heat_focal(logits, targets.heat, targets.counted)) > quiet + 1


def test_focal_loss_is_minimal_at_the_targets():
    targets = make_targets([car()], GRID, 3)
    right = torch.full((1, 3, *GRID.shape[:2]), -9.0)
    right[targets.heat == 1] = 9.0
    wrong = right.clone()
    wrong[targets.heat == 1] = -9.0
    assert float(heat_focal(right, targets.heat, targets.counted)) < 1e-3
    assert float(heat_focal(wrong, targets.heat, targets.counted)) > 8


def test_a_batch_without_objects_has_a_finite_loss_and_gradient():
    network = make_network(ModelConfig(grid=SMALL, channels=8, head_channels=8))
    empty = LabelledSweep(torch.rand(50, 4), torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
    targets = make_targets([empty, empty], SMALL, 3)
    outputs = network(PointBatch.of([empty.points, torch.zeros(0, 4)]))
    loss, parts = network.head.loss(outputs, targets, LossConfig())
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert parts["loss_box"] == 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.parametrize("points", [0, 1])
def test_sweeps_of_no_or_one_point_are_evaluated(points):
    network = make_network(ModelConfig(grid=SMALL, channels=8, head_channels=8)).eval()
    outputs = network(PointBatch.of([torch.full((points, 4), 0.5)]))
    assert outputs.heat.shape == (1, 3, 16, 16)
    assert bool(outputs.heat.isfinite().all())


def test_the_order_of_the_points_does_not_matter():
    network = make_network(ModelConfig(grid=SMALL, channels=8, head_channels=8)).eval()
    points = torch.rand(300, 4) * torch.tensor([8, 8, 4, 1]) + torch.tensor([0, -4, -3, 0])
    a = network(PointBatch.of([points])).boxes
    b = network(PointBatch.of([points[torch.randperm(300)]])).boxes
    assert torch.allclose(a, b, atol=1e-4)


def test_points_stay_in_their_boxes_under_every_augmentation():
    rng = np.random.default_rng(1)
    sweep = car()
    local = torch.from_numpy(rng.uniform(-0.5, 0.5, (400, 3))).float() * torch.tensor([4.0, 1.8, 1.5])
    cosine, sine = math.cos(0.3), math.sin(0.3)
    rotation = torch.tensor([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    points = torch.cat([local @ rotation + sweep.boxes[0, :3], torch.rand(400, 1)], 1)
    sweep = LabelledSweep(points, sweep.boxes, sweep.labels)
    for seed in range(40):
        changed = augmented(sweep, AugmentConfig(thin=0.5), np.random.default_rng(seed))
        # The tilt moves the corners of an upright box by up to 2 cm.
        assert inside(changed.points[:, :3], changed.boxes, 0.03).all()
        assert changed.points.data_ptr() != sweep.points.data_ptr()
    assert torch.equal(sweep.points, points)


def test_crops_keep_what_the_network_sees():
    points = torch.tensor([[10.0, 2, -1, 0.1]]).repeat(6, 1)
    sweep = car(points=points)
    assert cropped(sweep, GRID, 5).labels.tolist() == [0]
    assert cropped(sweep, GRID, 7).labels.tolist() == [IGNORED]
    assert len(cropped(turned(sweep, math.pi), GRID, 5).boxes) == 0


def test_labels_of_kitti():
    assert labels_of(["Car", "Van", "Truck", "Cyclist"], ("Car", "Cyclist")).tolist() == [0, 0, IGNORED, 1]
    assert labels_of(["Van", "Robot"], ("Van", "Robot")).tolist() == [0, 1]
    with pytest.raises(InputError, match=r"a.txt: unknown class 'Caar'; did you mean Car\? \(--model.classes: Car\)"):
        labels_of(["Caar"], ("Car",), "a.txt")
