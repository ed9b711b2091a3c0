import math
from dataclasses import replace

import pytest
import torch

from tests.support.creature import creature
from vision3d.core.errors import InputError
from vision3d.geometry import quaternion, shapes
from vision3d.optim.motion.joint_names import same_joints
from vision3d.optim.motion.retarget import retarget
from vision3d.scene import Channel, Clip, Mesh, Motion, Skeleton, SkinnedMesh


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def turn(axis, degrees):
    quat = torch.zeros(4)
    quat[0], quat[1 + axis] = math.cos(math.radians(degrees) / 2), math.sin(math.radians(degrees) / 2)
    return quat


def arm(clips=()):
    """Three joints in a row along x, 1 m apart, the middle one with rotated axes; a triangle at the end of the last bone."""
    translations = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, -1, 0]])
    quats = torch.stack([turn(2, 0), turn(2, 90), turn(2, -90)])
    binds = torch.eye(4).repeat(3, 1, 1)
    binds[1, :3, :3] = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    binds[1, :3, 3] = torch.tensor([0.0, 1, 0])
    binds[2, 0, 3] = -2
    mesh = Mesh(torch.tensor([[3.0, 0, 0], [3, 1, 0], [0, 0, 1]]), torch.tensor([[0, 1, 2]]))
    indices, weights = torch.tensor([[2, 0], [2, 0], [1, 0]]), torch.tensor([[1.0, 0], [1, 0], [0.5, 0.5]])
    names = ("shoulder", "elbow", "wrist")
    return SkinnedMesh(mesh, names, (-1, 0, 1), translations, quats, torch.ones(3, 3), binds, indices, weights, clips=clips)


def test_the_rest_pose_moves_nothing():
    skin = arm().validate()
    torch.testing.assert_close(skin.posed(None, [0.0])[0], skin.mesh.vertices)
    torch.testing.assert_close(skin.posed(None, [0.0], method="dqs")[0], skin.mesh.vertices)


def test_a_joint_moves_its_descendants():
    bend = Channel("rotation", 1, f64(0, 1), torch.stack([turn(2, 90), turn(2, 180)]))
    skin = arm([Clip("bend", (bend,))])
    moved = skin.posed(skin.clip("bend"), [0.0, 0.5, 1.0])
    torch.testing.assert_close(moved[0], skin.mesh.vertices)
    # The elbow at (1, 0, 0) rotates by 90 degrees: the hand, 2 m away, is above it.
    torch.testing.assert_close(moved[2, :2], torch.tensor([[1.0, 2, 0], [0, 2, 0]]), atol=1e-6, rtol=0)
    root = math.sqrt(2)
    torch.testing.assert_close(moved[1, 0], torch.tensor([1 + root, root, 0]), atol=1e-6, rtol=0)


def test_scales_of_joints_reach_every_method():
    big = Channel("scale", 2, f64(0), torch.tensor([[2.0, 2, 2]]))
    skin = arm([Clip("big", (big,))])
    want = torch.tensor([[4.0, 0, 0], [4, 2, 0]])
    for method in ("lbs", "dqs", "hybrid"):
        moved = skin.posed(skin.clip("big"), [0.0], method=method, blends=torch.full((3,), 0.5))
        torch.testing.assert_close(moved[0, :2], want, atol=1e-5, rtol=0)


def test_interpolations_at_and_between_keys():
    keys = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 4, 0]])
    times, at = f64(0, 1, 3), f64(-1, 0, 0.5, 1, 2, 3, 9)
    linear = Channel("translation", 0, times, keys).at(at)
    torch.testing.assert_close(linear[:, 0], torch.tensor([0.0, 0, 1, 2, 2, 2, 2]))
    torch.testing.assert_close(linear[:, 1], torch.tensor([0.0, 0, 0, 0, 2, 4, 4]))
    step = Channel("translation", 0, times, keys, "STEP").at(at)
    torch.testing.assert_close(step[:, 0], torch.tensor([0.0, 0, 0, 2, 2, 2, 2]))
    # The cubic t^3 from 0 to 3 with its own slopes is reproduced exactly.
    t = torch.tensor([0.0, 1, 3])
    cubic = torch.stack([3 * t**2, t**3, 3 * t**2], 1)[..., None].expand(3, 3, 3)
    found = Channel("translation", 0, times, cubic, "CUBICSPLINE").at(f64(0.3, 1.7, 2.9))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.3, 1.7, 2.9]) ** 3, atol=1e-5, rtol=1e-5)


def test_rotations_take_the_shorter_path_at_constant_speed():
    keys = torch.stack([turn(2, 10), -turn(2, 50)])
    found = Channel("rotation", 0, f64(0, 1), keys).at(f64(0.25))
    assert float((found[0] * turn(2, 20)).sum().abs()) == pytest.approx(1, abs=1e-6)
    assert Channel("rotation", 0, f64(2), keys[:1]).at(f64(0, 5)).shape == (2, 4)


def test_frames_become_exact_morphs():
    vertices, faces = shapes.icosphere(1)
    frames = vertices + 0.1 * torch.randn(4, *vertices.shape)
    skin = SkinnedMesh.from_frames(Mesh(vertices, faces), frames, [0.0, 0.1, 0.3, 0.4]).validate()
    clip = skin.clip("frames")
    torch.testing.assert_close(skin.posed(clip, [0.0, 0.1, 0.3, 0.4]), frames, atol=1e-6, rtol=0)
    torch.testing.assert_close(skin.posed(clip, [0.2])[0], (frames[1] + frames[2]) / 2, atol=1e-6, rtol=0)
    assert clip.start == 0 and clip.end == 0.4 and len(clip.times(10)) == 5


def test_a_clip_becomes_a_sequence():
    skin = creature()
    sequence = skin.to_sequence(skin.clip("walk"), [0.0, 0.4])
    assert torch.equal(sequence.vertices(), skin.posed(skin.clip("walk"), [0.0, 0.4])) and sequence.base is skin.mesh


def test_rest_weights_add_their_morphs():
    skin = replace(creature(), rest_weights=torch.tensor([1.0, 0]))
    without = creature()
    torch.testing.assert_close(skin.locals_at(skin.clip("wave"), f64(0)), without.locals_at(skin.clip("wave"), f64(0)))
    assert skin.locals_at(None, f64(0))[3].tolist() == [[1, 0]]
    with pytest.raises(InputError, match=r"SkinnedMesh\.rest_weights: got shape \(3,\), want shape \(2,\)"):
        replace(skin, rest_weights=torch.zeros(3))
    with pytest.raises(InputError, match=r"rest_weights is not finite"):
        replace(skin, rest_weights=torch.tensor([0.0, torch.nan])).validate()


def test_morphs_are_applied_before_joints():
    skin = arm()
    skin = replace(skin, morphs=torch.ones(1, 3, 3))
    weights = Channel("weights", -1, f64(0), torch.tensor([[1.0]]))
    bend = Channel("rotation", 0, f64(0), turn(2, 180)[None])
    moved = replace(skin, clips=(Clip("both", (weights, bend)),))
    got = moved.posed(moved.clip("both"), [0.0])[0, :2]
    torch.testing.assert_close(got, torch.tensor([[-4.0, -1, 1], [-4, -2, 1]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"parents": (-1, 2, 1)}, r"^SkinnedMesh: joint 1 has parent 2; want an earlier joint, or -1 for a root$"),
        ({"parents": (-1, 0)}, r"^SkinnedMesh: 2 parents for 3 joints$"),
        ({"weights": torch.ones(3, 2)}, r"^SkinnedMesh: weights of vertex 0 are \[1.0, 1.0\]; want weights >= 0 with sum 1$"),
        ({"weights": torch.full((3, 2), math.nan)}, r"^SkinnedMesh: weights is not finite in 3 of 3 rows"),
        ({"indices": torch.full((3, 2), 3)}, r"^SkinnedMesh: vertex 0 names joints \[3, 3\], but there are 3$"),
        ({"quats": torch.full((3, 4), 1.0)}, r"^SkinnedMesh: quaternion of shoulder has length 2$"),
        (
            {"clips": (Clip("a", (Channel("scale", 5, f64(0), torch.ones(1, 3)),)),)},
            r"^SkinnedMesh: clip a moves joint 5, but there are 3",
        ),
        (
            {"clips": (Clip("a", (Channel("weights", -1, f64(0), torch.ones(1, 3)),)),)},
            r"^SkinnedMesh: clip a has 3 weights per key, but",
        ),
        (
            {"clips": (Clip("a", (Channel("scale", 0, f64(1, 0), torch.ones(2, 3)),)),)},
            r"^Channel: times of scale of joint 0 do not",
        ),
        ({"morphs": torch.zeros(1, 3, 3), "morph_names": ("a", "b")}, r"^SkinnedMesh: 2 names for 1 morphs$"),
    ],
)
def test_wrong_values(change, text):
    with pytest.raises(InputError, match=text):
        replace(arm(), **change).validate()


def test_other_errors():
    with pytest.raises(InputError, match=r"^SkinnedMesh: no clip is called 'run'; there are none$"):
        arm().clip("run")
    channel = Channel("scale", 0, f64(0), torch.ones(1, 3))
    with pytest.raises(InputError, match=r"^Clip walk: two channels move scale of joint 0$"):
        Clip("walk", (channel, channel))
    with pytest.raises(
        InputError, match=r"^Channel: got 'colour' by 'LINEAR'; want translation, rotation, scale, weights by LINEAR"
    ):
        Channel("colour", 0, f64(0), torch.ones(1, 3))
    with pytest.raises(
        InputError, match=r"walk.ply: a .ply file holds a Gaussian scene, a mesh or a point cloud, want a skin \(.glb, .gltf\)$"
    ):
        SkinnedMesh.load("walk.ply")


# Motion capture


def motion(count=5):
    names = ("shoulder", "elbow", "wrist", "wrist end")
    offsets = torch.tensor([[0.0, 0, 0], [2, 0, 0], [2, 0, 0], [2, 0, 0]])
    quats = quaternion.normalize(torch.randn(count, 4, 4))
    quats[:, 3] = turn(2, 0)
    places = torch.randn(count, 3)
    return Motion(Skeleton(names, (-1, 0, 1, 2), offsets, (3,)), torch.arange(count) / 30.0, quats, places)


def test_joints_follow_those_of_the_motion_for_any_axes():
    """The skin has the rest pose of the motion at half its size; its elbow has rotated axes."""
    played = motion()
    played = replace(played, times=played.times.double())
    skin = arm()
    skin = replace(skin, clips=(retarget(played, skin),)).validate()
    places = skin.joint_matrices(skin.clips[0], played.times)[:, :, :3, 3]
    want = played.positions()[:, :3]
    want = (want - want[:1, :1]) / 2
    torch.testing.assert_close(places, want.to(places), atol=1e-5, rtol=0)


def test_a_motion_of_other_joints_is_rejected_with_both_lists():
    played = motion()
    skeleton = replace(played.skeleton, names=("hip", "knee", "wrist", "wrist end"))
    played = replace(played, skeleton=skeleton, times=played.times.double())
    text = (
        r"^retarget: the skin has 1 of the 3 joints of the motion, want at least half of them; joints of the skin: shoulder, "
        r"elbow, wrist; of the motion: hip, knee, wrist\. Name pairs with --joints$"
    )
    with pytest.raises(InputError, match=text):
        retarget(played, arm())
    many = replace(arm(), names=("a", "b", "c"))
    skeleton = replace(skeleton, names=("hip", "knee", "x" * 30, "wrist end"))
    with pytest.raises(InputError, match="the skin has 0 of the 3"):
        retarget(replace(played, skeleton=skeleton), many)


@pytest.mark.parametrize(
    "names",
    [
        ("mixamorig:shoulder", "mixamorig:elbow", "mixamorig:wrist"),
        ("mixamorigShoulder", "mixamorigElbow", "mixamorigWrist"),
        ("Armature|SHOULDER", "Armature|El_bow", "Armature|wrist"),
        ("Bip01 Shoulder", "Bip01 Elbow", "Bip01 Wrist"),
    ],
)
def test_names_of_joints_may_differ_in_namespace_prefix_case_and_punctuation(names):
    played = motion()
    played = replace(played, times=played.times.double())
    want = retarget(played, arm())
    found = retarget(played, replace(arm(), names=names))
    assert len(found.channels) == len(want.channels)
    assert all(torch.equal(a.values, b.values) for a, b in zip(found.channels, want.channels))
    skeleton = replace(played.skeleton, names=(*names, "end"))
    other = retarget(replace(played, skeleton=skeleton), arm())
    assert all(torch.equal(a.values, b.values) for a, b in zip(other.channels, want.channels))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_motion_may_have_another_axis_up(axis):
    """A capture with another up axis moves the skin in the skin's own world; a straight arm would not reveal an error."""
    played = motion()
    offsets = played.skeleton.offsets + torch.tensor([[0.0, 0, 0], [0, 0.7, 0], [0, 0, 0.4], [0.0, 0, 0]])
    skeleton = replace(played.skeleton, offsets=offsets)
    played = replace(played, skeleton=skeleton, times=played.times.double())
    bones = arm()
    rest = SkinnedMesh(
        bones.mesh, bones.names, bones.parents, offsets[:3] / 2, torch.tensor([1.0, 0, 0, 0]).repeat(3, 1), torch.ones(3, 3),
        torch.eye(4).repeat(3, 1, 1), bones.indices, bones.weights,
    )  # fmt: skip
    quat = turn(axis, 90)
    turned = replace(
        played,
        skeleton=replace(skeleton, offsets=quaternion.rotate(quat, offsets)),
        quats=quaternion.multiply(quaternion.multiply(quat.expand_as(played.quats), played.quats), quaternion.conjugate(quat)),
        translations=quaternion.rotate(quat, played.translations),
    )
    want, found = (replace(rest, clips=(retarget(some, rest),)) for some in (played, turned))
    both = [skin.joint_matrices(skin.clips[0], played.times) for skin in (want, found)]
    torch.testing.assert_close(both[1], both[0], atol=1e-5, rtol=0)


def test_joints_that_only_the_motion_has_are_skipped_with_a_warning(caplog):
    """Their descendants still follow the motion, and the first common joint gets the translation of the root."""
    played = motion()
    played = replace(played, times=played.times.double())
    for missing in (0, 1):
        names = tuple("other" if row == missing else name for row, name in enumerate(arm().names))
        caplog.clear()
        clip = retarget(played, replace(arm(), names=names))
        assert f"no joint for {arm().names[missing]} of the motion" in caplog.text
        skin = replace(arm(), names=names, clips=(clip,))
        whole = replace(arm(), clips=(retarget(played, arm()),))
        found, want = (some.joint_matrices(some.clips[0], played.times)[:, 2, :3, :3] for some in (skin, whole))
        torch.testing.assert_close(found, want, atol=1e-5, rtol=0)
        assert [channel.joint for channel in clip.channels if channel.path == "translation"] == [1 if missing == 0 else 0]


def test_equal_names_are_matched_before_similar_ones():
    assert same_joints(["a:hip", "hip"], ["hip", "b:hip"]) == {1: 0}
    assert same_joints(["Hips", "Spine", "Tail"], ["xHips", "xSpine", "Head"]) == {0: 0, 1: 1}
    assert same_joints([], ["a"]) == {} and same_joints(["_"], ["-"]) == {}


def test_captured_motion_moves_a_skin_of_the_same_joints(shared_data):
    """Bones twice as long, upside down: the joints follow those of the capture from their rest positions."""
    played = Motion.load(shared_data / "mocap" / "zombie.bvh")
    bones = played.skeleton
    rest = bones.offsets * 2
    upside = torch.tensor([0.0, 1, 0, 0])
    count = len(bones)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    quats[0] = upside
    turned = rest * torch.tensor([1.0, -1, -1])
    turned[0] = rest[0]
    eyes, mesh = torch.eye(4).repeat(count, 1, 1), arm().mesh
    indices, weights = torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1)
    skin = SkinnedMesh(mesh, bones.names, bones.parents, turned, quats, torch.ones(count, 3), eyes, indices, weights)
    clip = retarget(played, skin, name="zombie")
    assert clip.name == "zombie" and clip.end == pytest.approx(float(played.times[-1]))
    times = played.times[::50]
    places = skin.joint_matrices(clip, times)[:, :, :3, 3]
    want = played.positions()[::50] * 2
    want = want - want[:1, :1] + rest[0]
    off = places - want
    shift = off[0, 0]  # the lowest feet of the clip come to their height in the rest pose
    assert float(shift[:2].abs().max()) <= 1e-3 * float(rest.abs().max())
    assert float((off - shift).abs().max()) <= 1e-4 * float(rest.abs().max()) * 10
