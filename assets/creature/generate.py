"""Generates the creature, a small dragon that walks and jumps, and images of it with masks from three cameras.

Run `python generate.py --out FOLDER`, with vision3d and its extra `mesh` installed. The same library versions give the same
bytes. Written: creature.glb, and clip/, three folders of frames with cameras.json.
"""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import body
import numpy as np
import paint
import remesh
import rig
import torch

from vision3d import Cameras, Mesh, SkinnedMesh
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.skinning import keep_largest
from vision3d.io.images import write_image
from vision3d.render import render_scene
from vision3d.render.baking.atlas import unwrap
from vision3d.render.baking.texels import spread, texels_of
from vision3d.scene.clip import Channel, Clip

NUM_FACES, TEXTURE = 2900, 512
SIZE, FRAMES, CLIP = 128, 16, "Walk"
AZIMUTHS = (0.0, 120.0, 240.0)
ELEVATION, DISTANCE, FOV = 5.0, 3.8, 20.0
"""Cameras around the origin [degrees, m], common for video to 4D; azimuth 0 shows the creature from its left."""


def creature() -> SkinnedMesh:
    """The mesh with its joints, texture and clips; the center of its box in the rest pose is the origin."""
    vertices, faces = body.surface()
    vertices, faces = remesh.improved(*remesh.simplified(vertices, faces, NUM_FACES), body.projected)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    kept, indices = keep_largest(torch.from_numpy(rig.weights(vertices, faces)), 4)
    plain = Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces))
    mesh = unwrap(plain, TEXTURE, 2)
    source = torch.cdist(mesh.vertices.double(), plain.vertices.double()).argmin(1)
    middle = torch.from_numpy(middle).float()
    texture = _texture(mesh)
    mesh = replace(mesh, vertices=mesh.vertices - middle, texture=texture)
    places = torch.from_numpy(rig.PLACES).float() - middle
    above = torch.stack([places[parent] if parent >= 0 else torch.zeros(3) for parent in rig.PARENTS])
    binds = torch.eye(4).repeat(len(places), 1, 1)
    binds[:, :3, 3] = -places
    return SkinnedMesh(
        mesh,
        rig.NAMES,
        rig.PARENTS,
        translations=places - above,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(len(places), 1),
        scales=torch.ones(len(places), 3),
        inverse_binds=binds,
        indices=indices[source],
        weights=kept.float()[source],
        clips=tuple(_clip(name, places[0]) for name in rig.CLIPS),
    )


def _texture(mesh: Mesh) -> torch.Tensor:
    texels = texels_of(mesh, TEXTURE)
    points = body.projected(texels.points.double().numpy(), 2)
    normals = body.gradient(points)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    texture = torch.zeros(TEXTURE, TEXTURE, 3)
    texture[texels.mask] = torch.from_numpy(paint.colors(points, normals)).float().clamp(0, 1)
    return spread(texture, texels.mask)


def _clip(name: str, root: torch.Tensor) -> Clip:
    times, rotmats, shifts = rig.sampled(name)
    at = torch.from_numpy(times)
    quats = rotmat_to_quat(torch.from_numpy(rotmats)).float()
    channels = [Channel("rotation", joint, at, quats[:, joint]) for joint in range(len(rig.NAMES))]
    return Clip(name, (Channel("translation", 0, at, root + torch.from_numpy(shifts).float()), *channels))


def cameras() -> Cameras:
    """Cameras around the creature, y up."""
    elevation = math.radians(ELEVATION)
    eyes = []
    for azimuth in map(math.radians, AZIMUTHS):
        eyes.append([math.cos(azimuth) * math.cos(elevation), math.sin(elevation), -math.sin(azimuth) * math.cos(elevation)])
    poses = look_at(DISTANCE * torch.tensor(eyes), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    focal = 0.5 * SIZE / math.tan(math.radians(FOV) / 2)
    K, names = intrinsics(focal, focal, SIZE / 2, SIZE / 2), [f"camera_{i}" for i in range(len(AZIMUTHS))]
    return Cameras.from_camtoworlds(poses, K, SIZE, SIZE, names=names)


def write_clip(skin: SkinnedMesh, out: Path) -> None:
    """Frames of one cycle, camera by camera: RGBA with straight alpha, 2x supersampled."""
    clip = skin.clip(CLIP)
    times = clip.start + (clip.end - clip.start) * torch.arange(FRAMES, dtype=torch.float64) / FRAMES
    views = cameras()
    for name, camera in zip(views.names or (), views):
        for frame, vertices in enumerate(skin.posed(clip, times)):
            (view,) = render_scene(replace(skin.mesh, vertices=vertices), camera.resized(2 * SIZE, 2 * SIZE), shading="none")
            assert view.image is not None
            layers = torch.cat([view.image, view.alpha[..., None]], -1).movedim(-1, 0)[None]
            image = torch.nn.functional.avg_pool2d(layers, 2)[0].movedim(0, -1)
            image[..., :3] /= image[..., 3:].clamp(min=1 / 255)
            write_image(out / name / f"{frame:03d}_rgba.png", image)
    views.save(out / "cameras.json")


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the creature and a clip of it.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    options = parser.parse_args()
    if (options.out / "creature.glb").exists() and not options.overwrite:
        parser.error(f"{options.out / 'creature.glb'} exists; give --overwrite to replace it")
    torch.set_num_threads(1)
    skin = creature()
    skin.save(options.out / "creature.glb")
    write_clip(skin, options.out / "clip")
    print(f"{skin}: {len(skin.names)} joints, in {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
