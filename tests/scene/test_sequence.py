import errno
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.errors import FileFormatError, InputError, MissingFileError, OutputExistsError, ShapeError
from vision3d.geometry.edge_factors import gaussians_to_factors
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.geometry.rotation import so3_exp
from vision3d.io import zarr_store
from vision3d.io.zarr_store import SequenceWriter
from vision3d.render import render_views
from vision3d.scene import Boxes, FrameSequence, GaussianScene, MeshGaussians, PointCloud, Scene, load

TIMES = torch.tensor([0.0, 0.1, 0.25], dtype=torch.float64)


@pytest.fixture
def moving(gaussians):
    channels = {"means": torch.randn(3, 40, 3), "covar_factors": torch.randn(3, 40, 3, 3)}
    return FrameSequence(gaussians, TIMES, channels)


def test_the_mesh_of_a_frame(mesh):
    """Also below Gaussians; its normals are updated."""
    turned = mesh.vertices[:, [1, 2, 0]]
    plain = replace(mesh, normals=vertex_normals(mesh.vertices, mesh.faces))
    moved = torch.stack([mesh.vertices, turned])
    for base in (plain, MeshGaussians.from_mesh(plain, 1)):
        sequence = FrameSequence(base, TIMES[:2], {"vertices": moved})
        assert torch.equal(sequence.vertices(), moved) and torch.equal(sequence.mesh_at(1).vertices, turned)
        torch.testing.assert_close(sequence.mesh_at(1).normals, plain.normals[:, [1, 2, 0]], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"^FrameSequence: has 0 frames, want at least one$"):
        FrameSequence(plain, TIMES[:0]).vertices()


def test_frames_of_other_types_have_no_mesh(moving):
    with pytest.raises(
        InputError, match=r"^FrameSequence: holds frames of GaussianScene, want those of a Mesh or MeshGaussians$"
    ):
        moving.mesh_at(0)


def test_frames_have_the_covariances_of_their_factors(moving, gaussians):
    frame = moving.frame(1)
    factors = moving.channels["covar_factors"][1]
    torch.testing.assert_close(frame.covars, factors @ factors.mT, rtol=1e-3, atol=1e-3)
    assert torch.equal(frame.means, moving.channels["means"][1]) and torch.equal(frame.sh, gaussians.sh)
    edges = torch.randn(1, 40, 3, 2)
    flat = FrameSequence(replace(gaussians, mode="flat"), TIMES[:1], {"edges": edges}).frame(0)
    torch.testing.assert_close(flat.covars, edges[0] @ edges[0].mT, rtol=1e-3, atol=1e-4)
    assert torch.equal(moving.frame(-1).means, moving.channels["means"][2]) and len(list(moving)) == 3


def test_boxes_move(tmp_path):
    values = torch.tensor([[10.0, 2, -1, 4, 1.8, 1.5, 0], [5, 0, -1, 1, 1, 2, 1]])
    boxes = Boxes(values, torch.tensor([0, 1]), classes=("Car", "Cow"))
    moved = boxes.boxes + torch.arange(3.0)[:, None, None] * torch.tensor([0.5, 0, 0, 0, 0, 0, 0.1])
    FrameSequence(boxes, TIMES, {"boxes": moved}).save(tmp_path / "drive.zarr")
    read = load(tmp_path / "drive.zarr").frame(2)
    assert torch.equal(read.boxes, moved[2]) and torch.equal(read.labels, boxes.labels) and read.classes == boxes.classes


def test_meshes_points_and_gaussians_on_meshes_move(mesh, cloud):
    vertices = mesh.vertices + torch.randn(3, 6, 3)
    assert torch.equal(FrameSequence(mesh, TIMES, {"vertices": vertices}).frame(2).vertices, vertices[2])
    bound = MeshGaussians.from_mesh(mesh, 3)
    frame = FrameSequence(bound, TIMES, {"vertices": vertices}).frame(0)
    assert isinstance(frame, GaussianScene) and torch.equal(frame.means, bound.to_gaussians(vertices[0]).means)
    assert torch.equal(FrameSequence(cloud, TIMES, {"intensity": torch.ones(3, 30)}).frame(0).points, cloud.points)


def test_round_trip_is_exact_and_lazy(moving, tmp_path):
    moving.save(tmp_path / "m.zarr")
    again = load(tmp_path / "m.zarr")
    assert isinstance(again, FrameSequence) and torch.equal(again.times, TIMES)
    for name, values in moving.channels.items():
        assert not isinstance(again.channels[name], torch.Tensor)
        assert all(torch.equal(again.channels[name][i], values[i]) for i in range(3))
    assert torch.equal(again.base.sh, moving.base.sh)
    (tmp_path / "m.zarr" / "means" / "1.0.0").unlink()
    again.frame(2)
    with pytest.raises(MissingFileError, match=r"1\.0\.0: does not exist; want frame 1 of means"):
        again.frame(1)
    moving.save(tmp_path / "m.zarr")  # replaces the previous one
    assert len(FrameSequence.load(tmp_path / "m.zarr")) == 3 and [p.name for p in tmp_path.iterdir()] == ["m.zarr"]
    Scene({"a": moving}).save(tmp_path / "room")
    assert len(Scene.load(tmp_path / "room")["a"]) == 3


def test_zarr_reads_what_we_write(moving, tmp_path):
    zarr = pytest.importorskip("zarr")
    moving.save(tmp_path / "m.zarr")
    group = zarr.open_group(str(tmp_path / "m.zarr"), mode="r")
    np.testing.assert_array_equal(group["means"][:], moving.channels["means"].numpy())
    np.testing.assert_array_equal(group["times"][:], TIMES.numpy())


@pytest.mark.parametrize("num_writes", range(6))
def test_a_kill_between_any_two_files_leaves_complete_frames(cloud, tmp_path, monkeypatch, num_writes):
    path = tmp_path / "m.zarr"
    frames = torch.randn(4, 30, 3)
    writer = SequenceWriter(path, cloud)
    writer.append(0.0, points=frames[0], normals=frames[0])
    done = 0

    def killed(target):
        nonlocal done
        done += 1
        if done > num_writes:
            raise KeyboardInterrupt
        return atomic_write(target)

    atomic_write = zarr_store.atomic_write
    monkeypatch.setattr(zarr_store, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):  # six files for the second frame: two chunks, two shapes, the time and its shape
        writer.append(1.0, points=frames[1], normals=frames[1])
    monkeypatch.setattr(zarr_store, "atomic_write", atomic_write)
    sequence = FrameSequence.load(path)
    assert len(sequence) == 1 and torch.equal(sequence.frame(0).points, frames[0])
    writer = SequenceWriter(path, cloud, resume=True)
    writer.append(2.0, points=frames[2], normals=frames[2])
    sequence = FrameSequence.load(path)
    assert sequence.times.tolist() == [0, 2] and torch.equal(sequence.frame(1).points, frames[2])


def test_the_writer_rejects_invalid_frames(cloud, gaussians, tmp_path):
    path = tmp_path / "m.zarr"
    writer = SequenceWriter(path, cloud)
    assert len(FrameSequence.load(path)) == 0
    writer.append(0.0, points=cloud.points)
    with pytest.raises(InputError, match=r"time 0\.0 of frame 1, want more than 0\.0"):
        writer.append(0.0, points=cloud.points)
    with pytest.raises(InputError, match="frame 1 has the channels none; want points"):
        writer.append(1.0)
    with pytest.raises(ShapeError, match=r"points: got shape \(29, 3\), want shape \(30, 3\)"):
        writer.append(1.0, points=cloud.points[:29])
    with pytest.raises(InputError, match="points is not finite in frame 1"):
        writer.append(1.0, points=cloud.points / 0)
    with pytest.raises(OutputExistsError):
        SequenceWriter(path, cloud)
    with pytest.raises(InputError, match="holds frames of PointCloud"):
        SequenceWriter(path, gaussians, resume=True)
    with pytest.raises(OutputExistsError, match=r"it is not a \.zarr folder"):
        FrameSequence(cloud, TIMES).save(_file(tmp_path))
    assert len(writer) == len(FrameSequence.load(path)) == 1


def _file(folder):
    path = folder / "x.zarr"
    path.write_text("")
    return path


def test_wrong_sequences(gaussians, cloud, moving):
    with pytest.raises(InputError, match="GaussianScene has no channel 'mean'; want means, quats"):
        FrameSequence(gaussians, TIMES, {"mean": torch.zeros(3, 40, 3)})
    with pytest.raises(ShapeError, match=r"channels\['means'\]: got shape \(2, 40, 3\), want shape \(3, 40, 3\)"):
        FrameSequence(gaussians, TIMES, {"means": torch.zeros(2, 40, 3)})
    with pytest.raises(InputError, match="exclude each other"):
        FrameSequence(gaussians, TIMES, {"quats": torch.zeros(3, 40, 4), "edges": torch.zeros(3, 40, 3, 2)})
    with pytest.raises(InputError, match="got Tensor, want GaussianScene, Mesh"):
        FrameSequence(TIMES, TIMES)
    with pytest.raises(InputError, match="times do not ascend after frame 0"):
        FrameSequence(cloud, TIMES.flip(0)).validate()
    with pytest.raises(InputError, match="no frame 3, there are 3"):
        moving.frame(3)
    with pytest.raises(InputError, match="frame 0: points is not finite"):
        FrameSequence(cloud, TIMES, {"points": torch.full((3, 30, 3), torch.inf)}).frame(0)
    assert repr(moving) == f"FrameSequence(3 frames of means, covar_factors, {moving.base!r})"
    assert "0 to 0.25" in moving._repr_html_() and moving.to("meta").channels["means"].device.type == "meta"


def test_frames_without_files_do_not_count(cloud, tmp_path):
    writer = SequenceWriter(tmp_path / "m.zarr", cloud)
    writer.append(0.0)
    index = tmp_path / "m.zarr" / "times" / ".zarray"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"shape": [2**40]}))
    with pytest.raises(MissingFileError, match="want frame 1 of times"):
        FrameSequence.load(tmp_path / "m.zarr")


@pytest.mark.parametrize(
    "file, content, message",
    [
        (".zattrs", {"vision3d": {"type": "scene"}}, "is not a vision3d sequence"),
        (".zattrs", {"vision3d": {"type": "sequence", "version": 4}}, "is version 4 of a sequence; version 1 is read"),
        (".zattrs", {"base": "../a.ply"}, r"names '\.\./a\.ply', which is outside its folder"),
        (".zattrs", {"base": "."}, r"names '\.', its own folder; want a file in it"),
        (".zattrs", {"base": ""}, "its own folder"),
        (".zattrs", {"base": "../m.zarr"}, "its own folder"),
        (".zattrs", {"base": "\ud800"}, "cannot be read"),
        (".zattrs", {"channels": ["../means"]}, "outside its folder"),
        (".zattrs", {"channels": 3}, "has no base and channels"),
        ("means/.zarray", {"dtype": "|O"}, "is not an array of one chunk per frame"),
        ("means/.zarray", {"compressor": {"id": "blosc"}}, "compressor 'blosc', want zlib or none"),
        ("means/.zarray", {"shape": [3, 2**40, 3], "chunks": [1, 2**40, 3]}, r"channels\['means'\]: got shape"),
        ("means/.zarray", {"chunks": [3, 40, 3]}, "is not an array of one chunk per frame"),
        ("times/.zarray", {"shape": [3, 1], "chunks": [1, 1]}, r"has shape \(3, 1\), want one axis"),
        ("times/0", b"x", "is damaged"),
        ("means/1.0.0", zlib.compress(b"\0" * 10**6), "holds more bytes, want 480"),
        ("means/1.0.0", zlib.compress(b"\0" * 9), "holds 9 bytes, want 480"),
    ],
)
def test_damaged_folders(moving, tmp_path, file, content, message):
    path = tmp_path / "m.zarr"
    moving.save(path)
    if isinstance(content, bytes):
        (path / file).write_bytes(content)
    else:
        old = json.loads((path / file).read_text())
        if file == ".zattrs" and "vision3d" not in content:
            content = {"vision3d": old["vision3d"] | content}
        (path / file).write_text(json.dumps(old | content))
    with pytest.raises((FileFormatError, MissingFileError), match=message):
        load(path).frame(1)


def test_the_previous_sequence_is_restored_if_it_cannot_be_replaced(tmp_path, monkeypatch):
    cloud = PointCloud(torch.zeros(2, 3))
    FrameSequence(cloud, torch.tensor([0.0]), {"points": torch.ones(1, 2, 3)}).save(tmp_path / "a.zarr")
    really = os.replace

    def replace_folder(source, target):
        if ".tmp" in Path(source).name and Path(source).is_dir():
            raise OSError(errno.ENOSPC, "No space left on device")
        really(source, target)

    monkeypatch.setattr(os, "replace", replace_folder)
    with pytest.raises(OSError, match="No space left"):
        FrameSequence(cloud, torch.tensor([5.0]), {"points": torch.zeros(1, 2, 3)}).save(tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert FrameSequence.load(tmp_path / "a.zarr").times.tolist() == [0.0]


def test_rotated_harmonics_match_a_rotated_camera():
    """A rigidly rotating scene, given by its channels, seen by a camera that rotates with it: always the same image."""
    torch.manual_seed(0)
    scene = ring_scene(300, sh_degree=3)
    scene = replace(scene, sh=scene.sh + 0.3 * torch.randn(scene.sh.shape))
    rotmat = so3_exp(torch.tensor([0.7, -1.1, 0.4]))
    factors = gaussians_to_factors(scene.quats, scene.scales)
    turns = rotmat_to_quat(rotmat).expand(len(scene), 4)
    channels = {"means": scene.means @ rotmat.T, "covar_factors": rotmat @ factors, "turns": turns}
    moving = FrameSequence(scene, torch.zeros(1), {name: value[None] for name, value in channels.items()})
    cameras = ring_cameras(2, 96, 72)
    motion = torch.eye(4)
    motion[:3, :3] = rotmat
    turned = replace(cameras, viewmats=cameras.viewmats @ motion.T)
    frame = moving.frame(0)
    images = [render_views(*pair) for pair in ((scene, cameras), (frame, turned), (replace(frame, sh=scene.sh), turned))]
    for before, after, still in zip(*images):
        error = (before.image - after.image).square().mean()
        assert -10 * torch.log10(error) > 45
        assert (
            -10 * torch.log10((before.image - still.image).square().mean()) < 35
        )  # without rotated harmonics the image differs


def test_turns_replace_harmonics():
    scene = ring_scene(20, sh_degree=2)
    turns = torch.zeros(1, len(scene), 4)
    turns[..., 0] = 1
    moving = FrameSequence(scene, torch.zeros(1), {"turns": turns})
    assert torch.equal(moving.frame(0).sh, scene.sh)  # bitwise unchanged without rotation
    with pytest.raises(InputError, match="FrameSequence: sh and turns exclude each other"):
        FrameSequence(scene, torch.zeros(1), {"turns": turns, "sh": scene.sh[None]})
