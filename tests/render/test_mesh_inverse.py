"""Inverse rendering with the mesh rasterizer: gradients reach cameras through attributes and silhouettes."""

import torch

from vision3d.geometry import se3, shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.rotation import geodesic_distance
from vision3d.render.meshes import antialias, interpolate, rasterize, screen_positions


def test_a_camera_is_recovered_from_its_image(backend):
    size = 32 if backend == "reference" else 64
    vertices, faces = shapes.icosphere(1 if backend == "reference" else 3)
    vertices = vertices * torch.tensor([1.0, 0.7, 0.5])
    colors = 0.5 + 0.5 * torch.sin(3 * vertices + torch.arange(3.0))
    K, up = intrinsics(1.3 * size, 1.3 * size, size / 2, size / 2)[None], torch.tensor([0.0, 0.0, 1.0])

    def image(viewmat: torch.Tensor) -> torch.Tensor:
        positions = screen_positions(vertices, viewmat[None], K)
        fragments = rasterize(positions, faces, size, size, backend=backend)
        seen = torch.cat([interpolate(colors, faces, fragments, backend=backend), fragments.face_ids[..., None] >= 0], -1)
        return antialias(seen, positions, faces, fragments, backend=backend)

    truth = se3.inverse(look_at(torch.tensor([0.5, -4.0, 1.5]), torch.zeros(3), up))
    guess = se3.inverse(look_at(torch.tensor([1.2, -4.2, 0.8]), torch.tensor([0.15, 0.0, 0.1]), up))
    target = image(truth)
    twist = torch.zeros(6, requires_grad=True)
    steps = 80
    optimizer = torch.optim.Adam([twist], lr=0.05)
    errors = []
    for step in range(steps + 1):
        viewmat = guess @ se3.exp(twist)  # about the object, to separate rotations and translations
        errors.append((geodesic_distance(viewmat[:3, :3], truth[:3, :3]).item(), (viewmat - truth)[:3, 3].norm().item()))
        optimizer.param_groups[0]["lr"] = 0.05 * 0.02 ** (step / steps)
        optimizer.zero_grad()
        (image(viewmat) - target).square().mean().backward()
        optimizer.step()
    assert errors[0][0] > 0.2 and errors[0][1] > 0.2
    assert errors[-1][0] < 0.01 and errors[-1][1] < 0.05
