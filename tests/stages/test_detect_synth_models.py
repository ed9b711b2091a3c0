"""Models from archives of sweethome3d-furniture, with an archive made here."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.render.lidar.materials import NAMES
from vision3d.stages.detect.synth import FrameConfig, SynthConfig, frame, models, synthesize
from vision3d.stages.detect.synth.library import Library

pytest.importorskip("embreex")

OBJ = """v -10 0 -20
v 10 0 -20
v 10 0 20
v -10 0 20
v -10 30 20
v 10 30 20
v 99 99 99
usemtl Car_Glass
f 1/1/1 2/2/1 3 4
usemtl body
f -4 -3 5
f 3 5 6
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(models, "CHOSEN", {"Scopia": {"Car": (1,)}, "KatorLegaz": {"Pedestrian": (2,)}})
    values = {"name": "Thing {0}", "model": "/a/b/b.obj", "width": 180, "height": 150, "depth": 440, "creator": "Somebody"}
    item = "".join(f"{key}#{{0}}={value}\n" for key, value in values.items())
    for name, number in (("Scopia", 1), ("KatorLegaz", 2)):
        (tmp_path / "usr").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "usr" / f"{name}.sh3f", "w") as archive:
            archive.writestr("PluginFurnitureCatalog.properties", item.format(number))
            archive.writestr("a/b/b.obj", OBJ)
    return tmp_path


def test_a_model_has_the_size_of_the_catalogue_and_stands_on_the_ground(folder: Path):
    shapes, credit = models.load_models(folder, "train")
    (car,) = shapes["Car"]
    np.testing.assert_allclose(car.corners[0], [-2.2, -0.9, 0], atol=1e-6)
    np.testing.assert_allclose(car.corners[-1], [2.2, 0.9, 1.5], atol=1e-6)
    assert car.info["size"] == pytest.approx((4.4, 1.8, 1.5))
    assert [NAMES[k] for k in car.materials] == ["glass", "glass", "paint", "paint"]
    # the wall at +z in the file is the front, +x here
    assert car.vertices[car.vertices[:, 2] > 1.4, 0].min() == pytest.approx(2.2)
    assert [(one.archive, one.name, one.creator) for one in credit] == [("Scopia", "Thing 1", "Somebody")]


def test_one_maker_is_in_val_only(folder: Path):
    assert set(models.load_models(folder, "train")[0]) == {"Car"}
    assert set(models.load_models(folder, "val")[0]) == {"Pedestrian"}
    rng = np.random.default_rng(0)
    train = Library("train", 8, folder)
    families = [train.pick("Car", rng).info["family"] for _ in range(60)]
    assert 8 < families.count("Car model") < 34


def test_frames_use_them_and_name_their_creators(folder: Path, tmp_path: Path):
    config = FrameConfig(sensor="vlp16", variety=8, models=folder)
    assert not np.array_equal(frame(0, config).points, frame(0, FrameConfig(sensor="vlp16", variety=8)).points)
    synthesize(SynthConfig(sensor="vlp16", variety=8, models=folder, frames=1), run_folder=tmp_path / "out")
    assert "Scopia: Thing 1, by Somebody" in (tmp_path / "out" / "credits.txt").read_text()


def test_wrong_folders(folder: Path, tmp_path: Path):
    with pytest.raises(MissingFileError, match="sh3f"):
        models.load_models(tmp_path / "nothing", "train")
    (folder / "usr" / "Scopia.sh3f").write_bytes(b"no archive")
    with pytest.raises(FileFormatError, match="Scopia"):
        models.load_models(folder, "train")
    with zipfile.ZipFile(folder / "usr" / "Scopia.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", "name#9=x\n")
    with pytest.raises(FileFormatError, match="Scopia"):
        models.load_models(folder, "train")
