"""Differentiable rendering: find the pose of a camera from its image, by gradient descent through the rasterizer.

python examples/02_find_a_camera.py --steps 150
"""

import argparse
import math

import torch

import vision3d
from vision3d.geometry import se3
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.rotation import geodesic_distance

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=150)
parser.add_argument("--size", type=int, default=96, help="width and height of the image [px]")
args = parser.parse_args()
torch.manual_seed(0)

count, size = 200, args.size
means, quats, scales = 2 * torch.rand(count, 3) - 1, torch.randn(count, 4), 0.05 + 0.15 * torch.rand(count, 3)
opacities, colors = torch.full((count,), 0.7), torch.rand(count, 3)
K = intrinsics(size, size, size / 2, size / 2)[None]


def render(viewmat):
    return vision3d.rasterize(means, quats, scales, opacities, colors, viewmat[None], K, size, size)[0][0]


up = torch.tensor([0.0, 0.0, 1.0])
truth = se3.inverse(look_at(torch.tensor([0.0, -4.0, 1.0]), torch.zeros(3), up))
guess = se3.inverse(look_at(torch.tensor([0.8, -3.7, 1.6]), torch.tensor([0.1, 0.2, 0.0]), up))
target = render(truth)

twist = torch.zeros(6, requires_grad=True)  # a small motion of the camera, as axis-angle and translation
optimizer = torch.optim.Adam([twist], lr=0.1)
for step in range(args.steps + 1):
    viewmat = se3.exp(twist) @ guess
    loss = (render(viewmat) - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == args.steps:
        angle = math.degrees(geodesic_distance(viewmat[:3, :3], truth[:3, :3]).item())
        print(f"step {step}: loss {loss.item():.6f}, off by {angle:.3f} degrees, {(viewmat - truth)[:3, 3].norm():.4f} m")
