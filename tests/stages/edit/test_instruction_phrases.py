"""Phrasings of edits."""

import re

import pytest
import torch

from vision3d.core.errors import InputError
from vision3d.stages.edit.instructions import families
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.frames import FRAMES
from vision3d.stages.edit.instructions.parser import expanded, parse
from vision3d.stages.edit.instructions.phrases import kinds_phrasings, phrase, phrasings

EDITS = families.all_edits()


def verbs(frames):
    orders = [frame.removeprefix("don't ") for frame in frames if not frame.startswith(("{", "the ", "a ", "i "))]
    return {frame.split()[0] for frame in orders}


def test_held_out_frames_share_no_verb_and_no_frame():
    for kind, frames in FRAMES["held_out"].items():
        assert not set(frames) & set(FRAMES["training"][kind])
        assert not verbs(frames) & verbs(FRAMES["training"][kind]), kind


def test_phrasings_of_training_and_held_out_differ():
    for edit in EDITS:
        training, held_out = set(phrasings(edit)), set(phrasings(edit, held_out=True))
        assert len(training) >= 4 and len(held_out) >= 3 and not training & held_out, edit


def test_held_out_colors_are_in_no_training_phrase():
    texts = " ".join(text for edit in EDITS for text in phrasings(edit))
    assert not [name for name in families.HELD_OUT_COLORS if re.search(rf"\b{name}\b", texts)]
    assert all(name in texts for name in families.FINE_COLORS)


def test_no_slot_is_left():
    for edit in EDITS:
        for held_out in (False, True):
            for text in phrasings(edit, held_out=held_out):
                assert not re.search(r"[{}]|\s\s|\ba [aeio]", text), text


def test_two_edits_never_share_a_phrasing():
    owners = {}
    for edit in EDITS:
        for text in phrasings(edit):
            assert owners.setdefault(text, edit) == edit, text


@pytest.mark.parametrize("held_out", [False, True])
def test_phrases_are_drawn_from_the_generator(held_out):
    edit = Edit("stripes", "red", part="top")
    first, second = (
        [phrase(edit, torch.Generator().manual_seed(seed), held_out=held_out) for seed in range(20)] for _ in range(2)
    )
    assert first == second and len(set(first)) > 5
    assert any(text != text.lower() for text in first)


def test_training_phrases_mean_their_edit():
    """The parser, written for itself, reads each phrase as the edit that it was made from."""
    generator = torch.Generator().manual_seed(0)
    wrong = []
    for edit in [*EDITS, [Edit("color", "red"), Edit("dots")], [Edit("wood", part="top"), Edit("darker")]]:
        edits = [edit] if isinstance(edit, Edit) else edit
        for held_out in (False, True):
            text = phrase(edit, generator, held_out=held_out)
            found = parse(text)
            if expanded(found.edits) != expanded(edits):
                wrong.append((text, [str(edit) for edit in edits], found))
    assert not wrong, wrong


def test_nothing_to_say():
    with pytest.raises(InputError, match="at least one"):
        phrase([])


def test_phrasings_by_kind():
    assert set(kinds_phrasings()) == set(families.KINDS)
    assert "make it red" in kinds_phrasings()["color"]
