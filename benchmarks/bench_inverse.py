"""Inverse rendering of a mesh from twelve images: its vertices with a known texture, and its texture with known vertices.

python benchmarks/bench_inverse.py MESH.obj [--steps 300] [--size 256] [--image OUT.png]
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, refuse_foreign_load, write
from torch import Tensor

from vision3d import Mesh
from vision3d.geometry import se3
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.mesh import unique_edges
from vision3d.io.images import write_image
from vision3d.optim.metrics import psnr
from vision3d.render.meshes import Fragments, antialias, edge_neighbors, interpolate, rasterize, screen_positions, texture

VIEWS, MODES, AMPLITUDE = 12, 20, 0.05


class Stage:
    """A mesh with cameras all around it."""

    def __init__(self, mesh: Mesh, size: int) -> None:
        self.mesh, self.size, self.neighbors = mesh, size, edge_neighbors(mesh.faces)
        low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
        center, self.diagonal = (low + high) / 2, float((high - low).norm())
        turns = torch.arange(VIEWS) * 2.4
        rises = torch.linspace(-0.8, 0.8, VIEWS)
        away = torch.stack([turns.cos() * rises.cos(), rises.sin(), turns.sin() * rises.cos()], -1)
        poses = look_at(center + 1.4 * self.diagonal * away, center, torch.tensor([0.0, 1.0, 0.0]))
        self.viewmats = se3.inverse(poses)
        self.Ks = intrinsics(1.25 * size, 1.25 * size, size / 2, size / 2).expand(VIEWS, 3, 3)

    def fragments(self, vertices: Tensor) -> tuple[Tensor, Fragments]:
        positions = screen_positions(vertices, self.viewmats, self.Ks)
        return positions, rasterize(positions, self.mesh.faces, self.size, self.size)

    def draw(self, vertices: Tensor) -> Tensor:
        """Images with alpha of a texture that is a function of position on the undeformed mesh."""
        positions, fragments = self.fragments(vertices)
        place = interpolate(self.mesh.vertices, self.mesh.faces, fragments) / self.diagonal
        waves = torch.stack([torch.sin(k * place + k) for k in (9.0, 23.0)]).sum(0)
        seen = (fragments.face_ids >= 0)[..., None]
        image = torch.cat([torch.where(seen, 0.5 + 0.22 * waves, 0.0), seen.float()], -1)
        return antialias(image, positions, self.mesh.faces, fragments, neighbors=self.neighbors)

    def seen_vertices(self) -> Tensor:
        """Vertices of faces visible in any image."""
        faces = self.fragments(self.mesh.vertices)[1].face_ids.unique()
        seen = torch.zeros(self.mesh.num_vertices, dtype=torch.bool)
        seen[self.mesh.faces[faces[faces >= 0].long()].flatten()] = True
        return seen


def laplacian(mesh: Mesh) -> Tensor:
    """The graph Laplacian (V, V), dense."""
    edges, _ = unique_edges(mesh.faces)
    matrix = torch.zeros(mesh.num_vertices, mesh.num_vertices)
    matrix[edges[:, 0], edges[:, 1]] = matrix[edges[:, 1], edges[:, 0]] = -1
    return matrix - torch.diag(matrix.sum(1))


def bend(mesh: Mesh, matrix: Tensor, diagonal: float) -> Tensor:
    """Displaces the vertices along the lowest non-constant modes; the largest displacement is AMPLITUDE of the diagonal."""
    _, modes = torch.linalg.eigh(matrix)
    weights = torch.randn(MODES, 3, generator=torch.Generator().manual_seed(0))
    move = modes[:, 1 : MODES + 1] @ weights
    return mesh.vertices + move * (AMPLITUDE * diagonal / move.norm(dim=1).max())


def recover_vertices(stage: Stage, steps: int, smoothing: float = 20.0) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """Gradient descent in u = (I + smoothing L) x (Nicolet et al. 2021) on the images, coarse to fine."""
    matrix = laplacian(stage.mesh)
    start = bend(stage.mesh, matrix, stage.diagonal)
    system = torch.eye(len(matrix)) + smoothing * matrix
    factor = torch.linalg.cholesky(system)
    inverse = torch.cholesky_inverse(factor)
    moved = torch.zeros_like(start).requires_grad_()  # u minus its initial value
    seen = stage.seen_vertices()
    with torch.no_grad():
        target = stage.draw(stage.mesh.vertices)
    optimizer = torch.optim.Adam([moved], lr=0.01 * stage.diagonal, betas=(0.9, 0.999))
    begin = time.process_time()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * stage.diagonal * (0.02 ** (step / steps))
        difference = stage.draw(start + inverse @ moved) - target
        blur = 2 ** max(0, 4 - 8 * step // steps)
        if blur > 1:
            difference = torch.nn.functional.avg_pool2d(difference.permute(0, 3, 1, 2), blur)
        loss = difference.abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.process_time() - begin
    with torch.no_grad():
        found = start + inverse @ moved
        errors = [(x - stage.mesh.vertices).norm(dim=1)[seen] / stage.diagonal for x in (start, found)]
        images = target, stage.draw(start), stage.draw(found)
    results = {
        "steps": steps, "seen_vertices": int(seen.sum()), "vertices": len(seen), "cpu_s": seconds,
        "start_error": float(errors[0].mean()), "error": float(errors[1].mean()),
        "reduction": float(errors[0].mean() / errors[1].mean()),
        "rms_reduction": float((errors[0].square().mean() / errors[1].square().mean()).sqrt()),
        "psnr_start": psnr(images[1], target), "psnr": psnr(images[2], target),
    }  # fmt: skip
    return results, images


def recover_texture(stage: Stage, steps: int, texels: int = 256) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """Gradient descent on the texels, starting from gray; evaluated on the texels visible in any image."""
    assert stage.mesh.corner_uvs is not None
    uvs = stage.mesh.corner_uvs.flatten(0, 1)
    uv_faces = torch.arange(len(uvs)).view(-1, 3)
    y, x = torch.meshgrid(torch.arange(texels) / texels, torch.arange(texels) / texels, indexing="ij")
    board = ((16 * x).floor() + (16 * y).floor()) % 2
    truth = torch.stack([0.2 + 0.6 * board, 0.5 + 0.4 * torch.sin(40 * x + 9 * y), 0.5 + 0.4 * torch.cos(33 * y)], -1)
    _, fragments = stage.fragments(stage.mesh.vertices)
    where, masks = interpolate(uvs, uv_faces, fragments), fragments.face_ids >= 0
    target = texture(truth, where, masks=masks)
    guess = torch.full_like(truth, 0.5).requires_grad_()
    (weights,) = torch.autograd.grad(texture(guess, where, masks=masks).sum(), guess)
    seen = weights[..., 0] > 0
    optimizer = torch.optim.Adam([guess], lr=0.05)
    begin = time.process_time()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (0.02 ** (step / steps))
        loss = (texture(guess, where, masks=masks) - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.process_time() - begin
    found = guess.detach()
    results = {
        "steps": steps, "texels": texels * texels, "seen_texels": int(seen.sum()), "cpu_s": seconds,
        "psnr_start": psnr(torch.full_like(truth, 0.5)[None], truth[None], seen[None]),
        "psnr": psnr(found[None], truth[None], seen[None]),
    }  # fmt: skip
    shown = torch.where(seen[..., None], found, torch.zeros(3))
    with torch.no_grad():
        drawn = [texture(board, where, masks=masks) for board in (torch.full_like(truth, 0.5), found)]
    return results, (target, *drawn, truth, shown)


def comparison(
    stage: Stage, shapes: tuple[Tensor, ...], textures: tuple[Tensor, ...], views: tuple[int, ...] = (1, 5, 9)
) -> Tensor:
    """Rows: target, start and result in three views, on white; shapes on the left, textures on the right."""

    def row(images: Tensor) -> Tensor:
        return torch.cat([images[view] for view in views], 1)

    left = [row(image[..., :3] + 1 - image[..., 3:]) for image in shapes]
    masks = stage.fragments(stage.mesh.vertices)[1].face_ids[..., None] >= 0
    right = [row(torch.where(masks, image, 1.0)) for image in textures[:3]]
    return torch.cat([torch.cat(rows, 0) for rows in (left, right)], 1).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mesh", type=Path, help=".obj with uvs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=256, help="width and height of the images [px]")
    parser.add_argument("--image", type=Path, help=".png of target, start and result")
    add_options(parser)
    options = parser.parse_args()
    if not options.busy:
        refuse_foreign_load()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stage = Stage(Mesh.load(options.mesh), options.size)
    with ForeignLoad() as load:
        shape, shapes = recover_vertices(stage, options.steps)
        print("vertices:", shape)
        board, textures = recover_texture(stage, options.steps)
        print("texture:", board)
    if options.image:
        write_image(options.image, comparison(stage, shapes, textures))
    results = {"mesh": options.mesh.name, "views": VIEWS, "size": options.size, "modes": MODES, "amplitude": AMPLITUDE}
    write("inverse", {**results, "vertices": shape, "texture": board}, load.share)


if __name__ == "__main__":
    main()
