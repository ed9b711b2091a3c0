"""A small set of photos with exact cameras: colored Gaussians or a mesh, written as PNG with a transforms.json."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vision3d.geometry.spherical_harmonics import sh0_to_rgb
from vision3d.io import transforms_json
from vision3d.io.images import write_image
from vision3d.io.ply import write_points
from vision3d.render import render_scene
from vision3d.scene import Cameras, GaussianScene, Mesh


def blobs(count: int = 40, seed: int = 0) -> GaussianScene:
    """Soft colored ellipsoids within 0.6 m of the origin."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return GaussianScene(
        means=directions * uniform(0, 0.6, 1),
        quats=torch.randn(count, 4, generator=generator),
        log_scales=uniform(math.log(0.07), math.log(0.2), 3),
        opacity_logits=uniform(0.0, 3.0),
        sh=uniform(-1.5, 1.5, 1, 3),
    )


def ring(count: int = 12, size: int = 48, distance: float = 3.0) -> Cameras:
    """Cameras on a ring around the origin at two heights, looking at it."""
    angles = torch.arange(count) * (2 * math.pi / count)
    heights = torch.where(torch.arange(count) % 2 == 0, 0.5, -0.4)
    centers = torch.stack([angles.cos(), heights, angles.sin()], -1) * distance
    forward = torch.nn.functional.normalize(-centers, dim=-1)
    down = torch.tensor([0.0, -1.0, 0.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=-1)
    camtoworlds = torch.eye(4).repeat(count, 1, 1)
    camtoworlds[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    camtoworlds[:, :3, 3] = centers
    K = torch.tensor([[1.5 * size, 0, size / 2], [0, 1.5 * size, size / 2], [0, 0, 1]])
    return Cameras.from_camtoworlds(camtoworlds, K, size, size)


def write_photos(
    folder: Path,
    *,
    scene: GaussianScene | Mesh | None = None,
    cameras: Cameras | None = None,
    background: Sequence[float] = (0.0, 0.0, 0.0),
    with_alpha: bool = False,
    masks: Sequence[Tensor] | None = None,
    held_out: Sequence[int] = (2, 7),
    change: Callable[[int, Tensor], Tensor] = lambda index, image: image,
    told: Cameras | None = None,
    with_points: bool = True,
) -> Path:
    """Writes a data set and returns its folder.

    Args:
        folder: Output folder; must not exist.
        scene: The photographed scene; a mesh is rendered without shading.
        cameras: Cameras of the photos.
        background: Background color.
        with_alpha: Write RGBA images with a transparent background.
        masks: One per view.
        held_out: Held-out views.
        change: Changes an image before it is written.
        told: Cameras written to transforms.json, if not the true ones.
        with_points: Write the Gaussians' centers and colors as points; not for a mesh.
    """
    scene, cameras = scene or blobs(), cameras or ring()
    names = tuple(f"images/{i:03d}.png" for i in range(len(cameras)))
    for i, view in enumerate(render_scene(scene, cameras, backgrounds=background, shading="none")):
        image = change(i, view.image)
        if with_alpha:
            color = view.image - torch.tensor(background) * (1 - view.alpha[..., None])
            image = torch.cat([color / view.alpha[..., None].clamp(min=1e-3), view.alpha[..., None]], -1)
        write_image(folder / names[i], image)
        if masks is not None:
            write_image(folder / f"masks/{i:03d}.png", masks[i])
    is_test = torch.zeros(len(cameras), dtype=torch.bool)
    is_test[list(held_out)] = True
    transforms_json.write_cameras(
        folder / "transforms.json",
        replace(told or cameras, names=names),
        mask_names=None if masks is None else [f"masks/{i:03d}.png" for i in range(len(cameras))],
        is_test=is_test,
        ply_name="points.ply" if with_points and isinstance(scene, GaussianScene) else None,
    )
    if with_points and isinstance(scene, GaussianScene):
        write_points(folder / "points.ply", scene.means, sh0_to_rgb(scene.sh[:, 0]).clamp(0, 1))
    return folder
