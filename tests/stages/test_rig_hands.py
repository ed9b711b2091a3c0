"""A track of a hand moves other rigs of hands: other names, rest poses, axes, hierarchies, and hands on a body."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.hand_rigs import FINGERS, MIXAMO, NAMINGS, VRM, other_rig, track
from vision3d.core.errors import InputError
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.optim.motion.hand_names import find_hands
from vision3d.scene import Clip, MeshGaussians, SkinnedMesh
from vision3d.stages.animate import RigConfig, play_skin

WEBXR = os.environ.get("VISION3D_WEBXR")
"""Folder with left.glb and right.glb of npm @webxr-input-profiles/assets, dist/profiles/generic-hand."""


def played(skin, motion, **more):
    config = RigConfig(fps=10, **more.pop("config", {}))
    return play_skin(config, skin, motion, progress=lambda *_: None, **more)


def vertices_of(skin: SkinnedMesh, times) -> torch.Tensor:
    return skin.posed(skin.clips[0], times)


@pytest.mark.parametrize("names", [MIXAMO, VRM], ids=["mixamo", "vrm"])
def test_another_rest_pose_and_other_names_follow_the_track(names):
    motion = track()
    skin = other_rig(names)
    result = played(skin, motion)
    want = vertices_of(motion, [0.0, 0.1, 0.2, 0.3])
    off = (result.frames.channels["vertices"] - want).norm(dim=-1)
    # Skinning of a bent rest pose differs where the joints are; the bones are the same.
    assert off.mean() < 2.5e-3 and off.max() < 0.012
    assert (skin.mesh.vertices - want).norm(dim=-1).mean() > 0.2


def test_bones_have_the_directions_of_the_track():
    motion, skin = track(), other_rig()
    clip = played(skin, motion).skin.clips[0]
    times = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    ours = skin.joint_matrices(clip, times)[:, :, :3, 3]
    theirs = motion.joint_matrices(motion.clips[0], times)[:, :, :3, 3]
    assert (ours[:, 0] - theirs[:, 0]).abs().max() < 2e-3  # the wrist, times the ratio of the sizes
    for joint in range(1, len(skin)):
        if joint % 3 != 1:
            bones = [
                torch.nn.functional.normalize(places[:, joint] - places[:, joint - 1], dim=-1) for places in (ours, theirs)
            ]
            assert (bones[0] * bones[1]).sum(-1).min() > 0.9998


def test_the_size_stays_and_the_place_scales():
    motion, skin = track(), other_rig()
    small = skin.transform(torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0])))
    large = played(skin, motion).frames.channels["vertices"]
    torch.testing.assert_close(played(small, motion).frames.channels["vertices"], 0.5 * large, rtol=0, atol=1e-5)
    placed = played(small, motion, config={"scale": 1.0}).frames.channels["vertices"]
    shift = placed - 0.5 * large
    assert (shift - shift[:, :1]).abs().max() < 1e-5 and shift[0, 0].norm() > 0.1


def flat(skin: SkinnedMesh) -> SkinnedMesh:
    """The same rig without a hierarchy, as WebXR's is."""
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0]
    return replace(
        skin, parents=(-1,) * len(skin), translations=rest[:, :3, 3], quats=rotmat_to_quat(rest[:, :3, :3]), clips=()
    )


def test_a_rig_without_a_hierarchy_gets_translations():
    motion, skin = track(), other_rig()
    want = played(skin, motion).frames.channels["vertices"]
    result = played(flat(skin), motion)
    torch.testing.assert_close(result.frames.channels["vertices"], want, rtol=0, atol=1e-5)


def on_a_body(skin: SkinnedMesh) -> SkinnedMesh:
    """A forearm in front of the wrist."""
    place = torch.tensor([[0.0, -0.25, 0.0]])
    rest = skin.joint_matrices(None, torch.zeros(1, dtype=torch.float64))[0, :1]
    binds = torch.eye(4)[None].clone()
    binds[:, :3, 3] = -place
    one = torch.tensor([[1.0, 0, 0, 0]])
    return replace(
        skin, names=("mixamorig:RightForeArm", *skin.names), parents=(-1, 0, *(parent + 1 for parent in skin.parents[1:])),
        translations=torch.cat([place, rest[:, :3, 3] - place, skin.translations[1:]]), quats=torch.cat([one, skin.quats]),
        scales=torch.ones(len(skin) + 1, 3), inverse_binds=torch.cat([binds, skin.inverse_binds]), indices=skin.indices + 1,
    )  # fmt: skip


def test_on_a_body_only_the_fingers_move():
    motion, skin = track(), other_rig()
    result = played(on_a_body(skin), motion)
    clip = result.skin.clips[0]
    times = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    matrices = on_a_body(skin).joint_matrices(clip, times)
    assert (matrices[:, :2] - matrices[:1, :2]).abs().max() < 1e-6  # forearm and wrist
    free = skin.joint_matrices(played(skin, motion).skin.clips[0], times)
    relative, wanted = (torch.linalg.solve(some[:, at : at + 1], some[:, at:]) for some, at in ((matrices, 1), (free, 0)))
    torch.testing.assert_close(relative, wanted, rtol=0, atol=1e-5)


def test_pairs_name_joints_that_no_program_calls_so():
    motion, skin = track(), other_rig()
    want = played(skin, motion).frames.channels["vertices"]
    named = replace(skin, names=tuple(f"node_{joint}" for joint in range(len(skin))))
    pairs = dict(zip(motion.names, named.names))
    torch.testing.assert_close(played(named, motion, joints=pairs).frames.channels["vertices"], want, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match=r"the skin has no hand, want a wrist and .*node_0, node_1.*--joints"):
        played(named, motion)
    with pytest.raises(InputError, match="the motion has no joint 'thumb_9'"):
        played(named, motion, joints={"thumb_9": "node_1"})


def test_hands_of_the_other_side_are_refused():
    with pytest.raises(
        InputError, match="motion is of a mirrored hand, the skin has a right hand; want hands of the same side"
    ):
        played(other_rig(), track("left"))
    left = played(other_rig(tuple(name.replace("Right", "Left") for name in MIXAMO), side="left"), track("left"))
    assert (left.frames.channels["vertices"] - vertices_of(track("left"), [0.0, 0.1, 0.2, 0.3])).norm(dim=-1).mean() < 2.5e-3


def test_motion_without_a_clip_or_a_hand():
    with pytest.raises(InputError, match="no clip"):
        played(other_rig(), replace(track(), clips=()))
    from tests.support.skins import arm

    with pytest.raises(InputError, match="the motion has no hand"):
        played(other_rig(), arm())
    with pytest.raises(InputError, match="moves no joint"):
        played(other_rig(), replace(track(), clips=(Clip("still", ()),)))


def test_names_of_all_programs():
    for names in NAMINGS.values():
        (hand,) = find_hands(names, (-1, *(0 if number % 3 == 0 else number for number in range(15))))
        assert hand.side == "right" and hand.wrist == 0
        wanted = {(finger, bone): 3 * row + bone for row, finger in enumerate(FINGERS) for bone in (1, 2, 3)}
        assert {role: joint for role, joint in hand.joints.items() if role[0] != "wrist"} == wanted


def test_two_hands_of_a_body():
    right = (-1, *(0 if number % 3 == 0 else number for number in range(15)))
    left = tuple(16 + parent if parent >= 0 else -1 for parent in right)
    names = (*MIXAMO, *(name.replace("Right", "Left") for name in MIXAMO))
    first, second = find_hands(names, (*right, *left))
    assert (first.side, second.side) == ("right", "left") and second.joints["little", 3] == 31


def test_gaussians_on_the_hand_move_with_the_clip():
    motion = track()
    result = played(motion, None, config={"render": "gaussians", "per_face": 3})
    bound = MeshGaussians.from_mesh(replace(motion.mesh, normals=None), 3)
    want = vertices_of(motion, [0.0, 0.1, 0.2, 0.3])
    for frame in range(4):
        corners = want[frame][motion.mesh.faces[bound.face_ids]]
        centers = (bound.barycentric[..., None] * corners).sum(1)
        torch.testing.assert_close(result.frames.frame(frame).means, centers, rtol=0, atol=1e-5)
    assert (result.frames.frame(3).means - result.frames.frame(0).means).norm(dim=-1).max() > 0.05


@pytest.mark.skipif(WEBXR is None, reason="VISION3D_WEBXR is not set")
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_hand_of_webxr(side):
    skin, motion = SkinnedMesh.load(Path(str(WEBXR)) / f"{side}.glb"), track(side)
    clip = played(skin, motion).skin.clips[0]
    times = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    ours = skin.joint_matrices(clip, times)[:, :, :3, 3]
    theirs = motion.joint_matrices(motion.clips[0], times)[:, :, :3, 3]
    for number, finger in enumerate(("index-finger", "middle-finger", "ring-finger", "pinky-finger")):
        for k, (a, b) in enumerate((("proximal", "intermediate"), ("intermediate", "distal"))):
            start, end = (skin.names.index(f"{finger}-phalanx-{part}") for part in (a, b))
            joint = 4 + 3 * number + k
            bones = [torch.nn.functional.normalize(some, dim=-1) for some in
                     (ours[:, end] - ours[:, start], theirs[:, joint + 1] - theirs[:, joint])]  # fmt: skip
            assert (bones[0] * bones[1]).sum(-1).min() > 0.9998
    rest = skin.joint_matrices(None, times[:1])[0, :, :3, 3]
    tip, last = (skin.names.index(f"index-finger-{part}") for part in ("tip", "phalanx-distal"))
    torch.testing.assert_close(
        (ours[:, tip] - ours[:, last]).norm(dim=-1), (rest[tip] - rest[last]).norm().expand(4), rtol=0, atol=1e-6
    )
