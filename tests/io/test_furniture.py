"""Models in archives of sweethome3d-furniture, with archives made here."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.io.furniture import FurnitureArchive, find_furniture
from vision3d.io.images import write_image

OBJ = """mtllib b.mtl
v -1 0 -2
v 1 0 -2
v 1 0 2
v -1 3 2
v 99 99 99
vt 0 0
vt 1 0
vt 1 1
usemtl wood
f 1/1 2/2 3/3
usemtl plain
f 1 3 4
"""
ITEM = {
    "name": "Caf\u00e9",
    "model": "/a/b/b.obj",
    "width": 40,
    "height": 30,
    "depth": 80,
    "creator": "Somebody",
    "category": "Chairs",
}


def archive(path: Path, texts: dict[str, str | bytes] | None = None, **values: object) -> FurnitureArchive:
    lines = "".join(f"{key}#1={value}\n" for key, value in {**ITEM, **values}.items()) + "dropOnTopElevation#-1=3\n"
    write_image(path.parent / "t.png", torch.tensor([1.0, 0, 0]).expand(8, 8, 3))
    files = {
        "PluginFurnitureCatalog.properties": lines.encode("latin-1"),
        "a/b/b.obj": OBJ,
        "a/b/b.mtl": "newmtl wood\nmap_Kd t.png\nnewmtl plain\nKd 0 1 0\n",
        "a/b/t.png": (path.parent / "t.png").read_bytes(),
        "a/other.obj": "nothing",
        **(texts or {}),
    }
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return FurnitureArchive(path)


def test_items_of_a_catalogue(tmp_path):
    found = archive(tmp_path / "Scopia.sh3f")
    assert list(found.items) == [1]
    item = found[1]
    assert (item.name, item.creator, item.category, item.license) == ("Caf\u00e9", "Somebody", "Chairs", "CC BY 3.0")
    assert item.size == (0.4, 0.8, 0.3)
    assert find_furniture(tmp_path).keys() == {"Scopia"}


def test_a_model_has_the_size_and_the_axes_of_the_catalogue(tmp_path):
    found = archive(tmp_path / "Scopia.sh3f")
    vertices, faces, names = found.triangles(found[1])
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]] and names == ["wood", "plain"]
    # x of the file (width) is y, z (depth, the front) is x, y is up; the vertex without a face does not count
    np.testing.assert_allclose(vertices, [[-0.4, -0.2, 0], [-0.4, 0.2, 0], [0.4, 0.2, 0], [0.4, -0.2, 0.3]], atol=1e-12)
    mesh = found.mesh(found[1])
    assert mesh.texture is not None
    corners = mesh.vertices[mesh.faces].flatten(0, 1).unique(dim=0)
    torch.testing.assert_close(corners, torch.from_numpy(vertices).float().unique(dim=0))


def test_a_rotation_comes_before_the_size(tmp_path):
    found = archive(tmp_path / "x.sh3f", modelRotation="0 1 0 1 0 0 0 0 -1")  # x and y swapped
    vertices = found.triangles(found[1])[0]
    assert np.ptp(vertices, axis=0) == pytest.approx([0.8, 0.4, 0.3])
    np.testing.assert_allclose(vertices[3], [-0.4, 0.2, 0], atol=1e-12)
    assert found[1].license == "see the archive"


@pytest.mark.parametrize(
    "values",
    [
        {"width": "wide"},
        {"width": "nan"},
        {"height": "-3"},
        {"modelRotation": "1 0 0"},
        {"modelRotation": "1 0 0 0 1 0 0 0 inf"},
    ],
)
def test_invalid_catalogues(tmp_path, values):
    with pytest.raises(FileFormatError, match=r"x\.sh3f: has no valid catalogue"):
        archive(tmp_path / "x.sh3f", **values)[1]


def test_missing_models_and_files(tmp_path):
    found = archive(tmp_path / "x.sh3f", model="/a/none.obj")
    with pytest.raises(FileFormatError, match=r"has no model 7, want sweethome3d-furniture 1\.8"):
        found[7]
    for read in (found.triangles, found.mesh):
        with pytest.raises((FileFormatError, MissingFileError), match=r"none\.obj"):
            read(found[1])
    found = archive(tmp_path / "y.sh3f", {"a/b/b.obj": "v 0 0 0\nf 1 2 3\n"})
    for read in (found.triangles, found.mesh):
        with pytest.raises(FileFormatError, match=r"b\.obj"):
            read(found[1])
    with pytest.raises(MissingFileError, match="sh3f"):
        find_furniture(tmp_path / "nothing")


def test_archives_that_are_none(tmp_path):
    (tmp_path / "x.sh3f").write_bytes(b"no archive")
    with pytest.raises(FileFormatError, match=r"x\.sh3f: is not an archive of sweethome3d-furniture"):
        FurnitureArchive(tmp_path / "x.sh3f")[1]
    with zipfile.ZipFile(tmp_path / "x.sh3f", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(FileFormatError, match="is not an archive"):
        FurnitureArchive(tmp_path / "x.sh3f")[1]
    archive(tmp_path / "x.sh3f", {"a/b/b.obj": "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"})
    with pytest.raises(FileFormatError, match="not finite"):
        FurnitureArchive(tmp_path / "x.sh3f").triangles(FurnitureArchive(tmp_path / "x.sh3f")[1])


def test_names_that_leave_the_folder_are_not_unpacked(tmp_path):
    found = archive(tmp_path / "x.sh3f", {"../../evil.obj": "v", "a/b/../../../evil.png": b"x"})
    assert found.mesh(found[1]).num_faces == 2
    assert not list(tmp_path.parent.glob("evil*"))


def test_flaws_of_the_package_give_no_warnings(tmp_path, caplog):
    found = archive(tmp_path / "Scopia.sh3f", {"a/b/b.mtl": "newmtl wood\nmap_Kd C:/missing.png\nnewmtl plain\nKd 0 1 0\n"})
    assert found.mesh(found[1]).num_faces == 2
    assert not caplog.records
