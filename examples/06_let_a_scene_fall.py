"""Let a scene of Gaussians, or a ball of it, fall as jelly, sand or snow, and film it. Small scenes: the engine is plain torch.

python examples/06_let_a_scene_fall.py runs/demo/scene.ply --material jelly --ball 0 0 0.6 1.4 --out runs/fall
"""

import argparse
from pathlib import Path

import torch

from vision3d import GaussianScene, Region, Selection
from vision3d.io.video import VideoWriter
from vision3d.render import path_cameras, render_scene
from vision3d.stages.physics import SimulateConfig, load_material, simulate

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scene", type=Path, help=".ply, .spz, ...")
parser.add_argument("--material", default="jelly", help="jelly, rubber, metal, sand, snow, water, foam, or a .yaml")
parser.add_argument("--ball", type=float, nargs=4, help="what moves: centre and radius; all when it is left out")
parser.add_argument("--up", type=float, nargs=3, default=(0.0, 0.0, 1.0), help="upward direction in the scene")
parser.add_argument("--metres", type=float, help="longest side of what moves; the scene's own unit when it is left out")
parser.add_argument("--drop", type=float, default=0.2, help="the floor is this far below, in sides of what moves")
parser.add_argument("--frames", type=int, default=48)
parser.add_argument("--size", type=int, default=480, help="width of the video [px]")
parser.add_argument("--out", type=Path, default=Path("runs/fall"))
args = parser.parse_args()

scene, up = GaussianScene.load(args.scene), tuple(args.up)
select = Selection((Region.sphere(torch.tensor(args.ball[:3]), args.ball[3]),)) if args.ball else None
material = load_material(args.material)
moving = simulate(scene, SimulateConfig(material, frames=args.frames, size=args.metres, up=up, drop=args.drop), select=select)
moving.save(args.out / "fall.zarr")  # vision3d view runs/fall/fall.zarr

both_ends = [moving.frame(0), moving.frame(-1)]
camera = path_cameras(both_ends, num=1, size=(args.size, args.size * 3 // 4), up=torch.tensor(up), zoom=0.6)
with VideoWriter(args.out / "fall.mp4", fps=24) as video:
    for frame in moving:
        (view,) = render_scene(frame, camera, backgrounds=(1.0, 1.0, 1.0))
        video.append(view.image.clamp(0, 1))
print(f"now open {args.out / 'fall.mp4'}")
