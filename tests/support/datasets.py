"""A small data set on disk, made of renders."""

from pathlib import Path

import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.io.images import write_image
from vision3d.io.transforms_json import write_cameras
from vision3d.render import render_views


def write_ring_photographs(folder: Path, count: int = 8, width: int = 48, height: int = 36) -> Path:
    """Writes a folder with `count` images of the ring and their transforms.json; every fourth is held out."""
    cameras = ring_cameras(count, width, height)
    for name, view in zip(cameras.names or (), render_views(ring_scene(), cameras)):
        write_image(folder / name, view.image)
    write_cameras(folder / "transforms.json", cameras, is_test=torch.arange(count) % 4 == 0)
    return folder
