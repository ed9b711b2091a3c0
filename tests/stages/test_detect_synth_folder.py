"""Folders of synthetic frames in the layout of KITTI."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.refusals import assert_refused
from vision3d.core.errors import ConfigError, FileFormatError, MissingFileError
from vision3d.io.kitti import (
    KittiLabels,
    read_calibration,
    read_image_size,
    read_label_columns,
    read_projection,
    write_calibration,
    write_labels,
)
from vision3d.scene import Boxes, PointCloud
from vision3d.stages.detect.synth import FrameConfig, SynthConfig, frame, synthesize
from vision3d.stages.detect.synth.run import kitti_labels, write_frame

pytest.importorskip("embreex")

SMALL = FrameConfig(sensor="vlp16", variety=8)
DATA = os.environ.get("VISION3D_DATA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "streets"
    synthesize(SynthConfig(sensor="vlp16", variety=8, frames=2, val_frames=1, seed=4), run_folder=out)
    return out


def test_a_frame_reads_back(tmp_path: Path):
    made = frame(1, SMALL)
    write_frame(tmp_path, "000000", made)
    points = PointCloud.load(tmp_path / "velodyne" / "000000.bin")
    assert torch.equal(points.points, made.points[:, :3])
    assert torch.equal(points.intensity, made.points[:, 3])
    calibration = read_calibration(tmp_path / "calib" / "000000.txt")
    assert torch.allclose(calibration, torch.from_numpy(made.camera.to_camera), atol=1e-9)
    assert torch.allclose(read_projection(tmp_path / "calib" / "000000.txt"), torch.from_numpy(made.camera.P2), atol=1e-9)
    want, got = kitti_labels(made), read_label_columns(tmp_path / "label_2" / "000000.txt")
    assert len(want.boxes) > 0
    assert [got.boxes.classes[k] for k in got.boxes.labels] == [want.boxes.classes[k] for k in want.boxes.labels]
    assert (got.boxes.boxes - want.boxes.boxes).abs()[:, :6].max() < 1e-4
    turn = got.boxes.boxes[:, 6] - want.boxes.boxes[:, 6]
    assert torch.remainder(turn + 3, 2 * np.pi).sub(3).abs().max() < 1e-4
    assert torch.equal(got.occlusion, want.occlusion)
    assert (got.truncation - want.truncation).abs().max() < 1e-4
    assert (got.alpha - want.alpha).abs().max() < 1e-4
    assert (got.boxes_2d - want.boxes_2d).abs().max() < 0.01
    assert (got.dont_care - want.dont_care).abs().sum() < 0.01 * max(len(want.dont_care), 1) * 4


def test_only_seen_objects_with_enough_points_are_labelled():
    made = frame(2, SMALL)
    labels = kitti_labels(made, min_points=20)
    seen = made.truncation < 1
    assert len(labels.boxes) == int((seen & (made.num_points >= 20)).sum())
    assert len(labels.dont_care) == int((seen & (made.num_points < 20)).sum())


def test_labels_agree_with_the_projection_of_the_points(tmp_path: Path):
    """The points of an object lie in its 2D box."""
    made = frame(3, FrameConfig(variety=8))
    camera = torch.from_numpy(made.camera.to_camera).float()
    checked = 0
    for k in (made.truncation == 0).nonzero()[:, 0].tolist():
        own = made.points[made.owner == k, :3] @ camera[:3, :3].T + camera[:3, 3]
        pixels = own @ torch.from_numpy(made.camera.P2[:, :3]).float().T
        pixels = pixels[:, :2] / pixels[:, 2:]
        slack = 720 * 0.06 / float(own[:, 2].min())
        assert (pixels >= made.boxes_2d[k, :2] - slack).all()
        assert (pixels <= made.boxes_2d[k, 2:] + slack).all()
        checked += len(own)
    assert checked > 200


def test_folder(folder: Path):
    for kind, suffix in (("velodyne", "bin"), ("calib", "txt"), ("label_2", "txt")):
        assert sorted(path.name for path in (folder / "training" / kind).iterdir()) == [f"00000{i}.{suffix}" for i in range(3)]
    assert (folder / "ImageSets" / "train.txt").read_text() == "000000\n000001\n"
    assert (folder / "ImageSets" / "val.txt").read_text() == "000002\n"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["results"]["frames"] == 3
    made = frame(4, SMALL, 1)
    points = PointCloud.load(folder / "training" / "velodyne" / "000001.bin")
    assert torch.equal(points.points, made.points[:, :3])


def test_command_and_its_resume(cli, tmp_path: Path):
    out = tmp_path / "out"
    options = ("--sensor", "vlp16", "--variety", 8, "--out", out)
    code, text, err = cli("detect", "synth", *options, "--frames", 1)
    assert code == 0, err
    assert "1 frames in" in text
    first = (out / "training" / "velodyne" / "000000.bin").stat().st_mtime_ns
    code, text, err = cli("detect", "synth", *options, "--frames", 2, "--resume")
    assert code == 0, err
    assert "1 of them new" in text
    assert (out / "training" / "velodyne" / "000000.bin").stat().st_mtime_ns == first
    assert cli("detect", "synth", *options, "--frames", 1)[0] == 5


def test_wrong_options(cli, tmp_path: Path):
    assert_refused(cli("detect", "synt"), "synt: unknown task", "synth", code=2)
    assert_refused(cli("detect", "synth", "--frames", "0", "--out", tmp_path / "a"), "frames", "at least 1", code=2)
    assert_refused(cli("detect", "synth", "--sensor", "hdl1", "--out", tmp_path / "b"), "hdl1", "hdl64e", code=3)
    assert_refused(cli("detect", "synth", "--cars", "5", "2", "--out", tmp_path / "c"), "cars", "5 to 2", code=2)
    with pytest.raises(ConfigError, match="run_folder"):
        synthesize(SynthConfig(frames=1))


def test_label_columns_of_unusual_files(tmp_path: Path):
    path = tmp_path / "000000.txt"
    path.write_text("DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10\n\n")
    labels = read_label_columns(path, torch.eye(4))
    assert len(labels.boxes) == 0
    assert labels.dont_care.tolist() == [[1, 2, 3, 4]]
    path.write_text("Car 0 0 0 0 0 0 0 1.5 -1.6 4 1 2 3 0\n")
    with pytest.raises(FileFormatError, match="size that is not positive"):
        read_label_columns(path, torch.eye(4))
    path.write_text("Car 0 0 0 0 0 0 0 1.5 1.6 4 1 2 nan 0\n")
    with pytest.raises(FileFormatError, match="line 1"):
        read_label_columns(path, torch.eye(4))
    path.write_text("DontCare -1 -1\n")
    with pytest.raises(FileFormatError, match="line 1"):
        read_label_columns(path, torch.eye(4))


def test_unusual_calibrations(tmp_path: Path):
    path = tmp_path / "calib.txt"
    with pytest.raises(MissingFileError):
        read_projection(path)
    write_calibration(path, torch.zeros(4, 4), torch.zeros(3, 4))
    with pytest.raises(FileFormatError, match="singular"):
        read_calibration(path)
    path.write_text("R0_rect: 1 0 0 0 1 0 0 0 1\n")
    with pytest.raises(FileFormatError, match="lacks P2"):
        read_projection(path)
    with pytest.raises(FileFormatError, match="lacks Tr_velo_to_cam"):
        read_calibration(path)


def test_image_size(tmp_path: Path):
    from PIL import Image

    Image.new("RGB", (31, 17)).save(tmp_path / "a.png")
    assert read_image_size(tmp_path / "a.png") == (31, 17)
    (tmp_path / "b.png").write_text("text")
    with pytest.raises(FileFormatError, match="not an image"):
        read_image_size(tmp_path / "b.png")
    with pytest.raises(MissingFileError):
        read_image_size(tmp_path / "c.png")


def test_columns_without_values_are_unknown(tmp_path: Path):
    boxes = Boxes(torch.tensor([[10.0, 2, -1, 4, 1.8, 1.5, 0.3]]), torch.tensor([0]), classes=("Car",))
    labels = KittiLabels.of(boxes, torch.eye(4))
    write_labels(tmp_path / "a.txt", boxes, torch.eye(4))
    again = read_label_columns(tmp_path / "a.txt", torch.eye(4))
    assert again.truncation.tolist() == [-1]
    assert again.occlusion.tolist() == [-1]
    assert torch.allclose(again.alpha, labels.alpha, atol=1e-5)


@pytest.mark.skipif(DATA is None, reason="VISION3D_DATA is not set")
def test_columns_of_real_labels():
    labels = read_label_columns(Path(DATA or "") / "kitti" / "label_2" / "000001.txt")
    assert [labels.boxes.classes[k] for k in labels.boxes.labels] == ["Truck", "Car", "Cyclist"]
    assert labels.occlusion.tolist() == [0, 0, 3]
    assert labels.boxes_2d[1].tolist() == pytest.approx([387.63, 181.54, 423.81, 203.12])
    calculated = KittiLabels.of(labels.boxes, read_calibration(Path(DATA or "") / "kitti" / "calib" / "000001.txt"))
    assert (calculated.alpha - labels.alpha).abs().max() < 0.02  # the file rounds to 0.01


def test_frames_do_not_depend_on_processes(tmp_path: Path, folder: Path):
    result = synthesize(
        SynthConfig(sensor="vlp16", variety=8, frames=2, val_frames=1, seed=4, workers=2), run_folder=tmp_path / "other"
    )
    assert result.summary["written"] == 3
    for kind, suffix in (("velodyne", "bin"), ("label_2", "txt"), ("calib", "txt")):
        for name in ("000000", "000001", "000002"):
            own = tmp_path / "other" / "training" / kind / f"{name}.{suffix}"
            assert own.read_bytes() == (folder / "training" / kind / f"{name}.{suffix}").read_bytes()
