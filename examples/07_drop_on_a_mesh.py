"""Drop an object of Gaussians on a mesh, and render a video of both.

python examples/07_drop_on_a_mesh.py object.ply --mesh chair.glb --material rubber --out runs/dropped
"""

import argparse
from pathlib import Path

import torch

from vision3d import GaussianScene, Mesh, simulate
from vision3d.core.runs import RunFolder
from vision3d.geometry import shapes
from vision3d.stages.simulate import Boundary, SimulateConfig, load_material

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("scene", type=Path, help=".ply, .spz, ...; z is up")
parser.add_argument("--mesh", type=Path, help=".glb, .obj, ...; a sphere by default")
parser.add_argument("--material", default="jelly", help="jelly, rubber, metal, sand, snow, water, foam, or a .yaml")
parser.add_argument("--frames", type=int, default=60)
parser.add_argument("--out", type=Path, default=Path("runs/dropped"))
args = parser.parse_args()

scene = GaussianScene.load(args.scene)
low, high = scene.means.quantile(torch.tensor([0.01, 0.99]), dim=0)
side = float((high - low).max())
mesh = Mesh.load(args.mesh) if args.mesh else Mesh(*shapes.icosphere(3))
# Half as large as the object, its top a quarter below the object's lowest part.
sizes = mesh.vertices.amax(0) - mesh.vertices.amin(0)
vertices = (mesh.vertices - mesh.vertices.amax(0) + sizes * torch.tensor([0.5, 0.5, 0.0])) * (0.5 * side / sizes.max())
place = (low + high) / 2 * torch.tensor([1.0, 1.0, 0.0]) + torch.tensor([0.0, 0.0, float(low[2]) - 0.25 * side])
args.out.mkdir(parents=True, exist_ok=True)
Mesh(vertices + place, mesh.faces).save(args.out / "obstacle.glb")

obstacle = Boundary("mesh", mesh=str(args.out / "obstacle.glb"), kind="separate", friction=0.4)
config = SimulateConfig(
    load_material(args.material), frames=args.frames, boundaries=(obstacle,), up=(0, 0, 1), floor="below", drop=0.8, video=True
)
moving = simulate(config, scene, run_folder=RunFolder.create(args.out / "run", config, overwrite=True)).sequence
print(f"{len(moving)} frames; now open {args.out / 'run' / 'video.mp4'}")
