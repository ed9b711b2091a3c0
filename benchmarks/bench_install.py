"""Installation: time of a clean build, size of the wheel, time of `import vision3d` and `vision3d --help`."""

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from support import ForeignLoad, arguments, refuse_foreign_load, write

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> dict[str, Any]:
    """Wall time of building the committed tree without CUDA, build tools installed; wheel size with and without the demo."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder / "tree", filter="data")
    environment = {**os.environ, "CUDACXX": "", "CMAKE_ARGS": "-DVISION3D_CUDA=OFF", "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        ".",
    ]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder / "tree", env=environment, check=True)
    seconds = time.perf_counter() - start
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as parts:
        sizes = {entry.filename: entry.compress_size for entry in parts.infolist()}
    assets = sum(size for name, size in sizes.items() if name.startswith("vision3d/assets/"))
    native = [name for name in sizes if name.startswith("vision3d/_native")]
    assert native, "the wheel has no native kernels"
    return {"wall_s": seconds, "wheel_bytes": wheel.stat().st_size, "wheel_bytes_without_demo": wheel.stat().st_size - assets}


def wall(*arguments: str, repeats: int = 9) -> float:
    """Median wall time of a Python process in this environment."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def main() -> None:
    options = arguments(__doc__ or "")
    if not options.busy:
        refuse_foreign_load()
    with ForeignLoad() as load, tempfile.TemporaryDirectory() as folder:
        results = {
            "build": build(Path(folder)),
            "interpreter_s": wall("-c", ""),
            "import_s": wall("-c", "import sys, vision3d; assert 'torch' not in sys.modules"),
            "help_s": wall("-m", "vision3d", "--help"),
        }
    print(results)
    write("install", results, load.share)


if __name__ == "__main__":
    main()
