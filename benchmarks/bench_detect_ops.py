"""Operations of the detector: neighbors, submanifold convolution against torch's matrix products, voxels, boxes, evaluation."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from support import ForeignLoad, arguments, cpu_times, refuse_foreign_load, write
from torch import Tensor

from vision3d.core import native
from vision3d.geometry.rotated_boxes import box_iou, box_nms
from vision3d.stages.detect import voxels as vx
from vision3d.stages.detect.evaluation import FrameObjects, evaluate
from vision3d.stages.detect.voxels.reference import sparse as reference

LOW, SIZE, GRID = (0.0, -40.0, -3.0), (0.2, 0.2, 0.125), (352, 400, 32)
CHANNELS = 64


def sweep(seed: int = 0) -> Tensor:
    """Points of 64 beams in a street: ground, two walls with recesses, and the fronts of 30 boxes."""
    generator = np.random.default_rng(seed)
    azimuth, elevation = np.meshgrid(np.linspace(-np.pi, np.pi, 2000, endpoint=False), np.radians(np.linspace(-24.8, 2, 64)))
    along = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = [np.where(along[..., 2] < 0, -1.73 / along[..., 2], np.inf)]
        for side in (9.0, -7.0):
            recess = 1.5 * (np.sin(azimuth * 40) > 0.5)
            hits.append(np.where(along[..., 1] * side > 0, (side + np.sign(side) * recess) / along[..., 1], np.inf))
        for x, y, width, height in zip(
            generator.uniform(5, 60, 30),
            generator.uniform(-6, 8, 30),
            generator.uniform(0.5, 4, 30),
            generator.uniform(1, 2, 30),
        ):
            distance = np.where(along[..., 0] > 0, x / along[..., 0], np.inf)
            at = along * np.where(np.isfinite(distance), distance, 0)[..., None]
            inside = (np.abs(at[..., 1] - y) < width / 2) & (at[..., 2] < height - 1.73)
            hits.append(np.where(inside, distance, np.inf))
    distance = np.min(hits, 0)
    points = along[np.isfinite(distance)] * (distance + generator.normal(0, 0.02, distance.shape))[np.isfinite(distance), None]
    return torch.from_numpy(np.concatenate([points, generator.random((len(points), 1))], 1)).float()


def voxels_of(points: Tensor) -> vx.PointVoxels:
    batch = torch.zeros(len(points), dtype=torch.int64)
    return vx.voxelize(points, batch, low=LOW, voxel_size=SIZE, grid=GRID, batch_size=1)


def convolution(coords: Tensor, c: int = CHANNELS) -> dict[str, Any]:
    """CPU seconds and GFLOP/s of the kernel, of matrix products of the same pairs (gathered before; per offset, or
    all with the same weights), and of the reference."""
    neighbors = vx.voxel_neighbors(coords, GRID)
    features, weights, upstream = torch.randn(len(coords), c), torch.randn(27, c, c) / 10, torch.randn(len(coords), c)
    rows = [features[column[column >= 0].long()] for column in neighbors]
    products, together = [row.new_empty(len(row), c) for row in rows], torch.cat(rows)
    pairs = sum(map(len, rows))
    flop = 2 * pairs * c * c

    def multiply() -> None:
        for row, own, out in zip(rows, weights, products):
            torch.mm(row, own, out=out)

    def backward(function: Callable[..., Tensor]) -> Callable[[], None]:
        x, w = features.clone().requires_grad_(), weights.clone().requires_grad_()

        def run() -> None:
            torch.autograd.grad(function(x, neighbors, w), (x, w), upstream)

        return run

    error = (vx.submanifold_conv(features, neighbors, weights) - reference.submanifold_conv(features, neighbors, weights)).abs()
    assert float(error.max()) < 1e-3
    with torch.inference_mode():
        forward = {
            "native": cpu_times(lambda: vx.submanifold_conv(features, neighbors, weights)),
            "matmul": cpu_times(multiply),
            "one_matmul": cpu_times(lambda: torch.mm(together, weights[0])),
            "reference": cpu_times(lambda: reference.submanifold_conv(features, neighbors, weights)),
        }
    both = {"native": cpu_times(backward(vx.submanifold_conv)), "reference": cpu_times(backward(reference.submanifold_conv))}
    finding = cpu_times(lambda: vx.voxel_neighbors(coords, GRID))
    return {
        "voxels": len(coords), "pairs": pairs, "channels": c, "forward_cpu_s": forward, "forward_backward_cpu_s": both,
        "neighbors_us_per_voxel": 1e6 * finding["median"] / len(coords),
        "gflops": {name: flop / found["median"] / 1e9 for name, found in forward.items()},
        "gflops_forward_backward": {name: 3 * flop / found["median"] / 1e9 for name, found in both.items()},
        "of_matmul": forward["matmul"]["median"] / forward["native"]["median"],
        "of_one_matmul": forward["one_matmul"]["median"] / forward["native"]["median"],
    }  # fmt: skip


def steps_of_voxels(points: Tensor, found: vx.PointVoxels) -> dict[str, float]:
    """Median CPU milliseconds of the other operations."""
    features = torch.randn(len(found.coords), CHANNELS)
    voxels = vx.Voxels(found.coords, features, GRID, 1)
    order = vx.window_order(voxels.coords, GRID, (13, 13, 32), axis="x")
    groups = vx.equal_groups(order, voxels.counts, 1024)
    of_points = torch.randn(len(found.kept), CHANNELS)
    calls: dict[str, Callable[[], Any]] = {
        "voxelize": lambda: voxels_of(points),
        "segment_max": lambda: vx.segment_max(of_points, found.segments),
        "window_order": lambda: vx.window_order(voxels.coords, GRID, (13, 13, 32), axis="x"),
        "equal_groups": lambda: vx.equal_groups(order, voxels.counts, 1024),
        "apply_ragged": lambda: vx.apply_ragged(lambda x, starts: x, features, groups),
        "merge": lambda: vx.merge(voxels, (2, 2, 2)),
        "generate": lambda: vx.generate(voxels),
    }
    with torch.inference_mode():
        return {name: 1e3 * cpu_times(call)["median"] for name, call in calls.items()}


def boxes(count: int, spread: float, seed: int = 0) -> Tensor:
    values = torch.rand(count, 7, generator=torch.Generator().manual_seed(seed))
    return values * torch.tensor([spread, spread, 3, 4, 4, 4, 6.3]) + torch.tensor([0.0, 0, 0, 0.5, 0.5, 0.5, 0])


def frames(count: int, objects: int, seed: int = 0) -> tuple[list[FrameObjects], list[FrameObjects]]:
    """Labels of three classes and detections near them."""
    generator = np.random.default_rng(seed)
    labels, detections = [], []
    for _ in range(count):
        names = list(generator.choice(["Car", "Pedestrian", "Cyclist"], objects))
        values = np.concatenate([generator.uniform(-40, 40, (objects, 3)), generator.uniform(1, 4, (objects, 4))], 1)
        corners = generator.uniform(0, 900, (objects, 2))
        rects = np.concatenate([corners, corners + generator.uniform(20, 200, (objects, 2))], 1)
        angles = generator.uniform(-3, 3, objects)
        labels.append(FrameObjects(names, values, rects, np.zeros(objects), generator.integers(0, 3, objects), angles))
        moved, moved_rects = values + generator.normal(0, 0.08, (objects, 7)), rects + generator.normal(0, 4, (objects, 4))
        detections.append(FrameObjects(names, moved, moved_rects, alphas=angles, scores=generator.random(objects)))
    return labels, detections


def main() -> None:
    options = arguments(__doc__ or "")
    if native.module() is None:
        sys.exit("error: the native module is not built: make build")
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results: dict[str, Any] = {"threads": 1}
    with ForeignLoad() as load:
        points = sweep()
        found = voxels_of(points)
        merged = vx.merge(vx.Voxels(found.coords, torch.zeros(len(found.coords), 1), GRID, 1), (2, 2, 1)).voxels.coords
        results |= {"points": len(points), "convolution": convolution(found.coords), "convolution_merged": convolution(merged)}
        results["voxels_cpu_ms"] = steps_of_voxels(points, found)
        dense, sparse = boxes(1000, 3.0), boxes(1000, 70.0)
        many, scores = boxes(4096, 70.0), torch.rand(4096)
        results["boxes_cpu_ms"] = {
            "iou_3d_1000x1000_crowded": 1e3 * cpu_times(lambda: box_iou(dense, dense, mode="3d"))["median"],
            "iou_3d_1000x1000_spread": 1e3 * cpu_times(lambda: box_iou(sparse, sparse, mode="3d"))["median"],
            "nms_4096_to_500": 1e3 * cpu_times(lambda: box_nms(many, scores, 0.01, max_count=500))["median"],
        }
        labels, detections = frames(3769, 20)
        results["evaluation_3769_frames_cpu_s"] = cpu_times(lambda: evaluate(labels, detections), repeats=1, warmup=0)["median"]
    for name in ("convolution", "convolution_merged"):
        one = results[name]
        print(name, one["voxels"], "voxels", one["pairs"], "pairs")
        print("  GFLOP/s", {who: round(rate) for who, rate in one["gflops"].items()})
        print("  with backward", {who: round(rate) for who, rate in one["gflops_forward_backward"].items()})
        print(f"  {one['of_matmul']:.2f} of matmul, {one['of_one_matmul']:.2f} of one for all offsets")
        print(f"  neighbors {one['neighbors_us_per_voxel']:.3f} us a voxel")
    print({name: round(value, 2) for name, value in (results["voxels_cpu_ms"] | results["boxes_cpu_ms"]).items()})
    print(f"evaluation {results['evaluation_3769_frames_cpu_s']:.1f} s; foreign load {load.share:.2f}")
    write("detect_ops", results, load.share)


if __name__ == "__main__":
    main()
