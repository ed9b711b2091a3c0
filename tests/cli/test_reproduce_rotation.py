"""`vision3d reproduce rotation`."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.clouds import drawn_clouds, write_clip, write_clouds
from tests.support.refusals import assert_refused

QUICK = ["--steps", 4, "--checkpoint-every", 2, "--representations", "6d", "quat"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rotations")
    write_clouds(folder / "clouds.npz")
    for seed, name in enumerate(("a", "b", "c")):
        write_clip(folder / f"{name}.bvh", seed=seed)
    write_clip(folder / "other.bvh", bone=12.0)
    write_clip(folder / "short.bvh", poses=8, seed=4)
    np.savez(folder / "wrong.npz", train=drawn_clouds(3))
    (folder / "empty").mkdir()
    return folder


def arguments_of(part, data):
    return {
        "sanity": ["--batch-size", 8, "--width", 16, "--test-rotations", 50],
        "pointcloud": [data / "clouds.npz", "--clouds", 2, "--rotations", 2, "--points", 16, "--test-rotations", 2],
        "ik": [data / "a.bvh", data / "b.bvh", "--test", data / "c.bvh", "--width", 16, "--batch-size", 4],
    }[part]


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom vision3d.cli.app import execute\n"
        "codes = [execute(['reproduce', 'rotation', *part, '--help']) for part in ([], ['sanity'], ['pointcloud'], ['ik'])]\n"
        "assert codes == [0] * 4 and 'torch' not in sys.modules, codes"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "sanity      reproduce the input rotation" in done.stdout and "--hip-weight" in done.stdout


def test_names(cli):
    assert cli("reproduce", "rotation")[0] == 2
    code, _, err = cli("reproduce", "rotation", "santy")
    assert code == 2 and "santy: unknown part; did you mean sanity?" in err
    code, _, err = cli("reproduce", "rotation", "--quiet")
    assert code == 2 and "--quiet: unknown option of vision3d reproduce rotation" in err
    code, _, err = cli("reproduce", "rotation", "sanity", "--stepps", 3)
    assert code == 2 and "--stepps: unknown option of vision3d reproduce rotation sanity; did you mean --steps" in err


@pytest.mark.parametrize("part", ["sanity", "pointcloud", "ik"])
def test_every_part_trains_reports_and_resumes(cli, data, tmp_path, part):
    out = tmp_path / "run"
    arguments = ["reproduce", "rotation", part, *arguments_of(part, data), *QUICK, "--seeds", 0, "--out", out]
    code, text, err = cli(*arguments, "--json")
    assert code == 0, err
    values = json.loads(text.splitlines()[-1])
    rows = {row["representation"]: row for row in values["by_representation"]}
    assert list(rows) == ["6d", "quat"] and values["mean_error_6d"] == rows["6d"]["mean"]
    assert "differences from the publication:" in text and "- 4 steps" in text and text.count("published mean") == 1
    page = (out / "report.html").read_text()
    assert "<h2>By representation</h2>" in page and "published mean" in page and page.count("data:image/png") >= 1
    assert "<h2>Differs from publication</h2>" in page
    code, text, err = cli(*arguments, "--resume", "--json", "--quiet", "--seeds", 0, 1)
    assert code == 0, err
    more = json.loads(text.splitlines()[-1])
    assert [row["mean_of_seeds"][0] for row in more["by_representation"]] == [row["mean"] for row in rows.values()]
    assert sorted(path.name for path in (out / "trainings").iterdir()) == [
        f"{rep}_seed{seed}" for rep in ("6d", "quat") for seed in (0, 1)
    ]
    code, _, err = cli(*arguments)
    assert code == 5 and "exists and is not empty; give --overwrite, --resume" in err
    code, _, err = cli(*arguments, "--resume", "--lr", 0.5)
    assert code == 2 and "cannot resume" in err and "0.5 here" in err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            ["sanity", "--representations", "6dd"],
            2,
            "representations: '6dd' is not a representation of a rotation; did you mean 6d",
        ),
        (["sanity", "--steps", "0"], 2, "steps: got 0, want at least 1"),
        (["sanity", "--seeds", "one"], 2, "--seeds: invalid value 'one'"),
        (["sanity", "--loss", "angle"], 2, "--loss"),
        (["pointcloud", "nowhere.npz"], 3, "nowhere.npz: does not exist; want an .npz"),
        (["pointcloud", "{data}/wrong.npz"], 3, "wrong.npz: has arrays train; want train and test (clouds, points, 3)"),
        (["pointcloud", "{data}/empty"], 3, "points: holds no .pts or .xyz files"),
        (["pointcloud", "{data}/clouds.npz"], 3, "clouds of train have 40 points, fewer than --points 256"),
        (["pointcloud", "{data}/a.bvh"], 3, "a.bvh: is damaged or not an .npz"),
        (["ik", "{data}/a.bvh", "--test", "nowhere.bvh"], 3, "nowhere.bvh: does not exist"),
        (["ik", "{data}/a.bvh", "--test", "{data}/a.bvh"], 3, "has the same motion as"),
        (["ik", "{data}/a.bvh", "--test", "{data}/other.bvh"], 3, "other.bvh: has a different skeleton than"),
        (["ik", "{data}/a.bvh", "--test", "{data}/short.bvh"], 3, "short.bvh: 8 poses at 30 per second, want at least 16"),
        (["ik", "--test", "{data}/a.bvh"], 3, "clips: got 0 to train on and 1 for testing"),
        (["ik", "{data}/a.bvh"], 2, "--test"),
        (["ik", "{data}/a.bvh", "--test", "{data}/b.bvh", "--weighted", "Knee"], 2, "weighted: no joint is named 'Knee'"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(cli, data, tmp_path, arguments, code, text):
    out = tmp_path / "run"
    arguments = [str(argument).replace("{data}", str(data)) for argument in arguments]
    assert_refused(cli("reproduce", "rotation", *arguments, "--out", out), text, code=code)
    assert not out.exists()


def test_a_run_is_not_resumed_with_other_clouds(cli, data, tmp_path):
    out = tmp_path / "run"
    arguments = [*arguments_of("pointcloud", data), *QUICK, "--out", out]
    assert cli("reproduce", "rotation", "pointcloud", *arguments)[0] == 0
    arguments[0] = write_clouds(tmp_path / "other.npz", count=13)
    code, _, err = cli("reproduce", "rotation", "pointcloud", *arguments, "--resume")
    assert code == 2 and re.search(r"which is a run on .*clouds\.npz, with .*other\.npz$", err) and (out / "trainings").is_dir()


def test_the_commands_of_the_documentation_are_valid(cli):
    text = (Path(__file__).parents[2] / "docs" / "reproduce_rotation.md").read_text("utf-8")
    commands = [line.partition("#")[0] for line in text.splitlines() if line.startswith("vision3d reproduce rotation")]
    assert len(commands) >= 5
    for command in commands:
        code, out, err = cli(*command.split()[1:], "--print-config")
        assert code == 0 and "representations:" in out, err
