"""Compose scenes: crop one to a box, put another next to it, smaller and rotated, and render both on a turntable.

python examples/03_compose_scenes.py runs/demo/scene.ply runs/demo/scene.ply --out runs/composed
"""

import argparse
import math
from pathlib import Path

import torch

from vision3d import Cameras, GaussianScene
from vision3d.geometry import se3
from vision3d.geometry.cameras import intrinsics
from vision3d.geometry.paths import orbit
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.report import write_renders

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("first", type=Path, help=".ply")
parser.add_argument("second", type=Path, help=".ply")
parser.add_argument("--box", type=float, default=1.2, help="half the side of the box to which both are cropped [m]")
parser.add_argument("--frames", type=int, default=90)
parser.add_argument("--size", type=int, default=320, help="width of the video [px]")
parser.add_argument("--out", type=Path, default=Path("runs/composed"))
args = parser.parse_args()

box = torch.tensor([[-args.box] * 3, [args.box] * 3])
first, second = (GaussianScene.load(path).crop(box) for path in (args.first, args.second))

quarter_turn = quat_to_rotmat(torch.tensor([math.cos(math.pi / 4), 0.0, 0.0, math.sin(math.pi / 4)]))  # about z
shift = torch.tensor([1.5 * args.box, 0.0, 0.0])
both = first.merge(second.transform(se3.similarity(torch.tensor(0.5), quarter_turn, shift)))
both.save(args.out / "scene.ply")
print(f"{first} and {second} make {both}")

width, height = args.size, args.size * 3 // 4
poses = orbit(shift / 2, 3 * args.box, elevation=0.45, num=args.frames)
cameras = Cameras.from_camtoworlds(poses, intrinsics(height, height, width / 2, height / 2), width, height)
write_renders(both, cameras, args.out / "turntable.mp4", fps=24, background=(1.0, 1.0, 1.0), overwrite=True)
print(f"now open {args.out / 'turntable.mp4'}")
