"""From pixels to hands: boxes, sides, positions, videos, and fitted poses."""

from dataclasses import replace

import pytest
import torch

from tests.support.hand_models import Finds, random_model
from vision3d.core.errors import InputError, ShapeError
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.io.images import read_image
from vision3d.scene import SkinnedMesh
from vision3d.stages.hand import HandConfig, HandPredictor, HandShape, HandTemplate, HandTracker, boxes_of, fit_poses
from vision3d.stages.hand.finder.model import load_finder
from vision3d.stages.hand.network.files import load_hand_model
from vision3d.stages.hand.predict.drawing import overlay
from vision3d.stages.hand.predict.files import write_animation, write_meshes
from vision3d.stages.hand.predict.fitting import skinned_mesh
from vision3d.stages.hand.predict.frozen import Frozen
from vision3d.stages.hand.predict.located import Outputs
from vision3d.stages.hand.predict.predictor import intrinsics_of

BOX = (60.0, 40.0, 90.0, 80.0)
CONFIG = HandConfig(lost=0, score=0)


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture
def image():
    return (torch.rand(160, 200, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()


class Knows:
    """In place of a network: the true hand as the camera of each crop sees it, from the crop that `watched` remembers."""

    def __init__(self, vertices, K, side="right"):
        self.vertices, self.K, self.hand = vertices, K, HandTemplate.load(side)

    def outputs(self, crop, logit=4.0):
        vertices = crop.to_crop_camera(self.vertices.expand(len(crop.Ks), -1, -1))
        joints = self.hand.joint_matrix @ vertices
        pixels = joints @ crop.Ks.mT
        uv = pixels[..., :2] / pixels[..., 2:] / crop.size
        root, ones = joints[:, 9, None], torch.ones(len(vertices))
        return uv, vertices - root, joints - root, logit * torch.ones(len(vertices), 21), ones, logit * ones


def seen_by(predictor, truth, monkeypatch, logit=4.0):
    """The predictor with the truth in place of its network."""
    crops = []
    own = predictor._crop
    monkeypatch.setattr(predictor, "_crop", lambda *arguments: crops.append(own(*arguments)) or crops[-1])
    predictor._network = lambda images: (
        truth().outputs(crops[-1], logit) if callable(truth) else truth.outputs(crops[-1], logit)
    )
    return predictor


def posed(side="right", at=(0.03, -0.02, 0.5), seed=1):
    generator, hand = torch.Generator().manual_seed(seed), HandTemplate.load(side)
    rotation = haar_rotmats(3, 1, generator=generator)[0].float()
    return hand.pose(hand.random_angles(1, generator)[0], rotation=rotation, translation=torch.tensor(at)).vertices


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_hand_is_where_it_is(model, image, monkeypatch, side):
    vertices, K = posed(side), intrinsics_of(CONFIG, 200, 160)
    predictor = seen_by(HandPredictor(model, CONFIG), Knows(vertices, K, side), monkeypatch)
    hands = predictor(image, boxes_of([BOX], [side]), K)
    assert len(hands) == 1 and hands[0].side == side
    assert (hands[0].vertices - vertices).abs().max() < 1e-3  # 1 mm of 0.5 m
    joints = HandTemplate.load(side).joints(vertices)
    assert (hands[0].joints_3d - joints).abs().max() < 1e-3
    pixels = (joints @ K.T)[:, :2] / joints[:, 2:]
    assert (hands[0].joints_2d - pixels).abs().max() < 0.01
    mesh = hands[0].mesh()
    corners = mesh.vertices[mesh.faces]
    volume = (torch.linalg.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum() / 6
    middle = mesh.vertices.mean(0)  # the wrist is open: the volume about the middle
    volume = (torch.linalg.cross(corners[:, 0] - middle, corners[:, 1] - middle) * (corners[:, 2] - middle)).sum() / 6
    assert volume > 0  # faces look outward, also of left hands


def test_a_left_hand_is_a_mirrored_right_one(model, image):
    predictor = HandPredictor(model, CONFIG)
    K = torch.tensor([[180.0, 0, 100], [0, 180, 80], [0, 0, 1]])  # symmetric
    right = predictor(image, boxes_of([BOX], ["right"]), K)[0]
    mirrored = (200 - BOX[0] - BOX[2], *BOX[1:])
    left = predictor(image.flip(1), boxes_of([mirrored], ["left"]), K)[0]
    assert (left.side, right.side) == ("left", "right")
    flip = torch.tensor([-1.0, 1, 1])
    assert (left.vertices - right.vertices * flip).abs().max() < 1e-4
    assert (left.joints_2d - (right.joints_2d * flip[:2] + torch.tensor([200.0, 0]))).abs().max() < 0.05


def test_the_side_of_a_box_is_the_networks_if_unknown(model, image, monkeypatch):
    predictor = HandPredictor(model, CONFIG)
    plain, flipped = (
        predictor.measure(image, boxes_of([BOX], [side]), intrinsics_of(CONFIG, 200, 160)).right for side in ("right", "left")
    )
    want = "right" if float(plain) >= float(flipped) else "left"
    assert predictor(image, boxes_of([BOX]))[0].side == want
    for side in ("right", "left"):
        assert HandPredictor(model, replace(CONFIG, side=side))(image, boxes_of([BOX]))[0].side == side


@pytest.mark.parametrize("video", [False, True])
def test_the_network_decides_where_the_finder_is_unsure_of_the_side(model, image, video):
    config = replace(CONFIG, score=0.0, lost=0.0)

    def found(right, share):
        predictor = HandPredictor(model, config, Finds((60.0, 60.0, 50.0), right=right, share=share))
        return (HandTracker(predictor)(image, 0.0) if video else predictor(image))[0].side

    box = boxes_of([(35, 35, 50, 50)])
    (network,) = HandPredictor(model, CONFIG).sided(image, box, intrinsics_of(CONFIG, 200, 160)).is_right.tolist()
    own, other = ("right", "left") if network else ("left", "right")
    for share in (0.35, 0.5, 0.65):
        assert found(not network, share) == own
    assert found(not network, 0.1 if network else 0.9) == other  # the finder is sure
    assert found(not network, None) == other


class Turns:
    """Sees every hand turned by so much."""

    def __init__(self, angle):
        self.angle, self.asked = angle, []

    def turns(self, image, found):
        self.asked.append(len(found))
        return torch.full((len(found),), self.angle)


@pytest.mark.parametrize("upright", [False, True])
def test_boxes_are_turned_as_the_finder_sees_the_hand(model, image, upright):
    model = replace(model, config=replace(model.config, upright=upright))
    turner, config = Turns(0.7), replace(CONFIG, passes=1)
    (hand,) = HandPredictor(model, config, turner=turner)(image, boxes_of([BOX], ["right"]))
    assert hand.crop[3] == pytest.approx(0.7 if upright else 0)
    assert turner.asked == ([1] if upright else [])
    (same,) = HandPredictor(model, config)(image, boxes_of([BOX], ["right"]))  # nobody sees it
    assert same.crop[3] == 0
    known = replace(boxes_of([BOX], ["right"]), angles=torch.tensor([0.2]), turned=True)
    (hand,) = HandPredictor(model, config, turner=turner)(image, known)
    assert hand.crop[3] == pytest.approx(0.2)


def test_boxes_and_images_are_checked(model, image):
    predictor = HandPredictor(model, CONFIG)
    with pytest.raises(InputError, match=r"box: got a square of 50 px around \(525, 125\), which is outside the image"):
        predictor(image, boxes_of([(500, 100, 50, 50)]))
    with pytest.raises(ShapeError, match="uint8"):
        predictor(image.float(), boxes_of([BOX]))
    with pytest.raises(ShapeError):
        predictor(image[..., 0], boxes_of([BOX]))
    with pytest.raises(InputError, match="finder: there is none; want boxes"):
        predictor(image)
    with pytest.raises(InputError, match="singular"):
        predictor(image, boxes_of([BOX]), torch.zeros(3, 3))


def test_no_hand_and_one_pixel(model, image):
    assert HandPredictor(model, CONFIG, Finds())(image) == []
    hands = HandPredictor(model, CONFIG)(image[:1, :1], boxes_of([(0, 0, 1, 1)], ["right"]))
    assert hands[0].checked().joints_3d.shape == (21, 3)


def test_found_hands_are_kept_by_score_and_once(model, image):
    finder = Finds((60, 60, 50), (61, 60, 50), (150, 100, 40))
    found = HandPredictor(model, replace(CONFIG, passes=1), finder)(image)
    assert [hand.score for hand in found] == sorted((hand.score for hand in found), reverse=True)
    assert HandPredictor(model, replace(CONFIG, score=0.85), finder)(image) == []  # the network's score is lower
    assert len(HandPredictor(model, replace(CONFIG, max_hands=1), finder)(image)) == 1


def test_the_score_of_a_found_hand_is_of_finder_network_and_their_boxes(model, image, monkeypatch):
    truth = Knows(posed(), intrinsics_of(CONFIG, 200, 160))
    predictor = seen_by(HandPredictor(model, CONFIG, Finds((120.0, 60.0, 90.0))), truth, monkeypatch)
    x, y, width, height = predictor(image)[0].box
    side, certain = max(width, height), float(torch.sigmoid(torch.tensor(4.0)))
    for shift, overlap in ((0.0, 1.0), (0.25, 0.6)):
        predictor.config = CONFIG
        predictor.finder = Finds((x + width / 2 + shift * side, y + height / 2, side))  # with a score of 0.9
        wanted = (0.9 * certain * overlap) ** 0.5
        (found,) = predictor(image)
        assert found.score == pytest.approx(wanted, abs=2e-3)
        (first,) = HandTracker(predictor)(image, 0.0)
        assert first.score == pytest.approx(wanted, abs=2e-3)
        predictor.config = replace(CONFIG, score=wanted + 0.01)
        assert predictor(image) == []
        predictor.config = replace(CONFIG, score=wanted - 0.01)
        assert len(predictor(image)) == 1


@pytest.mark.slow
def test_the_bundled_networks_find_hands_in_photographs_and_none_without(shared_data):
    predictor = HandPredictor(load_hand_model("hand"), HandConfig(), load_finder())
    photos = sorted((shared_data / "hands").glob("*.jpg"))
    assert len(photos) == 8
    assert sum(bool(predictor(pixels_of(path))) for path in photos) >= 4
    without = sorted((shared_data / "fox" / "images").glob("*"))[::4]
    assert len(without) > 10
    assert sum(len(predictor(pixels_of(path))) for path in without) <= 0.2 * len(without)


def pixels_of(path):
    return (read_image(path)[..., :3] * 255).round().byte()


def test_a_hand_is_followed_without_the_finder(model, image, monkeypatch):
    shift = torch.tensor([0.004, 0.0, 0.0])
    truths = [Knows(posed() + number * shift, intrinsics_of(CONFIG, 200, 160)) for number in range(10)]
    frame = {"number": 0}
    config = replace(CONFIG, smooth=False, find_every=100)
    finder = Finds((120.0, 60.0, 90.0))
    predictor = seen_by(HandPredictor(model, config, finder), lambda: truths[frame["number"]], monkeypatch)
    tracker = HandTracker(predictor)
    for number, truth in enumerate(truths):
        frame["number"] = number
        hands = tracker(image, number / 30)
        assert [hand.track for hand in hands] == [0]
        assert (hands[0].vertices - truth.vertices).abs().max() < 1e-3
    assert finder.calls == 1


def test_the_finder_looks_again_when_a_hand_is_lost_and_every_n_frames(model, image, monkeypatch):
    truth = Knows(posed(), intrinsics_of(CONFIG, 200, 160))
    x, y, width, height = seen_by(HandPredictor(model, CONFIG, Finds((120.0, 60.0, 90.0))), truth, monkeypatch)(image)[0].box
    finder = Finds((x + width / 2, y + height / 2, max(width, height)))
    config = replace(CONFIG, lost=0.5, score=0.5, find_every=4)
    predictor = seen_by(HandPredictor(model, config, finder), truth, monkeypatch)
    tracker = HandTracker(predictor)
    calls = []
    for number in range(9):
        tracker(image, number / 30)
        calls.append(finder.calls)
    assert calls == [1, 1, 1, 1, 2, 2, 2, 2, 3]
    seen_by(predictor, truth, monkeypatch, logit=-4.0)
    assert tracker(image, 10 / 30) == [] and finder.calls == 4  # lost, and looked for at once
    assert tracker(image, 11 / 30) == [] and finder.calls == 5
    seen_by(predictor, truth, monkeypatch)
    assert [hand.track for hand in tracker(image, 12 / 30)] == [1]  # another one, as far as anybody knows


def test_smoothing_reduces_jitter(model, image, monkeypatch):
    generator, truth = torch.Generator().manual_seed(0), Knows(posed(), intrinsics_of(CONFIG, 200, 160))

    def shaken():
        return Knows(truth.vertices + 0.002 * torch.randn(3, generator=generator), truth.K)

    spreads = []
    for smooth in (False, True):
        predictor = seen_by(HandPredictor(model, replace(CONFIG, smooth=smooth, side="right")), shaken, monkeypatch)
        tracker, seen = HandTracker(predictor), []
        for number in range(40):
            given = boxes_of([BOX], ["right"]) if number == 0 else None
            seen.append(tracker(image, number / 30, given)[0])
        spreads.append([torch.stack([getattr(h, n) for h in seen[10:]]).std(0).mean() for n in ("joints_3d", "joints_2d")])
    assert spreads[1][0] < 0.7 * spreads[0][0] and spreads[1][1] < 0.7 * spreads[0][1]


def test_a_graph_gives_the_networks_results(model, image):
    network = Outputs(model.network.for_inference()).eval()
    graph = Frozen(network)
    with torch.inference_mode():
        for count in (1, 2, 3):
            images = torch.rand(count, 3, 64, 64)
            graph(torch.rand_like(images))
            for got, want in zip(graph(images), network(images), strict=True):
                assert (got - want).abs().max() < 1e-5
    assert all(made is not None for made in graph.graphs.values()) and len(graph.graphs) == 2
    eager, frozen = (HandPredictor(model, CONFIG, for_video=is_video) for is_video in (False, True))
    for boxes in ([BOX], [BOX, (20, 20, 60, 60)], [BOX], [BOX] * 3):
        given = boxes_of(boxes, ["right"] * len(boxes))
        for got, want in zip(frozen(image, given), eager(image, given), strict=True):
            assert (got.vertices - want.vertices).abs().max() < 1e-4 and (got.joints_2d - want.joints_2d).abs().max() < 1e-2
    assert all(made is not None for part in (frozen._network, frozen._locate) for made in part.graphs.values())


def test_what_cannot_be_a_graph_is_called_as_it_is():
    def refuses(x):
        if torch.jit.is_tracing():
            raise RuntimeError
        return (2 * x,)

    def depends(x):
        return (2 * x if torch.jit.is_tracing() else 3 * x,)

    assert torch.equal(Frozen(refuses)(torch.ones(1, 2))[0], torch.full((1, 2), 2.0))
    assert torch.equal(Frozen(depends)(torch.ones(1, 2))[0], torch.full((1, 2), 3.0))


@pytest.mark.parametrize("side", ["right", "left"])
def test_poses_and_shape_are_recovered(side):
    hand, generator = HandTemplate.load(side), torch.Generator().manual_seed(3)
    angles = hand.random_angles(6, generator)
    rotation = haar_rotmats(3, 6, generator=generator).float()
    translation = torch.randn(6, 3, generator=generator)
    shapes = HandShape.random(1, generator)
    shape = HandShape(shapes.lengths[0], shapes.thicknesses[0], shapes.scale[0])
    vertices = hand.pose(angles, rotation=rotation, translation=translation, shape=shape).vertices
    found = fit_poses(vertices, hand)
    assert found.error_mm.max() < 0.5
    assert (found.angles - angles).abs().max() < 0.05
    again = hand.pose(found.angles, rotation=found.rotation, translation=found.translation, shape=found.shape).vertices
    assert (1000 * torch.linalg.vector_norm(again - vertices, dim=-1)).max() < 3
    noisy = vertices + 0.003 * torch.randn(vertices.shape, generator=generator)
    assert (fit_poses(noisy, hand).angles - angles).abs().mean() < 0.06


def test_fitting_refuses_other_meshes():
    hand = HandTemplate.load()
    with pytest.raises(ShapeError):
        fit_poses(torch.zeros(2, 777, 3), hand)
    with pytest.raises(InputError, match="not finite"):
        fit_poses(torch.full((1, 778, 3), torch.nan), hand)


@pytest.fixture(scope="module")
def result(model):
    picture = torch.full((160, 200, 3), 90, dtype=torch.uint8)
    return HandPredictor(model, CONFIG)(picture, boxes_of([BOX], ["left"]))[0]


def moved(result, side="right", count=4):
    """The same hand in several poses, as results."""
    frames = []
    for number in range(count):
        vertices = posed(side, at=(0.01 * number, 0.0, 0.4), seed=2)
        frames.append(replace(result, side=side, vertices=vertices, track=0))
    return frames


def test_a_result_has_a_skin_with_a_clip(result):
    for side in ("right", "left"):
        hands = moved(result, side)
        skin = skinned_mesh(hands[0].template, [hand.vertices for hand in hands], [0.0, 0.1, 0.2, 0.3])
        for number, hand in enumerate(hands):
            mesh = skin.at(0.1 * number)
            source = hand.template.mesh().split_seams_with_rows()[1]
            distances = torch.linalg.vector_norm(mesh.vertices - hand.vertices[source], dim=1)
            assert 1000 * distances.max() < 3
        one = hands[0].to_skinned_mesh()
        assert len(one.names) == 16 and len(one.clips) == 1


def test_hidden_frames_are_too_small_to_see(result):
    hands = moved(result)
    skin = skinned_mesh(
        hands[0].template, [hands[0].vertices, None, hands[2].vertices, hands[3].vertices], [0.0, 0.1, 0.2, 0.3]
    )
    assert (skin.at(0.1).vertices.amax(0) - skin.at(0.1).vertices.amin(0)).max() < 1e-3
    assert (skin.at(0.2).vertices.amax(0) - skin.at(0.2).vertices.amin(0)).max() > 0.1


def test_an_animation_reads_back(tmp_path, result):
    right, left = moved(result), [replace(hand, track=1) for hand in moved(result, "left")]
    count = write_animation(tmp_path / "hands.glb", list(zip(right, left)), [0.0, 0.1, 0.2, 0.3])
    assert count == 2
    skin = SkinnedMesh.load(tmp_path / "hands.glb")
    assert len(skin.clips) == 1 and abs(skin.clips[0].end - 0.3) < 1e-6
    at = skin.at(0.2)
    flip = torch.tensor([1.0, -1, -1])  # glTF has y up
    want = torch.cat([right[2].vertices, left[2].vertices]) * flip
    assert (at.vertices.amin(0) - want.amin(0)).abs().max() < 3e-3


def test_meshes_of_hands_that_are_not_finite_are_not_written(tmp_path, result):
    broken = result.joints_3d.clone()
    broken[9] = torch.nan
    with pytest.raises(InputError, match="joints_3d of middle_mcp is not finite"):
        write_meshes(tmp_path, "hand", [replace(result, joints_3d=broken)])
    vertices = result.vertices.clone()
    vertices[5, 0] = torch.inf
    with pytest.raises(InputError, match="vertices of row 5"):
        replace(result, vertices=vertices).to_skinned_mesh()
    assert not list(tmp_path.iterdir())


def test_an_overlay_draws_the_hand_where_it_is(result):
    picture = torch.full((160, 200, 3), 90, dtype=torch.uint8)
    hand = replace(result, side="right", vertices=posed(at=(0.0, 0.0, 0.5)))
    joints = hand.template.joints(hand.vertices)
    pixels = (joints @ hand.K.T)[:, :2] / joints[:, 2:]
    drawn = overlay(picture, [replace(hand, joints_2d=pixels)])
    changed = (drawn != picture).any(-1).nonzero()
    low, high = changed.amin(0).flip(0), changed.amax(0).flip(0)
    assert (low - pixels.amin(0)).abs().max() < 20 and (high - pixels.amax(0)).abs().max() < 20
    assert torch.equal(overlay(picture, []), picture)


@pytest.mark.parametrize("share", [None, 0.0, 1.0])
def test_the_network_decides_all_sides_if_the_finder_does_not_know_them(model, image, share):
    """Even where the finder is sure."""
    finder = Finds((60.0, 40, 90), (80, 40, 60), share=share)
    predictor, K = HandPredictor(model, CONFIG, finder), intrinsics_of(CONFIG, 200, 160)
    assert predictor.sided(image, predictor.find(image), K).is_right.tolist() == [True, True]
    finder.knows_sides = False
    boxes = boxes_of([(15, -5, 90, 90), (50, 10, 60, 60)])
    expected = predictor.sided(image, boxes, K).is_right
    assert torch.equal(predictor.sided(image, predictor.find(image), K).is_right, expected)
    mirrored = replace(boxes, centers=torch.tensor([[140.0, 40], [120, 40]]))
    assert torch.equal(predictor.sided(image.flip(1), mirrored, K).is_right, ~expected)


def test_the_network_is_asked_for_the_sides_of_new_hands_only(model, image, monkeypatch):
    config = replace(CONFIG, find_every=1, max_hands=2)
    truth = Knows(posed(), intrinsics_of(CONFIG, 200, 160))
    pixels = HandTemplate.load().joints(truth.vertices) @ truth.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.amin(0), pixels.amax(0)
    finder = Finds((*((low + high) / 2).tolist(), float((high - low).max())))
    finder.knows_sides = False
    predictor = seen_by(HandPredictor(model, config, finder), truth, monkeypatch)
    measure, counts = predictor.measure, []
    monkeypatch.setattr(predictor, "measure", lambda image, found, K: counts.append(len(found)) or measure(image, found, K))
    tracker = HandTracker(predictor)
    tracker(image, 0.0)
    assert counts == [1, 1, 1, 1] and finder.calls == 1  # as right, as left, two passes
    tracker(image, 0.1)
    assert counts == [1, 1, 1, 1, 1] and finder.calls == 2
