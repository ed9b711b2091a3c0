"""Inverse rendering: find the vertices of a mesh from images, starting from a sphere.

python examples/05_recover_a_mesh.py --steps 200 --out runs/recovered
"""

import argparse
from pathlib import Path

import torch

from vision3d import Mesh
from vision3d.geometry import cameras, mesh, paths, se3, shapes
from vision3d.io.images import write_image
from vision3d.render import meshes

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--size", type=int, default=96, help="width and height of the images [px]")
parser.add_argument("--out", type=Path, default=Path("runs/recovered"))
args = parser.parse_args()
start, faces = shapes.icosphere(3)
truth = start * torch.tensor([1.0, 0.7, 0.8]) * (1 + 0.25 * torch.sin(4 * start[:, :1]))
colors = 0.5 + 0.5 * torch.sin(7 * start)  # known color of each vertex
poses = torch.cat([paths.orbit(torch.zeros(3), 3.5, elevation=angle, num=4) for angle in (-0.5, 0.3, 0.9)])
viewmats, Ks = se3.inverse(poses), cameras.intrinsics(*2 * [args.size], *2 * [args.size / 2]).expand(len(poses), 3, 3)


def renders(vertices):
    positions = meshes.screen_positions(vertices, viewmats, Ks)
    fragments = meshes.rasterize(positions, faces, args.size, args.size)
    return meshes.antialias(meshes.interpolate(colors, faces, fragments), positions, faces, fragments)


# Steps are taken in u = (I + 10 L) x, L the graph Laplacian: a gradient at one vertex moves the surface around it.
links = torch.zeros(len(start), len(start)).index_put(mesh.unique_edges(faces)[0].unbind(1), torch.tensor(1.0))
links = links + links.T
smooth = torch.linalg.inv(torch.eye(len(start)) + 10 * (links.sum(1).diag() - links))
target, change = renders(truth), torch.zeros_like(start, requires_grad=True)
optimizer = torch.optim.Adam([change], lr=0.05)
for step in range(args.steps + 1):
    optimizer.param_groups[0]["lr"] = 0.05 * 0.02 ** (step / args.steps)
    found = start + smooth @ change
    loss = (renders(found) - target).abs().mean()
    change.grad = torch.autograd.grad(loss, change)[0]
    optimizer.step()
    if step % 50 == 0 or step == args.steps:
        print(f"step {step}: loss {loss.item():.5f}, vertices off by {(found - truth).norm(dim=1).mean():.4f} m")

Mesh(found.detach(), faces, vertex_colors=colors).save(args.out / "mesh.glb")
write_image(args.out / "images.png", torch.cat([torch.cat(list(renders(x.detach())[:6]), 1) for x in (truth, start, found)]))
