"""Cameras of kornia: `PinholeCamera` has 4x4 intrinsics and extrinsics (world to camera), in OpenCV axes."""

from typing import Any

import torch

from vision3d.core.errors import InputError
from vision3d.interop.shared import plain_pinhole, require, wrong_type
from vision3d.scene.cameras import Cameras


def to_kornia(cameras: Cameras) -> Any:
    """A batch of cameras as one `kornia.geometry.PinholeCamera`, on their device.

    Raises:
        InputError: It is something else, or they are not undistorted pinhole cameras.
        MissingDependencyError: kornia is not installed.
    """
    kornia = require("kornia.geometry.camera", "exchange with kornia")
    if not isinstance(cameras, Cameras):
        raise wrong_type("to_kornia", cameras, "Cameras")
    plain_pinhole("to_kornia", cameras)
    intrinsics = torch.eye(4).to(cameras.Ks).repeat(len(cameras), 1, 1)
    intrinsics[:, :3, :3] = cameras.Ks
    return kornia.PinholeCamera(
        intrinsics, cameras.viewmats.clone(), cameras.height.to(cameras.Ks), cameras.width.to(cameras.Ks)
    )


def from_kornia(camera: Any) -> Cameras:
    """The inverse of `to_kornia`.

    Raises:
        InputError: It is not a PinholeCamera, or has skew.
        MissingDependencyError: kornia is not installed.
    """
    kornia = require("kornia.geometry.camera", "exchange with kornia")
    if not isinstance(camera, kornia.PinholeCamera):
        raise wrong_type("from_kornia", camera, "a PinholeCamera of kornia")
    Ks = camera.intrinsics[:, :3, :3].clone()
    if bool((Ks[:, 0, 1] != 0).any()):
        raise InputError("from_kornia: cameras have skew, want none")
    width, height = (torch.as_tensor(side, device=Ks.device).expand(len(Ks)).long() for side in (camera.width, camera.height))
    return Cameras(camera.extrinsics.clone(), Ks, width, height)
