"""Training, resuming, evaluation and application of detectors on small sweeps, and wrong input."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.stopping import stop_after
from tests.support.sweeps import made_frame, write_folder
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.core.runs import Interrupted, RunFolder
from vision3d.io.sweep_files import read_sweep
from vision3d.scene import Boxes, PointCloud
from vision3d.stages.detect import (
    DetectConfig,
    EvalConfig,
    TrainConfig,
    detect,
    evaluate_detector,
    load_detector,
    save_detector,
    train_detector,
)
from vision3d.stages.detect.config import AugmentConfig, BevConfig, GridConfig, LionConfig, ModelConfig, StreetsConfig
from vision3d.stages.detect.data.batches import Batches, Recipe
from vision3d.stages.detect.data.sources import KittiFolder, Streets
from vision3d.stages.detect.data.sweeps import rows_of
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.files import FORMAT, Detector
from vision3d.stages.detect.sectors import detect_boxes, num_sectors
from vision3d.training import loop as training_loop
from vision3d.training.weights import Card

CLASSES = ("Car", "Pedestrian", "Cyclist")
GRID = GridConfig(low=(0, -12.8, -3), high=(25.6, 12.8, 1), voxel=(0.4, 0.4, 0.5))
BEV = BevConfig(channels=(16, 24), layers=(1, 1), up_channels=16)
PILLARS = ModelConfig(method="pillars", grid=GRID, channels=16, bev=BEV, head_channels=16)
LION = replace(PILLARS, method="lion", channels=8, lion=LionConfig(groups=(64, 32), last_group=32))
SMALL = TrainConfig(model=PILLARS, steps=3, batch_size=2, log_every=1, checkpoint_every=1, workers=0, ema=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("kitti"))


def detector(model=PILLARS, seed=0):
    torch.manual_seed(seed)
    return Detector(make_network(model).eval(), model, Card.of_now("detector", config={}, data="none", seed=0, cpu_hours=0))


@pytest.mark.parametrize("model", [PILLARS, LION, replace(PILLARS, head="anchor")], ids=["pillars", "lion", "anchors"])
def test_trains_and_writes_its_files(tmp_path, folder, model):
    result = train_detector(replace(SMALL, model=model), folder, run_folder=tmp_path / "run")
    assert result.summary["steps"] == 3
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"detector.safetensors", "summary.json", "report.html", "metrics.jsonl"} <= files
    loaded = load_detector(tmp_path / "run" / "detector.safetensors")
    assert loaded.config == model
    rows = rows_of(read_sweep(folder / "velodyne" / "000000.bin"))
    a, b = detect_boxes(result.detector, rows, lowest=0.0), detect_boxes(loaded, rows, lowest=0.0)
    assert len(a) > 0
    assert torch.equal(a.boxes, b.boxes)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["center", "anchor"])
def test_learns_to_find_objects(folder, head):
    """Evaluated on the sweeps that were trained on: whether it can learn at all."""
    bev = BevConfig(channels=(24, 32), layers=(2, 2), up_channels=24)
    model = replace(PILLARS, channels=24, head_channels=24, bev=bev, head=head)
    augment = AugmentConfig(
        turn_deg=0, flip=False, scale=(1, 1), object_scale=(1, 1), height=0, tilt_deg=0, drop_intensity=0, thin=0
    )
    config = TrainConfig(model=model, augment=augment, steps=250, batch_size=4, workers=0, ema=0.9, lr=5e-3)
    result = train_detector(config, folder)
    evaluation = evaluate_detector(EvalConfig(), folder, detector=result.detector).evaluation
    rows = [row for row in evaluation.rows if row.metric == "bev" and row.difficulty == "moderate" and row.valid]
    assert sum(row.exact * row.valid for row in rows) / sum(row.valid for row in rows) > 60


def test_a_stopped_training_resumes_to_the_bit(tmp_path, folder, monkeypatch):
    whole = train_detector(SMALL, folder, run_folder=tmp_path / "whole").detector.network.state_dict()
    stop_after(2, monkeypatch, training_loop)
    with pytest.raises(Interrupted):
        train_detector(SMALL, folder, run_folder=tmp_path / "run")
    monkeypatch.undo()
    resumed = RunFolder.create(tmp_path / "run", SMALL, resume=True)
    again = train_detector(SMALL, folder, run_folder=resumed).detector.network.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_starts_from_stored_weights(tmp_path, folder):
    source = detector(seed=5)
    save_detector(tmp_path / "first.safetensors", source)
    config = replace(SMALL, steps=1, lr=1e-9, init=str(tmp_path / "first.safetensors"), seed=9)
    found = dict(train_detector(config, folder).detector.network.named_parameters())
    for name, parameter in source.network.named_parameters():
        torch.testing.assert_close(found[name], parameter, atol=1e-3, rtol=1e-3)
    narrow = replace(LION, bev=BevConfig((8, 8), (1, 1), up_channels=8), head_channels=8)
    save_detector(tmp_path / "other.safetensors", detector(narrow))
    with pytest.raises(FileFormatError, match=r"other\.safetensors: does not match its network; has "):
        train_detector(replace(config, init=str(tmp_path / "other.safetensors")), folder)


def test_starts_from_weights_of_another_operator(tmp_path, caplog):
    source, network = detector(LION, seed=5), detector(replace(LION, lion=replace(LION.lion, operator="gla"))).network
    save_detector(tmp_path / "first.safetensors", source)
    FORMAT.initialize(network, tmp_path / "first.safetensors")
    own, stored = network.state_dict(), source.network.state_dict()
    same = {name for name in own.keys() & stored.keys() if own[name].shape == stored[name].shape}
    for name in same:
        torch.testing.assert_close(own[name], stored[name], atol=1e-3, rtol=1e-3)
    assert own.keys() - same and "first.safetensors lacks " in caplog.text


def test_batches_do_not_depend_on_workers_and_order(folder):
    recipe = Recipe(KittiFolder.open(folder, CLASSES), AugmentConfig(), GRID, 3, 2, 5, 0, range(2))
    one, two = Batches(recipe, 0), Batches(recipe, 1)
    try:
        for step in (3, 0, 3):
            (a, s), (b, t) = one(step), two(step)
            assert torch.equal(a.points, b.points)
            assert torch.equal(s.heat, t.heat)
            assert torch.equal(s.boxes, t.boxes)
    finally:
        two.close()
    assert not torch.equal(one(1)[0].points[:50], one(0)[0].points[:50])


def test_runs_on_a_folder_in_kitti_layout(tmp_path, folder):
    result = detect(DetectConfig(score=0.0), folder, detector=detector(), run_folder=tmp_path / "run")
    assert [found.name for found in result.sweeps] == [f"{i:06}" for i in range(4)]
    boxes = Boxes.load(tmp_path / "run" / "boxes" / "000002.json")
    assert torch.allclose(boxes.boxes, result.sweeps[2].boxes.boxes, atol=1e-4)
    assert (tmp_path / "run" / "labels" / "000002.txt").is_file()
    assert (tmp_path / "run" / "video.mp4").stat().st_size > 1000
    assert (tmp_path / "run" / "images" / "000002_above.png").is_file()


def test_points_from_python_and_files_give_the_same_boxes(tmp_path, folder):
    cloud = read_sweep(folder / "velodyne" / "000001.bin")
    a = detect(DetectConfig(score=0.0), cloud, detector=detector()).boxes
    b = detect(DetectConfig(score=0.0), folder / "velodyne" / "000001.bin", detector=detector()).boxes
    assert torch.equal(a.boxes, b.boxes)
    only = detect(DetectConfig(score=0.0, classes=("Cyclist",)), cloud, detector=detector()).boxes
    assert set(only.labels.tolist()) <= {2}


def test_a_turned_sweep_has_the_same_boxes_turned():
    """Turned by one sector, every sector sees what the one before it saw."""
    points = torch.from_numpy(made_frame(5)[0])
    found = detect_boxes(detector(), points, lowest=0.0)
    number = num_sectors(GRID)
    assert number == 6
    cosine, sine = math.cos(math.pi / 3), math.sin(math.pi / 3)
    turn = torch.tensor([[cosine, -sine], [sine, cosine]])
    moved = points.clone()
    moved[:, :2] = points[:, :2] @ turn.T
    again = detect_boxes(detector(), moved, lowest=0.0, sensor_height=1.73)
    found = detect_boxes(detector(), points, lowest=0.0, sensor_height=1.73)
    assert len(found) == len(again) > 20
    back = again.boxes[:, :2] @ turn
    distance = torch.cdist(found.boxes[:, :2], back).min(1).values
    assert (distance < 0.02).float().mean() > 0.98


def test_the_height_of_the_sensor_does_not_matter():
    low, high = (torch.from_numpy(made_frame(5, height=h)[0]) for h in (1.2, 2.2))
    a, b = detect_boxes(detector(), low, lowest=0.0), detect_boxes(detector(), high, lowest=0.0)
    assert abs(len(a) - len(b)) <= 0.1 * len(a)
    rows = torch.arange(10)
    assert (a.boxes[rows, 2] - b.boxes[rows, 2] - 1.0).abs().median() < 0.1


@pytest.mark.parametrize(
    "points", [torch.zeros(0, 4), torch.full((1, 4), 0.5), torch.full((500, 4), 900.0)], ids=["none", "one", "far"]
)
def test_few_or_far_points_have_no_boxes(points):
    assert len(detect_boxes(detector(), points)) == 0


def test_wrong_points_are_refused():
    points = torch.rand(100, 4)
    points[3, 1] = math.nan
    with pytest.raises(InputError, match="points: some values are not finite"):
        detect_boxes(detector(), points)
    with pytest.raises(InputError, match="got 0 points"):
        detect(DetectConfig(), PointCloud(torch.zeros(0, 3)), detector=detector())


def test_nan_and_infinite_points_of_files_are_dropped(tmp_path):
    rows = np.random.default_rng(0).random((50, 4)).astype("<f4")
    rows[3, 0], rows[9, 2], rows[20, :3] = np.nan, np.inf, 0
    rows.tofile(tmp_path / "a.bin")
    assert len(read_sweep(tmp_path / "a.bin")) == 47
    rows[:] = np.nan
    rows.tofile(tmp_path / "b.bin")
    with pytest.raises(FileFormatError, match="has no finite point among 50"):
        read_sweep(tmp_path / "b.bin")


def test_columns_are_recognized(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(0, 20, (400, 3)), rng.integers(0, 256, 400), rng.integers(0, 32, 400)]).astype("<f4")
    rows.tofile(tmp_path / "five.bin")
    cloud = read_sweep(tmp_path / "five.bin")
    assert torch.equal(cloud.points, torch.from_numpy(rows[:, :3]))
    assert float(cloud.intensity.max()) <= 1
    np.save(tmp_path / "a.npy", rows[:, :4])
    assert torch.equal(read_sweep(tmp_path / "a.npy").points, cloud.points)
    with pytest.raises(FileFormatError, match="has 8000 bytes, want a multiple of 28"):
        read_sweep(tmp_path / "five.bin", columns=7)
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match="is not an array of numbers"):
        read_sweep(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", rows[:, 0])
    with pytest.raises(FileFormatError, match=r"shape \(400,\), want \(N, 3\)"):
        read_sweep(tmp_path / "c.npy")


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_sweeps_as_pcd(tmp_path, encoding):
    pypcd4 = pytest.importorskip("pypcd4")
    rows = np.random.default_rng(0).normal(0, 20, (300, 4)).astype(np.float32)
    rows[:, 3] = np.abs(rows[:, 3])
    cloud = pypcd4.PointCloud.from_xyzi_points(rows)
    cloud.save(tmp_path / "a.pcd", encoding=pypcd4.Encoding(encoding))
    read = read_sweep(tmp_path / "a.pcd")
    assert torch.allclose(read.points, torch.from_numpy(rows[:, :3]), atol=1e-3)
    assert torch.allclose(read.intensity, torch.from_numpy(rows[:, 3] / 255), atol=1e-4)
    (tmp_path / "b.pcd").write_bytes((tmp_path / "a.pcd").read_bytes()[:150])
    with pytest.raises(FileFormatError, match=r"b\.pcd: is not a \.pcd that pypcd4 reads"):
        read_sweep(tmp_path / "b.pcd")


def test_wrong_data_sets_are_refused(tmp_path, folder):
    with pytest.raises(MissingFileError, match="KITTI's layout"):
        KittiFolder.open(tmp_path, CLASSES)
    with pytest.raises(MissingFileError, match=r"val\.txt"):
        KittiFolder.open(folder, CLASSES, "val")
    other = write_folder(tmp_path / "a", 2)
    (other / "label_2" / "000001.txt").unlink()
    with pytest.raises(InputError, match=r"1 of 2 frames have no labels .*test part"):
        KittiFolder.open(other, CLASSES)
    other = write_folder(tmp_path / "b", 1)
    label = other / "label_2" / "000000.txt"
    label.write_text(label.read_text().replace("Car", "Caar").replace("Pedestrian", "Caar").replace("Cyclist", "Caar"))
    with pytest.raises(InputError, match="unknown class 'Caar'; did you mean Car"):
        train_detector(SMALL, other)
    other = write_folder(tmp_path / "c", 1)
    words = (other / "label_2" / "000000.txt").read_text().split("\n")[0].split()
    words[8] = "-1.5"
    (other / "label_2" / "000000.txt").write_text(" ".join(words) + "\n")
    with pytest.raises(FileFormatError, match="size that is not positive"):
        train_detector(SMALL, other)
    other = write_folder(tmp_path / "d", 1)
    (other / "calib" / "000000.txt").unlink()
    with pytest.raises(MissingFileError, match="calib"):
        train_detector(SMALL, other)


def test_weights_of_other_networks_are_refused(tmp_path):
    save_detector(tmp_path / "a.safetensors", detector())
    assert load_detector(tmp_path / "a.safetensors").config == PILLARS
    broken = Detector(make_network(LION), PILLARS, detector().card)
    save_detector(tmp_path / "b.safetensors", broken)
    with pytest.raises(FileFormatError, match="does not match its network; has unexpected keys: backbone"):
        load_detector(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"\x80\x04}q\x00.")
    with pytest.raises(FileFormatError):
        load_detector(tmp_path / "c.safetensors")
    with pytest.raises(ConfigError, match="classes: got 'Cra'; did you mean Car"):
        detect(DetectConfig(classes=("Cra",)), PointCloud(torch.rand(9, 3)), detector=detector())


def test_evaluation_of_perfect_boxes(folder):
    """The labels of the frames as detections."""

    class Perfect:
        def __len__(self):
            return 4

        def eval_frame(self, index):
            return KittiFolder.open(folder, CLASSES).eval_frame(index)

    from vision3d.stages.detect.evaluate import found_objects, label_objects
    from vision3d.stages.detect.evaluation import evaluate

    labels, found = [], []
    for index in range(4):
        frame = Perfect().eval_frame(index)
        boxes = frame.labels.boxes
        own = Boxes.of_names(boxes.boxes, boxes.names, torch.full((len(boxes),), 0.9))
        labels.append(label_objects(frame))
        found.append(found_objects(frame, own))
    rows = [row for row in evaluate(labels, found).rows if row.valid]
    assert len(rows) >= 12
    assert all(row.exact > 99.9 for row in rows)


def test_a_folder_with_splits_is_evaluated_on_the_held_out_one(tmp_path):
    folder = write_folder(tmp_path / "kitti", 4)
    (folder / "ImageSets").mkdir()
    (folder / "ImageSets" / "train.txt").write_text("000000\n000001\n000003\n")
    (folder / "ImageSets" / "val.txt").write_text("000002\n")
    config = replace(SMALL, evaluate_every=2)
    result = train_detector(config, folder, run_folder=tmp_path / "run")
    assert 0 <= result.summary["map"] <= 100
    assert result.detector.card.data.startswith("3 frames of")
    assert load_detector(tmp_path / "run" / "detector.safetensors").card.figures["data"].startswith("1 held-out frames")
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("eval_map" in line for line in logged) == 1
    assert (tmp_path / "run" / "checkpoints" / "best.pt").is_file()


def test_evaluation_writes_its_table(tmp_path, folder):
    result = evaluate_detector(EvalConfig(worst=1), folder, detector=detector(), run_folder=tmp_path / "run")
    assert result.summary["frames"] == 4
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert {row["metric"] for row in rows} >= {"2d", "bev", "3d"}
    assert len(list((tmp_path / "run" / "worst").iterdir())) == 1


@pytest.mark.slow
def test_the_bundled_detector_finds_objects_of_unseen_streets():
    pytest.importorskip("embreex")
    result = evaluate_detector(EvalConfig(frames=12, seed=5), "synth")
    rows = {row.name: row for row in result.evaluation.rows if row.metric == "bev" and row.difficulty == "moderate"}
    assert rows["Car"].valid + rows["Cyclist"].valid > 15
    assert rows["Car"].exact > 55
    assert rows["Cyclist"].exact > 50


def test_streets_have_the_requested_objects():
    pytest.importorskip("embreex")
    config = StreetsConfig(sensors=("vlp16",), cars=(0, 0), people=(25, 25), cyclists=(0, 0))
    streets = Streets(config, ("Car", "Pedestrian", "Cyclist"), 3)
    labels = torch.cat([streets.sweep(index).labels for index in range(2)])
    assert int((labels == 1).sum()) > 15
    assert not bool(((labels == 0) | (labels == 2)).any())
    with pytest.raises(ConfigError, match=re.escape("synth.people: got 5 to 2")):
        StreetsConfig(people=(5, 2))
