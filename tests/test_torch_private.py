"""Torch's private parts: used in one module only, with the behavior pinned here, from the oldest to the newest torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import vision3d
from vision3d.core import native, torch_private
from vision3d.core.errors import BackendError

ROOT = Path(vision3d.__file__).parent
AT_HOME = ROOT / "core" / "torch_private.py"


def private_names(tree: ast.AST) -> list[str]:
    """Private names (with a leading underscore) that a module imports or reads from torch."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == "torch"]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"(torch|forward_ad)[\w.]+", ast.unparse(node)):
            found.append(ast.unparse(node))
    private = {name for name in found if any(part[:1] == "_" and part[:2] != "__" for part in name.split("."))}
    return sorted(name for name in private if name != "torch._C")


def test_no_other_module_uses_private_names():
    trees = {path: ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}
    assert len(trees) > 200
    assert {str(path): private_names(tree) for path, tree in trees.items() if path != AT_HOME and private_names(tree)} == {}
    assert private_names(trees[AT_HOME]) == [
        "forward_ad._current_level",
        "torch._C._are_functorch_transforms_active",
        "torch._C._len_torch_dispatch_stack",
        "torch._library.autograd.make_autograd_impl",
    ]


def test_custom_operations_use_no_private_attributes():
    names = {"_init_fn", "_opoverload", "_lib", "_backward_fn", "_setup_context_fn", "_abstract_fn", "_qualname", "_name"}
    found = []
    for path in (ROOT / "core" / "native.py", ROOT / "core" / "op_records.py", AT_HOME):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        found += [(path.name, node.attr) for node in nodes if isinstance(node, ast.Attribute) and node.attr in names]
    assert found == []


def test_forward_mode():
    assert not torch_private.forward_mode_is_on()
    with forward_ad.dual_level():
        assert torch_private.forward_mode_is_on()
        dual = forward_ad.make_dual(torch.ones(2), torch.ones(2))
        assert native.has_tangent(dual) and native.has_tangent([torch.ones(1), dual])
        assert not native.has_tangent(torch.ones(2))
    assert not torch_private.forward_mode_is_on()
    inside = []
    torch.func.jvp(lambda x: inside.append(torch_private.forward_mode_is_on()) or x, (torch.ones(1),), (torch.ones(1),))
    assert inside == [True]


def test_dispatch_modes():
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    assert not torch_private.dispatch_mode_is_on()
    with Mode():
        assert torch_private.dispatch_mode_is_on()
    assert not torch_private.dispatch_mode_is_on()


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad, torch.func.functionalize])
def test_transforms(transform):
    inside = []

    def look(x):
        inside.append(torch_private.transform_is_on())
        return x.sum()

    assert not torch_private.transform_is_on()
    transform(look)(torch.ones(3))
    assert inside == [True]
    assert not torch_private.transform_is_on()


@pytest.mark.skipif(native.module() is None, reason="the native module is not built")
def test_an_operation_has_gradients_and_no_tangents():
    """The Autograd kernel is torch's own behind a check: gradients as usual, BackendError for all forward modes."""
    from vision3d.render.splats.native_3dgs import _sh_colors

    g = torch.Generator().manual_seed(0)
    means, sh = (torch.rand(shape, generator=g, dtype=torch.float64) for shape in ((1, 5, 3), (1, 1, 5, 4, 3)))
    rest = (torch.full((1, 1, 3), -2.0, dtype=torch.float64), torch.zeros(5, dtype=torch.int64), torch.arange(5), 1)
    assert torch.autograd.gradcheck(lambda m, s: _sh_colors(m, s, *rest), (means.requires_grad_(), sh.requires_grad_()))
    means, sh = means.detach(), sh.detach()
    for op in (_sh_colors.op, torch.ops.vision3d.sh_colors, _sh_colors):
        with forward_ad.dual_level(), pytest.raises(BackendError, match="sh_colors: has no forward-mode derivatives"):
            op(forward_ad.make_dual(means, torch.ones_like(means)), sh, *rest)
        with pytest.raises(BackendError, match="sh_colors: has no forward-mode derivatives"):
            torch.func.jvp(lambda m, op=op: op(m, sh, *rest), (means,), (torch.ones_like(means),))
    assert native.direct(_sh_colors.op) is _sh_colors.op
    with torch.no_grad():  # the operation calls this directly
        quick = native.direct(_sh_colors.op)
        assert quick is not _sh_colors.op and torch.equal(quick(means, sh, *rest), _sh_colors.op(means, sh, *rest))


def test_versions_count_changes_in_place():
    values = torch.zeros(4)
    before = torch_private.version_of(values)
    values[1:] += 1  # through a view
    assert torch_private.version_of(values) > before
    again = torch_private.version_of(values)
    _ = values + 1
    assert torch_private.version_of(values) == again


def test_constants_are_not_traced():
    """In a separate process, as it imports the compiler: marked functions are not traced, so graphs do not break."""
    code = """
import torch
from vision3d.core import torch_private

@torch_private.constant_while_compiling
def flag():
    return bool(__import__("os").environ.get("HOME"))  # not traceable by the compiler

def function(x):
    return x + 1 if flag() else x - 1

assert torch.equal(torch.compile(function, backend="eager", fullgraph=True)(torch.ones(2)), torch.full((2,), 2.0))
print("done")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.strip() == "done", result.stderr[-2000:]
