"""Training, resuming, evaluation, and their files."""

import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file

from tests.support.digits import drawn_digits, write_idx
from tests.support.stopping import lines, stop_after
from vision3d.core.config import load_yaml, presets, to_dict
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError, NumericalError, ShapeError
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.stages.equivariant import AffnistConfig, ModelConfig, load_classifier, make_network, reproduce_affnist
from vision3d.stages.equivariant.classifier import Classifier, save_classifier
from vision3d.stages.equivariant.networks import PlanarNet, RotationNet
from vision3d.training import loop as training_loop
from vision3d.training.weights import Card

pytest.importorskip("kornia")
SMALL = AffnistConfig(
    model=ModelConfig(method="rotation", channels=2), epochs=2, batch_size=16, test_digits=20, copies=2, log_every=1,
    checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_idx(tmp_path_factory.mktemp("digits"), drawn_digits(84))


def small(method, **options):
    model = ModelConfig(method=method, channels=2, samples=2, **options)
    return dataclasses.replace(SMALL, model=model)


@pytest.mark.parametrize("method", ["plain", "canonical", "rotation", "full", "separable"])
def test_every_method_runs_and_writes_its_files(tmp_path, digits, method):
    result = reproduce_affnist(dataclasses.replace(small(method), epochs=1), digits, run_folder=tmp_path / "run")
    summary = result.summary
    assert summary["test_images"] == 40 and summary["steps"] == 4 and summary["training_digits"] == 64
    assert summary["generated"] and "generated affNIST-like" in summary["test_set"]
    assert "not affNIST results" in summary["note"]
    assert ("all_angles_accuracy_warped" in summary) == (method == "rotation")
    assert math.isfinite(summary["logit_change"]) and summary["logit_change"] >= 0
    assert ("lift_error_8_samples" in summary) == ("draw_spread" in summary) == (method in ("full", "separable"))
    assert int(result.evaluation.confusion.sum()) == 40
    for name in ("classifier.safetensors", "figures/features.png", "figures/confusion.png", "metrics.jsonl"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    again = load_classifier(tmp_path / "run" / "classifier.safetensors")
    images = torch.rand(3, 40, 40)
    if method in ("full", "separable"):
        for classifier in (again, result.classifier):
            classifier.network.seed_samples(0)
    torch.testing.assert_close(again.logits(images), result.classifier.logits(images))
    assert again.config == result.classifier.config and "not warped" in again.card.data


@pytest.mark.slow
def test_training_learns_and_canonical_position_generalizes(tmp_path):
    folder = write_idx(tmp_path, drawn_digits(520))
    config = dataclasses.replace(SMALL, model=ModelConfig(channels=4), epochs=6, batch_size=32, test_digits=200)
    summary = reproduce_affnist(config, folder).summary
    assert summary["accuracy_centred"] > 95
    assert summary["accuracy_warped"] > 85


@pytest.mark.parametrize("method", ["rotation", "separable"])
def test_resumed_run_gives_the_same_numbers(tmp_path, digits, method, monkeypatch):
    config = small(method)
    whole = reproduce_affnist(config, digits, run_folder=tmp_path / "whole")

    stop_after(5, monkeypatch, training_loop)
    with pytest.raises(Interrupted, match="stopped after step 5"):
        reproduce_affnist(config, digits, run_folder=tmp_path / "parts")
    monkeypatch.undo()
    torch.rand(100)  # the state of the generator must come from the checkpoint
    folder = RunFolder.create(tmp_path / "parts", config, resume=True)
    parts = reproduce_affnist(config, digits, run_folder=folder)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")
    for a, b in zip(parts.classifier.network.state_dict().values(), whole.classifier.network.state_dict().values()):
        assert torch.equal(a, b)
    assert parts.evaluation.warped == whole.evaluation.warped


def test_a_run_is_not_resumed_on_other_digits(tmp_path, digits):
    reproduce_affnist(dataclasses.replace(SMALL, epochs=1), digits, run_folder=tmp_path / "run")
    other = write_idx(tmp_path / "other", drawn_digits(84, seed=1))
    folder = RunFolder.create(tmp_path / "run", dataclasses.replace(SMALL, epochs=1), resume=True)
    with pytest.raises(ConfigError, match=r"DATA: cannot resume .*, which is a run on .*, with "):
        reproduce_affnist(dataclasses.replace(SMALL, epochs=1), other, run_folder=folder)


def test_a_loss_that_is_not_finite(digits, monkeypatch):
    def wild(self, images):
        return torch.full((len(images), 10), float("nan"), requires_grad=True)

    monkeypatch.setattr(RotationNet, "forward", wild)
    with pytest.raises(NumericalError, match=r"step 0: loss is not finite\. give a smaller --lr"):
        reproduce_affnist(SMALL, digits)


# ---------------------------------------------------------------- classifiers


def test_the_bundled_classifier():
    classifier = load_classifier()
    assert classifier.is_rotational and classifier.config.window_deg == 60
    digits = drawn_digits(100)
    right = (classifier.predict(digits.images) == digits.labels).float().mean()
    assert float(right) > 0.8, "drawn digits differ from its training set"
    assert classifier.predict(torch.zeros(0, 28, 28)).shape == (0,)


def test_a_wider_window_is_invariant_to_rotations_by_180_degrees():
    classifier = load_classifier()
    whole = classifier.with_window(180)
    images = torch.nn.functional.pad(drawn_digits(20).images, (6, 6, 6, 6))
    turned = torch.rot90(images, 2, (-2, -1))
    torch.testing.assert_close(whole.logits(turned), whole.logits(images), atol=1e-3, rtol=0)
    assert float((classifier.logits(turned) - classifier.logits(images)).abs().max()) > 1
    assert classifier.config.window_deg == 60


def test_rotation_network_is_equivariant_to_its_steps():
    torch.manual_seed(0)
    network = RotationNet(4).eval()
    images = torch.nn.functional.pad(drawn_digits(4).images, (6, 6, 6, 6))
    with torch.no_grad():
        plain, turned = network.orbit_logits(images), network.orbit_logits(torch.rot90(images, -1, (-2, -1)))
    torch.testing.assert_close(turned, plain.roll(8, -1), atol=1e-5, rtol=0)


def test_averaging_draws_reduces_the_variance_of_logits():
    torch.manual_seed(0)
    config = ModelConfig(method="separable", channels=3, samples=2)
    classifier = Classifier(make_network(config), config, Card("digit_classifier", {}, "nothing", 0, 0.0))
    images = torch.nn.functional.pad(drawn_digits(4).images, (6, 6, 6, 6))

    def spread(draws):
        return float(torch.stack([classifier.logits(images, draws) for _ in range(12)]).std(0).mean())

    assert isinstance(classifier.network, PlanarNet)
    assert spread(9) < 0.6 * spread(1)


def test_evaluation_on_training_digits_is_rejected(digits, tmp_path):
    classifier = reproduce_affnist(dataclasses.replace(SMALL, epochs=1), digits, run_folder=tmp_path / "run").classifier
    assert len(classifier.seen) == 64
    again = load_classifier(tmp_path / "run" / "classifier.safetensors")
    assert torch.equal(again.seen, classifier.seen)
    with pytest.raises(InputError, match=r"of the 20 held-out digits are among those .* \(--seed 0 and --test-digits 20\)"):
        reproduce_affnist(dataclasses.replace(SMALL, seed=1), digits, classifier=again)
    reproduce_affnist(SMALL, write_idx(tmp_path / "other", drawn_digits(84, seed=9)), classifier=again)


def test_the_bundled_classifier_records_its_training_digits():
    assert len(load_classifier().seen.unique()) == 8000


@pytest.mark.parametrize("name", sorted(presets("affnist")))
def test_presets(name):
    config = load_yaml(AffnistConfig, name, stage="affnist")
    assert make_network(config.model) is not None


def test_wrong_images():
    with pytest.raises(ShapeError, match=r"images: got shape \(40, 40\), want \(N, H, W\)"):
        load_classifier().predict(torch.zeros(40, 40))
    with pytest.raises(ShapeError, match=r"sides of at least 8"):
        load_classifier().predict(torch.zeros(1, 4, 40))


def test_wrong_classifier_files(tmp_path):
    path = tmp_path / "c.safetensors"
    with pytest.raises(MissingFileError, match="does not exist; want weights"):
        load_classifier(path)
    path.write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match=r"is damaged or not a \.safetensors file"):
        load_classifier(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FileFormatError, match="does not declare that it holds weights"):
        load_classifier(path)

    def write(**changes):
        card = {"kind": "digit_classifier", "config": to_dict(ModelConfig()), "data": "", "seed": 0, "cpu_hours": 0}
        own = {"type": "weights", "version": 1, "card": card | {"config": changes.pop("model", card["config"])}} | changes
        save_file({"a": torch.zeros(2)}, path, {"vision3d": json.dumps(own)})

    write(version=9)
    with pytest.raises(FileFormatError, match="holds 'weights', version 9; want"):
        load_classifier(path)
    write()
    with pytest.raises(FileFormatError, match=r"does not match its network; lacks: .* and \d+ more; has unexpected keys: a"):
        load_classifier(path)
    write(model={"group": "e8"})
    with pytest.raises(FileFormatError, match="group: got 'e8', want one of"):
        load_classifier(path)
    write(model={"channels": 10**9})
    with pytest.raises(FileFormatError, match="channels: got 1000000000, want at most 512"):
        load_classifier(path)


def test_the_file_has_default_permissions(tmp_path):
    save_classifier(tmp_path / "a.safetensors", load_classifier())
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ModelConfig(channels=0), "channels: got 0, want at least 1"),
        (lambda: ModelConfig(stem_pool=3), "stem_pool: got 3, want 1 or 2"),
        (lambda: ModelConfig(spread=0), "spread: got 0, want a number in"),
        (lambda: ModelConfig(window_deg=200), "window_deg: got 200, want 0 to 180 degrees"),
        (lambda: ModelConfig(drift_deg=-1), "drift_deg: got -1, want 0 to 180 degrees"),
        (lambda: ModelConfig(method="full", window_deg=0), "window_deg: got 0, want more than 0 degrees for method full"),
        (lambda: ModelConfig(margin=6), "margin: got 6, want a multiple of 4, or 0"),
        (lambda: ModelConfig(last_channels=-1), "last_channels: got -1, want at least 1, or 0 for as many as channels"),
        (lambda: AffnistConfig(epochs=0), "epochs: got 0, want at least 1"),
        (lambda: AffnistConfig(lr=0), "lr: got 0, want a number > 0"),
        (lambda: AffnistConfig(weight_decay=-1.0), "weight_decay: got -1.0, want a number >= 0"),
        (lambda: AffnistConfig(label_smoothing=1.0), "label_smoothing: got 1.0, want a number in"),
        (lambda: AffnistConfig(seed=2**63), "seed: got 9223372036854775808, want less"),
    ],
)
def test_wrong_options(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
