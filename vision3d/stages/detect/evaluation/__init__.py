"""Average precision of detected boxes by the protocol of the KITTI object benchmark (Geiger et al. 2012).

result = evaluate(labels, detections)    # one FrameObjects each per frame
result.table()
result.get("Car", "3d", "moderate").r40
"""

from vision3d.stages.detect.evaluation.difficulties import DIFFICULTIES, Difficulty
from vision3d.stages.detect.evaluation.evaluate import evaluate
from vision3d.stages.detect.evaluation.frames import FrameObjects, upright_boxes
from vision3d.stages.detect.evaluation.results import Evaluation, Row

__all__ = ["DIFFICULTIES", "Difficulty", "Evaluation", "FrameObjects", "Row", "evaluate", "upright_boxes"]
