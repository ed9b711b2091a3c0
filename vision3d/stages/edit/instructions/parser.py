"""From words to edits: a deterministic grammar of colors, kinds, parts, negation and order."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vision3d.stages.edit.instructions.families import PARTS, PATTERNS, Edit
from vision3d.stages.edit.instructions.lexicon import DETERMINERS, SUBSTANCES
from vision3d.stages.edit.instructions.tagging import Word, tagged
from vision3d.stages.edit.instructions.wording import (
    Refused,
    colors_of_patterns,
    is_pattern,
    quantities,
    refuse_other_requests,
    without_negated,
    without_similes,
)

_MATERIALS = ("wood", "marble", "gold")
_RANK = {"color": 0, "grey": 0, "wood": 0, "marble": 0, "gold": 0, "metallic": 2, "glossy": 3, "matte": 3}
_KIND_VERBS = ("darken", "lighten", "brighten", "polish", "saturate", "desaturate", "varnish", "gild", "dim", "intensify")
_PLACES = ("for", "on", "of", "to", "over", "across")
_SURFACES = ("texture", "surface", "pattern", "material", "wood grain", "effect")
_SUBJECTS = ("i", "we", "he", "she", "they", "you")
_WISHES = frozenset((
    "make", "made", "look like", "want", "like", "would like", "love", "prefer", "wish", "would", "should", "must", "could",
    "can", "needs", "need", "shall", "will", "mean", "think", "do", "see", "have",
))  # fmt: skip
_OR = "'or' leaves open what to do; choose one"
_OPPOSITES = ({"darker", "lighter"}, {"glossy", "matte"}, {"saturated", "grey"}, {"wood", "marble"}, {"wood", "gold"})


@dataclass
class Parse:
    """What the words of a text ask for."""

    edits: list[Edit] = field(default_factory=list)
    problem: str = ""
    """Why it cannot be done; empty if nothing speaks against it."""
    notes: list[str] = field(default_factory=list)
    """What is done a little differently from what was asked."""
    loose: list[str] = field(default_factory=list)
    """Unknown words outside of the names of objects."""
    nouns: list[str] = field(default_factory=list)
    """Unknown words that seem to name the object, after an article."""
    bare: list[str] = field(default_factory=list)
    """Unknown words after a color or material: `golden retriever`."""
    described: str = ""
    """A clause that describes the object instead of asking for something."""


@dataclass
class _Piece:
    words: list[Word]
    joint: str
    """What stands before it: `strong`, or the conjunction."""

    def of(self, *tags: str) -> list[Word]:
        return [word for word in self.words if word.tag in tags]

    @property
    def has_content(self) -> bool:
        return bool(self.of("color", "kind", "near"))

    @property
    def has_verb(self) -> bool:
        first = next((word.text for word in self.words if word.tag != "filler"), "")
        is_order = first in ("color", "colour", *_KIND_VERBS)
        return is_order or bool(self.of("verb", "add", "remove", "raise"))


def parse(text: str) -> Parse:
    """Understand a text by its words alone."""
    parse = Parse()
    words = tagged(text)
    try:
        refuse_other_requests(words)
        words, similes = without_similes(words)
        parse.notes += [f"{simile!r} is ignored" for simile in similes]
        words = quantities(without_negated(colors_of_patterns(words)))
        for clause in _clauses(words):
            _understand(clause, parse)
        _unknown(words, parse)
        parse.notes += [f"{noun!r} is taken for the whole object" for noun in parse.nouns]
        if parse.described and not parse.edits:
            raise Refused(f"{parse.described!r} describes the object; say 'make it ...'")
    except Refused as refusal:
        parse.problem = str(refusal)
    return parse


def expanded(edits: Sequence[Edit]) -> list[Edit]:
    """The edits with the ground of patterns as an edit of its own: `dots: red on white` is white, then red dots."""
    found = []
    for edit in edits:
        if edit.second is not None and edit.kind != "gradient":
            found.append(Edit("color", edit.second, part=edit.part))
            edit = replace(edit, second=None)
        found.append(edit)
    return found


def _clauses(words: list[Word]) -> list[list[_Piece]]:
    """Clauses at full stops and `then`, each as pieces that stand for one or more edits."""
    clauses: list[list[_Piece]] = [[]]
    piece = _Piece([], "strong")
    for word in [*words, Word(".", "stop", ".")]:
        if word.tag in ("stop", "strong", "weak"):
            if piece.words:
                clauses[-1].append(piece)
            if word.tag != "weak" and clauses[-1]:
                clauses.append([])
            joint = "strong" if word.tag != "weak" else word.text
            # ", and" is one conjunction; the stronger one counts.
            piece = _Piece([], piece.joint if not piece.words and piece.joint == "strong" and clauses[-1] == [] else joint)
        else:
            piece.words.append(word)
    return [_merged(clause) for clause in clauses if clause]


def _merged(pieces: list[_Piece]) -> list[_Piece]:
    found: list[_Piece] = []
    for piece in pieces:
        if found and _belongs(found[-1], piece):
            found[-1].words += [Word(piece.joint, "filler", piece.joint), *piece.words]
        else:
            found.append(piece)
    if len(found) > 1 and not found[-1].has_content and not found[-1].of("except"):
        last = found.pop()
        found[-1].words += last.words
    return found


def _belongs(before: _Piece, piece: _Piece) -> bool:
    """Whether a piece continues the one before: parts of one object, or two colors of a pattern."""
    if not before.has_content or not piece.has_content:
        return not before.has_content or not piece.of("except")
    first = [word for word in piece.words if word.tag != "filler"][:1]
    last = [word for word in before.words if word.tag != "filler"][-1:]
    starts_with_color = bool(first) and first[0].tag == "color"
    has_pattern = any(is_pattern(word) for word in piece.words)
    if piece.joint in ("and", ",", "&", "+", "or", "plus") and starts_with_color and last and last[0].tag == "color":
        patterns_before = any(is_pattern(word) for word in before.words)
        after = piece.words[piece.words.index(first[0]) + 1 :]
        return (has_pattern and not piece.of("part") and _leads_to_pattern(after)) or (patterns_before and not has_pattern)
    has_gradient = any(word.value == "gradient" for word in before.words) and not has_pattern
    if has_gradient and starts_with_color and not before.of("color") and not piece.has_verb:
        return True  # "a gradient, black to white"
    return piece.joint == "with" and not has_pattern and any(is_pattern(word) for word in before.words) and starts_with_color


def _leads_to_pattern(words: list[Word]) -> bool:
    return next((is_pattern(word) for word in words if word.tag != "filler"), False)


def _understand(pieces: list[_Piece], parse: Parse) -> None:
    before: _Piece | None = None
    for piece in pieces:
        if _describes(piece):
            parse.described = parse.described or " ".join(word.text for word in piece.words)
            continue
        edits, parts = _edits(piece, parse), _parts(piece)
        if len(parts) > 1 and edits and edits[0].kind == "gradient":
            parts = []  # its ends
        exceptions = _exceptions(piece)
        if any(edit.kind == "unchanged" for edit in edits):
            if len(edits) > 1:
                raise Refused("it is not clear what stays as it is; say it in a sentence of its own")
            if parts:
                _exempt(parse, parts)
            elif not parse.edits:
                parse.edits.append(Edit("unchanged"))
            continue
        if exceptions:
            if not edits:
                _exempt(parse, exceptions)
                continue
            parts = [part for part in PARTS if part not in exceptions]
        if not edits:
            continue
        if not parts and before is not None and not piece.has_verb and _part_leads(before) and piece.joint in ("and", ",", "&"):
            parts = _parts(before)  # "make the top red and shiny"
        if parse.edits and parse.edits[-1].kind == "unchanged":
            parse.edits.pop()
        new = [replace(edit, part=part) for part in parts or [None] for edit in edits]
        if piece.joint == "," and not piece.has_verb and parse.edits and new[0] == replace(parse.edits[-1], part=new[0].part):
            parse.edits.pop()  # "a flat, matte top"
        new = [edit for edit in new if edit not in parse.edits[-1:]]  # said twice
        if not new:
            continue
        _check_order(parse.edits, new, piece)
        if piece.joint == "with" and len(parse.edits) and len(new) == 1 and _is_ground(parse.edits[-1], new[0]):
            new = [replace(new[0], second=parse.edits.pop().color)]
        parse.edits += new
        before = piece


def _describes(piece: _Piece) -> bool:
    """`it is dull` instead of `make it dull`."""
    places = [i for i, word in enumerate(piece.words) if word.text in ("is", "are", "was", "were", "has", "have", "am")]
    content = [i for i, word in enumerate(piece.words) if word.tag in ("color", "kind", "near")]
    subjects = [i for i, word in enumerate(piece.words[:-1]) if word.text in _SUBJECTS]
    after = piece.words[subjects[0] + 1] if subjects else None
    is_asked = bool(subjects) and any(word.text in _WISHES for word in piece.words[: subjects[0]])
    states = after is not None and after.tag in ("verb", "unknown") and after.text not in _WISHES - {"have"}
    if content and states and not is_asked:
        return True  # "we painted it blue"
    if not places or not content or piece.words[content[0]].value == "unchanged":
        return False
    if piece.words[places[0]].text == "have" and not (
        places[0] and piece.words[places[0] - 1].text in ("i", "we", "you", "they")
    ):
        return False
    has_wish = any(word.text in _WISHES for word in piece.words)
    return not has_wish and not any(word.text.startswith("too ") for word in piece.words)


def _is_ground(color: Edit, pattern: Edit) -> bool:
    return (
        color.kind == "color" and pattern.kind in PATTERNS and pattern.kind != "gradient" and color.part == pattern.part
        and pattern.color not in (None, color.color) and pattern.second is None
    )  # fmt: skip


def _check_order(before: list[Edit], new: list[Edit], piece: _Piece) -> None:
    if piece.joint == "strong" or piece.has_verb or not before:
        return
    if piece.joint == "or":
        raise Refused(_OR)
    first, second = before[-1], new[0]
    if first.part == second.part and {first.kind, second.kind} <= {"color", "grey", *_MATERIALS}:
        raise Refused(_two_colors(str(first), str(second)))


def _two_colors(first: str, second: str) -> str:
    return (
        f"{first} and {second} for the same place are not clear; say '{first} and {second} stripes', "
        f"or 'make the top {first} and the bottom {second}'"
    )


def _exempt(parse: Parse, parts: Sequence[str]) -> None:
    """`but leave the top`: the edits before apply to the other parts."""
    rest = [part for part in PARTS if part not in parts]
    if not parse.edits:
        parse.edits.append(Edit("unchanged"))
        return
    found = []
    for edit in parse.edits:
        if edit.part is None:
            found += [replace(edit, part=part) for part in rest]
        elif edit.part not in parts:
            found.append(edit)
        else:
            raise Refused(f"the {edit.part} is to change and to stay")
    parse.edits = found


def _exceptions(piece: _Piece) -> list[str]:
    places = [i for i, word in enumerate(piece.words) if word.tag == "except"]
    return [word.value for word in piece.words[places[0] :] if word.tag == "part"] if places else []


def _parts(piece: _Piece) -> list[str]:
    places = [i for i, word in enumerate(piece.words) if word.tag == "except"]
    words = piece.words[: places[0]] if places else piece.words
    return list(dict.fromkeys(word.value for word in words if word.tag == "part"))


def _part_leads(piece: _Piece) -> bool:
    tags = [word.tag for word in piece.words if word.tag in ("part", "color", "kind", "near")]
    return bool(tags) and tags[0] == "part"


def _edits(piece: _Piece, parse: Parse) -> list[Edit]:
    """The edits of the whole object that a piece names."""
    colors = list(dict.fromkeys(word.value for word in piece.of("color")))
    patterns = list(dict.fromkeys(word.value for word in piece.words if is_pattern(word)))
    kinds = list(dict.fromkeys(word.value for word in piece.of("kind") if not is_pattern(word)))
    for word in piece.of("near"):
        kinds.append(word.value)
        parse.notes.append(f"{word.text} is done as {word.value}")
    for word in piece.of("modifier"):
        parse.notes.append(f"{word.text!r} is ignored")
    if any(word.text == "or" for word in piece.words) and len(colors) + len(kinds) + len(patterns) > 1:
        raise Refused(_OR)
    if len(patterns) > 1:
        raise Refused(f"{' and '.join(patterns)} at once are not clear; say them one after another")
    for pair in _OPPOSITES:
        if pair <= set(kinds):
            raise Refused(f"{' and '.join(sorted(pair))} at once contradict each other")
    if patterns:
        return _pattern(patterns[0], colors, kinds, piece)
    return _plain(colors, kinds, piece, parse)


def _pattern(pattern: str, colors: list[str], kinds: list[str], piece: _Piece) -> list[Edit]:
    if "gold" in kinds and not colors:
        colors, kinds = ["gold"], [kind for kind in kinds if kind != "gold"]
    if kinds:
        raise Refused(f"{' and '.join([*kinds, pattern])} at once are not clear; say them one after another")
    if len(colors) > 2:
        raise Refused(f"{pattern} have at most two colors, got {', '.join(colors)}")
    if pattern == "gradient":
        if _parts(piece)[:1] == ["top"] and len(_parts(piece)) > 1:
            if len(colors) < 2:
                raise Refused("gradients go from the bottom to the top; name two colors to reverse them")
            colors = colors[::-1]
        return [Edit("gradient", colors[-1] if colors else None, colors[0] if len(colors) == 2 else None)]
    first, second = (*colors, None, None)[:2]
    return [Edit(pattern, first, second)]  # "red stripes on white", "red and white stripes": the first is that of the stripes


def _plain(colors: list[str], kinds: list[str], piece: _Piece, parse: Parse) -> list[Edit]:
    edits = []
    for name in {"grey": "grey", "gold": "gold", "silver": "metallic"}:
        if name in colors:
            colors = [color for color in colors if color != name]
            kinds += ["grey", "metallic"] if name == "silver" else [name]
            if name == "silver":
                parse.notes.append("silver is done as grey and metallic")
    kinds = list(dict.fromkeys(kinds))
    materials = [kind for kind in kinds if kind in (*_MATERIALS, "grey")]
    texts = [word.text for word in piece.words]
    if len(colors) == 2 and "from" in texts and "to" in texts[texts.index("from") :]:
        colors = colors[1:]  # "change it from green to orange"
    names = colors + materials
    if colors == ["white"] and materials == ["marble"]:
        colors, names = [], materials
    if colors == ["brown"] and materials == ["wood"]:
        colors, names = [], materials
    if len(names) > 1:
        raise Refused(_two_colors(*names[:2]))
    if colors and piece.of("add") and (colors[0] in SUBSTANCES or not piece.of("part")) and not kinds:
        raise Refused(f"{piece.of('add')[0].text} {colors[0]}: say 'make it {colors[0]}', or the pattern")
    if materials and piece.of("add") and materials != ["grey"] and not any(word.text in _SURFACES for word in piece.words):
        raise Refused(f"{piece.of('add')[0].text} {materials[0]}: say 'turn it into {materials[0]}'")
    edits += [Edit("color", color) for color in colors]
    edits += [Edit(kind) for kind in kinds]
    return sorted(edits, key=lambda edit: _RANK.get(edit.kind, 1))


def _unknown(words: list[Word], parse: Parse) -> None:
    """Sort the unknown words by how likely they are names of the object."""
    has_verb = any(word.tag in ("verb", "add", "remove", "raise") or word.text in _KIND_VERBS for word in words)
    for place, word in enumerate(words):
        if word.tag not in ("unknown", "object"):
            continue
        start = place
        while start and (
            words[start - 1].tag in ("unknown", "object", "color", "kind", "modifier", "near")
            or words[start - 1].text in ("colored", "coloured")
        ):
            start -= 1
        inside = words[start:place]
        before = words[start - 1] if start else None
        is_named = before is not None and before.text in DETERMINERS
        lead = words[start - 2].text if is_named and start >= 2 else ""
        is_compared = any(other.text in ("like", "look like", "as", "with") for other in words[max(0, start - 3) : start])
        is_added = is_named and start >= 2 and words[start - 2].tag == "add" and not any(is_pattern(w) for w in inside)
        has_adjective = any(other.tag in ("color", "kind") for other in inside)
        clause = max((i for i in range(start) if words[i].tag in ("stop", "strong", "weak")), default=0)
        turns = any(other.text in ("turn", "turned", "change", "convert", "transform", "set") for other in words[clause:start])
        into_other = lead == "into" or (lead == "to" and turns and not has_adjective)
        is_adjective = not is_named and place + 1 < len(words) and words[place + 1].tag in ("color", "kind")
        count = sum(other.tag in ("unknown", "object") for other in words[start : place + 1])
        if is_compared or is_added or into_other or is_adjective or count > 2:
            parse.loose.append(word.text)
        elif word.tag == "object":
            continue
        elif not has_verb and (not is_named or (has_adjective and lead not in _PLACES) or count > 1):
            parse.loose.append(word.text)  # "a blue moon"
        elif is_named or (place + 1 < len(words) and words[place + 1].text == "s"):
            parse.nouns.append(word.text)
        elif has_adjective or (place + 1 < len(words) and words[place + 1].tag == "verb"):
            parse.bare.append(word.text)
        else:
            parse.loose.append(word.text)
    if len(parse.bare) > 1:
        parse.loose += parse.bare
