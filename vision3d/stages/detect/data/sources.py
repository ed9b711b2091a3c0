"""Sources of labelled sweeps: a KITTI folder, or generated streets."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from vision3d.core.errors import InputError, MissingFileError
from vision3d.io.kitti import read_calibration, read_image_size, read_label_columns, read_labels, read_projection
from vision3d.io.point_files import read_bin
from vision3d.stages.detect.camera import Camera
from vision3d.stages.detect.config import StreetsConfig
from vision3d.stages.detect.data.sweeps import EvalFrame, LabelledSweep, labels_of, rows_of
from vision3d.stages.detect.synth.config import FrameConfig, StreetObjects

if TYPE_CHECKING:
    from vision3d.stages.detect.synth.frames import Frame


SYNTH = "synth"
"""DATA that stands for generated streets."""
_FEWEST = 5
"""Points of a label; with fewer it does not count."""


class Source(Protocol):
    """Sweeps by number; must be picklable, since worker processes read it."""

    @property
    def name(self) -> str:
        """Description for cards and messages."""
        ...

    def __len__(self) -> int:
        """Number of sweeps; generated ones have no end, so this is the number that counts as one pass."""
        ...

    def sweep(self, index: int, epoch: int) -> LabelledSweep:
        """A sweep; generated sources make new ones in each epoch."""
        ...


@dataclass(frozen=True)
class KittiFolder:
    """A folder with velodyne/*.bin, label_2/*.txt and calib/*.txt, as KITTI's `training`.

    Attributes:
        path: The folder.
        frames: Names of the frames, such as 000008.
        classes: Classes of the labels.
    """

    path: Path
    frames: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def open(cls, path: Path | str, classes: tuple[str, ...], split: str | None = None) -> "KittiFolder":
        """The frames of a split (ImageSets/SPLIT.txt), or all of them.

        Raises:
            MissingFileError: The folder, the split or the sweeps are missing.
            InputError: A frame has no labels, as in KITTI's `testing`.
        """
        root = Path(path)
        folder = root / "training" if (root / "training" / "velodyne").is_dir() else root
        if not (folder / "velodyne").is_dir():
            raise MissingFileError(folder / "velodyne", "a folder of .bin sweeps beside label_2 and calib (KITTI's layout)")
        if split is not None:
            listed = _split_file(root, split)
            if listed is None:
                raise MissingFileError(root / "ImageSets" / f"{split}.txt", "the names of the frames of the split, one a line")
            names = [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]
        else:
            names = sorted(file.stem for file in (folder / "velodyne").glob("*.bin"))
        if not names:
            raise InputError(f"{folder}: has no frames")
        without = [name for name in names if not (folder / "label_2" / f"{name}.txt").is_file()]
        if without:
            raise InputError(
                f"{folder}: {len(without)} of {len(names)} frames have no labels (label_2/{without[0]}.txt); "
                "KITTI's test part has none: use its training part"
            )
        return cls(folder, tuple(names), classes)

    @property
    def name(self) -> str:
        return f"{len(self.frames)} frames of {self.path.resolve()}"

    def __len__(self) -> int:
        return len(self.frames)

    def sweep(self, index: int, epoch: int = 0) -> LabelledSweep:
        """The labelled sweep of a frame."""
        name = self.frames[index]
        labels = self.path / "label_2" / f"{name}.txt"
        boxes = read_labels(labels, self.path / "calib" / f"{name}.txt")
        return LabelledSweep(self._points(name), boxes.boxes, labels_of(boxes.names, self.classes, str(labels)), name)

    def eval_frame(self, index: int) -> EvalFrame:
        """A frame with everything that the evaluation needs."""
        name = self.frames[index]
        calibration, labels = self.path / "calib" / f"{name}.txt", self.path / "label_2" / f"{name}.txt"
        to_camera = read_calibration(calibration)
        columns = read_label_columns(labels, to_camera)
        labels_of(columns.boxes.names, self.classes, str(labels))  # refuses unknown classes
        photos = (self.path / "image_2" / f"{name}{suffix}" for suffix in (".png", ".jpg"))
        photo = next((path for path in photos if path.is_file()), None)
        size = Camera().size if photo is None else read_image_size(photo)
        return EvalFrame(
            name, self._points(name), columns, Camera(read_projection(calibration).numpy(), to_camera.numpy(), size)
        )

    def _points(self, name: str) -> Tensor:
        return rows_of(read_bin(self.path / "velodyne" / f"{name}.bin", drop_nan=True))


def split_folder(root: Path) -> Path | None:
    """The folder ImageSets of a data set."""
    places = (root, root.parent, root / "training")
    return next((place / "ImageSets" for place in places if (place / "ImageSets").is_dir()), None)


def has_split(path: Path | str, split: str) -> bool:
    """Whether a folder lists the frames of a split."""
    return _split_file(Path(path), split) is not None


def _split_file(root: Path, split: str) -> Path | None:
    folder = split_folder(root)
    return None if folder is None or not (folder / f"{split}.txt").is_file() else folder / f"{split}.txt"


def is_generated(data: Path | str) -> bool:
    """Whether DATA stands for generated streets."""
    return str(data) == SYNTH and not Path(data).exists()


@dataclass(frozen=True)
class Streets:
    """Generated streets, new ones in every pass.

    Attributes:
        config: Sensors, and the number of streets that counts as one pass.
        classes: Classes of the labels.
        seed: Seed of the streets.
        split: Shapes and layouts of the training or of the validation, which have none in common.
    """

    config: StreetsConfig
    classes: tuple[str, ...]
    seed: int = 0
    split: Literal["train", "val"] = "train"

    @property
    def name(self) -> str:
        return f"generated streets of seed {self.seed} ({self.split}; {', '.join(self.config.sensors)})"

    def __len__(self) -> int:
        return self.config.frames

    def sweep(self, index: int, epoch: int = 0) -> LabelledSweep:
        """Generate a street and scan it with one of the sensors."""
        number = epoch * len(self) + index
        made = self._made(number)
        return LabelledSweep(made.points, made.boxes, labels_of(made.names, self.classes), f"{self.split}_{number:06}")

    def eval_frame(self, index: int) -> EvalFrame:
        """A frame with everything that the evaluation needs; objects with few points are ignored."""
        made = self._made(index)
        occlusion = torch.where(made.num_points < _FEWEST, 3, made.occlusion)
        return EvalFrame(f"{self.split}_{index:06}", made.points, replace(made.labels, occlusion=occlusion), made.camera)

    def _made(self, number: int) -> "Frame":
        from vision3d.stages.detect.synth.frames import frame

        config = self.config
        objects = {field.name: getattr(config, field.name) for field in fields(StreetObjects)}
        frames = FrameConfig(sensor=config.sensors[number % len(config.sensors)], split=self.split, **objects)
        return frame(self.seed, frames, number)
