import json
from dataclasses import replace

import pytest
import torch

from tests.support.creature import creature
from tests.support.datasets import write_ring_photographs
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.runs import RunFolder
from vision3d.geometry import shapes
from vision3d.io import mesh_frames
from vision3d.io.images import write_image
from vision3d.io.ply import write_points
from vision3d.io.video import VideoWriter
from vision3d.scene import (
    Boxes,
    Cameras,
    FrameSequence,
    Mesh,
    MeshGaussians,
    Motion,
    PointCloud,
    Region,
    Scene,
    Selection,
    Skeleton,
)
from vision3d.stages.fit.config import FitConfig


@pytest.fixture
def info(cli):
    """The JSON of `vision3d info`, and its table as a dict."""

    def call(path):
        code, out, err = cli("info", path, "--json")
        assert (code, err) == (0, "")
        *lines, last = out.splitlines()
        return json.loads(last), {line.split()[0]: " ".join(line.split()[1:]) for line in lines}

    return call


def test_gaussian_scene(info, tmp_path):
    scene = ring_scene(100)
    scene = replace(scene, antialiased=True, labels=torch.arange(150) % 3)
    scene.opacity_logits[:] = torch.linspace(-3, 3, 150)
    scene.save(tmp_path / "a.ply")
    values, table = info(tmp_path / "a.ply")
    assert values["kind"] == "Gaussian scene" and values["gaussians"] == 150 and values["labels"] == 3
    assert (values["mode"], values["antialiased"], values["sh_degree"]) == ("3dgs", True, 1)
    assert values["min_m"] == pytest.approx(scene.means.min(0).values.tolist(), rel=1e-3)
    assert values["max_m"] == pytest.approx(scene.means.max(0).values.tolist(), rel=1e-3)
    assert values["opacity_quantiles"]["50%"] == pytest.approx(0.5, abs=0.01)
    assert values["opacity_quantiles"]["1%"] < 0.06 and values["opacity_quantiles"]["99%"] > 0.94
    assert values["bytes"] == (tmp_path / "a.ply").stat().st_size
    assert table["gaussians"] == "150" and table["antialiased"] == "yes"


def test_point_cloud(info, tmp_path):
    write_points(tmp_path / "p.ply", torch.rand(5, 3), torch.rand(5, 3))
    values, _ = info(tmp_path / "p.ply")
    assert (values["kind"], values["points"]) == ("point cloud with colors", 5)


def test_mesh(info, tmp_path):
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    mesh = Mesh(
        torch.cat([torch.zeros(1, 3), torch.eye(3)])[[1, 2, 3, 0]], faces, torch.rand(4, 2), texture=torch.rand(4, 6, 3)
    )
    mesh.save(tmp_path / "m.glb")
    values, table = info(tmp_path / "m.glb")
    assert (values["kind"], values["vertices"], values["faces"]) == ("mesh", 4, 4)
    assert values["closed"] and values["manifold"] and values["faces_without_area"] == 0
    assert values["area_m2"] == pytest.approx(1.5 + 3**0.5 / 2, rel=1e-3)  # three half squares and the slanted face
    assert (values["attributes"], values["texture_size"]) == (["uvs", "texture"], "6x4")
    assert values["max_m"] == [1, 1, 1] and table["attributes"] == "uvs texture"
    pytest.importorskip("trimesh")
    Mesh(mesh.vertices, faces[:3]).save(tmp_path / "m.ply")
    assert info(tmp_path / "m.ply")[0]["closed"] is False


def test_boxes_and_selection(info, tmp_path):
    boxes = Boxes(torch.tensor([[10.0, 2, -1, 4, 2, 1.5, 0]]), torch.tensor([0]), torch.tensor([0.5]), ("Car",))
    boxes.save(tmp_path / "b.json")
    values, table = info(tmp_path / "b.json")
    assert (values["kind"], values["boxes"], values["classes"], values["scores"]) == ("boxes", 1, {"Car": 1}, [0.5, 0.5])
    assert table["classes"] == "Car 1"
    Selection((Region.sphere(torch.zeros(3), 1.0),)).save(tmp_path / "s.json")
    assert info(tmp_path / "s.json")[0]["regions"] == ["sphere"]


def test_sequence(info, tmp_path):
    FrameSequence(PointCloud(torch.rand(4, 3)), torch.tensor([0.0, 0.5]), {"points": torch.rand(2, 4, 3)}).save(
        tmp_path / "s.zarr"
    )
    values, table = info(tmp_path / "s.zarr")
    assert (values["kind"], values["frames"], values["times_s"], values["channels"]) == ("sequence", 2, [0, 0.5], ["points"])
    assert table["base"].startswith("PointCloud(4 points")
    assert values["bytes"] == sum(file.stat().st_size for file in (tmp_path / "s.zarr").rglob("*") if file.is_file())


def test_skin(info, tmp_path):
    replace(creature(), fps=24.0).save(tmp_path / "c.glb")
    values, table = info(tmp_path / "c.glb")
    assert (values["fps"], table["fps"]) == (24, "24")
    assert (values["kind"], values["vertices"], values["joints"], values["joints_a_vertex"]) == ("mesh that moves", 162, 6, 4)
    assert values["joint_names"] == ["hip", "spine", "neck", "tail", "left", "right"]
    assert (values["morphs"], values["morph_names"]) == (2, ["smile", "frown"])
    walk = {"seconds": 1.0, "keys": 3, "rotation": 3, "translation": 2, "scale": 1, "weights": 1}
    assert values["clips"] == {"walk": walk, "wave": {"seconds": 0.625, "keys": 2, "weights": 1}}
    assert table["wave"] == "seconds 0.625, keys 2, weights 1"


def test_a_file_whose_motion_is_not_read(info, tmp_path):
    creature().save(tmp_path / "c.gltf")
    content = json.loads((tmp_path / "c.gltf").read_text())
    content["nodes"][1]["matrix"] = [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    (tmp_path / "c.gltf").write_text(json.dumps(content))
    values, _ = info(tmp_path / "c.gltf")
    assert values["kind"] == "mesh" and "matrix has shear" in values["motion_not_read"]


def test_frames(info, tmp_path):
    vertices, faces = shapes.icosphere(0)
    sequence = FrameSequence(
        Mesh(vertices, faces), torch.tensor([0.0, 0.5]), {"vertices": torch.stack([vertices, 2 * vertices])}
    )
    sequence.save(tmp_path / "s.npz")
    assert info(tmp_path / "s.npz")[0]["frames"] == 2
    pytest.importorskip("trimesh")
    mesh_frames.write_frames(tmp_path / "frames", sequence)
    assert info(tmp_path / "frames")[0]["times_s"] == [0, 0.5]


def test_gaussians_on_a_mesh(info, tmp_path):
    mesh = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    MeshGaussians.from_mesh(mesh, 3).save(tmp_path / "a.safetensors")
    values, _ = info(tmp_path / "a.safetensors")
    assert (values["kind"], values["faces"], values["gaussians"], values["sh_degree"]) == ("Gaussians on a mesh", 1, 3, 0)
    assert values["bytes"] == (tmp_path / "a.safetensors").stat().st_size


def test_cameras(info, tmp_path):
    ring_cameras().save(tmp_path / "c.json")
    values, table = info(tmp_path / "c.json")
    assert (values["kind"], values["views"], values["model"], values["sizes"]) == ("cameras", 6, "pinhole", ["48x36"])
    assert values["fov_deg"] == pytest.approx([48.89, 48.89]) and values["distortion"] is False
    assert values["positions_max_m"][2] == pytest.approx(2) and values["first"] == "images/000.png"
    assert table["sizes"] == "48x36"


def test_photos(info, tmp_path):
    values, _ = info(write_ring_photographs(tmp_path / "data"))
    assert values["kind"] == "photographs with cameras"
    assert (values["views"], values["training_views"], values["held_out_views"], values["points"]) == (8, 6, 2, 0)


@pytest.mark.parametrize("name", ["data", "data/transforms.json"])
def test_missing_photos_are_skipped(cli, tmp_path, name):
    folder = write_ring_photographs(tmp_path / "data")
    next(folder.glob("images/*3.png")).unlink()
    code, out, err = cli("info", tmp_path / name, "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["views"] == 7
    assert "1 frames without a file skipped (7 of 8 images found)" in err


def test_run_folder(info, tmp_path):
    folder = RunFolder.create(tmp_path / "run", FitConfig(steps=3))
    assert info(tmp_path / "run")[0]["kind"] == "run"
    folder.write_summary({"psnr": 21.5})
    ring_scene(20).save(tmp_path / "run" / "scene.ply")
    values, table = info(tmp_path / "run")
    assert values["status"] == "done" and values["results"] == {"psnr": 21.5}
    assert values["configuration"]["steps"] == 3 and values["scene"]["gaussians"] == 30
    assert table["psnr"] == "21.5" and "configuration" not in table


def test_folder_of_objects_image_and_video(info, tmp_path):
    Scene(cameras=ring_cameras()).add("ring", ring_scene(20)).save(tmp_path / "room")
    values, _ = info(tmp_path / "room")
    assert values["cameras"] == 6 and values["objects"]["ring"].startswith("GaussianScene(30 3dgs")

    write_image(tmp_path / "a.png", torch.rand(6, 8, 3))
    assert info(tmp_path / "a.png")[0]["size"] == "8x6"

    with VideoWriter(tmp_path / "v.mp4", fps=10) as video:
        for _ in range(5):
            video.append(torch.rand(32, 48, 3))
    values, _ = info(tmp_path / "v.mp4")
    assert (values["kind"], values["size"], values["fps"], values["duration_s"]) == ("video", "48x32", 10, 0.5)


def test_wide_cameras_have_no_field_of_view_in_degrees(info, tmp_path):
    cameras = ring_cameras()
    Cameras(cameras.viewmats, cameras.Ks, cameras.width, cameras.height, model="ortho").save(tmp_path / "c.json")
    values, _ = info(tmp_path / "c.json")
    assert values["model"] == "ortho" and "fov_deg" not in values


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.ply", None, "none.ply: does not exist; want an existing file or folder"),
        ("text.ply", "hello", "text.ply"),
        ("a.xyz", "1 2 3", "a.xyz: no codec for '.xyz'"),
        ("a.json", "[]", "a.json: has no list 'frames'"),
    ],
)
def test_wrong_files(cli, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    code, out, err = cli("info", tmp_path / name)
    assert (code, out) == (3, "") and err.count("\n") == 1
    assert message in err


def test_damaged_summary(cli, tmp_path):
    RunFolder.create(tmp_path / "run", FitConfig(steps=3))
    (tmp_path / "run" / "summary.json").write_text("{}")
    code, _, err = cli("info", tmp_path / "run")
    assert code == 3 and "summary.json: is not the summary of a run" in err
    (tmp_path / "run" / "summary.json").write_text('{"status": "done", "wall_s": 1, "results": ' + 900 * "[" + 900 * "]" + "}")
    code, out, err = cli("info", "--json", tmp_path / "run")
    assert code == 3 and "summary.json: is not the summary of a run" in err and json.loads(out)["exit_code"] == 3


def test_motion(info, tmp_path):
    skeleton = Skeleton(("hip", "knee", "knee end"), (-1, 0, 1), torch.tensor([[0.0, 0, 0], [0, -1, 0], [0, -1, 0]]), (2,))
    still = torch.tensor([1.0, 0, 0, 0]).expand(3, 3, 4)
    Motion(skeleton, torch.arange(3, dtype=torch.float64) / 2, still, torch.zeros(3, 3)).save(tmp_path / "a.bvh")
    values = info(tmp_path / "a.bvh")[0]
    assert (values["kind"], values["poses"], values["seconds"], values["joints"], values["tips"]) == ("motion", 3, 1.0, 3, 1)
    assert (values["min_m"], values["max_m"]) == ([0, -2, 0], [0, 0, 0])
