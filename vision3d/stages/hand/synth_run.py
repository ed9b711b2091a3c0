"""Write generated images of hands as a folder in the layout of FreiHAND."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision3d.core.errors import ConfigError
from vision3d.core.progress import Progress, ProgressCallback
from vision3d.core.runs import Interrupted, RunFolder, finish_step_on_interrupt
from vision3d.stage import stage
from vision3d.stages.hand.config import BATCH
from vision3d.stages.hand.data.samples import SampleSource
from vision3d.stages.hand.freihand import FreiHandWriter
from vision3d.stages.hand.run_config import SynthConfig


@dataclass(frozen=True)
class SynthResult:
    """A folder of images."""

    folder: Path
    """Contains training/rgb, mask and depth, and training_*.json."""
    summary: dict[str, Any]


@stage("hand synth", {}, grows=("images",))
def synthesize_hands(
    config: SynthConfig,
    *,
    run_folder: RunFolder | Path | str | None = None,
    progress: ProgressCallback | None = None,
) -> SynthResult:
    """Write generated images as a data set in the layout of FreiHAND.

    Args:
        config: Options.
        run_folder: Receives training/{rgb,mask,depth} and training_{K,xyz,verts,scale,uv,visible,side,is_hand,pose}.json. In a
            folder that was interrupted, or is resumed for more images, only those that are missing are made.
        progress: Progress callback, called for every batch.

    Raises:
        ConfigError: No folder is given.
        MissingFileError: A folder has no photographs, or no furniture.
    """
    if not isinstance(run_folder, RunFolder):
        raise ConfigError("run_folder", "got None, want a folder for the images")
    started = time.process_time()
    source = SampleSource(
        frames=config.frames, backgrounds=config.backgrounds, furniture=config.furniture, split=config.split, seed=config.seed
    )
    source.photos()
    writer = FreiHandWriter(run_folder.path)
    before = len(writer)
    with finish_step_on_interrupt() as stop, Progress(config.images, "synth", progress) as bar:
        for index in range(before // BATCH, -(-config.images // BATCH)):
            first, count = index * BATCH, min(BATCH, config.images - index * BATCH)
            if len(writer) < first + count:
                writer.add(source.made(index), count, len(writer) - first)
            bar.update(first + count)
            if stop.requested and len(writer) < config.images:
                raise Interrupted(f"stopped after {len(writer)} images")
    writer.finish()
    seconds = time.process_time() - started
    summary = {
        "images": config.images,
        "written": len(writer) - before,
        "without_hand": writer.rows["is_hand"].count(False),
        "cpu_s": round(seconds, 2),
        "images_per_cpu_s": round((len(writer) - before) / max(seconds, 1e-9), 1),
    }
    return SynthResult(run_folder.path, summary)
