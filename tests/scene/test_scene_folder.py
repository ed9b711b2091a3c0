import pytest
import torch

from tests.support.creature import creature
from vision3d.core.errors import DeviceError, FileFormatError, InputError, MissingFileError
from vision3d.scene import Boxes, Cameras, GaussianScene, Mesh, Scene, Selection, SkinnedMesh, codecs, load


def test_round_trip(tmp_path, gaussians, cameras, similarity):
    scene = Scene(cameras=cameras).add("chair", gaussians, similarity).add("lamp.1", gaussians[:5])
    scene.save(tmp_path / "room")
    again = load(tmp_path / "room")
    assert isinstance(again, Scene) and list(again.objects) == ["chair", "lamp.1"]
    assert torch.equal(again["chair"].sh, gaussians.sh) and again["lamp.1"].num_gaussians == 5
    assert torch.equal(again.transforms["chair"], similarity) and "lamp.1" not in again.transforms
    torch.testing.assert_close(again.cameras.viewmats, cameras.viewmats, atol=2e-6, rtol=0)
    assert {path.name for path in (tmp_path / "room").iterdir()} == {
        "chair.ply",
        "lamp.1.ply",
        "cameras.json",
        "scene.json",
    }


def test_round_trip_of_every_type(tmp_path, gaussians, cameras, mesh, cloud, similarity):
    boxes = Boxes(torch.tensor([[10.0, 2, -1, 4, 2, 1.5, 0]]))
    selection = Selection.of(cloud.points, torch.tensor([1, 2]))
    objects = {
        "scene": cameras,
        "cameras": boxes,
        "a": selection,
        "b": mesh,
        "c": cloud,
        "a.selection": cameras,
        "d": gaussians,
    }
    Scene(objects, {"b": similarity}, cameras).save(tmp_path)
    again = Scene.load(tmp_path).validate()
    assert {name: type(value) for name, value in again.objects.items()} == {n: type(v) for n, v in objects.items()}
    assert torch.equal(again["c"].points, cloud.points) and torch.equal(again["b"].faces, mesh.faces)
    assert again["a"].mask(again["c"].points).sum() == 2 and torch.equal(again.transforms["b"], similarity)
    assert list(again.of_type(Cameras)) == ["scene", "a.selection"]
    (tmp_path / "elsewhere.ply").symlink_to("/etc/passwd")
    (tmp_path / "scene.json").write_text('{"objects": [{"name": "a", "file": "elsewhere.ply"}]}')
    with pytest.raises(FileFormatError, match="is outside its folder"):
        Scene.load(tmp_path)


def test_skins_keep_their_joints_and_clips(tmp_path, mesh):
    Scene().add("fox", creature()).add("rock", mesh).save(tmp_path)
    back = load(tmp_path)
    assert isinstance(back["fox"], SkinnedMesh) and isinstance(back["rock"], Mesh)
    fox = back.validate()["fox"]
    torch.testing.assert_close(fox.posed(fox.clip("walk"), [0.5]), creature().posed(creature().clips[0], [0.5]))
    assert list(back.of_type(SkinnedMesh)) == ["fox"] and len(back.to("cpu")["fox"]) == 6


def test_gaussians_are_in_world_coordinates(gaussians, similarity):
    scene = Scene().add("a", gaussians, similarity).add("b", gaussians)
    merged = scene.gaussians()
    assert merged.num_gaussians == 80
    torch.testing.assert_close(merged.means[:40], gaussians.transform(similarity).means)
    assert torch.equal(merged.means[40:], gaussians.means)
    with pytest.raises(InputError, match="Scene: holds no Gaussians"):
        Scene().gaussians()


def test_add_replaces_and_remove_removes(gaussians, similarity):
    scene = Scene().add("a", gaussians, similarity)
    assert "a" not in scene.add("a", gaussians).transforms  # the new object has no transform
    assert len(scene.remove("a")) == 0 and len(scene) == 1
    with pytest.raises(InputError, match=r"Scene: no object 'aa'; did you mean a\?"):
        scene["aa"]
    with pytest.raises(TypeError):
        scene.objects["b"] = gaussians


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b"])
def test_names_are_file_names(gaussians, name):
    with pytest.raises(InputError, match="object name"):
        Scene().add(name, gaussians)


def test_transforms_need_an_object(gaussians):
    with pytest.raises(InputError, match="a transform is given for 'b'"):
        Scene({"a": gaussians}, {"b": torch.eye(4)})
    with pytest.raises(InputError, match=r"Scene.transforms\['a'\]: got shape \(3, 3\)"):
        Scene({"a": gaussians}, {"a": torch.eye(3)})


def test_validate_names_the_object(gaussians, cameras):
    Scene({"a": gaussians}, cameras=cameras).validate()
    with pytest.raises(InputError, match="object 'b': GaussianScene: got 0 Gaussians"):
        Scene({"a": gaussians, "b": gaussians[:0]}).validate()
    with pytest.raises(InputError, match="object 'a': transform is singular"):
        Scene({"a": gaussians}, {"a": torch.zeros(4, 4)}).validate()


def test_to_moves_everything(gaussians, cameras, similarity):
    scene = Scene({"a": gaussians}, {"a": similarity}, cameras).to("meta")
    assert {scene["a"].device.type, scene.transforms["a"].device.type, scene.cameras.device.type} == {"meta"}
    with pytest.raises(DeviceError):
        scene["a"].merge(gaussians)


@pytest.mark.parametrize(
    "content, error, message",
    [
        ("{", FileFormatError, r"scene\.json: is not a vision3d scene"),
        ("[]", FileFormatError, "is not a vision3d scene"),
        ('{"objects": [{"name": "a"}]}', FileFormatError, "KeyError: 'file'"),
        ('{"objects": [{"name": "a", "file": "../a.ply"}]}', FileFormatError, r"names '\.\./a\.ply', which is outside"),
        ('{"objects": [{"name": "a", "file": "/etc/passwd"}]}', FileFormatError, "names '/etc/passwd', which is outside"),
        ('{"objects": [], "vision3d": {"version": 9}}', FileFormatError, "is version 9 of a scene; version 1 is read"),
        ('{"objects": [{"name": "a", "file": "a"}, {"name": "a", "file": "a"}]}', FileFormatError, "duplicate object names"),
        ('{"objects": [{"name": "a", "file": "."}]}', FileFormatError, r"names '\.', its own folder; want a file in it"),
        ('{"objects": [{"name": "a", "file": ""}]}', FileFormatError, "names '', its own folder"),
        ('{"objects": [{"name": "a", "file": "%s"}]}' % (5000 * "a"), FileFormatError, "cannot be read .File name too long"),
        ('{"objects": [{"name": "a", "file": "\\ud800"}]}', FileFormatError, "which cannot be read"),
        (f'{{"objects": [{{"name": "a", "file": "a.ply", "transform": [[{10**400}]]}}]}}', FileFormatError, "401 digits"),
        ('{"objects": [], "cameras": "../c.json"}', FileFormatError, "which is outside its folder"),
        ('{"objects": [{"name": "a", "file": "a.ply"}]}', MissingFileError, r"a\.ply: does not exist"),
        ('{"objects": [{"name": "a", "file": "a.ply", "transform": [["x"]]}]}', FileFormatError, "is not a vision3d scene"),
    ],
)
def test_damaged_scenes(tmp_path, content, error, message):
    (tmp_path / "scene.json").write_text(content)
    with pytest.raises(error, match=message):
        Scene.load(tmp_path)


def test_missing_scene(tmp_path):
    with pytest.raises(MissingFileError, match=r"want a folder with scene\.json"):
        Scene.load(tmp_path)
    with pytest.raises(MissingFileError, match="none: does not exist"):
        load(tmp_path / "none")


def test_reprs(gaussians):
    scene = Scene({"a": gaussians})
    assert repr(scene) == "Scene(a=GaussianScene(40 3dgs, SH degree 3, cpu), cameras=None)"
    assert "<th style='text-align:left'>a</th>" in scene._repr_html_()


def test_codecs_can_be_added(tmp_path, monkeypatch, gaussians):
    monkeypatch.setattr(codecs, "_CODECS", dict(codecs._CODECS))
    monkeypatch.setattr(codecs, "_SUFFIXES", dict(codecs._SUFFIXES))
    codecs.register(".GSPLAT", codecs.Codec("vision3d.io.ply", ("GaussianScene",), ("GaussianScene",)), "GaussianScene")
    gaussians.save(tmp_path / "x.gsplat")
    assert GaussianScene.load(tmp_path / "x.gsplat").num_gaussians == 40
    assert codecs.suffix_of(gaussians) == ".gsplat"
    with pytest.raises(InputError, match="no file format for Tensor; want GaussianScene, Cameras"):
        codecs.suffix_of(torch.zeros(1))


@pytest.mark.parametrize("name", ["world.zarr", "world.ply", "world.JSON"])
def test_a_file_name_is_rejected_as_a_folder(tmp_path, name):
    scene = Scene().add("ball", Mesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]])))
    with pytest.raises(
        InputError, match=f"{name}: a scene is written as a folder, and .* is a file format; want a name without it"
    ):
        scene.save(tmp_path / name)
    assert not any(tmp_path.iterdir())
    scene.save(tmp_path / "world.v2")
    assert (tmp_path / "world.v2" / "scene.json").is_file()
