"""Renders the demo photo set: 56 exactly posed images of a procedural still life.

Run `python generate.py --out FOLDER`. The same seed and library versions give the same bytes.
"""

import os

# One thread: the matrices are small, and the order of sums must not depend on the machine's core count.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from shapes import Array
from textures import Textures
from tracer import Camera, render

FIELD_OF_VIEW = 47.0  # degrees, across the image
LOOK_AT = np.array([0.0, 0.0, 0.16])
# Rings of cameras: number, height above the horizon in degrees, distance from LOOK_AT in meters.
RINGS = ((22, 15.0, 2.8), (20, 34.0, 2.75), (14, 56.0, 2.7))
# Every seventh view is held out, from the fourth on: 3, 3 and 2 of the rings, each between training views.
TEST_STEP, TEST_FIRST = 7, 3


def look_at(eye: Array, target: Array) -> Array:
    """Builds a camera-to-world matrix.

    Args:
        eye: camera position in the world, shape (3,), meters.
        target: the point it looks at, shape (3,), meters.

    Returns:
        Matrix of shape (4, 4) with OpenGL axes (x right, y up, z backwards); the world's up is z.
    """
    backwards = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0], backwards)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(backwards, right), backwards, eye], axis=1)
    return pose


def camera_poses(seed: int) -> list[Array]:
    """Places the cameras on slightly irregular rings.

    Args:
        seed: seed of the irregularities.

    Returns:
        56 camera-to-world matrices of shape (4, 4).
    """
    rng = np.random.default_rng([seed, 1])
    poses = []
    for ring, (count, height, distance) in enumerate(RINGS):
        for number in range(count):
            jitter = rng.uniform(-1.0, 1.0, 6)
            azimuth = 2.0 * np.pi * (number + 0.37 * ring) / count + np.radians(1.5 * jitter[0])
            elevation = np.radians(height + 2.5 * jitter[1])
            flat = np.cos(elevation)
            towards = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
            target = LOOK_AT + 0.04 * jitter[3:]
            poses.append(look_at(target + (distance + 0.1 * jitter[2]) * towards, target))
    return poses


def transforms(poses: list[Array], size: int, focal: float) -> dict[str, object]:
    """Describes the set in the layout of nerfstudio's and instant-ngp's `transforms.json`."""
    names = [f"images/{number:03d}.webp" for number in range(len(poses))]
    tests = names[TEST_FIRST::TEST_STEP]
    return {
        "camera_model": "PINHOLE",
        "fl_x": focal,
        "fl_y": focal,
        "cx": size / 2,
        "cy": size / 2,
        "w": size,
        "h": size,
        "frames": [{"file_path": name, "transform_matrix": pose.tolist()} for name, pose in zip(names, poses, strict=True)],
        "train_filenames": [name for name in names if name not in tests],
        "test_filenames": tests,
    }


def generate(out: Path, size: int = 256, samples: int = 36, seed: int = 0) -> None:
    """Writes `transforms.json` and `images/*.webp` into a folder, with progress on stderr.

    Args:
        out: folder to write into; created if it is missing.
        size: width and height of the images, pixels.
        samples: rays per pixel, a square number.
        seed: seed of textures, camera irregularities and sampling.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    poses, textures = camera_poses(seed), Textures(seed)
    focal = 0.5 * size / float(np.tan(np.radians(0.5 * FIELD_OF_VIEW)))
    table = transforms(poses, size, focal)
    started, total = time.monotonic(), 0
    for number, pose in enumerate(poses):
        image = render(Camera(focal, size, pose), samples, textures, np.random.default_rng([seed, 2, number]))
        path = out / "images" / f"{number:03d}.webp"
        Image.fromarray(image).save(path, "WEBP", lossless=True, quality=75, method=6)
        total += path.stat().st_size
        seconds = time.monotonic() - started
        print(f"{number + 1}/{len(poses)} views, {total / 2**20:.2f} MiB, {seconds:.0f} s", file=sys.stderr)
    (out / "transforms.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def _square(text: str) -> int:
    """Parses a positive square number for argparse."""
    value = int(text)
    if value < 1 or round(value**0.5) ** 2 != value:
        raise argparse.ArgumentTypeError(f"{value} is not a positive square number (1, 4, 9, 16, 25, ...)")
    return value


def _positive(text: str) -> int:
    """Parses a positive whole number for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Render the demonstration photo set.")
    parser.add_argument("--out", type=Path, required=True, help="folder for transforms.json and images/")
    parser.add_argument("--size", type=_positive, default=256, help="width and height in pixels (default 256)")
    parser.add_argument("--samples", type=_square, default=36, help="rays per pixel, a square number (default 36)")
    parser.add_argument("--seed", type=int, default=0, help="seed of grain, camera jitter and sampling (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    options = parser.parse_args(arguments)
    if options.seed < 0:
        parser.error("--seed must not be negative")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"{options.out} is not a folder")
    if options.out.is_dir() and any(options.out.iterdir()) and not options.overwrite:
        parser.error(f"{options.out} is not empty; give --overwrite to write into it")
    generate(options.out, options.size, options.samples, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
