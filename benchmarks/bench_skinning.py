"""Skinning: the native kernels against our torch reference and an implementation with roma, forward and backward."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from support import ForeignLoad, arguments, cpu_times, refuse_foreign_load, wall_times, write
from torch import Tensor

from vision3d.core import native
from vision3d.geometry import skinning
from vision3d.geometry.reference import skinning as reference


def case(count: int, joints: int = 128, influences: int = 4) -> dict[str, Tensor]:
    """Random vertices that follow `influences` of the joints, float32."""
    weights = torch.rand(count, influences)
    stretches = torch.tensor([1.0, 1, 1, 0, 0, 0]) + 0.1 * torch.randn(joints, 6)
    return {
        "vertices": torch.randn(count, 3),
        "weights": weights / weights.sum(-1, keepdim=True),
        "indices": torch.rand(count, joints).topk(influences, -1).indices.contiguous(),
        "quats": torch.tensor([2.0, 0, 0, 0]) + 0.5 * torch.randn(joints, 4),
        "translations": 0.1 * torch.randn(joints, 3),
        "centers": torch.randn(joints, 3),
        "stretches": stretches,
        "blends": torch.rand(joints),
    }


def with_roma(
    vertices: Tensor,
    weights: Tensor,
    indices: Tensor,
    quats: Tensor,
    translations: Tensor,
    centers: Tensor,
    stretches: Tensor,
    blends: Tensor,
) -> Tensor:
    """Hybrid skinning as written with roma: its rotation matrices and quaternion products, torch for the rest."""
    import roma

    unit = roma.quat_normalize(quats.roll(-1, -1))
    rotmats = roma.unitquat_to_rotmat(unit)
    matrices = stretches[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].view(-1, 3, 3)
    linear = rotmats @ matrices
    shifts = centers + translations - (linear @ centers[..., None])[..., 0]
    at = vertices[:, None, :, None]
    lbs = (weights[..., None] * ((linear[indices] @ at)[..., 0] + shifts[indices])).sum(1)
    moved = centers + translations - (rotmats @ centers[..., None])[..., 0]
    dual = roma.quat_product(torch.nn.functional.pad(moved, (0, 1)), unit) / 2
    real, dual = unit[indices], dual[indices]
    pivot = weights.argmax(-1)[:, None, None].expand(-1, 1, 4)
    side = torch.where((real * real.gather(1, pivot)).sum(-1) < 0, -weights, weights)[..., None]
    real, dual = (side * real).sum(1), (side * dual).sum(1)
    length = real.norm(dim=-1, keepdim=True)
    real, dual = real / length, dual / length
    middle = (weights[..., None] * centers[indices]).sum(1)
    stretch = (weights[..., None, None] * matrices[indices]).sum(1)
    point = (stretch @ (vertices - middle)[..., None])[..., 0] + middle
    dqs = roma.quat_action(real, point) + 2 * roma.quat_product(dual, roma.quat_conjugation(real))[..., :3]
    eta = (weights * blends[indices]).sum(1)[:, None]
    return dqs + eta * (lbs - dqs)


def in_torch(
    vertices: Tensor, weights: Tensor, indices: Tensor, quats: Tensor, translations: Tensor, **parts: Tensor
) -> Tensor:
    """Our torch reference."""
    joints = torch.cat([quats, translations, parts["centers"], parts["stretches"], parts["blends"][:, None]], -1)
    mode = reference.LINEAR | reference.DUAL | reference.STRETCH
    return reference.skin(vertices, weights, indices, reference.skin_joint(joints)[None], mode)[0]


def step(function: Callable[..., Tensor], given: dict[str, Tensor], upstream: Tensor) -> None:
    """Forward and backward with respect to all float inputs."""
    leaves = {name: v.detach().requires_grad_() if v.is_floating_point() else v for name, v in given.items()}
    function(**leaves).backward(upstream)


def measured(calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """CPU and wall seconds of each call, and the CPU times of the peers relative to ours."""
    results = {name: {"cpu_s": cpu_times(call), "wall_s": wall_times(call)} for name, call in calls.items()}
    ours = results["native"]["cpu_s"]["median"]
    ratios = {name: found["cpu_s"]["median"] / ours for name, found in results.items() if name != "native"}
    return {"times": results, "times_faster_than": ratios}


def main() -> None:
    options = arguments(__doc__ or "")
    if native.module() is None:
        sys.exit("error: the native module is not built: make build")
    if not options.busy:
        refuse_foreign_load()
    others: dict[str, Callable[..., Tensor]] = {"native": skinning.skin, "torch": in_torch}
    try:
        import roma  # noqa: F401
    except ImportError:
        print("roma is not installed: pip install roma to compare with it")
    else:
        others["roma"] = with_roma
    torch.manual_seed(0)
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "joints": 128, "influences": 4, "method": "hybrid"}
    with ForeignLoad() as load:
        given = case(2_000)
        upstream = torch.randn(2_000, 3)
        want = skinning.skin(**given)
        for name, function in others.items():
            error = float((function(**given) - want).abs().max() / want.abs().max())
            assert error < 1e-5, (name, error)
        steps = {name: lambda f=function: step(f, given, upstream) for name, function in others.items()}
        results["forward_backward_2000"] = measured(steps)
        large = case(100_000)
        with torch.inference_mode():
            calls = {name: lambda f=function: f(**large) for name, function in others.items()}
            results["forward_100000"] = measured(calls)
    for name in ("forward_backward_2000", "forward_100000"):
        found = results[name]
        text = {
            who: f"{1e3 * t['cpu_s']['median']:.2f} ms CPU, {1e3 * t['wall_s']['median']:.2f} ms"
            for who, t in found["times"].items()
        }
        print(name, text, {who: round(ratio, 1) for who, ratio in found["times_faster_than"].items()}, flush=True)
    write("skinning", results, load.share)


if __name__ == "__main__":
    main()
