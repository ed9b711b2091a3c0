"""Sources of labelled sweeps: a KITTI folder, or generated streets."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from vision3d.core.errors import InputError, MissingFileError
from vision3d.io.kitti import read_calibration, read_image_size, read_label_columns, read_labels, read_projection
from vision3d.io.point_files import read_bin
from vision3d.scene.boxes import Boxes
from vision3d.stages.detect.config import StreetsConfig
from vision3d.stages.detect.data.sweeps import EvalFrame, LabelledSweep, labels_of
from vision3d.stages.detect.synth.camera import Camera
from vision3d.stages.detect.synth.config import FrameConfig

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
        cloud = read_bin(self.path / "velodyne" / f"{name}.bin", drop_nan=True)
        labels = self.path / "label_2" / f"{name}.txt"
        boxes = read_labels(labels, self.path / "calib" / f"{name}.txt")
        assert boxes.labels is not None and cloud.intensity is not None
        names = [boxes.classes[label] for label in boxes.labels.tolist()]
        points = torch.cat([cloud.points, cloud.intensity[:, None]], 1)
        return LabelledSweep(points, boxes.boxes, labels_of(names, self.classes, str(labels)), name)

    def eval_frame(self, index: int) -> EvalFrame:
        """A frame with everything that the evaluation needs."""
        name = self.frames[index]
        calibration = self.path / "calib" / f"{name}.txt"
        to_camera = read_calibration(calibration)
        columns = read_label_columns(self.path / "label_2" / f"{name}.txt", to_camera)
        photo = next((self.path / "image_2" / f"{name}{end}" for end in (".png", ".jpg")
                      if (self.path / "image_2" / f"{name}{end}").is_file()), None)  # fmt: skip
        size = Camera().size if photo is None else read_image_size(photo)
        camera = Camera(read_projection(calibration).numpy(), to_camera.numpy(), size)
        return EvalFrame(
            name,
            self.sweep(index).points,
            columns.boxes,
            columns.boxes_2d.numpy(),
            columns.truncation.numpy(),
            columns.occlusion.numpy(),
            columns.alpha.numpy(),
            camera,
            columns.dont_care.numpy(),
        )


def has_split(path: Path | str, split: str) -> bool:
    """Whether a folder lists the frames of a split."""
    return _split_file(Path(path), split) is not None


def _split_file(root: Path, split: str) -> Path | None:
    places = (root, root.parent, root / "training")
    return next((file for place in places if (file := place / "ImageSets" / f"{split}.txt").is_file()), None)


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
    frames: FrameConfig = field(default_factory=FrameConfig)

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
        classes = tuple(dict.fromkeys(made.names))
        labels = torch.tensor([classes.index(name) for name in made.names], dtype=torch.int64)
        occlusion = torch.where(made.num_points < _FEWEST, 3, made.occlusion)
        return EvalFrame(
            f"{self.split}_{index:06}",
            made.points,
            Boxes(made.boxes, labels, None, classes),
            made.boxes_2d.numpy(),
            made.truncation.numpy(),
            occlusion.numpy(),
            made.alpha.numpy(),
            made.camera,
            np.zeros((0, 4)),
        )

    def _made(self, number: int) -> "Frame":
        from vision3d.stages.detect.synth.frames import frame

        sensors = self.config.sensors
        return frame(self.seed, replace(self.frames, sensor=sensors[number % len(sensors)], split=self.split), number)
