"""EXT_meshopt_compression: meshes compressed by meshoptimizer's encoder."""

import sys

import numpy as np
import pytest
import torch

from tests.io.test_gltf_extensions import ball
from vision3d.core.errors import FileFormatError, MissingDependencyError
from vision3d.io import glb, gltf_gaussians
from vision3d.io.gltf_builder import glb_bytes
from vision3d.scene import Mesh

BALL = ball()
EXT, KHR = "EXT_meshopt_compression", "KHR_meshopt_compression"


def compress(path, mode="TRIANGLES", name=EXT, is_required=True, change=lambda entries: None):
    """The ball, with a compressed copy of each array; without the array itself if required."""
    meshopt = pytest.importorskip("meshopt")
    builder = glb.built(BALL)
    primitive = builder.content["meshes"][0]["primitives"][0]
    accessors, views = builder.content["accessors"], builder.content["bufferViews"]
    entries = {}
    for key, index in {**primitive["attributes"], "indices": primitive["indices"]}.items():
        view = views[accessors[index]["bufferView"]]
        data = bytes(builder.binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
        kind = {5126: np.float32, 5123: np.uint16, 5125: np.uint32, 5121: np.uint8}[accessors[index]["componentType"]]
        rows = np.frombuffer(data, kind).reshape(accessors[index]["count"], -1)
        stored = mode if key == "indices" else "ATTRIBUTES"
        encoded = meshopt.encode_gltf_buffer(rows.astype(np.uint32) if key == "indices" else rows, stored)
        place = views[builder.view(encoded)]
        entry = {
            "buffer": 0, "byteOffset": place["byteOffset"], "byteLength": len(encoded), "mode": stored,
            "byteStride": rows.dtype.itemsize * rows.shape[1], "count": len(rows),
        }  # fmt: skip
        view["extensions"] = {name: entry}
        entries[key] = entry
        if is_required:
            view |= {"buffer": 1, "byteOffset": 0}
    change(entries)
    builder.content["extensionsUsed"] = [name]
    if is_required:
        builder.content["extensionsRequired"] = [name]
    builder.write(path)
    if is_required:
        container = glb.Gltf(path)
        container.content["buffers"].append({"byteLength": 10**6, "extensions": {name: {"fallback": True}}})
        path.write_bytes(glb_bytes(container.content, bytes(container.binary)))


@pytest.mark.parametrize("name", [EXT, KHR])
@pytest.mark.parametrize("mode", ["TRIANGLES", "INDICES"])
def test_a_mesh_compressed_with_meshopt(tmp_path, mode, name):
    mesh = BALL
    compress(tmp_path / "a.glb", mode, name)
    found = Mesh.load(tmp_path / "a.glb")
    for key in ("vertices", "normals", "uvs"):
        torch.testing.assert_close(getattr(found, key), getattr(mesh, key), atol=0, rtol=0)
    turned = [mesh.faces.roll(shift, 1) for shift in range(3)]  # triangles may begin at another corner
    assert bool(torch.stack([(found.faces == faces).all(1) for faces in turned]).any(0).all())
    if mode == "INDICES":
        assert torch.equal(found.faces, mesh.faces)


def test_octahedral_normals(tmp_path):
    meshopt = pytest.importorskip("meshopt")
    mesh = BALL
    builder = glb.built(mesh)
    content = builder.content
    rows = meshopt.encode_filter_oct(torch.nn.functional.pad(mesh.normals, (0, 1)).numpy(), 4, 8)
    encoded = meshopt.encode_gltf_buffer(rows, "ATTRIBUTES")
    place = content["bufferViews"][builder.view(encoded)]
    index = content["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]
    accessor = content["accessors"][index]
    accessor |= {"componentType": 5120, "normalized": True}
    content["bufferViews"][accessor["bufferView"]]["extensions"] = {EXT: {
        "buffer": 0, "byteOffset": place["byteOffset"], "byteLength": len(encoded), "mode": "ATTRIBUTES",
        "filter": "OCTAHEDRAL", "byteStride": 4, "count": len(rows),
    }}  # fmt: skip
    content |= {"extensionsUsed": [EXT, "KHR_mesh_quantization"], "extensionsRequired": [EXT, "KHR_mesh_quantization"]}
    builder.write(tmp_path / "a.glb")
    found = torch.nn.functional.normalize(Mesh.load(tmp_path / "a.glb").normals, dim=1)
    assert float((found * mesh.normals).sum(1).min()) > 0.9995  # 8 bits: at most 1.8 degrees


def test_without_the_package_for_meshopt(tmp_path, monkeypatch):
    compress(tmp_path / "a.glb")
    compress(tmp_path / "b.glb", is_required=False)
    monkeypatch.setitem(sys.modules, "meshopt", None)
    for read in (Mesh.load, gltf_gaussians.read_gaussians):
        with pytest.raises(MissingDependencyError, match=r"meshopt.*EXT_meshopt_compression.*\[meshopt\]") as caught:
            read(tmp_path / "a.glb")
        assert "\n" not in str(caught.value)
    assert torch.equal(Mesh.load(tmp_path / "b.glb").vertices, BALL.vertices)  # its uncompressed copy


@pytest.mark.parametrize(
    ("key", "values", "text"),
    [
        ("POSITION", {"mode": "VERTICES"}, "has mode 'VERTICES', want ATTRIBUTES, TRIANGLES, INDICES"),
        ("POSITION", {"filter": "GAMMA"}, "has filter 'GAMMA', which does not exist for ATTRIBUTES"),
        ("POSITION", {"filter": "QUATERNION"}, "has 42 rows of 12 bytes, which ATTRIBUTES cannot have"),
        ("indices", {"filter": "COLOR"}, "has filter 'COLOR', which does not exist for TRIANGLES"),
        ("indices", {"count": 7}, "has 7 rows"),
        ("POSITION", {"byteStride": 6}, "has 42 rows of 6 bytes"),
        ("POSITION", {"count": -1}, "count is -1, want a whole number"),
        ("POSITION", {"count": 2**31}, "unpacks to"),
        ("POSITION", {"byteLength": 10**9}, "of its buffer, which has"),
        ("POSITION", {"byteLength": 30}, "meshopt data are damaged"),
        ("POSITION", {"count": 41}, "meshopt data are damaged|ends at byte"),
        ("NORMAL", {"buffer": 7}, r"names buffers\[7\]"),
    ],
)
def test_wrong_meshopt(tmp_path, key, values, text):
    compress(tmp_path / "a.glb", change=lambda entries: entries[key].update(values))
    with pytest.raises(FileFormatError, match=text) as caught:
        Mesh.load(tmp_path / "a.glb")
    assert "\n" not in str(caught.value)
