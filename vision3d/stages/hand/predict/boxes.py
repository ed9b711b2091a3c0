"""Boxes of hands that a user gives, as .json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision3d.core.errors import ConfigError, FileFormatError, MissingFileError
from vision3d.stages.hand.detections import Detections
from vision3d.stages.hand.predict.predictor import boxes_of
from vision3d.stages.hand.run_config import check_box

_WANT = '{"NAME": [{"box": [x, y, w, h], "side": "right"}, ...], ...}'


def read_boxes(path: Path | str) -> dict[str, Detections]:
    """The boxes of each image, by the name of its file, or by the number of the frame of a video.

        {"hand.jpg": [{"box": [x, y, w, h], "side": "left"}, {"box": [x, y, w, h]}], "12": ...}

    Pixels from the upper left corner; the side is optional.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, or contains something else.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, f"boxes as .json: {_WANT}")
    try:
        values = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(path, f"is not JSON ({error})") from error
    if not isinstance(values, Mapping):
        raise FileFormatError(path, f"holds a {type(values).__name__}; want {_WANT}")
    return {name: _boxes(path, name, rows) for name, rows in values.items()}


def _boxes(path: Path, name: str, rows: Any) -> Detections:
    if not isinstance(rows, list):
        raise FileFormatError(path, f"got {json.dumps(rows)[:60]}, want a list of boxes", name)
    boxes, sides = [], []
    for row in rows:
        box = row.get("box") if isinstance(row, Mapping) else None
        side = row.get("side") if isinstance(row, Mapping) else None
        is_box = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
        if not is_box or side not in (None, "right", "left"):
            want = '{"box": [x, y, w, h], "side": "right" or "left"}'
            raise FileFormatError(path, f"got {json.dumps(row)[:60]}, want {want}", name)
        assert isinstance(box, list)
        try:
            check_box(tuple(map(float, box)), "box")
        except ConfigError as error:
            raise FileFormatError(path, str(error), name) from error
        boxes.append(box)
        sides.append(side)
    return boxes_of(boxes, sides)
