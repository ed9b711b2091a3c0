"""Line segments of cameras, boxes and regions."""

import math
from dataclasses import replace

import pytest
import torch

from tests.support.scenes import ring_cameras
from vision3d.geometry import se3
from vision3d.geometry.cameras import project
from vision3d.scene import Boxes, Region
from vision3d.scene.lines import box_lines, frustum_depth, frustum_lines, image_corners, region_lines


@pytest.mark.parametrize("model", ["pinhole", "fisheye"])
def test_frusta_end_at_the_corners_of_the_images(model):
    cameras = replace(ring_cameras(), model=model)
    lines = frustum_lines(cameras, 0.5)
    assert lines.shape == (6, 10, 2, 3)
    assert torch.allclose(lines[:, :4, 0], cameras.centers[:, None].expand(-1, 4, -1), atol=1e-6)
    corners = lines[:, :4, 1]
    assert torch.equal(corners, image_corners(cameras, 0.5))
    pixels = project(se3.transform_points(cameras.viewmats, corners), cameras.Ks, model)
    want = torch.tensor([[0.0, 0], [48, 0], [48, 36], [0, 36]]).expand(6, 4, 2)
    assert torch.allclose(pixels, want, atol=1e-3)
    assert torch.allclose(lines[:, 4:8, 1], corners.roll(-1, 1))
    tips = project(se3.transform_points(cameras.viewmats, lines[:, 8, 1:]), cameras.Ks, model)
    assert bool((tips[..., 1] < 0).all())  # the roof is on the upper edge


def test_frusta_have_the_requested_depth():
    cameras = ring_cameras()
    ends = se3.transform_points(cameras.viewmats, frustum_lines(cameras, 0.7)[:, :4, 1])
    assert torch.allclose(ends[..., 2], torch.tensor(0.7), atol=1e-5)


def test_ortho_cameras_have_parallel_edges():
    cameras = replace(ring_cameras(), model="ortho")
    sides = frustum_lines(cameras, 1.0)[:, :4]
    along = sides[..., 1, :] - sides[..., 0, :]
    assert torch.allclose(along, cameras.camtoworlds[:, None, :3, 2].expand_as(along), atol=1e-4)


def test_frusta_of_neighbors_hardly_touch():
    cameras = ring_cameras(60)
    apart = float(torch.linalg.vector_norm(cameras.centers[0] - cameras.centers[1]))
    assert frustum_depth(cameras, 10.0) == pytest.approx(apart / 2, rel=1e-4)
    assert frustum_depth(cameras, 1.0) == pytest.approx(0.1)
    assert frustum_depth(cameras[0], 3.0) == pytest.approx(0.3)
    assert frustum_depth(cameras[[0, 0, 0]], 1.0) == pytest.approx(0.02)


def test_edges_of_boxes():
    boxes = Boxes(torch.tensor([[1.0, 2, 3, 4, 2, 1, 0.5], [0, 0, 0, 1, 1, 1, 0]]))
    lines = box_lines(boxes)
    lengths = torch.linalg.vector_norm(lines[0, :12, 0] - lines[0, :12, 1], dim=-1)
    assert sorted(lengths.tolist()) == pytest.approx([1] * 4 + [2] * 4 + [4] * 4)
    tip = lines[0, 12, 1]
    assert torch.equal(tip, lines[0, 13, 1])
    front = torch.tensor([1 + 2 * math.cos(0.5), 2 + 2 * math.sin(0.5), 2.5])  # half the length forward, on the floor
    assert torch.allclose(tip, front, atol=1e-5)
    assert box_lines(boxes[torch.tensor([], dtype=torch.int64)]).shape == (0, 14, 2, 3)


def test_edges_of_regions_are_on_their_borders():
    box = Region.box(torch.tensor([1.0, 2, 3]), torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 1, 0, 0]))
    sphere = Region.sphere(torch.tensor([1.0, 2, 3]), 2.0)
    for region in (box, sphere):
        ends = region_lines(region).reshape(-1, 3)
        for factor, inside in ((0.999, True), (1.001, False)):
            points = region.center + factor * (ends - region.center)
            assert bool((region.contains(points) == inside).all())
    assert region_lines(box).shape == (12, 2, 3)
    assert torch.allclose(region_lines(box).reshape(-1, 3).mean(0), box.center, atol=1e-5)
    plane = Region.plane(torch.tensor([0.0, 0, 2]), torch.tensor([0.0, 0, 5]))
    lines = region_lines(plane, 4.0)
    assert torch.allclose(lines[:4, :, 2], torch.tensor(2.0)) and lines[4, 1].tolist() == pytest.approx([0, 0, 3])
    assert torch.linalg.vector_norm(lines[0, 0] - lines[0, 1]) == pytest.approx(4)
