"""Correction of camera poses by `fit --pose-opt`: noise on the training cameras, errors after alignment, held-out PSNR.

Each run starts from the same photos. `exact` has the poses of the data set; the others have normal noise on all training
cameras, with --pose-opt or without. Held-out cameras are exact; `psnr_aligned` places them in the world of the corrected
cameras, which the photos determine up to a similarity.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from support import RESULTS, ForeignLoad, add_options, write
from torch import Tensor

from vision3d.geometry import registration, se3
from vision3d.io.dataset import load_dataset
from vision3d.scene import Cameras, PosedImages
from vision3d.stages.fit import FitConfig, evaluate, fit

AXIS = 1.0  # length of the axes of cameras that are aligned [m]


def with_noise(images: PosedImages, seed: int, turn: float, shift: float) -> PosedImages:
    """Normal noise on the poses of the training cameras, `turn` [rad] and `shift` [m] along each axis of the camera."""
    noise = torch.randn(len(images), 6, generator=torch.Generator().manual_seed(seed))
    noise *= torch.tensor([shift] * 3 + [turn] * 3)
    noise[images.is_test] = 0
    moved = se3.exp(noise) @ images.cameras.viewmats
    raw = None if images.raw_cameras is None else replace(images.raw_cameras, viewmats=moved)
    return replace(images, cameras=replace(images.cameras, viewmats=moved), raw_cameras=raw)


def aligned(cameras: Cameras, onto: Cameras) -> Tensor:
    """The similarity that moves cameras onto others: least squares of their centers and of the ends of their axes."""
    scale = 1.0
    for _ in range(5):  # the axes must not be scaled
        source, target = _corners(cameras, AXIS / scale), _corners(onto, AXIS)
        found, rotmat, moved = registration.umeyama(source, target)
        scale = float(found)
    return se3.similarity(found, rotmat, moved)


def pose_errors(cameras: Cameras, truth: Cameras) -> dict[str, float]:
    """Root mean squares over the cameras after alignment [deg, cm]."""
    placed = cameras.transform(aligned(cameras, truth).to(cameras.viewmats))
    relative = placed.viewmats[:, :3, :3].double() @ truth.viewmats[:, :3, :3].double().mT
    skew = torch.stack([relative[:, 2, 1] - relative[:, 1, 2], relative[:, 0, 2] - relative[:, 2, 0],
                        relative[:, 1, 0] - relative[:, 0, 1]], -1) / 2  # fmt: skip
    angles = torch.asin(skew.norm(dim=-1).clamp(max=1))
    shifts = (placed.centers - truth.centers).norm(dim=-1)
    return {"deg": math.degrees(float(angles.square().mean().sqrt())), "cm": 100 * float(shifts.square().mean().sqrt())}


def measured(config: FitConfig, images: PosedImages, truth: PosedImages) -> dict[str, Any]:
    """Errors of the poses before and after a fit, and its PSNR on held-out views."""
    exact = truth.cameras[truth.train]
    result = fit(config, images)
    matrix = aligned(exact, result.cameras).to(exact.viewmats)
    placed = replace(truth, cameras=truth.cameras.transform(matrix), raw_cameras=None if truth.raw_cameras is None else
                     truth.raw_cameras.transform(matrix))  # fmt: skip
    background = tuple(result.summary["background"])
    return {
        "before": pose_errors(images.cameras[images.train], exact),
        "after": pose_errors(result.cameras, exact),
        "psnr": result.summary["psnr"],
        "psnr_aligned": evaluate(result.scene, placed, background=background).mean()["psnr"],
    }


def _corners(cameras: Cameras, length: float) -> Tensor:
    poses = cameras.camtoworlds.double()
    ends = torch.cat([torch.zeros(3, 1), length * torch.eye(3)], 1).to(poses)
    return (poses[:, :3, :3] @ ends + poses[:, :3, 3:]).mT.reshape(-1, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="photos with cameras")
    parser.add_argument(
        "--name", default="demo", help="name of the data set; the result is poses_NAME.json, to which runs are added"
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--downscale", type=float, default=1)
    parser.add_argument("--runs", nargs="+", default=["exact", "exact+opt", "0", "0+opt", "1+opt", "2+opt"],
                        help="`exact` or the seed of the noise, with `+opt` for --pose-opt")  # fmt: skip
    parser.add_argument("--turn", type=float, default=0.01, help="noise of each axis [rad]")
    parser.add_argument("--shift", type=float, default=0.02, help="noise of each axis [m]")
    parser.add_argument("--rate", type=float, help="--rates.poses (default: that of fit)")
    add_options(parser)
    options = parser.parse_args()
    truth = load_dataset(options.data, downscale=options.downscale, skip_missing=True)
    path = RESULTS / f"poses_{options.name}.json"
    runs: dict[str, Any] = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name in options.runs:
        noise, _, opt = name.partition("+")
        images = truth if noise == "exact" else with_noise(truth, int(noise), options.turn, options.shift)
        config = FitConfig(steps=options.steps, checkpoint_every=0, pose_opt=bool(opt), split_every=8)
        if options.rate is not None:
            config = replace(config, rates=replace(config.rates, poses=options.rate))
        with ForeignLoad() as load:
            runs[f"{name}, {options.steps} steps"] = measured(config, images, truth)
        print(name, runs[f"{name}, {options.steps} steps"], flush=True)
        write(path.stem, {"noise": {"rad": options.turn, "m": options.shift}, "runs": runs}, load.share)


if __name__ == "__main__":
    main()
