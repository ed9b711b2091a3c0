"""Rotated boxes: overlap against closed forms, sampled points and polygon clipping; suppression; kernels and reference."""

import math
import time

import pytest
import torch
from torch import Tensor

from vision3d.core import native
from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry import rotated_boxes
from vision3d.geometry.reference import rotated_boxes as reference
from vision3d.geometry.rotated_boxes import box_iou, box_nms, paired_box_iou

needs_native = pytest.mark.skipif(native.module() is None, reason="the native module is not built")
DTYPES = [torch.float32, torch.float64]
MODES = ["bev", "3d"]


@pytest.fixture(params=[pytest.param("native", marks=needs_native), "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "reference":
        monkeypatch.setattr(rotated_boxes, "_runs_natively", lambda *boxes: False)
    return request.param


def box(x: float = 0, y: float = 0, z: float = 0, l: float = 1, w: float = 1, h: float = 1, yaw: float = 0) -> Tensor:
    return torch.tensor([[x, y, z, l, w, h, yaw]], dtype=torch.float64)


def crowd(count: int, spread: float = 3.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Boxes that mostly overlap, around a point far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(count, 7, generator=generator, dtype=torch.float64)
    centers = torch.tensor([60.0, -30, 1]) + spread * (values[:, :3] - 0.5)
    return torch.cat([centers, 0.5 + 4 * values[:, 3:6], 10 * (values[:, 6:] - 0.5)], 1).to(dtype)


def corners(row: list[float]) -> list[tuple[float, float]]:
    x, y, _, l, w, _, yaw = row
    c, s = math.cos(yaw), math.sin(yaw)
    signs = [(0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)]
    return [(x + c * l * i - s * w * j, y + s * l * i + c * w * j) for i, j in signs]


def clipped_area(first: list[float], second: list[float]) -> float:
    """Area of the intersection by clipping one polygon to each line through two corners of the other."""
    polygon, other = corners(first), corners(second)
    for (px, py), (qx, qy) in zip(other, other[1:] + other[:1]):
        left = [(qx - px) * (y - py) - (qy - py) * (x - px) for x, y in polygon]
        kept = []
        for i, (x, y) in enumerate(polygon):
            j = (i + 1) % len(polygon)
            if left[i] >= 0:
                kept.append((x, y))
            if (left[i] >= 0) != (left[j] >= 0):
                t = left[i] / (left[i] - left[j])
                kept.append((x + t * (polygon[j][0] - x), y + t * (polygon[j][1] - y)))
        polygon = kept
    area = sum(x * v - u * y for (x, y), (u, v) in zip(polygon, polygon[1:] + polygon[:1])) / 2 if polygon else 0.0
    return max(area, 0.0)


def clipped_iou(first: list[float], second: list[float], mode: str) -> float:
    shared, sizes = clipped_area(first, second), [row[3] * row[4] for row in (first, second)]
    if mode == "3d":
        tops = [row[2] + row[5] / 2 for row in (first, second)]
        bottoms = [row[2] - row[5] / 2 for row in (first, second)]
        shared *= max(0.0, min(tops) - max(bottoms))
        sizes = [size * row[5] for size, row in zip(sizes, (first, second))]
    return shared / (sum(sizes) - shared)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (box(), box(), 1.0),
        (box(yaw=0.3), box(yaw=0.3 + math.pi), 1.0),
        (box(), box(yaw=math.pi / 4), 1 / math.sqrt(2)),  # the overlap is 2 (sqrt 2 - 1)
        (box(l=4, w=2, yaw=0.7), box(l=2, w=1, yaw=0.7), 0.25),  # one contains the other
        (box(l=9, w=9, yaw=1), box(l=3, w=1, yaw=-0.4), 3 / 81),
        (box(), box(x=1), 0.0),  # touching edges
        (box(), box(x=1, y=1), 0.0),  # touching corners
        (box(), box(x=0.5), 1 / 3),
        (box(l=10, w=1), box(l=10, w=1, yaw=math.pi / 2), 1 / 19),  # a cross
        (box(l=0), box(), 0.0),
        (box(l=0, w=0, h=0), box(l=0, w=0, h=0), 0.0),
        (box(l=4, w=2, yaw=0.5), box(l=2, w=4, yaw=0.5 + math.pi / 2), 1.0),
    ],
)
@pytest.mark.usefixtures("backend")
def test_closed_forms(first, second, expected, mode):
    shift = torch.tensor([[50.0, -20, 3, 0, 0, 0, 0]], dtype=torch.float64)
    for a, b in ((first, second), (second, first), (first + shift, second + shift)):
        assert float(box_iou(a, b, mode=mode)) == pytest.approx(expected, abs=1e-12)
        assert float(paired_box_iou(a, b, mode=mode)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.usefixtures("backend")
def test_height_counts_in_3d_only():
    first, second = box(h=2), box(z=1.5, h=2)
    assert float(box_iou(first, second)) == 1
    assert float(box_iou(first, second, mode="3d")) == pytest.approx(0.5 / 3.5)
    assert float(box_iou(first, box(z=2, h=2), mode="3d")) == 0


@pytest.mark.usefixtures("backend")
def test_sampled_points():
    boxes = crowd(12, seed=1)
    points = torch.rand(400_000, 2, dtype=torch.float64) * 12 - 6 + torch.tensor([60.0, -30], dtype=torch.float64)
    offsets = points[None] - boxes[:, None, :2]
    c, s = boxes[:, 6].cos()[:, None], boxes[:, 6].sin()[:, None]
    along, across = c * offsets[..., 0] + s * offsets[..., 1], c * offsets[..., 1] - s * offsets[..., 0]
    inside = ((along.abs() <= boxes[:, 3, None] / 2) & (across.abs() <= boxes[:, 4, None] / 2)).double()
    shared = inside @ inside.T
    sums = inside.sum(1)
    expected = shared / (sums[:, None] + sums[None] - shared)
    assert float((box_iou(boxes, boxes) - expected).abs().max()) < 0.01


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("backend")
def test_polygon_clipping(mode, dtype):
    first, second = crowd(40, seed=2, dtype=dtype), crowd(50, spread=8, seed=3, dtype=dtype)
    second[:10] = first[:10]
    second[10:20] = first[10:20]
    second[10:20, 6] += 1e-5  # nearly parallel sides
    want = torch.tensor([[clipped_iou(a, b, mode) for b in second.tolist()] for a in first.tolist()])
    got = box_iou(first, second, mode=mode)
    assert got.dtype == dtype
    assert float((got - want).abs().max()) < 1e-6
    torch.testing.assert_close(paired_box_iou(first, second[:40], mode=mode), got.diagonal(), rtol=0, atol=1e-7)
    torch.testing.assert_close(box_iou(second, first, mode=mode).T, got, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("backend")
def test_invalid_boxes_are_nan_and_affect_no_others():
    boxes = crowd(7)
    bad = boxes.clone()
    bad[1, 0], bad[2, 6], bad[3, 4], bad[4, 5], bad[5, 3] = math.nan, math.inf, -1.0, -math.inf, 1e200
    got, is_bad = box_iou(boxes, bad), torch.tensor([0, 1, 1, 1, 1, 1, 0]).bool()
    assert got[:, is_bad].isnan().all()
    torch.testing.assert_close(got[:, ~is_bad], box_iou(boxes, boxes)[:, ~is_bad])


@pytest.mark.parametrize("shapes", [(0, 0), (0, 4), (4, 0)])
@pytest.mark.usefixtures("backend")
def test_empty(shapes):
    first, second = (crowd(count).requires_grad_() for count in shapes)
    out = box_iou(first, second)
    assert out.shape == shapes
    out.sum().backward()
    assert first.grad is not None and first.grad.shape == first.shape
    assert box_nms(crowd(0), torch.zeros(0), 0.5).shape == (0,)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pair", [box_iou, paired_box_iou])
@pytest.mark.usefixtures("backend")
def test_gradient(mode, pair):
    first, second = crowd(5, seed=4).requires_grad_(), crowd(5, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pair(a, b, mode=mode), (first, second), atol=1e-6)


@pytest.mark.usefixtures("backend")
def test_gradient_of_invalid_boxes_is_nan():
    first, second = crowd(2), crowd(2)
    second[0, 3] = -1
    first.requires_grad_()
    paired_box_iou(first, second)[1].backward()
    assert first.grad is not None and first.grad[1].isfinite().all()


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
def test_matrix_is_the_same_with_more_threads(threads):
    boxes, before = crowd(150), torch.get_num_threads()
    want = box_iou(boxes, boxes)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(box_iou(boxes, boxes), want)
    finally:
        torch.set_num_threads(before)


@needs_native
def test_a_matrix_of_1000_boxes_takes_half_a_second():
    boxes = crowd(1000, dtype=torch.float32)  # nearly all overlap
    times = []
    for _ in range(3):
        start = time.process_time()
        box_iou(boxes, boxes, mode="3d")
        times.append(time.process_time() - start)
    assert min(times) < 0.5


def greedy(boxes: Tensor, scores: Tensor, threshold: float, labels: Tensor | None) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        rivals = [j for j in kept if labels is None or labels[i] == labels[j]]
        if all(clipped_iou(boxes[i].tolist(), boxes[j].tolist(), "bev") <= threshold for j in rivals):
            kept.append(i)
    return kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.usefixtures("backend")
def test_suppression(with_labels, dtype):
    boxes = crowd(130, spread=15, seed=6, dtype=dtype)
    scores = torch.randint(0, 20, (130,), generator=torch.Generator().manual_seed(7)).to(dtype) / 20  # many ties
    labels = torch.arange(130) % 3 if with_labels else None
    want = greedy(boxes, scores, 0.2, labels)
    assert box_nms(boxes, scores, 0.2, labels=labels).tolist() == want
    assert box_nms(boxes, scores, 0.2, labels=labels, max_count=5).tolist() == want[:5]
    assert 10 < len(want) < 100


@pytest.mark.usefixtures("backend")
def test_equal_scores_keep_their_order():
    boxes = torch.cat([box(x=3 * i) for i in (2, 0, 1)] + [box(x=6)])
    assert box_nms(boxes, torch.ones(4), 0.5).tolist() == [0, 1, 2]
    assert box_nms(boxes, torch.ones(4), 1.0).tolist() == [0, 1, 2, 3]
    assert box_nms(boxes, torch.ones(4), 0.5, max_count=0).tolist() == []


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "4d"}, "mode: got '4d', want bev or 3d"),
        ({"threshold": 1.5}, "threshold: got 1.5, want 0 to 1"),
        ({"threshold": math.nan}, "threshold: got nan, want 0 to 1"),
        ({"max_count": -1}, "max_count: got -1, want at least 0"),
        ({"scores": torch.tensor([1.0, math.nan])}, "boxes: box 1 is .* with score nan, want finite values and sizes"),
        (
            {"boxes": torch.cat([box(w=-1), box()])},
            "boxes: box 0 is .*-1.0.* sizes that are not negative",
        ),
        ({"boxes": torch.cat([box(yaw=math.inf), box()])}, "boxes: box 0 is .*inf"),
    ],
)
def test_errors_of_nms(change, message):
    given = {"boxes": torch.cat([box(), box()]), "scores": torch.ones(2), "threshold": 0.5, **change}
    with pytest.raises(InputError, match=message):
        box_nms(given.pop("boxes"), given.pop("scores"), given.pop("threshold"), **given)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_iou(torch.zeros(2, 6), torch.zeros(2, 7)), r"first: got shape \(2, 6\), want \(\.\.\., 7\)"),
        (lambda: box_iou(torch.zeros(2, 7), torch.zeros(2, 7).long()), "second: got torch.int64"),
        (lambda: box_iou(torch.zeros(2, 7), torch.zeros(2, 7).double()), "second: got torch.float64, want torch.float32"),
        (lambda: box_iou(torch.zeros(2, 2, 7), torch.zeros(2, 7)), r"first: got shape \(2, 2, 7\), want \(n, 7\)"),
        (lambda: paired_box_iou(torch.zeros(2, 7), torch.zeros(3, 7)), r"second: got shape \(3, 7\), want \(2, 7\)"),
        (lambda: box_nms(torch.zeros(2, 7), torch.zeros(3), 0.5), r"scores: got shape \(3,\), want \(2,\) floats"),
        (
            lambda: box_nms(torch.zeros(2, 7), torch.zeros(2), 0.5, labels=torch.zeros(2)),
            r"labels: got torch.float32, want \(2,\) int64",
        ),
    ],
)
def test_errors_of_shapes(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


@needs_native
@pytest.mark.parametrize("is_paired", [True, False])
def test_registered_operations(is_paired):
    first, second = crowd(4).requires_grad_(), crowd(4, seed=1).requires_grad_()
    torch.library.opcheck(torch.ops.vision3d.box_iou.default, (first, second, True, is_paired))
    upstream = torch.rand(4, *(() if is_paired else (4,)), dtype=torch.float64)
    arguments = (first.detach(), second.detach(), True, is_paired, upstream)
    torch.library.opcheck(torch.ops.vision3d.box_iou_vjp.default, arguments)
    torch.library.opcheck(torch.ops.vision3d.box_nms.default, (first.detach(), torch.zeros(4).long(), 0.5, False, 4))


@needs_native
def test_reference_equals_kernel():
    first, second = crowd(30, spread=6), crowd(30, spread=6, seed=9)
    for is_3d in (False, True):
        want = reference.box_iou(first[:, None], second[None], is_3d)
        torch.testing.assert_close(box_iou(first, second, mode="3d" if is_3d else "bev"), want, rtol=0, atol=1e-12)
