"""Intermediate state of a running fit: Gaussians and cameras of a checkpoint in the world of the photos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision3d.core.checkpoints import load_checkpoint
from vision3d.core.config import from_dict
from vision3d.core.errors import ConfigError, FileFormatError
from vision3d.scene import Cameras, GaussianScene
from vision3d.stages.fit.config import FitConfig
from vision3d.stages.fit.model import scene_of
from vision3d.stages.fit.poses import without_drift
from vision3d.stages.fit.world import World, tidied


@dataclass(frozen=True)
class Snapshot:
    """State of a fit at a checkpoint."""

    step: int
    """Number of steps done."""
    scene: GaussianScene
    """The scene as the fit would write it now, but including Gaussians that are not visible in its images."""
    cameras: Cameras
    """The training cameras, with the corrections so far."""


def snapshot_state(world: World, cameras: Cameras, drift: Tensor | None = None) -> dict[str, Any]:
    """Entries of a checkpoint for `load_snapshot`, in addition to the parameters of the model.

    Args:
        world: The world of the fit.
        cameras: The training cameras, without drift.
        drift: The similarity that removed it from them, for the scene; None: there is none.
    """
    tensors = {name: getattr(cameras, name).cpu() for name in ("viewmats", "Ks", "width", "height")}
    names = None if cameras.names is None else list(cameras.names)
    return {"center": world.center, "extent": world.extent, "cameras": {**tensors, "names": names}, "drift": drift}


def load_snapshot(path: Path | str) -> Snapshot:
    """Load the state of a fit from one of its checkpoints.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, or is not a checkpoint of a fit.
    """
    checkpoint = load_checkpoint(path)
    try:
        saved = checkpoint.state["snapshot"]
        config = from_dict(FitConfig, checkpoint.config)
        world = World(saved["center"], saved["extent"])
        params = checkpoint.state["trainee"]["model"]["params"]
        with torch.no_grad():
            scene, drift = world.scene_out(scene_of(params, config)), saved.get("drift")
            scene = tidied(scene if drift is None else without_drift(scene, drift), None, world.extent).validate()
        names = saved["cameras"]["names"]
        cameras = Cameras(**{**saved["cameras"], "names": None if names is None else tuple(names)})
        return Snapshot(checkpoint.step, scene, cameras.validate())
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise FileFormatError(Path(path), f"is not a checkpoint of a fit ({type(error).__name__}: {error})") from error
