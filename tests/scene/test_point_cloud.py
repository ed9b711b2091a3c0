import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import FileFormatError, InputError, ShapeError
from vision3d.io.point_files import read_ply
from vision3d.scene import PointCloud, load

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def assert_same(a, b):
    left, right = a._tensors(), b._tensors()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert (value is None) == (right[name] is None), name
        assert value is None or (value.dtype == right[name].dtype and torch.equal(value, right[name])), name


def test_ply_round_trip_is_exact(cloud, tmp_path):
    cloud.save(tmp_path / "c.ply")
    again = load(tmp_path / "c.ply")
    assert isinstance(again, PointCloud)
    assert_same(PointCloud.load(tmp_path / "c.ply"), cloud)
    bare = PointCloud(cloud.points)
    bare.save(tmp_path / "b.ply")
    assert_same(PointCloud.load(tmp_path / "b.ply"), bare)


@settings(max_examples=30)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    st.integers(-(2**31), 2**31 - 1),
)
def test_any_values_round_trip(tmp_path_factory, values, number):
    x = torch.tensor(values)
    cloud = PointCloud(x[:, None].repeat(1, 3), intensity=x, attributes={"a": torch.full((len(x),), number)})
    path = tmp_path_factory.mktemp("c") / "c.ply"
    cloud.save(path)
    assert_same(PointCloud.load(path), cloud)


def test_kitti_bin(cloud, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "vision3d"):
        cloud.save(tmp_path / "c.bin")
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/c.bin: a .bin file cannot hold colors, normals, ring, time; dropped"
    ]
    rows = np.fromfile(tmp_path / "c.bin", np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(rows[:, :3], cloud.points.numpy())
    assert_same(PointCloud.load(tmp_path / "c.bin"), PointCloud(cloud.points, intensity=cloud.intensity))


def test_real_sweep(shared_data):
    cloud = PointCloud.load(shared_data / "kitti" / "velodyne" / "000000.bin")
    assert cloud.num_points > 100_000 and cloud.intensity.min() >= 0 and cloud.intensity.max() <= 1


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.bin", b"", "has 0 bytes, want a multiple of 16 above 0"),
        ("a.bin", b"\0" * 20, "has 20 bytes"),
        (
            "a.bin",
            np.array([0, 0, math.nan, 1], np.float32).tobytes(),
            "at row 0: points not finite in 1 of 1 rows; .* --filter-nan",
        ),
        ("a.ply", b"", "is not a .ply file"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n", "lacks y z"),
        (
            "a.ply",
            b"ply\nformat binary_little_endian 1.0\nelement vertex 4000000000\nproperty float x\nproperty float y\n"
            b"property float z\nend_header\n\0\0",
            "is truncated: it holds 0 whole rows of 4000000000",
        ),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
            b"property float intensity\nend_header\n1 2 3 nan\n",
            "at row 0: intensity not finite in 1 of 1 rows",
        ),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    read = read_ply if name.endswith("ply") else PointCloud.load
    with pytest.raises(FileFormatError, match=message):
        read(tmp_path / name)


def test_wrong_values_are_rejected(cloud, gaussians, tmp_path):
    with pytest.raises(ShapeError, match=r"PointCloud.colors: got shape \(2, 3\), want shape \(30, 3\)"):
        replace(cloud, colors=torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"attributes\['a'\]: got shape \(30, 1\)"):
        replace(cloud, attributes={"a": torch.zeros(30, 1)})
    for name in ("x", "a b", ""):
        with pytest.raises(InputError, match="attribute name"):
            replace(cloud, attributes={name: torch.zeros(30)})
    with pytest.raises(InputError, match="got 0 points"):
        cloud[:0].validate()
    with pytest.raises(InputError, match="time is not finite in 30 of 30"):
        replace(cloud, attributes={"time": torch.full((30,), math.inf)}).validate()
    with pytest.raises(InputError, match="ring reaches 2147483648, want 32-bit integers"):
        replace(cloud, attributes={"ring": torch.full((30,), 2**31)}).save(tmp_path / "a.ply")
    gaussians.save(tmp_path / "g.ply")
    with pytest.raises(InputError, match="holds a Gaussian scene, want a point cloud"):
        PointCloud.load(tmp_path / "g.ply")


def test_rows_motion_and_device(cloud, similarity):
    assert cloud[3].attributes["ring"].tolist() == [-1] and cloud[cloud.points[:, 0] > 0].num_points < 30
    moved = cloud.transform(similarity)
    torch.testing.assert_close(moved.points, cloud.points @ similarity[:3, :3].T + similarity[:3, 3])
    torch.testing.assert_close(moved.normals, cloud.normals @ (similarity[:3, :3] / 2).T)
    assert cloud.to("meta").attributes["time"].device.type == "meta"
    assert repr(cloud) == "PointCloud(30 points, colors, normals, intensity, ring, time, cpu)"
    assert "ring" in cloud._repr_html_()
