import json

import pytest

from tests.support.photos import blobs, write_photos
from vision3d.core.config import load_yaml, presets
from vision3d.io.images import image_size
from vision3d.stages.fit import FitConfig

FEW = ["--steps", 4, "--max-gaussians", 60, "--sh-degree", 1]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


def test_fit_then_eval(photos, tmp_path, cli):
    code, out, err = cli("fit", photos, "--out", tmp_path / "run", *FEW, "--json")
    assert code == 0, err
    values = json.loads(out.splitlines()[-1])
    assert values["ok"] and values["steps"] == 4 and values["psnr"] > 5
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["results"]["psnr"] == values["psnr"] and summary["status"] == "done"
    code, out, err = cli("eval", tmp_path / "run" / "scene.ply", photos, "--out", tmp_path / "eval", "--json")
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["psnr"] == pytest.approx(values["psnr"], abs=1e-6)
    assert "images/002.png  PSNR" in out and "above_nearest" in out
    written = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert written["mean"]["psnr"] == pytest.approx(values["psnr"], abs=1e-6) and len(written["views"]) == 2
    assert len(list((tmp_path / "eval" / "renders").glob("*.png"))) == 2
    assert min(image_size(tmp_path / "eval" / "contact_sheet.png")) > 100
    code, _, err = cli("eval", tmp_path / "run" / "scene.ply", photos, "--out", tmp_path / "eval")
    assert code == 5 and "exists and is not empty; give --overwrite or another --out" in err


@pytest.mark.parametrize("name", list(presets("fit")))
def test_presets_are_valid_and_run(photos, tmp_path, cli, name):
    load_yaml(FitConfig, name, stage="fit")
    options = ["--steps", 2, "--init-count", 60, "--max-gaussians", 60]
    code, _, err = cli("fit", photos, "--out", tmp_path / "run", "--config", name, *options)
    assert code == 0, err


def test_presets_named_in_the_documentation_exist():
    assert {"default", "fast", "quality"} <= set(presets("fit"))
    assert load_yaml(FitConfig, "default", stage="fit") == FitConfig()


def test_help_names_every_option(cli):
    code, out, _ = cli("fit", "--help")
    assert code == 0
    for option in ("--minutes", "--max-gaussians", "--rates.means", "--loss.ssim", "--mcmc.noise", "--pose-opt", "--sfm"):
        assert option in out
    code, out, _ = cli("eval", "--help")
    assert code == 0 and "--alpha-max" in out


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["fit", "nowhere"], 3, "nowhere: does not exist; want a folder of photos"),
        (["fit"], 2, "PATH"),
        (["fit", "SET", "--step", "3"], 2, "--step: unknown option of vision3d fit; did you mean --steps"),
        (["fit", "SET", "--steps", "many"], 2, "Error parsing --steps"),
        (["fit", "SET", "--steps", "0"], 2, "steps: got 0, want a number > 0"),
        (["fit", "SET", "--strategy", "none"], 2, "strategy"),
        (["fit", "SET", "--config", "nothing"], 3, "nothing: does not exist; want a YAML file or a preset of fit"),
        (["fit", "SET", "--device", "tpu"], 4, "device tpu: unknown"),
        (["fit", "SET", "--backend", "gsplat"], 4, "backend gsplat needs a CUDA device"),
        (["fit", "SET", "--split-every", "1"], 3, ""),
        (["eval", "nowhere.ply", "SET"], 3, "nowhere.ply"),
        (["eval", "SCENE", "nowhere"], 3, "nowhere: does not exist"),
        (["eval", "SCENE", "SET", "--alpha-max", "2"], 2, "--alpha-max: got 2.0, want a number in (0, 1)"),
        (["eval", "SCENE", "SET", "--background", "0", "0", "7"], 2, "--background: got"),
        (["eval", "SCENE", "SET", "--lpips-weights", "nowhere.pt"], 3, "nowhere.pt: does not exist"),
        (["eval", "SCENE"], 2, "PATH"),
    ],
)
def test_wrong_command_lines(photos, tmp_path, cli, arguments, code, message):
    blobs().save(tmp_path / "scene.ply")
    named = {"SET": photos, "SCENE": tmp_path / "scene.ply"}
    arguments = [named.get(argument, argument) for argument in arguments]
    if arguments[:2] == ["fit", photos]:
        arguments += ["--out", tmp_path / "run", *([] if "--steps" in arguments else FEW)]
    if "--split-every" in arguments:  # the set defines its own split, so remove that
        content = json.loads((photos / "transforms.json").read_text())
        content = {key: value for key, value in content.items() if "filenames" not in key}
        arguments[1] = write_photos(tmp_path / "unsplit")
        (arguments[1] / "transforms.json").write_text(json.dumps(content))
    got, _, err = cli(*arguments)
    assert got == code, err
    assert message in err
    assert "Traceback" not in err and "internal error" not in err
