import base64
import json
import logging
import struct

import pytest
import torch

from tests.support.splats import assert_close, small_scene
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.geometry.spherical_harmonics import eval_sh
from vision3d.io import gltf_gaussians as gltf, spz
from vision3d.io.gltf_builder import Builder, glb_bytes
from vision3d.io.gltf_container import peek_json
from vision3d.scene import GaussianScene, Mesh, codecs, load


def parts(path):
    """JSON and buffer of a .glb."""
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


@pytest.fixture
def edited(tmp_path):
    """Writes a .glb of a small scene with its JSON changed by a function."""

    def make(change, degree=1, count=20):
        path = tmp_path / "a.glb"
        gltf.write_gaussians(path, small_scene(degree, count))
        content, binary = parts(path)
        change(content)
        path.write_bytes(glb_bytes(content, binary))
        return path

    return make


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
@pytest.mark.parametrize("degree", range(4))
def test_round_trip(tmp_path, suffix, degree):
    scene = small_scene(degree, mode="flat", antialiased=True)
    gltf.write_gaussians(tmp_path / f"a{suffix}", scene)
    assert gltf.is_gaussian_gltf(tmp_path / f"a{suffix}")
    assert_close(
        gltf.read_gaussians(tmp_path / f"a{suffix}"), scene, means=0, angle=1e-6, log_scales=1e-5, opacities=1e-6, sh0=0, rest=0
    )


def test_nodes_translate_and_rotate(edited):
    def change(content):
        content["nodes"] = [
            {"children": [1], "translation": [1, 2, 3]},
            {"mesh": 0, "rotation": [0, 0, 1, 0], "scale": [2, 2, 2]},
        ]

    plain, moved = small_scene(1, 20), gltf.read_gaussians(edited(change))
    # In glTF's axes: 180 degrees about z, scaled by 2, then (1, 2, 3). Ours are (-x, -y, z) of those.
    expected = 2 * plain.means * torch.tensor([-1.0, -1.0, 1.0]) + torch.tensor([-1.0, -2.0, 3.0])
    torch.testing.assert_close(moved.means, expected)
    torch.testing.assert_close(moved.scales, 2 * plain.scales)
    direction = torch.tensor([0.3, -0.5, 0.8])
    torch.testing.assert_close(eval_sh(moved.sh, direction * torch.tensor([-1, -1, 1])), eval_sh(plain.sh, direction))


def test_losses_are_one_line(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        gltf.write_gaussians(tmp_path / "a.glb", small_scene(4, labels=torch.arange(300)))
    (record,) = caplog.records
    assert "harmonics above degree 3" in record.getMessage() and "labels" in record.getMessage()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["asset"].update(version="1.0"), "has glTF version '1.0'; 2 is read"),
        (lambda c: c["accessors"][0].update(count=2**31), "at nodes: unpacks to"),
        (lambda c: c["accessors"][0].update(count=21), r"accessors\[0\]: ends at byte"),
        (lambda c: c["accessors"][0].update(componentType=5125), r"accessors\[0\]: has type 'VEC3' of 5125"),
        (lambda c: c["accessors"][0].pop("bufferView"), r"accessors\[0\]: has neither a bufferView nor sparse rows"),
        (lambda c: c["bufferViews"][0].update(byteLength=2**40), r"bufferViews\[0\]: ends at byte"),
        (lambda c: c["bufferViews"][0].update(byteOffset=-1), r"bufferViews\[0\]: byteOffset is -1"),
        (lambda c: c["nodes"][0].update(children=[0]), r"nodes\[0\]: is met twice"),
        (lambda c: c["nodes"][0].update(scale=[1, 2, 3]), "cannot be transformed by its nodes"),
        (lambda c: c["meshes"][0]["primitives"][0]["extensions"].clear(), "holds no primitive with KHR_gaussian_splatting"),
        (lambda c: c["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"), "lacks POSITION"),
        (lambda c: c.update(extensionsRequired=["KHR_draco"]), "needs KHR_draco, which is not read"),
        (
            lambda c: c["buffers"][0].update(uri="../../etc/passwd"),
            r"names '\.\./\.\./etc/passwd', which is outside",
        ),
        (lambda c: c["buffers"][0].update(uri="%2e%2e/x.bin"), "outside its folder"),
        (lambda c: c["buffers"][0].update(uri="data:x;base64,####"), "uri is not base64"),
    ],
)
def test_wrong_json(edited, change, message):
    with pytest.raises(FileFormatError, match=message):
        gltf.read_gaussians(edited(change))


def test_the_number_of_instances_is_limited(edited):
    def change(content):
        content["nodes"] = [{"mesh": 0}] * 9000
        content["scenes"] = [{"nodes": list(range(9000))}]

    with pytest.raises(FileFormatError, match="unpacks to"):
        gltf.read_gaussians(edited(change, degree=3, count=2000))


def test_external_buffers(tmp_path):
    gltf.write_gaussians(tmp_path / "a.gltf", small_scene(0))
    content = json.loads((tmp_path / "a.gltf").read_text())
    data = base64.b64decode(content["buffers"][0]["uri"].partition(",")[2])
    content["buffers"][0]["uri"] = "a%20b.bin"
    (tmp_path / "a.gltf").write_text(json.dumps(content))
    with pytest.raises(MissingFileError, match=r"a b\.bin: does not exist; want the buffers\[0\] that a\.gltf names"):
        gltf.read_gaussians(tmp_path / "a.gltf")
    (tmp_path / "a b.bin").write_bytes(data)
    assert torch.equal(gltf.read_gaussians(tmp_path / "a.gltf").means, small_scene(0).means)


@pytest.mark.parametrize("data", [b"", b"glTF", b"{", b"[]", b"[" * 100000, b"glTF" + struct.pack("<4I", 1, 20, 0, 0)])
def test_files_that_are_not_gltf(tmp_path, data):
    (tmp_path / "a.glb").write_bytes(data)
    with pytest.raises(FileFormatError):
        gltf.read_gaussians(tmp_path / "a.glb")
    assert not gltf.is_gaussian_gltf(tmp_path / "a.glb")


def test_fallback_for_other_programs(tmp_path):
    scene = small_scene(1)
    gltf.write_gaussians(tmp_path / "a.glb", scene)
    content = peek_json(tmp_path / "a.glb")
    primitive = content["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0 and content["extensionsUsed"] == ["KHR_gaussian_splatting"]
    low = content["accessors"][primitive["attributes"]["POSITION"]]["min"]
    assert low[0] == -float(scene.means[:, 0].max()) and low[2] == float(scene.means[:, 2].min())


def test_a_glb_is_recognized_by_its_content(tmp_path):
    scene, mesh = small_scene(1), Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
    scene.save(tmp_path / "splats.glb")
    scene.save(tmp_path / "splats.gltf")
    mesh.save(tmp_path / "mesh.glb")
    mesh.save(tmp_path / "mesh.gltf")
    kinds = [type(load(tmp_path / name)) for name in ("splats.glb", "splats.gltf", "mesh.glb", "mesh.gltf")]
    assert kinds == [GaussianScene, GaussianScene, Mesh, Mesh]
    with pytest.raises(InputError, match=r"mesh\.glb: holds .*, want a Gaussian scene"):
        GaussianScene.load(tmp_path / "mesh.glb")
    with pytest.raises(InputError, match=r"a \.gltf file holds a mesh, a skin, a Gaussian scene or a scene, got int"):
        codecs.save(tmp_path / "a.gltf", 1)


@pytest.mark.parametrize("suffix, degree", [(".glb", 3), (".gltf", 0)])
def test_compression_by_spz(tmp_path, suffix, degree):
    scene = small_scene(degree, 200, mode="2dgs", antialiased=True)
    gltf.write_gaussians(tmp_path / f"a{suffix}", scene, compression="spz")
    content = peek_json(tmp_path / f"a{suffix}")
    assert content["extensionsRequired"] == ["KHR_gaussian_splatting", "KHR_gaussian_splatting_compression_spz_2"]
    position = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    assert "bufferView" not in position and position["count"] == 200
    torch.testing.assert_close(
        torch.tensor(position["max"]), (scene.means * torch.tensor([-1.0, -1, 1])).amax(0), atol=2e-4, rtol=0
    )
    spz.write_gaussians(tmp_path / "b.spz", scene, version=2)
    found, want = GaussianScene.load(tmp_path / f"a{suffix}"), spz.read_gaussians(tmp_path / "b.spz")
    assert found.mode == "2dgs" and found.antialiased
    for name in ("means", "quats", "log_scales", "opacity_logits", "sh"):
        assert torch.equal(getattr(found, name), getattr(want, name)), name


@pytest.mark.parametrize("version, name", [(2, "KHR_gaussian_splatting_compression_spz"), (4, gltf.SPZ)])
def test_spz_of_others_moved_by_a_node(tmp_path, version, name):
    """Placed like the same numbers without compression: node matrices are in glTF's axes."""
    scene = small_scene(1, 30)
    spz.write_gaussians(tmp_path / "a.spz", scene, version=version)
    scene = spz.read_gaussians(tmp_path / "a.spz")

    def write(path, builder):
        builder.content["nodes"][0] |= {"translation": [1, 2, 3], "rotation": [0.5, 0.5, 0.5, 0.5]}
        builder.write(path)
        return GaussianScene.load(path)

    plain = write(tmp_path / "a.glb", gltf.built(scene, "a"))
    builder = Builder()
    view = builder.view((tmp_path / "a.spz").read_bytes())
    builder.append("accessors", {"componentType": 5126, "count": 30, "type": "VEC3"})
    extension = {"extensions": {name: {"bufferView": view}}}
    builder.append(
        "meshes", {"primitives": [{"mode": 0, "attributes": {"POSITION": 0}, "extensions": {gltf.EXTENSION: extension}}]}
    )
    builder.append("nodes", {"mesh": 0})
    builder.append("scenes", {"nodes": [0]})
    builder.content["extensionsUsed"] = builder.content["extensionsRequired"] = [gltf.EXTENSION, name]
    packed = write(tmp_path / "b.glb", builder)
    assert_close(packed, plain, means=1e-5, angle=1e-3, log_scales=1e-5, opacities=1e-6, sh0=1e-6, rest=1e-6)


def test_a_damaged_spz(tmp_path):
    gltf.write_gaussians(tmp_path / "a.glb", small_scene(0, 30), compression="spz")
    content, binary = parts(tmp_path / "a.glb")
    (tmp_path / "a.glb").write_bytes(glb_bytes(content, binary[:40] + b"?" * (len(binary) - 40)))
    with pytest.raises(FileFormatError, match=r"a\.glb"):
        gltf.read_gaussians(tmp_path / "a.glb")
    content["meshes"][0]["primitives"][0]["extensions"][gltf.EXTENSION]["extensions"][gltf.SPZ] = 7
    (tmp_path / "a.glb").write_bytes(glb_bytes(content, binary))
    with pytest.raises(FileFormatError, match="compression by spz is not an object"):
        gltf.read_gaussians(tmp_path / "a.glb")
