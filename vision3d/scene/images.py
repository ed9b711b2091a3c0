"""Photos with known cameras, read on demand."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, ShapeError
from vision3d.geometry.distortion import Lens, undistort_map
from vision3d.scene import codecs
from vision3d.scene.cameras import Cameras
from vision3d.scene.checks import check_device, check_finite, check_shape, html_image, html_table, moved
from vision3d.scene.resample import resize_area, sample, shrink_mask


@dataclass(frozen=True, eq=False)
class PosedImages:
    """C photos, their cameras, and the points from structure from motion.

    Example:
        >>> images = PosedImages.load("data/fox")
        >>> image, mask, camera = images.read(0, downscale=4)
    """

    cameras: Cameras
    """Pinhole cameras of the images that `read` returns, without lens distortion."""
    image_paths: tuple[Path, ...]
    """One file per camera."""
    is_test: Bool[Tensor, " c"]
    """Views held out for evaluation."""
    mask_paths: tuple[Path | None, ...] | None = None
    """One file per camera, or None if it has none; pixels that are not black are used."""
    depth_paths: tuple[Path | None, ...] | None = None
    """Depth map of each camera, or None if it has none."""
    depth_unit: float | None = None
    """Meters per unit of the depth files; None: 0.001 for integers, 1 for floats."""
    depth_scale: float = 1.0
    """Size of this world relative to the one that the depths were measured in."""
    points: Float[Tensor, "p 3"] | None = None
    """Points of the surface [m], e.g. from structure from motion."""
    point_colors: Float[Tensor, "p 3"] | None = None
    """In [0, 1]."""
    raw_cameras: Cameras | None = None
    """Cameras of the files including lens distortion; None if the files need no change except resizing."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Background color in [0, 1] behind images with an alpha channel."""
    normalization: Float[Tensor, "4 4"] | None = None
    """The similarity from the source's world to this one, if it was normalized."""
    source: Path = field(default=Path())
    """The folder or file that this was read from."""

    def __post_init__(self) -> None:
        count = len(self.cameras)
        if len(self.image_paths) != count:
            raise ShapeError("PosedImages.image_paths", f"{len(self.image_paths)} paths", f"{count}, one per camera")
        if self.mask_paths is not None and len(self.mask_paths) != count:
            raise ShapeError("PosedImages.mask_paths", f"{len(self.mask_paths)} paths", f"{count}, one per camera")
        if self.depth_paths is not None and len(self.depth_paths) != count:
            raise ShapeError("PosedImages.depth_paths", f"{len(self.depth_paths)} paths", f"{count}, one per camera")
        if self.raw_cameras is not None and len(self.raw_cameras) != count:
            raise ShapeError("PosedImages.raw_cameras", f"{len(self.raw_cameras)} cameras", f"{count}")
        check_shape("PosedImages.is_test", self.is_test, (count,), kind="bool")
        if self.points is not None:
            check_shape("PosedImages.points", self.points, ("P", 3))
        if self.point_colors is not None:
            if self.points is None:
                raise InputError("PosedImages.point_colors: got colors without points")
            check_shape("PosedImages.point_colors", self.point_colors, (len(self.points), 3))
        tensors = {"is_test": self.is_test, "points": self.points, "point_colors": self.point_colors}
        check_device("PosedImages", {"cameras": self.cameras.viewmats, **tensors})

    @classmethod
    def load(cls, path: Path | str) -> "PosedImages":
        """Load the photos of a folder or a transforms.json; see `vision3d.io.dataset.load_dataset`."""
        return codecs.load_as(cls, path)

    def save(self, path: Path | str) -> None:
        """Write a folder with the undistorted images (PNG), masks, depth maps, points and a transforms.json for any trainer."""
        codecs.save_folder(path, self)

    def validate(self) -> "PosedImages":
        """Check the values: cameras, points, and that at least one training view remains.

        Raises:
            InputError: A value is not finite or a pose is wrong.
        """
        self.cameras.validate()
        if self.raw_cameras is not None:
            self.raw_cameras.validate()
        for name in ("points", "point_colors"):
            if (value := getattr(self, name)) is not None:
                check_finite("PosedImages", name, value)
        if len(self) and bool(self.is_test.all()):
            raise InputError(f"{self.source}: all {len(self)} views are held out; want at least one to fit to")
        return self

    @property
    def train(self) -> Int64[Tensor, " m"]:
        """Indices of the training views."""
        return (~self.is_test).nonzero()[:, 0]

    @property
    def test(self) -> Int64[Tensor, " k"]:
        """Indices of the held-out views."""
        return self.is_test.nonzero()[:, 0]

    @property
    def names(self) -> tuple[str, ...]:
        return self.cameras.names or tuple(path.name for path in self.image_paths)

    @property
    def device(self) -> torch.device:
        return self.cameras.device

    def read(self, index: int, downscale: float = 1) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"] | None, Cameras]:
        """Read one image, undistorted, composited on the background and downscaled by area averaging.

        Args:
            index: Index of the view.
            downscale: Divisor of the size of `cameras[index]`; the result is rounded to whole pixels.

        Returns:
            The image in [0, 1]; the mask of valid pixels, if there is one; its camera (a batch of one).

        Raises:
            FileFormatError: A file cannot be read.
            InputError: The size of a file differs from its camera's, or `downscale` is not positive.
        """
        if not downscale > 0:
            raise InputError(f"downscale: got {downscale}, want a number > 0")
        camera = self.cameras[index] if downscale == 1 else self.cameras[index].scaled(1 / downscale)
        width, height = int(camera.width), int(camera.height)
        raw = (self.cameras if self.raw_cameras is None else self.raw_cameras)[index].to("cpu")
        raw_size = None if self.raw_cameras is None else (int(raw.width), int(raw.height))
        path = self.image_paths[index]
        try:
            image = codecs.module_for(path, "Tensor").read_image(path, size=raw_size, background=self.background)
            mask = self._read_mask(index, image.shape[1], image.shape[0])
        except FileFormatError as error:
            raise FileFormatError(error.path, f"view {index} ({self.names[index]}): {error.problem}") from error
        image = image[..., :3]
        if raw.distortion is not None and raw.model != "ortho":
            pixels = self._undistorted(index, raw)
            image = sample(image, pixels)
            if mask is not None:
                mask = sample(mask[..., None].float(), pixels)[..., 0] > 0.5
        image = resize_area(image, width, height)
        if mask is not None:
            mask = shrink_mask(mask, width, height).to(self.device)
        return image.to(self.device), mask, camera

    def read_depth(self, index: int) -> Float[Tensor, "h w"] | None:
        """The depth map of `cameras[index]`, undistorted, along the camera's z [m]; 0 where nothing was measured.

        Each pixel has the value of the nearest one in the file: means over the edge of an object would be depths at which
        nothing is.

        Returns:
            None if the view has no depth map.

        Raises:
            FileFormatError: The file cannot be read, or has a different shape than the image.
        """
        path = None if self.depth_paths is None else self.depth_paths[index]
        if path is None:
            return None
        depth = codecs.depth_module().read_depth(path, self.depth_unit) * self.depth_scale
        raw = (self.cameras if self.raw_cameras is None else self.raw_cameras)[index].to("cpu")
        rows, columns = depth.shape
        width, height = int(raw.width), int(raw.height)
        if abs(rows * width - columns * height) > max(rows, columns, width, height):
            text = f"view {index} ({self.names[index]}): depth map has {columns}x{rows} px, its image {width}x{height}"
            raise FileFormatError(path, f"{text}; want the same shape")
        camera = self.cameras[index].to("cpu")
        size = int(camera.width), int(camera.height)
        y, x = torch.meshgrid(torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5, indexing="ij")
        pixels = torch.stack([x / size[0], y / size[1]], -1)  # relative to the image
        if raw.distortion is not None and raw.model != "ortho":
            pixels = _nearest(self._undistorted(index, raw), pixels) / torch.tensor([width, height])
        return _nearest(depth[..., None], pixels)[..., 0].to(self.device)

    def subset(self, which: Tensor | slice | Sequence[int]) -> "PosedImages":
        """Select views, with all points."""
        index = torch.arange(len(self), device=self.device)[which]
        places = index.tolist()
        return replace(
            self,
            cameras=self.cameras[index],
            image_paths=tuple(self.image_paths[i] for i in places),
            is_test=self.is_test[index],
            mask_paths=None if self.mask_paths is None else tuple(self.mask_paths[i] for i in places),
            depth_paths=None if self.depth_paths is None else tuple(self.depth_paths[i] for i in places),
            raw_cameras=None if self.raw_cameras is None else self.raw_cameras[index],
        )

    def to(self, device: torch.device | str) -> "PosedImages":
        """The same photos with cameras and points on another device, where `read` also puts its images."""
        return replace(
            self,
            cameras=self.cameras.to(device),
            is_test=self.is_test.to(device),
            points=moved(self.points, device),
            point_colors=moved(self.point_colors, device),
            raw_cameras=None if self.raw_cameras is None else self.raw_cameras.to(device),
            normalization=moved(self.normalization, device),
        )

    def __len__(self) -> int:
        return len(self.cameras)

    def __repr__(self) -> str:
        points = "no points" if self.points is None else f"{len(self.points)} points"
        views = f"{len(self)} views, {int(self.is_test.sum())} held out"
        return f"PosedImages({views}, {points}, {self.cameras!r}, {str(self.source)!r})"

    def _repr_html_(self) -> str:
        rows = [
            ("source", self.source),
            ("views", f"{len(self)}, {int(self.is_test.sum())} held out"),
            ("image size [px]", self.cameras._sizes()),
            ("points", 0 if self.points is None else len(self.points)),
            ("masks", 0 if self.mask_paths is None else sum(path is not None for path in self.mask_paths)),
            ("depth maps", 0 if self.depth_paths is None else sum(path is not None for path in self.depth_paths)),
            ("lens", "pinhole" if self.raw_cameras is None or self.raw_cameras.distortion is None else "undistorted"),
        ]
        return html_table("PosedImages", rows, "".join(self._thumbnail(i) for i in range(min(4, len(self)))))

    def _thumbnail(self, index: int, height: int = 96) -> str:
        try:
            return html_image(self.read(index, max(1.0, int(self.cameras.height[index]) / height))[0])
        except InputError:
            return ""

    def _undistorted(self, index: int, raw: Cameras) -> Float[Tensor, "h w 2"]:
        """Positions in the distorted image of the pixels of the undistorted one, at its size [px]."""
        assert raw.distortion is not None
        new_K = self.cameras[index].to("cpu").resized(raw.width, raw.height).Ks
        lens, K, new_K = (tuple(value.double().flatten().tolist()) for value in (raw.distortion, raw.Ks, new_K))
        return _places(lens, K, new_K, (int(raw.width), int(raw.height)), raw.model)

    def _read_mask(self, index: int, width: int, height: int) -> Bool[Tensor, "h w"] | None:
        path = None if self.mask_paths is None else self.mask_paths[index]
        if path is None:
            return None
        mask = codecs.module_for(path, "Tensor").read_mask(path)
        rows, columns = mask.shape
        if abs(rows * width - columns * height) > max(rows, columns, width, height) or rows < height:
            raise FileFormatError(path, f"mask has {columns}x{rows} px, its image {width}x{height}; want the same size")
        return shrink_mask(mask, width, height)  # an image read at half size may have a full-size mask


def _nearest(values: Float[Tensor, "h w c"], places: Float[Tensor, "h2 w2 2"]) -> Float[Tensor, "h2 w2 c"]:
    """The values at positions relative to the image; 0 outside."""
    size = torch.tensor([values.shape[1], values.shape[0]])
    at = (places * size).floor().long()
    inside = ((at >= 0) & (at < size)).all(-1)
    column, row = at.minimum(size - 1).clamp(min=0).unbind(-1)
    return torch.where(inside[..., None], values[row, column], 0)


@functools.lru_cache(maxsize=2)
def _places(
    lens: tuple[float, ...], K: tuple[float, ...], new_K: tuple[float, ...], size: tuple[int, int], model: Lens
) -> Tensor:
    """Source position of each pixel of the undistorted image [px]; cached for the next image of the same lens."""
    matrices = [torch.tensor(values, dtype=torch.float64).view(3, 3) for values in (K, new_K)]
    coeffs = torch.tensor(lens, dtype=torch.float64)
    return undistort_map(matrices[0], coeffs, *size, model, new_K=matrices[1])[0].float()
