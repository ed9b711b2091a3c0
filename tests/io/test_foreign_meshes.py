"""Meshes written by other programs: text and binary, several solids, texture coordinates by corner, polygons."""

import json
import struct

import numpy as np
import pytest
import torch

from tests.support.gltf_reader import Animated
from vision3d.core.errors import FileFormatError
from vision3d.io.gltf_builder import glb_bytes
from vision3d.io.images import write_image
from vision3d.scene import Mesh
from vision3d.scene.colors import linear_to_srgb
from vision3d.scene.mesh_colors import surface_colors

CORNERS = [[(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 0, 1), (1, 0, 1), (0, 1, 1)], [(1, 0, 1), (1, 1, 1), (0, 1, 1)]]


def facet(corners, word="vertex"):
    lines = "\n".join(f"  {word} {x:.3f} {y:.1e} {z}" for x, y, z in corners)
    return f" facet normal 0 0 1\n outer loop\n{lines}\n endloop\n endfacet\n"


def test_an_stl_of_several_solids(tmp_path):
    text = "solid A vertex 9 9 9\n" + facet(CORNERS[0]) + "endsolid A\n\nSOLID B\n" + facet(CORNERS[1], "VERTEX") + "endsolid\n"
    text += "solid\n" + facet(CORNERS[2]) + "endsolid\n"
    for newline in ("\n", "\r\n", "\r"):
        (tmp_path / "a.stl").write_bytes(text.replace("\n", newline).encode())
        mesh = Mesh.load(tmp_path / "a.stl")
        assert (mesh.num_vertices, mesh.num_faces) == (7, 3)  # two faces share an edge
        assert torch.equal(mesh.vertices[mesh.faces], torch.tensor(CORNERS, dtype=torch.float32))


def test_a_binary_stl_that_starts_like_a_text(tmp_path):
    rows = b"".join(struct.pack("<12fH", 0, 0, 1, *np.array(corners, float).ravel(), 0) for corners in CORNERS)
    (tmp_path / "a.stl").write_bytes(b"solid of a CAD program".ljust(80) + struct.pack("<I", 3) + rows)
    mesh = Mesh.load(tmp_path / "a.stl")
    assert torch.equal(mesh.vertices[mesh.faces], torch.tensor(CORNERS, dtype=torch.float32))


def test_an_stl_with_a_missing_corner(tmp_path):
    (tmp_path / "a.stl").write_text("solid\n" + facet(CORNERS[0][:2]) + "endsolid\n")
    with pytest.raises(FileFormatError, match=r"a\.stl: is damaged: it has 2 corners, want three for each facet"):
        Mesh.load(tmp_path / "a.stl")


HEADER = """ply
format {format} 1.0
comment TextureFile {texture}
element vertex 5
property float x
property float y
property double z
property uchar red
property uchar green
property uchar blue
element face {count}
property list uchar int vertex_indices
property uchar quality
property list uchar float texcoord
end_header
"""
VERTICES = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 2, 0.5)]
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (51, 102, 153), (0, 0, 0)]
TRIANGLES = [((0, 1, 2), (0, 0, 1, 0, 1, 1)), ((0, 2, 3), (0, 0.5, 0.25, 0, 0.75, 1))]
QUAD = ((0, 1, 2, 3), (0, 0, 1, 0, 1, 1, 0, 1))


def write_ply(path, format, faces, texture="none.png"):
    head = HEADER.format(format=format, count=len(faces), texture=texture).encode()
    if format == "ascii":
        rows = [" ".join(map(str, (*place, *color))) for place, color in zip(VERTICES, COLORS)]
        rows += [" ".join(map(str, (len(face), *face, 7, len(uvs), *uvs))) for face, uvs in faces]
        path.write_bytes(head + "\n".join(rows).encode() + b"\n")
        return
    order = "<" if "little" in format else ">"
    rows = [struct.pack(f"{order}ffd3B", *place, *color) for place, color in zip(VERTICES, COLORS)]
    rows += [struct.pack(f"{order}B{len(f)}iBB{len(u)}f", len(f), *f, 7, len(u), *u) for f, u in faces]
    path.write_bytes(head + b"".join(rows))


@pytest.mark.parametrize("format", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("faces", [TRIANGLES, [QUAD], [TRIANGLES[0], QUAD]])
def test_a_ply_with_texture_coordinates_by_corner_and_colors(tmp_path, format, faces, caplog):
    write_ply(tmp_path / "a.ply", format, faces)
    mesh = Mesh.load(tmp_path / "a.ply").validate()
    assert torch.equal(mesh.vertices, torch.tensor(VERTICES)) and mesh.num_vertices == 5
    torch.testing.assert_close(mesh.vertex_colors, torch.tensor(COLORS) / 255)
    want_faces, want_uvs = [], []
    for face, uvs in faces:
        corners = np.array(uvs).reshape(-1, 2) * [1, -1] + [0, 1]  # v points down in vision3d
        for i in range(1, len(face) - 1):
            want_faces.append([face[0], face[i], face[i + 1]])
            want_uvs.append(corners[[0, i, i + 1]])
    assert mesh.faces.tolist() == want_faces
    np.testing.assert_allclose(mesh.uvs.numpy(), np.array(want_uvs), atol=1e-6)
    assert mesh.texture is None and "its texture none.png is missing; read without it" in caplog.text
    write_image(tmp_path / "an image.png", torch.rand(4, 6, 3))
    write_ply(tmp_path / "a.ply", format, faces, "an image.png")
    assert Mesh.load(tmp_path / "a.ply").texture.shape == (4, 6, 3)


@pytest.mark.parametrize("format", ["ascii", "binary_little_endian"])
def test_a_truncated_ply(tmp_path, format):
    write_ply(tmp_path / "a.ply", format, [TRIANGLES[0], QUAD])
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data[:-8])
    with pytest.raises(FileFormatError, match=r"is truncated: it holds 1 whole rows of 2 face"):
        Mesh.load(tmp_path / "a.ply")
    write_ply(tmp_path / "a.ply", format, [(TRIANGLES[0][0], (0, 0, 1, 0))])
    with pytest.raises(FileFormatError, match=r"face 0 has 4 texture coordinates, want two for each corner"):
        Mesh.load(tmp_path / "a.ply")


def test_a_ply_with_extra_values_in_its_lines(tmp_path):
    """VCGLIB writes face colors as a list although its header declares four numbers."""
    write_ply(tmp_path / "a.ply", "ascii", TRIANGLES)
    lines = (tmp_path / "a.ply").read_text().splitlines()
    (tmp_path / "a.ply").write_text("\n".join([*lines[:-2], *(line + " 9 1 1 1 1" for line in lines[-2:])]))
    assert Mesh.load(tmp_path / "a.ply").faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    (tmp_path / "b.ply").write_text("\n".join([*lines[:-1], *lines[-1].split(" ")]))  # a row over several lines
    assert Mesh.load(tmp_path / "b.ply").faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_an_obj_with_missing_texture_coordinates(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1/1 2/2 3/3\n")
    mesh = Mesh.load(tmp_path / "a.obj")
    assert mesh.num_faces == 1 and mesh.uvs is None
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/2 3/3\n")
    with pytest.raises(FileFormatError, match="a face refers to a missing element"):
        Mesh.load(tmp_path / "a.obj")


def textured_glb(path, change):
    """A textured triangle in a .glb with changed JSON."""
    uvs = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    mesh = Mesh(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]), uvs=uvs, texture=torch.rand(4, 4, 3)
    )
    mesh.save(path)
    file = Animated(path)
    change(file.json)
    path.write_bytes(glb_bytes(file.json, bytes(file.binary)))
    return mesh, path


def test_texture_transforms(tmp_path, caplog):
    """KHR_texture_transform: scale, then rotation by 90 degrees, then offset; u' = s_v v + 0.1 and v' = 0.2 - s_u u."""
    values = {"offset": [0.1, 0.2], "rotation": np.pi / 2, "scale": [2, 3]}

    def change(content):
        content["extensionsRequired"] = content["extensionsUsed"] = ["KHR_texture_transform", "KHR_materials_ior"]
        info = content["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        info["extensions"] = {"KHR_texture_transform": values}

    before, path = textured_glb(tmp_path / "a.glb", change)
    want = torch.stack([3 * before.uvs[:, 1] + 0.1, 0.2 - 2 * before.uvs[:, 0]], 1)
    torch.testing.assert_close(Mesh.load(path).uvs, want, atol=1e-6, rtol=0)
    values["scale"] = "large"
    assert Mesh.load(textured_glb(tmp_path / "b.glb", change)[1]).texture is None
    assert "KHR_texture_transform contains values that are not numbers; read without this texture" in caplog.text


def test_other_forms_of_materials(tmp_path):
    def glossy(content):
        rough = content["materials"][0].pop("pbrMetallicRoughness")
        values = {"diffuseTexture": rough["baseColorTexture"], "diffuseFactor": [0.5, 1, 1, 1]}
        content["materials"][0]["extensions"] = {"KHR_materials_pbrSpecularGlossiness": values}
        content["extensionsRequired"] = ["KHR_materials_pbrSpecularGlossiness"]

    def webp(content):
        content["textures"][0] = {"extensions": {"EXT_texture_webp": {"source": 0}}}
        content["extensionsRequired"] = ["EXT_texture_webp"]

    for change in (glossy, webp):
        before, path = textured_glb(tmp_path / "a.glb", change)
        torch.testing.assert_close(Mesh.load(path).texture, before.texture, atol=0.003, rtol=0)
    before, path = textured_glb(tmp_path / "a.glb", glossy)
    assert Mesh.load(path).vertex_colors[0].tolist() == pytest.approx([0.7354, 1, 1], abs=1e-3)  # 0.5 in linear color
    with pytest.raises(FileFormatError, match="needs the extensions EXT_mesh_manifold, which are not read"):
        Mesh.load(textured_glb(path, lambda content: content.update(extensionsRequired=["EXT_mesh_manifold"]))[1])


def test_a_glb_without_padding(tmp_path):
    mesh, path = textured_glb(tmp_path / "a.glb", lambda content: None)
    file = Animated(path)
    text = json.dumps(file.json).encode()
    text += b" " * (3 - len(text) % 4)  # its length is not a multiple of 4
    binary = bytes(file.binary)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    assert len(text) % 4 == 3 and torch.equal(Mesh.load(path).vertices, mesh.vertices)


PAINTS = "newmtl red\nKa 0 0 0\nKd 1 0 0\nNs 10\nnewmtl blue\nkd 0.0 0.25 1.0 \nnewmtl odd\nKd spectral file.rfl 1\n"
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def test_material_colors_of_an_obj_are_used(tmp_path):
    """Kd as vertex colors; if faces of two colors share vertices, as a texture, so that the vertices stay those of the file."""
    (tmp_path / "a.mtl").write_text(PAINTS)
    head = f"mtllib a.mtl\n{SQUARE}"
    (tmp_path / "a.obj").write_text(head + "v 0 0 1\nv 1 0 1\nv 1 1 1\nusemtl red\nf 1 2 3 4\nusemtl blue\nf 5 6 7\n")
    mesh = Mesh.load(tmp_path / "a.obj")
    red, blue = [1.0, 0.0, 0.0], [0.0, 0.25, 1.0]
    assert mesh.texture is None and mesh.vertex_colors is not None
    assert mesh.vertex_colors.tolist() == [red] * 4 + [blue] * 3
    (tmp_path / "b.obj").write_text(head + "usemtl red\nf 1 2 3\nusemtl blue\nf 1 3 4\n")
    mesh = Mesh.load(tmp_path / "b.obj")
    assert mesh.num_vertices == 4 and mesh.vertex_colors is None
    found = linear_to_srgb(surface_colors(mesh, torch.arange(2), torch.full((2, 3), 1 / 3)))
    torch.testing.assert_close(found, torch.tensor([red, blue]), atol=1e-5, rtol=0)
    (tmp_path / "c.obj").write_text(head + "usemtl odd\nf 1 2 3\n")
    assert Mesh.load(tmp_path / "c.obj").vertex_colors is None
    (tmp_path / "d.obj").write_text("mtllib a.mtl\n" + SQUARE.replace(" 0\n", " 0 0 1 0\n") + "usemtl red\nf 1 2 3\n")
    colors = Mesh.load(tmp_path / "d.obj").vertex_colors  # vertex colors of the file override those of the material
    assert colors is not None and (colors == torch.tensor([0.0, 1.0, 0.0])).all()


def test_colors_next_to_a_texture_of_an_obj(tmp_path):
    """A face with an image and one with only a color: neither gets the other's."""
    write_image(tmp_path / "green.png", torch.tensor([0.0, 1.0, 0.0]).expand(4, 4, 3))
    (tmp_path / "a.mtl").write_text(PAINTS + "newmtl image\nKd 0.2 0.2 0.2\nmap_Kd green.png\n")
    uvs = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\n{SQUARE}{uvs}usemtl image\nf 1/1 2/2 3/3\nusemtl red\nf 1/1 3/3 4/4\n")
    mesh = Mesh.load(tmp_path / "a.obj")
    found = surface_colors(mesh, torch.arange(2), torch.full((2, 3), 1 / 3))
    order = mesh.vertices[mesh.faces].mean(1)[:, 0].argsort(descending=True)  # face at x = 2/3 first
    torch.testing.assert_close(found[order], torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), atol=1e-2, rtol=0)
