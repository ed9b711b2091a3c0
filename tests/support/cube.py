"""Photos of a textured cube with enough corners for structure from motion."""

import numpy as np
import torch

from vision3d.geometry.cameras import camera_rays, look_at
from vision3d.io.images import write_image
from vision3d.scene import Cameras, PosedImages


def texture(points, seed=0, size=96):
    """Random blotches on a cube of side 2, sharp enough for features, evaluated at hit points."""
    random = np.random.default_rng(seed)
    noise = torch.from_numpy(random.random((6, size, size, 3)).astype(np.float32))
    axis = points.abs().argmax(-1)
    face = axis * 2 + (points.gather(-1, axis[..., None])[..., 0] > 0).long()
    others = torch.stack([(axis + 1) % 3, (axis + 2) % 3], -1)
    uv = ((points.gather(-1, others) * 0.5 + 0.5).clamp(0, 0.9999) * size).long()
    return noise[face, uv[..., 0] // 2 * 2, uv[..., 1] // 2 * 2]


def cube_view(camera):
    """Image of a textured cube seen from the camera, by ray casting; 2 by 2 samples per pixel."""
    fine = camera.scaled(2)
    width, height = int(fine.width), int(fine.height)
    origins, directions = camera_rays(camera.camtoworlds[0], fine.Ks[0], width, height)
    with np.errstate(divide="ignore"):
        near = ((-directions.sign() - origins) / directions).amax(-1, keepdim=True)
    points = origins + near * directions
    is_hit = (points.abs().amax(-1) < 1 + 1e-4) & (near[..., 0] > 0)
    colors = torch.where(is_hit[..., None], texture(points), torch.tensor(0.5))
    return colors.unflatten(0, (height // 2, 2)).unflatten(2, (width // 2, 2)).mean((1, 3))


def cube_cameras(count, span=0.8):
    """Cameras on an arc in front of one edge of the cube."""
    angles = torch.linspace(-span / 2, span / 2, count) + 0.6
    eyes = torch.stack([4 * angles.cos(), 4 * angles.sin(), 1.5 + 0.3 * torch.sin(5 * angles)], -1)
    poses = look_at(eyes, torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    K = torch.tensor([[420.0, 0, 160], [0, 420, 120], [0, 0, 1]])
    return Cameras.from_camtoworlds(poses, K, 320, 240)


def write_cube(folder):
    """Writes six photos of the cube, the first of them held out."""
    cameras = cube_cameras(6)
    paths = [folder / "images" / f"{i}.png" for i in range(6)]
    for path, camera in zip(paths, cameras):
        write_image(path, cube_view(camera))
    return PosedImages(cameras, tuple(paths), torch.arange(6) == 0, source=folder)
