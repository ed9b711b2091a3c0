"""Contents of the wheel and the source package, with and without a compiler."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import vision3d

ROOT = Path(vision3d.__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
CODE = "import scikit_build_core.build as b, sys; print(b.{}(sys.argv[1]))"


def build(kind: str, folder: Path, out: Path, **environment: str) -> tuple[Path, str]:
    """Builds a `wheel` or an `sdist` of `folder`; returns its path and the output."""
    command = [sys.executable, "-c", CODE.format(f"build_{kind}"), str(out)]
    env = {**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": "2", "VISION3D_CUDA": "OFF", **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.split()[-1], done.stdout + done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Committed and changed files, without build products."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.exists():
            target.write_bytes(source.read_bytes())
    return folder


def built(checkout: Path, folder: Path) -> Path:
    """The wheel built from the source package, as by `python -m build`."""
    (folder / "out").mkdir()
    sdist, _ = build("sdist", checkout, folder / "out")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        archive.extractall(folder, filter="data")
    assert {"Makefile", ".ci/setup", "tests/conftest.py", "vision3d/viewer/__init__.py"} <= set(names)
    assert not any(name.startswith(("assets/", "configs/", "viewer/")) for name in names)  # each file once
    (source,) = (path for path in folder.iterdir() if path.is_dir() and path.name != "out")
    return build("wheel", source, folder / "out")[0]


def package_files(folder: Path) -> set[str]:
    """The files expected in the wheel of `folder`, with links followed."""
    found = set()
    for base, folders, names in os.walk(folder / "vision3d", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found |= {str((Path(base) / name).relative_to(folder)) for name in names if not name.endswith(".pyc")}
    generators = ("vision3d/assets/demo/", "vision3d/assets/creature/", "vision3d/assets/pedestrian/", "vision3d/assets/hand/")
    return {name for name in found if not (name.startswith(generators) and name.endswith(".py"))}


def check_wheel(path: Path, checkout: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    tops = {name.split("/")[0] for name in sizes}
    assert tops == {"vision3d", f"vision3d_toolkit-{vision3d.__version__}.dist-info"}  # neither tests nor cuda_ext
    native = [name for name in sizes if name.startswith("vision3d/_native")]
    assert len(native) == 1
    assert {name for name in sizes if name.startswith("vision3d/")} - set(native) == package_files(checkout)
    # Photos, trained networks of at most 12 MB (4 MiB a file), rigged meshes with images of at most 1 MB. Code is 1.4 MB of
    # Python and the kernels, 2 MB for three instruction sets.
    data = tuple(f"vision3d/assets/{name}/" for name in ("demo", "weights", "creature", "pedestrian", "hand"))
    assert sum(size for name, size in sizes.items() if not name.startswith(data)) <= 3_700_000
    assert sum(size for name, size in sizes.items() if name.startswith(data[1])) <= 12_000_000
    assert max(size for name, size in sizes.items() if name.startswith(data[1])) <= 4 << 20
    assert sum(size for name, size in sizes.items() if name.startswith(data[2])) <= 1 << 20


def run_installed(wheel: Path, folder: Path, code: str) -> str:
    """Runs `code` with the wheel installed in addition to the packages of this environment."""
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    here = [path for path in sys.path if path.endswith("site-packages")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "site"), *here])}
    command = [folder / "venv" / "bin" / "python", "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_from_the_source_package_has_only_the_package_and_runs_its_kernels(checkout, tmp_path):
    # A single test, as compiling everything takes longer than all others.
    wheel = built(checkout, tmp_path)
    assert {"vision3d/viewer/__init__.py", "vision3d/py.typed"} <= package_files(checkout)
    check_wheel(wheel, checkout)
    code = """
import torch, vision3d
from vision3d.core import native
from vision3d.geometry import quaternion
print(vision3d.__file__, native.module().isa())
print(quaternion.quat_to_rotmat(torch.tensor([1.0, 0, 0, 0])).tolist())
"""
    out = run_installed(wheel, tmp_path, code).splitlines()
    assert out[0].startswith(str(tmp_path)) and out[1] == "[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]"


def test_without_a_compiler_the_pure_package_is_built_and_works(checkout, tmp_path):
    wheel, log = build("wheel", checkout, tmp_path, CXX="/nonexistent/c++", SKBUILD_BUILD_DIR=str(tmp_path / "build"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if name.startswith("vision3d/")} == package_files(checkout)
    assert "installed without native kernels" in log
    code = """
import torch, warnings
from vision3d.geometry import quaternion
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(quaternion.quat_to_rotmat(torch.tensor([1.0, 0, 0, 0])).tolist())
print(len(caught), caught[0].message)
"""
    out = run_installed(wheel, tmp_path, code).splitlines()
    assert out[0] == "[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]"
    assert out[1].startswith("1 vision3d runs on its slow torch reference")
