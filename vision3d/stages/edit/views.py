"""Images of an object before and after an edit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.geometry.cameras import project
from vision3d.geometry.se3 import transform_points
from vision3d.io.images import write_image
from vision3d.render.camera_paths import path_cameras
from vision3d.render.composite import render_scene
from vision3d.render.triplanes.volume import render_triplane
from vision3d.report.sheets import frame_sheet
from vision3d.scene.cameras import Cameras
from vision3d.scene.gaussians import GaussianScene
from vision3d.scene.mesh import Mesh
from vision3d.scene.triplane import Triplane
from vision3d.scene.upright import Axis, axis_vector
from vision3d.stages.edit.run_config import EditConfig

_BACKGROUND = (1.0, 1.0, 1.0)
_TITLE = 48  # characters
_ANGLES, _ANGLE = 8, 7  # of the views around an object, the one obliquely from the front
_FILLED, _ZOOMS, _NEARLY_ALL = 0.9, (0.4, 3.0), 0.995  # of the images by an object; zooms of objects; share of their points
_SEEN, _SIGMAS, _POINTS = 0.3, 3.0, 20_000  # opacity and extent of Gaussians that count, and number of points
_LARGER = 1.2  # than the views before and after, of which margins are left
_LINES = 4  # of the caption of a variant
_WHITE, _ROOM, _NARROWEST = 0.98, 12, 200  # what counts as background; margin and minimum width of an image [px]


def write_before_after(
    path: Path,
    before: GaussianScene | Mesh | Triplane,
    after: GaussianScene | Mesh | Triplane,
    up: Axis,
    config: EditConfig,
    text: str,
) -> None:
    """Write a sheet: views around the object before, and the same below after.

    Args:
        path: The image.
        before: The object before the edit.
        after: After it.
        up: Axis of the world that is up.
        config: Number and size of the views.
        text: The instruction, for the caption.
    """
    cameras = orbit(before, up, config)
    images = [*images_of(before, cameras), *images_of(after, cameras)]
    caption = text if len(text) <= _TITLE else text[: _TITLE - 3] + "..."
    write_image(path, frame_sheet(images, ["before"] * len(cameras) + [caption] * len(cameras)))


def write_variants(
    path: Path,
    made: Sequence[tuple[GaussianScene | Mesh | Triplane, str]],
    before: GaussianScene | Mesh | Triplane,
    up: Axis,
    config: EditConfig,
) -> None:
    """Write a sheet to choose from: one view of each version, with its number and its text.

    Args:
        path: The image.
        made: The versions, with their texts.
        before: The object before, around which the camera is placed.
        up: Axis of the world that is up.
        config: Size of the views.
    """
    size = round(_LARGER * config.view_size)
    cameras = orbit(before, up, replace(config, views=_ANGLES, view_size=size))[_ANGLE : _ANGLE + 1]
    images = _without_margin(torch.stack([images_of(value, cameras)[0] for value, _ in made]))
    write_image(path, frame_sheet(list(images), [f"{number}: {text}" for number, (_, text) in enumerate(made)], lines=_LINES))


def _without_margin(images: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n h2 w2 3"]:
    """Images on white, all cropped alike to what they show."""
    rows, columns = ((images < _WHITE).any(-1).any(0).any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        return images
    top, left = (max(int(found[0]) - _ROOM, 0) for found in (rows, columns))
    cropped = images[:, top : int(rows[-1]) + _ROOM + 1, left : int(columns[-1]) + _ROOM + 1]
    missing = max(_NARROWEST - cropped.shape[2], 0)  # for captions
    return torch.nn.functional.pad(cropped, (0, 0, missing // 2, missing - missing // 2), value=1.0)


def orbit(value: GaussianScene | Mesh | Triplane, up: Axis, config: EditConfig) -> Cameras:
    """Cameras around an object, at a distance where it fills the images."""
    subject = _outline(value) if isinstance(value, Triplane) else value
    size = (config.view_size, config.view_size)
    cameras = path_cameras(subject, "orbit", num=config.views, size=size, up=axis_vector(up))
    points, zoom = _places(subject), 1.0
    for _ in range(2):  # twice, as what is near grows faster
        zoom *= _FILLED / max(_reach(cameras, points), 1e-6)
        if not _ZOOMS[0] <= zoom <= _ZOOMS[1]:  # surroundings: the distance of the path suits
            return path_cameras(subject, "orbit", num=config.views, size=size, up=axis_vector(up))
        cameras = path_cameras(subject, "orbit", num=config.views, size=size, up=axis_vector(up), zoom=zoom)
    return cameras


def _places(value: GaussianScene | Mesh) -> Float[Tensor, "n 3"]:
    """Some points of an object."""
    if isinstance(value, Mesh):
        points = value.vertices[value.faces.flatten().unique()]
    else:
        seen = value[value.opacities > _SEEN]
        sides = torch.cat([torch.eye(3), -torch.eye(3)]).to(seen.means)
        points = (seen.means[:, None] + _SIGMAS * seen.scales.amax(1)[:, None, None] * sides).flatten(0, 1)
    return points[:: max(1, len(points) // _POINTS)].float().cpu()


def _reach(cameras: Cameras, points: Float[Tensor, "n 3"]) -> float:
    """How far nearly all points are from the middle of the images, relative to their half side; infinite behind a camera."""
    found = []
    for viewmat, K, width, height in zip(cameras.viewmats, cameras.Ks, cameras.width, cameras.height):
        seen = transform_points(viewmat, points)
        half = points.new_tensor([float(width), float(height)]) / 2
        away = ((project(seen[None], K[None])[0] - half).abs() / half).amax(1)
        found.append(torch.where(seen[:, 2] > 0, away, torch.inf))
    return float(torch.cat(found).quantile(_NEARLY_ALL)) if len(points) else 1.0


@torch.no_grad()
def images_of(value: GaussianScene | Mesh | Triplane, cameras: Cameras) -> list[Float[Tensor, "h w 3"]]:
    """Views of an object on white."""
    if isinstance(value, Triplane):
        return list(render_triplane(value, cameras, background=_BACKGROUND))
    views = render_scene(value, cameras, backgrounds=_BACKGROUND)
    return [view.image.clamp(0, 1) for view in views if view.image is not None]


def _outline(value: Triplane) -> Mesh:
    """The corners of the cube, as something to look at."""
    ends = torch.tensor([-1.0, 1.0])
    corners = torch.cartesian_prod(ends, ends, ends)
    points = corners @ value.matrix[:3, :3].T + value.matrix[:3, 3]
    return Mesh(points, torch.tensor([[0, 1, 2], [5, 6, 7]]))
