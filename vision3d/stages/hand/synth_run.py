"""Write generated images of hands as a folder in the layout of FreiHAND."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from vision3d.core.errors import ConfigError
from vision3d.core.option_marks import HelpGroups
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.ranges import check_counts, check_not_negative
from vision3d.core.runs import RunFolder
from vision3d.stage import stage
from vision3d.stages.hand.data.samples import BATCH, SampleSource
from vision3d.stages.hand.freihand import FreiHandWriter
from vision3d.stages.hand.synth.frames import FrameConfig


@dataclass(frozen=True)
class SynthConfig:
    """Generate images of hands with their truth."""

    HELP_GROUPS: ClassVar[HelpGroups] = {"main options": ("images", "backgrounds", "furniture", "split", "seed")}

    frames: FrameConfig = field(default_factory=lambda: FrameConfig(size=224))
    """What the images show."""
    images: int = 1000
    """Number of images."""
    backgrounds: Path | None = None
    """Folder with photographs; without one, backgrounds are gradients and noise."""
    furniture: Path | None = None
    """Folder with the unpacked Debian package sweethome3d-furniture: hands hold its models, and furnished rooms are
    backgrounds."""
    split: Literal["train", "test"] = "train"
    """Models to hold and to furnish with: those of training, or others."""
    seed: int = 0
    """Seed of the images."""

    def __post_init__(self) -> None:
        check_counts(self, "images")
        check_not_negative(self, "seed")
        if self.split not in ("train", "test"):
            raise ConfigError("split", f"got {self.split!r}, want train or test")
        if not 16 <= self.frames.size <= 1024:
            raise ConfigError("frames.size", f"got {self.frames.size}, want 16 to 1024 pixels")


@dataclass(frozen=True)
class SynthResult:
    """A folder of images."""

    folder: Path
    """Contains training/rgb, mask and depth, and training_*.json."""
    summary: dict[str, Any]


@stage("hand synth", {})
def synthesize_hands(
    config: SynthConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> SynthResult:
    """Write generated images as a data set in the layout of FreiHAND.

    Args:
        config: Options.
        run_folder: Receives training/{rgb,mask,depth} and training_{K,xyz,verts,scale,uv,visible,side,is_hand,pose}.json.
        progress: Progress callback, called for every batch.

    Raises:
        ConfigError: No folder is given.
        MissingFileError: A folder has no photographs, or no furniture.
    """
    if not isinstance(run_folder, RunFolder):
        raise ConfigError("run_folder", "got None, want a folder for the images")
    started = time.process_time()
    source = SampleSource(config.frames, config.backgrounds, config.furniture, config.split, config.seed)
    source.prepare()
    writer = FreiHandWriter(run_folder.path)
    with Progress(config.images, "synth", progress) as bar:
        for index in range(-(-config.images // BATCH)):
            count = min(BATCH, config.images - index * BATCH)
            writer.add(source.made(index), count)
            bar.update(index * BATCH + count)
    writer.finish()
    seconds = time.process_time() - started
    summary = {
        "images": config.images,
        "without_hand": writer.rows["is_hand"].count(False),
        "cpu_s": round(seconds, 2),
        "images_per_cpu_s": round(config.images / max(seconds, 1e-9), 1),
    }
    return SynthResult(run_folder.path, summary)
