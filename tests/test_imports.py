"""Imports follow the layers of the architecture."""

import ast
from pathlib import Path

import pytest

import vision3d

ROOT = Path(vision3d.__file__).parent
LAYERS = [
    {"core"},
    {"geometry"},
    {"scene"},
    {"io", "render", "interop"},
    {"optim"},
    {"training"},
    {"report"},
    {"stage"},
    {"stages"},
    {"cli", "viewer"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
GEOMETRY_MAY_IMPORT = {"numpy", "torch", "jaxtyping", "vision3d"}
SOFT = {
    "open3d", "taichi", "viser", "kornia", "onnx", "pxr", "pycolmap", "gsplat", "tensorboard", "trimesh", "zarr", "zstandard",
    "pytorch3d", "embreex", "timm",
    "fast_simplification", "quadrants", "warp", "diffusers", "transformers",
}  # fmt: skip


def sources() -> dict[str, ast.Module]:
    """All modules of the package: dotted name without `vision3d.` -> syntax tree."""
    trees = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in ("configs", "assets"):
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text("utf-8"))
    return trees


SOURCES = sources()


def imported(tree: ast.AST, *, at_import: bool = False) -> set[str]:
    """Dotted names that a module imports; with `at_import`, only those executed on import."""
    names = set()
    for node in statements(tree) if at_import else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def statements(tree: ast.AST):
    """All statements outside functions and outside `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from statements(node)


def violations(name: str, tree: ast.Module) -> list[str]:
    """Imports of `name` from higher layers."""
    own = name.split(".")
    found = []
    for other in imported(tree):
        parts = other.split(".")
        if parts[0] != "vision3d" or len(parts) < 2 or own[0] not in LEVEL:
            continue
        if parts[1] in vision3d._PUBLIC:
            found.append(f"{name} imports {other}: name the module that it comes from")
        if parts[1] not in LEVEL:
            continue
        if LEVEL[parts[1]] > LEVEL[own[0]]:
            found.append(f"{name} imports {other}")
        if own[0] == parts[1] == "stages" and len(own) > 1 and len(parts) > 2 and parts[2] != own[1]:
            found.append(f"{name} imports {other}: stages do not import each other")
    return found


@pytest.mark.parametrize("name", [name for name in SOURCES if name])
def test_imports_go_down(name):
    assert name.split(".")[0] in LEVEL or name == "__main__", f"{name} is not in a layer: add it to LAYERS"
    assert violations(name, SOURCES[name]) == []


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("geometry")])
def test_geometry_imports_only_numpy_and_torch(name):
    import sys

    roots = {other.split(".")[0] for other in imported(SOURCES[name], at_import=True)}
    assert roots - GEOMETRY_MAY_IMPORT - set(sys.stdlib_module_names) == set()


@pytest.mark.parametrize("name", SOURCES)
def test_optional_packages_are_imported_inside_functions(name):
    roots = {other.split(".")[0] for other in imported(SOURCES[name], at_import=True)}
    assert roots & SOFT == set()


@pytest.mark.parametrize(
    ("name", "code", "count"),
    [
        ("geometry.a", "import vision3d.scene", 1),
        ("geometry.a", "def f():\n    from vision3d import render", 1),
        ("render.a", "from vision3d.geometry import quaternion\nfrom vision3d import io", 0),
        ("stages.fit.run", "from vision3d.stages import simulate", 1),
        ("stages.fit.run", "from vision3d.stages.fit import config", 0),
        ("optim.a", "import vision3d.stages.fit", 1),
        ("geometry.a", "from vision3d import GaussianScene", 1),
    ],
)
def test_violations(name, code, count):
    assert len(violations(name, ast.parse(code))) == count


def test_statements_outside_functions():
    code = "import a\nif TYPE_CHECKING:\n  import b\ntry:\n  import c\nexcept ImportError:\n  pass\ndef f():\n  import d"
    assert imported(ast.parse(code), at_import=True) == {"a", "c"}


def test_no_postponed_annotations():
    """They break kernel languages that read annotations, and runtime shape checks."""
    root = ROOT.parent
    folders = [root / name for name in ("vision3d", "tests", "examples", "benchmarks", "assets") if (root / name).is_dir()]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(files) > 20
    feature = "from __future__ import " + "annotations"
    assert [path for path in files if feature in path.read_text("utf-8")] == []


def needed_modules(name: str, tree: ast.Module) -> set[str]:
    """Modules of the package that a module imports, including inside functions, but not for types only."""
    checking = {node for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
                for node in ast.walk(block)}  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node not in checking:
            base = node.module.removeprefix("vision3d").lstrip(".")
            found |= {base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)}
    return {other for other in found & SOURCES.keys() if other and other != name and not name.startswith(f"{other}.")}


def test_no_import_cycles():
    """Including imports inside functions: a cycle means that the shared part belongs into a module of its own."""
    graph = {name: needed_modules(name, tree) for name, tree in SOURCES.items() if name}
    left = dict(graph)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    while ends := [name for name in left if not any(name in others for others in left.values())]:
        for name in ends:
            del left[name]
    assert sorted(left) == []


def test_no_import_cycles_between_folders_of_a_stage():
    """If one folder of a stage imports another, the other does not import from it."""
    edges = set()
    for name, tree in SOURCES.items():
        own = name.split(".")
        for other in imported(tree):
            parts = other.split(".")[1:]
            rooms = [f"stages.{own[1]}.{room}" for room in (own[2], parts[2])] if len(own) > 2 < len(parts) else []
            if rooms and own[0] == parts[0] == "stages" and own[1] == parts[1] and rooms[0] != rooms[1]:
                edges.add(tuple(rooms))
    both = {pair for pair in edges if pair[::-1] in edges and all((ROOT / room.replace(".", "/")).is_dir() for room in pair)}
    assert both == set()
