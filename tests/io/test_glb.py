import base64
import contextlib
import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.glb import linear_to_srgb, read_mesh, read_parts, srgb_to_linear, write_mesh
from vision3d.io.gltf_builder import Builder
from vision3d.io.gltf_container import Gltf
from vision3d.scene import Mesh

TRIANGLE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])


def textured(by_corner=False):
    uvs = torch.rand(4, 3, 2) if by_corner else torch.rand(6, 2)
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5], [0, 5, 4]])
    texture = torch.randint(0, 256, (4, 3, 4)) / 255
    return Mesh(torch.randn(6, 3), faces, uvs, torch.randn(6, 3), texture, torch.randint(0, 256, (6, 3)) / 255)


def test_round_trip_is_exact(tmp_path):
    mesh = textured()
    write_mesh(tmp_path / "m.glb", mesh)
    again = read_mesh(tmp_path / "m.glb")
    for name in ("vertices", "faces", "uvs", "normals", "texture"):
        assert torch.equal(getattr(again, name), getattr(mesh, name)), name
    # The file has linear colors: back to sRGB within the rounding of float32.
    torch.testing.assert_close(again.vertex_colors, mesh.vertex_colors, rtol=0, atol=2e-7)


def test_round_trip_of_seams_keeps_the_surface(tmp_path):
    mesh = textured(by_corner=True)
    write_mesh(tmp_path / "m.glb", mesh)
    again = read_mesh(tmp_path / "m.glb")
    assert torch.equal(again.corner_uvs, mesh.corner_uvs)
    assert torch.equal(again.vertices[again.faces], mesh.vertices[mesh.faces])


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(3, 9), st.integers(0, 2**31))
def test_any_mesh_round_trips(tmp_path_factory, num_faces, num_vertices, seed):
    generator = torch.Generator().manual_seed(seed)
    faces = torch.stack([torch.randperm(num_vertices, generator=generator)[:3] for _ in range(num_faces)])
    mesh = Mesh(torch.randn(num_vertices, 3, generator=generator), faces)
    path = tmp_path_factory.mktemp("glb") / "m.glb"
    write_mesh(path, mesh)
    again = read_mesh(path)
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.faces, mesh.faces)
    assert again.uvs is None and again.texture is None and again.vertex_colors is None


def test_trimesh_reads_what_we_write(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    mesh = textured()
    write_mesh(tmp_path / "m.glb", mesh)
    theirs = trimesh.load(tmp_path / "m.glb", process=False, force="mesh")
    np.testing.assert_array_equal(theirs.vertices, mesh.vertices.numpy())
    np.testing.assert_array_equal(theirs.faces, mesh.faces.numpy())
    np.testing.assert_allclose(theirs.visual.uv[:, 1], 1 - mesh.uvs[:, 1].numpy(), rtol=1e-6)  # v points up in trimesh
    image = np.asarray(theirs.visual.material.baseColorTexture.convert("RGBA"))
    np.testing.assert_array_equal(image, (mesh.texture * 255).round().numpy())


def test_srgb_curves_are_inverse():
    values = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-7)
    assert srgb_to_linear(np.array(0.5)) == pytest.approx(0.21404114)


def build(tmp_path, change=lambda content: None, vertices=TRIANGLE, indices=(0, 1, 2), more=None):
    """A hand-written file: one triangle, then bufferView 2 with `more`, then `change` applied to its JSON."""
    builder = Builder()
    positions = builder.array(vertices.numpy())
    corners = builder.array(np.array(indices, np.uint32), indices=True)
    builder.append("meshes", {"name": "tri", "primitives": [{"attributes": {"POSITION": positions}, "indices": corners}]})
    if more is not None:
        builder.view(more.tobytes())
    change(builder.content)
    builder.write(tmp_path / "a.glb")
    return tmp_path / "a.glb"


def test_nodes_place_meshes_and_reflections_flip_faces(tmp_path):
    def change(content):
        content["nodes"] = [
            {"translation": [1, 2, 3], "children": [1]},
            {"mesh": 0, "rotation": [0, 0, 0.5**0.5, 0.5**0.5], "scale": [2, 2, 2]},
            {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]},
        ]
        content["scenes"] = [{"nodes": [0, 2]}]

    parts = read_parts(build(tmp_path, change))
    assert list(parts) == ["tri", "tri_2"]
    torch.testing.assert_close(parts["tri"].vertices, torch.tensor([[1.0, 2, 3], [1, 4, 3], [-1, 2, 3]]))
    torch.testing.assert_close(parts["tri_2"].vertices, TRIANGLE * torch.tensor([-1.0, 1, 1]))
    assert parts["tri_2"].faces.tolist() == [[2, 1, 0]]
    assert read_mesh(tmp_path / "a.glb").num_faces == 2


@pytest.mark.parametrize("mode, faces", [(5, [[0, 1, 2], [2, 1, 3]]), (6, [[0, 1, 2], [0, 2, 3]])])
def test_strips_and_fans(tmp_path, mode, faces):
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    path = build(tmp_path, lambda c: c["meshes"][0]["primitives"][0].update(mode=mode), vertices, (0, 1, 2, 3))
    assert read_mesh(path).faces.tolist() == faces


def test_color_factors_become_vertex_colors(tmp_path):
    def change(content):
        content["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [0.21404114, 0, 1, 1]}}]
        content["meshes"][0]["primitives"][0]["material"] = 0

    colors = read_mesh(build(tmp_path, change)).vertex_colors
    torch.testing.assert_close(colors, torch.tensor([[0.5, 0.0, 1.0]]).expand(3, 3), atol=1e-6, rtol=0)


def with_texture(uri, count=1):
    def change(content):
        content["images"] = [{"uri": uri}] * count
        content["textures"] = [{"source": i} for i in range(count)]
        content["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": i}}} for i in range(count)]
        primitive = content["meshes"][0]["primitives"][0]
        primitive["attributes"]["TEXCOORD_0"] = 2
        content["accessors"].append({"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC2"})
        content["meshes"][0]["primitives"] = [{**primitive, "material": i} for i in range(count)]

    return change


def test_images_next_to_the_file_and_in_it(tmp_path):
    from vision3d.io.images import write_image

    texture = torch.randint(0, 256, (2, 3, 3)) / 255
    write_image(tmp_path / "a b.png", texture)
    assert torch.equal(read_mesh(build(tmp_path, with_texture("a%20b.png"))).texture, texture)
    inline = "data:image/png;base64," + base64.b64encode((tmp_path / "a b.png").read_bytes()).decode()
    assert torch.equal(read_mesh(build(tmp_path, with_texture(inline))).texture, texture)
    assert len(read_parts(build(tmp_path, with_texture(inline, 2)))) == 2
    both = read_mesh(tmp_path / "a.glb")
    assert both.num_vertices == 6 and both.texture.shape[0] * both.texture.shape[1] >= 2 * texture.shape[0] * texture.shape[1]


def large_png(width=60_000, height=60_000):
    """The header of an image of absurd size."""
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk).decode()


def setter(*path, value):
    def change(content):
        target = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


PRIMITIVE = ("meshes", 0, "primitives", 0)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            setter("accessors", 0, "count", value=2**31),
            r"accessors\[0\]: ends at byte 25769803776 of its .* has 36",
        ),
        (setter("accessors", 0, "count", value=-1), "count is -1, want a whole number from 0"),
        (setter("accessors", 0, "count", value=2), "an index is 2, but there are 2 vertices"),
        (setter("accessors", 0, "type", value="VEC2"), "has type 'VEC2' of 5126, which is not allowed here"),
        (setter("accessors", 0, "sparse", value={}), "sparse has no indices and values"),
        (setter("bufferViews", 0, "byteLength", value=10**9), "ends at byte 1000000000"),
        (setter("bufferViews", 0, "byteStride", value=4), "byteStride is 4, want at least 12"),
        (setter(*PRIMITIVE, "attributes", value={}), "a primitive has no POSITION"),
        (setter(*PRIMITIVE, "mode", value=1), "holds no triangles"),
        (setter(*PRIMITIVE, "attributes", "POSITION", value=9), r"names accessors\[9\], but there are 2"),
        (setter(*PRIMITIVE, "material", value=0), r"names materials\[0\], but there are 0 of them"),
        (setter("meshes", value=[]), "holds no triangles"),
        (setter("meshes", value={}), "at meshes: is not a list"),
        (setter("nodes", value=[{"children": [1]}, {"children": [0], "mesh": 0}]), "holds no triangles"),
        (setter("nodes", value=[{"children": [1, 1]}, {"mesh": 0}]), r"nodes\[1\]: is met twice"),
        (setter("nodes", value=[{"mesh": 0, "scale": [1, 2]}]), r"nodes\[0\]: scale is not a list of 3 numbers"),
        (
            setter("extensionsRequired", value=["EXT_mesh_manifold"]),
            "needs the extensions EXT_mesh_manifold, which are not read",
        ),
    ],
)
def test_damaged_content(tmp_path, change, message):
    with pytest.raises((FileFormatError, MissingFileError), match=message) as caught:
        read_mesh(build(tmp_path, change))
    assert "\n" not in str(caught.value)


TEXTURED = ("materials", 0, "pbrMetallicRoughness", "baseColorTexture")


def after(first, second):
    def change(content):
        first(content)
        second(content)

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (with_texture("none.png"), r"none\.png: does not exist; want the texture images\[0\] that a\.glb names"),
        (with_texture("../secret.png"), r"names '\.\./secret\.png', which is outside its folder"),
        (with_texture("/etc/passwd"), "names '/etc/passwd', which is outside its folder"),
        (with_texture("%2e%2e/x.png"), "outside its folder"),
        (with_texture("data:image/png;base64,AAAA"), "is not an image that can be read"),
        (with_texture("data:image/png;base64,?"), "is not base64"),
        (with_texture(large_png()), "want at most|not an image that can be read"),
        (after(with_texture("a.png"), setter(*TEXTURED, value=3)), "baseColorTexture is not an object"),
        (after(with_texture("a.png"), setter(*TEXTURED, "index", value=7)), r"names textures\[7\], but there are 1"),
        (
            after(with_texture("a.png"), setter("textures", 0, value={"extensions": {"KHR_texture_basisu": {"source": 0}}})),
            "has only an image of KHR_texture_basisu, which is not read",
        ),
    ],
)
def test_a_texture_that_cannot_be_read_hides_nothing(tmp_path, change, message, caplog):
    (tmp_path.parent / "secret.png").write_bytes(b"")
    path = build(tmp_path, after(change, setter("extensionsRequired", value=["KHR_texture_basisu"])))
    mesh = read_mesh(path)
    assert torch.equal(mesh.vertices, TRIANGLE) and mesh.texture is None
    (text,) = caplog.messages
    assert re.search(message, text) and text.endswith("; read without this texture") and "\n" not in text


def test_uvs_and_colors_that_are_not_finite(tmp_path, caplog):
    def change(content):
        for name, kind in (("TEXCOORD_0", "VEC2"), ("COLOR_0", "VEC3"), ("NORMAL", "VEC3")):
            content["meshes"][0]["primitives"][0]["attributes"][name] = len(content["accessors"])
            content["accessors"].append({"bufferView": 2, "componentType": 5126, "count": 3, "type": kind})

    values = np.ones((3, 3), np.float32)
    values[1, 1] = np.nan
    path = build(tmp_path, change, more=values)
    mesh = read_mesh(path)
    assert torch.equal(mesh.vertices, TRIANGLE) and mesh.normals is None
    assert torch.equal(mesh.uvs, torch.tensor([[1.0, 1], [1, 1], [0, 0]])) and torch.equal(mesh.vertex_colors, torch.ones(3, 3))
    assert caplog.messages == [
        f"{path}: normals not finite in 1 of 3 rows; dropped; uvs not finite in 1 of 3 rows; set to 0; "
        "vertex_colors not finite in 1 of 3 rows; shown white"
    ]


def test_an_array_that_is_not_aligned_is_read(tmp_path, caplog):
    def change(content):
        content["accessors"].append({"bufferView": 2, "byteOffset": 1, "componentType": 5126, "count": 3, "type": "VEC3"})
        content["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = 2

    data = np.frombuffer(b"x" + TRIANGLE.numpy().tobytes() + b"yyy", np.float32)
    path = build(tmp_path, change, more=data)
    assert torch.equal(read_mesh(path).vertices, TRIANGLE)
    assert caplog.messages == [
        f"{path} at accessors[2]: begins at byte 49 of its buffer in steps of 12, want multiples of 4; read as it is"
    ]


def test_lights_are_ignored_with_a_note(tmp_path, caplog):
    path = build(tmp_path, lambda content: content.update(extensionsUsed=["KHR_lights_punctual"]))
    assert torch.equal(read_mesh(path).vertices, TRIANGLE)
    assert caplog.messages == [f"{path}: its lights are ignored (KHR_lights_punctual)"]


def test_invalid_meshes(tmp_path):
    vertices = TRIANGLE.clone()
    vertices[1, 2] = torch.nan
    path = tmp_path / "a.glb"
    write_mesh(path, Mesh(TRIANGLE, torch.tensor([[0, 1, 2]])))
    data = path.read_bytes()
    at = data.index(TRIANGLE.numpy().tobytes())
    path.write_bytes(data[:at] + vertices.numpy().tobytes() + data[at + 36 :])
    with pytest.raises(FileFormatError, match="vertices is not finite in 1 of 3 rows"):
        read_mesh(path)
    path.write_bytes(data[:at] + b"\0" * 36 + data[at + 36 :])
    with pytest.raises(FileFormatError, match="all 1 faces have zero area"):
        read_mesh(path)
    with pytest.raises(InputError, match="0 faces"):
        write_mesh(path, Mesh(TRIANGLE, torch.zeros(0, 3, dtype=torch.int64)))
    assert len(path.read_bytes()) == len(data)  # the previous file is kept


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty"),
        (b"PK\3\4" + b"\0" * 40, "is not a glTF file"),
        (struct.pack("<III", 0x46546C67, 1, 12), "has .glb version 1; 2 is read"),
        (struct.pack("<III", 0x46546C67, 2, 400), "is truncated: it has 12 of 400 bytes"),
        (struct.pack("<III", 0x46546C67, 2, 12), "has no JSON chunk"),
        (struct.pack("<IIIII", 0x46546C67, 2, 20, 2**31, 0x4E4F534A), "has a chunk of 2147483648 bytes, with 0 left"),
        (struct.pack("<IIIII", 0x46546C67, 2, 24, 4, 0x4E4F534A) + b"[1] ", "its JSON is not an object"),
        (struct.pack("<IIIII", 0x46546C67, 2, 24, 4, 0x4E4F534A) + b"{{{{", "its JSON is damaged"),
    ],
)
def test_damaged_containers(tmp_path, data, message):
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(FileFormatError, match=message):
        read_mesh(tmp_path / "a.glb")
    with pytest.raises(MissingFileError):
        read_mesh(tmp_path / "none.glb")


@settings(max_examples=300)
@given(st.data())
def test_damaged_bytes_are_always_a_format_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("glb") / "m.glb"
    torch.manual_seed(0)
    write_mesh(path, replace(textured(), normals=None))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    with contextlib.suppress(FileFormatError, MissingFileError):
        read_mesh(path)


def test_container_json_is_plain(tmp_path):
    write_mesh(tmp_path / "m.glb", textured())
    content = Gltf(tmp_path / "m.glb").content
    assert content["asset"]["version"] == "2.0" and json.dumps(content, allow_nan=False)
    assert content["accessors"][0]["min"] == pytest.approx(content["accessors"][0]["min"])
