"""The commands of detect: check, run, eval, train, and wrong input."""

import json

import numpy as np
import pytest

from tests.support.sweeps import write_folder

TINY = [
    "--model.method", "pillars", "--model.channels", "8", "--model.head-channels", "8", "--model.bev.channels", "8",
    "--model.bev.layers", "1", "--model.bev.up-channels", "8", "--model.grid.voxel", "0.8", "0.8", "0.5", "--workers", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("kitti"), 3)


def changed_labels(folder, change):
    for file in (folder / "label_2").iterdir():
        lines = [line.split() for line in file.read_text().splitlines()]
        file.write_text("".join(" ".join(change(words)) + "\n" for words in lines))
    return folder


def test_train_run_eval(cli, tmp_path, folder):
    out = tmp_path / "train"
    assert cli("detect", "train", folder, "--steps", 2, *TINY, "--out", out, "--quiet")[0] == 0
    weights = out / "detector.safetensors"
    done = cli("detect", "run", folder, "--weights", weights, "--score", 0, "--out", tmp_path / "run", "--json")
    assert done[0] == 0
    assert json.loads(done[1].splitlines()[-1])["sweeps"] == 3
    done = cli("detect", "eval", folder, "--weights", weights, "--out", tmp_path / "eval")
    assert done[0] == 0
    assert "AP R40" in done[1]
    sweep = folder / "velodyne" / "000000.bin"
    one = cli("detect", "run", sweep, "--weights", weights, "--out", tmp_path / "one", "--sensor-height", 1.73)
    assert one[0] == 0
    assert not (tmp_path / "one" / "video.mp4").exists()


def test_a_good_folder_has_no_problems(cli, folder):
    done = cli("detect", "check", folder, "--json")
    assert done[0] == 0
    values = json.loads(done[1].splitlines()[-1])
    assert values["problems"] == []
    assert abs(values["sensor_height"] - 1.73) < 0.05
    assert sum(row["boxes"] for row in values["classes"].values()) == 9


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda w: [*w[:12], str(float(w[12]) - 1.2), *w[13:]], "m above the ground"),
        (lambda w: [*w[:8], w[10], w[9], w[8], *w[11:]], "order is height width length"),
        (lambda w: [*w[:4], "0", "0", "0", "0", *w[8:]], "no label has a 2D box"),
        (lambda w: [*w[:11], str(float(w[11]) + 30), *w[12:]], "have fewer than 5 points inside"),
        (lambda w: ["Tram", *w[1:]], "Car: no labels; the data set has Tram"),
    ],
)
def test_check_says_what_makes_an_ap_of_zero(cli, tmp_path, change, text):
    folder = changed_labels(write_folder(tmp_path / "kitti", 3), change)
    done = cli("detect", "check", folder)
    assert done[0] == 3
    assert text in done[1]


@pytest.mark.parametrize(
    "arguments, code, text",
    [
        (["run", "nowhere"], 3, "nowhere: does not exist"),
        (["run", "FOLDER", "--weights", "nope"], 3, "nope: does not exist; want weights"),
        (["run", "FOLDER", "--score", "2"], 2, "score"),
        (["train", "nowhere"], 3, "KITTI's layout"),
        (["train", "FOLDER", "--model.grid.voxel", "0", "1", "1"], 2, "voxel"),
        (
            ["train", "FOLDER", *TINY, "--model.grid.low", 500, -25, -3, "--model.grid.high", 550, 25, 1],
            3,
            "no point of the first",
        ),
        (["train", "FOLDER", "--model.lion.operator", "mambo", "--model.method", "lion"], 2, "mamba"),
        (["eval", "FOLDER", "--split", "val", "--weights", "W"], 3, "val.txt"),
        (["check", "nowhere"], 3, "KITTI's layout"),
        (["dance"], 2, "unknown task"),
    ],
)
def test_wrong_input_has_one_line(cli, tmp_path, folder, arguments, code, text):
    out = tmp_path / "train"
    if "W" in arguments:
        assert cli("detect", "train", folder, "--steps", 1, *TINY, "--out", out, "--quiet")[0] == 0
    given = [{"FOLDER": str(folder), "W": str(out / "detector.safetensors")}.get(word, word) for word in arguments]
    more = [] if given[0] in ("check", "dance") else ["--out", tmp_path / "run"]
    done = cli("detect", *given, *more)
    assert done[0] == code
    assert text in done[2]
    assert "Traceback" not in done[2]
    assert not (tmp_path / "run").exists()


def test_export_and_its_errors(cli, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "out.onnx"
    code, out, err = cli("detect", "export", path, "--boxes", "20", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["outputs"]["boxes"] == [20, 7]
    before = path.read_bytes()
    for arguments, want, words in (
        ([path], 5, "exists; give --overwrite"),
        ([tmp_path / "out.pt"], 3, "want a file ending in .onnx"),
        ([tmp_path / "a.onnx", "--weights", "nope"], 3, "want weights (.safetensors)"),
        ([tmp_path / "a.onnx", "--boxes", "0"], 2, "got 0, want at least 1"),
    ):
        code, _, err = cli("detect", "export", *arguments)
        assert (code, words in err) == (want, True), err
        assert len(err.strip().splitlines()) == 1
    assert path.read_bytes() == before and sorted(tmp_path.iterdir()) == [path]


def test_weights_of_another_operator(cli, tmp_path, folder):
    for name, words in (
        ("mambo", "did you mean mamba"),
        ("ttt", "have another one: detector (gated_deltanet), detector_pillars (pillars)"),
    ):
        code, _, err = cli("detect", "run", folder, "--operator", name, "--out", tmp_path / "out")
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1, err
        assert not (tmp_path / "out").exists()


def test_a_sweep_without_points_in_reach_has_a_warning(cli, tmp_path):
    points = np.random.default_rng(0).uniform(4000, 5000, (1000, 4)).astype(np.float32)
    points.tofile(tmp_path / "millimeters.bin")
    code, _, err = cli("detect", "run", tmp_path / "millimeters.bin", "--out", tmp_path / "out")
    assert code == 0 and "no sector has 20 points within 51.2 m" in err
