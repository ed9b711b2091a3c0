"""Phrasings of edits: those for training, and those held out, which differ from them in verb and frame."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from vision3d.core.errors import InputError
from vision3d.stages.edit.instructions.families import Edit
from vision3d.stages.edit.instructions.frames import CONNECTORS, FRAMES, OBJECTS, PART_NAMES, PATTERN_NAMES

Use = Literal["training", "held_out"]

_PATTERN_ADJECTIVES = {"stripes": "striped", "checks": "checkered", "dots": "dotted"}


def phrase(edits: Edit | Sequence[Edit], generator: torch.Generator | None = None, *, held_out: bool = False) -> str:
    """A random phrasing of an edit, or of several in order.

    Args:
        edits: What it asks for.
        generator: Source of the choices.
        held_out: From the held-out phrasings instead of those for training.

    Raises:
        InputError: No edits.
    """
    edits = [edits] if isinstance(edits, Edit) else list(edits)
    if not edits:
        raise InputError("edits: got none, want at least one")

    def choose(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))]

    use: Use = "held_out" if held_out else "training"
    thing = choose(OBJECTS[use])
    if len(edits) == 1:
        return _casual(_one(edits[0], use, choose, thing), choose)
    text = _one(edits[0], use, choose, thing, orders=True)
    for edit in edits[1:]:
        after = _one(edit, use, choose, choose((thing, "it")), orders=True)
        text = choose(CONNECTORS[use]).format(a=text, b=after, B=after[:1].upper() + after[1:])
    return _casual(text, choose)


def phrasings(edit: Edit, *, held_out: bool = False) -> list[str]:
    """All phrasings of an edit of "it" in a fixed order, without the casual variants."""
    use: Use = "held_out" if held_out else "training"
    found: dict[str, None] = {}
    for part in _part_names(edit, use):
        for frame in _frames(edit, use):
            for x in _fillings(edit, use):
                for word in ("color", "colour"):
                    found[_tidy(_fill(frame, x, part.format(it="it"), word, "gray" if word == "color" else "grey"))] = None
    return list(found)


def kinds_phrasings(*, held_out: bool = False) -> dict[str, list[str]]:
    """Phrasings of each kind of edit, with an example color where it needs one."""
    examples = {"color": Edit("color", "red")}
    return {
        kind: phrasings(examples.get(kind) or Edit(kind), held_out=held_out) for kind in FRAMES["training"] if kind != "pattern"
    } | {kind: phrasings(Edit(kind), held_out=held_out) for kind in ("stripes", "checks", "dots")}


def _one(edit: Edit, use: Use, choose: Callable[[Sequence[str]], str], thing: str, *, orders: bool = False) -> str:
    """A phrasing; with `orders` only those that can be joined by "and": no questions, and a verb first."""
    frames = _frames(edit, use)
    if orders:
        frames = [frame for frame in frames if not frame.endswith("?") and not frame.startswith(("{it}", "i want"))]
    part = choose(_part_names(edit, use)).format(it=thing)
    word = choose(("color", "colour"))
    return _tidy(_fill(choose(frames), choose(_fillings(edit, use)), part, word, choose(("gray", "grey"))))


def _part_names(edit: Edit, use: Use) -> tuple[str, ...]:
    return ("{it}",) if edit.part is None else PART_NAMES[use][edit.part]


def _frames(edit: Edit, use: Use) -> tuple[str, ...]:
    frames = FRAMES[use]["pattern" if edit.kind in _PATTERN_ADJECTIVES else edit.kind]
    if edit.part is not None:  # "add stripes" has no place for the part, "{it} with dots" would be the whole
        return tuple(frame for frame in frames if "{it}" in frame)
    if use == "training" and edit.kind in _PATTERN_ADJECTIVES and edit.color is None:
        return (*frames, f"make {{it}} {_PATTERN_ADJECTIVES[edit.kind]}")
    return frames


def _fillings(edit: Edit, use: Use) -> tuple[str, ...]:
    if edit.kind == "color":
        return (str(edit.color),)
    if edit.kind not in PATTERN_NAMES[use]:
        return ("",)
    names = PATTERN_NAMES[use][edit.kind]
    if edit.kind == "gradient":
        ends = "" if edit.color is None else f" from {edit.second} to {edit.color}" if edit.second else f" to {edit.color}"
        return tuple(name + ends for name in names)
    if edit.second is None:
        return tuple(name.replace("{c}", edit.color or "") for name in names)
    pair = (f"{edit.color} and {edit.second}",)
    on = tuple(f"{name.replace('{c}', edit.color or '')} on {edit.second}" for name in names[:1])
    return tuple(name.replace("{c}", two) for two in pair for name in names) + (on if use == "held_out" else ())


def _fill(frame: str, x: str, it: str, color_word: str, grey: str) -> str:
    x = x.replace("{color_word}", color_word)
    return frame.replace("{color_verb}", "{color_word}").format(x=x, it=it, color_word=color_word, grey=grey)


def _tidy(text: str) -> str:
    """Without double blanks; with the right article."""
    words = text.split()
    for place, word in enumerate(words[:-1]):
        if word == "a" and words[place + 1][0] in "aeio":
            words[place] = "an"
    return " ".join(words)


def _casual(text: str, choose: Callable[[Sequence[str]], str]) -> str:
    """Capitals, punctuation and courtesy as people type them."""
    if not text.endswith("?"):
        is_order = not text.startswith(("i want", "it ", "this ", "that ", "the ", "my ", "our "))
        text = choose(("{}", "{}", "{}", "{} please", "please {}" if is_order else "{}")).format(text)
    text = choose((text, text, text[:1].upper() + text[1:], text.upper() if choose("abcd") == "a" else text))
    return text + (choose(("", "", ".", "!")) if text[-1].isalnum() else "")


def without_part(edit: Edit) -> Edit:
    """The same edit of the whole object."""
    return replace(edit, part=None)
