"""Motion capture of a folder retargeted to rigged meshes: joints used, and the height of the lowest vertex above the floor.

python benchmarks/bench_retarget.py BVHS SKIN... The floor is the lowest vertex of the rest pose, on which that of a
frame is in a standing or walking motion, and above it in a jump; heights are shares of that of the mesh.
"""

import argparse
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import ForeignLoad, add_options, write

from vision3d.core.errors import Vision3DError
from vision3d.io.images import write_image
from vision3d.optim.motion.retarget import retarget
from vision3d.render import render_scene
from vision3d.scene import Cameras, FrameSequence, Motion, SkinnedMesh
from vision3d.stages.animate import RigConfig
from vision3d.stages.animate.rig.images import orbit

_FRAMES = 120
_SHOWN = (0.0, 0.35, 0.7)


def measured(skin: SkinnedMesh, motion: Motion, sheet: list[torch.Tensor] | None) -> dict[str, Any]:
    """Figures of a motion on a skin; images of some frames are added to the sheet."""
    clip = retarget(motion, skin)
    times = torch.linspace(0, clip.end, _FRAMES, dtype=torch.float64)
    vertices = skin.posed(clip, times)
    rest = skin.at_rest().vertices
    tall = float(rest[:, 1].max() - rest[:, 1].min())
    low = ((vertices[..., 1].amin(1) - rest[:, 1].min()) / tall).sort().values
    if sheet is not None:
        frames = FrameSequence(
            skin.at_rest(), torch.tensor(_SHOWN), {"vertices": vertices[[round(share * (_FRAMES - 1)) for share in _SHOWN]]}
        )
        cameras: Cameras = orbit(frames, RigConfig(), len(_SHOWN), (160, 160), 0.0)
        for index in range(len(_SHOWN)):
            mesh = replace(skin.at_rest(), vertices=frames.channels["vertices"][index], normals=None)
            (view,) = render_scene(mesh, cameras[index : index + 1])
            image = view.image
            assert image is not None
            sheet.append(image.clamp(0, 1))
    moved = {channel.joint for channel in clip.channels if channel.path == "rotation"}
    lowest, median, highest = (round(float(value), 3) for value in (low[0], low[_FRAMES // 2], low[-1]))
    return {"frames": len(motion), "joints": len(moved), "lowest": lowest, "median": median, "highest": highest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("folder", type=Path)
    parser.add_argument("skins", type=Path, nargs="+")
    parser.add_argument("--names", type=Path, help="JSON: names for joints of the skins that have none of their own")
    parser.add_argument("--images", type=Path, help="folder for a sheet of each skin: a row of frames for each motion")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    names = json.loads(options.names.read_text()) if options.names else {}
    table: dict[str, dict[str, Any]] = {}
    with ForeignLoad() as load:
        for path in options.skins:
            skin, rows, sheet = SkinnedMesh.load(path), {}, [] if options.images else None
            skin = replace(skin, names=tuple(names.get(name, name) for name in skin.names))
            for source in sorted(options.folder.glob("*.bvh")):
                try:
                    rows[source.stem] = measured(skin, Motion.load(source), sheet)
                except Vision3DError as error:
                    rows[source.stem] = {"refused": str(error).replace(str(source.parent), "")[:300]}
                print(path.stem, source.stem, rows[source.stem], flush=True)
            table[path.stem] = rows
            if sheet:
                lines = [torch.cat(sheet[i : i + len(_SHOWN)], 1) for i in range(0, len(sheet), len(_SHOWN))]
                half = -(-len(lines) // 2)
                lines += [torch.ones_like(lines[0])] * (2 * half - len(lines))
                write_image(
                    options.images / f"{path.stem}.png", torch.cat([torch.cat(lines[:half]), torch.cat(lines[half:])], 1)
                )
    write("retarget", table, load.share)


if __name__ == "__main__":
    main()
