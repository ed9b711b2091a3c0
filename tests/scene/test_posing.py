"""Joints rotated by angles: closed forms, order and axes, on top of clips, and poses as new rest poses."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.support.skins import arm, hybrid
from vision3d.core.errors import InputError
from vision3d.geometry.euler import euler_to_rotmat
from vision3d.scene import Channel, Clip, SkinnedMesh
from vision3d.scene.posing import baked_clip, parse_pose, rest_at

NOW = torch.zeros(1, dtype=torch.float64)
ANGLES = st.tuples(*[st.floats(-170, 170)] * 3)


def close(got, want, atol=2e-5):
    torch.testing.assert_close(got, want, rtol=0, atol=atol)


def tip(skin: SkinnedMesh):
    """The vertices that only follow the last joint."""
    dense = torch.zeros(len(skin.weights), len(skin)).scatter_add_(1, skin.indices, skin.weights)
    return dense[:, -1] > 0.98


def test_texts_are_parsed_to_angles():
    assert parse_pose(["a=1,-2.5,3e1", "b=c=0,0,0"]) == {"a": (1.0, -2.5, 30.0), "b=c": (0.0, 0.0, 0.0)}
    assert parse_pose([]) == {}


@pytest.mark.parametrize(
    "text", ["head", "head=", "=1,2,3", "head=1,2", "head=1,2,3,4", "head=a,b,c", "head=nan,0,0", "x=inf,0,0"]
)
def test_other_texts_are_rejected(text):
    with pytest.raises(InputError, match="want JOINT=A,B,C"):
        parse_pose([text])


def test_a_duplicate_joint_is_rejected():
    with pytest.raises(InputError, match="a is given twice"):
        parse_pose(["a=1,2,3", "b=1,2,3", "a=0,0,0"])


def test_no_rotation_is_the_rest_pose():
    skin = arm()
    clip = baked_clip(skin, None, NOW, {})
    assert clip.channels == ()
    close(skin.posed(clip, NOW)[0], skin.mesh.vertices)


@pytest.mark.parametrize("order", ["XYZ", "ZYX", "xyz", "YXZ", "ZXZ"])
@settings(max_examples=10, deadline=None)
@given(angles=ANGLES)
def test_world_axes_rotate_about_the_joint(order, angles):
    skin = arm()
    clip = baked_clip(skin, None, NOW, {"joint_2": angles}, order=order, axes="world")
    (vertices,) = skin.posed(clip, NOW)
    rotmat = euler_to_rotmat(torch.tensor(angles).deg2rad(), order)
    far, place = tip(skin), torch.tensor([0.0, 2, 0])
    assert far.sum() > 10
    # Exact if only one joint counts: the vertex is blended between the joint's motion and the rest pose by its weight.
    dense = torch.zeros(len(skin.weights), 3).scatter_add_(1, skin.indices, skin.weights)[far, 2:]
    rest = skin.mesh.vertices[far]
    close(vertices[far], (1 - dense) * rest + dense * ((rest - place) @ rotmat.T + place))


@settings(max_examples=10, deadline=None)
@given(angles=ANGLES)
def test_own_axes_are_those_of_the_joint_in_the_rest_pose(angles):
    skin = arm()
    frame = skin.joint_matrices(None, NOW)[0, 2, :3, :3]
    rotmat = frame @ euler_to_rotmat(torch.tensor(angles).deg2rad(), "XYZ") @ frame.T
    clip = baked_clip(skin, None, NOW, {"joint_2": angles})
    turned = skin.joint_matrices(clip, NOW)[0, 2, :3, :3]
    close(turned, rotmat @ frame)


def test_rotations_are_added_to_a_clip_and_move_children():
    skin = arm(4)
    wave = skin.clip("wave")
    times = wave.times(8)
    clip = baked_clip(skin, wave, times, {"joint_1": (0, 0, 90)}, name="both")
    assert clip.name == "both" and clip.start == 0 and clip.end == 1
    plain, turned = (skin.joint_matrices(c, times) for c in (wave, clip))
    quarter = euler_to_rotmat(torch.tensor([0, 0, torch.pi / 2]), "XYZ")
    close(turned[:, 1, :3, :3], plain[:, 1, :3, :3] @ quarter)
    moved = plain[:, 1] @ torch.nn.functional.pad(quarter, (0, 1, 0, 1)) @ torch.linalg.inv(plain[:, 1])
    moved[:, 3, 3] = 1
    pivot = plain[:, 1, :3, 3] - (moved[:, :3, :3] @ plain[:, 1, :3, 3:])[..., 0]
    want = (moved[:, :3, :3] @ plain[:, 3, :3, 3:])[..., 0] + pivot
    close(turned[:, 3, :3, 3], want)


def test_clips_start_at_zero():
    skin = arm()
    late = Clip("late", tuple(replace(channel, times=channel.times + 5) for channel in skin.clip("wave").channels))
    clip = baked_clip(skin, late, late.times(10))
    assert clip.start == 0
    close(skin.posed(clip, [0.3]), skin.posed(late, [5.3]))


def test_morph_weights_are_baked():
    skin = arm()
    morphs = torch.randn(2, skin.mesh.num_vertices, 3, generator=torch.Generator().manual_seed(1))
    pulse = Channel("weights", -1, torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([[0.0, 1.0], [0.5, 0.0]]))
    skin = replace(skin, morphs=morphs, clips=(Clip("pulse", (pulse,)),))
    times = skin.clips[0].times(4)
    close(skin.posed(baked_clip(skin, skin.clips[0], times), times), skin.posed(skin.clips[0], times))


def test_unknown_joints_are_listed():
    with pytest.raises(InputError, match=r"no joint hat, tail; its joints: joint_0, joint_1, joint_2"):
        baked_clip(arm(), None, NOW, {"hat": (0, 0, 0), "joint_1": (0, 0, 0), "tail": (0, 0, 0)})


@pytest.mark.parametrize("method", ["lbs", "dqs", "hybrid"])
def test_a_pose_becomes_the_rest_pose(method):
    skin = arm()
    clip = baked_clip(skin, None, NOW, {"joint_1": (40, 10, -20), "joint_2": (0, 60, 0)})
    new = rest_at(skin, clip, 0.0, method=method, blend=0.3)
    (posed,) = skin.posed(clip, NOW, method=method, blends=torch.full((3,), 0.3))
    close(new.mesh.vertices, posed)
    for how in ("lbs", "dqs"):
        close(new.posed(None, NOW, method=how)[0], posed)
    close(new.joint_matrices(None, NOW), skin.joint_matrices(clip, NOW))
    # Vertices of one joint still move as before under the old clips.
    far = tip(skin)
    times = skin.clip("wave").times(4)
    dense = torch.zeros(len(skin.weights), 3).scatter_add_(1, skin.indices, skin.weights)[far, 2:]
    off = (new.posed(new.clip("wave"), times) - skin.posed(skin.clip("wave"), times))[:, far].norm(dim=-1)
    assert (off < 4 * (1 - dense[:, 0]) + 1e-4).all()


def test_morphs_rotate_with_the_new_rest_pose():
    skin = arm()
    morphs = torch.zeros(1, skin.mesh.num_vertices, 3)
    far = tip(skin)
    morphs[:, far] = torch.tensor([0.1, 0.2, 0.3])
    skin = replace(skin, morphs=morphs)
    clip = baked_clip(skin, None, NOW, {"joint_2": (30, 0, 50)})
    new = rest_at(skin, clip, 0.0)
    one = Channel("weights", -1, NOW, torch.ones(1, 1))
    both = Clip("both", (*clip.channels, one))
    close(new.posed(Clip("morph", (one,)), NOW), skin.posed(both, NOW))


def test_a_joint_scaled_to_zero_has_no_rest_pose():
    skin = arm()
    flat = Clip("flat", (Channel("scale", 1, NOW, torch.tensor([[1.0, 0, 1]])),))
    with pytest.raises(InputError, match="joint_1 is scaled to zero"):
        rest_at(skin, flat, 0.0)


def test_without_joints_only_morphs_define_the_rest_pose():
    skin = arm()
    frames = torch.stack([skin.mesh.vertices, skin.mesh.vertices + 1])
    moving = SkinnedMesh.from_frames(skin.mesh, frames, [0.0, 1.0])
    new = rest_at(moving, moving.clips[0], 0.5)
    close(new.mesh.vertices, skin.mesh.vertices + 0.5)
    assert new.num_morphs == 0 and new.clips == ()


def test_morphs_that_rotate_normals_define_a_rest_pose():
    skin = hybrid()
    mesh = replace(skin.mesh, normals=skin.mesh.vertices)
    skin = replace(skin, mesh=mesh, morph_normals=torch.zeros_like(skin.morphs), rest_weights=torch.zeros(3))
    rest = rest_at(skin, skin.clips[0], 0.1)
    torch.testing.assert_close(rest.mesh.vertices, skin.mesh.vertices + skin.morphs[1])
    assert rest.validate().etas is None and rest.num_morphs == 0
