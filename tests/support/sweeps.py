"""Small labelled sweeps in KITTI's layout, made without ray casting: boxes of points on a plane."""

import math

import numpy as np
import torch

from vision3d.io.kitti import KittiLabels, write_calibration, write_labels
from vision3d.scene.boxes import Boxes
from vision3d.stages.detect.camera import Camera, observed

SIZES = {"Car": (4.0, 1.8, 1.5), "Pedestrian": (0.7, 0.6, 1.75), "Cyclist": (1.8, 0.6, 1.7)}


def made_frame(seed, objects=3, height=1.73):
    """Points (N, 4) and boxes of a sweep: ground, and points on the faces of boxes ahead."""
    rng = np.random.default_rng(seed)
    radius, angle = rng.uniform(3, 30, 4000), rng.uniform(-1.2, 1.2, 4000)
    parts = [np.column_stack([radius * np.cos(angle), radius * np.sin(angle), rng.normal(-height, 0.02, 4000)])]
    names = [list(SIZES)[i % 3] for i in range(objects)]
    rows = []
    for i, name in enumerate(names):
        x, y, yaw = 6 + 5 * i + rng.uniform(0, 2), rng.uniform(-3, 3), rng.uniform(-math.pi, math.pi)
        size = np.array(SIZES[name])
        local = rng.uniform(-0.5, 0.5, (250, 3))
        face = rng.integers(0, 3, 250)
        local[np.arange(250), face] = np.sign(local[np.arange(250), face]) * 0.5
        local *= 0.98 * size
        cosine, sine = math.cos(yaw), math.sin(yaw)
        turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
        center = np.array([x, y, size[2] / 2 - height])
        parts.append(local @ turn.T + center)
        rows.append([*center, *size, yaw])
    points = np.concatenate(parts).astype(np.float32)
    return np.column_stack([points, rng.random(len(points))]).astype("<f4"), np.array(rows).reshape(-1, 7), names


def write_folder(folder, count=4, first=0):
    """A folder in KITTI's layout; returns it."""
    for name in ("velodyne", "calib", "label_2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    camera = Camera()
    calibration = torch.from_numpy(camera.to_camera)
    for index in range(count):
        points, rows, names = made_frame(first + index)
        points.tofile(folder / "velodyne" / f"{index:06}.bin")
        write_calibration(folder / "calib" / f"{index:06}.txt", calibration, torch.from_numpy(camera.P2))
        boxes = Boxes.of_names(torch.from_numpy(rows).float(), names)
        boxes_2d, truncation, alphas = (torch.from_numpy(value).float() for value in observed(rows, camera))
        columns = KittiLabels(boxes, truncation, torch.zeros_like(boxes.labels), alphas, boxes_2d, torch.zeros(0, 4))
        write_labels(folder / "label_2" / f"{index:06}.txt", columns, calibration)
    return folder
