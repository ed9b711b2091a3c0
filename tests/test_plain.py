import json
import math
from pathlib import Path

import pytest
import torch

from vision3d.cli.options import VerbOptions
from vision3d.cli.output import print_summary
from vision3d.core.plain import from_json, to_json


def test_json_has_no_infinity():
    value = {
        "psnr": math.inf,
        "views": (1, -math.inf, {"ssim": math.nan}),
        "file": Path("a/b"),
        3: torch.tensor([1.0, math.inf]),
    }
    text = to_json(value)
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == {
        "psnr": None, "views": [1, None, {"ssim": None}], "file": "a/b", "3": [1.0, None],
    }  # fmt: skip
    assert to_json("ä") == '"\\u00e4"' and to_json("ä", ascii_only=False) == '"ä"'


def test_hostile_json_is_a_value_error():
    deep = 100 * "[" + "1" + 100 * "]"
    assert to_json(from_json(deep)) == deep  # what is read can be written
    for text in (f"[{deep}]", 10**5 * "[", 10**5 * '{"a":', b"\xff", f"[{10**400}]", f"[{10**308}]"):
        with pytest.raises(ValueError, match=r"nested deeper than 100|utf-8|integer has \d+ digits, want at most 308"):
            from_json(text)
    assert from_json(f"[{10**307}, -1, 1e400]") == [10**307, -1, math.inf]


def test_summaries_of_verbs(tmp_path, capsys):
    print_summary(VerbOptions(json=True, quiet=True), "", {"psnr": math.inf, "file": tmp_path})
    assert capsys.readouterr().out == f'{{"ok": true, "psnr": null, "file": "{tmp_path}"}}\n'
