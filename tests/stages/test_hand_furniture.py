"""Things to hold and rooms from archives of sweethome3d-furniture, with archives made here."""

import zipfile
from pathlib import Path

import pytest
import torch

from vision3d.core.errors import MissingFileError
from vision3d.io.images import write_image
from vision3d.scene import Mesh
from vision3d.stages.hand.data.images import ImageSamples
from vision3d.stages.hand.data.samples import BATCH, SampleSource
from vision3d.stages.hand.synth import objects
from vision3d.stages.hand.synth.frames import FrameConfig
from vision3d.stages.hand.synth.people import people
from vision3d.stages.hand.synth.pictures import HEIGHT, WIDTH
from vision3d.stages.hand.synth.rooms import room

OBJ = """mtllib b.mtl
v -1 0 -2
v 1 0 -2
v 1 0 2
v -1 3 2
vt 0 0
vt 1 0
vt 1 1
usemtl wood
f 1/1 2/2 3/3
usemtl plain
f 1 3 4
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vision3d.stages.hand.synth.people.PEOPLE", {"Scopia": (1,)})
    monkeypatch.setattr(objects, "HELD", {"Scopia": (1,), "KatorLegaz": (2,)})
    objects.furniture.cache_clear()
    write_image(tmp_path / "t.png", torch.tensor([1.0, 0, 0]).expand(8, 8, 3))
    values = {
        "name": "Thing {0}",
        "model": "/a/b/b.obj",
        "width": 8,
        "height": 10,
        "depth": 6,
        "creator": "A",
        "category": "Kitchen",
    }
    item = "".join(f"{key}#{{0}}={value}\n" for key, value in values.items())
    for name, number in (("Scopia", 1), ("KatorLegaz", 2)):
        with zipfile.ZipFile(tmp_path / f"{name}.sh3f", "w") as archive:
            archive.writestr("PluginFurnitureCatalog.properties", item.format(number))
            archive.writestr("a/b/b.obj", OBJ)
            archive.writestr("a/b/b.mtl", "newmtl wood\nmap_Kd t.png\nnewmtl plain\nKd 0 1 0\n")
            archive.writestr("a/b/t.png", (tmp_path / "t.png").read_bytes())
    return tmp_path


def test_things_to_hold_have_colors_and_the_size_of_the_catalogue(folder: Path):
    (mesh,) = objects.load_objects(folder, "train")
    assert mesh.texture is None and mesh.vertex_colors is not None
    assert torch.allclose(mesh.vertices.amax(0) - mesh.vertices.amin(0), torch.tensor([0.06, 0.08, 0.1]), atol=1e-5)
    colors = mesh.vertex_colors[mesh.faces]
    assert torch.allclose(colors[0], torch.tensor([1.0, 0, 0]).expand(3, 3), atol=0.02)
    assert torch.allclose(colors[1], torch.tensor([0.0, 1, 0]).expand(3, 3), atol=0.02)


def test_one_maker_is_in_tests_only(folder: Path):
    (folder / "KatorLegaz.sh3f").unlink()
    assert len(objects.load_objects(folder, "train")) == 1
    with pytest.raises(MissingFileError, match="KatorLegaz"):
        objects.load_objects(folder, "test")
    with pytest.raises(MissingFileError):
        objects.furniture(folder, "test")


def test_texture_colors_at_vertices():
    texture = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    uvs = torch.tensor([[0.125, 0.125], [0.875, 0.125], [0.125, 0.875]])
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), uvs=uvs, texture=texture)
    colors = objects.with_vertex_colors(mesh).vertex_colors
    assert colors is not None
    corners = {tuple(value) for value in texture[[0, 0, 3, 3], [0, 3, 0, 3]].tolist()}
    assert all(any(torch.allclose(color, torch.tensor(corner), atol=1e-5) for corner in corners) for color in colors)


def test_rooms_and_hands_with_them(folder: Path):
    models = objects.furniture(folder, "train")
    picture = room(models, torch.Generator().manual_seed(0))
    assert picture.shape == (3, HEIGHT, WIDTH) and torch.equal(picture, room(models, torch.Generator().manual_seed(0)))
    assert len(picture.flatten(1).T.unique(dim=0)) > 100
    source = SampleSource(frames=FrameConfig(size=64, objects=1), furniture=folder)
    plain = SampleSource(frames=FrameConfig(size=64, objects=1))
    samples = ImageSamples(source, BATCH)
    samples.prepare()
    batch = samples.take(torch.arange(4))
    assert batch.is_hand.all() and not torch.equal(source.make(0)["lengths"], plain.make(0)["lengths"])


def test_some_images_have_no_hand():
    source = SampleSource(frames=FrameConfig(size=64, empty=0.5), seed=1)
    made = source.make(0)
    assert 0 < int(made["is_hand"].sum()) < BATCH
    assert not made["visible"][~made["is_hand"]].any()


def test_pictures_of_people(folder: Path):
    pictures = people(folder, "train", 4)
    assert pictures.shape == (4, 3, HEIGHT, WIDTH)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 4
    assert torch.equal(people(folder, "train", 4), pictures)
    assert len(people(folder, "test", 4)) == 0
