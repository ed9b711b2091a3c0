import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.outside import npm_package, validate_gltf
from vision3d.io.images import write_image


@pytest.fixture
def fox():
    """The folder of the fox photos, of which 17 of 67 are missing."""
    root = os.environ.get("VISION3D_DATA")
    if root is None:
        pytest.skip("VISION3D_DATA is not set")
    return Path(root) / "fox"


def ring_pose(i, count):
    """Camera to world, OpenGL axes: on a ring of radius 4, looking at the origin."""
    angle = 2 * math.pi * i / count
    back = np.array([math.cos(angle), math.sin(angle), 0.0])
    right = np.array([-math.sin(angle), math.cos(angle), 0.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(back, right), back, 4 * back
    return pose


@pytest.fixture
def ring(tmp_path):
    """Writes a folder with a transforms.json of `count` views and their images; keyword arguments are added to the file."""

    def make(count=10, *, size=(32, 24), channels=3, frame=None, **content):
        folder = tmp_path / "ring"
        frames = []
        for i in range(count):
            name = f"images/{i:03d}.png"
            generator = torch.Generator().manual_seed(i)
            write_image(folder / name, torch.rand(size[1], size[0], channels, generator=generator))
            frames.append({"file_path": name, "transform_matrix": ring_pose(i, count).tolist(), **(frame or {})})
        lens = {"fl_x": 40.0, "fl_y": 41.0, "cx": 15.0, "cy": 13.0, "w": size[0], "h": size[1]}
        content = {**lens, "frames": frames, **content}
        content = {key: value for key, value in content.items() if value is not None}
        (folder / "transforms.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.fixture
def edit():
    """Applies a function to the content of a JSON file."""

    def change(path, function):
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    return change


@pytest.fixture
def validate():
    """Runs the glTF validator on files and returns one report each."""
    npm_package("gltf-validator")
    return validate_gltf
