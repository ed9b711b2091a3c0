"""The bundled hand: a topological disc of 778 vertices, its rig, poses within anatomical limits, and the other hand."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from tests.support.hand_rigs import other_rig, track
from tests.support.intersections import self_intersections
from tests.support.outside import npm_package
from vision3d import SkinnedMesh
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.geometry.choices import SkinningMethod
from vision3d.geometry.mesh import (
    boundary_edges,
    connected_faces,
    face_areas,
    face_normals,
    is_closed,
    is_manifold,
    unique_edges,
    volume,
)
from vision3d.geometry.rotation import so3_exp
from vision3d.io.gltf_scene import write_scene
from vision3d.scene import Scene
from vision3d.stages.animate import RigConfig, play_skin
from vision3d.stages.hand import GESTURES, HandShape, HandTemplate, gesture, skin_color
from vision3d.stages.hand.joints import NAMES
from vision3d.stages.hand.template import load_template

FOLDER = Path(str(files("vision3d") / "assets" / "hand"))
PALM = torch.tensor([0.0, 0.045, 0.012], dtype=torch.float64)


@pytest.fixture(scope="module")
def hand() -> HandTemplate:
    return HandTemplate.load(dtype=torch.float64)


def poses(hand: HandTemplate, count: int, seed: int = 0) -> torch.Tensor:
    return hand.random_angles(count, torch.Generator().manual_seed(seed))


def closed(hand: HandTemplate) -> torch.Tensor:
    """Faces, with a fan over the border."""
    edges = {(int(a), int(b)) for face in hand.faces for a, b in zip(face, face.roll(-1))}
    fan = [[b, a, len(hand.vertices)] for a, b in edges if (b, a) not in edges]
    return torch.cat([hand.faces, torch.tensor(fan)])


def test_files_are_small():
    assert sum((FOLDER / name).stat().st_size for name in ("hand.glb", "hand.safetensors")) < 1 << 20


def test_it_is_a_disc_with_16_edges_around_the_wrist(hand: HandTemplate):
    assert hand.vertices.shape == (778, 3) and hand.faces.shape == (1538, 3)
    assert len(hand.faces.unique()) == 778
    assert is_manifold(hand.faces) and connected_faces(hand.faces)[0] == 1
    edges, _ = unique_edges(hand.faces)
    assert 778 - len(edges) + 1538 == 1  # Euler characteristic of a disc
    border = boundary_edges(hand.faces)
    assert len(border) == 16
    around = torch.stack([hand.ring, hand.ring.roll(-1)], 1).sort(1).values
    assert {tuple(pair) for pair in border.tolist()} == {tuple(pair) for pair in around.tolist()}
    heights = hand.vertices[hand.ring, 1]
    torch.testing.assert_close(heights, heights[:1].expand(16), rtol=0, atol=1e-8)
    assert heights[0] == hand.vertices[:, 1].min()


def test_faces_point_outwards_and_are_well_shaped(hand: HandTemplate):
    faces = closed(hand)
    vertices = torch.cat([hand.vertices, hand.vertices[hand.ring].mean(0, keepdim=True)])
    assert is_closed(faces)
    assert 2.2e-4 < volume(vertices, faces) < 4.5e-4  # a hand has 0.3 to 0.4 liters
    corners = hand.vertices[hand.faces]
    to_next, to_last = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    angles = torch.nn.functional.cosine_similarity(to_next, to_last, dim=-1).acos().rad2deg()
    assert angles.min() > 25
    center = corners.mean(1)
    assert (face_normals(hand.vertices, hand.faces)[:, 2] * (center[:, 2] - 0.002) > 0).double().mean() > 0.75
    # Small faces at the joints and tips of fingers, large ones on the palm and the back.
    areas = face_areas(hand.vertices, hand.faces)
    is_palm = (center[:, 1] > 0.02) & (center[:, 1] < 0.06) & (center[:, 0] < 0.02)
    is_finger = (center - hand.keypoints[5:, None]).norm(dim=-1).amin(0) < 0.012
    assert areas[is_palm].mean() > 2.5 * areas[is_finger].mean()


def test_no_self_intersection_at_rest_and_in_open_poses(hand: HandTemplate):
    for name in ("rest", "relaxed"):
        assert not len(self_intersections(hand.pose(gesture(name).double()).vertices, hand.faces)), name
    crossed = hand.pose(gesture("rest").double().index_fill(0, torch.tensor([5]), -0.5))  # index finger through the middle one
    assert len(self_intersections(crossed.vertices, hand.faces))


def test_size_is_that_of_an_adult(hand: HandTemplate):
    assert hand.keypoints[12, 1] == pytest.approx(0.185, abs=0.008)  # wrist joint to the tip of the middle finger
    assert (hand.keypoints[9] - hand.keypoints[0]).norm() == pytest.approx(0.092, abs=0.005)
    breadth = hand.vertices[((hand.vertices[:, 1] - 0.085).abs() < 0.01) & (hand.vertices[:, 0] < 0.045), 0]
    assert 0.075 < breadth.max() - breadth.min() < 0.095


def test_weights(hand: HandTemplate):
    assert (hand.weights >= 0).all() and int((hand.weights > 0).sum(1).max()) <= 4
    torch.testing.assert_close(hand.weights.sum(1), torch.ones(778, dtype=torch.float64), rtol=0, atol=1e-12)
    assert set(hand.weights.argmax(1).tolist()) == set(range(16))
    assert (hand.weights[hand.ring, 0] == 1).all()
    jumps = (hand.weights[hand.faces] - hand.weights[hand.faces].roll(1, 1)).abs().amax(-1)
    assert jumps.max() < 0.8  # smooth
    # No finger moves another one.
    for finger in range(5):
        own = hand.weights[:, 1 + 3 * finger : 4 + 3 * finger].sum(1)
        others = hand.weights[:, 1:].sum(1) - own
        assert others[own > 0.9].max() < 0.1


def test_joint_matrix_finds_the_joints_in_any_pose(hand: HandTemplate):
    matrix = hand.joint_matrix
    assert matrix.shape == (21, 778) and len(NAMES) == 21
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(1), torch.ones(21, dtype=torch.float64), rtol=0, atol=1e-12)
    for tip, vertex in zip((4, 8, 12, 16, 20), hand.tips):
        assert matrix[tip, vertex] == 1
    for joint, place in enumerate(hand.keypoints):
        used = hand.vertices[matrix[joint] > 0]
        assert (used - place).norm(dim=-1).max() < (0.045 if joint == 0 else 0.027)
    assert matrix.square().sum(1)[[i for i in range(21) if i % 4 or i == 0]].max() < 0.15  # averages out noise of vertices
    posed = hand.pose(poses(hand, 1000))
    errors = (hand.joints(posed.vertices) - posed.skeleton).norm(dim=-1)
    assert errors.mean() < 0.0005 and errors.max() < 0.004


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("method", ["lbs", "dqs"])
def test_identity_pose_is_the_rest_pose(dtype, atol, method):
    hand = HandTemplate.load(dtype=dtype)
    one = HandShape(torch.ones(5), torch.ones(5), torch.ones(()))
    for shape in (None, one):
        posed = hand.pose(torch.zeros(20, dtype=dtype), method=method, shape=shape)
        torch.testing.assert_close(posed.vertices, hand.vertices, rtol=0, atol=atol)
        torch.testing.assert_close(posed.skeleton, hand.keypoints, rtol=0, atol=max(atol, 1e-8))
        torch.testing.assert_close(posed.forearm, hand.forearm, rtol=0, atol=atol)


@pytest.mark.parametrize("method", ["lbs", "dqs"])
def test_motion_of_the_wrist_is_rigid(hand: HandTemplate, method):
    angles = poses(hand, 4)
    rotation = so3_exp(torch.randn(4, 3, dtype=torch.float64))
    shift = torch.randn(4, 3, dtype=torch.float64)
    still, moved = hand.pose(angles, method=method), hand.pose(angles, rotation=rotation, translation=shift, method=method)
    for name in ("vertices", "skeleton", "forearm"):
        expected = getattr(still, name) @ rotation.mT + shift[:, None]
        torch.testing.assert_close(getattr(moved, name), expected, rtol=0, atol=1e-12)
    local = hand.rotations(angles)
    local[:, 0] = rotation
    torch.testing.assert_close(hand.pose(rotmats=local, translation=shift, method=method).vertices, moved.vertices)


def test_bones_keep_their_lengths(hand: HandTemplate):
    def lengths(skeleton: torch.Tensor) -> torch.Tensor:
        parents = [0 if i % 4 == 1 else i - 1 for i in range(1, 21)]
        return (skeleton[..., 1:, :] - skeleton[..., parents, :]).norm(dim=-1)

    rest = lengths(hand.keypoints)
    torch.testing.assert_close(lengths(hand.pose(poses(hand, 50)).skeleton), rest.expand(50, 20), rtol=0, atol=1e-8)


def test_linear_and_dual_quaternion_skinning_agree_where_one_joint_moves_a_vertex(hand: HandTemplate):
    angles = poses(hand, 10)
    linear, dual = (hand.pose(angles, method=method).vertices for method in ("lbs", "dqs"))
    is_single = hand.weights.amax(1) == 1
    assert is_single.sum() > 100
    torch.testing.assert_close(linear[:, is_single], dual[:, is_single], rtol=0, atol=1e-12)
    assert (linear - dual).norm(dim=-1).max() > 1e-4  # not elsewhere


def test_mirrored_twice_is_the_same_hand(hand: HandTemplate):
    left = hand.mirrored()
    assert left.side == "left" and HandTemplate.load("left", dtype=torch.float64).vertices.equal(left.vertices)
    again = left.mirrored()
    for name in ("vertices", "faces", "uvs", "axes", "places", "keypoints", "forearm", "forearm_faces"):
        assert getattr(again, name).equal(getattr(hand, name))
    faces = closed(left)
    vertices = torch.cat([left.vertices, left.vertices[left.ring].mean(0, keepdim=True)])
    assert volume(vertices, faces) > 0
    angles = poses(hand, 5)
    torch.testing.assert_close(left.pose(angles).vertices, hand.pose(angles).vertices * torch.tensor([-1.0, 1, 1]))


def test_flexion_closes_the_hand(hand: HandTemplate):
    names = hand.angle_names
    assert len(names) == 20 and names[:5] == (
        "thumb_1_flexion", "thumb_1_abduction", "thumb_2_flexion", "thumb_3_flexion", "index_1_flexion",
    )  # fmt: skip
    rest = hand.pose(torch.zeros(20, dtype=torch.float64)).skeleton
    for number, name in enumerate(names):
        angles = torch.zeros(20, dtype=torch.float64)
        angles[number] = 0.4
        moved = hand.pose(angles).skeleton
        tip = NAMES.index(name.split("_")[0] + "_tip")
        if name.endswith("flexion"):
            assert (moved[tip] - PALM).norm() < (rest[tip] - PALM).norm() - 0.001, name
            if not name.startswith("thumb"):
                assert moved[tip, 2] > rest[tip, 2] + 0.005, name
        elif name.startswith("thumb"):
            assert moved[tip, 2] > rest[tip, 2] + 0.01  # out of the plane of the palm
        else:
            assert moved[tip, 0] > rest[tip, 0] + 0.01  # towards the thumb
    fist = hand.pose(gesture("fist").double()).skeleton
    assert (fist[[8, 12, 16, 20]] - PALM).norm(dim=-1).max() < 0.04
    assert fist[4, 2] > fist[[10, 11], 2].mean() + 0.01  # the thumb lies in front of the fingers
    pinch = hand.pose(gesture("pinch").double()).skeleton
    assert (pinch[4] - pinch[8]).norm() < 0.03
    assert all(abs(float(part)) == pytest.approx(1, abs=1e-6) for part in hand.axes.norm(dim=-1).flatten())


def test_limits_hold(hand: HandTemplate):
    low, high = hand.angle_limits.T
    angles = poses(hand, 2000)
    assert angles.dtype == torch.float64 and angles.shape == (2000, 20)
    assert (angles >= low - 1e-12).all() and (angles <= high + 1e-12).all()
    assert (angles.std(0) > 0.1 * (high - low)).all()  # they are used
    names = hand.angle_names
    limits = dict(zip(names, hand.angle_limits.tolist()))
    assert limits["ring_1_flexion"] == pytest.approx([-0.25, 1.5])
    assert limits["ring_1_abduction"] == pytest.approx([-0.25, 0.25])
    assert limits["little_2_flexion"] == pytest.approx([0, 1.7]) and limits["index_3_flexion"] == pytest.approx([0, 1.2])
    assert limits["thumb_2_flexion"] == pytest.approx([-0.2, 0.7]) and limits["thumb_3_flexion"] == pytest.approx([0, 1.1])
    flexion, spread = angles[:, names.index("index_1_flexion")], angles[:, names.index("index_1_abduction")].abs()
    assert spread[flexion > 1.2].mean() < 0.6 * spread[flexion < 0.3].mean()
    curls = angles[:, [names.index(f"{finger}_2_flexion") for finger in ("index", "middle", "ring", "little")]]
    assert torch.corrcoef(curls.T)[0, 1:].min() > 0.5  # fingers close together
    for name in GESTURES:
        assert ((gesture(name) >= low - 0.02) & (gesture(name) <= high + 0.02)).all(), name
    assert poses(hand, 3, seed=5).equal(poses(hand, 3, seed=5))


def test_shapes_change_fingers_and_nothing_else(hand: HandTemplate):
    lengths, thicknesses = torch.ones(5), torch.ones(5)
    lengths[2], thicknesses[4] = 1.2, 0.8
    shape = HandShape(lengths, thicknesses, torch.tensor(1.0))
    posed = hand.pose(torch.zeros(20, dtype=torch.float64), shape=shape)
    longer = (posed.skeleton[12] - posed.skeleton[9]) / 1.2
    torch.testing.assert_close(longer, hand.keypoints[12] - hand.keypoints[9], rtol=0, atol=1e-8)
    torch.testing.assert_close(posed.skeleton[13:], hand.keypoints[13:], rtol=0, atol=1e-8)
    still = hand.weights[:, [0, 1, 2, 3, 4, 5, 6, 10, 11, 12]].sum(1) == 1
    torch.testing.assert_close(posed.vertices[still], hand.vertices[still], rtol=0, atol=1e-12)
    is_little = hand.weights[:, 14] == 1
    axis, place = hand.axes[14, 2], hand.places[14]

    def radius(vertices: torch.Tensor) -> torch.Tensor:
        away = vertices[is_little] - place
        return (away - (away @ axis)[:, None] * axis).norm(dim=-1)

    torch.testing.assert_close(radius(posed.vertices), 0.8 * radius(hand.vertices), rtol=0, atol=1e-8)
    double = HandShape(torch.ones(5), torch.ones(5), torch.tensor(2.0))
    angles = poses(hand, 1)[0]
    for method in ("lbs", "dqs"):
        once, twice = (hand.pose(angles, shape=value, method=method) for value in (None, double))
        for name in ("vertices", "skeleton", "forearm"):
            torch.testing.assert_close(getattr(twice, name), 2 * getattr(once, name), rtol=0, atol=1e-12)
    batch = HandShape.random(6, torch.Generator().manual_seed(0))
    posed = hand.pose(poses(hand, 6), shape=batch)
    assert posed.vertices.shape == (6, 778, 3)
    assert (hand.joints(posed.vertices) - posed.skeleton).norm(dim=-1).max() < 0.005
    apart = hand.pose(poses(hand, 6)[3], shape=HandShape(batch.lengths[3], batch.thicknesses[3], batch.scale[3]))
    torch.testing.assert_close(apart.vertices, posed.vertices[3])


def test_gradients(hand: HandTemplate):
    some = torch.arange(0, 778, 97)
    angles = 0.3 + 0.1 * torch.rand(2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn, shift = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    factors = [torch.full((2, 5), 1.1, dtype=torch.float64), torch.full((2, 5), 0.9, dtype=torch.float64)]
    values = [value.requires_grad_() for value in (angles, turn, shift, *factors, torch.ones(2, dtype=torch.float64))]
    methods: tuple[SkinningMethod, ...] = ("lbs", "dqs")
    for method in methods:

        def placed(angles, turn, shift, lengths, thicknesses, scale, method: SkinningMethod = method):
            shape = HandShape(lengths, thicknesses, scale)
            posed = hand.pose(angles, rotation=so3_exp(turn), translation=shift, shape=shape, method=method)
            return posed.vertices[:, some], posed.skeleton

        assert torch.autograd.gradcheck(placed, values, fast_mode=True)


def test_glb_is_the_same_hand(hand: HandTemplate):
    skin = SkinnedMesh.load(FOLDER / "hand.glb").validate()
    assert skin.names == hand.names and skin.parents == hand.parents
    source = torch.cdist(skin.mesh.vertices.double(), hand.vertices).min(1)
    assert source.values.max() < 1e-6 and len(source.indices.unique()) == 778
    assert source.indices[skin.mesh.faces].equal(hand.faces)
    assert skin.mesh.corner_uvs is not None
    torch.testing.assert_close(skin.mesh.corner_uvs.double(), hand.uvs, rtol=0, atol=1e-6)
    dense = torch.zeros(len(skin.weights), 16).scatter_add_(1, skin.indices, skin.weights).double()
    torch.testing.assert_close(dense, hand.weights[source.indices], rtol=0, atol=1e-6)
    clip = skin.clip("Close")
    frames = skin.posed(clip, [clip.start, (clip.start + clip.end) / 2, clip.end])
    torch.testing.assert_close(frames[0], frames[2], rtol=0, atol=1e-6)
    expected = hand.pose(gesture("fist").double()).vertices[source.indices]
    torch.testing.assert_close(frames[1].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.viewer
def test_validator_finds_no_errors(tmp_path):
    """Of the bundled file, of a hand as `hand run` writes it, and of another rig that it moves."""
    script = npm_package("gltf-validator").parents[1] / "validate_gltf.mjs"
    paths = [FOLDER / "hand.glb", tmp_path / "track.glb", tmp_path / "moved.glb", tmp_path / "hands.glb"]
    motion = track()
    motion.save(paths[1])
    play_skin(RigConfig(), other_rig(), motion).skin.save(paths[2])
    write_scene(paths[3], Scene().add("first", motion).add("second", track("left")), scene_up="-y")
    done = subprocess.run(["node", script, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.count('"numErrors":0') == len(paths), done.stdout


def test_texture_charts_do_not_overlap(hand: HandTemplate):
    assert hand.uvs.min() >= 0 and hand.uvs.max() <= 1
    corners = hand.uvs
    doubled = (corners[:, 1, 0] - corners[:, 0, 0]) * (corners[:, 2, 1] - corners[:, 0, 1])
    doubled = doubled - (corners[:, 2, 0] - corners[:, 0, 0]) * (corners[:, 1, 1] - corners[:, 0, 1])
    assert (doubled != 0).all()  # charts may be mirrored
    size = 96
    grid = (torch.stack(torch.meshgrid(*[torch.arange(size)] * 2, indexing="xy"), -1).reshape(-1, 1, 2) + 0.5) / size
    inside = torch.ones(len(grid), len(corners), dtype=torch.bool)
    for k in range(3):
        start, along = corners[:, k], corners[:, (k + 1) % 3] - corners[:, k]
        to = grid - start
        inside &= (along[:, 0] * to[..., 1] - along[:, 1] * to[..., 0]) * doubled.sign() > 0
    counts = inside.sum(1)
    assert counts.max() == 1 and (counts == 1).double().mean() > 0.45  # a good part of the texture is used


def test_forearm_continues_the_wrist(hand: HandTemplate):
    mesh = hand.mesh(forearm=True)
    assert is_closed(mesh.faces) and is_manifold(mesh.faces)
    assert volume(mesh.vertices, mesh.faces) > 6e-4
    assert not len(self_intersections(mesh.vertices, mesh.faces))
    assert hand.mesh(hand.pose(gesture("fist").double())).num_faces == 1538
    with pytest.raises(ShapeError, match="one hand"):
        hand.mesh(hand.pose(poses(hand, 2)))


def test_skin_colors_darken_with_melanin_and_redden_with_hemoglobin():
    colors = skin_color(torch.linspace(0.05, 1, 8), 0.4)
    assert (colors.diff(dim=0) < 0).all() and (colors > 0).all() and (colors < 1).all()
    assert (colors[:, 0] > colors[:, 1]).all() and (colors[:, 1] > colors[:, 2]).all()
    pale, flushed = skin_color(0.1, torch.tensor([0.0, 1.0]))
    assert flushed[0] / flushed[1] > 1.1 * pale[0] / pale[1]


@pytest.mark.wrong_types
def test_errors(hand: HandTemplate, tmp_path):
    with pytest.raises(InputError, match="side: got 'both', want right or left"):
        HandTemplate.load("both")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match=r"angles: got shape \(2, 19\), want shape \(\.\.\., 20\)"):
        hand.pose(torch.zeros(2, 19))
    with pytest.raises(ShapeError, match=r"rotmats: got shape \(15, 3, 3\)"):
        hand.pose(rotmats=torch.eye(3).repeat(15, 1, 1))
    with pytest.raises(InputError, match="neither or both of angles and rotmats"):
        hand.pose()
    with pytest.raises(InputError, match="method: got 'hybrid', want lbs or dqs"):
        hand.pose(torch.zeros(20), method="hybrid")
    with pytest.raises(ShapeError, match=r"vertices: got shape \(777, 3\)"):
        hand.joints(torch.zeros(777, 3))
    with pytest.raises(ShapeError, match=r"HandShape\.lengths: got shape \(4,\), want shape \(5,\)"):
        HandShape(torch.ones(4), torch.ones(5), torch.ones(()))
    with pytest.raises(InputError, match="gesture: got 'fits'; did you mean fist"):
        gesture("fits")
    with pytest.raises(MissingFileError, match="want a hand template"):
        load_template(tmp_path / "no.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(FileFormatError, match="is damaged"):
        load_template(tmp_path / "bad.safetensors")


@pytest.mark.slow
def test_generator_reproduces_it(tmp_path, hand: HandTemplate):
    for name in ("xatlas", "scipy"):
        pytest.importorskip(name)
    script = FOLDER.resolve() / "generate.py"
    if not script.is_file():
        pytest.skip("an installed package has no generators")
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True, capture_output=True)
    again = load_template(tmp_path / "hand.safetensors", torch.float64)
    assert again.vertices.shape == hand.vertices.shape and again.faces.shape == hand.faces.shape
    assert (again.keypoints - hand.keypoints).abs().max() < 1e-6
    # Other versions of the libraries may produce another triangulation of the surface.
    assert torch.cdist(again.vertices, hand.vertices).amin(1).max() < 0.01
    assert len(SkinnedMesh.load(tmp_path / "hand.glb").names) == 16
