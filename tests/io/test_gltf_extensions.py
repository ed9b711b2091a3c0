"""Extensions of glTF that change the geometry: copies of a mesh, and compression with Draco."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vision3d.core.errors import FileFormatError, MissingDependencyError
from vision3d.geometry import shapes
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.io import glb, gltf_skin_writer
from vision3d.scene import Mesh, SkinnedMesh
from vision3d.scene.clip import Channel, Clip

INSTANCING, DRACO = "EXT_mesh_gpu_instancing", "KHR_draco_mesh_compression"


def ball():
    vertices, faces = shapes.icosphere(1)
    return Mesh(vertices, faces, normals=vertices.clone(), uvs=torch.rand(len(vertices), 2), texture=torch.rand(4, 4, 3))


def write_copies(path, shifts, quats, scales, change=lambda content: None):
    """A mesh with copies at a node that is itself moved."""
    builder = glb.built(ball())
    parts = {"TRANSLATION": shifts, "ROTATION": quats.roll(-1, -1), "SCALE": scales}
    attributes = {name: builder.array(values.float().contiguous().numpy(), is_vertex=False) for name, values in parts.items()}
    builder.content["nodes"][0] |= {"translation": [5, 0, 0], "extensions": {INSTANCING: {"attributes": attributes}}}
    builder.content |= {"extensionsUsed": [INSTANCING], "extensionsRequired": [INSTANCING]}
    change(builder.content)
    builder.write(path)


def copies(count=3):
    return torch.randn(count, 3), random_quats(count), 0.5 + torch.rand(count, 3)


def test_copies_of_a_mesh(tmp_path):
    shifts, quats, scales = copies()
    write_copies(tmp_path / "a.glb", shifts, quats, scales)
    mesh, one = Mesh.load(tmp_path / "a.glb"), ball()
    want = torch.einsum("nij,nj,vj->nvi", quat_to_rotmat(quats), scales, one.vertices) + shifts[:, None]
    want[..., 0] += 5
    torch.testing.assert_close(mesh.vertices.view(3, -1, 3), want, atol=1e-5, rtol=0)
    assert mesh.num_faces == 3 * one.num_faces and mesh.texture.shape == (4, 4, 3)


def test_copies_move_with_their_node(tmp_path):
    def moving(content):
        content["accessors"] += [  # the first floats of the first copies serve as keys
            {"bufferView": content["accessors"][-3]["bufferView"], "componentType": 5126, "count": 2, "type": "SCALAR"},
            {"bufferView": content["accessors"][-3]["bufferView"], "componentType": 5126, "count": 2, "type": "VEC3"},
        ]
        last = len(content["accessors"]) - 1
        channel = {"sampler": 0, "target": {"node": 0, "path": "translation"}}
        content["animations"] = [{"samplers": [{"input": last - 1, "output": last}], "channels": [channel]}]

    shifts, quats, scales = copies()
    shifts[0, :2] = torch.tensor([0.0, 1.0])
    write_copies(tmp_path / "a.glb", shifts, quats, scales, moving)
    still, skin = glb.read_mesh(tmp_path / "a.glb"), SkinnedMesh.load(tmp_path / "a.glb")
    torch.testing.assert_close(
        skin.at(0.0, clip=skin.clips[0].name).vertices, still.vertices - torch.tensor([5.0, 0, 0]) + shifts[0]
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda found: found.pop("attributes"), r"nodes\[0\]: EXT_mesh_gpu_instancing has no attributes"),
        (lambda found: found["attributes"].update(SCALE=0), "has attributes of .* rows, want one number"),
        (lambda found: found["attributes"].update(SCALE=99), r"names accessors\[99\]"),
    ],
)
def test_wrong_copies(tmp_path, change, message):
    write_copies(tmp_path / "a.glb", *copies(), lambda content: change(content["nodes"][0]["extensions"][INSTANCING]))
    with pytest.raises(FileFormatError, match=message):
        Mesh.load(tmp_path / "a.glb")


def compress(path, mesh, is_required=True):
    """Replace the arrays of a .glb by Draco's, losslessly and in their order."""
    draco = pytest.importorskip("DracoPy")
    builder = gltf_skin_writer.built(mesh) if isinstance(mesh, SkinnedMesh) else glb.built(mesh)
    primitive = builder.content["meshes"][0]["primitives"][0]
    view = builder.content["bufferViews"]

    def rows(index, width, kind=np.float32):
        entry = view[builder.content["accessors"][index]["bufferView"]]
        start = entry["byteOffset"]
        return np.frombuffer(bytes(builder.binary[start : start + entry["byteLength"]]), kind).reshape(-1, width)

    names = list(primitive["attributes"])
    widths = {"POSITION": 3, "NORMAL": 3, "TEXCOORD_0": 2, "JOINTS_0": 4, "WEIGHTS_0": 4}
    arrays = {
        name: rows(primitive["attributes"][name], widths[name], np.uint16 if name == "JOINTS_0" else np.float32)
        for name in names
    }
    faces = rows(primitive["indices"], 3, np.uint32)
    data = draco.encode(
        arrays.pop("POSITION"), faces, quantization_bits=0, preserve_order=True,
        generic_attributes={20 + i: values for i, values in enumerate(arrays.values())},
    )  # fmt: skip
    found = {a["unique_id"]: a for a in draco.decode(data).attributes}
    ids = {"POSITION": next(i for i, a in found.items() if a["attribute_type"] == 0)}
    ids |= {name: 20 + i for i, name in enumerate(arrays)}
    for index in [*primitive["attributes"].values(), primitive["indices"]] if is_required else []:
        del builder.content["accessors"][index]["bufferView"]
    primitive["extensions"] = {DRACO: {"bufferView": builder.view(data), "attributes": ids}}
    builder.content["extensionsUsed"] = [DRACO]
    if is_required:
        builder.content["extensionsRequired"] = [DRACO]
    builder.write(path)
    return builder


def test_a_mesh_compressed_with_draco(tmp_path):
    mesh = ball()
    compress(tmp_path / "a.glb", mesh)
    found = Mesh.load(tmp_path / "a.glb")
    for name in ("vertices", "faces", "normals", "uvs"):
        torch.testing.assert_close(getattr(found, name), getattr(mesh, name), atol=0, rtol=0)


def test_a_skin_compressed_with_draco(tmp_path):
    mesh, weights = replace(ball(), texture=None, uvs=None), torch.rand(42, 2)
    skin = SkinnedMesh(
        mesh, ("a", "b"), (-1, 0),
        translations=torch.zeros(2, 3), quats=torch.tensor([[1.0, 0, 0, 0]] * 2), scales=torch.ones(2, 3),
        inverse_binds=torch.eye(4).repeat(2, 1, 1), indices=torch.tensor([[0, 1]]).repeat(42, 1),
        weights=weights / weights.sum(1, keepdim=True),
        clips=(Clip("up", (Channel("translation", 1, torch.tensor([0.0, 1]), torch.rand(2, 3), "LINEAR"),)),),
    )  # fmt: skip
    compress(tmp_path / "a.glb", skin)
    skin.save(tmp_path / "b.glb")
    found, want = SkinnedMesh.load(tmp_path / "a.glb"), SkinnedMesh.load(tmp_path / "b.glb")
    torch.testing.assert_close(found.at(0.7, clip="up").vertices, want.at(0.7, clip="up").vertices, atol=0, rtol=0)


def test_without_the_package_for_draco(tmp_path, monkeypatch):
    mesh = ball()
    compress(tmp_path / "a.glb", mesh)
    compress(tmp_path / "b.glb", mesh, is_required=False)
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(MissingDependencyError, match=r"DracoPy.*KHR_draco_mesh_compression.*\[draco\]"):
        Mesh.load(tmp_path / "a.glb")
    assert torch.equal(Mesh.load(tmp_path / "b.glb").vertices, mesh.vertices)  # its uncompressed copy


def test_wrong_draco(tmp_path):
    def write(change):
        builder = compress(tmp_path / "a.glb", ball())
        change(builder.content, builder.content["meshes"][0]["primitives"][0]["extensions"][DRACO])
        builder.write(tmp_path / "a.glb")
        with pytest.raises(FileFormatError) as caught:
            Mesh.load(tmp_path / "a.glb")
        return str(caught.value)

    assert "accessors[0]: has count 41, but its Draco data have 42" in write(lambda c, d: c["accessors"][0].update(count=41))
    assert "Draco data are damaged" in write(lambda c, d: d.update(bufferView=0))
    assert "Draco data have no attribute 77 for NORMAL" in write(lambda c, d: d["attributes"].update(NORMAL=77))
    assert "does not list attributes of its primitive" in write(lambda c, d: d.update(attributes={"OTHER": 1}))
