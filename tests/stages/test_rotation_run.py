"""The rotation experiments: training, resuming, evaluation, and their files."""

import dataclasses
import json
import math

import pytest
import torch
from safetensors.torch import save_file

import vision3d.stages.rotation.run as run_module
import vision3d.stages.rotation.training as training_module
from tests.support.clouds import drawn_motion, write_clip, write_cloud_folder, write_clouds
from tests.support.stopping import lines, stop_after
from vision3d.core.config import load_yaml, presets
from vision3d.core.errors import ConfigError, FileFormatError, MissingFileError, NumericalError
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.stages.rotation import (
    IkConfig,
    PointCloudConfig,
    SanityConfig,
    load_rotation_network,
    reproduce_rotation_ik,
    reproduce_rotation_pointcloud,
    reproduce_rotation_sanity,
    save_rotation_network,
)
from vision3d.stages.rotation.clouds import read_clouds
from vision3d.stages.rotation.config import RESUMABLE
from vision3d.stages.rotation.experiment import Errors, angles_deg, entries_loss
from vision3d.stages.rotation.experiments import PointCloudExperiment, SanityExperiment
from vision3d.stages.rotation.ik import IkExperiment, read_poses
from vision3d.stages.rotation.networks import SanityNet
from vision3d.stages.rotation.published import differences, published_mean
from vision3d.stages.rotation.run import summarise, table
from vision3d.training.group import Group

QUICK = {"steps": 6, "log_every": 2, "checkpoint_every": 3, "representations": ("6d", "quat")}
SANITY = SanityConfig(**QUICK, seeds=(0, 1), batch_size=8, width=16, test_rotations=50)
CLOUDS = PointCloudConfig(**QUICK, clouds=2, rotations=3, points=16, test_rotations=2)
IK = IkConfig(**QUICK, seeds=(0,), batch_size=8, width=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rotations")
    write_clouds(folder / "clouds.npz")
    write_clip(folder / "a.bvh")
    write_clip(folder / "b.bvh", seed=1)
    return folder


def reproduce(name, data, run_folder=None, **changes):
    if name == "sanity":
        return reproduce_rotation_sanity(dataclasses.replace(SANITY, **changes), run_folder=run_folder)
    if name == "pointcloud":
        config = dataclasses.replace(CLOUDS, **changes)
        return reproduce_rotation_pointcloud(config, data / "clouds.npz", run_folder=run_folder)
    config = dataclasses.replace(IK, **changes)
    return reproduce_rotation_ik(config, [data / "a.bvh"], [data / "b.bvh"], run_folder=run_folder)


def config_of(name):
    return {"sanity": SANITY, "pointcloud": CLOUDS, "ik": IK}[name]


@pytest.mark.parametrize("name", ["sanity", "pointcloud", "ik"])
def test_processes_share_a_batch(data, name):
    """The mean of their losses is that of the whole batch, and each has different samples."""
    config, device = config_of(name), torch.device("cpu")
    given = {
        "sanity": (SanityExperiment, ()),
        "pointcloud": (PointCloudExperiment, (read_clouds(data / "clouds.npz", CLOUDS.points),)),
        "ik": (IkExperiment, (read_poses([data / "a.bvh"], [data / "b.bvh"], IK),)),
    }
    kind, inputs = given[name]
    network = kind(config, *inputs, device).network("6d")
    whole, *parts = (
        float(kind(config, *inputs, device, group).loss(network, torch.Generator().manual_seed(3)).detach())
        for group in (Group(), Group(0, 2), Group(1, 2))
    )
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-6)
    assert abs(parts[0] - parts[1]) > 1e-3 * whole


@pytest.mark.parametrize("name", ["sanity", "pointcloud", "ik"])
def test_every_experiment_runs_and_writes_its_files(tmp_path, data, name):
    result = reproduce(name, data, tmp_path / "run")
    seeds = config_of(name).seeds
    assert [(t.rep, t.seed) for t in result.trainings] == [(rep, seed) for rep in ("6d", "quat") for seed in seeds]
    rows = result.summary["by_representation"]
    assert [row["representation"] for row in rows] == ["6d", "quat"]
    assert all(0 < row["median"] <= row["p95"] <= row["max"] and math.isfinite(row["mean"]) for row in rows)
    assert (rows[0]["std_over_seeds"] is None) == (len(seeds) == 1)
    assert result.summary["unit"] == ("cm" if name == "ik" else "deg") and result.summary["differs_from_publication"]
    assert (tmp_path / "run" / "figures" / "percentiles.png").stat().st_size > 0
    own = tmp_path / "run" / "trainings" / "6d_seed0"
    lines = [json.loads(line) for line in (own / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6] and all(line["loss"] > 0 for line in lines)
    network = load_rotation_network(own / "network.safetensors")
    assert (network.rep, network.experiment, network.about["steps"]) == ("6d", name, 6)
    shapes = {"sanity": [(5, 3, 3)], "pointcloud": [(2, 20, 3), (2, 5, 20, 3)], "ik": [(5, 7, 3)]}[name]
    inputs = [torch.randn(shape) for shape in shapes]
    if name == "ik":
        assert network.about["rotated_joints"] == ["Hips", "Spine", "LeftLeg", "RightLeg"]
        assert len(network.about["joints"]) == 7
    rotmats = network(*inputs)
    torch.testing.assert_close(rotmats, result.trainings[0].network(*inputs))
    torch.testing.assert_close(rotmats @ rotmats.mT, torch.eye(3).expand(rotmats.shape), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rep", ["6d", "9d_svd"])
def test_the_sanity_network_learns(rep):
    config = SanityConfig(representations=(rep,), steps=400, width=64, test_rotations=500)
    found = reproduce_rotation_sanity(config).trainings[0].errors
    assert found.mean < 8, "untrained networks err by 126 degrees"


def test_the_geodesic_loss_learns_too():
    config = SanityConfig(representations=("6d",), steps=400, width=64, test_rotations=500, loss="geodesic")
    assert reproduce_rotation_sanity(config).trainings[0].errors.mean < 8


def test_clouds_are_registered(tmp_path):
    data = write_clouds(tmp_path / "clouds.npz", count=30)
    config = dataclasses.replace(CLOUDS, representations=("6d",), steps=200, clouds=4, rotations=6, points=20, lr=1e-3)
    config = dataclasses.replace(config, test_rotations=20)
    assert reproduce_rotation_pointcloud(config, data).trainings[0].errors.median < 100, "untrained networks err by 130 degrees"


@pytest.mark.parametrize("name", ["sanity", "pointcloud", "ik"])
def test_resumed_run_gives_the_same_numbers(tmp_path, data, name, monkeypatch):
    whole = reproduce(name, data, tmp_path / "whole", seeds=(3,))
    stop_after(6 + 5, monkeypatch, run_module)  # in the second of two trainings
    with pytest.raises(Interrupted, match="quat, seed 3: stopped after step 5"):
        reproduce(name, data, tmp_path / "parts", seeds=(3,))
    monkeypatch.undo()
    torch.rand(100)  # generators outside the run do not matter
    trained = []
    loss = training_module._Trainer._loss
    monkeypatch.setattr(training_module._Trainer, "_loss", lambda self, step: (trained.append(self.what), loss(self, step))[1])
    config = dataclasses.replace(config_of(name), seeds=(3,))
    folder = RunFolder.create(tmp_path / "parts", config, resume=True, ignore=RESUMABLE)
    parts = reproduce(name, data, folder, seeds=(3,))
    assert trained == ["loss of quat"], "one step was left, and the previous training is not repeated"
    for rep in ("6d", "quat"):
        assert lines(tmp_path / "parts" / "trainings" / f"{rep}_seed3") == lines(
            tmp_path / "whole" / "trainings" / f"{rep}_seed3"
        )
    for a, b in zip(parts.trainings, whole.trainings):
        assert a.errors == b.errors and a.loss == b.loss
        for x, y in zip(a.network.network.state_dict().values(), b.network.network.state_dict().values()):
            assert torch.equal(x, y)


def test_a_killed_run_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    whole = reproduce_rotation_sanity(SANITY)
    loss = training_module._Trainer._loss

    def killed(self, step):
        if (self.what, self.seed, step) == ("loss of 6d", 1, 5):
            raise MemoryError
        return loss(self, step)

    monkeypatch.setattr(training_module._Trainer, "_loss", killed)
    with pytest.raises(MemoryError):
        reproduce_rotation_sanity(SANITY, run_folder=tmp_path / "run")
    monkeypatch.undo()
    folder = RunFolder.create(tmp_path / "run", SANITY, resume=True, ignore=RESUMABLE)
    parts = reproduce_rotation_sanity(SANITY, run_folder=folder)
    assert [t.errors for t in parts.trainings] == [t.errors for t in whole.trainings]


def test_representations_and_seeds_can_be_added_and_nothing_else(tmp_path):
    small = dataclasses.replace(SANITY, representations=("6d",), seeds=(0,))
    first = reproduce_rotation_sanity(small, run_folder=tmp_path / "run")
    folder = RunFolder.create(tmp_path / "run", SANITY, resume=True, ignore=RESUMABLE)
    more = reproduce_rotation_sanity(SANITY, run_folder=folder)
    assert len(more.trainings) == 4 and more.trainings[0].errors == first.trainings[0].errors
    assert more.trainings[0].cpu_s == first.trainings[0].cpu_s
    with pytest.raises(ConfigError, match=r"lr: cannot resume .* \(lr: 0.002 there, 0.1 here\)"):
        RunFolder.create(tmp_path / "run", dataclasses.replace(SANITY, lr=0.1), resume=True, ignore=RESUMABLE)


def test_a_run_is_not_resumed_on_other_data(tmp_path, data):
    reproduce("pointcloud", data, tmp_path / "run")
    other = write_clouds(tmp_path / "other.npz", count=13)
    folder = RunFolder.create(tmp_path / "run", CLOUDS, resume=True, ignore=RESUMABLE)
    with pytest.raises(ConfigError, match=r"DATA: cannot resume .*6d_seed0, which is a run on clouds\.npz, 12 training"):
        reproduce_rotation_pointcloud(CLOUDS, other, run_folder=folder)
    (tmp_path / "run" / "trainings" / "6d_seed0" / "result.json").unlink()  # now the checkpoint is checked
    with pytest.raises(ConfigError, match=r"DATA: cannot resume .*6d_seed0, which is a run on clouds\.npz"):
        reproduce_rotation_pointcloud(CLOUDS, other, run_folder=folder)


def test_an_invalid_result(tmp_path):
    reproduce_rotation_sanity(SANITY, run_folder=tmp_path / "run")
    (tmp_path / "run" / "trainings" / "6d_seed0" / "result.json").write_text('{"source": 1}')
    folder = RunFolder.create(tmp_path / "run", SANITY, resume=True, ignore=RESUMABLE)
    with pytest.raises(FileFormatError, match=r"result\.json: is not the result of a training; delete it"):
        reproduce_rotation_sanity(SANITY, run_folder=folder)


def test_batches_depend_only_on_the_seed_and_not_on_the_representation(monkeypatch):
    seen = {}
    forward = SanityNet.forward

    def watch(self, rotmats):
        seen.setdefault((self.head.rep, self.training), []).append(rotmats)
        return forward(self, rotmats)

    monkeypatch.setattr(SanityNet, "forward", watch)
    reproduce_rotation_sanity(SANITY)
    a, b = (torch.stack(seen[rep, True]) for rep in ("6d", "quat"))
    assert torch.equal(a, b) and len(a.flatten(1).unique(dim=0)) == 12, "two seeds of six steps, all different"
    assert torch.equal(seen["6d", False][0], seen["quat", False][1])


def test_a_loss_that_is_not_finite(monkeypatch):
    monkeypatch.setattr(SanityNet, "forward", lambda self, x: x * self.head.linear.weight.sum() * math.nan)
    with pytest.raises(NumericalError, match=r"step 0: loss of 6d is not finite\. give a smaller --lr"):
        reproduce_rotation_sanity(SANITY)


def test_constant_learning_rate_drops(tmp_path):
    config = dataclasses.replace(SANITY, representations=("6d",), seeds=(0,), schedule="constant", drop_after=3, lr=1e-3)
    reproduce_rotation_sanity(config, run_folder=tmp_path / "run")
    assert [line["lr"] for line in lines(tmp_path / "run" / "trainings" / "6d_seed0")] == pytest.approx([1e-3, 1e-4, 1e-4])


# ---------------------------------------------------------------- metrics


def test_metrics_of_errors():
    errors = Errors.of(torch.arange(101.0).flip(0))
    assert (errors.mean, errors.max, errors.median, errors.count) == (50, 100, 50, 101)
    assert errors.std == pytest.approx(math.sqrt((101**2 - 1) / 12))
    assert errors.at(0) == 0 and errors.at(95) == pytest.approx(95) and errors.at(100) == 100
    assert errors.below(25) == 25.0 and errors.below(1000) == 100.0
    assert Errors.of(torch.tensor([3.0])).percentiles == (3.0,) * 1001


def test_losses_and_angles():
    rotmats = haar_rotmats(3, 50)
    half = torch.diag(torch.tensor([1.0, -1, -1]))
    torch.testing.assert_close(angles_deg(rotmats, rotmats @ half), torch.full((50,), 180.0, dtype=torch.float64))
    assert float(angles_deg(rotmats, rotmats).max()) < 1e-4
    assert float(entries_loss(rotmats, rotmats @ half)) == pytest.approx(8 / 9)  # |R1 - R2|^2 = 8 sin^2(90 deg), over 9


def test_published_means_appear_only_where_confirmed():
    assert published_mean("sanity", "6d", SANITY) == 0.49 and published_mean("sanity", "axis_angle4", SANITY) is None
    assert published_mean("sanity", "6d", dataclasses.replace(SANITY, loss="geodesic")) == 0.45
    assert published_mean("sanity", "5d", dataclasses.replace(SANITY, loss="geodesic")) is None
    assert published_mean("pointcloud", "quat", CLOUDS) is None
    published = load_yaml(SanityConfig, "published", stage="rotation_sanity")
    assert differences(published, {}) == []
    words = " ".join(differences(SANITY, {}))
    assert "6 steps, published 500,000" in words and "one-cycle, maximum learning rate 0.002" in words


def test_the_table():
    text = table(reproduce_rotation_sanity(SANITY).summary)
    head, first, second = text.splitlines()
    assert "mean [deg]" in head and "published mean" in head
    assert first.startswith("6d") and "0.49" in first and "+-" in first
    assert second.startswith("quat") and "3.32" in second


def test_a_row_covers_all_seeds():
    result = reproduce_rotation_sanity(dataclasses.replace(SANITY, representations=("5d",)))
    row, found = result.summary["by_representation"][0], [training.errors for training in result.trainings]
    assert row["mean"] == pytest.approx((found[0].mean + found[1].mean) / 2)
    assert row["max"] == max(found[0].max, found[1].max)
    assert row["std_over_seeds"] == pytest.approx(abs(found[0].mean - found[1].mean) / math.sqrt(2))
    assert summarise.__doc__


@pytest.mark.parametrize(
    ("stage", "config"),
    [("rotation_sanity", SanityConfig), ("rotation_pointcloud", PointCloudConfig), ("rotation_ik", IkConfig)],
)
def test_presets(stage, config):
    assert list(presets(stage)) == ["published"]
    assert load_yaml(config, "published", stage=stage).lr == 1e-5


# ---------------------------------------------------------------- files


def test_wrong_network_files(tmp_path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(MissingFileError, match=r"does not exist; want a network \(\.safetensors\)"):
        load_rotation_network(path)
    path.write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match=r"is damaged or not a \.safetensors file"):
        load_rotation_network(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FileFormatError, match="does not declare that it holds a network"):
        load_rotation_network(path)

    def write(**changes):
        shape = {"rep": "6d", "width": 16}
        own = {"type": "rotation_network", "version": 1, "experiment": "sanity", "shape": shape, "about": {}} | changes
        save_file({"a": torch.zeros(2)}, path, {"vision3d": json.dumps(own)})

    for changes, text in (
        ({"version": 9}, "holds 'rotation_network', version 9; want"),
        ({"experiment": "other"}, "holds a network of 'other'; want sanity, pointcloud or ik"),
        ({}, "does not match its description"),
        ({"shape": {"rep": "7d", "width": 16}}, "'7d' is not a representation"),
        ({"shape": {"rep": "6d", "width": 10**9}}, "width: got 1000000000, want a whole number of 1 to 8192"),
        ({"shape": {"rep": 6, "width": 16}}, "rep: got 6, want text"),
        ({"shape": {"rep": "6d", "hight": 16}}, "does not match its description"),
    ):
        write(**changes)
        with pytest.raises(FileFormatError, match=text):
            load_rotation_network(path)


def test_networks_are_rewritten(tmp_path):
    network = reproduce_rotation_sanity(SANITY).trainings[0].network
    save_rotation_network(tmp_path / "n.safetensors", network)
    again = load_rotation_network(tmp_path / "n.safetensors")
    assert (again.shape, again.about) == (network.shape, network.about)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SanityConfig(steps=0), "steps: got 0, want at least 1"),
        (lambda: SanityConfig(representations=("6dd",)), "representations: '6dd' is not a representation .*did you mean 6d"),
        (lambda: SanityConfig(representations=()), "representations: got none, want at least one name"),
        (lambda: SanityConfig(representations=("6d", "6d")), "representations: 6d is given twice"),
        (lambda: SanityConfig(seeds=()), r"seeds: got \[\], want whole numbers"),
        (lambda: SanityConfig(seeds=(-1,)), r"seeds: got \[-1\], want whole numbers"),
        (lambda: SanityConfig(lr=0), "lr: got 0, want a number > 0"),
        (lambda: SanityConfig(lr=math.nan), "lr: got nan, want a number > 0"),
        (lambda: SanityConfig(batch_size=0), "batch_size: got 0, want at least 1"),
        (lambda: SanityConfig(checkpoint_every=-1), "checkpoint_every: got -1, want a number >= 0"),
        (lambda: PointCloudConfig(clouds=0), "clouds: got 0, want at least 1"),
        (lambda: PointCloudConfig(points=-1), "points: got -1, want at least 1, or 0 for all"),
        (lambda: IkConfig(rate=0), "rate: got 0, want a number > 0"),
        (lambda: IkConfig(scale=-1.0), "scale: got -1.0, want a number >= 0"),
        (lambda: IkConfig(hip_weight=math.inf), "hip_weight: got inf, want a number >= 0"),
    ],
)
def test_wrong_options(make, text):
    with pytest.raises(ConfigError, match=text):
        make()


def test_generated_test_data(tmp_path):
    assert len(drawn_motion()) == 40 and write_cloud_folder(tmp_path / "f").is_dir()
