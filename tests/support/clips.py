"""Short clips of a bending worm, drawn by our rasterizer, with ground truth."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vision3d.geometry import shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.io.images import write_image
from vision3d.scene import Cameras, Mesh
from vision3d.stages.animate.dynamic.footage import Footage
from vision3d.stages.animate.dynamic.painters import MeshPainter


@dataclass(frozen=True)
class Clip:
    """A mesh in its rest pose, its vertices in each frame, and cameras."""

    mesh: Mesh
    vertices: Tensor
    times: Tensor
    cameras: Cameras

    def footage(self) -> Footage:
        """The images in memory, camera by camera."""
        count, frames = len(self.cameras), len(self.times)
        rows = torch.arange(count).repeat_interleave(frames)
        cameras = replace(self.cameras[rows], names=None)
        when = torch.arange(frames).repeat(count)
        with torch.no_grad():
            colors, alphas = MeshPainter.of(self.mesh).paint(self.vertices, when, cameras)
        colors = colors / alphas[..., None].clamp(min=1 / 255)
        images = (torch.cat([colors, alphas[..., None]], -1).clamp(0, 1) * 255).round().byte()
        names = self.cameras.names or ()
        return Footage(images, cameras, tuple(names[i] for i in rows.tolist()), when, self.times)

    def write(self, folder: Path, *, alpha: bool = True) -> Path:
        """Writes a folder of PNGs per camera and a cameras.json, for one camera only images; without alpha on white."""
        footage = self.footage()
        for pixels, name, frame in zip(footage.images, footage.camera_names, footage.frames.tolist()):
            image = pixels.float() / 255
            if not alpha:
                image = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
            place = folder / name if len(self.cameras) > 1 else folder
            write_image(place / f"{frame}.png", image)
        if len(self.cameras) > 1:
            self.cameras.save(folder / "cameras.json")
        return folder


def worm(*, frames: int = 5, cameras: int = 2, size: int = 32, bend: float = 0.8) -> Clip:
    """An ellipsoid along x that bends about z, by `bend` [rad] in the last frame; its colors vary along x."""
    vertices, faces = shapes.icosphere(2)
    rest = vertices * torch.tensor([1.0, 0.3, 0.3])
    colors = 0.5 + 0.4 * torch.sin(torch.stack([4 * rest[:, 0], 3 * rest[:, 0] + 2, 9 * rest[:, 1]], -1))
    mesh = Mesh(rest, faces, vertex_colors=colors)
    amounts = torch.linspace(0, bend, frames)
    moved = torch.stack([_bent(rest, float(amount)) for amount in amounts])
    eyes = [(0.0, 0.6, 3.5), (2.2, 0.4, 2.8), (-2.5, 1.0, 2.2), (0.3, 3.0, 1.6)][:cameras]
    poses = torch.stack([look_at(torch.tensor(eye), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])) for eye in eyes])
    K = intrinsics(1.5 * size, 1.5 * size, size / 2, size / 2)
    names = [f"cam{i}" for i in range(cameras)]
    placed = Cameras.from_camtoworlds(poses, K, size, size, names=names)
    return Clip(mesh, moved, torch.arange(frames, dtype=torch.float64) / 24, placed)


def _bent(points: Tensor, angle: float) -> Tensor:
    """Bends the x axis to an arc of this angle, moving each cross-section rigidly."""
    if angle == 0:
        return points
    radius = 2 / angle
    turn = points[:, 0] / radius
    x = (radius - points[:, 1]) * turn.sin()
    y = radius - (radius - points[:, 1]) * turn.cos()
    return torch.stack([x, y, points[:, 2]], -1)
