"""`vision3d animate eval` on the command line."""

import json

import torch

from tests.support.refusals import assert_refused
from vision3d.io.images import write_image


def clips(folder):
    for side, level in (("gt", 0.0), ("pred", 0.1)):
        for i in range(2):
            write_image(folder / side / "dragon" / "eval_0" / f"{i}.png", torch.full((32, 32, 3), 0.2 + level))
    return folder


def test_metrics_and_report(cli, tmp_path):
    data = clips(tmp_path / "data")
    code, text, err = cli("animate", "eval", data, "--size", 64, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    assert "dragon" in text and "all objects" in text and "clip: not computed: no CLIP network" in text
    values = json.loads(text.splitlines()[-1])
    assert 19 < values["psnr"] < 21 and values["flicker"] == 0 and "lpips" not in values and values["frames"] == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Worst" in page or "data:image/png" in page
    assert "data range 1" in page and "not computed" in page and "<td>dragon</td>" in page
    assert cli("animate", "eval", data, "--size", 64, "--out", tmp_path / "out", "--resume", "--quiet")[0] == 0


def test_wrong_input(cli, tmp_path):
    out = tmp_path / "out"
    assert_refused(cli("animate", "eval", tmp_path / "none", "--out", out), "does not exist", "{gt,pred}/OBJECT/eval_VIEW")
    data = clips(tmp_path / "data")
    (data / "pred" / "dragon" / "eval_0" / "1.png").unlink()
    assert_refused(cli("animate", "eval", data, "--out", out), "1 missing (pred/dragon/eval_0/1.png)", "--skip-missing")
    assert not out.exists()
    code, text, _ = cli("animate", "eval", data, "--out", out, "--size", 32, "--skip-missing")
    assert code == 0 and "missing in gt or pred: 1" in text
    assert_refused(cli("animate", "eval", data, "--out", out, "--size", 1), "size", "32 to 4096", code=2)
