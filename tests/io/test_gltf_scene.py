"""A whole scene as one .glb: transforms, clips, cameras, and the report of Khronos' validator."""

import json
import math

import pytest
import torch

from tests.support.creature import creature
from vision3d.cli.app import execute
from vision3d.core.errors import InputError
from vision3d.geometry import shapes
from vision3d.geometry.cameras import intrinsics, look_at
from vision3d.io import glb, gltf_gaussians
from vision3d.io.gltf_container import Gltf, peek_json
from vision3d.io.gltf_scene import PLAYED, write_scene
from vision3d.scene import Boxes, Cameras, FrameSequence, GaussianScene, Mesh, PointCloud, Scene, SkinnedMesh


def splats(count: int = 20) -> GaussianScene:
    generator = torch.Generator().manual_seed(1)
    means, quats = torch.randn(count, 3, generator=generator), torch.randn(count, 4, generator=generator)
    quats = quats / quats.norm(dim=-1, keepdim=True)
    scales = torch.rand(count, 3, generator=generator) - 4
    return GaussianScene(means, quats, scales, torch.zeros(count), torch.rand(count, 4, 3, generator=generator))


def ball() -> Mesh:
    return Mesh(*shapes.icosphere(1))


def moved(x: float, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


def walk(times) -> Cameras:
    """A camera that moves around the origin, z up."""
    angles = torch.linspace(0, 4, len(times))
    eyes = torch.stack([3 * angles.cos(), 3 * angles.sin(), torch.ones(len(times))], -1)
    poses = torch.stack([look_at(eye, torch.zeros(3), torch.tensor([0.0, 0, 1])) for eye in eyes])
    cameras = Cameras.from_camtoworlds(poses, intrinsics(50.0, 60.0, 40.0, 30.0), 80, 60)
    return Cameras(**{**vars(cameras), "times": torch.as_tensor(times)})


def skin_of(scene: Scene) -> SkinnedMesh:
    skin = scene["creature"]
    assert isinstance(skin, SkinnedMesh)
    return skin


def full() -> Scene:
    mesh = ball()
    frames = torch.stack([mesh.vertices, mesh.vertices * 1.5, mesh.vertices * 2])
    growing = FrameSequence(mesh, torch.tensor([0.0, 0.5, 1.0]), {"vertices": frames})
    scene = Scene(cameras=walk([0.0, 0.5, 1.0, 1.5])).add("ball", mesh, moved(5)).add("splats", splats(), moved(0, 2))
    scene = scene.add("cloud", PointCloud(torch.rand(7, 3), colors=torch.rand(7, 3))).add(
        "creature", creature(), moved(1, 2, 3)
    )
    return scene.add("growing", growing, moved(0, 0, -3))


def test_objects_have_the_transforms_of_the_scene(tmp_path):
    scene = full()
    write_scene(tmp_path / "world.glb", scene, scene_up="y")
    parts = list(glb.read_parts(tmp_path / "world.glb").values())
    mesh, skin = ball(), skin_of(scene)
    torch.testing.assert_close(parts[0].vertices, mesh.vertices + torch.tensor([5.0, 0, 0]))
    torch.testing.assert_close(parts[1].vertices, skin.at_rest().vertices + torch.tensor([1.0, 2, 3]), atol=1e-5, rtol=0)
    torch.testing.assert_close(parts[2].vertices, mesh.vertices + torch.tensor([0.0, 0, -3]))
    found = gltf_gaussians.read_gaussians(tmp_path / "world.glb")
    turn = torch.tensor([-1.0, -1, 1])  # axes of a file of Gaussians
    torch.testing.assert_close(found.means * turn, splats().means + torch.tensor([0.0, 2, 0]), atol=1e-5, rtol=0)
    names = {node.get("name") for node in peek_json(tmp_path / "world.glb")["nodes"]}
    assert {"world", "ball", "splats", "cloud", "creature", "growing", "camera"} <= names


def test_up_becomes_y_for_all_objects(tmp_path):
    write_scene(tmp_path / "world.glb", full())  # cameras with z up
    found = next(iter(glb.read_parts(tmp_path / "world.glb").values())).vertices
    want = ball().vertices + torch.tensor([5.0, 0, 0])
    torch.testing.assert_close(found, want[:, [0, 2, 1]] * torch.tensor([1.0, 1, -1]), atol=1e-6, rtol=0)
    gltf = Gltf(tmp_path / "world.glb")
    node = next(i for i, node in enumerate(gltf.items("nodes")) if "camera" in node)
    pose = torch.from_numpy(gltf.worlds()[node]).float()
    torch.testing.assert_close(pose[:3, 3], torch.tensor([3.0, 1, 0]), atol=1e-6, rtol=0)
    assert float(pose[1, 1]) > 0.9  # y of a glTF camera is up
    torch.testing.assert_close(-pose[:3, 2], -torch.tensor([3.0, 1, 0]) / math.sqrt(10), atol=1e-6, rtol=0)
    perspective = gltf.items("cameras")[0]["perspective"]
    assert perspective["yfov"] == pytest.approx(2 * math.atan(30 / 60)) and perspective["aspectRatio"] == pytest.approx(1.6)


def test_all_objects_share_one_animation(tmp_path):
    scene = full()
    write_scene(tmp_path / "world.glb", scene, scene_up="y")
    content = peek_json(tmp_path / "world.glb")
    names = [animation["name"] for animation in content["animations"]]
    assert names == [PLAYED, *[clip.name for clip in skin_of(scene).clips[1:]]]
    played = content["animations"][0]
    moving = {content["nodes"][channel["target"]["node"]].get("name") for channel in played["channels"]}
    assert "camera" in moving and set(skin_of(scene).names) & moving
    paths = [channel["target"]["path"] for channel in played["channels"]]
    assert paths.count("weights") == 1 + sum(c.path == "weights" for c in skin_of(scene).clips[0].channels)
    Scene().add("creature", skin_of(scene), moved(1, 2, 3)).save(tmp_path / "one.glb")
    again, want = SkinnedMesh.load(tmp_path / "one.glb"), skin_of(scene)
    for time in (0.0, 0.3, 0.7):
        found = again.posed(again.clip(PLAYED), [time])[0]
        torch.testing.assert_close(found, want.posed(want.clips[0], [time])[0] + torch.tensor([1.0, 2, 3]), atol=1e-4, rtol=0)


def test_warnings_for_what_gltf_cannot_hold(tmp_path, caplog):
    scene = Scene().add("a", ball()).add("boxes", Boxes(torch.tensor([[0.0, 0, 0, 1, 1, 1, 0]])))
    means = splats().means
    scene = scene.add("sand", FrameSequence(splats(), torch.tensor([0.0, 1.0]), {"means": torch.stack([means, means + 1])}))
    scene.save(tmp_path / "world.gltf")
    assert "does not hold Boxes, boxes is left out" in caplog.text
    assert "frames of GaussianScene do not move in glTF, sand is as in its first frame" in caplog.text
    with pytest.raises(InputError, match="the scene has nothing that glTF can hold"):
        Scene().add("boxes", scene.objects["boxes"]).save(tmp_path / "none.glb")
    assert not (tmp_path / "none.glb").exists()


def test_the_validator_finds_no_errors(tmp_path, validate):
    scene = full()  # the validator does not know KHR_gaussian_splatting
    write_scene(tmp_path / "world.glb", Scene({k: v for k, v in scene.objects.items() if k != "splats"}, cameras=scene.cameras))
    (report,) = validate(tmp_path / "world.glb")
    assert report["numErrors"] == 0, report["messages"][:3]


def test_a_folder_is_converted(tmp_path, capsys):
    full().save(tmp_path / "world")
    assert execute(["convert", str(tmp_path / "world"), str(tmp_path / "world.glb"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["files"][0]["objects"] == 5
    assert len(glb.read_parts(tmp_path / "world.glb")) == 3
    assert execute(["convert", str(tmp_path / "world"), str(tmp_path / "b.glb"), "--crop", *map(str, [0, 0, 0, 1, 1, 1])]) == 2
    assert "is for static objects" in capsys.readouterr().err
