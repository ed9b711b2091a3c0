"""The flat namespace: one list of names for Python, type checkers and readers."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vision3d import geometry as g

STUB = Path(g.__file__).with_suffix(".pyi")
PAGE = Path(__file__).parents[2] / "docs" / "rotations.md"


def test_the_stub_exports_what_it_imports():
    tree = ast.parse(STUB.read_text("utf-8"))
    (exported,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(exported)) == g.__all__ == sorted(set(g.__all__))


def test_every_name_is_in_dir_without_torch_and_loads():
    code = "from vision3d import geometry as g; import sys; print(set(g.__all__) <= set(dir(g)), 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True False\n"
    for name in g.__all__:
        assert getattr(g, name) is not None
    with pytest.raises(AttributeError, match=r"module 'vision3d\.geometry' has no attribute 'rotvec_to_matrix'"):
        _ = g.rotvec_to_matrix


@pytest.mark.parametrize("source", ["quat", "rotmat", "rotvec"])
@pytest.mark.parametrize("target", ["quat", "rotmat", "rotvec"])
def test_conversions_have_consistent_names(source, target):
    quats = g.random_quats(20, dtype=torch.float64)
    values = {"quat": g.quat_positive_w(quats), "rotmat": g.quat_to_rotmat(quats), "rotvec": g.quat_to_rotvec(quats)}
    if source != target:
        found = getattr(g, f"{source}_to_{target}")(values[source])
        found = g.quat_positive_w(found) if target == "quat" else found
        torch.testing.assert_close(found, values[target], atol=1e-12, rtol=0)


def test_every_name_of_the_page_exists():
    table = PAGE.read_text("utf-8").partition("## Names of other libraries")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:-1] for row in table.splitlines() if row.startswith("| `") and "| roma |" not in row]
    assert len(rows) > 20
    for ours, *_ in rows:
        for name in re.findall(r"`([A-Za-z_0-9]+)", ours):
            assert hasattr(g, name), name


@pytest.mark.parametrize("column, module", [(2, "roma"), (4, "kornia.geometry")])
def test_names_of_other_libraries_exist(column, module):
    library = pytest.importorskip(module)
    table = PAGE.read_text("utf-8").partition("## Names of other libraries")[2].partition("\n## ")[0]
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| `") and "| roma |" not in row]
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row[column])]
    assert len(names) > 5
    for name in names:
        assert hasattr(library, name), name


def test_moved_names_warn():
    from vision3d.stages import rotation

    with pytest.warns(DeprecationWarning, match=r"vision3d\.stages\.rotation\.RotationHead is now vision3d\.geometry\.Rot"):
        assert rotation.RotationHead is g.RotationHead


def test_the_examples_of_the_page_run():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    torch.testing.assert_close(names["head"](torch.zeros(32, 128))[0], torch.eye(3))
    assert names["joints"](torch.zeros(2, 128)).shape == (2, 20, 3, 3)
    assert names["values"].shape == (1, 9) and names["points"].shape == (1, 3)
