"""Hands through a video: the crops of a frame come from the joints of the one before."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vision3d.core.errors import InputError
from vision3d.stages.hand.detections import Detections
from vision3d.stages.hand.filters import OneEuroFilter
from vision3d.stages.hand.predict.predictor import (
    SAME,
    HandPredictor,
    check_image,
    check_inside,
    intrinsics_of,
    next_boxes,
    with_scores_of,
)
from vision3d.stages.hand.predict.result import HandResult, box_overlap

_SAME = 0.3
"""IoU of boxes from which a found hand is one that is followed already."""
_HAND_M = 0.18
"""Longer side of a hand's box: pixels are filtered as the meters that they roughly are [m]."""


@dataclass(eq=False)
class _Track:
    number: int
    box: Detections
    """Of the next frame, one row."""
    pixel_m: float
    """Size of a pixel at the hand, roughly [m]."""
    joints_2d: OneEuroFilter
    vertices: OneEuroFilter
    position: OneEuroFilter


class HandTracker:
    """Finds the hands of the frames of a video, one after the other.

    A hand is followed from its own joints. The finder looks again after `find_every` frames, in every frame without a hand, and
    where a hand was lost: when its score is below `lost`.

    Args:
        predictor: The network and the finder.

    Example:
        >>> tracker = HandTracker(predictor)  # doctest: +SKIP
        >>> hands = [tracker(frame, number / 30) for number, frame in enumerate(frames)]  # doctest: +SKIP
    """

    def __init__(self, predictor: HandPredictor) -> None:
        self.predictor, self.config = predictor, predictor.config
        self.reset()

    def reset(self) -> None:
        """Forget all hands."""
        self._tracks: list[_Track] = []
        self._count = self._since = 0
        self._K: tuple[tuple[int, int], Tensor] | None = None

    @torch.inference_mode()
    def __call__(
        self,
        image: UInt8[Tensor, "h w 3"],
        time: float,
        found: Detections | None = None,
        K: Float[Tensor, "3 3"] | None = None,
    ) -> list[HandResult]:
        """The hands of the next frame, in the order in which they appeared.

        Args:
            image: sRGB.
            time: Of the frame, later than that of the frame before [s].
            found: Boxes of the hands in this frame, instead of the finder; hands that are followed already go on.
            K: Intrinsics [px]; by default as the configuration has them.

        Raises:
            ShapeError: It is not an image.
            InputError: A box is outside the image, or neither boxes nor a finder are given.
        """
        check_image(image)
        K = self._intrinsics(image) if K is None else K
        hands = self._followed(image, K, time)
        self._since += 1
        if found is not None:
            hands += self._started(image, found, K, time, hands, is_given=True)
        elif self.predictor.finder is not None:
            if not self._tracks or self._since >= self.config.find_every:
                hands += self._started(image, self.predictor.find(image), K, time, hands)
        elif not self._count:
            raise InputError("finder: there is none; want boxes of the hands (--box or --boxes)")
        return sorted(hands, key=lambda hand: hand.track or 0)

    def _intrinsics(self, image: Tensor) -> Float[Tensor, "3 3"]:
        size = image.shape[1], image.shape[0]
        if self._K is None or self._K[0] != size:
            self._K = size, intrinsics_of(self.config, *size)
        return self._K[1]

    def _followed(self, image: Tensor, K: Tensor, time: float) -> list[HandResult]:
        if not self._tracks:
            return []
        boxes = self._tracks[0].box if len(self._tracks) == 1 else _stacked([track.box for track in self._tracks])
        places = self.predictor.measure(image, boxes, K)
        after = next_boxes(places, boxes)
        hands, tracks = [], []
        for row, (hand, track) in enumerate(zip(self.predictor.results(places, K), self._tracks)):
            if not hand.score >= self.config.lost or not _is_inside(hand, image):  # also if the score is NaN
                self._since = self.config.find_every  # the finder looks for it at once
                continue
            if _is_among(hand, hands):
                continue
            track.box = after[row : row + 1]
            tracks.append(track)
            hands.append(self._smoothed(track, hand, time))
        self._tracks = tracks
        return hands

    def _started(
        self,
        image: Tensor,
        found: Detections,
        K: Tensor,
        time: float,
        followed: list[HandResult],
        *,
        is_given: bool = False,
    ) -> list[HandResult]:
        self._since = 0
        check_inside(found, image.shape[1], image.shape[0])
        taken = [track.box for track in self._tracks]
        new = [row for row in range(len(found)) if all(_overlap(found, row, box) < _SAME for box in taken)]
        room = self.config.max_hands - len(self._tracks)
        if not new or room < 1:
            return []
        boxes = sided = self.predictor.sided(image, found[torch.tensor(new[:room])], K)
        places = self.predictor.measure(image, boxes, K)
        for _ in range(self.config.passes - 1):
            boxes = next_boxes(places, boxes)
            places = self.predictor.measure(image, boxes, K)
        after, hands, made = next_boxes(places, boxes), [], self.predictor.results(places, K)
        for row, hand in enumerate(made if is_given else with_scores_of(made, sided)):
            if _is_among(hand, [*followed, *hands]) or not (is_given or hand.score >= self.config.score):
                continue
            pixel_m = _HAND_M / max(float(boxes.sides[row]), 1.0)
            filters = [OneEuroFilter(self.config.filter) for _ in range(3)]
            track = _Track(self._count, after[row : row + 1], pixel_m, *filters)
            self._count += 1
            self._tracks.append(track)
            hands.append(self._smoothed(track, hand, time))
        return hands

    def _smoothed(self, track: _Track, hand: HandResult, time: float) -> HandResult:
        hand = replace(hand, track=track.number)
        if not self.config.smooth:
            return hand
        at = hand.translation.numpy()
        position = torch.from_numpy(track.position(at, time)).float()
        vertices = torch.from_numpy(track.vertices(hand.vertices.numpy() - at, time)).float()
        pixels = torch.from_numpy(track.joints_2d(hand.joints_2d.numpy() * track.pixel_m, time) / track.pixel_m).float()
        joints = hand.template.joints(vertices)
        return replace(hand, joints_2d=pixels, joints_3d=joints + position, vertices=vertices + position, translation=position)


def _is_among(hand: HandResult, others: list[HandResult]) -> bool:
    return any(box_overlap(hand.box, other.box) > SAME and hand.side == other.side for other in others)


def _stacked(parts: list[Detections]) -> Detections:
    names = ("centers", "sides", "angles", "is_right", "scores")
    centers, sides, angles, is_right, scores = (torch.cat([getattr(part, name) for part in parts]) for name in names)
    return Detections(centers, sides, angles, is_right, scores)


def _overlap(found: Detections, row: int, box: Detections) -> float:
    return box_overlap(_square(found, row), _square(box, 0))


def _square(found: Detections, row: int) -> tuple[float, float, float, float]:
    (x, y), side = found.centers[row].tolist(), float(found.sides[row])
    return x - side / 2, y - side / 2, side, side


def _is_inside(hand: HandResult, image: Tensor) -> bool:
    x, y, width, height = hand.box
    return x + width > 0 and y + height > 0 and x < image.shape[1] and y < image.shape[0]
