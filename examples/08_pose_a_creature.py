"""Pose the bundled creature by angles, as a new .glb and as splats, and render a video of a clip.

python examples/08_pose_a_creature.py --pose head=0,35,10 tail_1=0,30,0 --clip Jump --out runs/creature
"""

import argparse
from importlib.resources import files
from pathlib import Path

from vision3d import SkinnedMesh, play_skin
from vision3d.core.runs import RunFolder
from vision3d.stages.animate import RigConfig

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--skin", type=Path, default=Path(str(files("vision3d") / "assets" / "creature" / "creature.glb")))
parser.add_argument("--pose", nargs="+", default=["head=0,35,10", "tail_1=0,30,0"], help="JOINT=X,Y,Z in degrees")
parser.add_argument("--clip", default="Walk")
parser.add_argument("--out", type=Path, default=Path("runs/creature"))
args = parser.parse_args()

skin = SkinnedMesh.load(args.skin)
posed = play_skin(RigConfig(pose=tuple(args.pose), method="dqs", render="gaussians"), skin)
posed.skin.save(args.out / "posed.glb")  # the pose becomes its rest pose; the clips still work
posed.frames.frame(0).save(args.out / "posed.ply")  # flat Gaussians on the faces

config = RigConfig(clip=args.clip, shading="none", video_size=(480, 360))
play_skin(config, skin, run_folder=RunFolder.create(args.out / "clip", config, overwrite=True))
print(f"{len(skin)} joints: {', '.join(skin.names)}; now open {args.out / 'clip' / 'video.mp4'}")
