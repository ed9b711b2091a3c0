"""Rotations: native kernels against torch and roma, round trips, extreme values, the noise laws of the projections."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, arguments, machine, write
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.rotations import hostile, rotmats_at_all_angles
from vision3d.core import native
from vision3d.geometry import quaternion, representations, rotation
from vision3d.geometry.gram_schmidt import haar_rotmats

COUNT = 1_000_000


def peers() -> dict[str, Callable[[Tensor], Tensor]]:
    """roma's function for each operation; empty if it is not installed."""
    try:
        import roma
    except ImportError:
        return {}
    return {
        "gram_schmidt": lambda x: roma.special_gramschmidt(x.view(-1, 2, 3).mT),
        "nearest_rotation": roma.special_procrustes,
        "so3_exp": roma.rotvec_to_rotmat,
        "so3_log": roma.rotmat_to_rotvec,
        "quat_to_rotmat": lambda x: roma.unitquat_to_rotmat(roma.quat_normalize(x)),
        "rotmat_to_quat": roma.rotmat_to_unitquat,
    }


def step(function: Callable[[Tensor], Tensor], values: Tensor, upstream: Tensor) -> None:
    """Forward and backward."""
    leaf = values.detach().requires_grad_()
    function(leaf).backward(upstream)


def in_turns(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of each function; they alternate in each round, so ratios are between adjacent timings."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for k in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if k:  # the first round warms up
                times[name].append(time.process_time() - start)
    return {name: sorted(found) for name, found in times.items()}


def speed() -> dict[str, Any]:
    """Forward and backward of a million rotations (200 000 of `nearest_rotation`) in float32 on one core."""
    ops = {
        "gram_schmidt": (rotation._gram_schmidt, torch.randn(COUNT, 6)),
        # torch needs seconds to decompose a million matrices
        "nearest_rotation": (rotation._nearest_rotation, torch.randn(COUNT // 5, 3, 3)),
        "so3_exp": (rotation._so3_exp, torch.randn(COUNT, 3)),
        "so3_log": (rotation._so3_log, haar_rotmats(3, COUNT)),
        "quat_to_rotmat": (quaternion._quat_to_rotmat, torch.randn(COUNT, 4)),
        "rotmat_to_quat": (quaternion._rotmat_to_quat, haar_rotmats(3, COUNT)),
    }
    others, results = peers(), {}
    for name, (op, values) in ops.items():
        upstream = torch.randn_like(op.forward(values))
        functions = {"native": op.forward, "torch": op.reference} | ({"roma": others[name]} if name in others else {})
        calls = {who: lambda f=function, x=values, v=upstream: step(f, x, v) for who, function in functions.items()}
        times = in_turns(calls, 3 if name == "nearest_rotation" else 5)
        median = {who: found[len(found) // 2] for who, found in times.items()}
        ratios = {who: median[who] / median["native"] for who in median if who != "native"}
        least = {who: found[0] for who, found in times.items()}
        results[name] = {"rows": len(values), "cpu_s": median, "least_cpu_s": least, "times_faster_than": ratios}
        print(name, len(values), {who: f"{1e3 * t:.1f} ms" for who, t in median.items()}, ratios, flush=True)
    return results


def round_trips() -> dict[str, Any]:
    """Maximum angle [rad] between a rotation and its round trip, over 10^5 uniform ones and axes at all critical angles."""
    exact = torch.cat([haar_rotmats(3, 100_000, dtype=torch.float64), rotmats_at_all_angles(200)])
    results: dict[str, Any] = {}
    for name in representations.REPRESENTATIONS:
        results[name] = {}
        for dtype in (torch.float32, torch.float64):
            rotmats = exact.to(dtype)
            back = representations.to_rotmat(representations.from_rotmat(rotmats, name), name)
            results[name][str(dtype)[6:]] = float(rotation.geodesic_distance(back.double(), rotmats.double()).max())
    for dtype in ("float32", "float64"):
        print("worst round trip", dtype, max((row[dtype], name) for name, row in results.items()), flush=True)
    return results


def hostile_numbers(total: int = 10_000_000) -> dict[str, Any]:
    """Counts of NaN and infinite results and gradients in `total` rows of extreme values; maximum |R^T R - I|."""
    names = [name for name in representations.REPRESENTATIONS if not (name.startswith("euler_") and len(name) == 9)]
    eye = torch.eye(3, dtype=torch.float64)
    results: dict[str, Any] = {"rows": 0}
    block = 100_000
    for dtype in (torch.float32, torch.float64):
        found = {"nan_values": 0, "nan_gradients": 0, "infinite_gradients": 0, "orthogonality": 0.0}
        for k in range(math.ceil(total / block / 2)):
            maps = representations.REPRESENTATIONS[names[k % len(names)]]
            values = hostile(block, maps.dimension, dtype).requires_grad_()
            rotmats = maps.to_rotmat(values)
            (grad,) = torch.autograd.grad(rotmats, values, torch.randn_like(rotmats))
            found["nan_values"] += int(rotmats.isnan().any(-1).any(-1).sum())
            found["nan_gradients"] += int(grad.isnan().any(-1).sum())
            found["infinite_gradients"] += int(grad.isinf().any(-1).sum())
            if maps.is_rotation:
                exact = rotmats.detach().double()
                found["orthogonality"] = max(found["orthogonality"], float((exact.mT @ exact - eye).abs().max()))
            results["rows"] += block
        results[str(dtype)[6:]] = found
        print("hostile", dtype, found, flush=True)
    return results


def noise_laws(sigma: float = 0.01, count: int = 1_000_000) -> dict[str, float]:
    """E |f(R + sigma N) - R|^2 / sigma^2: 3 for the projection by singular values, 6 for Gram-Schmidt."""
    rotmats = haar_rotmats(3, count, dtype=torch.float64)
    noisy = rotmats + sigma * torch.randn_like(rotmats)
    found = {"svd": rotation.nearest_rotation(noisy), "gram_schmidt": rotation.from_6d(rotation.to_6d(noisy))}
    laws = {name: float((value - rotmats).square().sum((1, 2)).mean() / sigma**2) for name, value in found.items()}
    print("noise", laws, flush=True)
    return laws


def main() -> None:
    arguments(__doc__ or "")  # alternating CPU-seconds: other processes may run
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with ForeignLoad() as load:
        results: dict[str, Any] = {"count": COUNT, "speed": speed()}
        best = native.require().isa()
        results["native_cpu_s_by_isa"] = {}
        for isa in native.require().available_isas():
            native.require().set_isa(isa)
            values = torch.randn(COUNT, 6)
            upstream = torch.randn(COUNT, 3, 3)
            times = in_turns({"native": lambda v=values, u=upstream: step(rotation._gram_schmidt.forward, v, u)}, 5)["native"]
            results["native_cpu_s_by_isa"][isa] = {"min": times[0], "median": times[2]}
        native.require().set_isa(best)
        print(results["native_cpu_s_by_isa"])
        results["noise"] = noise_laws()
        results["round_trips_rad"] = round_trips()
        results["hostile"] = hostile_numbers()
    write("rotations", results, load.share)
    print(machine())


if __name__ == "__main__":
    main()
