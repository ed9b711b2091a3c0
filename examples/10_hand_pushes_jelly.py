"""A rigged hand pushes a block of jelly, which sticks to the floor: a clip as a moving obstacle, and a video of both.

python examples/10_hand_pushes_jelly.py --frames 36 --out runs/hand_pushes_jelly
python examples/10_hand_pushes_jelly.py --hand runs/hands/hands.glb       # a clip of `vision3d hand run`
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from vision3d import Mesh, simulate
from vision3d.core.runs import RunFolder
from vision3d.geometry import rotation as r, shapes
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.scene import Channel, Clip
from vision3d.stages.hand import HandTemplate, gesture
from vision3d.stages.simulate import AnimatedObstacle, SimulateConfig, load_material

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--hand", type=Path, help="mesh with joints and a clip (.glb); by default the bundled hand")
parser.add_argument("--frames", type=int, default=36)
parser.add_argument("--cells", type=int, default=20)
parser.add_argument("--video-size", type=int, nargs=2, default=[640, 480])
parser.add_argument("--out", type=Path, default=Path("runs/hand_pushes_jelly"))
args = parser.parse_args()

vertices, faces = shapes.box((0.14, 0.09, 0.11), 10)  # meters; y is up
jelly = Mesh(vertices, faces, vertex_colors=torch.tensor([0.85, 0.25, 0.3]).repeat(len(vertices), 1))

if args.hand is None:  # the palm faces the jelly; it comes from the right, pushes, and goes back
    hand, times = HandTemplate.load(), torch.linspace(0, 1.5, 31, dtype=torch.float64)
    bend = 0.5 - 0.5 * (2 * math.pi * times / 1.5).cos()
    angles = torch.lerp(gesture("flat"), gesture("relaxed"), bend[:, None].float())
    place = torch.stack([0.145 - 0.11 * bend, torch.full_like(bend, -0.085), torch.zeros_like(bend)], 1).float()
    turn = rotmat_to_quat(r.so3_exp(torch.tensor([0.0, -math.pi / 2, 0.0])))
    wrist = Channel("translation", 0, times, place), Channel("rotation", 0, times[:1], turn[None])
    args.hand = args.out / "hand.glb"
    hand.to_skinned_mesh([Clip("push", (*wrist, *hand.clip(angles, times).channels))]).save(args.hand)

config = SimulateConfig(
    replace(load_material("jelly"), youngs_modulus=1e4), frames=args.frames, cells=args.cells, up=(0, 1, 0), room=0.7,
    floor="below", floor_kind="sticky", animated=(AnimatedObstacle(str(args.hand), friction=0.3),), video=True,
    video_size=tuple(args.video_size),
)  # fmt: skip
moving = simulate(config, jelly, run_folder=RunFolder.create(args.out / "run", config, overwrite=True)).sequence
print(f"{len(moving)} frames; now open {args.out / 'run' / 'video.mp4'}")
