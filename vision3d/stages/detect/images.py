"""Images of a sweep with boxes: from above, and on the image of a camera."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vision3d.report.canvas import INK, PAPER, Canvas, Color
from vision3d.scene.boxes import Boxes

COLORS: tuple[Color, ...] = ((214, 69, 65), (38, 110, 200), (232, 150, 20), (120, 70, 170), (20, 150, 120), (130, 130, 130))
"""Colors of the classes, in their order."""
_TRUTH: Color = (40, 150, 60)
_EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
_NEAR = 0.3  # m in front of the camera


def from_above(
    points: Float[Tensor, "n 3"],
    boxes: Boxes,
    *,
    truth: Boxes | None = None,
    reach: float = 50.0,
    size: int = 900,
    title: str = "",
) -> Float[Tensor, "h w 3"]:
    """The sweep from above, x up and y to the left, with boxes; a line from the center marks the front.

    Args:
        points: Positions [m].
        boxes: Drawn in the colors of their classes, with their scores.
        truth: Drawn in green below them.
        reach: Distance from the sensor to the edge [m].
        size: Side of the image [px].
        title: Written above.
    """
    canvas = Canvas(size, size)
    canvas.paste(_density(points, reach, size), 0, 0)
    for ring in range(10, int(reach) + 1, 10):
        radius = ring / reach * size / 2
        middle = size / 2
        canvas.draw.ellipse((middle - radius, middle - radius, middle + radius, middle + radius), outline=(225, 228, 235))
        canvas.text(middle + 2, middle - radius, f"{ring} m", 11, (150, 156, 168))
    if truth is not None:
        for box in truth.boxes:
            _outline(canvas, box, reach, size, _TRUTH, 3)
    for i, box in enumerate(boxes.boxes):
        label = 0 if boxes.labels is None else int(boxes.labels[i])
        color = COLORS[label % len(COLORS)]
        x, y = _outline(canvas, box, reach, size, color, 2)
        if boxes.scores is not None:
            canvas.text(x, y, f"{float(boxes.scores[i]):.2f}", 11, color, "ms")
    at = 8.0
    for label, name in enumerate(boxes.classes):
        canvas.text(at, size - 20, f"{name} {int((boxes.labels == label).sum()) if boxes.labels is not None else ''}", 13,
                    COLORS[label % len(COLORS)])  # fmt: skip
        at += 30 + 8 * len(name) + 20
    if truth is not None:
        canvas.text(at, size - 20, f"labelled {len(truth)}", 13, _TRUTH)
    if title:
        canvas.text(8, 6, title, 14, INK)
    return canvas.image()


def on_image(image: Float[Tensor, "h w 3"], boxes: Boxes, projection: Float[Tensor, "3 4"]) -> Float[Tensor, "h w 3"]:
    """The edges of boxes on a camera image; boxes that reach behind the camera are left out.

    Args:
        image: In [0, 1].
        boxes: In the frame of the sensor.
        projection: Homogeneous pixel positions of homogeneous positions in that frame.
    """
    canvas = Canvas(image.shape[1], image.shape[0])
    canvas.paste(image, 0, 0)
    matrix = projection.double()
    for i, corners in enumerate(boxes.corners.double()):
        pixels = corners @ matrix[:, :3].T + matrix[:, 3]
        if bool((pixels[:, 2] < _NEAR).any()):
            continue
        spots = (pixels[:, :2] / pixels[:, 2:]).tolist()
        color = COLORS[(0 if boxes.labels is None else int(boxes.labels[i])) % len(COLORS)]
        for a, b in _EDGES:
            canvas.draw.line((*spots[a], *spots[b]), fill=color, width=2)
        if boxes.scores is not None:
            top = min(range(8), key=lambda k: spots[k][1])
            canvas.text(spots[top][0], spots[top][1] - 3, f"{float(boxes.scores[i]):.2f}", 13, color, "ms")
    return canvas.image()


def _density(points: Tensor, reach: float, size: int) -> Tensor:
    """Points as gray pixels, darker where more lie."""
    xyz = points.detach().cpu().numpy()
    columns = np.floor((reach - xyz[:, 1]) / (2 * reach) * size).astype(np.int64)
    rows = np.floor((reach - xyz[:, 0]) / (2 * reach) * size).astype(np.int64)
    keep = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    counts = np.bincount(rows[keep] * size + columns[keep], minlength=size * size).reshape(size, size)
    gray = 1 - 0.75 * np.minimum(np.log1p(counts) / math.log(8), 1.0)
    return torch.from_numpy(gray.astype(np.float32))[..., None].expand(-1, -1, 3) * torch.tensor(PAPER) / 255


def _outline(canvas: Canvas, box: Tensor, reach: float, size: int, color: Color, width: int) -> tuple[float, float]:
    """Draw a box from above; returns where its label goes."""
    x, y, _, length, across, _, yaw = box.tolist()
    cosine, sine = math.cos(yaw), math.sin(yaw)
    spots = [
        (x + cosine * a * length / 2 - sine * b * across / 2, y + sine * a * length / 2 + cosine * b * across / 2)
        for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1), (1, 1))
    ]
    front = (x + cosine * length / 2, y + sine * length / 2)
    scale = size / (2 * reach)
    pixels = [((reach - v) * scale, (reach - u) * scale) for u, v in spots]
    canvas.draw.line(pixels, fill=color, width=width)
    canvas.draw.line([((reach - v) * scale, (reach - u) * scale) for u, v in ((x, y), front)], fill=color, width=width)
    return (reach - y) * scale, min(v for _, v in pixels) - 2
