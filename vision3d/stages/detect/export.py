"""Detectors as ONNX graphs, checked against the network that they were made from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import InputError
from vision3d.stages.detect.config import StreetsConfig
from vision3d.stages.detect.data.augment import cropped
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.data.sources import Streets
from vision3d.stages.detect.ground import levelled
from vision3d.stages.detect.network.detector import Network
from vision3d.stages.detect.network.files import Detector
from vision3d.training.onnx_graphs import check_onnx, onnx_graph, shapes_of


@dataclass(frozen=True)
class Exported:
    """A written graph."""

    inputs: dict[str, list[int | str]]
    """Shape of each input."""
    outputs: dict[str, list[int | str]]
    difference: float
    """Largest difference of scores, and of boxes that score above 0.05 [m, rad], between the graph and the network."""


class ImageGraph(nn.Module):
    """(1, C, X, Y) bird's-eye image to the strongest boxes.

    Args:
        network: In evaluation mode.
        count: Number of boxes.
    """

    def __init__(self, network: Network, count: int) -> None:
        super().__init__()
        self.network, self.count = network, count

    def forward(self, image: Float[Tensor, "1 c x y"]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and scores; overlapping boxes are not removed."""
        peaks = self.network.head.strongest(self.network.head(self.network.bev(image)), self.count)[0]
        return peaks.boxes, peaks.labels, peaks.scores


class PillarGraph(ImageGraph):
    """(N, 4) points of a sector to the strongest boxes: pillars in a dense image, which needs no sorting."""

    def forward(self, points: Float[Tensor, "n 4"]) -> tuple[Float[Tensor, "k 7"], Int64[Tensor, " k"], Float[Tensor, " k"]]:
        """Boxes, labels and scores; overlapping boxes are not removed."""
        encoder = self.network.encoder
        width, length, _ = encoder.cells
        low, high = points.new_tensor(encoder.grid.low), points.new_tensor(encoder.grid.high)
        size = (high - low) / points.new_tensor(encoder.cells)
        places = torch.floor((points[:, :3] - low) / size)
        inside = ((points[:, :3] >= low) & (points[:, :3] < high)).all(1)
        places = torch.where(inside[:, None], places, 0.0)
        # Points outside of the grid go to a cell of their own, the last one.
        cells = torch.where(inside, (places[:, 0] * length + places[:, 1]).long(), width * length)
        counts = points.new_zeros(width * length + 1).index_add(0, cells, torch.ones_like(points[:, 0]))
        sums = points.new_zeros(width * length + 1, 3).index_add(0, cells, points[:, :3])
        offsets = points[:, :3] - (sums / counts.clamp(min=1)[:, None])[cells]
        intensity = points[:, 3:4] if encoder.intensity else torch.zeros_like(points[:, 3:4])
        centers = low + (places + 0.5) * size
        rows = torch.cat([points[:, :3], intensity, offsets, points[:, :3] - centers], 1)
        rows = encoder.first(rows)
        rows = encoder.second(torch.cat([rows, self._greatest(rows, cells)[cells]], 1))
        image = self._greatest(rows, cells)[:-1].view(1, width, length, -1).permute(0, 3, 1, 2)
        return super().forward(image)

    def _greatest(self, rows: Tensor, cells: Tensor) -> Tensor:
        """Maxima of the rows of each cell, which are not negative; 0 for cells without any."""
        width, length, _ = self.network.encoder.cells
        empty = rows.new_zeros(width * length + 1, rows.shape[1])
        return empty.scatter_reduce(0, cells[:, None].expand(-1, rows.shape[1]), rows, "amax")


def export_detector(detector: Detector, path: Path | str, *, count: int = 200) -> Exported:
    """Write a detector as .onnx and compare both on a generated street.

    Pillars: the graph takes the points (N, 4) of a sector for any N, with a horizontal ground at z = `ground.GROUND`. LION: it
    takes the bird's-eye image that the sequence operators made (`Network.image`), since ONNX has no recurrences over ragged
    groups. The graphs return boxes (K, 7), labels (K,) and scores (K,), of which overlapping ones are not removed yet.

    Args:
        detector: The detector.
        path: The .onnx file.
        count: K.

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        InputError: The suffix is not .onnx, or the bird's-eye network is sparse.
    """
    path = check_onnx(path, "detect export")
    if detector.config.bev.sparse:
        raise InputError("bev.sparse: got true, want false: ONNX has no convolutions on single cells")
    network = detector.network.cpu().eval()
    points = _street(detector)
    if detector.config.method == "pillars":
        network_graph, name, given, fewest = PillarGraph(network, count), "points", points, 2
    else:
        with torch.inference_mode():
            given = network.image(PointBatch.of([points])).contiguous()
        network_graph, name, fewest = ImageGraph(network, count), "image", None
    properties = {"classes": ",".join(detector.config.classes), "grid": str(detector.config.grid)}
    graph = onnx_graph(network_graph.eval(), given.clone(), name, ("boxes", "labels", "scores"), properties, fewest_rows=fewest)
    with atomic_write(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
    difference = _difference(path, network, points, name, given, count)
    return Exported(shapes_of(graph.graph.input), shapes_of(graph.graph.output), difference)


def _street(detector: Detector) -> Tensor:
    """Points of a sector of a generated street."""
    source = Streets(StreetsConfig(("hdl64e",), 1), detector.config.classes, 0)
    return cropped(levelled(source.sweep(0, 0)), detector.config.grid, 1).points


def _difference(path: Path, network: Network, points: Tensor, name: str, given: Tensor, count: int) -> float:
    """Of the graph's boxes from those of the network; nearly equal scores may be in another order."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = [np.asarray(value) for value in session.run(None, {name: given.numpy()})]
    with torch.inference_mode():
        peaks = network.head.strongest(network(PointBatch.of([points])), count)[0]
    want = [value.numpy() for value in (peaks.boxes, peaks.labels, peaks.scores)]
    worst = float(np.abs(np.sort(got[2]) - np.sort(want[2])).max())
    for box, label, score in zip(*want):
        if score > 0.05:
            near = np.abs(got[0][got[1] == label] - box).max(1)
            worst = max(worst, float(near.min()) if len(near) else float("inf"))
    return worst
