import logging
import re
import sys
from dataclasses import replace

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingDependencyError, MissingFileError
from vision3d.core.install import install_command
from vision3d.io.images import write_image
from vision3d.io.mesh_files import read_mesh, write_mesh
from vision3d.scene import Mesh, load
from vision3d.scene.mesh_colors import surface_colors

QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def plain(**extras):
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5], [0, 5, 4]])
    return Mesh(torch.randn(6, 3), faces, **extras)


def colors(channels=3):
    return torch.randint(0, 255, (6, channels)) / 255


def assert_same(a, b, **tolerance):
    for name in ("vertices", "faces", "uvs", "normals", "texture", "vertex_colors"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            torch.testing.assert_close(left, right, **{"rtol": 0, "atol": 0, **tolerance})


def test_missing_trimesh_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingDependencyError, match=r"trimesh is needed for meshes .* " + re.escape(install_command("mesh"))):
        write_mesh(tmp_path / "m.obj", plain())


class TestWithTrimesh:
    @pytest.fixture(autouse=True)
    def _trimesh(self):
        pytest.importorskip("trimesh")

    @pytest.mark.parametrize("channels", [3, 4])
    def test_ply_round_trip_is_exact(self, tmp_path, channels):
        mesh = plain(normals=torch.randn(6, 3), vertex_colors=colors(channels))
        mesh.save(tmp_path / "m.ply")
        again = load(tmp_path / "m.ply")
        assert isinstance(again, Mesh)
        assert_same(again, mesh)
        with_uvs = plain(uvs=torch.rand(6, 2))
        write_mesh(tmp_path / "u.ply", with_uvs)
        assert_same(read_mesh(tmp_path / "u.ply"), with_uvs, atol=1e-7)  # 1 - (1 - v)

    def test_an_obj_keeps_vertex_colors_beside_uvs(self, tmp_path, caplog):
        mesh = plain(uvs=torch.rand(6, 2), vertex_colors=colors(3), texture=torch.randint(0, 256, (3, 5, 3)) / 255)
        with caplog.at_level(logging.WARNING, "vision3d"):
            mesh.save(tmp_path / "m.obj")
        assert not caplog.records
        again = read_mesh(tmp_path / "m.obj")
        assert torch.equal(again.texture, mesh.texture)
        for name in ("vertices", "vertex_colors"):
            ours, theirs = getattr(again, name)[again.faces], getattr(mesh, name)[mesh.faces]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)
        torch.testing.assert_close(again.corner_uvs, mesh.corner_uvs, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("channels", [3, 4])
    def test_a_ply_keeps_uvs_beside_vertex_colors(self, tmp_path, caplog, channels):
        mesh = plain(uvs=torch.rand(6, 2), normals=torch.randn(6, 3), vertex_colors=colors(channels))
        with caplog.at_level(logging.WARNING, "vision3d"):
            mesh.save(tmp_path / "m.ply")
        assert not caplog.records
        assert_same(read_mesh(tmp_path / "m.ply"), mesh, atol=1e-7)  # 1 - (1 - v)

    def test_a_ply_keeps_uvs_by_corner_beside_vertex_colors(self, tmp_path, caplog):
        mesh = plain(uvs=torch.rand(plain().num_faces, 3, 2), vertex_colors=colors(3))
        with caplog.at_level(logging.WARNING, "vision3d"):
            mesh.save(tmp_path / "m.ply")  # vertices at seams are split
        assert not caplog.records
        again = read_mesh(tmp_path / "m.ply")
        for name in ("vertices", "vertex_colors"):
            assert torch.equal(getattr(again, name)[again.faces], getattr(mesh, name)[mesh.faces])
        torch.testing.assert_close(again.corner_uvs, mesh.uvs, rtol=0, atol=1e-7)

    def test_obj_round_trip(self, tmp_path):
        texture = torch.randint(0, 256, (3, 5, 3)) / 255
        mesh = plain(uvs=torch.rand(6, 2), normals=torch.nn.functional.normalize(torch.randn(6, 3), dim=-1), texture=texture)
        mesh.save(tmp_path / "my mesh.obj")
        again = Mesh.load(tmp_path / "my mesh.obj")
        assert torch.equal(again.texture, texture)
        assert again.faces.shape == mesh.faces.shape
        torch.testing.assert_close(again.vertices[again.faces], mesh.vertices[mesh.faces], rtol=0, atol=1e-7)
        torch.testing.assert_close(again.corner_uvs, mesh.corner_uvs, rtol=0, atol=1e-7)
        torch.testing.assert_close(again.normals[again.faces], mesh.normals[mesh.faces], rtol=0, atol=1e-7)
        assert {p.name for p in tmp_path.iterdir()} == {"my mesh.obj", "my mesh.mtl", "my mesh.png"}

    def test_stl_welds_equal_corners(self, tmp_path):
        mesh = plain()
        mesh.save(tmp_path / "m.stl")
        again = Mesh.load(tmp_path / "m.stl")
        assert again.num_vertices == 6
        assert torch.equal(again.vertices[again.faces], mesh.vertices[mesh.faces])

    @pytest.mark.parametrize("suffix, lost", [("stl", "normals, texture, uvs"), ("ply", "texture"), ("obj", None)])
    def test_one_warning_for_what_a_format_cannot_hold(self, tmp_path, caplog, suffix, lost):
        mesh = plain(uvs=torch.rand(6, 2), texture=torch.rand(2, 2, 3), normals=torch.randn(6, 3))
        with caplog.at_level(logging.WARNING, "vision3d"):
            mesh.save(tmp_path / f"m.{suffix}")
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ([] if lost is None else [f"{tmp_path}/m.{suffix}: a .{suffix} file cannot hold {lost}; dropped"])

    def test_polygons_become_triangles(self, tmp_path):
        (tmp_path / "q.obj").write_text(QUAD + "f 1 2 3 4\n")
        mesh = read_mesh(tmp_path / "q.obj")
        assert mesh.num_faces == 2 and mesh.uvs is None
        torch.testing.assert_close(mesh.transform(torch.eye(4)).vertices.amax(0), torch.tensor([1.0, 1, 0]))

    def test_seams_of_an_obj_are_kept(self, tmp_path):
        """A strip of two squares; the first edge of the second has other coordinates; the formats of indices are mixed."""
        positions = "".join(f"v {x} {y} 0\n" for x in (0, 1, 2) for y in (0, 1)) + "v 9 9 9\n"
        coordinates = "vt 0 0\nvt 0.5 0\nvt 0.5 1\nvt 0 1\n"
        (tmp_path / "s.obj").write_text(positions + coordinates + "f 1/1 3/2 4/3 2/4\nusemtl b\nf -5/-4 -3/-3 -2/-2 -4/-1\n")
        mesh = Mesh.load(tmp_path / "s.obj")
        assert mesh.num_vertices == 7 and mesh.faces.tolist() == [[0, 2, 3], [0, 3, 1], [2, 4, 5], [2, 5, 3]]
        square = torch.tensor([[0.0, 1.0], [0.5, 1.0], [0.5, 0.0], [0.0, 0.0]])
        assert mesh.uvs is not None and mesh.uvs.shape == (4, 3, 2)
        assert torch.equal(mesh.uvs, square[torch.tensor([[0, 1, 2], [0, 2, 3]] * 2)])
        mesh.save(tmp_path / "again.obj")  # vertices are split
        again = Mesh.load(tmp_path / "again.obj")
        assert again.num_vertices == 8 and torch.equal(again.corner_uvs, mesh.uvs)

    def test_normals_and_colors_of_an_obj(self, tmp_path):
        content = "v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nv 0 0 1 1 1 1\nvn 0 0 1\nvn 0 1 0\n"
        (tmp_path / "n.obj").write_text(content + "f 1//1 2//1 3//1 # up\nf 1//2 4//2 \\\n2//2\n")
        mesh = Mesh.load(tmp_path / "n.obj")
        assert mesh.uvs is None and torch.equal(
            mesh.vertex_colors, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
        )
        half = 0.5**0.5
        want = torch.tensor([[0.0, half, half], [0, half, half], [0, 0, 1], [0, 1, 0]])
        torch.testing.assert_close(mesh.normals, want)

    @pytest.mark.parametrize("face", ["1/1 2/2 0/3", "1/1 2/2 -9/3", "1/1 2/2 3/5", "1/1 2/2 3/1/1/1", "1/1 2/2 x"])
    def test_bad_faces_of_an_obj(self, tmp_path, face):
        (tmp_path / "b.obj").write_text(QUAD + f"f 1/1 2/2 3/3\nf {face}\n")
        with pytest.raises(FileFormatError, match=r"b\.obj at line 10: is damaged or not an \.obj file"):
            read_mesh(tmp_path / "b.obj")

    @pytest.mark.parametrize("second", ["f 1 3 4", "f 1/1 3 4/4", "usemtl b\nf 1 3 4"])
    def test_faces_with_and_without_a_texture(self, tmp_path, second):
        """A face without coordinates, or without those of a corner, has the color of its material."""
        write_image(tmp_path / "t.png", torch.tensor([1.0, 0, 0]).expand(4, 8, 3))
        (tmp_path / "m.mtl").write_text("newmtl a\nKd 0 1 0\nmap_Kd t.png\nnewmtl b\nKd 0 1 0\n")
        (tmp_path / "q.obj").write_text("mtllib m.mtl\n" + QUAD + f"usemtl a\nf 1/1 2/2 3/3\n{second}\n")
        mesh = read_mesh(tmp_path / "q.obj")
        colors = surface_colors(mesh, torch.arange(2), torch.full((2, 3), 1 / 3))
        order = mesh.vertices[mesh.faces].mean(1)[:, 1].argsort()  # the textured one is the lower one
        torch.testing.assert_close(colors[order], torch.tensor([[1.0, 0, 0], [0, 1, 0]]), atol=1e-3, rtol=0)
        assert read_mesh(tmp_path / "q.obj", skip_texture=True).uvs is None

    def test_faces_without_coordinates_and_color_are_plain(self, tmp_path):
        write_image(tmp_path / "t.png", torch.zeros(4, 8, 3))
        (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd t.png\n")
        (tmp_path / "q.obj").write_text("mtllib m.mtl\n" + QUAD + "usemtl a\nf 1/1 2/2 3/3\nf 1 3 4\n")
        mesh = read_mesh(tmp_path / "q.obj")
        assert mesh.num_faces == 2 and mesh.texture is not None
        assert sorted(surface_colors(mesh, torch.arange(2), torch.full((2, 3), 1 / 3)).mean(1).tolist()) == [0, 1]

    def test_lines_among_the_faces_are_dropped(self, tmp_path, caplog):
        (tmp_path / "q.obj").write_text(QUAD + "f 1/1 2/2\nusemtl b\nf 1/1 2/2 3/3\nf 2\nf 1/1 3/3 4/4\n")
        assert read_mesh(tmp_path / "q.obj").faces.tolist() == [[0, 1, 2], [0, 2, 3]]
        assert "q.obj: 2 faces with fewer than three corners; dropped" in caplog.text
        (tmp_path / "q.obj").write_text(QUAD + "f 1/1 2/2\n")
        with pytest.raises(FileFormatError, match="has no faces"):
            read_mesh(tmp_path / "q.obj")

    def test_a_damaged_texture_does_not_hide_the_mesh(self, tmp_path, caplog):
        (tmp_path / "t.png").write_bytes(b"no image")
        (tmp_path / "m.mtl").write_text("newmtl a\nKd 0 1 0\nmap_Kd t.png\n")
        (tmp_path / "q.obj").write_text("mtllib m.mtl\n" + QUAD + "usemtl a\nf 1/1 2/2 3/3\n")
        mesh = read_mesh(tmp_path / "q.obj")
        assert mesh.texture is None and torch.equal(mesh.vertex_colors[mesh.faces[0]], torch.tensor([[0.0, 1, 0]] * 3))
        assert "read without a texture" in caplog.text and "t.png" in caplog.text

    def test_texture_v_points_up_in_obj_and_down_here(self, tmp_path):
        write_image(tmp_path / "t.png", torch.rand(4, 4, 3))
        (tmp_path / "m.mtl").write_text("newmtl a\nmap_Kd t.png\n")
        (tmp_path / "q.obj").write_text("mtllib m.mtl\n" + QUAD + "usemtl a\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n")
        mesh = read_mesh(tmp_path / "q.obj")
        assert mesh.texture.shape == (4, 4, 3)
        torch.testing.assert_close(mesh.corner_uvs[0], torch.tensor([[0.0, 1], [1, 1], [1, 0]]))

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "C:\\Users\\x\\y", "a" * 300, "\0"])
    def test_files_outside_the_folder_are_not_read(self, tmp_path, caplog, name):
        folder = tmp_path / "folder"
        folder.mkdir()
        (tmp_path / "secret").write_text("newmtl a\nKd 1 0 0\n")
        (folder / "q.obj").write_text(f"mtllib {name}\nmtllib m.mtl\n" + QUAD + "usemtl a\nf 1/1 2/2 3/3\n")
        (folder / "m.mtl").write_text(f"newmtl b\nmap_Kd {name}\n")
        mesh = read_mesh(folder / "q.obj")
        assert mesh.num_faces == 1 and mesh.texture is None and mesh.vertex_colors is None
        reason = "is outside its folder" if name in ("../secret", "/etc/passwd") else "is missing"
        assert f"its materials {name} are missing" in caplog.text and f"its texture {name} {reason}" in caplog.text

    @pytest.mark.parametrize("folder", ["/home/author/textures/", "C:\\Users\\author\\", "..\\", "textures/"])
    def test_paths_of_the_authors_machine(self, tmp_path, folder):
        """The file of that name in the folder is taken."""
        write_image(tmp_path / "t.png", torch.rand(4, 4, 3))
        (tmp_path / "m.mtl").write_text(f"newmtl a\nmap_Kd {folder}t.png\n")
        (tmp_path / "q.obj").write_text(f"mtllib {folder}m.mtl\n" + QUAD + "usemtl a\nf 1/1 2/2 3/3\n")
        assert read_mesh(tmp_path / "q.obj").texture is not None

    def test_an_obj_of_several_textures(self, tmp_path):
        """Red on the left, blue on the right and a plain face: each triangle keeps the colors of its own image."""
        write_image(tmp_path / "red.png", torch.tensor([1.0, 0, 0]).expand(4, 8, 3))
        write_image(tmp_path / "blue.png", torch.tensor([0.0, 0, 1]).expand(8, 4, 3))
        (tmp_path / "a.mtl").write_text("newmtl one\nmap_Kd red.png\nnewmtl plain\nKd 1 1 1\n")
        (tmp_path / "b.mtl").write_text("newmtl the other\nmap_Kd -s 1 1 1 blue.png\n")
        faces = "usemtl one\nf 1/1 2/2 3/3\nusemtl the other\nf 1/1 3/3 4/4\nusemtl plain\nf 2/2 3/3 4/4\n"
        (tmp_path / "q.obj").write_text("mtllib a.mtl\nmtllib b.mtl\n" + QUAD + faces)
        mesh = read_mesh(tmp_path / "q.obj")
        assert mesh.num_faces == 3
        middle = torch.full((3, 3), 1 / 3)
        colors = surface_colors(mesh, torch.arange(3), middle)
        centers = mesh.vertices[mesh.faces].mean(1)
        plain = read_mesh(tmp_path / "q.obj", skip_texture=True)
        wanted = torch.tensor([[1.0, 0, 0], [0.0, 0, 1], [1.0, 1, 1]])
        for center, want in zip(plain.vertices[plain.faces].mean(1), wanted):
            place = int((centers - center).norm(dim=-1).argmin())
            torch.testing.assert_close(colors[place], want, atol=1e-3, rtol=0)

    def test_missing_materials_are_a_warning(self, tmp_path, caplog):
        (tmp_path / "q.obj").write_text("mtllib none.mtl\n" + QUAD + "f 1/1 2/2 3/3\n")
        mesh = read_mesh(tmp_path / "q.obj")
        assert mesh.num_faces == 1 and mesh.texture is None and mesh.uvs is not None
        assert "q.obj: its materials none.mtl are missing; read without them" in caplog.text
        (tmp_path / "none.mtl").write_text("newmtl a\nmap_Kd t.png\n")
        assert read_mesh(tmp_path / "q.obj").texture is None
        assert "q.obj: its texture t.png is missing; read without it" in caplog.text

    @pytest.mark.parametrize(
        "name, content, message",
        [
            ("a.obj", b"", r"a\.obj: is empty \(0 bytes\)"),
            ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "has no faces"),
            ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "damaged|but there are 3 vertices"),
            ("a.obj", b"v 0 0 0\nv 1 0 0\nv nan 1 0\nf 1 2 3\n", "damaged|not finite"),
            ("a.obj", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "all 1 faces have zero area"),
            ("a.obj", b"\x89PNG", "damaged|has no faces"),
            ("a.stl", b"solid", "damaged|has no faces"),
            ("a.stl", b"\0" * 80 + b"\xff\xff\xff\x7f", "damaged"),
            ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nend_header\n", "is truncated|damaged"),
            (
                "a.ply",
                b"ply\nformat binary_little_endian 1.0\nelement vertex 2147483647\nproperty float x\nproperty float y\n"
                b"property float z\nelement face 2147483647\nproperty list uchar int vertex_indices\nend_header\n\0\0",
                "damaged|has no faces",
            ),
        ],
    )
    def test_damaged_files(self, tmp_path, name, content, message):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileFormatError, match=message) as caught:
            read_mesh(tmp_path / name)
        assert "\n" not in str(caught.value)

    def test_real_meshes(self, shared_data):
        sizes = {"spot": (2930, 5856), "teapot": (3644, 6320), "suzanne": (507, 968)}
        for name, size in sizes.items():
            mesh = read_mesh(shared_data / "meshes" / f"{name}.obj")
            assert (mesh.num_vertices, mesh.num_faces) == size
            assert (mesh.uvs is not None) == (name == "spot")

    def test_uvs_of_spot_are_those_of_its_file(self, shared_data):
        path = shared_data / "meshes" / "spot.obj"
        mesh, lines = Mesh.load(path), [line.split() for line in path.read_text().splitlines()]
        values = [(float(words[1]), 1 - float(words[2])) for words in lines if words[0] == "vt"]
        rows = [[int(word.split("/")[1]) - 1 for word in words[1:]] for words in lines if words[0] == "f"]
        assert len(values) == 3225 and mesh.num_vertices == 2930 and mesh.uvs is not None and mesh.uvs.ndim == 3
        torch.testing.assert_close(mesh.uvs, torch.tensor(values)[torch.tensor(rows)], rtol=0, atol=1e-7)

    def test_other_suffixes_and_missing_files(self, tmp_path):
        with pytest.raises(InputError, match=r"no mesh format '\.off'"):
            write_mesh(tmp_path / "a.off", plain())
        with pytest.raises(MissingFileError, match="want a mesh"):
            read_mesh(tmp_path / "none.stl")
        with pytest.raises(InputError, match="0 faces"):
            replace(plain(), faces=torch.zeros(0, 3, dtype=torch.int64)).save(tmp_path / "a.ply")
