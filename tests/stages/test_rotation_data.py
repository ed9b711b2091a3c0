"""Point clouds and motion of the rotation experiments: reading, sampling and invalid data."""

import dataclasses
import math
import struct
import zipfile

import numpy as np
import pytest
import torch

from tests.support.clouds import drawn_clouds, drawn_motion, write_clip, write_cloud_folder, write_clouds
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.geometry.gram_schmidt import haar_rotmats
from vision3d.geometry.kinematics import forward_kinematics
from vision3d.geometry.quaternion import quat_to_rotmat
from vision3d.geometry.rotation import geodesic_distance
from vision3d.io.bvh import write_motion
from vision3d.stages.rotation import IkConfig, PointCloudConfig
from vision3d.stages.rotation.clouds import read_clouds
from vision3d.stages.rotation.experiments import PointCloudExperiment, draw_rotmats, pick_points, turn
from vision3d.stages.rotation.ik import IkExperiment, read_poses, up_axis, weighted_joints

CPU = torch.device("cpu")


# ---------------------------------------------------------------- clouds


def test_archives_and_folders_have_the_same_content(tmp_path):
    clouds = read_clouds(write_clouds(tmp_path / "c.npz"), 40)
    assert (clouds.train.shape, clouds.test.shape, clouds.train.dtype) == ((12, 40, 3), (4, 40, 3), torch.float32)
    torch.testing.assert_close(clouds.train, torch.from_numpy(drawn_clouds(12).astype(np.float32)))
    assert clouds.source.startswith("c.npz, 12 training and 4 test clouds of 40 points, ")
    folder = read_clouds(write_cloud_folder(tmp_path / "folder"))
    assert (folder.train.shape, folder.test.shape) == ((3, 40, 3), (2, 40, 3)), "both suffixes, points truncated to the minimum"
    torch.testing.assert_close(folder.train[1], torch.from_numpy(drawn_clouds(3)[1].astype(np.float32)), atol=1e-5, rtol=0)


def test_the_planes(shared_data):
    clouds = read_clouds(shared_data / "pointclouds" / "planes.npz", 256)
    assert (clouds.train.shape, clouds.test.shape) == ((2290, 1024, 3), (200, 1024, 3))


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"train": None}, r"has arrays test; want train and test \(clouds, points, 3\)"),
        ({"train": np.zeros((2, 40))}, r"array train: holds float64 \(2, 40\), want floats \(clouds, points, 3\)"),
        ({"test": np.zeros((2, 40, 4))}, r"array test: holds float64 \(2, 40, 4\), want floats"),
        ({"test": np.zeros((2, 40, 3), int)}, r"array test: holds int64 \(2, 40, 3\), want floats"),
        ({"test": np.zeros((0, 40, 3))}, r"array test: holds float64 \(0, 40, 3\), want floats"),
        ({"train": np.full((2, 40, 3), np.nan)}, "array train: cloud 0 has numbers that are not finite"),
        ({"train": np.full((2, 40, 3), 1e300)}, "array train: cloud 0 has numbers that are not finite"),
        ({"train": np.array([{}, {}])}, "holds pickled objects, which could run code; nothing was executed"),
    ],
)
def test_wrong_archives(tmp_path, arrays, text):
    with pytest.raises(FileFormatError, match=text):
        read_clouds(write_clouds(tmp_path / "c.npz", **arrays))


def test_other_files(tmp_path):
    with pytest.raises(MissingFileError, match=r"does not exist; want an \.npz with arrays train and test"):
        read_clouds(tmp_path / "c.npz")
    (tmp_path / "c.npz").write_bytes(b"PK and nothing")
    with pytest.raises(FileFormatError, match=r"is damaged or not an \.npz"):
        read_clouds(tmp_path / "c.npz")
    whole = write_clouds(tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:200] + bytes(200) + whole[400:])
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_clouds(tmp_path / "d.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_hostile_archives(tmp_path, save):
    """Whatever the bytes, clouds or a FileFormatError."""
    arrays = {name: np.random.default_rng(seed).normal(size=(2, 9, 3)) for seed, name in enumerate(("train", "test"))}
    save(tmp_path / "c.npz", **arrays)
    data, rng, refused = (tmp_path / "c.npz").read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(4):
            changed[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / "c.npz").write_bytes(changed)
        try:
            assert read_clouds(tmp_path / "c.npz").train.shape[-1] == 3
        except InputError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("header", [900 * b"(", 9000 * b"-" + b"1", b"{'a': " * 400, b"\xff", b"{'descr': [('a',)]}"])
def test_hostile_headers(tmp_path, header):
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        for name in ("train.npy", "test.npy"):
            archive.writestr(name, b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_clouds(tmp_path / "c.npz")


def test_too_few_points_and_the_same_clouds_twice(tmp_path):
    path = write_clouds(tmp_path / "c.npz")
    with pytest.raises(InputError, match="clouds of train have 40 points, fewer than --points 41"):
        read_clouds(path, 41)
    clouds = drawn_clouds(12)
    with pytest.raises(InputError, match="2 of the test clouds are also training clouds"):
        read_clouds(write_clouds(tmp_path / "d.npz", test=clouds[3:5]))


def test_wrong_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"points: holds no \.pts or \.xyz files; want an \.npz"):
        read_clouds(tmp_path / "empty")
    folder = write_cloud_folder(tmp_path / "folder")
    for text, problem in (
        ("1 2 3\n1 2\n", r"0\.pts at line 2: '1 2' is not a point, want x y z"),
        ("1 2 x\n", "'1 2 x' is not a point"),
        ("1 2 inf\n", "'1 2 inf' is not a point"),
        ("1 2 1e39\n", "'1 2 1e39' is not a point"),
        ("\n", "holds no points"),
    ):
        (folder / "points" / "0.pts").write_text(text)
        with pytest.raises(FileFormatError, match=problem):
            read_clouds(folder)


def test_drawn_rotations():
    generator = torch.Generator().manual_seed(0)
    for sampling, mean in (("haar", 126.5), ("published", 90.0)):
        angles = torch.rad2deg(geodesic_distance(draw_rotmats(sampling, 20_000, generator=generator), torch.eye(3)))
        assert float(angles.mean()) == pytest.approx(mean, abs=1.2)
    angles = angles.sort().values
    torch.testing.assert_close(angles, torch.linspace(0, 180, 20_000), atol=3.0, rtol=0)


def test_sampled_points_are_distinct_points_of_the_cloud():
    clouds = torch.arange(2 * 30 * 3.0).view(2, 30, 3)
    picked = pick_points(clouds, 10, torch.Generator().manual_seed(0))
    for cloud, few in zip(clouds, picked):
        rows = (few[:, None] == cloud).all(-1)
        assert bool((rows.sum(1) == 1).all()) and int(rows.any(0).sum()) == 10
    assert pick_points(clouds, 0, torch.Generator()) is clouds and pick_points(clouds, 30, torch.Generator()) is clouds


def test_rotated_clouds_and_the_error_of_a_perfect_network(tmp_path):
    cloud, rotmats = torch.randn(1, 5, 3), haar_rotmats(3, 1, 2)
    torch.testing.assert_close(turn(cloud, rotmats)[0, 1, 2], rotmats[0, 1] @ cloud[0, 2])
    config = PointCloudConfig(points=20, test_rotations=3)
    experiment = PointCloudExperiment(config, read_clouds(write_clouds(tmp_path / "c.npz")), CPU)

    class Registers(torch.nn.Module):
        def forward(self, clouds, turned):
            from vision3d.geometry.registration import kabsch

            return torch.stack([kabsch(clouds[0], copy)[0] for copy in turned[0]])[None]

    errors = experiment.errors(Registers())
    assert errors.shape == (12,) and float(errors.max()) < 0.1


# ---------------------------------------------------------------- motion


@pytest.fixture
def clips(tmp_path):
    return write_clip(tmp_path / "a.bvh"), write_clip(tmp_path / "b.bvh", seed=1)


def test_poses_are_in_meters_with_the_root_at_zero(clips):
    poses = read_poses(clips[:1], clips[1:], IkConfig())
    assert poses.up == 1
    rest = forward_kinematics(torch.eye(3).expand(7, 3, 3), poses.skeleton.offsets, poses.skeleton.parents)[1]
    assert float(rest[:, 1].max() - rest[:, 1].min()) == pytest.approx(1.7, abs=1e-5)
    assert float(poses.test[:, 0].abs().max()) == 0
    assert (len(poses.train), len(poses.test)) == (40, 40)
    assert read_poses(clips[:1], clips[1:], IkConfig(scale=0.5)).scale == 0.5
    slow = read_poses(clips[:1], clips[1:], IkConfig(rate=15))
    torch.testing.assert_close(slow.test, poses.test[::2], atol=1e-4, rtol=0)
    torch.testing.assert_close(slow.train, poses.train[::2], atol=1e-4, rtol=0)


def test_real_clips_are_upright_and_of_human_height(shared_data):
    folder = shared_data / "mocap"
    poses = read_poses([folder / "jumping.bvh"], [folder / "dab.bvh"], IkConfig())
    assert ("xyz"[poses.up], poses.scale) == ("z", pytest.approx(0.0375, abs=0.001))
    heights = poses.test[..., poses.up]
    # Most poses are standing: as tall as the rest pose, and not along another axis.
    assert float((heights.amax(1) - heights.amin(1)).median()) == pytest.approx(1.7, rel=0.05)
    with pytest.raises(
        InputError, match=r"jumping_jacks\.bvh: has a different skeleton than .*dab\.bvh \(38 joints, there 34\)"
    ):
        read_poses([folder / "dab.bvh"], [folder / "jumping_jacks.bvh"], IkConfig())


def test_positions_of_the_true_rotations_have_no_error(clips):
    poses = read_poses(clips[:1], clips[1:], IkConfig())
    experiment = IkExperiment(IkConfig(shift=0.3), poses, CPU)
    motion = drawn_motion(seed=1)
    names = poses.skeleton.names
    assert [names[joint] for joint in experiment.turning] == ["Hips", "Spine", "LeftLeg", "RightLeg"]
    order = [motion.skeleton.names.index(names[joint]) for joint in experiment.turning]
    rotmats = quat_to_rotmat(motion.quats[:, order])
    roots = torch.randn(40, 3)
    places = experiment.places(rotmats, roots)
    torch.testing.assert_close(places - roots[:, None], poses.test, atol=2e-4, rtol=0)


def test_errors_are_centimeters_over_all_joints_except_the_root(clips):
    poses = read_poses(clips[:1], clips[1:], IkConfig())
    experiment = IkExperiment(IkConfig(), poses, CPU)
    joints = len(poses.skeleton)

    class Still(torch.nn.Module):
        def forward(self, places):
            return torch.eye(3).expand(len(places), len(experiment.turning), 3, 3)

    errors = experiment.errors(Still())
    assert errors.shape == (4 * 40 * (joints - 1),)
    rest = forward_kinematics(torch.eye(3).expand(joints, 3, 3), poses.skeleton.offsets, poses.skeleton.parents)[1]
    expected = 100 * (experiment.test - (rest - rest[0])).norm(dim=-1)[:, 1:]
    torch.testing.assert_close(errors.view(-1, joints - 1), expected, atol=1e-3, rtol=1e-4)


def test_loss_of_an_untrained_network_and_of_raw_matrices(clips):
    poses = read_poses(clips[:1], clips[1:], IkConfig())
    plain, heavy = (IkExperiment(IkConfig(hip_weight=weight), poses, CPU) for weight in (0.0, 10.0))
    torch.manual_seed(0)
    network = plain.network("9d_direct").train()

    def loss(experiment):
        return experiment.loss(network, torch.Generator().manual_seed(1))

    assert float(loss(heavy).detach()) > float(loss(plain).detach()) > 0
    head = network.head
    assert not head.is_projected and network.eval().head.is_projected
    network.train()
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.mul_(0.5)  # half the identity: bones of half length, as nothing is projected
    places = plain.test[:8]
    with torch.no_grad():
        shrunk = plain.places(network(places), places[:, 0])
        whole = plain.places(network.eval()(places), places[:, 0])
    assert float(shrunk.norm(dim=-1).sum()) < 0.8 * float(whole.norm(dim=-1).sum())


def test_yaw_keeps_heights_and_lengths(clips):
    poses = read_poses(clips[:1], clips[1:], IkConfig())
    experiment = IkExperiment(IkConfig(), poses, CPU)
    turned = experiment.test
    still = poses.test.repeat(4, 1, 1)
    torch.testing.assert_close(turned[..., 1], still[..., 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.norm(dim=-1), still.norm(dim=-1), atol=1e-5, rtol=0)
    assert float((turned - still).abs().max()) > 0.1


def test_weighted_joints_are_matched_by_name():
    skeleton = drawn_motion().skeleton
    assert [skeleton.names[joint] for joint in weighted_joints(skeleton)] == ["Spine", "LeftLeg", "RightLeg"]
    assert weighted_joints(skeleton, ("Head",)) == [2]
    with pytest.raises(ConfigError, match="weighted: no joint is named 'Haed'; did you mean Head"):
        weighted_joints(skeleton, ("Haed",))


def test_up_axis():
    skeleton = drawn_motion().skeleton
    assert up_axis(skeleton) == 1 and up_axis(skeleton, "z") == 2
    turned = dataclasses.replace(skeleton, offsets=skeleton.offsets[:, [2, 0, 1]])
    assert up_axis(turned) == 2
    nameless = dataclasses.replace(skeleton, names=tuple("abcdefg"))
    with pytest.raises(ConfigError, match="up: no joint is named head or foot, so the up axis is unknown; give --up"):
        up_axis(nameless)


def test_wrong_clips(tmp_path, clips):
    a, b = clips
    for name, options, text in (
        (
            "bones",
            {"bone": 11.0},
            r"bones\.bvh: has a different skeleton than .*a\.bvh \(the bone to LeftFoot has another length",
        ),
        (
            "names",
            {"names": ("Hips", "Spine", "Head", "LeftLeg", "LeftFoot", "RightLeg", "RightToe")},
            r"names\.bvh: has a different skeleton than .*\(joint \d is Right",
        ),
        ("short", {"poses": 10}, r"short\.bvh: 10 poses at 30 per second, want at least 16"),
        ("single", {"poses": 1}, r"single\.bvh: has 1 poses, want at least 16"),
    ):
        with pytest.raises(InputError, match=text):
            read_poses([a], [write_clip(tmp_path / f"{name}.bvh", seed=2, **options)], IkConfig())
    same = tmp_path / "same.bvh"
    same.write_bytes(b.read_bytes())
    with pytest.raises(InputError, match=r"same\.bvh: has the same motion as .*b\.bvh, which is a training clip"):
        read_poses([a, b], [same], IkConfig())
    with pytest.raises(InputError, match="got 1 to train on and 0 for testing, want at least one of each"):
        read_poses([a], [], IkConfig())
    with pytest.raises(InputError, match=r"of the skeleton has no height along z; give --scale or --up"):
        read_poses([a], [b], IkConfig(up="z"))
    motion = drawn_motion(poses=20)
    write_motion(tmp_path / "c.bvh", motion)
    assert math.isfinite(read_poses([a], [tmp_path / "c.bvh"], IkConfig(rate=40)).scale) is True
