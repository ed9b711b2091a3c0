"""Losses of the hand network: closed forms, masks, and a network that learns by heart."""

import dataclasses
import itertools

import pytest
import torch

from tests.support.hands import BlockMeans, template
from vision3d.core.errors import ConfigError, InputError
from vision3d.stages.hand.config import LossConfig, NetworkConfig
from vision3d.stages.hand.joints import BONES
from vision3d.stages.hand.losses import HandLoss, HandTargets
from vision3d.stages.hand.network.hand_net import HandNet, HandOutputs

NONE = {entry.name: 0.0 for entry in dataclasses.fields(LossConfig) if entry.name != "confidence_scale"}
FACES = torch.tensor([[0, 1, 2], [1, 3, 2], [2, 3, 4]])
PUBLISHED = LossConfig(confidence=0, side=0, presence=0)


def only(name: str, **targets) -> float:
    """A loss by itself, with weight 1."""
    outputs, truth = batch()
    truth = dataclasses.replace(truth, **targets)
    total, parts = HandLoss(LossConfig(**{**NONE, name: 1.0}), FACES)(outputs, truth)
    assert parts.keys() == {name} and float(parts[name]) == float(total)
    return float(total)


def batch(dtype=torch.float32) -> tuple[HandOutputs, HandTargets]:
    generator = torch.Generator().manual_seed(4)

    def random(*shape):
        return torch.randn(3, *shape, generator=generator, dtype=dtype)

    outputs = HandOutputs(random(21, 2), random(5, 3), random(21, 3), random(21), random(), random())
    targets = HandTargets(random(21, 2), random(21) > -1, random(21, 3), random(5, 3), root=random(3) + 10)
    in_crop = targets.in_crop.clone()
    in_crop[1, [0, 9]] = False
    in_crop[[0, 2]] |= torch.arange(21) == 9
    Ks = torch.tensor([[1.5, 0, 0.5], [0, 1.5, 0.5], [0, 0, 1]], dtype=dtype).expand(3, 3, 3)
    return outputs, dataclasses.replace(targets, in_crop=in_crop, Ks=Ks)


def test_published_losses_as_loops():
    outputs, targets = batch()
    uv = joints = vertices = 0.0
    for sample in range(3):
        for joint in range(21):
            if targets.in_crop[sample, joint]:
                uv += float((outputs.uv - targets.uv)[sample, joint].abs().sum()) / 21 / 3
        if sample != 1:  # neither wrist nor root joint is in the crop
            joints += float((outputs.joints - targets.joints)[sample].abs().sum()) / 21 / 3
            vertices += float((outputs.vertices - targets.vertices)[sample].abs().sum()) / 5 / 3
    total, parts = HandLoss(PUBLISHED, FACES)(outputs, targets)
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(
        {"uv": uv, "joints": joints, "vertices": vertices}, rel=1e-5
    )
    assert float(total) == pytest.approx(uv + 10 * joints + 10 * vertices, rel=1e-5)


@pytest.mark.parametrize("name", ["uv", "joints", "vertices", "edge", "bone"])
def test_a_loss_is_zero_for_the_truth_and_has_a_gradient(name):
    outputs, targets = batch(torch.float64)
    outputs = dataclasses.replace(outputs, uv=targets.uv, joints=targets.joints, vertices=targets.vertices)
    loss = HandLoss(LossConfig(**{**NONE, name: 1.0}), FACES)
    assert float(loss(outputs, targets)[0]) == pytest.approx(0, abs=1e-12)
    source = {"uv": "uv", "joints": "joints", "bone": "joints"}.get(name, "vertices")
    value = (getattr(outputs, source) + 0.1).clone()
    value[0, 3] += 0.2
    value.requires_grad_()
    loss(dataclasses.replace(outputs, **{source: value}), targets)[0].backward()
    assert bool(value.grad.isfinite().all() & value.grad[0].any()) and not bool(value.grad[1].any() and name != "uv")


def test_edges_and_bones_do_not_notice_a_rotation_and_notice_the_size():
    outputs, targets = batch(torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    config = LossConfig(**{**NONE, "edge": 1.0, "bone": 1.0})
    moved = dataclasses.replace(outputs, vertices=targets.vertices @ rotation + 1, joints=targets.joints @ rotation - 2)
    assert float(HandLoss(config, FACES)(moved, targets)[0]) == pytest.approx(0, abs=1e-5)
    larger = dataclasses.replace(outputs, vertices=1.5 * targets.vertices, joints=1.5 * targets.joints)
    parts = HandLoss(config, FACES)(larger, targets)[1]
    ends = targets.joints[:, torch.tensor(BONES)]
    lengths = (ends[:, :, 0] - ends[:, :, 1]).norm(dim=-1)[[0, 2]]
    assert float(parts["bone"]) == pytest.approx(0.5 * float(lengths.sum()) / 20 / 3, rel=1e-5)
    edges = {tuple(sorted(pair)) for face in FACES.tolist() for pair in itertools.combinations(face, 2)}
    total = sum(float((targets.vertices[[0, 2], a] - targets.vertices[[0, 2], b]).norm(dim=1).sum()) for a, b in edges)
    assert float(parts["edge"]) == pytest.approx(0.5 * total / len(edges) / 3, rel=1e-5)


def test_normals_of_planes():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0]]).expand(3, 5, 3)
    outputs, targets = batch()
    targets = dataclasses.replace(targets, vertices=flat, in_crop=torch.ones(3, 21, dtype=torch.bool))
    loss = HandLoss(LossConfig(**{**NONE, "normal": 1.0}), FACES)
    moved = dataclasses.replace(outputs, vertices=3 * flat[..., [1, 0, 2]] + 1)  # stays in the plane
    assert float(loss(moved, targets)[0]) == pytest.approx(0, abs=1e-6)
    upright = dataclasses.replace(outputs, vertices=flat[..., [2, 1, 0]])  # edges (0, y, x)
    angles = [1, 0.5**0.5, 0, 0, 1, 0.5**0.5, 1, 0.5**0.5, 0]
    assert float(loss(upright, targets)[0]) == pytest.approx(sum(angles) / 9, abs=1e-6)


def test_reprojection():
    outputs, targets = batch()
    x, y, z = (outputs.joints + targets.root[:, None]).unbind(-1)
    error = (torch.stack([1.5 * x / z + 0.5, 1.5 * y / z + 0.5], -1) - targets.uv).abs().sum(-1)
    counts = targets.in_crop & torch.tensor([True, False, True])[:, None]
    assert only("reprojection") == pytest.approx(float((error * counts).sum() / 63), rel=1e-5)
    with pytest.raises(InputError, match="reprojection: got targets without root or Ks, want both, or the weight 0"):
        only("reprojection", Ks=None)


def test_confidence_learns_the_error():
    outputs, targets = batch()
    in_crop = torch.zeros(3, 21, dtype=torch.bool)
    in_crop[:, :2] = True
    uv = targets.uv.clone()
    uv[:, 1, 0] += 0.05
    targets = dataclasses.replace(targets, in_crop=in_crop)
    loss = HandLoss(LossConfig(**{**NONE, "confidence": 1.0}), FACES)
    logits = torch.zeros(3, 21, requires_grad=True)
    loss(dataclasses.replace(outputs, uv=uv, confidence=logits), targets)[0].backward()
    # The gradient of the cross-entropy is sigmoid - wanted.
    wanted = 0.5 - 63 * logits.grad
    torch.testing.assert_close(wanted[0, :3], torch.tensor([1, 0.3678794, 0]), rtol=1e-4, atol=1e-5)


def test_side_and_presence():
    right, hand = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    outputs, _ = batch()
    p, q = outputs.side.sigmoid().double(), outputs.presence.sigmoid().double()
    assert only("side", is_right=right, is_hand=hand) == pytest.approx(-float(p[0].log() + (1 - p[1]).log()) / 3, rel=1e-5)
    assert only("presence", is_hand=hand) == pytest.approx(-float(q[0].log() + q[1].log() + (1 - q[2]).log()) / 3, rel=1e-5)


def test_crops_without_a_hand_and_unknown_truth_do_not_count():
    outputs, targets = batch()
    outputs = dataclasses.replace(outputs, heat=torch.randn(3, 21, 8, 8, generator=torch.Generator().manual_seed(0)))
    for name in ("uv", "joints", "vertices", "root"):
        value = getattr(targets, name).clone()
        value[2] = torch.nan
        targets = dataclasses.replace(targets, **{name: value})
    targets = dataclasses.replace(targets, is_hand=torch.tensor([True, True, False]))
    leaves = {name: value.clone().requires_grad_() for name, value in vars(outputs).items()}
    config = LossConfig(**dict.fromkeys(NONE, 1.0))
    HandLoss(config, FACES)(HandOutputs(**leaves), targets)[0].backward()
    for name, value in leaves.items():
        assert bool(value.grad.isfinite().all()), name
        assert bool(value.grad[2].any()) == (name in ("presence", "confidence")), name
        assert bool(value.grad[0].any()), name


def test_half_precision_is_not_used():
    outputs, targets = batch()
    want = HandLoss(PUBLISHED, FACES)(outputs, targets)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = HandLoss(PUBLISHED, FACES)(outputs, targets)[0]
    assert got.dtype == torch.float32 and float(got) == float(want)


def test_missing_outputs_and_wrong_weights():
    outputs, targets = batch()
    for name in ("confidence", "side", "presence"):
        with pytest.raises(
            InputError, match=f"{name}: the network has no such output; want a network that has it, in training, or"
        ):
            HandLoss(LossConfig(), FACES)(dataclasses.replace(outputs, **{name: None}), targets)
    assert float(HandLoss(LossConfig(**NONE), FACES)(outputs, targets)[0]) == 0
    with pytest.raises(ConfigError, match="joints: got -1, want a number >= 0"):
        LossConfig(joints=-1)
    with pytest.raises(ConfigError, match="uv: got nan"):
        LossConfig(uv=float("nan"))
    with pytest.raises(ConfigError, match="confidence_scale: got 0, want a number > 0"):
        LossConfig(confidence_scale=0)


@pytest.mark.parametrize("head", ["direct", "canonical6d"])
def test_a_small_network_learns_four_crops(head):
    torch.manual_seed(0)
    matrix, vertices = template(40)
    config = NetworkConfig(dims=(32, 16, 16), tokens=(21, 30, 40), heads=4, head=head, reduce=32)
    network = HandNet(config, matrix, vertices, backbone=BlockMeans(64))
    images = torch.rand(4, 3, 2, 2).repeat_interleave(32, 2).repeat_interleave(32, 3)
    truth = vertices + 0.02 * torch.randn(4, 40, 3)
    joints = matrix @ truth
    truth, joints = truth - joints[:, 9, None], joints - joints[:, 9, None]
    targets = HandTargets(torch.rand(4, 21, 2), torch.ones(4, 21, dtype=torch.bool), joints, truth)
    loss, errors = HandLoss(PUBLISHED, torch.tensor([[0, 1, 2]])), []
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        total, parts = loss(network(images), targets)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        errors.append(float(parts["vertices"]))
    assert errors[-1] < 0.4 * errors[0]


def test_heat_is_least_where_the_joints_are():
    """The cross-entropy of the Gaussians themselves is their entropy; a map moved by two texels costs more."""
    net, targets = batch()
    size = 16
    at = (torch.arange(size) + 0.5) / size
    targets = dataclasses.replace(targets, uv=targets.uv.sigmoid())
    u, v = targets.uv[..., 0, None, None], targets.uv[..., 1, None, None]
    logits = -((at[:, None] - v) ** 2 + (at - u) ** 2) * size**2 / (2 * 0.8**2)
    loss = HandLoss(LossConfig(**{**NONE, "heat": 1.0}), FACES)
    best = loss.parts(dataclasses.replace(net, heat=logits), targets)["heat"]
    moved = loss.parts(dataclasses.replace(net, heat=logits.roll(2, 3)), targets)["heat"]
    assert 0 < float(best) < float(moved) - 0.3
    with pytest.raises(InputError, match="heat"):
        loss.parts(net, targets)
