"""Detectors as ONNX graphs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vision3d.core.config import load_yaml
from vision3d.core.errors import InputError
from vision3d.stages.detect import load_detector
from vision3d.stages.detect.config import TrainConfig
from vision3d.stages.detect.data.points import PointBatch
from vision3d.stages.detect.export import export_detector
from vision3d.stages.detect.network.detector import make_network
from vision3d.stages.detect.network.files import Detector
from vision3d.training.weights import Card

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The bundled detector of method pillars as a graph."""
    path = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    return path, export_detector(load_detector("detector_pillars"), path, count=50)


def test_shapes_and_parity(graph):
    path, found = graph
    assert found.inputs == {"points": ["N", 4]}
    assert found.outputs == {"boxes": [50, 7], "labels": [50], "scores": [50]}
    assert found.difference < 1e-4
    assert path.stat().st_size < 4 << 20


@pytest.mark.parametrize("count", [2, 500, 3000])
def test_other_numbers_of_points(graph, count):
    detector = load_detector("detector_pillars")
    low, high = (torch.tensor(values) for values in (detector.config.grid.low, detector.config.grid.high))
    # Half a metre of them outside of the grid.
    points = torch.cat([torch.rand(count, 3) * (high - low + 1) + low - 0.5, torch.rand(count, 1)], 1)
    session = runtime.InferenceSession(str(graph[0]), providers=["CPUExecutionProvider"])
    boxes, labels, scores = session.run(None, {"points": points.numpy()})
    with torch.inference_mode():
        outputs = detector.network(PointBatch.of([points]))
        want = detector.network.head.strongest(outputs, 50)[0]
    assert np.abs(np.sort(scores) - np.sort(want.scores.numpy())).max() < 1e-4
    best = int(scores.argmax())
    same = (want.labels == int(labels[best])).nonzero()[:, 0]
    assert float((want.boxes[same] - torch.from_numpy(boxes[best])).abs().amax(1).min()) < 1e-3


def test_the_image_network_of_lion(tmp_path):
    model = load_yaml(TrainConfig, "study", stage="detect").model
    card = Card.of_now("detector", config={}, data="", seed=0, cpu_hours=0)
    found = export_detector(Detector(make_network(model).eval(), model, card), tmp_path / "lion.onnx", count=10)
    assert found.inputs == {"image": [1, 32, 80, 80]}
    assert found.difference < 1e-4
    sparse = replace(model, bev=replace(model.bev, sparse=True))
    with pytest.raises(InputError, match=r"bev.sparse: got true, want false"):
        export_detector(Detector(make_network(sparse).eval(), sparse, card), tmp_path / "sparse.onnx")
