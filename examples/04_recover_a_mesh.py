"""Inverse rendering: find the vertices of a mesh from pictures of it, starting from a sphere.

python examples/04_recover_a_mesh.py --steps 200 --out runs/recovered
"""

import argparse
from pathlib import Path

import torch

from vision3d import Mesh
from vision3d.geometry import se3, shapes
from vision3d.geometry.cameras import intrinsics
from vision3d.geometry.mesh import unique_edges
from vision3d.geometry.paths import orbit
from vision3d.io.images import write_image
from vision3d.render.meshes import antialias, edge_neighbors, interpolate, rasterize, screen_positions

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--size", type=int, default=96, help="width and height of the pictures [px]")
parser.add_argument("--out", type=Path, default=Path("runs/recovered"))
args = parser.parse_args()
start, faces = shapes.icosphere(3)
truth = start * torch.tensor([1.0, 0.7, 0.8]) * (1 + 0.25 * torch.sin(4 * start[:, :1]))
colors = 0.5 + 0.5 * torch.sin(7 * start)  # of each vertex, known
poses = torch.cat([orbit(torch.zeros(3), 3.5, elevation=angle, num=4) for angle in (-0.5, 0.3, 0.9)])
viewmats, Ks = se3.inverse(poses), intrinsics(args.size, args.size, args.size / 2, args.size / 2).expand(len(poses), 3, 3)
neighbors = edge_neighbors(faces)


def pictures(vertices):
    positions = screen_positions(vertices, viewmats, Ks)
    fragments = rasterize(positions, faces, args.size, args.size)
    return antialias(interpolate(colors, faces, fragments), positions, faces, fragments, neighbors=neighbors)


# Steps are taken in u = (I + 10 L) x, L the graph Laplacian: a gradient at one vertex moves the surface around it.
edges, _ = unique_edges(faces)
links = torch.zeros(len(start), len(start)).index_put((edges[:, 0], edges[:, 1]), torch.tensor(1.0))
laplacian = torch.diag((links + links.T).sum(1)) - links - links.T
smooth = torch.linalg.inv(torch.eye(len(start)) + 10 * laplacian)
target, change = pictures(truth), torch.zeros_like(start, requires_grad=True)
optimizer = torch.optim.Adam([change], lr=0.05)
for step in range(args.steps + 1):
    optimizer.param_groups[0]["lr"] = 0.05 * 0.02 ** (step / args.steps)
    found = start + smooth @ change
    loss = (pictures(found) - target).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0 or step == args.steps:
        print(f"step {step}: loss {loss.item():.5f}, vertices off by {(found - truth).norm(dim=1).mean():.4f} m")

Mesh(found.detach(), faces, vertex_colors=colors).save(args.out / "mesh.glb")
rows = [torch.cat(list(pictures(vertices.detach())[:6]), 1) for vertices in (truth, start, found)]
write_image(args.out / "pictures.png", torch.cat(rows))
