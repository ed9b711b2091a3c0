"""Fit a scene to a folder of photos with known cameras, check its quality, and save it with one new view.

python examples/01_fit_photographs.py assets/demo --minutes 1 --out runs/first
"""

import argparse
from pathlib import Path

import vision3d
from vision3d.io.images import write_image
from vision3d.render import path_cameras
from vision3d.stages.fit import FitConfig

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", type=Path, help="COLMAP model, transforms.json or NeRF-synthetic folder")
parser.add_argument("--minutes", type=float, default=1.0)
parser.add_argument("--steps", type=int, help="stop after this many steps, if that is earlier")
parser.add_argument("--max-gaussians", type=int, default=20_000)
parser.add_argument("--out", type=Path, default=Path("runs/first"))
args = parser.parse_args()

images = vision3d.PosedImages.load(args.data)
print(images)

config = FitConfig(minutes=args.minutes, steps=args.steps, max_gaussians=args.max_gaussians)
result = vision3d.fit(config, images)
print(result.scene)
print(f"held-out views: {result.summary['psnr']:.2f} dB, after {result.summary['steps']} steps")

result.scene.save(args.out / "scene.ply")
camera = path_cameras(result.scene, "orbit", result.cameras, num=1)
view = next(vision3d.render_views(result.scene, camera))
write_image(args.out / "view.png", view.image)
print(f"now open {args.out / 'view.png'}")
