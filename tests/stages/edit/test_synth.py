"""Pairs of objects and instructions: files, the same after a kill, more of them, procedural meshes."""

import json
from dataclasses import replace

import pytest
import torch

from tests.support.edit_models import WordEncoder, random_planes
from vision3d.core.errors import ConfigError
from vision3d.core.runs import RunFolder
from vision3d.geometry.mesh import boundary_edges
from vision3d.scene import Mesh, load
from vision3d.stages.edit import Editor, EditSynthConfig, synth as module, synthesize_edits
from vision3d.stages.edit.data.shapes import Shape, random_shape

CONFIG = EditSynthConfig(pairs=3, refine=0, texture_size=32, views=1, view_size=24, two=0.5)


@pytest.fixture(scope="module")
def editor():
    return Editor(random_planes(), encoder=WordEncoder())


def run(config, path, editor, resume=False):
    folder = RunFolder.create(path, config, resume=resume, grows={"pairs"})
    try:
        return synthesize_edits(config, editor=editor, run_folder=folder, progress=lambda *_, **__: None).summary
    finally:
        folder.unlock()


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.glob("pairs/**/*")) if file.is_file()}


def test_a_pair_is_an_object_before_and_after(tmp_path, editor):
    config = replace(CONFIG, save_planes=True)
    assert run(config, tmp_path / "set", editor)["written"] == 3
    rows = [json.loads(line) for line in (tmp_path / "set" / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        before, after = (load(tmp_path / "set" / row[name]) for name in ("source", "edited"))
        assert isinstance(before, Mesh) and isinstance(after, Mesh) and row["text"] and row["edits"]
        assert torch.equal(before.vertices[before.faces], after.vertices[after.faces])
        folder = (tmp_path / "set" / row["source"]).parent
        assert {file.name for file in folder.iterdir()} == {
            "source.glb", "edited.glb", "source.safetensors", "edited.safetensors", "before_after.png", "pair.json",
        }  # fmt: skip


def test_a_killed_run_and_one_that_grew_are_an_uninterrupted_one(tmp_path, editor, monkeypatch):
    run(CONFIG, tmp_path / "whole", editor)
    own = module._pair

    def killed(config, editor, number, folder):
        if number == 1:
            (folder / "source.glb").write_bytes(b"half")
            raise KeyError
        return own(config, editor, number, folder)

    monkeypatch.setattr(module, "_pair", killed)
    with pytest.raises(KeyError):
        run(replace(CONFIG, pairs=2), tmp_path / "parts", editor)
    monkeypatch.undo()
    assert run(replace(CONFIG, pairs=2), tmp_path / "parts", editor, resume=True)["written"] == 1
    assert run(CONFIG, tmp_path / "parts", editor, resume=True)["written"] == 1
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    names = [tmp_path / name / "pairs.jsonl" for name in ("parts", "whole")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_folder_is_needed_and_options_are_checked(editor):
    with pytest.raises(ConfigError, match="want a folder for the pairs"):
        synthesize_edits(CONFIG, editor=editor)
    for wrong in ({"pairs": 0}, {"two": 1.5}, {"phrasings": "new"}, {"split": "all"}, {"texture_size": 4}, {"refine": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            replace(CONFIG, **wrong)


def test_procedural_meshes_are_fine_enough_for_their_patterns_and_closed():
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    shape = Shape(corners, torch.tensor([[0, 1, 2]]), torch.tensor([0]), (lambda points: points,))
    mesh = module.shape_mesh(shape)
    assert mesh.vertex_colors is not None and torch.allclose(mesh.vertex_colors, mesh.vertices)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert float(torch.linalg.cross(b - a, c - a).sum(0)[2]) == pytest.approx(1)  # the same area and orientation
    assert float(torch.linalg.vector_norm(a - b, dim=1).max()) <= 0.06
    made = module.shape_mesh(random_shape(torch.Generator().manual_seed(0)))
    assert len(boundary_edges(made.faces)) == 0
