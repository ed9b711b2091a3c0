import math
import re

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.geometry.quaternion import random_quats
from vision3d.io.bvh import read_motion, write_motion
from vision3d.scene import Motion, Skeleton, load

MIXED = """HIERARCHY
ROOT Hips
{
  OFFSET 0.5 0 0
  CHANNELS 6 Yposition Xposition Zposition Zrotation Xrotation Yrotation
  JOINT Left Arm
  {
    OFFSET 0 2 0
    CHANNELS 3 Xrotation Yrotation Zrotation
    JOINT Wrist
    {
      OFFSET 1 0 0
      CHANNELS 2 Yrotation Xrotation
      End Site
      {
        OFFSET 0 0 1
      }
    }
  }
  JOINT Spine
  {
    OFFSET 0 -1 0
    CHANNELS 0
    End Site
    {
      OFFSET 0 -1 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.5
1 2 3   10 20 30   40 50 60   70 80
0 0 0   90 0 0
0 0 0   0 0
"""


@pytest.fixture
def mixed(tmp_path):
    def write(text=MIXED):
        (tmp_path / "a.bvh").write_text(text)
        return tmp_path / "a.bvh"

    return write


def degrees(order, *angles):
    return Rotation.from_euler(order, angles, degrees=True).as_matrix()


def test_each_joint_has_its_own_order(mixed):
    motion = load(mixed())
    assert motion.skeleton.names == ("Hips", "Left Arm", "Wrist", "Wrist end", "Spine", "Spine end")
    assert motion.skeleton.parents == (-1, 0, 1, 2, 0, 4) and motion.skeleton.tips == (3, 5)
    assert torch.equal(motion.times, torch.tensor([0, 0.5], dtype=torch.float64))
    hips, arm, wrist = degrees("ZXY", 10, 20, 30), degrees("XYZ", 40, 50, 60), degrees("YX", 70, 80)
    root = np.array([2, 1, 3])  # its positions replace its OFFSET
    expected = [root, root + hips @ [0, 2, 0], root + hips @ ([0, 2, 0] + arm @ [1, 0, 0])]
    expected.append(expected[2] + hips @ arm @ wrist @ [0, 0, 1])
    expected += [root + hips @ [0, -1, 0], root + hips @ [0, -2, 0]]
    np.testing.assert_allclose(motion.positions()[0], expected, atol=1e-6)


def test_scale_converts_lengths_to_meters(mixed):
    near, far = read_motion(mixed(), scale=0.01), read_motion(mixed())
    torch.testing.assert_close(near.positions() * 100, far.positions())
    assert torch.equal(near.quats, far.quats)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY\n", "PLY\n", "at line 1: begins with 'PLY', want HIERARCHY"),
        (
            "CHANNELS 2 Yrotation Xrotation",
            "CHANNELS 3 Yrotation Xrotation",
            "line 13: CHANNELS of Wrist are '3 Yrotation X",
        ),
        (
            "CHANNELS 2 Yrotation Xrotation",
            "CHANNELS 2 Yrotation Wrotation",
            "a count and as many names such as Xrotation",
        ),
        ("CHANNELS 2 Yrotation Xrotation", "CHANNELS 2 Yrotation Yrotation", "at line 13: CHANNELS of Wrist name one twice"),
        ("OFFSET 0 2 0", "OFFSET 0 2", "at line 8: got '0 2', want 3 finite numbers"),
        ("OFFSET 0 2 0", "OFFSET 0 2 nan", "at line 8: got '0 2 nan', want 3 finite numbers"),
        ("    OFFSET 0 2 0\n", "", "Left Arm has no OFFSET"),
        ("JOINT Spine", "ROOT Spine", "has a second ROOT; want one skeleton"),
        ("JOINT Spine", "JOINT", "at line 20: JOINT has no name"),
        ("JOINT Spine", "BONE Spine", "got 'BONE Spine', want JOINT, End Site, OFFSET, CHANNELS, braces or MOTION"),
        ("ROOT Hips\n{", "ROOT Hips", "at line 3: got 'OFFSET 0.5 0 0', want {"),
        ("}\nMOTION", "MOTION", "MOTION begins but the joint Hips is not closed"),
        ("}\nMOTION", "}\n}\nMOTION", "closes a brace that is not open"),
        (MIXED[MIXED.index("MOTION") :], "", "is truncated: has no MOTION"),
        ("Frames: 2", "Frames: two", "at line 31: Frames is 'two', want a whole number"),
        ("Frames: 2", "Frames: 2147483648", "want a whole number"),
        ("Frames: 2", "Frames: 3", "has 22 numbers for 3 poses of 11, want 33"),
        ("Frame Time: 0.5\n", "", "want Frame Time:"),
        ("Frame Time: 0.5", "Frame Time: 0", "at line 32: Frame Time is 0.0, want a positive number of seconds"),
        ("70 80", "70 8O", "at line 33: '8O' is not a number"),
        ("90 0 0", "90 nan 0", "at line 34: pose 1 holds nan, want finite numbers"),
        ("0 0 0   0 0\n", "", "at line 34: has 17 numbers for 2 poses of 11, want 22"),
    ],
)
def test_wrong_files(mixed, old, new, message):
    assert old in MIXED
    path = mixed(MIXED.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=re.escape(message)) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path} at line ")


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(MissingFileError, match=r"want a \.bvh file"):
        read_motion(tmp_path / "none.bvh")
    (tmp_path / "a.bvh").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"is empty \(0 bytes\)"):
        read_motion(tmp_path / "a.bvh")


def test_no_poses_is_a_skeleton(mixed):
    text = MIXED[: MIXED.index("1 2 3")].replace("Frames: 2", "Frames: 0")
    motion = load(mixed(text)).validate()
    assert len(motion) == 0 and len(motion.skeleton) == 6 and motion.positions().shape == (0, 6, 3)


def test_positions_of_the_root_replace_its_offset_axis_by_axis(mixed):
    """In a file whose OFFSET is the height of the hips, the figure stands on the floor instead of floating above it."""
    text = MIXED.replace("OFFSET 0.5 0 0", "OFFSET 0.5 94 0")
    torch.testing.assert_close(load(mixed(text)).positions(), load(mixed()).positions())
    line = next(line for line in MIXED.splitlines() if "CHANNELS 6" in line)
    fewer = re.sub(r"6 Yposition Xposition Zposition|6( \w+position){3}", "4 Xposition", line)
    text = (
        MIXED.replace(line, fewer)
        .replace("1 2 3 ", "2 ")
        .replace("0 0 0   90", "0   90")
        .replace("OFFSET 0.5 0 0", "OFFSET 7 94 0")
    )
    assert load(mixed(text)).positions()[0, 0].tolist() == pytest.approx([2, 94, 0])


def test_hips_below_a_root_on_the_floor_define_the_motion(tmp_path):
    """As in the files of Bandai Namco: the root is static, and everything is attached to hips with their own positions."""
    text = """HIERARCHY
ROOT Floor
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Hips
  {
    OFFSET 0 93 0
    CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
    JOINT Foot
    {
      OFFSET 0 -93 0
      CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 0 10
      }
    }
    End Site
    {
      OFFSET 0 50 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.1
1 0 0 0 0 90   0 90 5 0 0 0   0 -93 0 0 0 0
1 0 0 0 0 90   0 92 105 0 0 0   0 -93 0 0 0 0
"""
    (tmp_path / "a.bvh").write_text(text)
    motion = load(tmp_path / "a.bvh")  # without a warning
    turn = degrees("Y", 90)
    for pose, place in enumerate(([0, 90, 5], [0, 92, 105])):
        hips = np.array([1, 0, 0]) + turn @ place
        np.testing.assert_allclose(motion.positions()[pose, 1], hips, atol=1e-4)
        np.testing.assert_allclose(motion.positions()[pose, 2], hips - [0, 93, 0], atol=1e-4)


def test_bones_that_change_length_are_named(mixed):
    text = MIXED.replace("CHANNELS 0", "CHANNELS 3 Xposition Yposition Zposition")
    still = text.replace("70 80\n", "70 80 0 -1 0\n") + "0 0 0\n"
    torch.testing.assert_close(load(mixed(still)).positions(), load(mixed(MIXED)).positions())
    with pytest.warns(UserWarning, match=r"positions of Spine differ from its OFFSET by up to 0\.3; its bone keeps the OFFSET"):
        load(mixed(still.replace("80 0 -1 0", "80 0 -1.3 0")))


def test_written_files_round_trip(tmp_path, mixed):
    motion = load(mixed())
    motion.save(tmp_path / "b.bvh")
    again = load(tmp_path / "b.bvh")
    assert again.skeleton.parents == motion.skeleton.parents and again.skeleton.tips == motion.skeleton.tips
    assert again.skeleton.names == tuple(
        name.replace(" ", "_") if " end" not in name else name for name in motion.skeleton.names
    )
    torch.testing.assert_close(again.positions(), motion.positions(), atol=1e-6, rtol=0)
    torch.testing.assert_close(again.times, motion.times)


def test_rotations_by_90_degrees_about_y_are_written(tmp_path):
    half = math.sqrt(0.5)
    quats = torch.tensor([[[half, 0, half, 0]], [[half, 0, -half, 0]], [[0.5, 0.5, 0.5, 0.5]], [[0.5, -0.5, 0.5, -0.5]]])
    skeleton = Skeleton(("a",), (-1,), torch.zeros(1, 3))
    motion = Motion(skeleton, torch.arange(4.0, dtype=torch.float64), quats, torch.zeros(4, 3))
    write_motion(tmp_path / "a.bvh", motion)
    found = read_motion(tmp_path / "a.bvh").quats
    torch.testing.assert_close((found * quats).sum(-1).abs(), torch.ones(4, 1), atol=1e-6, rtol=0)


def test_motions_that_cannot_be_written(tmp_path, mixed):
    motion = load(mixed())
    uneven = Motion(
        motion.skeleton, torch.tensor([0, 0.1, 0.5]).double(), motion.quats[[0, 1, 0]], motion.translations[[0, 1, 0]]
    )
    with pytest.raises(InputError, match=r"not evenly spaced in time, as BVH has them; use Motion\.resampled"):
        uneven.save(tmp_path / "b.bvh")
    two = Motion(
        Skeleton(("a", "b"), (-1, -1), torch.zeros(2, 3)), torch.zeros(1).double(), random_quats(1, 2), torch.zeros(1, 3)
    )
    with pytest.raises(InputError, match="the skeleton has 2 roots, want one"):
        two.save(tmp_path / "b.bvh")
    assert not (tmp_path / "b.bvh").exists()


@pytest.mark.parametrize("name", ["dab", "zombie", "jumping", "jumping_jacks"])
def test_real_motion(shared_data, name, tmp_path):
    """Hips and feet of people: bones keep their lengths, feet stay near one ground plane, and there are no jumps."""
    motion = load(shared_data / "mocap" / f"{name}.bvh").validate()
    positions = motion.positions()
    parents = torch.tensor(motion.skeleton.parents)
    lengths = (positions[:, 1:] - positions[:, parents[1:]]).norm(dim=-1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), atol=1e-4, rtol=1e-5)
    size = float((positions[0].amax(0) - positions[0].amin(0)).max())
    speed = positions.diff(dim=0).norm(dim=-1).max() / motion.times.diff()[0]
    assert speed < 12 * size  # a hand can move some body lengths per second
    half = motion.resampled(float(1 / motion.times.diff()[0]) / 2)
    torch.testing.assert_close(half.positions()[:20], positions[::2][:20], atol=2e-3 * size, rtol=0)
