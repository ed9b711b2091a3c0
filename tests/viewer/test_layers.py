"""Paths as layers: content, names, times, frames, live folders, and wrong input."""

import os
import re
from dataclasses import replace

import pytest
import torch

from tests.support.datasets import write_ring_photographs
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.checkpoints import Checkpoint, save_checkpoint
from vision3d.core.errors import InputError, MissingFileError
from vision3d.core.progress import silent
from vision3d.geometry import se3, shapes
from vision3d.geometry.quaternion import random_quats
from vision3d.io.glb import write_mesh
from vision3d.io.zarr_store import SequenceWriter
from vision3d.scene import (
    Boxes,
    FrameSequence,
    Mesh,
    MeshGaussians,
    Motion,
    PointCloud,
    PosedImages,
    Region,
    Scene,
    Selection,
    Skeleton,
)
from vision3d.stages.fit import FitConfig, fit
from vision3d.viewer.frames import FrameCache
from vision3d.viewer.layers import Layers, describe
from vision3d.viewer.sources import source_of
from vision3d.viewer.viewpoint import guess_up, start_viewpoint


def sphere() -> Mesh:
    return Mesh(*shapes.icosphere(1))


def drops(folder, times=(0.0, 0.5, 1.0)):
    """A .zarr of five points that rise by one per second."""
    writer = SequenceWriter(folder, PointCloud(torch.zeros(5, 3)))
    for time in times:
        writer.append(time, points=torch.full((5, 3), time))
    return folder


def test_layers_with_different_up_axes_are_noted(tmp_path, caplog):
    ring_scene().save(tmp_path / "scene.ply")
    sphere().save(tmp_path / "ball.glb")
    ring_cameras().save(tmp_path / "ring.json")
    paths = [tmp_path / "scene.ply", tmp_path / "ball.glb"]
    assert Layers.open(paths).up.tolist() == [0, 1, 0]
    assert caplog.messages == [
        "up axes differ by the conventions of the files: scene -y, ball y; all are shown with y up (--up sets another)"
    ]
    caplog.clear()
    Layers.open(paths[:1])
    Layers.open([*paths, tmp_path / "ring.json"])
    Layers.open(paths, up=torch.tensor([0.0, 0.0, 1.0]))
    assert caplog.messages == []


@pytest.mark.parametrize("name", ["", "meta.json"])
def test_the_folder_of_a_sog_is_a_scene(tmp_path, name):
    (tmp_path / "sog").mkdir()
    ring_scene().save(tmp_path / "sog" / "meta.json")
    (layer,) = Layers.open([tmp_path / "sog" / name])
    assert layer.kind == "gaussians" and layer.value.num_gaussians == ring_scene().num_gaussians
    torch.testing.assert_close(layer.value.means.mean(0), ring_scene().means.mean(0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("up", ["z", "-y", "x"])
def test_the_mesh_of_a_scene_is_at_the_position_of_the_scene(tmp_path, up):
    mesh = Mesh(*shapes.box((1.0, 2.0, 0.5)))
    mesh = replace(mesh, vertices=mesh.vertices + torch.tensor([3.0, 0.0, 1.0]))
    ring_scene().save(tmp_path / "scene.ply")
    write_mesh(tmp_path / "mesh.glb", mesh, scene_up=up)
    mesh.save(tmp_path / "plain.glb")
    scene, ours, plain = Layers.open(tmp_path / name for name in ("scene.ply", "mesh.glb", "plain.glb"))
    assert torch.equal(scene.transform, torch.eye(4)) and torch.equal(plain.transform, torch.eye(4))
    assert torch.allclose(se3.transform_points(ours.transform, ours.value.vertices), mesh.vertices, atol=1e-6)
    assert not torch.allclose(ours.value.vertices, mesh.vertices, atol=0.1)
    # Without the scene it is upright: up is y of the file.
    alone = Layers.open([tmp_path / "mesh.glb"])
    sign, axis = (-1.0, up[1]) if up.startswith("-") else (1.0, up)
    assert torch.allclose(guess_up(alone), sign * torch.eye(3)["xyz".index(axis)])


def test_every_kind_of_file_becomes_a_layer(tmp_path):
    ring_scene().save(tmp_path / "ring.ply")
    ring_scene().save(tmp_path / "packed.spz")
    sphere().save(tmp_path / "ball.glb")
    PointCloud(torch.rand(4, 3)).save(tmp_path / "cloud.ply")
    Boxes(torch.tensor([[1.0, 2, 3, 4, 2, 1, 0]])).save(tmp_path / "cars.boxes.json")
    ring_cameras().save(tmp_path / "cameras.json")
    Selection((Region.sphere(torch.zeros(3), 1.0),)).save(tmp_path / "part.selection.json")
    MeshGaussians.from_mesh(sphere(), 1).save(tmp_path / "bound.safetensors")
    write_ring_photographs(tmp_path / "photos")
    drops(tmp_path / "drops.zarr")
    Scene().add("chair", ring_scene()).save(tmp_path / "room")
    names = ["ring.ply", "packed.spz", "ball.glb", "cloud.ply", "cars.boxes.json", "cameras.json", "part.selection.json"]
    layers = Layers.open(tmp_path / name for name in [*names, "bound.safetensors", "photos", "drops.zarr", "room"])
    assert {layer.name: layer.kind for layer in layers} == {
        "ring": "gaussians", "packed": "gaussians", "ball": "mesh", "cloud": "points", "cars": "boxes", "cameras": "cameras",
        "part": "selection", "bound": "gaussians", "photos": "cameras", "drops": "points", "chair": "gaussians",
    }  # fmt: skip
    assert isinstance(layers["photos"].value, PosedImages) and len(layers["photos"].cameras) == 8
    assert layers["bound"].value.num_gaussians == sphere().num_faces
    assert layers["cars"].source == tmp_path / "cars.boxes.json" and all(layer.visible for layer in layers)
    layers.show("cars", False)
    assert [layer.name for layer in layers if not layer.visible] == ["cars"]
    assert [layer.name for layer in layers][4] == "cars"


def test_parts_of_a_layer_in_few_words():
    values = {
        "ring": ring_scene(), "ball": sphere(), "box": Boxes(torch.ones(1, 7)), "boxes": Boxes(torch.ones(1200, 7)),
        "camera": ring_cameras()[:1], "cameras": ring_cameras(),
    }  # fmt: skip
    layers = Layers(source_of(value, name) for name, value in values.items())
    texts = [
        "2 250 Gaussians",
        f"{sphere().num_faces:,} faces".replace(",", " "),
        "1 box",
        "1 200 boxes",
        "1 camera",
        "6 cameras",
    ]
    assert [describe(layer, layer.value) for layer in layers] == texts


def test_names_are_unique(tmp_path):
    for folder in ("a", "b", "c"):
        ring_scene(20).save(tmp_path / folder / "scene.ply")
    layers = Layers.open(tmp_path / folder / "scene.ply" for folder in "abc")
    assert [layer.name for layer in layers] == ["scene", "scene_2", "scene_3"]


def test_objects_of_a_scene_have_their_transforms(tmp_path):
    move = se3.similarity(torch.tensor(2.0), torch.eye(3), torch.tensor([10.0, 0, 0]))
    Scene(cameras=ring_cameras()).add("ball", sphere(), move).save(tmp_path / "room")
    layers = Layers.open([tmp_path / "room"])
    assert [layer.name for layer in layers] == ["ball", "cameras"]
    assert torch.equal(layers["ball"].transform, move)
    assert layers.bounds.center.tolist() == pytest.approx([10, 0, 0], abs=1e-4)
    assert layers.bounds.radius == pytest.approx(2, rel=1e-4)


def test_photos_include_their_points(tmp_path):
    images = PosedImages.load(write_ring_photographs(tmp_path / "photos"))
    replace(images, points=torch.rand(9, 3), point_colors=torch.rand(9, 3)).save(tmp_path / "again")
    layers = Layers.open([tmp_path / "again"])
    assert {layer.name: layer.kind for layer in layers} == {"again": "cameras", "again.points": "points"}


def test_one_time_line_for_all_sequences(tmp_path):
    layers = Layers.open([drops(tmp_path / "a.zarr"), drops(tmp_path / "b.zarr", (0.25, 1.0, 3.0))])
    assert layers.times.tolist() == [0, 0.25, 0.5, 1, 3]
    shown = [{name: float(cloud.points[0, 0]) for name, cloud in layers.frame_at(t).items()} for t in (-1, 0, 0.3, 0.5, 2, 99)]
    assert [frame["a"] for frame in shown] == [0, 0, 0, 0.5, 1, 1]
    assert [frame["b"] for frame in shown] == [0.25, 0.25, 0.25, 0.25, 1, 3]


def test_a_frame_is_shown_at_its_own_time_in_float32(tmp_path):
    layers = Layers.open([drops(tmp_path / "a.zarr", [i / 30 for i in range(40)])])
    for index, time in enumerate(layers.times):
        assert layers["a"].frame_index(float(f"{float(time):.12g}")) == index


def test_a_sequence_without_frames_shows_its_base(tmp_path):
    FrameSequence(ring_scene(10), torch.zeros(0)).save(tmp_path / "a.zarr")
    layers = Layers.open([tmp_path / "a.zarr"])
    assert len(layers.times) == 0 and layers.frame("a", 3.0).num_gaussians == 15


def test_joints_of_motion_capture_move(tmp_path):
    turns = random_quats(3, 2)
    motion = Motion(Skeleton(("hip", "knee"), (-1, 0), torch.rand(2, 3)), torch.arange(3.0).double(), turns, torch.rand(3, 3))
    motion.save(tmp_path / "walk.bvh")
    layers = Layers.open([tmp_path / "walk.bvh"])
    assert layers.times.tolist() == [0, 1, 2]
    torch.testing.assert_close(layers.frame("walk", 2.0).points, motion.positions()[2], atol=1e-5, rtol=0)


def test_frames_are_read_once_and_only_some_are_cached():
    read = []

    class Channel:
        shape = (10, 100, 3)

        def __getitem__(self, index):
            read.append(index)
            return torch.zeros(100, 3)

    sequence = FrameSequence(PointCloud(torch.ones(100, 3), torch.ones(100, 3)), torch.arange(10.0), {"points": Channel()})
    cache = FrameCache(3 * 1200)
    for index in (0, 1, 2, 1, 0, 3, 2):
        cache.get(sequence, index)
    assert read == [0, 1, 2, 3, 2]  # 3 evicted 2, the least recently used; colors are shared with the base
    assert cache.num_bytes == 3 * 1200
    tiny = FrameCache(1)
    assert tiny.get(sequence, 0) is tiny.get(sequence, 0)


def test_a_growing_sequence_is_updated(tmp_path):
    writer = SequenceWriter(tmp_path / "a.zarr", PointCloud(torch.zeros(5, 3)))
    layers = Layers.open([tmp_path / "a.zarr"])
    layers.show("a", False)
    assert layers.is_followed and layers.refresh() == []
    writer.append(0.0, points=torch.ones(5, 3))
    assert layers.refresh() == ["a"] and layers.times.tolist() == [0]
    writer.append(1.0, points=torch.full((5, 3), 2.0))
    assert layers.refresh() == ["a"] and layers.refresh() == []
    assert layers.frame("a", 1.0).points[0, 0] == 2 and not layers["a"].visible
    assert layers.note() == "a: 2 frames"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of fit with a checkpoint every ten steps."""
    photos = write_ring_photographs(tmp_path_factory.mktemp("photos") / "set")
    config = FitConfig(steps=30, max_gaussians=200, sh_degree=1, checkpoint_every=10, keep=3, mode="2dgs", pose_opt=True)
    return fit(config, photos, run_folder=tmp_path_factory.mktemp("runs") / "ring", progress=silent)


def copied(run, folder, *names):
    """The run folder at an earlier time: the configuration and the given files."""
    for name in ("config.yaml", *names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((run.run_folder / name).read_bytes())
    return folder


def test_a_finished_run_shows_its_scene_and_cameras(run):
    layers = Layers.open([run.run_folder])
    assert [(layer.name, layer.kind) for layer in layers] == [("ring", "gaussians"), ("ring.cameras", "cameras")]
    assert torch.equal(layers["ring"].value.means, run.scene.means)
    assert layers.note() == "ring: done"


def test_the_scene_of_a_run_matches_its_cameras(run, tmp_path):
    layers = Layers.open([run.run_folder / "scene.ply"])
    assert [(layer.name, layer.visible) for layer in layers] == [("scene", True), ("scene.cameras", False)]
    whole = Layers.open([run.run_folder])
    torch.testing.assert_close(layers.up, whole.up)
    torch.testing.assert_close(layers.start.position, whole.start.position)
    folder = copied(run, tmp_path / "broken", "scene.ply")
    (folder / "cameras.json").write_text("{")
    assert [layer.name for layer in Layers.open([folder / "scene.ply"])] == ["scene"]


def test_a_run_is_updated_from_its_start_to_its_end(run, tmp_path):
    folder = copied(run, tmp_path / "ring")
    layers = Layers.open([folder])
    assert len(layers) == 0 and layers.note() == "ring: waiting for the first checkpoint"
    assert layers.bounds.radius == 1 and layers.times.tolist() == []
    copied(run, folder, "checkpoints/step_000010.pt")
    assert layers.refresh() == ["ring", "ring.cameras"] and layers.note() == "ring: step 10"
    layers.show("ring.cameras", False)
    early = layers["ring"].value
    copied(run, folder, "checkpoints/step_000030.pt")
    assert layers.refresh() == ["ring", "ring.cameras"] and layers.note() == "ring: step 30"
    last = layers["ring"].value
    assert not torch.equal(last.means[:5], early.means[:5]) and last.mode == "2dgs"
    # The last checkpoint equals the final output: the same world, cameras corrected equally.
    rows = (last.means[:, None] == run.scene.means).all(-1)
    assert rows.any(0).all() and rows.sum() == len(run.scene)  # including invisible ones
    assert torch.equal(last.log_scales[rows.any(1)], run.scene.log_scales)
    assert torch.equal(layers["ring.cameras"].value.viewmats, run.cameras.viewmats)
    assert layers["ring.cameras"].value.names == run.cameras.names
    copied(run, folder, "scene.ply", "cameras.json")
    assert layers.refresh() == ["ring", "ring.cameras"] and layers.note() == "ring: done"
    assert not layers["ring.cameras"].visible and layers.refresh() == []


def test_an_unreadable_checkpoint_keeps_the_previous_one(run, tmp_path):
    folder = copied(run, tmp_path / "ring", "checkpoints/step_000010.pt")
    layers = Layers.open([folder])
    (folder / "checkpoints/step_000020.pt").write_bytes(b"PK half a file")
    assert layers.refresh() == [] and layers.note() == "ring: step 10"


def test_a_checkpoint_of_another_kind(run, tmp_path):
    folder = copied(run, tmp_path / "other")
    save_checkpoint(folder / "checkpoints/step_000005.pt", Checkpoint(5, {}, {"weights": torch.zeros(2)}, {}))
    with pytest.raises(InputError, match=r"step_000005\.pt: is not a checkpoint of a fit \(KeyError: 'snapshot'\)$"):
        Layers.open([folder])


def test_a_run_resumed_after_its_end_shows_the_newer_checkpoint(run, tmp_path):
    folder = copied(run, tmp_path / "ring", "scene.ply", "checkpoints/step_000030.pt")
    os.utime(folder / "scene.ply", ns=(0, 0))
    assert Layers.open([folder]).note() == "ring: step 30"


def test_outputs_of_other_stages_in_a_run_folder(run, tmp_path):
    folder = copied(run, tmp_path / "run")
    drops(folder / "sequence.zarr")
    sphere().save(folder / "mesh.glb")
    assert [layer.name for layer in Layers.open([folder])] == ["run.mesh", "run.sequence"]


def test_frames_of_a_run_are_seen_from_its_camera(run, tmp_path):
    folder = copied(run, tmp_path / "run")
    drops(folder / "frames.zarr")
    cameras = ring_cameras()
    cameras.save(folder / "cameras.json")
    for path in (folder, folder / "frames.zarr"):
        layers = Layers.open([path])
        assert [layer.name.split(".")[-1] for layer in layers] == ["frames", "cameras"]
        assert [layer.visible for layer in layers] == [True, False]
        start = start_viewpoint(layers, layers.bounds, guess_up(layers))
        torch.testing.assert_close(start.position, cameras.centers[0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothing.ply", "nothing.ply: does not exist; want a scene, mesh, point cloud, boxes, cameras, a data set, "),
        (
            "notes.xyz",
            "notes.xyz: no viewer for '.xyz'; want .3dxml, .3mf, .bin, .bvh, .dae, .glb, .gltf, .json, .ksplat, .npz, .obj, ",
        ),
        ("README", "README: no viewer for a name without suffix; want .3dxml, .3mf, .bin, "),
        ("image.png", "image.png: no viewer for '.png'; want .3dxml, .3mf, .bin, "),
        ("empty", "empty: found 0 photos without cameras (searched for transforms.json, "),
        ("room", "room: is an empty scene; there is nothing to show"),
        ("ended", "ended: is a run folder with nothing to show; want scene.ply, a checkpoint, or .zarr, .glb, "),
        ("nan.json", "nan.json at boxes: is not a valid boxes (InputError: Boxes: boxes"),
    ],
)
def test_wrong_paths_are_one_line(tmp_path, name, text):
    for file in ("notes.xyz", "README", "image.png"):
        (tmp_path / file).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    Scene().save(tmp_path / "room")
    (tmp_path / "ended").mkdir()
    (tmp_path / "ended" / "config.yaml").write_text("# vision3d run, version 0.1.0\nsteps: 1\n")
    (tmp_path / "ended" / "summary.json").write_text("{}")
    content = '{"vision3d": {"type": "boxes", "version": 1}, "boxes": [[0, 0, 0, NaN, 1, 1, 0]]}'
    (tmp_path / "nan.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(text)) as found:
        Layers.open([tmp_path / name])
    assert found.value.exit_code == 3 and "\n" not in str(found.value)
    assert isinstance(found.value, MissingFileError) == (name == "nothing.ply")


def test_a_path_given_twice(tmp_path, monkeypatch):
    ring_scene(5).save(tmp_path / "a.ply")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"a\.ply: given twice; give each file or folder once$"):
        Layers.open([tmp_path / "a.ply", "a.ply"])
    with pytest.raises(InputError, match="got no file or folder to show; want a scene, "):
        Layers.open([])


def test_an_unknown_layer(tmp_path):
    ring_scene(5).save(tmp_path / "chair.ply")
    with pytest.raises(InputError, match="unknown layer 'chari'; did you mean chair"):
        Layers.open([tmp_path / "chair.ply"])["chari"]


def test_broken_objects_name_their_file(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "flat.obj").write_text("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    with pytest.raises(InputError, match=r"flat\.obj: .*all 1 faces have zero area"):
        Layers.open([tmp_path / "flat.obj"])
    header = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "none.ply").write_text(header)
    with pytest.raises(InputError, match=r"none\.ply at header: element 'vertex' has 0 rows"):
        Layers.open([tmp_path / "none.ply"])
