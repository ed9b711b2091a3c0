"""Files of hands: .json of an image or a frame, meshes, overlays, and one animated .glb of a video."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from vision3d.core.atomic import atomic_write, make_folder
from vision3d.core.plain import to_json
from vision3d.io.glb import write_mesh as write_glb
from vision3d.io.gltf_scene import PLAYED, write_scene
from vision3d.io.images import write_image
from vision3d.io.video import VideoWriter
from vision3d.scene.scene import Scene
from vision3d.stages.hand.joints import NAMES
from vision3d.stages.hand.predict.drawing import overlay
from vision3d.stages.hand.predict.fitting import skinned_mesh
from vision3d.stages.hand.predict.result import HandResult
from vision3d.stages.hand.run_config import HandConfig

_UP = "-y"
"""Up in the frame of a camera; glTF has y up."""
_LONGEST_PAUSE_S = 10.0
"""A longer pause of a camera is shorter in overlay.mp4 [s]."""


def image_record(
    name: str, size: tuple[int, int], K: Float[Tensor, "3 3"], hands: Sequence[HandResult], config: HandConfig, **more: Any
) -> dict[str, Any]:
    """Plain numbers for the .json of an image.

    Args:
        name: Of the image.
        size: Width and height [px].
        K: Intrinsics [px].
        hands: The hands.
        config: Where the intrinsics are from.
        more: Further entries, such as the time of a frame.
    """
    return {
        "image": name,
        **more,
        "size": list(size),
        "K": [[round(value, 4) for value in row] for row in K.tolist()],
        "intrinsics": config.intrinsics_source,
        "units": {"joints_2d": "px", "joints_3d": "m"},
        "frame": "camera: x right, y down, z forward; pixel centers at half-integers",
        "joint_names": list(NAMES),
        "hands": [hand.checked().record() for hand in hands],
    }


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(to_json(record, indent=None) + "\n", "utf-8")


def write_meshes(folder: Path, name: str, hands: Sequence[HandResult]) -> None:
    """Write NAME_0_right.obj (the camera's frame, the template's vertices) and NAME_0_right.glb (y up) of each hand."""
    for number, hand in enumerate(hands):
        mesh = hand.checked().mesh()
        # Seams of texture coordinates would make other vertices than the template's.
        replace(mesh, vertex_colors=None, uvs=None).save(folder / f"{name}_{number}_{hand.side}.obj")
        write_glb(folder / f"{name}_{number}_{hand.side}.glb", mesh, scene_up=_UP)


def write_animation(path: Path, frames: Sequence[Sequence[HandResult]], times: Sequence[float], shortest: int = 2) -> int:
    """Write one animated .glb with the hands of a video; returns their number.

    Args:
        path: The file.
        frames: The hands of each frame.
        times: Of the frames [s].
        shortest: Hands in fewer frames are left out, if there are others.
    """
    tracks = sorted({hand.track or 0 for hands in frames for hand in hands})
    rows = {track: [next((hand for hand in hands if (hand.track or 0) == track), None) for hands in frames] for track in tracks}
    counts = {track: sum(hand is not None for hand in row) for track, row in rows.items()}
    kept = [track for track in tracks if counts[track] >= shortest] or tracks
    scene = Scene()
    for track in kept:
        template = next(hand.template for hand in rows[track] if hand is not None)
        vertices = [None if hand is None else hand.checked().vertices for hand in rows[track]]
        scene = scene.add(f"hand_{track}_{template.side}", skinned_mesh(template, vertices, times, PLAYED))
    if kept:
        write_scene(path, scene, scene_up=_UP)
    return len(kept)


class Outputs:
    """Files of a run.

    Args:
        path: The run folder; None: nothing is written.
        config: What is written.
        fps: Frames per second of a video; None: single images.
    """

    def __init__(self, path: Path | None, config: HandConfig, fps: float | None) -> None:
        self.path, self.config, self.fps = path, config, fps
        self._video: VideoWriter | None = None
        self._drawn: Tensor | None = None

    def __enter__(self) -> "Outputs":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._video is not None:
            self._video.__exit__(*error)

    def add_image(self, name: str, image: UInt8[Tensor, "h w 3"], hands: Sequence[HandResult], K: Tensor) -> None:
        """Write NAME.json, NAME_overlay.png and the meshes of an image."""
        if self.path is None:
            return
        record = image_record(name, (image.shape[1], image.shape[0]), K, hands, self.config)
        stem = Path(name).stem
        write_json(self.path / f"{stem}.json", record)
        if self.config.overlay:
            write_image(self.path / f"{stem}_overlay.png", overlay(image, hands))
        if self.config.meshes:
            write_meshes(self.path, stem, hands)

    def add_frame(
        self, number: int, time: float, image: UInt8[Tensor, "h w 3"], hands: Sequence[HandResult], K: Tensor
    ) -> None:
        """Write frames/NUMBER.json, and the frame of overlay.mp4."""
        if self.path is None:
            return
        assert self.fps is not None
        size = image.shape[1], image.shape[0]
        record = image_record(f"{number:06d}", size, K, hands, self.config, time=round(time, 6))
        make_folder(self.path / "frames")
        write_json(self.path / "frames" / f"{number:06d}.json", record)
        if self.config.overlay:
            if self._video is None:
                self._video = VideoWriter(self.path / "overlay.mp4", fps=self.fps).__enter__()
            self._append(self._video, time, overlay(image, hands))

    def _append(self, video: VideoWriter, time: float, drawn: UInt8[Tensor, "h w 3"]) -> None:
        """Add the frame of a time. The frames of a camera are not even: the one before lasts until the next."""
        late = round(time * video.fps) - video.num_frames
        if self._drawn is not None:
            for _ in range(min(late, round(_LONGEST_PAUSE_S * video.fps))):
                video.append(self._drawn)
        if late >= -1:
            video.append(drawn)
        self._drawn = drawn
