"""Fit a scene to photos, drop the objects on its floor as jelly, render a video, and export the last frame.

python examples/06_fit_and_simulate.py assets/demo runs/jelly
"""

import sys
from pathlib import Path

import vision3d
from vision3d.io.video import VideoWriter
from vision3d.render import path_cameras
from vision3d.stages.fit import FitConfig
from vision3d.stages.simulate import SimulateConfig, load_material

data, out, (steps, frames) = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:] or (3000, 72))
fitted = vision3d.fit(FitConfig(steps=steps, max_gaussians=20_000), data)
jelly = SimulateConfig(load_material("jelly"), frames=frames, drop=0.2)  # dropped from a height of a fifth of its longest side
moving = vision3d.simulate(jelly, fitted.scene, cameras=fitted.cameras).sequence
moving.save(out / "moving.zarr")  # vision3d view runs/jelly/moving.zarr
camera = path_cameras(fitted.scene, "orbit", fitted.cameras, num=1)
with VideoWriter(out / "video.mp4", fps=jelly.fps) as video:
    for frame in moving:
        (view,) = vision3d.render_views(frame, camera)
        video.append(view.image)
moving.frame(-1).save(out / "last.spz")
print(f"now open {out / 'video.mp4'}")
