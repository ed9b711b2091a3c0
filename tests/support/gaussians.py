"""Random Gaussians and cameras for tests and benchmarks of the rasterizer."""

import math

import torch
from torch import Tensor

from vision3d.geometry.quaternion import quat_to_rotmat


def random_gaussians(
    count: int, *, seed: int = 0, size: float = 0.06, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Anisotropic rotated Gaussians in the cube [-1, 1]^3, with quaternions of various norms."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, count, *shape, generator=generator, dtype=torch.float64).to(dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*batch, count, *shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "means": 2 * uniform(3) - 1,
        "quats": normal(4) * (0.5 + uniform(1)),
        "scales": torch.exp(0.6 * normal(3) + math.log(size)),
        "opacities": 0.05 + 0.9 * uniform(),
        "colors": uniform(3),
    }


def random_sh(count: int, degree: int, *, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Harmonics with mostly positive colors."""
    generator = torch.Generator().manual_seed(seed)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    return (0.25 * sh / (1 + torch.arange(sh.shape[1])).sqrt()[:, None]).to(dtype)


def cameras(
    count: int,
    width: int,
    height: int,
    *,
    model: str = "pinhole",
    distance: float = 4.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """World-to-camera matrices on a circle around the origin, not quite looking at its center; intrinsics with fx != fy."""
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / max(count, 1)) + 0.3
    quats = torch.stack([(angles / 2).cos(), 0.1 * torch.ones_like(angles), (angles / 2).sin(), 0.05 * angles], -1)
    viewmats = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    viewmats[:, :3, :3] = quat_to_rotmat(quats)
    viewmats[:, :3, 3] = torch.tensor([0.05, -0.03, distance], dtype=torch.float64)
    focal = 1.6 * max(width, height) / (distance if model == "ortho" else 1)
    K = torch.tensor([[focal, 0, 0.47 * width], [0, 1.1 * focal, 0.52 * height], [0, 0, 1]], dtype=torch.float64)
    return viewmats.to(dtype), K.repeat(count, 1, 1).to(dtype)
