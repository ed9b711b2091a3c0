"""Animated glTF: round trips, an independent reader, Khronos' validator, invalid files."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.creature import creature
from tests.support.gltf_reader import Animated
from tests.support.skins import arm, hybrid
from vision3d.core.errors import FileFormatError, InputError
from vision3d.geometry import shapes
from vision3d.geometry.mesh import vertex_normals
from vision3d.geometry.quaternion import quat_to_rotmat, random_quats
from vision3d.io.gltf_builder import glb_bytes
from vision3d.io.gltf_container import Gltf
from vision3d.optim.motion.skin_fit import fit_joints, fit_morphs
from vision3d.scene import Channel, Clip, Mesh, SkinnedMesh, load

TIMES = [0.0, 0.1, 0.25, 0.4, 0.75, 1.0, 1.5]


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
@pytest.mark.parametrize("influences", [1, 4, 6])
def test_round_trip(tmp_path, suffix, influences):
    skin = creature(influences)
    skin.save(tmp_path / f"creature{suffix}")
    back = SkinnedMesh.load(tmp_path / f"creature{suffix}")
    assert (back.names, back.parents, back.morph_names) == (skin.names, skin.parents, skin.morph_names)
    assert [clip.name for clip in back.clips] == ["walk", "wave"]
    assert [channel.interpolation for channel in back.clips[0].channels] == [c.interpolation for c in skin.clips[0].channels]
    for name in ("walk", "wave"):
        torch.testing.assert_close(back.posed(back.clip(name), TIMES), skin.posed(skin.clip(name), TIMES), atol=1e-5, rtol=0)


def test_an_independent_reader_agrees(tmp_path):
    skin = creature(6)
    skin.save(tmp_path / "creature.glb")
    other = Animated(tmp_path / "creature.glb")
    for name in ("walk", "wave"):
        for time, ours in zip(TIMES, skin.posed(skin.clip(name), TIMES)):
            theirs = other.vertices(name, time)
            assert np.abs(theirs - ours.numpy()).max() <= 1e-5 * np.linalg.norm(np.ptp(theirs, axis=0))


def test_corner_uvs_split_vertices_and_their_weights(tmp_path):
    skin = creature(corner_uvs=True)
    skin.save(tmp_path / "creature.glb")
    back = SkinnedMesh.load(tmp_path / "creature.glb")
    moved, want = back.posed(back.clip("walk"), [0.6])[0], skin.posed(skin.clip("walk"), [0.6])[0]
    torch.testing.assert_close(moved[back.mesh.faces], want[skin.mesh.faces], atol=1e-5, rtol=0)


def test_a_clip_of_frames_is_exact_for_an_independent_reader(tmp_path):
    vertices, faces = shapes.icosphere(2)
    frames = vertices + 0.1 * torch.randn(7, *vertices.shape)
    times = [i / 24 for i in range(7)]
    SkinnedMesh.from_frames(Mesh(vertices, faces), frames, times, "swim").save(tmp_path / "swim.glb")
    other = Animated(tmp_path / "swim.glb")
    diagonal = float((vertices.amax(0) - vertices.amin(0)).norm())
    for time, frame in zip(times, frames):
        assert np.abs(other.vertices("swim", float(np.float32(time))) - frame.numpy()).max() <= 1e-5 * diagonal
    middle = (times[2] + times[3]) / 2
    assert np.abs(other.vertices("swim", middle) - ((frames[2] + frames[3]) / 2).numpy()).max() <= 1e-5 * diagonal


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_the_frame_rate_is_kept(tmp_path, edit, suffix):
    """Stored in the extras of the asset if frames are evenly spaced; invalid rates there are ignored."""
    mesh, path = arm().mesh, tmp_path / f"a{suffix}"
    frames = mesh.vertices + torch.rand(4, 1, 1)
    for times, want in (((0, 1 / 24, 2 / 24, 3 / 24), 24.0), ((0.1, 0.3, 0.5, 0.7), 5.0), ((0, 0.1, 0.3, 0.4), None)):
        SkinnedMesh.from_frames(mesh, frames, times).save(path)
        assert SkinnedMesh.load(path).fps == want and ("extras" in Gltf(path).content["asset"]) == (want is not None)
    SkinnedMesh.from_frames(mesh, frames[:1], [0.0]).save(path)
    assert SkinnedMesh.load(path).fps is None
    replace(arm(), fps=12.5).save(path)
    assert SkinnedMesh.load(path).fps == 12.5
    replace(arm(), fps=12.5, clips=()).save(path)
    assert SkinnedMesh.load(path).fps is None
    if suffix == ".gltf":
        replace(arm(), fps=12.5).save(path)
        for wrong in ("24", True, -1, 0, 1e9, None, [24]):
            edit(path, lambda content, wrong=wrong: content["asset"]["extras"].update(fps=wrong))
            assert SkinnedMesh.load(path).fps is None
    with pytest.raises(InputError, match=r"SkinnedMesh\.fps: got 0, want a number > 0"):
        replace(arm(), fps=0).save(path)


@pytest.mark.parametrize("is_split", [False, True])
def test_etas_of_hybrid_skinning(tmp_path, is_split):
    """As an attribute of the mesh and its targets, also if a seam duplicates vertices; other skins have none."""
    skin = hybrid()
    if is_split:
        skin = replace(skin, mesh=replace(skin.mesh, uvs=torch.rand(skin.mesh.num_faces, 3, 2)))
    skin.save(tmp_path / "a.glb")
    back, file = SkinnedMesh.load(tmp_path / "a.glb"), Animated(tmp_path / "a.glb")
    number = torch.cdist(back.mesh.vertices, skin.mesh.vertices).argmin(1)  # original vertex of each
    assert (len(number) > skin.mesh.num_vertices) == is_split
    torch.testing.assert_close(back.etas, skin.etas[number])
    torch.testing.assert_close(back.morph_etas, skin.morph_etas[:, number])
    primitive = file.json["meshes"][0]["primitives"][0]
    assert np.allclose(file.array(primitive["attributes"]["_ETA"])[:, 0], skin.etas[number])
    clip = back.clips[0]
    torch.testing.assert_close(back.etas_at(clip, [0.05])[0], skin.etas[number] - 0.1)
    torch.testing.assert_close(back.etas_at(None, [0.05])[0], back.etas)
    arm().save(tmp_path / "arm.glb")
    assert SkinnedMesh.load(tmp_path / "arm.glb").etas is None and arm().etas_at(None, [0.0]) is None
    primitive["attributes"]["_ETA"] = file.json["meshes"][0]["primitives"][0]["indices"]
    (tmp_path / "wrong.glb").write_bytes(glb_bytes(file.json, file.binary))
    with pytest.raises(FileFormatError, match=r"wrong\.glb at accessors.*: has type 'SCALAR' of 5125"):
        SkinnedMesh.load(tmp_path / "wrong.glb")


def test_loading_a_mesh_gives_the_rest_pose(tmp_path):
    skin = creature()
    skin.save(tmp_path / "creature.glb")
    mesh = load(tmp_path / "creature.glb")
    assert isinstance(mesh, Mesh)
    assert (skin.at_rest().vertices - skin.mesh.vertices).abs().max() > 3  # the rest pose differs from the bind pose
    torch.testing.assert_close(mesh.vertices, skin.at_rest().vertices, atol=1e-5, rtol=0)
    other = Animated(tmp_path / "creature.glb").vertices(None, 0.0)
    assert np.abs(mesh.vertices.numpy() - other).max() < 1e-5
    weights = torch.zeros(skin.num_morphs)
    weights[0] = 0.5
    moved = replace(skin, rest_weights=weights)
    moved.save(tmp_path / "moved.glb")
    torch.testing.assert_close(load(tmp_path / "moved.glb").vertices, moved.at_rest().vertices, atol=1e-5, rtol=0)


def test_programs_without_skins_show_meshes_of_nodes_in_their_rest_pose(tmp_path):
    """A wheel on a rotating node is bound in the rest pose of the node: its bind geometry is the rest pose."""
    ball = Mesh(*shapes.box((1.0, 1.0, 1.0), 2))
    ball.save(tmp_path / "ball.glb")
    content, binary = opened(tmp_path / "ball.glb")
    content["nodes"] = [{"children": [1], "translation": [3, 0, 0], "scale": [2, 2, 2]}, {"mesh": 0, "translation": [0, 1, 0]}]
    content["scenes"] = [{"nodes": [0]}]
    times = np.array([0, 1], np.float32).tobytes() + np.array([0, 0, 0, 1, 0, 0, 1, 0], np.float32).tobytes()
    start = len(binary)
    views, accessors = content["bufferViews"], content["accessors"]
    views += [{"buffer": 0, "byteOffset": start, "byteLength": 8}, {"buffer": 0, "byteOffset": start + 8, "byteLength": 32}]
    accessors += [
        {"bufferView": len(views) - 2, "componentType": 5126, "count": 2, "type": "SCALAR", "min": [0], "max": [1]},
        {"bufferView": len(views) - 1, "componentType": 5126, "count": 2, "type": "VEC4"},
    ]
    sampler = {"input": len(accessors) - 2, "output": len(accessors) - 1}
    channel = {"sampler": 0, "target": {"node": 1, "path": "rotation"}}
    content["animations"] = [{"name": "turn", "samplers": [sampler], "channels": [channel]}]
    content["buffers"][0]["byteLength"] = start + 40
    (tmp_path / "wheel.glb").write_bytes(glb_bytes(content, bytes(binary) + times))
    skin, place = SkinnedMesh.load(tmp_path / "wheel.glb"), torch.tensor([3.0, 2.0, 0.0])
    torch.testing.assert_close(skin.mesh.vertices, 2 * ball.vertices + place)
    torch.testing.assert_close(skin.at_rest().vertices, skin.mesh.vertices)
    turned = skin.posed(skin.clips[0], [1.0])[0]  # 180 degrees about z
    torch.testing.assert_close(turned, 2 * ball.vertices * torch.tensor([-1.0, -1, 1]) + place, atol=1e-5, rtol=0)
    skin.save(tmp_path / "again.glb")
    content, _ = opened(tmp_path / "again.glb")
    low = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]["min"]
    assert low == pytest.approx(ball.vertices.amin(0).tolist(), abs=1e-5) and "skins" not in content  # a node again
    torch.testing.assert_close(Mesh.load(tmp_path / "again.glb").vertices, skin.mesh.vertices)


def test_meshes_without_a_skin_follow_their_nodes(tmp_path):
    """Two nodes with the same mesh, one a child of the other; the parent rotates, and both morph."""
    skin = replace(creature(), clips=())
    skin.save(tmp_path / "creature.glb")
    content, binary = opened(tmp_path / "creature.glb")
    for key in ("skins", "nodes"):
        content.pop(key)
    half = 0.5**0.5
    content["nodes"] = [{"mesh": 0, "children": [1]}, {"mesh": 0, "matrix": [0, 0, -2, 0, 0, 2, 0, 0, 2, 0, 0, 0, 5, 0, 0, 1]}]
    content["scenes"] = [{"nodes": [0]}]
    keys = np.array([0, 0, 0, 1, 0, 0, half, half], "<f4").tobytes()
    times, weights = np.array([0, 1], "<f4").tobytes(), np.array([0, 0, 0, 1], "<f4").tobytes()
    accessors = []
    for data, kind, count in ((times, "SCALAR", 2), (keys, "VEC4", 2), (weights, "SCALAR", 4)):
        content["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        binary += data
        view = len(content["bufferViews"]) - 1
        content["accessors"].append({"bufferView": view, "componentType": 5126, "count": count, "type": kind})
        accessors.append(len(content["accessors"]) - 1)
    content["animations"] = [
        {
            "channels": [
                {"sampler": 0, "target": {"node": 0, "path": "rotation"}},
                {"sampler": 1, "target": {"node": 1, "path": "weights"}},
                {"sampler": 1, "target": {"path": "pointer"}},
            ],
            "samplers": [{"input": accessors[0], "output": accessors[1]}, {"input": accessors[0], "output": accessors[2]}],
        }
    ]
    content["buffers"] = [{"byteLength": len(binary)}]
    (tmp_path / "nodes.glb").write_bytes(glb_bytes(content, bytes(binary)))
    back = SkinnedMesh.load(tmp_path / "nodes.glb")
    count, rest = skin.mesh.num_vertices, skin.mesh.vertices
    assert back.names == ("node_0", "node_1") and back.num_morphs == 4
    moved = back.posed(back.clip("clip_0"), [1.0])[0]
    turned = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(moved[:count], rest @ turned.mT, atol=1e-5, rtol=0)
    below = (rest + skin.morphs[1]) @ torch.tensor([[0.0, 0, 2], [0, 2, 0], [-2, 0, 0]]).mT + torch.tensor([5.0, 0, 0])
    torch.testing.assert_close(moved[count:], below @ turned.mT, atol=1e-5, rtol=0)


def rigid(has_normals=True):
    """A car's body and two wheels on an axle; every face follows one joint, and binds scale and rotate."""
    sizes, shifts = [(3.0, 1.0, 1.0), (0.5, 0.5, 0.2), (0.5, 0.5, 0.2)], [(0.0, 1, 0), (1.0, 0, 1), (-1.0, 0, 1)]
    boxes = [shapes.box(size, 1) for size in sizes]
    vertices = torch.cat([v + torch.tensor(shift) for (v, _), shift in zip(boxes, shifts)])
    counts = [len(v) for v, _ in boxes]
    faces = torch.cat([f + sum(counts[:i]) for i, (_, f) in enumerate(boxes)])
    joints = torch.tensor([0, 2, 3]).repeat_interleave(torch.tensor(counts))
    binds = torch.eye(4).repeat(4, 1, 1)
    binds[:, :3, :3] = quat_to_rotmat(random_quats(4)) * torch.tensor([0.5, 1, 2]).view(1, 3, 1)
    binds[:, :3, 3] = torch.randn(4, 3)
    normals = torch.nn.functional.normalize(torch.randn(len(vertices), 3), dim=-1) if has_normals else None
    order = torch.randperm(len(faces))
    keys = torch.tensor([0.0, 1.0, 2.0])
    channels = [Channel("rotation", joint, keys, random_quats(3), "LINEAR") for joint in (2, 3)]
    channels.append(Channel("translation", 0, keys, torch.randn(3, 3), "LINEAR"))
    return SkinnedMesh(
        Mesh(vertices, faces[order], torch.rand(len(vertices), 2), normals, torch.randint(0, 256, (4, 4, 3)) / 255),
        ("body", "axle", "front", "rear"), (-1, 0, 1, 1), translations=torch.randn(4, 3), quats=random_quats(4),
        scales=torch.ones(4, 3), inverse_binds=binds, indices=joints[:, None], weights=torch.ones(len(vertices), 1),
        clips=(Clip("drive", tuple(channels)),), fps=24.0,
    )  # fmt: skip


def corners(mesh):
    """Corner positions of all faces, in an order that does not depend on that of the faces."""
    rows = mesh.vertices[mesh.faces].reshape(len(mesh.faces), 9).double().numpy()
    return rows[np.lexsort(np.round(rows, 3).T)]


@pytest.mark.parametrize("has_normals", [True, False])
def test_rigid_parts_are_written_as_nodes(tmp_path, has_normals):
    skin = rigid(has_normals)
    skin.save(tmp_path / "car.glb")
    content = opened(tmp_path / "car.glb")[0]
    assert "skins" not in content and len(content["meshes"]) == 3 and len(content["images"]) == 1
    assert [node["name"] for node in content["nodes"]] == ["body", "axle", "front", "rear"]
    assert all("JOINTS_0" not in mesh["primitives"][0]["attributes"] for mesh in content["meshes"])
    back = SkinnedMesh.load(tmp_path / "car.glb")
    assert back.names == skin.names and back.parents == skin.parents and back.fps == 24
    for time in (0.0, 0.6, 1.7):
        ours, theirs = skin.at(time, clip="drive"), back.at(time, clip="drive")
        np.testing.assert_allclose(corners(theirs), corners(ours), atol=2e-5)
    again = tmp_path / "again.glb"
    back.save(again)
    assert [node.get("mesh") for node in opened(again)[0]["nodes"]] == [node.get("mesh") for node in content["nodes"]]
    torch.testing.assert_close(SkinnedMesh.load(again).mesh.vertices, back.mesh.vertices, atol=1e-5, rtol=0)


def test_trimesh_places_rigid_parts(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    skin = rigid()
    skin.save(tmp_path / "car.glb")
    bounds = trimesh.load_scene(tmp_path / "car.glb", process=False).bounds
    rest = skin.at_rest().vertices
    np.testing.assert_allclose(bounds, torch.stack([rest.amin(0), rest.amax(0)]).numpy(), atol=1e-5)


def test_normals_of_rigid_parts(tmp_path):
    skin = rigid()
    skin.save(tmp_path / "car.glb")
    straddling = replace(skin, mesh=replace(skin.mesh, faces=torch.cat([skin.mesh.faces, torch.tensor([[0, 10, 20]])])))
    straddling.save(tmp_path / "skin.glb")
    assert len(opened(tmp_path / "skin.glb")[0]["skins"]) == 1
    ours, theirs = (Mesh.load(tmp_path / name) for name in ("skin.glb", "car.glb"))
    near = torch.cdist(theirs.vertices, ours.vertices)
    assert near.amin(1).max() < 2e-5
    torch.testing.assert_close(theirs.normals, ours.normals[near.argmin(1)], atol=1e-4, rtol=0)


def test_the_milk_truck(shared_data, tmp_path):
    """Khronos' truck, whose wheels turn on nodes: programs without skins show ours at the same places."""
    trimesh = pytest.importorskip("trimesh")
    source = shared_data / "foreign" / "CesiumMilkTruck.glb"
    SkinnedMesh.load(source).save(tmp_path / "truck.glb")
    theirs, ours = (trimesh.load_scene(path, process=False) for path in (source, tmp_path / "truck.glb"))
    np.testing.assert_allclose(ours.bounds, theirs.bounds, atol=1e-5)
    assert "skins" not in opened(tmp_path / "truck.glb")[0]


def test_the_fox(shared_data, tmp_path):
    """The clips of Khronos' fox as read independently, and again from our own file."""
    path = shared_data / "skinning" / "fox.glb"
    fox, other = SkinnedMesh.load(path), Animated(path)
    assert len(fox) == 24 and fox.names[0] == "_rootJoint" and len(fox.mesh.vertices) == 1728
    assert [clip.name for clip in fox.clips] == ["Survey", "Walk", "Run"]
    fox.save(tmp_path / "fox.glb")
    written = Animated(tmp_path / "fox.glb")
    for clip in fox.clips:
        times = clip.times(7)
        for time, ours in zip(times.tolist(), fox.posed(clip, times)):
            theirs = other.vertices(clip.name, time)
            diagonal = np.linalg.norm(np.ptp(theirs, axis=0))
            assert np.abs(theirs - ours.numpy()).max() <= 1e-5 * diagonal
            assert np.abs(written.vertices(clip.name, time) - ours.numpy()).max() <= 1e-5 * diagonal


def test_trimesh_reads_the_mesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    skin = creature()
    skin.save(tmp_path / "creature.glb")
    found = trimesh.load_mesh(tmp_path / "creature.glb", process=False)
    np.testing.assert_allclose(found.vertices, skin.mesh.vertices.numpy(), atol=1e-6)


def test_normals_rotate_with_morphs(tmp_path):
    vertices, faces = shapes.icosphere(2)
    ball = Mesh(vertices * torch.tensor([1.0, 2, 3]), faces)
    ball = replace(ball, normals=vertex_normals(ball.vertices, faces))
    turned = ball.vertices[:, [1, 0, 2]] * torch.tensor([-1.0, 1, 1])  # by 90 degrees about z
    SkinnedMesh.from_frames(ball, torch.stack([ball.vertices, turned]), [0.0, 1.0]).save(tmp_path / "ball.glb")
    other = Animated(tmp_path / "ball.glb")
    primitive = other.json["meshes"][0]["primitives"][0]
    got = other.array(primitive["attributes"]["NORMAL"]) + other.array(primitive["targets"][1]["NORMAL"])
    want = ball.normals[:, [1, 0, 2]] * torch.tensor([-1.0, 1, 1])
    np.testing.assert_allclose(got, want.numpy(), atol=1e-5)


def test_rest_weights_of_morphs(tmp_path):
    """Rest weights of the mesh or its node; a clip without weights keeps them."""
    skin = replace(creature(), rest_weights=torch.tensor([0.5, -0.25]))
    still = replace(skin, clips=(replace(skin.clips[0], channels=skin.clips[0].channels[:6]),))
    still.save(tmp_path / "still.glb")
    back = SkinnedMesh.load(tmp_path / "still.glb")
    assert torch.equal(back.rest_weights, skin.rest_weights)
    torch.testing.assert_close(back.posed(back.clips[0], TIMES), still.posed(still.clips[0], TIMES), atol=1e-5, rtol=0)
    other = Animated(tmp_path / "still.glb").vertices("walk", 0.5)
    np.testing.assert_allclose(other, still.posed(still.clips[0], [0.5])[0].numpy(), atol=1e-4)
    added = torch.einsum("m,mvc->vc", skin.rest_weights, skin.morphs)
    without = replace(
        still, morphs=None, morph_names=(), rest_weights=None, mesh=replace(skin.mesh, vertices=skin.mesh.vertices + added)
    )
    torch.testing.assert_close(still.posed(None, [0.0]), without.posed(None, [0.0]), atol=1e-5, rtol=0)
    skin.save(tmp_path / "moving.glb")
    back = SkinnedMesh.load(tmp_path / "moving.glb")
    torch.testing.assert_close(
        back.posed(back.clip("wave"), TIMES), creature().posed(skin.clip("wave"), TIMES), atol=1e-5, rtol=0
    )
    found = SkinnedMesh.load(changed(tmp_path, put("nodes", 0, "weights", value=[1, 0])))
    assert found.rest_weights.tolist() == [1, 0]


def test_rest_weights_next_to_a_mesh_that_a_clip_moves(tmp_path):
    """Two nodes with morphs: the clip sets the weights of the second; the first keeps its rest weights."""
    replace(creature(), clips=()).save(tmp_path / "creature.glb")
    content, binary = opened(tmp_path / "creature.glb")
    content.pop("skins")
    content["nodes"] = [{"mesh": 0, "weights": [0.5, 0]}, {"mesh": 0, "weights": [0, 0.25]}]
    content["scenes"] = [{"nodes": [0, 1]}]
    for data in (np.array([0, 1], "<f4"), np.array([0, 0, 1, 1], "<f4")):
        content["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": data.nbytes})
        binary += data.tobytes()
        view = {"bufferView": len(content["bufferViews"]) - 1, "componentType": 5126, "count": len(data), "type": "SCALAR"}
        content["accessors"].append(view)
    count = len(content["accessors"])
    sampler = {"input": count - 2, "output": count - 1}
    content["animations"] = [{"channels": [{"sampler": 0, "target": {"node": 1, "path": "weights"}}], "samplers": [sampler]}]
    content["buffers"] = [{"byteLength": len(binary)}]
    (tmp_path / "two.glb").write_bytes(glb_bytes(content, bytes(binary)))
    back, morphs, rest = SkinnedMesh.load(tmp_path / "two.glb"), creature().morphs, creature().mesh.vertices
    assert back.rest_weights.tolist() == [0.5, 0, 0, 0.25]
    for clip, want in ((back.clips[0], rest + morphs[0] + morphs[1]), (None, rest + 0.25 * morphs[1])):
        moved = back.posed(clip, [1.0])[0]
        torch.testing.assert_close(moved[:162], rest + 0.5 * morphs[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(moved[162:], want, atol=1e-5, rtol=0)


def test_several_textures_become_one(tmp_path):
    """A skinned mesh of two meshes with their own images."""
    first = SkinnedMesh.from_frames(textured(8, 8), torch.randn(2, 42, 3), [0.0, 1.0])
    first.save(tmp_path / "first.glb")
    content, binary = opened(tmp_path / "first.glb")
    textured(16, 4).save(tmp_path / "second.glb")
    image = opened(tmp_path / "second.glb")
    view = image[0]["bufferViews"][image[0]["images"][0]["bufferView"]]
    encoded = image[1][view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    binary += bytes(-len(binary) % 4)
    content["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(encoded)})
    binary += encoded
    content["images"].append({"bufferView": len(content["bufferViews"]) - 1, "mimeType": "image/png"})
    content["textures"].append({"source": 1, "sampler": 0})
    content["materials"].append({"pbrMetallicRoughness": {"baseColorTexture": {"index": 1}}})
    content["meshes"].append({"primitives": [{**content["meshes"][0]["primitives"][0], "material": 1}]})
    content["nodes"].append({"mesh": 1})
    content["scenes"][0]["nodes"].append(1)
    content["buffers"] = [{"byteLength": len(binary)}]
    (tmp_path / "both.glb").write_bytes(glb_bytes(content, bytes(binary)))
    back = SkinnedMesh.load(tmp_path / "both.glb")
    assert back.mesh.num_vertices == 84 and back.mesh.texture.numel() >= 3 * (8 * 8 + 16 * 4)


def textured(width, height):
    vertices, faces = shapes.icosphere(1)
    return Mesh(vertices, faces, uvs=torch.rand(42, 2), texture=torch.randint(0, 256, (height, width, 3)) / 255)


def sparse(**changes):
    """The second morph moves only vertices 2 and 5, as a sparse accessor without a bufferView."""

    def change(content, binary):
        places, values = np.array([2, 5], "<u2").tobytes(), np.array([[1, 2, 3], [4, 5, 6]], "<f4").tobytes()
        views = []
        for data in (places, values):
            content["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
            binary += data
            views.append(len(content["bufferViews"]) - 1)
        accessor = content["accessors"][content["meshes"][0]["primitives"][0]["targets"][1]["POSITION"]]
        accessor.pop("bufferView")
        indices = {"bufferView": views[0], "componentType": 5123}
        accessor["sparse"] = {"count": 2, "indices": indices, "values": {"bufferView": views[1]}, **changes}
        content["buffers"] = [{"byteLength": len(binary)}]

    return change


def test_sparse_morphs(tmp_path):
    back, want = SkinnedMesh.load(changed(tmp_path, sparse())), torch.zeros(162, 3)
    want[2], want[5] = torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6])
    torch.testing.assert_close(back.morphs[1], want)
    torch.testing.assert_close(back.morphs[0], creature().morphs[0])


@pytest.mark.viewer
def test_khronos_validator_finds_no_error(validate, tmp_path, shared_data):
    vertices, faces = shapes.icosphere(1)
    frames = SkinnedMesh.from_frames(Mesh(vertices, faces), torch.rand(5, *vertices.shape), [0.0, 0.1, 0.2, 0.3, 0.4])
    skins = {
        "one.glb": creature(1),
        "six.glb": creature(6),
        "seams.gltf": creature(corner_uvs=True),
        "frames.glb": frames,
        "normals.glb": replace(frames, mesh=replace(frames.mesh, normals=vertex_normals(vertices, faces))),
        "fox.glb": SkinnedMesh.load(shared_data / "skinning" / "fox.glb"),
        "etas.glb": hybrid(),
        "rest.glb": replace(creature(), rest_weights=torch.tensor([0.5, -0.25])),
        "colours.glb": replace(frames, mesh=replace(frames.mesh, vertex_colors=torch.rand(len(vertices), 4))),
    }
    moved = vertices + 0.1 * torch.randn(9, *vertices.shape)
    sheet = Mesh(vertices, faces, uvs=torch.rand(len(faces), 3, 2), normals=vertices, texture=torch.rand(4, 4, 3))
    times = [i / 24 for i in range(9)]
    skins["joints.glb"] = fit_joints(sheet, moved, times, num_joints=5).skin
    skins["joints.gltf"] = fit_joints(sheet, moved, times, num_joints=5, max_morphs=0, influences=6).skin
    skins["principal.glb"] = fit_morphs(sheet, moved, times).skin
    for name, skin in skins.items():
        skin.save(tmp_path / name)
    for report in validate(*(tmp_path / name for name in skins)):
        assert report["numErrors"] == 0, report


def test_a_texture_that_cannot_be_read_hides_neither_joints_nor_morphs_nor_clips(tmp_path, caplog):
    def change(content, binary):
        content["images"] = [{"uri": "data:image/png;base64,AAAA"}]
        content["textures"] = [{"source": 0}]
        content["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
        content["meshes"][0]["primitives"][0]["material"] = 0

    back, skin = SkinnedMesh.load(changed(tmp_path, change)), SkinnedMesh.load(tmp_path / "creature.glb")
    assert "read without this texture" in caplog.text and back.mesh.texture is None
    assert back.names == skin.names and len(back.morph_names) == len(skin.morph_names) > 0
    for name in ("walk", "wave"):
        assert torch.equal(back.posed(back.clip(name), TIMES), skin.posed(skin.clip(name), TIMES))


# Invalid files


def opened(path):
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), bytearray(data[28 + size :])


def changed(tmp_path, change, influences=4):
    creature(influences).save(tmp_path / "creature.glb")
    content, binary = opened(tmp_path / "creature.glb")
    change(content, binary)
    (tmp_path / "wrong.glb").write_bytes(glb_bytes(content, bytes(binary)))
    return tmp_path / "wrong.glb"


def rewrite(name, function):
    """A change of the values of a mesh attribute."""

    def change(content, binary):
        accessor = content["accessors"][content["meshes"][0]["primitives"][0]["attributes"][name]]
        view = content["bufferViews"][accessor["bufferView"]]
        kind = "<f4" if accessor["componentType"] == 5126 else "<u2"
        values = np.frombuffer(binary, kind, accessor["count"] * 4, view["byteOffset"]).reshape(-1, 4).copy()
        function(values)
        binary[view["byteOffset"] : view["byteOffset"] + values.nbytes] = values.tobytes()

    return change


def set_first(value):
    def function(values):
        values[3] = value

    return function


def put(*keys, value):
    def change(content, binary):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def short_normals(content, binary):
    """Normals of a morph target with as many rows as a translation has keys."""
    output = content["animations"][0]["samplers"][3]["output"]
    content["meshes"][0]["primitives"][0]["targets"][0]["NORMAL"] = output


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (short_normals, r"3 rows of NORMAL for 162 vertices$"),
        (put("skins", 0, "joints", value=[]), r"at skins\[0\]: has no joints$"),
        (put("skins", 0, "joints", value=[1, 2, 3, 4, 5, 99]), r"names nodes\[99\] as a joint, which is not in the scene$"),
        (put("skins", 0, "joints", value=[1] * 7), r"has 6 inverse bind matrices for 7 joints$"),
        (put("skins", 0, "inverseBindMatrices", value=0), r"has type 'VEC3' of 5126, which is not allowed here$"),
        (put("nodes", 0, "skin", value=4), r"names skins\[4\], but there are 1 of them$"),
        (rewrite("WEIGHTS_0", set_first(np.nan)), r"weights of vertex 3 are not finite$"),
        (rewrite("WEIGHTS_0", set_first(-0.25)), r"a weight of vertex 3 is -0\.25, want >= 0$"),
        (rewrite("WEIGHTS_0", set_first(0)), r"vertex 3 has no positive weight$"),
        (rewrite("JOINTS_0", set_first(77)), r"vertex 3 names joint 77, but its skin has 6$"),
        (put("meshes", 0, "primitives", 0, "targets", value=[3]), r"targets is not a list of objects$"),
        (put("animations", 0, "samplers", 0, "interpolation", value="CUBIC"), r"interpolation is 'CUBIC'$"),
        (put("animations", 0, "samplers", 0, "input", value=99), r"names accessors\[99\]"),
        (put("animations", 0, "samplers", 0, "interpolation", value="CUBICSPLINE"), r"has 3 outputs for 3 times, want 9$"),
        (put("animations", 0, "channels", 0, "sampler", value=50), r"sampler is 50, want a whole number from 0 to 6$"),
        (
            put("nodes", 1, "matrix", value=[1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
            r"matrix has shear or a reflection or is singular",
        ),
        (sparse(indices=None), r"sparse has no indices and values$"),
        (sparse(indices={"bufferView": 0, "componentType": 5126}), r"sparse has indices of 5126, want 5121, 5123 or 5125$"),
        (sparse(count=400), r"count is 400, want a whole number from 0 to 162$"),
        (sparse(indices={"bufferView": 0, "componentType": 5125}), r"sparse names row \d+, but there are 162$"),
        (put("meshes", 0, "weights", value=[1]), r"weights is not a list of 2 numbers$"),
        (put("nodes", 0, "weights", value=[1, "x"]), r"weights contains values that are not finite numbers$"),
        (put("accessors", 0, "count", value=9999), r"ends at byte \d+ of its bufferView, which has \d+$"),
        (put("bufferViews", 0, "byteLength", value=10**9), r"ends at byte \d+ of its buffer, which has \d+$"),
        (put("bufferViews", 0, "buffer", value=3), r"names buffers\[3\], but there are 1 of them$"),
        (put("bufferViews", 0, "byteStride", value=4), r"byteStride is 4, want at least 12$"),
        (put("accessors", 0, "componentType", value=5130), r"has type 'VEC3' of 5130, which is not allowed here$"),
        (put("buffers", value=[]), r"names buffers\[0\], but there are 0 of them$"),
        (put("buffers", 0, "byteLength", value=10**9), r"is truncated: it has \d+ of 1000000000 bytes$"),
        (put("buffers", 0, "uri", value="away.bin"), r"away.bin: does not exist"),
    ],
)
def test_wrong_files_are_one_line(tmp_path, change, text):
    path = changed(tmp_path, change)
    with pytest.raises(InputError, match=text) as caught:
        SkinnedMesh.load(path)
    assert "\n" not in str(caught.value)


def test_weights_are_normalized_with_a_warning(tmp_path):
    def twice(values):
        values[3] *= 2

    path = changed(tmp_path, rewrite("WEIGHTS_0", twice))
    with pytest.warns(UserWarning, match=r"wrong.glb: weights of 1 vertices do not sum to 1 and were normalized$"):
        back = SkinnedMesh.load(path)
    torch.testing.assert_close(back.weights, creature().weights, atol=1e-6, rtol=0)


def test_a_static_file_is_rejected(tmp_path):
    vertices, faces = shapes.icosphere(1)
    Mesh(vertices, faces).save(tmp_path / "still.glb")
    with pytest.raises(FileFormatError, match=r"has neither skins, morph targets nor animations"):
        SkinnedMesh.load(tmp_path / "still.glb")


def test_clips_that_glTF_cannot_hold(tmp_path):
    skin = creature()
    early = Channel("scale", 0, torch.tensor([-1.0, 0], dtype=torch.float64), torch.ones(2, 3))
    with pytest.raises(InputError, match=r"^clip early begins at -1 s; glTF wants times from 0 on$"):
        replace(skin, clips=(Clip("early", (early,)),)).save(tmp_path / "a.glb")
    close = Channel("scale", 0, torch.tensor([1.0, 1 + 1e-12], dtype=torch.float64), torch.ones(2, 3))
    with pytest.raises(InputError, match=r"^clip close has keys closer together than float32 can represent; resample it$"):
        replace(skin, clips=(Clip("close", (close,)),)).save(tmp_path / "a.glb")
    assert not (tmp_path / "a.glb").exists()


def test_writing_what_was_read_changes_no_bit(tmp_path):
    creature().save(tmp_path / "a.glb")
    for first, second in (("a.glb", "b.glb"), ("b.glb", "c.glb")):
        SkinnedMesh.load(tmp_path / first).save(tmp_path / second)
    assert (tmp_path / "b.glb").read_bytes() == (tmp_path / "c.glb").read_bytes()
