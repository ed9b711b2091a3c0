"""Retargeting between skeletons of different programs: names, rest poses, attachment of limbs."""

import math
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.geometry import quaternion
from vision3d.optim.motion.humanoid import body_parts
from vision3d.optim.motion.joint_names import same_joints
from vision3d.optim.motion.retarget import retarget
from vision3d.scene import Mesh, Motion, Skeleton, SkinnedMesh

PARTS = ("clavicle", "upper_arm", "forearm", "hand", "upper_leg", "lower_leg", "foot")
WRITTEN = {  # body parts of one side by program
    "Mixamo": "mixamorig:{Left,Right}Shoulder Arm ForeArm Hand UpLeg Leg Foot",
    "Unreal": "clavicle_{l,r} upperarm_ lowerarm_ hand_ thigh_ calf_ foot_",
    "Biped": "Bip01_{L,R}_Clavicle UpperArm Forearm Hand Thigh Calf Foot",
    "Rigify": "DEF-shoulder.{L,R} upper_arm forearm hand thigh shin foot",
    "MotionBuilder": "{Left,Right}Collar Shoulder Elbow Wrist Hip Knee Ankle",
    "SMPL": "{L,R}_Collar Shoulder Elbow Wrist Hip Knee Ankle",
}


def written(program: str) -> list[str]:
    """14 names, left ones first."""
    first, *rest = WRITTEN[program].split()
    head, tail = first.split("{")
    sides, last = tail.split("}")
    if program == "Unreal":
        return [f"{word}{side}" for side in "lr" for word in (head, *rest)]
    if program == "Rigify":
        return [f"DEF-{word}.{side}" for side in "LR" for word in ("shoulder", *rest)]
    glue = "_" if last.startswith("_") else ""
    return [f"{head}{side}{glue}{word}" for side in sides.split(",") for word in (last.strip("_"), *rest)]


@pytest.mark.parametrize("program", WRITTEN)
def test_parts_of_the_body_by_the_names_of_programs(program):
    assert body_parts(written(program)) == [f"{side} {part}" for side in ("left", "right") for part in PARTS]


def test_controls_fingers_and_second_halves_are_not_body_parts():
    names = ["ORG-thigh.L", "DEF-thigh.L", "DEF-thigh.L.001", "hand_ik_l", "LeftHandThumb1", "HeadTop_End", "Tail", "pelvis.R"]
    assert body_parts(names) == [None, "left upper_leg", *[None] * 6]


@pytest.mark.parametrize("other", WRITTEN)
@pytest.mark.parametrize("program", WRITTEN)
def test_the_same_parts_are_the_same_joints(program, other):
    """Also if both have a LeftShoulder that is a different bone in each."""
    assert same_joints(written(program), written(other)) == {row: row for row in range(14)}


def test_spines_of_other_lengths_are_matched_by_position():
    assert same_joints(["Spine", "Chest", "UpperChest"], ["torso_1", "torso_2"]) == {0: 0, 2: 1}
    assert same_joints(["Waist"], ["spine_01", "spine_02", "spine_03"]) == {0: 0}


# Hips, head, then left and right: upper arm, forearm, hand, upper leg, lower leg, foot.
LIMBS = ("UpperArm", "ForeArm", "Hand", "UpLeg", "Leg", "Foot")
NAMES = ("Hips", "Head", *(f"{side}{limb}" for side in ("Left", "Right") for limb in LIMBS))
PARENTS = (-1, 0, *(joint for base in (2, 8) for joint in (0, base, base + 1, 0, base + 3, base + 4)))


def offsets(drop: float) -> torch.Tensor:
    """A person facing +z, y up, with arms hanging some degrees below horizontal."""
    found = [[0.0, 1, 0], [0, 0.6, 0]]
    for side in (1, -1):
        arm = [side * 0.3 * math.cos(math.radians(drop)), -0.3 * math.sin(math.radians(drop)), 0]
        found += [[side * 0.2, 0.4, 0], arm, arm, [side * 0.1, 0, 0], [0, -0.5, 0], [0, -0.5, 0]]
    return torch.tensor(found)


def person(drop: float) -> SkinnedMesh:
    count = len(NAMES)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    joints = torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1)
    return SkinnedMesh(
        mesh, NAMES, PARENTS, offsets(drop), quats, torch.ones(count, 3), torch.eye(4).repeat(count, 1, 1), *joints
    )


def played(skeleton: Skeleton, turns: int = 5, seed: int = 0) -> Motion:
    generator = torch.Generator().manual_seed(seed)
    quats = torch.nn.functional.normalize(torch.randn(turns, len(skeleton), 4, generator=generator), dim=-1)
    quats[0] = torch.tensor([1.0, 0, 0, 0])
    walk = torch.randn(turns, 3, generator=generator) * 0.1
    return Motion(skeleton, torch.arange(turns, dtype=torch.float64), quats, walk)


def positions(skin: SkinnedMesh, motion: Motion) -> torch.Tensor:
    clip = retarget(motion, skin)
    return skin.joint_matrices(clip, motion.times)[..., :3, 3]


@pytest.mark.parametrize("drop", [0, 45, 80])
def test_arms_with_another_rest_pose_match_those_of_the_motion(drop):
    motion = played(Skeleton(NAMES, PARENTS, offsets(0)))
    found = positions(person(drop), motion)
    want = motion.positions()
    moved = want - want[:1, :1] + found[:1, :1]
    torch.testing.assert_close(found, moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize("facing", [0.0, 30.0, 135.0])
def test_a_motion_with_all_bones_along_one_axis_uses_its_first_pose(facing, caplog):
    """The same poses, written with all bones along +x of their joints: same result as with a rest pose, for any heading."""
    plain = played(Skeleton(NAMES, PARENTS, offsets(10)), seed=1)
    lengths = offsets(10).norm(dim=-1)
    along = torch.zeros(len(NAMES), 3)
    along[:, 0] = lengths
    along[0] = offsets(10)[0]
    # Orientation of each joint of the new skeleton that places its children correctly: one joint per child.
    names, parents, new_offsets, quats = ["Hips"], [-1], [along[0]], [plain.quats[:, 0]]
    place = {0: 0}
    for joint in range(1, len(NAMES)):
        axis = torch.linalg.cross(torch.tensor([1.0, 0, 0]), offsets(10)[joint] / lengths[joint])
        axis = axis if float(axis.norm()) > 0 else torch.tensor([0.0, 0, 1e-12])  # exactly parallel or opposite
        angle = torch.atan2(axis.norm(), offsets(10)[joint][0] / lengths[joint])
        turn = quaternion.rotmat_to_quat(torch.linalg.matrix_exp(hat(angle * torch.nn.functional.normalize(axis, dim=0))))
        names += [f"helper{joint}", NAMES[joint]]
        parents += [place[PARENTS[joint]], len(names) - 2]
        new_offsets += [torch.zeros(3), along[joint]]
        quats += [turn.expand(5, 4), quaternion.multiply(quaternion.conjugate(turn).expand(5, 4), plain.quats[:, joint])]
        place[joint] = len(names) - 1
    head = torch.tensor([math.cos(math.radians(facing) / 2), 0, math.sin(math.radians(facing) / 2), 0])
    quats[0] = quaternion.multiply(head.expand(5, 4), quats[0])
    turned = quaternion.rotate(head.expand(5, 4), plain.translations)
    motion = Motion(
        Skeleton(tuple(names), tuple(parents), torch.stack(new_offsets)), plain.times, torch.stack(quats, 1), turned
    )
    named = [names.index(name) for name in NAMES]
    there = quaternion.rotate(head.expand(5, len(NAMES), 4), plain.positions() - plain.positions()[:, :1])
    torch.testing.assert_close(motion.positions()[:, named] - motion.positions()[:, :1], there, atol=1e-5, rtol=0)
    found, want = positions(person(10), motion), positions(person(10), plain)
    assert "first pose" in caplog.text
    torch.testing.assert_close(found, want, atol=2e-5, rtol=0)


def hat(vector: torch.Tensor) -> torch.Tensor:
    x, y, z = vector
    zero = torch.zeros(())
    return torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])


def test_legs_that_are_not_below_the_hips_follow():
    """A rig in which hips and legs are attached to a root that is missing in the motion."""
    skin, motion = person(0), played(Skeleton(NAMES, PARENTS, offsets(0)), seed=2)
    names, parents = ("Root", *NAMES), (-1, 0, *(0 if parent == 0 and limb >= 2 else parent + 1 for limb, parent in
                                                 enumerate(PARENTS[1:], 1)))  # fmt: skip
    rows = torch.cat([torch.zeros(1, 3), offsets(0)])
    for joint, parent in enumerate(parents):
        if parent == 0 and joint > 1:
            rows[joint] += offsets(0)[0]
    quats = torch.cat([skin.quats[:1], skin.quats])
    rig = replace(
        skin, names=names, parents=parents, translations=rows, quats=quats, scales=torch.ones(len(names), 3),
        inverse_binds=torch.eye(4).repeat(len(names), 1, 1),
    )  # fmt: skip
    found = positions(rig, motion)
    want = motion.translations - motion.translations[:1]
    for joint in (names.index("Hips"), names.index("LeftUpLeg")):
        torch.testing.assert_close(found[:, joint] - found[:1, joint], want, atol=1e-5, rtol=0)


PROGRAMS = {
    "Mixamo": "Hips Spine Spine1 Spine2 Neck Head {side}Shoulder {side}Arm {side}ForeArm {side}Hand {side}UpLeg {side}Leg"
    " {side}Foot {side}ToeBase",
    "Rokoko": "Hips Spine Spine1 Spine2 Neck Head {side}Shoulder {side}Arm {side}ForeArm {side}Hand {side}Thigh {side}Shin"
    " {side}Foot {side}Toe",
    "CMU": "Hips LowerBack Spine Spine1 Neck Neck1 Head {side}Shoulder {side}Arm {side}ForeArm {side}Hand {side}UpLeg {side}Leg"
    " {side}Foot {side}ToeBase",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_motion_of_programs_with_fingers_moves_a_skin_without(program):
    """Forty fingers and ten extra joints are more than half of the joints, but none of a person."""
    names = list(dict.fromkeys(word.format(side=side) for side in ("Left", "Right") for word in PROGRAMS[program].split()))
    names += ["LHipJoint", "RHipJoint", *(f"{side}HandIndex{i}" for side in ("Left", "Right") for i in range(20))]
    parents = (-1, *[0] * (len(names) - 1))
    skeleton = Skeleton(tuple(names), parents, torch.rand(len(names), 3, generator=torch.Generator().manual_seed(0)))
    clip = retarget(played(skeleton), person(0))
    turned = {person(0).names[channel.joint] for channel in clip.channels if channel.path == "rotation"}
    assert turned == set(NAMES)


def test_joints_are_matched_by_a_map_and_limbs_then_by_the_names_of_the_motion():
    skin = replace(person(60), names=tuple(f"node_{i}" for i in range(len(NAMES))))
    motion = played(Skeleton(NAMES, PARENTS, offsets(0)))
    with pytest.raises(InputError, match=r"has 0 of the 14 joints.*Name pairs with --joints"):
        retarget(motion, skin)
    pairs = {name: f"node_{i}" for i, name in enumerate(NAMES)}
    clip = retarget(motion, skin, joints=pairs)
    same = retarget(motion, person(60))
    times = motion.times
    torch.testing.assert_close(skin.joint_matrices(clip, times), person(60).joint_matrices(same, times), atol=1e-6, rtol=0)
    for wrong, text in (
        ({"Hipps": "node_0"}, "the motion has no joint 'Hipps'; did you mean Hips"),
        ({"Hips": "node_77"}, "the skin has no joint 'node_77'; did you mean node_7"),
        ({"Hips": "node_0", "Head": "node_0"}, "joint 'node_0' of the skin is given for two joints"),
    ):
        with pytest.raises(InputError, match=text):
            retarget(motion, skin, joints=wrong)


def quadruped() -> SkinnedMesh:
    """Facing +z: a horizontal spine, four vertical legs; front legs are arms."""
    rows = [[0.0, 1, 0], [0, 0.1, 1.2]]
    for side in (1, -1):
        rows += [[side * 0.2, 0, 1], [0, -0.5, 0], [0, -0.5, 0], [side * 0.2, 0, 0], [0, -0.5, 0], [0, -0.5, 0]]
    return replace(person(0), translations=torch.tensor(rows))


def test_a_person_moves_an_animal_on_four_legs_upright():
    """The up axes of both stay up, although their spines are at right angles: the legs decide, not the shape of the body."""
    motion = played(Skeleton(NAMES, PARENTS, offsets(0)))
    still = torch.tensor([1.0, 0, 0, 0]).repeat(5, len(NAMES), 1)
    walk = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None] * torch.tensor([0.3, 0, 4.0], dtype=torch.float64)
    found = positions(quadruped(), replace(motion, quats=still.to(motion.quats), translations=walk.to(motion.translations)))
    moved = found[:, 0] - found[0, 0]
    torch.testing.assert_close(moved[:, 1], torch.zeros(5), atol=1e-6, rtol=0)
    assert float(moved[-1, 2]) > 1
    for leg, foot in (("LeftUpLeg", "LeftFoot"), ("RightUpLeg", "RightFoot")):
        down = torch.nn.functional.normalize(found[:, NAMES.index(foot)] - found[:, NAMES.index(leg)], dim=-1)
        torch.testing.assert_close(down, torch.tensor([0.0, -1, 0]).expand(5, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("crouch", [30.0, 70.0])
def test_a_motion_that_starts_on_bent_knees_has_its_feet_on_the_floor(crouch):
    """Thighs forward and shins back by the same angle; the hips stay above the feet, which do not move."""
    angle = math.radians(crouch)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(4, len(NAMES), 1)
    for side in ("Left", "Right"):
        for limb, turn in (("UpLeg", -angle), ("Leg", 2 * angle), ("Foot", -angle)):
            quats[:, NAMES.index(side + limb)] = torch.tensor([math.cos(turn / 2), math.sin(turn / 2), 0, 0])
    motion = Motion(
        Skeleton(NAMES, PARENTS, offsets(0)),
        torch.arange(4, dtype=torch.float64),
        quats,
        torch.tensor([0, -0.4, 0]).repeat(4, 1),
    )
    found = positions(person(20), motion)
    feet = [NAMES.index("LeftFoot"), NAMES.index("RightFoot")]
    torch.testing.assert_close(found[:, feet, 1], torch.zeros(4, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 0, 1], torch.full((4,), math.cos(angle)), atol=1e-5, rtol=0)
