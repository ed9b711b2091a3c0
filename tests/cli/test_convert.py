import json

import numpy as np
import pytest
import torch

from tests.support.splats import small_scene
from vision3d.io import gltf_gaussians
from vision3d.io.ply import read_gaussians, write_gaussians
from vision3d.scene import GaussianScene, Mesh, PointCloud


def square():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    return Mesh(points, torch.tensor([[0, 1, 2], [0, 2, 3]]), points[:, :2].contiguous(), texture=torch.ones(2, 2, 3))


@pytest.fixture
def scene(tmp_path):
    write_gaussians(tmp_path / "a.ply", small_scene(2))
    return small_scene(2)


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".splat", ".sog", ".glb", ".gltf"])
def test_every_format(cli, tmp_path, scene, suffix):
    code, out, err = cli("convert", tmp_path / "a.ply", tmp_path / f"b{suffix}", "--json")
    assert code == 0 and ("does not hold" in err) == (suffix == ".splat")
    (values,) = json.loads(out.splitlines()[-1])["files"]
    assert values["gaussians"] == 300 and values["bytes"] == (tmp_path / f"b{suffix}").stat().st_size
    code, out, _ = cli("info", tmp_path / f"b{suffix}", "--json")
    values = json.loads(out.splitlines()[-1])
    assert code == 0 and values["gaussians"] == 300 and values["sh_degree"] == (0 if suffix == ".splat" else 2)
    assert values["bytes"] == (tmp_path / f"b{suffix}").stat().st_size and "quats" in values["attributes"]


def test_several_files(cli, tmp_path, scene):
    write_gaussians(tmp_path / "b.ply", scene)
    code, out, err = cli(
        "convert", tmp_path / "a.ply", tmp_path / "b.ply", tmp_path / "out", "--to", "spz", "--spz-version", "2"
    )
    assert (code, err) == (0, "") and len(out.splitlines()) == 2
    assert len(GaussianScene.load(tmp_path / "out" / "b.spz")) == 300
    code, _, err = cli("convert", tmp_path / "a.ply", tmp_path / "b.ply", tmp_path / "out")
    assert code == 2 and "--to: is needed for 2 files" in err


def test_gaussians_in_a_small_glb(cli, tmp_path, scene):
    for name, more in (("b", []), ("c", ["--gltf-compression", "spz"])):
        code, _, err = cli("convert", tmp_path / "a.ply", tmp_path / f"{name}.glb", *more)
        assert (code, err) == (0, "")
    small, large = (tmp_path / f"{name}.glb").stat().st_size, (tmp_path / "b.glb").stat().st_size
    assert 3 * small < large and len(GaussianScene.load(tmp_path / "c.glb")) == 300


def test_a_mesh_through_trimesh(cli, tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    code, _, err = cli("convert", tmp_path / "a.off", tmp_path / "a.glb")
    assert (code, err) == (0, "") and Mesh.load(tmp_path / "a.glb").num_faces == 1


def test_sog_in_a_folder(cli, tmp_path, scene):
    code, out, err = cli("convert", tmp_path / "a.ply", tmp_path / "b" / "meta.json", "--json")
    (values,) = json.loads(out.splitlines()[-1])["files"]
    assert (code, err) == (0, "") and values["bytes"] == sum(file.stat().st_size for file in (tmp_path / "b").iterdir())
    for name in ("b", "b/meta.json"):
        code, out, _ = cli("info", tmp_path / name, "--json")
        values = json.loads(out.splitlines()[-1])
        assert code == 0 and (values["kind"], values["gaussians"], values["sh_degree"]) == ("Gaussian scene", 300, 2)
        assert cli("convert", tmp_path / name, tmp_path / "c.ply", "--overwrite")[0] == 0
    assert len(GaussianScene.load(tmp_path / "c.ply")) == 300
    assert cli("convert", tmp_path / "c.ply", tmp_path / "a.ply", tmp_path / "out", "--to", "meta.json")[0] == 0
    assert len(GaussianScene.load(tmp_path / "out" / "c")) == 300


@pytest.mark.parametrize("suffix", [".gltf", ".glb", ".obj", ".ply", ".stl"])
def test_meshes(cli, tmp_path, suffix):
    if suffix in (".obj", ".ply", ".stl"):
        pytest.importorskip("trimesh")
    square().save(tmp_path / "a.glb")
    code, out, err = cli("convert", tmp_path / "a.glb", tmp_path / f"b{suffix}", "--json")
    (values,) = json.loads(out.splitlines()[-1])["files"]
    assert code == 0 and (values["vertices"], values["faces"]) == (4, 2) and "4 vertices, 2 faces" in out
    assert ("cannot hold" in err) == (suffix in (".ply", ".stl"))
    options = ["--crop", -1, -1, -1, 2, 2, 2, "--transform", "2 0 0 0 0 2 0 0 0 0 2 5 0 0 0 1"]
    code, _, err = cli("convert", tmp_path / f"b{suffix}", tmp_path / "c.glb", *options)
    assert (code, err) == (0, "")
    read = Mesh.load(tmp_path / "c.glb")
    expected = square().vertices * 2 + torch.tensor([0, 0, 5.0])
    torch.testing.assert_close(read.vertices[read.faces], expected[square().faces])
    assert (read.texture is None) == (suffix in (".ply", ".stl"))


def test_part_of_a_mesh(cli, tmp_path):
    mesh = square()
    mesh.vertices[3] = 9
    mesh.save(tmp_path / "a.glb")
    assert cli("convert", tmp_path / "a.glb", tmp_path / "b.glb", "--crop", 0, 0, 0, 1, 1, 1)[0] == 0
    read = Mesh.load(tmp_path / "b.glb")
    assert torch.equal(read.vertices, mesh.vertices[:3]) and torch.equal(read.uvs, mesh.uvs[:3]) and read.num_faces == 1


def test_points(cli, tmp_path):
    cloud = PointCloud(torch.rand(9, 3), colors=torch.ones(9, 3), intensity=torch.rand(9))
    cloud.save(tmp_path / "a.ply")
    code, out, err = cli("convert", tmp_path / "a.ply", tmp_path / "b.bin")
    assert code == 0 and "9 points, 144 bytes" in out and "cannot hold colors" in err
    data = bytearray((tmp_path / "b.bin").read_bytes())
    data[16:20] = b"\xff" * 4
    (tmp_path / "b.bin").write_bytes(data)
    code, _, err = cli("convert", tmp_path / "b.bin", tmp_path / "c.ply")
    assert code == 3 and "at row 1: points not finite in 1 of 9 rows" in err and "convert --filter-nan drops them" in err
    code, _, err = cli("convert", tmp_path / "b.bin", tmp_path / "c.ply", "--filter-nan")
    rows = [0, *range(2, 9)]
    assert (code, err) == (0, "") and torch.equal(PointCloud.load(tmp_path / "c.ply").points, cloud.points[rows])


def test_folders(cli, tmp_path, scene):
    folder = tmp_path / "in"
    for name in ("a.ply", "b.compressed.ply", "deep/c.splat", "deep/sog/meta.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        scene.save(folder / name)
    (folder / "notes.txt").write_text("nothing")
    code, out, _ = cli("convert", folder, tmp_path / "out", "--to", ".glb", "--json")
    assert code == 0 and len(json.loads(out.splitlines()[-1])["files"]) == 4
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.glb")}
    assert found == {"a.glb", "b.glb", "deep/c.glb", "deep/sog.glb"}


def test_changes(cli, tmp_path, scene):
    matrix = torch.tensor([[0, -2, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1.0]])
    (tmp_path / "m.json").write_text(json.dumps(matrix.tolist()))
    np.savetxt(tmp_path / "m.txt", matrix.numpy())
    numbers = " ".join(str(v) for v in matrix.flatten().tolist())
    box = torch.tensor([[-2, -2, -2], [2, 2, 2.0]])
    expected = scene.crop(box).transform(matrix)
    for text in (numbers, tmp_path / "m.json", tmp_path / "m.txt"):
        options = ["--transform", text, "--max-sh", 1, "--overwrite", "--crop", *box.flatten().tolist()]
        code, out, err = cli("convert", tmp_path / "a.ply", tmp_path / "b.ply", *options)
        assert (code, err) == (0, "") and "SH degree 1" in out
        read = read_gaussians(tmp_path / "b.ply")
        torch.testing.assert_close(read.means, expected.means)
        torch.testing.assert_close(read.sh, expected.sh[:, :4])


def test_rows_that_are_not_finite(cli, tmp_path):
    scene = small_scene(0, 4)
    scene.save(tmp_path / "a.splat")
    data = bytearray((tmp_path / "a.splat").read_bytes())
    data[0:4] = b"\xff" * 4
    (tmp_path / "a.splat").write_bytes(data)
    code, _, err = cli("convert", tmp_path / "a.splat", tmp_path / "b.glb")
    assert code == 3 and "vision3d convert --filter-nan drops them" in err and not (tmp_path / "b.glb").exists()
    code, _, _ = cli("convert", tmp_path / "a.splat", tmp_path / "b.glb", "--filter-nan", "--quiet")
    assert code == 0 and len(gltf_gaussians.read_gaussians(tmp_path / "b.glb")) == 3


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["a.ply"], 2, "want IN OUT"),
        (["a.ply", "b.xyz"], 2, "has no supported suffix; want .ply"),
        (["a.ply", "b.ksplat"], 2, "has no supported suffix"),
        (["none.ply", "b.ply"], 3, "none.ply: does not exist"),
        (["a.ply", "a.ply"], 5, "a.ply: exists; give --overwrite or another name"),
        (["t.xyz", "b.ply"], 3, "t.xyz: holds neither Gaussians nor a mesh nor points; want .ply"),
        (["folder", "out", "--to", ".ply"], 3, "folder: is a folder without scene.ply, scene.json or files to convert"),
        (["a.ply", "b.obj"], 3, "a.ply: holds Gaussians, which b.obj cannot hold; want .ply, .compressed.ply, .splat"),
        (["p.ply", "b.glb"], 3, "p.ply: holds points, which b.glb cannot hold; want .ply, .bin"),
        (["m.glb", "b.compressed.ply"], 3, "m.glb: holds a mesh, which b.compressed.ply cannot hold; want .glb, .gltf, .obj"),
        (["m.glb", "b.ply", "--max-sh", "1"], 2, "--max-sh: is for Gaussians, but m.glb holds a mesh"),
        (["m.glb", "b.ply", "--crop", "5", "5", "5", "6", "6", "6"], 3, "none of 2 faces is inside --crop"),
        (["a.ply", "a.ply", "out", "--to", ".spz"], 2, "several files would become"),
        (["a.ply", "out", "--to", ".ksplat"], 2, "--to: got '.ksplat'"),
        (["a.ply", "b.ply", "--max-sh", "5"], 2, "--max-sh: got 5, want 0 to 4"),
        (["a.ply", "b.ply", "--crop", "1", "0", "0", "0", "1", "1"], 2, "--crop: got"),
        (["a.ply", "b.ply", "--crop", "1", "2"], 2, "--crop: invalid value '1', '2', want None or FLOAT FLOAT FLOAT"),
        (["a.ply", "b.ply", "--crop", "91", "90", "90", "99", "99", "99"], 3, "none of 300 Gaussians is inside --crop"),
        (["a.ply", "b.ply", "--transform", "1 2 3"], 2, "--transform: got 3 numbers, want 16"),
        (["a.ply", "b.ply", "--transform", "m.json"], 3, "m.json: does not exist"),
        (["a.ply", "b.ply", "--transform", "m.obj"], 3, "m.obj: holds no 4x4 matrix"),
    ],
)
def test_wrong_input(cli, tmp_path, monkeypatch, scene, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.obj").write_text("v a b c\n")
    (tmp_path / "t.xyz").write_text("1 2 3\n")
    (tmp_path / "folder").mkdir()
    square().save(tmp_path / "m.glb")
    PointCloud(torch.rand(3, 3)).save(tmp_path / "p.ply")
    found, out, err = cli("convert", *arguments)
    assert (found, out) == (code, "") and message in err and not (tmp_path / "b.ply").exists()
