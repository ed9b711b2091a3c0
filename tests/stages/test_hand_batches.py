"""Changed crops and their targets."""

import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import ConfigError
from vision3d.stages.hand.data.batches import AugmentConfig, targets_of, training_batch, turned
from vision3d.stages.hand.data.samples import HandBatch
from vision3d.stages.hand.synth.frames import FrameConfig, frames

NOTHING = AugmentConfig(rotation=0, zoom=0, shift=0, color=0, gray=0, hue=0, gamma=0, cover=0, mirror=0)
SIZE = 64


@pytest.fixture(scope="module")
def batch() -> HandBatch:
    made = frames(2, 0, 4, FrameConfig(size=SIZE))
    return HandBatch(made.images, made.Ks, made.uvs, made.visible, made.joints, made.vertices, made.is_hand)


def images_of(batch):
    return batch.images.permute(0, 3, 1, 2).float() / 255


def test_without_changes_images_and_truth_stay(batch):
    images, targets = training_batch(batch, NOTHING, torch.Generator().manual_seed(0))
    assert torch.allclose(images, images_of(batch), atol=2e-3)
    assert torch.allclose(targets.uv * SIZE, batch.uvs, atol=1e-3)
    assert torch.allclose(targets.joints, batch.joints - batch.joints[:, 9:10], atol=1e-6)
    assert targets.root is not None and torch.allclose(targets.root, batch.joints[:, 9])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_those_of_the_pixels(batch, quarters):
    """About the middle of the image, which is then the principal point."""
    Ks = batch.Ks.clone()
    Ks[:, :2, 2] = SIZE / 2
    angle = torch.full((4,), quarters * math.pi / 2)
    images, changed = turned(images_of(batch), batch._replace(Ks=Ks), angle, torch.ones(4), torch.zeros(4, 2))
    want = torch.rot90(images_of(batch), -quarters, (2, 3))  # from right to down
    assert torch.allclose(images, want, atol=1e-3)
    assert torch.allclose(torch.linalg.vector_norm(changed.joints, dim=-1), torch.linalg.vector_norm(batch.joints, dim=-1))


def test_the_truth_moves_with_the_pixels(batch):
    """Blobs at the projected joints are found at the joints of the result."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    inside = ((batch.uvs > 20) & (batch.uvs < SIZE - 20)).all(-1)
    found = 0
    for sample, joint in inside.nonzero()[:12].tolist():
        one = HandBatch(*(value[sample : sample + 1] for value in batch))
        u, v = one.uvs[0, joint]
        blob = torch.exp(-((x - u) ** 2 + (y - v) ** 2) / 18).expand(1, 3, SIZE, SIZE)
        images, changed = turned(blob, one, torch.tensor([0.7]), torch.tensor([1.2]), torch.tensor([[3.0, -2.0]]))
        u, v = changed.uvs[0, joint]
        if not 12 < float(u) < SIZE - 12 or not 12 < float(v) < SIZE - 12:
            continue
        weight = images[0, 0] * ((x - u) ** 2 + (y - v) ** 2 < 144)
        place = torch.stack([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert torch.allclose(place, torch.stack([u, v]), atol=0.3)
        found += 1
    assert found > 2


def test_projections_stay_exact(batch):
    _, targets = training_batch(batch, AugmentConfig(mirror=0), torch.Generator().manual_seed(1))
    assert targets.root is not None and targets.Ks is not None
    points = (targets.joints + targets.root[:, None]) @ targets.Ks.mT
    assert torch.allclose(points[..., :2] / points[..., 2:], targets.uv, atol=1e-4)
    assert torch.equal(targets.in_crop, ((targets.uv >= 0) & (targets.uv <= 1)).all(-1))
    joints = batch.joints - batch.joints[:, 9:10]
    assert torch.allclose(torch.cdist(targets.joints, targets.joints), torch.cdist(joints, joints), atol=1e-4)


def test_turned_hues_keep_grays_and_lightness(batch):
    changes = replace(NOTHING, hue=180)
    gray = batch._replace(images=batch.images.float().mean(-1, keepdim=True).round().byte().expand(-1, -1, -1, 3))
    images, _ = training_batch(gray, changes, torch.Generator().manual_seed(3))
    assert torch.allclose(images, images_of(gray), atol=2e-3)
    images, _ = training_batch(batch, replace(NOTHING, hue=20), torch.Generator().manual_seed(3))
    inside = ((images > 0.01) & (images < 0.99)).all(1)
    assert float((images - images_of(batch)).abs().amax()) > 0.02
    assert torch.allclose(images.sum(1)[inside], images_of(batch).sum(1)[inside], atol=5e-3)


def test_changes_depend_on_the_generator_and_stay_in_range(batch):
    first, second, third = (
        training_batch(batch, AugmentConfig(cover=1, gray=0.5), torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    is_gray = (first.amax(1) - first.amin(1)).flatten(1).median(1).values < 1e-5
    assert 0 < int(is_gray.sum()) <= 4


def test_targets_of_other_sizes(batch):
    targets = targets_of(batch, 2 * SIZE)
    assert torch.allclose(targets.uv, batch.uvs / (2 * SIZE))


def test_negative_changes_are_refused():
    with pytest.raises(ConfigError, match="zoom"):
        AugmentConfig(zoom=-1)


def test_mirrored_images_count_for_their_side_only(batch):
    images, targets = training_batch(batch, replace(NOTHING, mirror=1), torch.Generator().manual_seed(0))
    assert torch.allclose(images.flip(3), images_of(batch), atol=2e-3)
    assert targets.is_right is not None and not targets.is_right.any()
    assert not targets.in_crop.any() and targets.is_hand is not None and targets.is_hand.all()
