"""Which labeled objects count: the three difficulties of KITTI, each of which includes the easier ones."""

from typing import NamedTuple


class Difficulty(NamedTuple):
    """Limits of the objects that count; others are ignored: neither true nor false positives."""

    name: str
    min_height: float
    """Of the box in the image [px]; labels must exceed it, detections must reach it."""
    max_occlusion: int
    """0 visible, 1 partly, 2 largely occluded, 3 unknown."""
    max_truncation: float
    """Fraction of the object outside of the image."""


DIFFICULTIES = (Difficulty("easy", 40, 0, 0.15), Difficulty("moderate", 25, 1, 0.3), Difficulty("hard", 25, 2, 0.5))
NEIGHBORS = {"car": ("van",), "pedestrian": ("person_sitting",)}
"""Labels of similar classes: neither missed if not found, nor false positives if found."""
MIN_OVERLAPS = {"car": 0.7, "van": 0.7, "truck": 0.7, "pedestrian": 0.5, "person_sitting": 0.5, "cyclist": 0.5}
DONT_CARE = "dontcare"
"""Regions of the image with unlabeled objects."""
