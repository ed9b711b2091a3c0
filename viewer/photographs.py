"""Photos in the viewer: thumbnails in the frusta of their cameras, and one blended over the view of its camera."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.core.errors import Vision3DError
from vision3d.geometry.cameras import pixel_rays
from vision3d.scene import Cameras, Mesh, PosedImages
from vision3d.scene.lines import frustum_depth, image_corners
from vision3d.scene.resample import sample
from vision3d.viewer.models import Surface

_THUMBNAIL = 96  # pixels on the longer side
_BATCH = 6  # thumbnails read between updates


class Thumbnails:
    """Reads the photos of a layer as thumbnails in a thread, and creates surfaces in their frusta.

    Args:
        images: The photos.
        cameras: Their cameras in world coordinates.
        radius: Radius of the content [m].
        show: Receives all surfaces so far, in the thread.
        most: Maximum number of photos, evenly spaced.
    """

    def __init__(
        self, images: PosedImages, cameras: Cameras, radius: float, show: Callable[[Sequence[Surface]], None], most: int = 200
    ) -> None:
        self._images, self._show, self._is_open = images, show, True
        self._corners = image_corners(cameras.to("cpu"), 0.999 * frustum_depth(cameras, radius)).float()
        step = max(1, -(-len(cameras) // most))
        self._indices = list(range(0, len(cameras), step))
        self._thread = threading.Thread(target=self._run, name="thumbnails", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops the thread."""
        self._is_open = False
        self._thread.join()

    def _run(self) -> None:
        surfaces: list[Surface] = []
        for first in range(0, len(self._indices), _BATCH):
            images, corners = [], []
            for index in self._indices[first : first + _BATCH]:
                if not self._is_open:
                    return
                try:
                    with torch.inference_mode():
                        images.append(_small(self._images, index))
                except Vision3DError:  # the frustum stays empty
                    continue
                corners.append(self._corners[index])
            if images:
                surfaces.append(_surface(images, torch.stack(corners)))
                self._show(tuple(surfaces))


class Photograph:
    """Reads a photo in a thread, as it takes longer than rendering, and resamples it to the view of its camera.

    Args:
        images: The photos.
        index: Index of the photo.
        view: The pinhole camera of the rendered image.
        done: Called in the thread when it is ready.
        say: Receives error messages, in the thread.
    """

    def __init__(
        self, images: PosedImages, index: int, view: Cameras, done: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self.placed: tuple[np.ndarray, np.ndarray] | None = None
        """Colors and mask from `placed`, once it is read."""
        self._arguments = (images, index, view, done, say)
        threading.Thread(target=self._run, name="photograph", daemon=True).start()

    def _run(self) -> None:
        images, index, view, done, say = self._arguments
        cameras = images.cameras
        ratios = float(cameras.width[index]) / float(view.width), float(cameras.height[index]) / float(view.height)
        try:
            with torch.inference_mode():
                photo, _, camera = images.read(index, downscale=max(1.0, *ratios))
                self.placed = placed(photo.cpu(), camera.to("cpu"), view)
        except Vision3DError as error:
            say(str(error))
            return
        done()


def _small(images: PosedImages, index: int) -> Float[Tensor, "h w 3"]:
    sides = images.cameras.width[index], images.cameras.height[index]
    return images.read(index, downscale=max(1.0, float(max(sides)) / _THUMBNAIL))[0].cpu()


def _surface(images: Sequence[Float[Tensor, "h w 3"]], corners: Float[Tensor, "c 4 3"]) -> Surface:
    """Images in a row of one texture, each on two triangles."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    texture = torch.zeros(height, width * len(images), 3)
    uvs = []
    for i, image in enumerate(images):
        rows, columns = image.shape[:2]
        texture[:rows, i * width : i * width + columns] = image
        # Half a pixel inside, so that neighbors do not bleed in.
        u = (i * width + torch.tensor([0.5, columns - 0.5])) / texture.shape[1]
        v = torch.tensor([0.5, rows - 0.5]) / height
        uvs.append(torch.stack([u[[0, 1, 1, 0]], v[[0, 0, 1, 1]]], -1))
    faces = (torch.tensor([[0, 2, 1], [0, 3, 2]])[None] + 4 * torch.arange(len(images))[:, None, None]).view(-1, 3)
    flat = torch.cat(uvs).contiguous()
    return Surface.of(Mesh(corners.reshape(-1, 3).contiguous(), faces, uvs=flat, texture=texture), is_lit=False)


def placed(photograph: Float[Tensor, "h w 3"], camera: Cameras, view: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Resamples a photo to a view from the same position, with a coverage mask.

    Args:
        photograph: In [0, 1].
        camera: Its camera, of its size (a batch of one).
        view: The pinhole camera of the rendered image (a batch of one); must have the same position and rotation.

    Returns:
        Colors (H, W, 3) and coverage (H, W, 1), floats in [0, 1].
    """
    width, height = int(view.width), int(view.height)
    grid = torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"), -1)
    _, rays = pixel_rays(grid.reshape(-1, 2), view.Ks[0])
    plane = rays[:, :2] / rays[:, 2:]
    K = camera.Ks[0].to(plane)
    pixels = torch.stack([K[0, 0] * plane[:, 0] + K[0, 2], K[1, 1] * plane[:, 1] + K[1, 2]], -1).view(height, width, 2)
    limits = pixels.new_tensor([int(camera.width), int(camera.height)])
    is_there = ((pixels >= 0) & (pixels <= limits)).all(-1, keepdim=True)
    return sample(photograph.float(), pixels).numpy(), is_there.float().numpy()


def blended(pixels: np.ndarray, photograph: tuple[np.ndarray, np.ndarray], weight: float) -> np.ndarray:
    """Blends a photo from `placed` over an image with `weight` (0 to 1); bytes."""
    colors, is_there = photograph
    if colors.shape != pixels.shape:
        return pixels
    share = weight * is_there
    return np.clip(pixels * (1 - share) + 255 * share * colors + 0.5, 0, 255).astype(np.uint8)
