"""Machine instructions of the CUDA kernels, without a GPU: registers, shared memory, occupancy, longest path of the inner loop.

python benchmarks/count_sass.py [--sources blend.cu project.cu ...] [--arch 90]

Compiles the sources in cuda_ext/cuda with nvcc and disassembles them with cuobjdump (in the CUDA toolkit, and in the package
triton: `--tools FOLDER`). `loop_path` is the longest path through one iteration of the loop with most warp shuffles, else of
the longest loop; inner loops count once. In the kernels that blend it is what a warp executes for a Gaussian that hits it.
"""

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from support import write

ROOT = Path(__file__).parents[1] / "cuda_ext"
WARPS, REGISTERS = 64, 65536  # per multiprocessor of compute capability 9.0
BLOCK = 256  # threads
Instruction = tuple[int, str]


def disassembled(source: Path, arch: str, cuobjdump: str, folder: Path) -> tuple[str, str]:
    """The SASS of a source, and the resource usage that ptxas prints."""
    target = folder / f"{source.stem}.o"
    nvcc, include = os.environ.get("CUDACXX", "nvcc"), ["-I", str(ROOT), "-I", str(ROOT / "include")]
    command = [
        nvcc,
        "-std=c++17",
        f"-arch=sm_{arch}",
        "-O3",
        *include,
        "--resource-usage",
        "-c",
        str(source),
        "-o",
        str(target),
    ]
    if source.name == "meshes.cu":
        command.append("-fmad=false")  # as in CMakeLists.txt
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return subprocess.run([cuobjdump, "-sass", str(target)], capture_output=True, text=True, check=True).stdout, usage


def readable(symbol: str) -> str:
    """Name and template arguments of a kernel."""
    found = re.search(r"(\d+)([a-z]\w*?_kernel|[a-z]\w*)(I.*?E)?Ev", symbol)
    text = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=False).stdout.strip()
    text = re.sub(r"void |vision3d::cuda::|\(anonymous namespace\)::|vision3d::", "", text)
    name = re.sub(r"_GLOBAL__N__\w+?::", "", text)
    return re.sub(r"\(.*", "", name) or (found.group(2) if found else symbol)


def longest_path(code: list[Instruction]) -> tuple[int, int]:
    """Instructions on the longest path through the most interesting loop, and shuffles in that loop; 0, 0 without loops."""
    at = {address: index for index, (address, _) in enumerate(code)}
    target = {}
    for index, (_, text) in enumerate(code):
        jump = re.search(r"\bBRA(?:\.\w+)*\s+(?:\S+,\s*)?(?:`\()?0x([0-9a-f]+)", text)
        if jump and int(jump.group(1), 16) in at:
            target[index] = at[int(jump.group(1), 16)]
    loops = [(to, index) for index, to in target.items() if to < index]
    if not loops:
        return 0, 0

    def shuffles(loop: tuple[int, int]) -> int:
        return sum("SHFL" in text for _, text in code[loop[0] : loop[1] + 1])

    # The innermost loop with most shuffles.
    begin, end = min(loops, key=lambda loop: (-shuffles(loop), loop[1] - loop[0] if shuffles(loop) else loop[0] - loop[1]))
    longest = {begin: 1}
    for index in range(begin, end + 1):
        if index not in longest:
            continue
        nexts = [target[index]] if index in target else []
        if not (index in target and not code[index][1].startswith("@")) and not code[index][1].startswith("EXIT"):
            nexts.append(index + 1)
        for after in nexts:
            if index < after <= end:
                longest[after] = max(longest.get(after, 0), longest[index] + 1)
    return longest.get(end, 0), shuffles((begin, end))


def kernels(sass: str, usage: str) -> dict[str, dict[str, Any]]:
    """The figures of all kernels of a source."""
    used = {}
    for part in usage.split("Compiling entry function '")[1:]:
        registers, shared = (re.search(pattern, part) for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem"))
        used[part.partition("'")[0]] = int(registers.group(1)) if registers else 0, int(shared.group(1)) if shared else 0
    found = {}
    for part in re.split(r"\n\s*Function : ", sass)[1:]:
        symbol = part.split("\n", 1)[0].strip()
        if "3cub" in symbol:
            continue
        code = [(int(address, 16), text.strip()) for address, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", part)]
        path, count = longest_path(code)
        registers, shared = used.get(symbol, (0, 0))
        warps = WARPS if not registers else min(WARPS, REGISTERS // (32 * -(-registers // 8) * 8))
        warps = warps // (BLOCK // 32) * (BLOCK // 32)
        row = {"instructions": len(code), "loop_path": path, "loop_shuffles": count, "registers": registers}
        found[readable(symbol)] = {**row, "shared_bytes": shared, "occupancy": warps / WARPS}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", default=sorted(path.name for path in (ROOT / "cuda").glob("*.cu")))
    parser.add_argument("--arch", default="90")
    parser.add_argument("--tools", type=Path, help="folder with cuobjdump and nvdisasm")
    options = parser.parse_args()
    if options.tools:
        os.environ["PATH"] = f"{options.tools}{os.pathsep}{os.environ['PATH']}"
    cuobjdump = shutil.which("cuobjdump")
    if cuobjdump is None:
        raise SystemExit("error: cuobjdump not found; want the CUDA toolkit on PATH, or --tools FOLDER")
    results: dict[str, Any] = {"arch": f"sm_{options.arch}"}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sources:
            results[name] = kernels(*disassembled(ROOT / "cuda" / name, options.arch, cuobjdump, Path(folder)))
            for kernel, row in results[name].items():
                print(f"{name:16} {kernel[:60]:60} {row}", flush=True)
    write("sass", results, 0.0)


if __name__ == "__main__":
    main()
