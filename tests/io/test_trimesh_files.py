"""Formats that are read through trimesh: .off, .3mf, .dae, .zip."""

import sys
import zipfile

import numpy as np
import pytest
import torch

from vision3d.core.errors import FileFormatError, MissingDependencyError
from vision3d.geometry import shapes
from vision3d.io.images import write_image
from vision3d.scene import Mesh

trimesh = pytest.importorskip("trimesh")
OFF = "OFF\n# a comment\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1.5\n3 0 1 2 255 0 0\n3 0 2 3 0 0 255\n"


def ball():
    return trimesh.Trimesh(*(value.numpy() for value in shapes.icosphere(1)), process=False)


def two_balls():
    matrix = np.diag([2.0, 2, 2, 1])
    matrix[:3, 3] = 5, 0, 1
    scene = trimesh.Scene()
    scene.add_geometry(ball(), geom_name="ball", node_name="a")
    scene.add_geometry(ball(), geom_name="other", node_name="b", transform=matrix)
    return scene


def test_off(tmp_path):
    (tmp_path / "a.OFF").write_text(OFF)
    mesh = Mesh.load(tmp_path / "a.OFF")
    want = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0], [0, 0, 1.5]]])
    assert torch.equal(mesh.vertices[mesh.faces], want)


def test_parts_are_placed(tmp_path):
    pytest.importorskip("lxml")
    (tmp_path / "a.3mf").write_bytes(two_balls().export(file_type="3mf"))
    mesh = Mesh.load(tmp_path / "a.3mf")
    assert mesh.num_faces == 160
    torch.testing.assert_close(mesh.vertices.amin(0), torch.tensor([-1.0, -2, -1]), atol=2e-5, rtol=0)
    torch.testing.assert_close(mesh.vertices.amax(0), torch.tensor([7.0, 2, 3]), atol=2e-5, rtol=0)


def test_collada(tmp_path):
    pytest.importorskip("collada")
    (tmp_path / "a.dae").write_bytes(ball().export(file_type="dae"))
    mesh, want = Mesh.load(tmp_path / "a.dae"), ball()
    np.testing.assert_allclose(mesh.vertices[mesh.faces].numpy(), want.triangles, atol=1e-6)


def archive(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name.replace("_", "."), content)


def test_an_archive_with_a_texture(tmp_path):
    write_image(tmp_path / "t.png", torch.rand(4, 4, 3))
    text = "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    archive(tmp_path / "a.zip", a_obj=text, a_mtl="newmtl m\nmap_Kd t.png\n", t_png=(tmp_path / "t.png").read_bytes())
    mesh = Mesh.load(tmp_path / "a.zip")
    assert mesh.num_faces == 1 and mesh.texture.shape == (4, 4, 3)
    corner = mesh.vertices.norm(dim=1).argmin()
    assert mesh.uvs[corner].tolist() == [0, 1]  # v points down


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.off", b"", "is empty"),
        ("a.off", b"OFF\n9 9 0\n1 2", "is damaged or not a mesh of this format"),
        ("a.3mf", b"PK\3\4" + b"\0" * 50, "is damaged or not a mesh of this format"),
        ("a.off", b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "has no faces|is damaged"),
    ],
)
def test_damaged_files(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileFormatError, match=message) as caught:
        Mesh.load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_too_much(tmp_path):
    archive(tmp_path / "a.zip", a_off=b"0" * (80 << 20))
    with pytest.raises(FileFormatError, match="at members: unpacks to 83886080 bytes, out of a file of"):
        Mesh.load(tmp_path / "a.zip")


def test_without_trimesh(tmp_path, monkeypatch):
    (tmp_path / "a.off").write_text(OFF)
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingDependencyError, match=r"trimesh.*meshes as \.off.*\[mesh\]"):
        Mesh.load(tmp_path / "a.off")
