"""Hands of an image from boxes: crop, network, position in the camera's space."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.cameras import intrinsics
from vision3d.stages.hand.crop import Crop, perspective_crop, warp
from vision3d.stages.hand.detections import Detections, Finder, Turner
from vision3d.stages.hand.intrinsics import field_of_view_Ks
from vision3d.stages.hand.joints import ROOT, WRIST
from vision3d.stages.hand.network.files import HandModel
from vision3d.stages.hand.predict.frozen import Frozen, Tensors
from vision3d.stages.hand.predict.located import Outputs, locate
from vision3d.stages.hand.predict.result import HandResult, box_overlap
from vision3d.stages.hand.run_config import HandConfig

SAME = 0.5
"""IoU of the boxes of joints from which two hands are one."""
_UNSURE = 0.2
"""Distance from one half up to which a finder's probability of a right hand does not decide."""
_GROWTH = 2.0
"""Largest factor, in either direction, by which a pass may change the side of a box."""
_WIDEST = 2.0
"""Largest side of a crop over the longer side of the image."""
_NEAREST = 0.02
"""Smallest distance of a hand from the camera [m]."""
_SIZES_M = 0.06, 0.25
"""Longer side of the joints' box, of fists of children to spread hands of men [m]."""
_USUAL_M = 0.18
"""The same, if the joints tell nothing [m]."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where hands are looked for, and what was found there, in rows; 3D relative to the root joint, in the camera's axes."""

    found: Detections
    """Boxes of the joints; scores are those of the network."""
    joints_2d: Float[Tensor, "n 21 2"]
    """[px]"""
    joints: Float[Tensor, "n 21 3"]
    """[m]"""
    vertices: Float[Tensor, "n 778 3"]
    """[m]"""
    confidence: Float[Tensor, "n 21"]
    """In [0, 1]."""
    right: Float[Tensor, " n"]
    """Logit that the crop, mirrored for left hands, shows a right hand: that the side is right."""
    positions: Float[Tensor, "n 3"]
    """Of the root joint [m]; may be NaN or behind the camera."""


class HandPredictor:
    """Finds the hands of an image; keeps nothing from one image to the next.

    Args:
        model: The network.
        config: Options.
        finder: Finds hands in whole images; without one, boxes must be given.
        turner: Sees how hands in given boxes are turned, for upright crops; by default the finder, if it can.
        device: Of the network.
        for_video: Make graphs of the network, which takes a second and saves a third of its time.

    Example:
        >>> predictor = HandPredictor(load_hand_model("hand.safetensors"))  # doctest: +SKIP
        >>> predictor(image, boxes_of([(100, 80, 200, 220)]))[0].joints_3d  # doctest: +SKIP
    """

    def __init__(
        self,
        model: HandModel,
        config: HandConfig | None = None,
        finder: Finder | None = None,
        *,
        turner: Turner | None = None,
        device: torch.device | str = "cpu",
        for_video: bool = False,
    ) -> None:
        self.config, self.finder, self.device = config or HandConfig(), finder, torch.device(device)
        self.size = model.config.input_size
        own: Any = finder
        self.turner: Turner | None = turner or (own if hasattr(finder, "turns") else None)
        self._wants_upright = model.config.upright
        self._network: Callable[..., Tensors] = Outputs(model.network.for_inference().to(self.device)).eval()
        self._locate = locate(self.size)
        if for_video and self.device.type == "cpu":
            self._network, self._locate = Frozen(self._network), Frozen(self._locate)

    @torch.inference_mode()
    def __call__(
        self, image: UInt8[Tensor, "h w 3"], found: Detections | None = None, K: Float[Tensor, "3 3"] | None = None
    ) -> list[HandResult]:
        """The hands of an image, highest score first.

        Args:
            image: sRGB.
            found: Boxes of the hands, all of which are kept; None: those of the finder.
            K: Intrinsics [px]; by default as the configuration has them.

        Raises:
            ShapeError: It is not an image.
            InputError: There are no boxes and no finder, or a box is outside the image.
        """
        check_image(image)
        K = intrinsics_of(self.config, image.shape[1], image.shape[0]) if K is None else K
        is_given = found is not None
        found = self.sided(image, self.find(image) if found is None else found, K)
        check_inside(found, image.shape[1], image.shape[0])
        if not len(found):
            return []
        places = self.measure(image, found, K)
        for _ in range(self.config.passes - 1):
            places = self.measure(image, next_boxes(places, found), K)
        hands = self.results(places, K)
        if is_given:
            return sorted(hands, key=lambda hand: -hand.score)
        return self.kept(sorted(with_scores_of(hands, found), key=lambda hand: -hand.score), self.config.score)

    def find(self, image: UInt8[Tensor, "h w 3"]) -> Detections:
        """The boxes of the finder, of the configured side; the probability is a half if the finder does not know the side.

        Left out are those whose score cannot reach the configured one, whatever that of the network.

        Raises:
            InputError: The predictor has no finder.
        """
        if self.finder is None:
            raise InputError("finder: there is none; want boxes of the hands (--box or --boxes)")
        found = self.finder.find(image)
        found = found[found.scores >= self.config.score**2][: self.config.max_hands]
        if not getattr(self.finder, "knows_sides", True):  # finders of users may leave it out
            found = replace(found, right=torch.full((len(found),), 0.5))
        return self._of_side(found)

    def sided(self, image: UInt8[Tensor, "h w 3"], found: Detections, K: Float[Tensor, "3 3"]) -> Detections:
        """Boxes of which the side is unknown get the one that the network sees; the others keep theirs.

        Unknown: the score is NaN, or the probability of a right hand is about a half. Boxes whose rotation is unknown get that
        of the finder before, if the network wants the fingers up.
        """
        if len(found) and not found.turned:
            if self._wants_upright and self.turner is not None:
                check_inside(found, image.shape[1], image.shape[0])
                found = replace(found, angles=self.turner.turns(image, found))
            found = replace(found, turned=True)
        if self.config.side != "auto" or not len(found):
            return self._of_side(found)
        unknown = found.scores.isnan()
        if found.right is not None:
            unknown = unknown | ((found.right - 0.5).abs() < _UNSURE)
        found = replace(found, right=None)
        if not bool(unknown.any()):
            return found
        some = found[unknown]
        check_inside(some, image.shape[1], image.shape[0])
        right = torch.ones(len(some), dtype=torch.bool)
        as_right, as_left = (self.measure(image, replace(some, is_right=side), K).right for side in (right, ~right))
        is_right = found.is_right.clone()
        is_right[unknown] = as_right >= as_left
        return replace(found, is_right=is_right)

    def measure(self, image: UInt8[Tensor, "h w 3"], found: Detections, K: Float[Tensor, "3 3"]) -> Places:
        """One pass of the network over the crops around boxes.

        Args:
            image: sRGB.
            found: The boxes, at least one.
            K: Intrinsics [px].
        """
        crop = self._crop(found, image, K)
        outputs = self._network(warp(image, crop).to(self.device))
        uv, vertices, joints, confidence, right, presence = (value.float().cpu() for value in outputs)
        Ks = K.expand(len(found), 3, 3)
        located = self._locate(uv, vertices, joints, confidence, presence, crop.homographies, crop.camera_maps, Ks)
        joints_2d, joints, vertices, confidence, scores, positions = located
        return Places(replace(found, scores=scores), joints_2d, joints, vertices, confidence, right, positions)

    def results(self, places: Places, K: Float[Tensor, "3 3"]) -> list[HandResult]:
        """The hands in the camera's space, row by row."""
        positions = positions_of(places, K)
        found = places.found
        hands = []
        crops = torch.cat([found.centers, self.config.margin * found.sides[:, None], found.angles[:, None]], 1).tolist()
        for row, (crop, score) in enumerate(zip(crops, found.scores.tolist())):
            at = positions[row]
            hands.append(
                HandResult(
                    places.joints_2d[row], places.joints[row] + at, places.vertices[row] + at, at,
                    "right" if bool(found.is_right[row]) else "left", score, places.confidence[row], K, tuple(crop),
                )
            )  # fmt: skip
        return hands

    def kept(self, hands: Sequence[HandResult], lowest: float) -> list[HandResult]:
        """Hands with a score, each once."""
        found: list[HandResult] = []
        for hand in hands:
            is_new = all(box_overlap(hand.box, other.box) < SAME for other in found)
            if hand.score >= lowest and is_new and len(found) < self.config.max_hands:
                found.append(hand)
        return found

    def _of_side(self, found: Detections) -> Detections:
        if self.config.side == "auto":
            return found
        return replace(found, is_right=torch.full((len(found),), self.config.side == "right"), right=None)

    def _crop(self, found: Detections, image: Tensor, K: Tensor) -> Crop:
        sides = (self.config.margin * found.sides).clamp(1.0, _WIDEST * max(image.shape[:2]))
        crop = perspective_crop(found.centers, sides, K.expand(len(found), 3, 3), self.size, found.angles)
        return crop if bool(found.is_right.all()) else _left_mirrored(crop, found.is_right)


def boxes_of(boxes: Sequence[Sequence[float]], sides: Sequence[str | None] | None = None) -> Detections:
    """Detections of boxes x y w h [px] that a user gave.

    Args:
        boxes: Around the hands.
        sides: right, left, or None where it is not known; the score of such a box is NaN.
    """
    sides = [None] * len(boxes) if sides is None else sides
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([math.nan if side is None else 1.0 for side in sides])
    is_right = torch.tensor([side != "left" for side in sides], dtype=torch.bool)
    return Detections(
        rows[:, :2] + rows[:, 2:] / 2, rows[:, 2:].amax(1), torch.zeros(len(rows)), is_right, scores, turned=False
    )


def with_scores_of(hands: Sequence[HandResult], found: Detections) -> list[HandResult]:
    """Hands in the rows of a finder's boxes, with scores that take both into account.

    The score is the square root of the product of the network's score, the finder's, and the IoU of the box of the joints with
    the finder's box: without a hand, the two boxes differ.
    """
    made = []
    for hand, center, side, score in zip(hands, found.centers, found.sides, found.scores.tolist()):
        (own,), (longer,), _ = boxes_around(hand.joints_2d[None])
        overlap = box_overlap(_square(own, longer), _square(center, side))
        made.append(replace(hand, score=math.sqrt(hand.score * score * overlap)))
    return made


def _square(center: Tensor, side: Tensor) -> tuple[float, float, float, float]:
    """x y w h of a square."""
    x, y = (center - side / 2).tolist()
    return x, y, float(side), float(side)


def next_boxes(places: Places, before: Detections) -> Detections:
    """The boxes of the joints, fingers up; those of hands whose joints are nowhere near are left as they were."""
    around = boxes_around(places.joints_2d)
    centers, sides, angles = around
    change = sides / before.sides
    is_near = (change < _GROWTH) & (change > 1 / _GROWTH) & ((centers - before.centers).abs().amax(1) < before.sides)
    return replace(
        places.found,
        centers=torch.where(is_near[:, None], centers, before.centers),
        sides=torch.where(is_near, sides, before.sides),
        angles=torch.where(is_near, angles, before.angles),
    )


def boxes_around(joints_2d: Float[Tensor, "n 21 2"]) -> tuple[Tensor, Tensor, Tensor]:
    """Centers and sides of the boxes of joints [px], and the rotations of crops in which the fingers point up [rad]."""
    low, high = joints_2d.amin(1), joints_2d.amax(1)
    along = joints_2d[:, ROOT] - joints_2d[:, WRIST]
    return (low + high) / 2, (high - low).amax(1), -math.pi / 2 - torch.atan2(along[:, 1], along[:, 0])


def positions_of(places: Places, K: Float[Tensor, "3 3"]) -> Float[Tensor, "n 3"]:
    """Position of the root joint of each hand [m].

    That of its joints, unless it contradicts the box: the longer side of a hand is between 0.06 and 0.25 m, and a box is right
    within a factor of 2. If 2D joints are almost at one place, the equations find a hand any distance away; then the root is on
    the ray of its 2D joint where a hand of the size of its 3D joints fills the box.
    """
    at, (smallest, largest) = places.positions, _SIZES_M
    centers, sides = places.found.centers, places.found.sides
    focal_px = (K[0, 0] * K[1, 1]).sqrt()
    near, far = focal_px * smallest / (_GROWTH * sides), focal_px * largest * _GROWTH / sides
    pixels = at @ K.T
    is_beside = ((pixels[:, :2] / pixels[:, 2:] - centers).abs() > sides[:, None]).any(1)
    is_good = at.isfinite().all(1) & (at[:, 2] > near.clamp(min=_NEAREST)) & (at[:, 2] < far) & ~is_beside
    if bool(is_good.all()):
        return at
    across = places.joints[..., :2]
    size_m = (across.amax(1) - across.amin(1)).amax(1)
    size_m = torch.where(size_m.isfinite() & (size_m > _NEAREST), size_m, _USUAL_M).clamp(smallest, largest)
    root = places.joints_2d[:, ROOT]
    root = torch.where(root.isfinite().all(1, keepdim=True), root, centers)
    root = torch.minimum(torch.maximum(root, centers - sides[:, None] / 2), centers + sides[:, None] / 2)
    rays = torch.cat([root, torch.ones_like(sides)[:, None]], 1) @ torch.linalg.inv(K).T
    distance = (focal_px * size_m / sides).clamp(min=2 * _NEAREST)
    return torch.where(is_good[:, None], at, rays * distance[:, None])


def intrinsics_of(config: HandConfig, width: int, height: int) -> Float[Tensor, "3 3"]:
    """Intrinsics of an image of this size: the given ones, or those of the field of view [px]."""
    return field_of_view_Ks(width, height, config.fov) if config.intrinsics is None else intrinsics(*config.intrinsics)


def check_image(image: Tensor) -> None:
    """Raise ShapeError for what is not an image of red, green and blue bytes."""
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 1 or image.dtype != torch.uint8:
        raise ShapeError("image", f"{tuple(image.shape)} {image.dtype}", "(H, W, 3) uint8, not empty")


def check_inside(found: Detections, width: int, height: int) -> None:
    """Raise InputError for a box that has no pixel in the image."""
    reach = found.sides[:, None] / 2
    size = torch.tensor([width, height])
    outside = ((found.centers + reach <= 0) | (found.centers - reach >= size)).any(1)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        (x, y), side = found.centers[row].tolist(), float(found.sides[row])
        text = f"box: got a square of {side:g} px around ({x:g}, {y:g}), which is outside the image"
        raise InputError(f"{text}; want one in {width} x {height} px")


def _left_mirrored(crop: Crop, is_right: Bool[Tensor, " n"]) -> Crop:
    flipped = crop.mirrored()
    rows = is_right[:, None, None]
    return replace(
        crop,
        **{
            name: torch.where(rows, getattr(crop, name), getattr(flipped, name))
            for name in ("homographies", "camera_maps", "Ks")
        },
    )
