"""Pictures of models: surfaces under lamps, in one image."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vision3d.geometry.vectors import unit
from vision3d.render.meshes import Lights, Surface, base_colors, interpolate, light, rasterize, screen_positions
from vision3d.scene.colors import linear_to_srgb

WIDTH, HEIGHT = 256, 192


def picture(
    parts: list[Surface],
    viewmat: Float[Tensor, "4 4"],
    focal: float,
    lights: Lights,
    behind: Float[Tensor, "192 256 3"] | None = None,
) -> UInt8[Tensor, "3 192 256"]:
    """Surfaces as a camera sees them, both sides of each, sRGB.

    Args:
        parts: Surfaces in the world [m].
        viewmat: From the world to the camera.
        focal: Focal length [px]; the principal point is the middle.
        lights: Lamps in the world.
        behind: What is behind them, sRGB in [0, 1]; black when None.
    """
    K = torch.tensor([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    turn = viewmat[:3, :3]
    albedo, normals, nearest = (
        torch.zeros(HEIGHT, WIDTH, 3),
        torch.zeros(HEIGHT, WIDTH, 3),
        torch.full((HEIGHT, WIDTH), torch.inf),
    )
    for part in parts:
        positions = screen_positions(part.mesh.vertices[None], viewmat[None], K[None])
        found = rasterize(positions, part.mesh.faces, WIDTH, HEIGHT, near_plane=0.05)
        is_front = (found.face_ids[0] >= 0) & (found.depths[0] < nearest)
        if bool(is_front.any()):
            albedo[is_front] = base_colors(part, positions, found)[0][is_front]
            normals[is_front] = interpolate(part.normals, part.mesh.faces, found)[0][is_front]
            nearest[is_front] = found.depths[0][is_front]
    x, y = torch.meshgrid(torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5, indexing="xy")
    rays = torch.stack([(x - K[0, 2]) / focal, (y - K[1, 2]) / focal, torch.ones_like(x)], -1)
    to_camera = unit(-rays @ turn)
    normals = unit(normals)
    normals = torch.where((normals * to_camera).sum(-1, keepdim=True) < 0, -normals, normals)
    image = linear_to_srgb(light(albedo, normals, to_camera, lights).clamp(0, 1))
    if behind is not None:
        image = torch.where(nearest.isfinite()[..., None], image, behind)
    return (image * 255).round().byte().permute(2, 0, 1)
