"""Mesh animations as .npz, folders of frames and USD: round trips, other readers, invalid files."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
import torch

from tests.support.splats import small_scene
from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError, OutputExistsError
from vision3d.core.install import install_command
from vision3d.geometry import shapes
from vision3d.geometry.mesh import vertex_normals
from vision3d.io import mesh_frames, npz_file, usd_file
from vision3d.scene import FrameSequence, GaussianScene, Mesh, MeshGaussians, load

TIMES = torch.tensor([0.0, 0.04, 0.08, 0.5], dtype=torch.float64)


def wobble(**extras):
    vertices, faces = shapes.icosphere(1)
    moved = vertices + 0.2 * torch.randn(4, *vertices.shape)
    return FrameSequence(Mesh(vertices, faces, **extras), TIMES, {"vertices": moved})


def dressed():
    vertices, _ = shapes.icosphere(1)
    texture = torch.randint(0, 256, (4, 6, 3)) / 255
    return wobble(uvs=torch.rand(len(vertices), 2), texture=texture, normals=vertex_normals(*shapes.icosphere(1)))


def same(back, sequence, atol=0.0):
    assert torch.equal(back.times, sequence.times) and torch.equal(back.base.faces, sequence.base.faces)
    torch.testing.assert_close(back.vertices(), sequence.vertices(), atol=atol, rtol=0)


# .npz


def test_npz_round_trip(tmp_path):
    sequence = dressed()
    sequence.save(tmp_path / "a.npz")
    back = load(tmp_path / "a.npz")
    same(back, sequence)
    for name in ("vertices", "uvs", "normals", "texture"):
        torch.testing.assert_close(getattr(back.base, name), getattr(sequence.base, name))
    plain = np.load(tmp_path / "a.npz")
    assert plain["vertices"].shape == (4, 42, 3) and plain["vertices"].dtype == np.float32 and plain["times"].shape == (4,)


def test_npz_of_other_programs(tmp_path):
    """Doubles, 32-bit faces, no rest pose: the first frame is used instead."""
    sequence = wobble()
    arrays = {"vertices": sequence.vertices().double().numpy(), "faces": sequence.base.faces.numpy().astype("<i4")}
    np.savez_compressed(tmp_path / "a.npz", times=TIMES.numpy(), others=np.array(["text"]), **arrays)
    back = FrameSequence.load(tmp_path / "a.npz")
    same(back, sequence)
    torch.testing.assert_close(back.base.vertices, sequence.vertices()[0])


def npz(tmp_path, **changes):
    sequence = wobble()
    arrays = {"vertices": sequence.vertices().numpy(), "faces": sequence.base.faces.numpy(), "times": TIMES.numpy()}
    arrays = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"faces": None, "times": None}, r"at arrays: has no faces and times; want vertices \(T, V, 3\), faces \(F, 3\)"),
        ({"vertices": np.zeros((4, 42))}, r"at vertices: has shape \(4, 42\), want \(T, V, 3\)$"),
        ({"vertices": np.zeros((0, 42, 3))}, r"at vertices: has shape \(0, 42, 3\), want \(T, V, 3\)$"),
        ({"vertices": np.full((4, 42, 3), np.nan)}, r"is not finite"),
        ({"times": np.array([0.0, 1, 1, 2])}, r"times do not ascend after frame 1$"),
        ({"times": np.zeros(3)}, r"got shape \(4, 42, 3\), want shape \(3, 42, 3\)$"),
        ({"faces": np.full((2, 3), 99)}, r"face 0 is \[99, 99, 99\], but there are 42 vertices$"),
        ({"faces": np.array([["a", "b", "c"]])}, r"at faces: is of <U1, want numbers$"),
        ({"vertices": np.array([{"a": 1}], dtype=object)}, r"is not an \.npz of numbers \('Object arrays cannot be loaded"),
    ],
)
def test_wrong_npz(tmp_path, changes, text):
    with pytest.raises(FileFormatError, match=text) as caught:
        npz_file.read_sequence(npz(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_npz_that_declares_too_much(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 42, 3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("vertices", "faces", "times"):
            archive.writestr(f"{name}.npy", buffer.getvalue())
    with pytest.raises(FileFormatError, match=r"at vertices: declares shape"):
        npz_file.read_sequence(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vertices.npy", bytes(80 << 20))
    with pytest.raises(FileFormatError, match=r"unpacks to"):
        npz_file.read_sequence(tmp_path / "b.npz")
    with pytest.raises(MissingFileError, match=r"want frames of a mesh"):
        npz_file.read_sequence(tmp_path / "c.npz")


# Folders of frames


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_frames_round_trip(tmp_path, suffix):
    pytest.importorskip("trimesh")
    sequence = wobble()
    mesh_frames.write_frames(tmp_path / "frames", sequence, suffix)
    assert len(list((tmp_path / "frames").glob(f"frame_*{suffix}"))) == 4
    same(load(tmp_path / "frames"), sequence, atol=1e-8)


def test_frames_share_a_texture_and_have_their_own_normals(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    sequence = dressed()
    mesh_frames.write_frames(tmp_path / "frames", sequence)
    assert len(list((tmp_path / "frames").glob("*.png"))) == 1
    last = Mesh.load(tmp_path / "frames" / "frame_00003.obj")
    torch.testing.assert_close(last.texture, sequence.base.texture)
    want = sequence.mesh_at(3)
    torch.testing.assert_close(want.normals, vertex_normals(want.vertices, want.faces))
    assert trimesh.load_mesh(tmp_path / "frames" / "frame_00003.obj").visual.material.image.size == (6, 4)


def test_frames_of_gaussians_on_a_mesh(tmp_path):
    sequence = wobble()
    bound = FrameSequence(MeshGaussians.from_mesh(sequence.base, 1), TIMES, {"vertices": sequence.vertices()})
    mesh_frames.write_frames(tmp_path / "splats", bound, ".ply")
    back = GaussianScene.load(tmp_path / "splats" / "frame_00002.ply")
    torch.testing.assert_close(back.means, bound.frame(2).means)
    pytest.importorskip("trimesh")
    mesh_frames.write_frames(tmp_path / "meshes", bound, ".obj")
    same(mesh_frames.read_frames(tmp_path / "meshes"), sequence, atol=1e-8)


@pytest.mark.parametrize("suffix", [".ply", ".sog"])
def test_frames_of_gaussians_are_numbered_for_supersplat(tmp_path, suffix):
    base = small_scene(1)
    moving = FrameSequence(base, torch.tensor([0.0, 0.1, 0.2]), {"means": torch.stack([base.means + i for i in range(3)])})
    mesh_frames.write_frames(tmp_path / "out", moving, suffix)
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[:3] == [f"frame_{i:05d}{suffix}" for i in range(3)]
    found = GaussianScene.load(tmp_path / "out" / f"frame_00002{suffix}")
    assert found.num_gaussians == base.num_gaussians
    assert (
        float(torch.cdist(found.means.double(), base.means.double() + 2).amin(0).max()) < 1e-3
    )  # .sog has its own order and 16 bits
    with pytest.raises(InputError, match=r"got 3 frames as '\.obj'; want at least one, as \.ply, \.sog"):
        mesh_frames.write_frames(tmp_path / "other", moving, ".obj")


def test_frames_of_other_programs_need_a_rate(tmp_path):
    """Numbers without leading zeros are sorted numerically."""
    pytest.importorskip("trimesh")
    sequence = wobble()
    for i in range(4):
        sequence.mesh_at(i).save(tmp_path / f"step{[1, 2, 10, 11][i]}.obj")
    back = mesh_frames.read_frames(tmp_path, rate=25)
    torch.testing.assert_close(back.vertices(), sequence.vertices(), atol=1e-8, rtol=0)
    assert back.times.tolist() == [0, 0.04, 0.08, 0.12]
    with pytest.raises(InputError, match=r"has no frames\.json with the times; want a rate in frames per second, got None$"):
        mesh_frames.read_frames(tmp_path)


def test_wrong_frames(tmp_path):
    pytest.importorskip("trimesh")
    folder = tmp_path / "frames"
    mesh_frames.write_frames(folder, wobble())
    vertices, faces = shapes.icosphere(0)
    Mesh(vertices, faces).save(folder / "frame_00002.obj")
    with pytest.raises(
        FileFormatError, match=r"frame_00002\.obj: has different faces than frame_00000\.obj \(12 vertices, 20 faces\)"
    ):
        mesh_frames.read_frames(folder)
    for name in ("frame_00002.obj", "frame_00003.obj"):
        (folder / name).unlink()
    with pytest.raises(MissingFileError, match=r"frame_00002\.obj: does not exist; want one of the 4 frames"):
        mesh_frames.read_frames(folder)
    (folder / "frames.json").write_text(
        json.dumps({"vision3d": {"type": "frames", "version": 1}, "suffix": ".obj", "times": ["a"]})
    )
    with pytest.raises(FileFormatError, match=r"frames\.json: is not a list of frames"):
        mesh_frames.read_frames(folder)
    with pytest.raises(InputError, match=r"holds no meshes"):
        mesh_frames.read_frames(tmp_path, rate=1)
    with pytest.raises(MissingFileError, match=r"want a folder of meshes"):
        mesh_frames.read_frames(tmp_path / "none")


def test_other_folders_are_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(OutputExistsError, match=r"mine: exists and is not empty; it is not a folder of frames"):
        mesh_frames.write_frames(tmp_path / "mine", wobble())
    with pytest.raises(InputError, match=r"got 4 frames as '\.fbx'"):
        mesh_frames.write_frames(tmp_path / "a", wobble(), ".fbx")


def test_a_failed_write_keeps_the_previous_folder(tmp_path):
    sequence = wobble()
    bound = FrameSequence(MeshGaussians.from_mesh(sequence.base, 1), TIMES, {"vertices": sequence.vertices()})
    mesh_frames.write_frames(tmp_path / "frames", bound, ".ply")
    broken = sequence.vertices()
    broken[2] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        mesh_frames.write_frames(tmp_path / "frames", FrameSequence(bound.base, TIMES, {"vertices": broken}), ".ply")
    assert len(list((tmp_path / "frames").iterdir())) == 5 and len(list(tmp_path.iterdir())) == 1


# USD


@pytest.mark.parametrize("suffix", [".usd", ".usda", ".usdc"])
def test_usd(tmp_path, suffix):
    pxr = pytest.importorskip("pxr.Usd")
    from pxr import UsdGeom

    sequence = dressed()
    sequence.save(tmp_path / f"a{suffix}")
    stage = pxr.Stage.Open(str(tmp_path / f"a{suffix}"))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/root/mesh"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1
    rate = stage.GetTimeCodesPerSecond()
    assert rate == 25 and (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 12.5)
    assert mesh.GetPointsAttr().GetTimeSamples() == [0, 1, 2, 12.5]
    for time, want in zip(TIMES.tolist(), sequence.vertices().numpy()):
        np.testing.assert_array_equal(np.array(mesh.GetPointsAttr().Get(time * rate)), want)
    halfway = np.array(mesh.GetPointsAttr().Get(0.5))
    np.testing.assert_allclose(halfway, sequence.vertices()[:2].mean(0).numpy(), atol=1e-6)
    np.testing.assert_array_equal(np.array(mesh.GetFaceVertexIndicesAttr().Get()), sequence.base.faces.flatten().numpy())
    uvs = np.array(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get())
    np.testing.assert_allclose(uvs, sequence.base.uvs.numpy() * [1, -1] + [0, 1], atol=1e-6)
    assert (tmp_path / "a.png").is_file()
    extent = np.stack([side.numpy() for side in sequence.vertices()[0].aminmax(dim=0)])
    np.testing.assert_allclose(np.array(mesh.GetExtentAttr().Get(0)), extent, atol=1e-6)


def test_usd_colors_and_corner_uvs(tmp_path):
    pxr = pytest.importorskip("pxr.Usd")
    from pxr import UsdGeom

    vertices, faces = shapes.icosphere(1)
    sequence = wobble(vertex_colors=torch.full((len(vertices), 3), 0.5), uvs=torch.rand(len(faces), 3, 2))
    sequence.save(tmp_path / "a.usda")
    stage = pxr.Stage.Open(str(tmp_path / "a.usda"))
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/root/mesh"))
    np.testing.assert_allclose(np.array(mesh.GetDisplayColorAttr().Get()), 0.21404, atol=1e-5)
    assert UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").GetInterpolation() == "faceVarying"


def test_usd_is_not_read(tmp_path):
    (tmp_path / "a.usda").write_text("#usda 1.0")
    with pytest.raises(InputError, match=r"\.usda can be written but not read; want \.glb, \.npz or a \.zarr folder$"):
        load(tmp_path / "a.usda")


def test_usd_names_the_missing_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pxr", None)
    with pytest.raises(
        MissingDependencyError, match=r"^usd-core is needed for meshes as USD: " + re.escape(install_command("usd")) + "$"
    ):
        usd_file.write_sequence(tmp_path / "a.usd", wobble())
    assert not any(tmp_path.iterdir())
