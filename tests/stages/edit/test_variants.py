"""Variants of edits: the first is that of the text, the others differ in what it leaves open, and only in that."""

import itertools

import pytest
import torch

from vision3d.geometry.shapes import icosphere
from vision3d.geometry.surface_points import sample_faces
from vision3d.scene.lab import delta_e, lab_to_srgb, srgb_to_lab
from vision3d.stages.edit.instructions.families import BASIC_COLORS, KINDS, Edit, color_srgb
from vision3d.stages.edit.instructions.targets import apply_edit, apply_edits
from vision3d.stages.edit.instructions.variants import text_of, variants

GRAY = torch.tensor([0.55, 0.52, 0.5])


def surface(count: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on a ball, and their colors: brownish with a texture."""
    vertices, faces = icosphere(3)
    generator = torch.Generator().manual_seed(0)
    ids, barycentric = sample_faces(vertices, faces, count, generator)
    points = (barycentric[:, :, None].float() * vertices[faces[ids]]).sum(1)
    lab = torch.tensor([55.0, 12, 18]) + 6 * torch.randn(count, 3, generator=generator)
    return points, lab_to_srgb(lab).clamp(0, 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unchanged"])
def test_variants_differ_in_colors_or_material(kind):
    points, colors = surface()
    edit = Edit(kind, "red") if kind == "color" else Edit(kind)
    made = variants([edit], 4, GRAY)
    assert made[0] == (edit,) and len(made) == 4
    targets = [apply_edits(edits, points, colors) for edits in made]
    assert torch.equal(targets[0].colors, apply_edit(edit, points, colors).colors)
    for one, other in itertools.combinations(targets, 2):
        change = float(delta_e(srgb_to_lab(one.colors), srgb_to_lab(other.colors)).mean())
        assert change > 1 or float((one.roughness - other.roughness).abs().mean()) > 0.02


def test_the_same_seed_gives_the_same_and_another_others():
    edits = [Edit("stripes", "red"), Edit("darker")]
    assert variants(edits, 5, GRAY, 3) == variants(edits, 5, GRAY, 3)
    assert variants(edits, 5, GRAY, 3)[1:] != variants(edits, 5, GRAY, 4)[1:]
    assert variants(edits, 5, GRAY, 3)[0] == tuple(edits)


def test_what_the_text_gives_stays():
    for edits in variants([Edit("checks", "blue", "white", part="top")], 6, GRAY):
        assert (edits[0].kind, edits[0].color, edits[0].second, edits[0].part) == ("checks", "blue", "white", "top")
    grounds = [edits[0].second for edits in variants([Edit("dots", "red")], 7, GRAY)]
    assert grounds[0] is None and len(set(grounds)) == 4  # every second one keeps the ground of the object
    marks = [edits[0].color for edits in variants([Edit("stripes")], 6, GRAY)]
    assert marks[0] is None and len(set(marks)) == 6
    labs = srgb_to_lab(torch.tensor([color_srgb(name) for name in marks[1:]]))
    assert float(delta_e(labs, srgb_to_lab(GRAY).expand_as(labs)).min()) >= 25


@pytest.mark.parametrize("name", [*BASIC_COLORS])
def test_a_shade_is_still_the_color_of_its_word(name):
    points, colors = surface(500)
    words = [Edit("color", word) for word in BASIC_COLORS]
    targets = {edit: srgb_to_lab(apply_edit(edit, points, colors).colors) for edit in words}
    for seed in range(3):
        for edits in variants([Edit("color", name)], 6, GRAY, seed):
            found = srgb_to_lab(apply_edits(edits, points, colors).colors)
            distances = {edit: float(delta_e(found, lab).mean()) for edit, lab in targets.items()}
            assert min(distances, key=distances.__getitem__) == Edit("color", name), edits


def test_a_part_of_a_variant_changes_nothing_else():
    points, colors = surface()
    for edits in variants([Edit("gold", part="bottom")], 4, GRAY):
        changed = apply_edits(edits, points, colors)
        above = points[:, 2] > -0.3
        assert torch.equal(changed.colors[above], colors[above])


def test_an_edit_that_leaves_nothing_open():
    assert variants([Edit("unchanged")], 3, GRAY) == [(Edit("unchanged"),)] * 3
    assert variants([Edit("darker")], 1, GRAY) == [(Edit("darker"),)]


def test_captions_say_what_differs():
    assert text_of(variants([Edit("darker"), Edit("dots", "red")], 2, GRAY)[0]) == "darker, then dots: red"
    found = text_of(variants([Edit("stripes", "red")], 2, GRAY)[1])
    assert found.startswith("stripes: red on ") and "shifted" in found
