"""Machine instructions of the CUDA kernels, without a GPU: registers, shared memory, occupancy, longest path of the inner loop.

python benchmarks/count_sass.py [--before CHECKOUT] [--gsplat CHECKOUT] [--sources blend.cu project.cu ...] [--arch 90]

Compiles the sources in cuda_ext/cuda with nvcc and disassembles them with cuobjdump (in the CUDA toolkit, and in the package
triton: `--tools FOLDER`). `--before` adds the kernels of another checkout of this repository, `--gsplat` those of a checkout of
gsplat (with its submodule glm, or `--glm FOLDER`) for 3 channels; torch's headers are those of this Python.

`loop_path` is the longest path through one iteration of the loop with most warp shuffles, else of the longest loop; inner loops
count once. In the kernels that blend it is what a warp executes for a Gaussian that hits it. `divisions` are those of integers
in loops, `spilled` the bytes of registers kept in memory, `atomics` the instructions.
"""

import argparse
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from support import write

ROOT = Path(__file__).parents[1]
WARPS, REGISTERS, SHARED = 64, 65536, 228 << 10  # per multiprocessor of compute capability 9.0
BLOCKS = {"particles_to_grid_kernel": 128}  # threads of a block, where they are not 256
GSPLAT = (
    "ProjectionEWA3DGSFused",
    "Projection2DGSFused",
    "SphericalHarmonicsCUDA",
    *(f"RasterizeToPixels{kind}SerialBatch{way}" for kind in ("3DGS", "2DGS") for way in ("Fwd", "Bwd")),
)
TABLE = (  # ours, gsplat's
    ("blend_kernel<3, false, float>", "rasterize_to_pixels_3dgs_fwd_kernel<3u, 16u"),
    ("blend_vjp_kernel<3, false, float>", "rasterize_to_pixels_3dgs_bwd_kernel"),
    ("blend_2dgs_kernel<3, false, float>", "rasterize_to_pixels_2dgs_fwd_kernel"),
    ("blend_2dgs_vjp_kernel<3, float>", "rasterize_to_pixels_2dgs_bwd_kernel"),
    ("project_kernel<0, false, float>", "projection_ewa_3dgs_fused_fwd_kernel"),
    ("project_vjp_kernel<0, false, float>", "projection_ewa_3dgs_fused_bwd_kernel"),
    ("project_2dgs_kernel<float>", "projection_2dgs_fused_fwd_kernel"),
    ("project_2dgs_vjp_kernel<float>", "projection_2dgs_fused_bwd_kernel"),
    ("sh_colors_kernel<3, float>", "spherical_harmonics_fwd_kernel_k16_3channel<float, float, 3"),
    ("sh_colors_vjp_kernel<3, float>", "spherical_harmonics_bwd_kernel<float, float, 3"),
)
Instruction = tuple[int, str]
Rows = dict[str, dict[str, Any]]


def disassembled(source: Path, options: list[str], folder: Path) -> tuple[str, str]:
    """The SASS of a source, and the resource usage that ptxas prints."""
    target = folder / f"{source.stem}.cubin"
    command = [os.environ.get("CUDACXX", "nvcc"), "-O3", *options, "--resource-usage", "-cubin", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {source} does not compile:\n{done.stderr[:4000]}")
    return subprocess.run(["cuobjdump", "-sass", str(target)], capture_output=True, text=True, check=True).stdout, done.stderr


def our_options(source: Path, root: Path) -> list[str]:
    options = ["-std=c++17", "-I", str(root / "cuda_ext"), "-I", str(root / "cuda_ext/include")]
    return [*options, "-fmad=false"] if source.name in ("meshes.cu", "noise.cu") else options  # as in CMakeLists.txt


def gsplat_options(root: Path, glm: Path, folder: Path) -> list[str]:
    """The options of gsplat's build.py."""
    import torch

    # Written by the build of torch with CUDA; without it, its headers lack only this one.
    stub = folder / "c10/cuda/impl/cuda_cmake_macros.h"
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.touch()
    headers = Path(torch.__file__).parent / "include"
    includes = [
        root / "gsplat/cuda/include",
        root / "gsplat/cuda/csrc",
        glm,
        headers,
        headers / "torch/csrc/api/include",
        folder,
    ]
    options = ["-std=c++20", "-DNDEBUG", "-DGSPLAT_NUM_CHANNELS=3", "-use_fast_math", "--expt-relaxed-constexpr", "-w"]
    return [*options, *(f"-I{path}" for path in (*includes, sysconfig.get_paths()["include"]))]


def readable(symbol: str) -> str:
    """Name and template arguments of a kernel."""
    found = re.search(r"(\d+)([a-z]\w*?_kernel|[a-z]\w*)(I.*?E)?Ev", symbol)
    text = subprocess.run(["c++filt", symbol], capture_output=True, text=True, check=False).stdout.strip()
    text = re.sub(r"void |vision3d::cuda::|\(anonymous namespace\)::|vision3d::|gsplat::", "", text)
    name = re.sub(r"_GLOBAL__N__\w+?::", "", text)
    return re.sub(r"\(.*", "", name) or (found.group(2) if found else symbol)


def longest_path(code: list[Instruction]) -> tuple[int, int, int]:
    """Instructions on the longest path through the most interesting loop, shuffles in it, integer divisions in all loops."""
    at = {address: index for index, (address, _) in enumerate(code)}
    target = {}
    for index, (_, text) in enumerate(code):
        jump = re.search(r"\bBRA(?:\.\w+)*\s+(?:\S+,\s*)?(?:`\()?0x([0-9a-f]+)", text)
        if jump and int(jump.group(1), 16) in at:
            target[index] = at[int(jump.group(1), 16)]
    loops = [(to, index) for index, to in target.items() if to < index]
    if not loops:
        return 0, 0, 0
    # A division of 32 bits is in line and converts to float, rounded up; one of 64 bits calls a function that does so.
    divisions = 0
    for index, (_, text) in enumerate(code):
        call = re.search(r"\bCALL\S*\s+.*0x([0-9a-f]+)", text)
        called = code[at.get(int(call.group(1), 16), len(code)) :] if call else []
        end = next((n for n, (_, later) in enumerate(called) if "RET" in later), len(called))
        divides = ("I2F" in text and ".RP" in text) or any("I2F.U64.RP" in later for _, later in called[:end])
        divisions += divides and any(first <= index <= last for first, last in loops)

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
    return longest.get(end, 0), shuffles((begin, end)), divisions


def kernels(sass: str, usage: str) -> Rows:
    """The figures of all kernels of a source."""
    used = {}
    for part in usage.split("Compiling entry function '")[1:]:
        found = [
            re.search(pattern, part) for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem", r"(\d+) bytes spill stores")
        ]
        used[part.partition("'")[0]] = [int(match.group(1)) if match else 0 for match in found]
    rows = {}
    for part in re.split(r"\n\s*Function : ", sass)[1:]:
        symbol = part.split("\n", 1)[0].strip()
        if "3cub" in symbol:
            continue
        name = readable(symbol)
        code = [(int(address, 16), text.strip()) for address, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?);", part)]
        path, count, divisions = longest_path(code)
        registers, shared, spilled = used.get(symbol, (0, 0, 0))
        block = BLOCKS.get(name.split("<")[0], 256) // 32
        blocks = min(WARPS // block, SHARED // (shared + 1024))
        if registers:
            blocks = min(blocks, REGISTERS // (32 * -(-registers // 8) * 8) // block)
        rows[name] = {
            "instructions": len(code),
            "loop_path": path,
            "loop_shuffles": count,
            "divisions": divisions,
            "atomics": sum(bool(re.search(r"\b(RED|ATOM)[A-Z]*\.", text)) for _, text in code),
            "registers": registers,
            "spilled": spilled,
            "shared_bytes": shared,
            "occupancy": blocks * block / WARPS,
        }
    return rows


def print_table(ours: Rows, before: Rows, gsplat: Rows) -> None:
    """The float32 kernels of 3 channels beside those of gsplat, and those that changed, in Markdown."""

    def cell(row: dict[str, Any] | None) -> str:
        keys = ("loop_path", "instructions", "registers")
        return " / ".join(f"{row[key]}" for key in keys) + f" / {row['occupancy']:.0%}" if row else "-"

    print("\n| kernel | before | now | gsplat |\n|---|---|---|---|")
    theirs = {ours_name: next((gsplat[name] for name in gsplat if name.startswith(start)), None) for ours_name, start in TABLE}
    rest = [name for name in ours if "float" in name and name not in theirs and before and before.get(name) != ours[name]]
    for name in [*theirs, *rest]:
        if name in ours:
            print(f"| `{name}` | {cell(before.get(name))} | {cell(ours[name])} | {cell(theirs.get(name))} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", default=sorted(path.name for path in (ROOT / "cuda_ext/cuda").glob("*.cu")))
    parser.add_argument("--before", type=Path, help="another checkout of this repository")
    parser.add_argument("--gsplat", type=Path, help="checkout of gsplat")
    parser.add_argument("--glm", type=Path, help="checkout of glm, if gsplat's submodule is not checked out")
    parser.add_argument("--arch", default="90")
    parser.add_argument("--tools", type=Path, help="folder with cuobjdump and nvdisasm")
    options = parser.parse_args()
    if options.tools:
        os.environ["PATH"] = f"{options.tools}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("cuobjdump") is None:
        raise SystemExit("error: cuobjdump not found; want the CUDA toolkit on PATH, or --tools FOLDER")
    arch = f"-arch=sm_{options.arch}"
    results: dict[str, Any] = {"arch": f"sm_{options.arch}", "before": {}, "gsplat": {}}
    with tempfile.TemporaryDirectory() as folder:

        def count(source: Path, flags: list[str]) -> Rows:
            rows = kernels(*disassembled(source, [arch, *flags], Path(folder)))
            for kernel, row in rows.items():
                print(f"{source.name:16} {kernel[:60]:60} {row}", flush=True)
            return rows

        for root, into in ((ROOT, results), (options.before, results["before"])):
            for source in [] if root is None else [root / "cuda_ext/cuda" / name for name in options.sources]:
                if source.exists():
                    into[source.name] = count(source, our_options(source, root))
        if options.gsplat:
            glm = options.glm or options.gsplat / "gsplat/cuda/csrc/third_party/glm"
            flags = gsplat_options(options.gsplat, glm, Path(folder))
            for name in GSPLAT:
                source = options.gsplat / f"gsplat/cuda/csrc/{name}.cu"
                results["gsplat"][source.name] = {
                    kernel: row for kernel, row in count(source, flags).items() if "at::" not in kernel
                }

    def merged(files: dict[str, Any]) -> Rows:
        return {kernel: row for name, rows in files.items() if name.endswith(".cu") for kernel, row in rows.items()}

    # Earlier versions call 2D Gaussians discs.
    before = {kernel.replace("discs", "2dgs").replace("disc", "2dgs"): row for kernel, row in merged(results["before"]).items()}
    print_table(merged(results), before, merged(results["gsplat"]))
    write("sass", results, 0.0)


if __name__ == "__main__":
    main()
