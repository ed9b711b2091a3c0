"""The finder of hands: scenes, targets, predictions, training and file."""

import dataclasses
import math

import pytest
import torch

from tests.support.hand_models import random_model
from tests.support.stopped import stop_once
from vision3d.core.errors import ConfigError, FileFormatError, InputError, ShapeError
from vision3d.core.runs import RunFolder
from vision3d.stages.hand.crop import square_crop
from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.detections import Detections, square_of
from vision3d.stages.hand.finder.batches import training_batch
from vision3d.stages.hand.finder.config import FinderConfig, FinderTrainConfig, SceneConfig
from vision3d.stages.hand.finder.evaluate import matched
from vision3d.stages.hand.finder.model import HandFinder, letterboxed, load_finder
from vision3d.stages.hand.finder.network import CELL, FinderNet, FinderOutputs
from vision3d.stages.hand.finder.scenes import SceneBatch, SceneSource, scenes
from vision3d.stages.hand.finder.targets import found, losses, targets_of
from vision3d.stages.hand.finder.train import train_finder
from vision3d.stages.hand.network.files import save_hand_model
from vision3d.stages.hand.synth.backgrounds import Backgrounds
from vision3d.training.weights import Card

SIZE = 96
CONFIG = FinderTrainConfig(
    network=FinderConfig(SIZE, 16), scenes=SceneConfig(SIZE), images=16, steps=4, batch_size=8, evaluate_images=16, workers=0,
    log_every=1, checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path_factory.getbasetemp() / "scenes"))


@pytest.fixture(scope="module")
def made() -> SceneBatch:
    config = SceneConfig(SIZE, first=1, second=0.7)
    return scenes(config, torch.Generator().manual_seed(4), Backgrounds(), count=16)


def outputs_of(targets, confident: float = 9.0) -> FinderOutputs:
    """What a perfect network predicts."""
    count, _, rows, columns = targets.heat.shape
    image, row, column = targets.at
    values = {name: torch.zeros(count, n, rows, columns) for name, n in (("offset", 2), ("size", 1), ("turn", 2), ("side", 1))}
    values["offset"][image, :, row, column] = targets.offset
    values["size"][image, 0, row, column] = targets.size
    values["turn"][image, :, row, column] = torch.stack([targets.angles.cos(), targets.angles.sin()], 1)
    values["side"][image, 0, row, column] = torch.where(targets.is_right, confident, -confident)
    heat = torch.where(targets.heat == 1, confident, -confident)
    return FinderOutputs(heat, values["offset"], values["size"], values["turn"], values["side"])


def test_scenes_depend_on_the_generator_only(made):
    config = SceneConfig(SIZE, first=1, second=0.7)
    again = scenes(config, torch.Generator().manual_seed(4), Backgrounds(), count=16)
    assert all(torch.equal(a, b) for a, b in zip(made, again))
    assert set(made.state.unique().tolist()) <= {0, 1, 2} and int((made.state == 1).sum()) > 8
    assert 0 < int(made.is_right[made.state == 1].sum()) < int((made.state == 1).sum())


def test_without_hands_no_scene_has_one():
    empty = scenes(SceneConfig(SIZE, first=0, second=0), torch.Generator().manual_seed(1), Backgrounds(), count=4)
    assert not empty.state.any()


def test_a_crop_by_the_square_points_up_with_all_joints_inside(made):
    uvs = made.uvs[made.state == 1].double()
    square = square_of(uvs)
    K = torch.tensor([[90.0, 0, 48], [0, 90, 48], [0, 0, 1]], dtype=torch.float64).expand(len(uvs), 3, 3)
    crop = square_crop(square.centers, 1.5 * square.sides, K, 100, square.angles)
    inside = crop.to_crop(uvs)
    fingers = inside[:, 9] - inside[:, 0]
    assert torch.allclose(fingers[:, 0], torch.zeros(len(uvs)).double(), atol=1e-9) and bool((fingers[:, 1] < 0).all())
    assert bool(((inside > -5) & (inside < 105)).all())


def test_perfect_predictions_give_the_truth_back_without_loss(made):
    targets = targets_of(made.uvs, made.is_right, made.state, SIZE)
    outputs = outputs_of(targets)
    parts = losses(outputs, targets)
    assert all(float(parts[name]) < 1e-3 for name in parts), parts
    square = square_of(made.uvs)
    total = 0
    for image, hands in enumerate(found(outputs)):
        pairs, wrong = matched(hands, dataclasses.replace(square, **{k: v[image] for k, v in vars(square).items()}),
                               made.state[image] == 1, made.state[image] == 2)  # fmt: skip
        assert wrong == 0
        total += len(pairs)
        for row, hand in pairs:
            assert torch.allclose(hands.centers[row], square.centers[image, hand], atol=1e-3)
            assert float(hands.sides[row]) == pytest.approx(max(0.2 * CELL, float(square.sides[image, hand])), rel=1e-4)
            assert abs(math.remainder(float(hands.angles[row] - square.angles[image, hand]), math.tau)) < 1e-4
            assert bool(hands.is_right[row]) == bool(made.is_right[image, hand])
            assert hands.right is not None and bool(hands.right[row] > 0.9) == bool(made.is_right[image, hand])
    centers = square.centers[made.state == 1]
    assert total >= int(((centers >= 0) & (centers < SIZE)).all(-1).sum()) - 2  # a pair of hands may be one to the finder


def test_cells_of_hands_that_do_not_count_have_no_loss(made):
    targets = targets_of(made.uvs[:1], made.is_right[:1], torch.tensor([[2, 0]]), SIZE)
    outputs = outputs_of(targets)
    middle = (square_of(made.uvs[0, 0]).centers / CELL).long().clamp(0, SIZE // CELL - 1)
    quiet = losses(outputs, targets)["heat"]
    outputs.heat[0, 0, middle[1], middle[0]] = 9
    assert torch.equal(losses(outputs, targets)["heat"], quiet)
    counting = targets_of(made.uvs[:1], made.is_right[:1], torch.tensor([[0, 0]]), SIZE)
    assert float(losses(outputs, counting)["heat"]) > float(quiet) + 1


def test_changed_images_keep_their_hands_at_the_truth(made):
    """Blobs at the centers are found at the centers of the targets."""
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    centers = square_of(made.uvs).centers[:, 0]
    inside = ((centers > 12) & (centers < SIZE - 12)).all(1)
    blobs = torch.exp(-((x - centers[:, 0, None, None]) ** 2 + (y - centers[:, 1, None, None]) ** 2) / 18)
    batch = made._replace(
        images=(255 * blobs[..., None].expand(-1, -1, -1, 3)).byte(),
        uvs=centers[:, None, None].expand(-1, 2, 21, 2),  # in one place: the middle of a box does not turn with it
        state=torch.stack([inside, torch.zeros_like(inside)], 1).byte(),
    )
    images, targets = training_batch(batch, torch.Generator().manual_seed(0))
    seen = 0
    for number, (image, row, column) in enumerate(zip(*targets.at)):
        u, v = (targets.offset[number] + torch.stack([column, row]) + 0.5) * CELL
        weight = images[image, 0] - images[image, 0].median()
        weight = torch.where((x - u) ** 2 + (y - v) ** 2 < 200, weight, 0)
        if not 15 < float(u) < SIZE - 15 or not 15 < float(v) < SIZE - 15:
            continue
        place = torch.stack([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        assert torch.allclose(place, torch.stack([u, v]), atol=0.8)
        seen += 1
    assert seen > 3


def test_a_mirror_changes_the_side(made):
    sides = set()
    for seed in range(6):
        _, targets = training_batch(made._replace(is_right=torch.ones(16, 2).bool()), torch.Generator().manual_seed(seed))
        sides |= set(targets.is_right.tolist())
    assert sides == {True, False}


@pytest.mark.parametrize("shape", [(480, 640), (64, 31), (1, 1), (5, 900)])
def test_the_reduced_image_is_in_the_corner_of_a_square(shape):
    image = torch.full((*shape, 3), 255, dtype=torch.uint8)
    reduced, scale = letterboxed(image, 64)
    assert reduced.shape == (3, 64, 64)
    rows, columns = (max(1, round(side * scale)) for side in shape)
    assert bool((reduced[:, :rows, :columns] > 0.99).all())
    assert float(reduced.sum()) == pytest.approx(3 * rows * columns, rel=1e-2)


def test_found_hands_are_in_pixels_of_the_image():
    network = FinderNet(FinderConfig(64, 16)).eval()
    finder = HandFinder(
        network, network.config, Card.of_now("hand_finder", config={}, data="none", seed=0, cpu_hours=0.0), lowest=0.0
    )
    image = torch.randint(256, (30, 200, 3), generator=torch.Generator().manual_seed(0)).byte()
    hands = finder.find(image)
    assert len(hands) > 0
    assert bool((hands.scores[1:] <= hands.scores[:-1]).all())
    assert float(hands.centers.amax()) <= 210 and float(hands.centers[:, 1].amin()) >= -10
    with pytest.raises(ShapeError, match="image"):
        finder.find(image[..., :2])


def test_a_found_hand_is_measured_again_in_a_crop_around_it(monkeypatch):
    card = Card.of_now("hand_finder", config={}, data="none", seed=0, cpu_hours=0.0)
    model = HandFinder(FinderNet(CONFIG.network).eval(), CONFIG.network, card)
    cells, scores = SIZE // CELL, iter((0.9, 0.4))

    def network(images):
        """The bright square, 1.4 times as large in the reduced image, where it is also 3 pixels off."""
        rows, columns = (images[0, 0] > 0.5).nonzero(as_tuple=True)
        score, is_first = next(scores), images[0, 0, -1, -1] == 0 and columns.float().std() < 6
        center = torch.stack([columns.float().mean(), rows.float().mean()]) + 0.5 + 3 * is_first
        at = (center / CELL).long()
        heat = torch.full((1, 1, cells, cells), -9.0)
        heat[0, 0, at[1], at[0]] = math.log(score / (1 - score))
        offset = (center / CELL - at - 0.5)[None, :, None, None].expand(1, 2, cells, cells)
        side = float(columns.max() - columns.min() + 1) / CELL * (1.4 if is_first else 1.0)
        fill = torch.zeros(1, 1, cells, cells)
        return FinderOutputs(heat, offset, fill + math.log(side), fill.expand(1, 2, -1, -1), fill)

    monkeypatch.setattr(model, "network", network)
    network.parameters = lambda: iter([torch.zeros(1)])
    image = torch.zeros(200, 400, 3, dtype=torch.uint8)
    image[60:110, 210:260] = 255
    found = model.find(image)
    assert found.scores.tolist() == pytest.approx([0.6])
    assert found.centers[0].tolist() == pytest.approx([235, 85], abs=1.5) and float(found.sides) == pytest.approx(50, abs=3)


def test_a_hand_in_a_box_is_turned_as_in_the_middle_of_its_crop(monkeypatch):
    card = Card.of_now("hand_finder", config={}, data="none", seed=0, cpu_hours=0.0)
    model = HandFinder(FinderNet(CONFIG.network).eval(), CONFIG.network, card)
    cells = SIZE // CELL
    heat, turn = torch.full((2, 1, cells, cells), -4.0), torch.zeros(2, 2, cells, cells)
    for number, angle in enumerate((0.5, -2.0)):
        heat[number, 0, 5 + number, 6] = 1.0
        turn[number, :, 5 + number, 6] = torch.tensor([math.cos(angle), math.sin(angle)])
        heat[number, 0, 0, 0] = 3.0  # another hand, likelier, in the corner
    crops = []

    def network(images):
        crops.append(images)
        zero = torch.zeros(2, 1, cells, cells)
        return FinderOutputs(heat, zero.expand(2, 2, -1, -1), zero, turn, zero)

    monkeypatch.setattr(model, "network", network)
    network.parameters = lambda: iter([torch.zeros(1)])
    image = torch.zeros(100, 200, 3, dtype=torch.uint8)
    image[40:60, 100:120] = 255
    boxes = Detections(
        torch.tensor([[110.0, 50.0], [30.0, 50.0]]), torch.tensor([20.0, 20.0]), torch.zeros(2), *[torch.ones(2)] * 2
    )
    assert torch.allclose(model.turns(image, boxes), torch.tensor([0.5, -2.0]))
    assert float(crops[0][0].mean()) == pytest.approx(3 / 1.8**2 / 3, abs=0.02) and float(crops[0][1].max()) == 0


def test_the_network_refuses_other_sizes():
    with pytest.raises(ShapeError, match="images"):
        FinderNet(FinderConfig(64, 16))(torch.zeros(1, 3, 60, 64))
    with pytest.raises(ConfigError, match="size"):
        FinderConfig(100)
    with pytest.raises(InputError, match="count"):
        ImageSamples(SceneSource(), 17)


def test_a_training_writes_a_finder_with_the_figures_of_its_file(tmp_path):
    result = train_finder(CONFIG, run_folder=tmp_path / "run")
    loaded = load_finder(tmp_path / "run" / "hand_finder.safetensors")
    images = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        want, got = result.model.network(images), loaded.network(images)
    assert torch.allclose(want.heat, got.heat, atol=1e-4) and torch.allclose(want.turn, got.turn, atol=1e-4)
    assert loaded.card.figures["found"] == result.summary["found"]
    with pytest.raises(FileFormatError):
        load_finder(tmp_path / "run" / "config.yaml")


def test_a_resumed_training_is_bitwise_equal(tmp_path, monkeypatch):
    whole = train_finder(CONFIG, run_folder=tmp_path / "whole")

    stop_once(monkeypatch, tmp_path / "stopped")
    with pytest.raises(MemoryError):
        train_finder(CONFIG, run_folder=tmp_path / "parts")
    resumed = train_finder(CONFIG, run_folder=RunFolder.create(tmp_path / "parts", CONFIG, resume=True))
    for name, value in whole.model.network.state_dict().items():
        assert torch.equal(value, resumed.model.network.state_dict()[name]), name


def test_the_backbone_of_a_hand_network_is_a_beginning(tmp_path):
    model = random_model()
    save_hand_model(tmp_path / "hand.safetensors", model)
    config = dataclasses.replace(
        CONFIG, backbone=str(tmp_path / "hand.safetensors"), steps=1, lr=1e-9, ema=0.0, evaluate_images=0
    )
    found = dict(train_finder(config).model.network.backbone.named_parameters())
    assert all(torch.allclose(found[name], value, atol=1e-3) for name, value in model.network.backbone.named_parameters())
    with pytest.raises(ConfigError, match="backbone"):
        dataclasses.replace(config, init="hand_finder")
