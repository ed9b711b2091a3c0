"""Jitter of a still hand and lag of a moving one in rendered videos, with the One-Euro filter and without.

Each scene is a hand of the template with its background and lights; frames differ by the noise of the sensor and the motion.
The tracker begins with the true box, K is known. Jitter: root mean square of the changes from frame to frame over the root of
2, the standard deviation of white noise; mean of joints. Lag: the delay at which the track of the root joint fits the true one
best, up to an offset and a factor. "The filter alone" takes the true 2D joints with noise of 1 px instead of a network's.
"""

import argparse
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from support import ForeignLoad, add_options, write
from torch import Tensor

from vision3d.geometry.cameras import intrinsics
from vision3d.stages.hand import HandConfig, HandModel, HandPredictor, HandTemplate, HandTracker, boxes_of, load_hand_model
from vision3d.stages.hand.config import FrameConfig
from vision3d.stages.hand.data.samples import SampleSource
from vision3d.stages.hand.filters import OneEuroFilter
from vision3d.stages.hand.joints import ROOT
from vision3d.stages.hand.predict.result import HandResult
from vision3d.stages.hand.synth.cameras import sample_rotations
from vision3d.stages.hand.synth.frames import Posing, draw
from vision3d.stages.hand.synth.poses import sample_angles

SIZE, FOCAL, FPS = 320, 400.0, 30.0
WARM_UP = 10
NOISE = 0.012
"""Standard deviation of the sensor's noise, of sRGB in [0, 1]."""
AMPLITUDE_M, DISTANCE_M = 0.05, 0.55
MOTIONS = {"still": 0.0, "slow": 0.4, "fast": 1.2}
"""Frequency of the motion from side to side [Hz]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--backgrounds", type=Path, help="folder with photographs; procedural without")
    parser.add_argument("--weights", default="hand")
    parser.add_argument("--name", default="motion", help="of the result file")
    options = parser.parse_args()
    model = load_hand_model(options.weights)
    backgrounds = SampleSource(backgrounds=options.backgrounds, split="test").photos()
    result: dict[str, Any] = {"frames_per_second": FPS}
    with ForeignLoad() as load:
        rows: dict[str, list[dict[str, float]]] = {}
        for scene in range(options.scenes):
            for motion, frequency in MOTIONS.items():
                images, uvs, roots, K = video(scene, frequency, options.frames, backgrounds)
                for smooth in (True, False):
                    name = f"{motion}_filter_{'on' if smooth else 'off'}"
                    rows.setdefault(name, []).append(measured(tracked(model, images, uvs[0], K, smooth), uvs, roots, frequency))
    for motion, frequency in MOTIONS.items():
        for smooth in (True, False):
            found = alone(frequency, options.frames, smooth)
            result[f"{motion}_alone_{'on' if smooth else 'off'}"] = {key: round(value, 4) for key, value in found.items()}
    for name, values in rows.items():
        result[name] = {key: round(float(np.median([row[key] for row in values])), 4) for key in values[0]}
    print(json.dumps(result, indent=1))
    print(table(result))
    write(f"hand_{options.name}", result, load.share)


def video(scene: int, frequency: float, count: int, backgrounds: Any) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Frames, true 2D joints [px], true positions of the root joint [m], and K."""
    hand, generator = HandTemplate.load("right"), torch.Generator().manual_seed(880_000 + scene)
    angles = sample_angles(hand, 1, generator)
    rotation = sample_rotations(1, generator, "near")
    K = intrinsics(FOCAL, FOCAL, SIZE / 2, SIZE / 2).float()
    middle = hand.pose(angles, rotation=rotation).skeleton[0].mean(0)
    images, uvs, roots = [], [], []
    for number in range(count):
        shift = AMPLITUDE_M * math.sin(2 * math.pi * frequency * number / FPS)
        translation = torch.tensor([[shift, 0.0, DISTANCE_M]]) - middle
        fixed = torch.Generator().manual_seed(990_000 + scene)  # the same scene in every frame
        config = FrameConfig(size=SIZE, objects=0.0)
        made = draw(1, config, fixed, backgrounds=backgrounds, posing=Posing(angles, rotation, translation, K[None]))
        noise = NOISE * torch.randn(made.images.shape, generator=torch.Generator().manual_seed(1000 * scene + number))
        images.append(_jpeg(((made.images[0] + noise[0]).clamp(0, 1) * 255).round().byte()))
        uvs.append(made.uvs[0])
        roots.append(made.joints[0, ROOT])
    return images, torch.stack(uvs), torch.stack(roots), K


def tracked(model: HandModel, images: list[Tensor], first: Tensor, K: Tensor, smooth: bool) -> list[HandResult | None]:
    """The track that begins in the first frame; None where it is lost."""
    config = HandConfig(intrinsics=(FOCAL, FOCAL, SIZE / 2, SIZE / 2), smooth=smooth, lost=0.0)
    tracker = HandTracker(HandPredictor(model, config))
    low, high = first.amin(0), first.amax(0)
    box = boxes_of([[*low.tolist(), *(high - low).tolist()]], ["right"])
    found = [tracker(image, number / FPS, box if number == 0 else None, K) for number, image in enumerate(images)]
    return [next((hand for hand in hands if hand.track == 0), None) for hands in found]


def measured(track: list[HandResult | None], uvs: Tensor, roots: Tensor, frequency: float) -> dict[str, float]:
    """Figures of one track; NaN for those that a lost track does not have."""
    kept = [(number, hand) for number, hand in enumerate(track) if hand is not None and number >= WARM_UP]
    numbers = torch.tensor([number for number, _ in kept])
    found: dict[str, float] = {"frames_lost": len(track) - WARM_UP - len(kept)}
    if len(kept) < 2 * WARM_UP:
        return found | dict.fromkeys(
            ("uv_px", "position_percent", "jitter_px", "jitter_mm", "jitter_position_mm", "lag_ms"), math.nan
        )
    pixels = torch.stack([hand.joints_2d for _, hand in kept])
    joints = torch.stack([hand.joints_3d - hand.translation for _, hand in kept])
    positions = torch.stack([hand.translation for _, hand in kept])
    true = roots[numbers]
    found["uv_px"] = float((pixels - uvs[numbers]).norm(dim=-1).mean())
    found["position_percent"] = 100 * float(((positions - true).norm(dim=1) / true.norm(dim=1)).median())
    if not frequency:
        found["jitter_px"] = jitter(pixels)
        found["jitter_mm"] = 1000 * jitter(joints)
        found["jitter_position_mm"] = 1000 * jitter(positions[:, None])
    else:
        found["lag_ms"] = 1000 * delay(pixels[:, ROOT, 0].double(), uvs[:, ROOT, 0].double(), numbers)
    return found


def jitter(track: Tensor) -> float:
    """Of points (T, N, C): noise that changes from frame to frame."""
    return float((track.diff(dim=0).square().sum(-1).mean(0) / 2).sqrt().mean())


def alone(frequency: float, count: int, smooth: bool) -> dict[str, float]:
    """The filter on a joint that moves from side to side with noise of 1 px in each axis, as `HandTracker` applies it."""
    times = torch.arange(count).double() / FPS
    true = SIZE / 2 + FOCAL * AMPLITUDE_M / DISTANCE_M * torch.sin(2 * math.pi * frequency * times)
    noise = torch.randn(count, 200, 2, generator=torch.Generator().manual_seed(1)).double()
    points = torch.stack([true, torch.full_like(true, SIZE / 2)], 1)[:, None] + noise
    pixel_m, one_euro = DISTANCE_M / FOCAL, OneEuroFilter()
    if smooth:
        points = torch.stack(
            [torch.from_numpy(one_euro((row * pixel_m).numpy(), float(time))) for row, time in zip(points, times)]
        )
        points = points / pixel_m
    kept = torch.arange(WARM_UP, count)
    if not frequency:
        return {"jitter_px": jitter(points[WARM_UP:])}
    return {"lag_ms": 1000 * delay(points[WARM_UP:, :, 0].mean(1), true, kept)}


def delay(track: Tensor, true: Tensor, numbers: Tensor) -> float:
    """The delay [s] with the smallest residual of a linear fit of the delayed truth to the track."""
    times, best = torch.arange(len(true)).double(), (math.inf, 0.0)
    for shift in np.arange(-0.05, 0.3, 0.001):
        at = numbers.double() - shift * FPS
        inside = (at >= 0) & (at <= times[-1])
        moved = torch.from_numpy(np.interp(at.numpy(), times.numpy(), true.numpy()))[inside]
        matrix = torch.stack([moved, torch.ones_like(moved)], 1)
        fit = torch.linalg.lstsq(matrix, track[inside, None]).solution
        residual = float((matrix @ fit - track[inside, None]).square().mean())
        best = min(best, (residual, float(shift)))
    return best[1]


def table(result: dict[str, Any]) -> str:
    """Rows for results/README.md."""
    rows = [
        ("still: jitter of 2D joints [px], of joints around the root [mm], of the position [mm]", "still",
         "{jitter_px:.2f}, {jitter_mm:.2f}, {jitter_position_mm:.2f}"),
        ("0.4 Hz from side to side: lag [ms], 2D joints [px]", "slow", "{lag_ms:.0f}, {uv_px:.1f}"),
        ("1.2 Hz: lag [ms], 2D joints [px]", "fast", "{lag_ms:.0f}, {uv_px:.1f}"),
    ]  # fmt: skip
    alone_rows = (
        ("still", "the filter alone, still: jitter [px]", "{jitter_px:.2f}"),
        ("slow", "the filter alone, 0.4 Hz: lag [ms]", "{lag_ms:.0f}"),
        ("fast", "the filter alone, 1.2 Hz: lag [ms]", "{lag_ms:.0f}"),
    )
    lines = ["| | filter on | filter off |", "|---|---|---|"]
    for motion, text, format_ in alone_rows:
        lines.append(
            f"| {text} | " + " | ".join(format_.format(**result[f"{motion}_alone_{way}"]) for way in ("on", "off")) + " |"
        )
    for text, motion, format_ in rows:
        lines.append(
            f"| {text} | " + " | ".join(format_.format(**result[f"{motion}_filter_{way}"]) for way in ("on", "off")) + " |"
        )
    return "\n".join(lines)


def _jpeg(image: Tensor) -> Tensor:
    """The image as a camera compresses it."""
    stream = io.BytesIO()
    Image.fromarray(image.numpy()).save(stream, "JPEG", quality=90)
    with Image.open(stream) as decoded:
        return torch.from_numpy(np.array(decoded.convert("RGB")))


if __name__ == "__main__":
    main()
