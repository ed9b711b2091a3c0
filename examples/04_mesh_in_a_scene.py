"""Put a mesh into a scene of Gaussians, light it, and render both with per-pixel occlusion.

python examples/04_mesh_in_a_scene.py runs/demo/scene.ply --mesh chair.glb --out runs/with_mesh
"""

import argparse
from pathlib import Path

import torch

from vision3d import GaussianScene, Mesh, Scene
from vision3d.geometry import se3, shapes
from vision3d.render import path_cameras
from vision3d.render.meshes import Lights
from vision3d.report import write_renders

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scene", type=Path, help=".ply")
parser.add_argument("--mesh", type=Path, help=".glb, .obj, ...; a ring by default")
parser.add_argument("--scale", type=float, default=1.0, help="scale of the mesh")
parser.add_argument("--at", type=float, nargs=3, default=(0.0, 0.0, 0.0), help="position of its origin [m]")
parser.add_argument("--frames", type=int, default=90)
parser.add_argument("--size", type=int, default=320, help="width of the video [px]")
parser.add_argument("--out", type=Path, default=Path("runs/with_mesh"))
args = parser.parse_args()

mesh = Mesh.load(args.mesh) if args.mesh else Mesh(*shapes.torus(major=1.0, minor=0.15))
place = se3.similarity(torch.tensor(args.scale), torch.eye(3), torch.tensor(args.at))
scene = Scene().add("gaussians", GaussianScene.load(args.scene)).add("mesh", mesh, place)
scene.save(args.out / "scene")  # vision3d render accepts this folder, too

sun = Lights(ambient=0.2, headlight=0.3, directions=[(0.5, -0.3, 1.0)], specular=0.2)
cameras = path_cameras(scene, "orbit", num=args.frames, size=(args.size, args.size * 3 // 4))
write_renders(scene, cameras, args.out / "turntable.mp4", fps=24, lights=sun, overwrite=True)
print(f"now open {args.out / 'turntable.mp4'}")
