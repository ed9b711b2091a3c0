"""Words before the grammar: other requests are refused, and similes, negations and quantities resolved."""

from vision3d.stages.edit.instructions.families import COLORS, PATTERNS
from vision3d.stages.edit.instructions.lexicon import HARMLESS_MODIFIERS, QUESTIONS, REASONS
from vision3d.stages.edit.instructions.tagging import Word


class Refused(Exception):
    """With the reason, for the user."""


def refuse_other_requests(words: list[Word]) -> None:
    first = [word.text for word in words if word.tag != "stop"][:2]
    if first and (first[0] in QUESTIONS or " ".join(first) in QUESTIONS):
        raise Refused(REASONS["question"])
    for place, word in enumerate(words):
        if word.text == "sky blue" and place and words[place - 1].text == "the" and place + 1 == len(words):
            raise Refused(f"'sky': {REASONS['light']}")  # "make the sky blue"
        if word.tag == "foreign":
            raise Refused(f"{word.text!r}: {REASONS[word.value]}")
        if word.text in ("more", "less") and place + 1 < len(words) and words[place + 1].tag == "color":
            raise Refused(
                f"'{word.text} {words[place + 1].text}': colors have no amount; say 'make it {words[place + 1].text}'"
            )
        after = next((other for other in words[place + 1 :] if other.tag not in ("filler", "quantity")), None)
        if word.tag == "modifier" and word.value not in HARMLESS_MODIFIERS:
            if after is not None and after.tag == "color":
                known = [name for name in COLORS if name.endswith(f" {after.value}")]
                hint = f"; known are {', '.join([after.value, *known])}" if after.value in COLORS else ""
                raise Refused(f"{word.text} {after.text} is not a known color{hint}")
            raise Refused(f"{word.text!r} is not known alone; say darker, lighter or a color")


def colors_of_patterns(words: list[Word]) -> list[Word]:
    """With colors for the kinds that are also colors: `black and white` and `gold` before patterns."""
    found: list[Word] = []
    for place, word in enumerate(words):
        near_pattern = any(is_pattern(other) for other in words[place + 1 : place + 4])
        if word.text == "black and white" and near_pattern:
            found += [Word("black", "color", "black"), Word("and", "weak", "and"), Word("white", "color", "white")]
        elif word.text == "golden" and near_pattern:
            found.append(Word("golden", "color", "gold"))
        else:
            found.append(word)
    return found


def without_similes(words: list[Word]) -> tuple[list[Word], list[str]]:
    """Without `like a bee` after what shall be done, and what was left out."""
    content = ("color", "kind", "near", "part")
    found: list[Word] = []
    similes = []
    place = 0
    while place < len(words):
        comma = words[place].text == ","
        start = place + comma
        is_after = comma or (place > 0 and words[place - 1].tag in content)
        if is_after and start < len(words) and words[start].text in ("like", "as"):
            end = next((i for i in range(start, len(words)) if words[i].tag in ("stop", "strong")), len(words))
            if not any(word.tag in content for word in words[start:end]):
                similes.append(" ".join(word.text for word in words[start:end]))
                place = end
                continue
        found.append(words[place])
        place += 1
    return found, similes


def is_pattern(word: Word) -> bool:
    return word.tag == "kind" and word.value in PATTERNS


def without_negated(words: list[Word]) -> list[Word]:
    """Without what shall not be: `red, not blue`, `not blue but red`, `instead of blue`."""
    found: list[Word] = []
    place, dropped = 0, False
    while place < len(words):
        word = words[place]
        if word.tag != "not":
            found.append(word)
            place += 1
            continue
        if word.value.startswith("any"):
            raise Refused("this says what not to do; say what to do instead")
        end = place + 1
        while end < len(words) and words[end].tag not in ("stop", "strong") and words[end].text != ",":
            end += 1
        span = words[place + 1 : end]
        if sum(other.tag in ("color", "kind", "near") for other in span) != 1:
            raise Refused(f"the words after {word.text!r} are not clear; say only what to do")
        while found and found[-1].tag in ("verb", "filler") and word.value in ("not", "never", "no"):
            found.pop()  # "do not make it blue"
        dropped, place = True, end
    if dropped and not any(word.tag in ("color", "kind", "near") for word in found):
        raise Refused("this says what not to do; say what to do instead")
    return found


def quantities(words: list[Word]) -> list[Word]:
    """Kinds from a verb and a quantity: `raise the brightness`, `remove the color`."""
    meanings = {
        ("remove", "color"): "grey",
        ("remove", "saturation"): "grey",
        ("remove", "shine"): "matte",
        ("remove", "brightness"): "darker",
        ("raise", "brightness"): "lighter",
        ("raise", "saturation"): "saturated",
        ("raise", "color"): "saturated",
        ("raise", "shine"): "glossy",
        ("add", "shine"): "glossy",
    }
    found = list(words)
    for place, verb in enumerate(words):
        if verb.tag not in ("remove", "raise", "add"):
            continue
        near = [i for i in range(place + 1, min(place + 5, len(words))) if words[i].tag == "quantity"]
        gloss = [i for i in range(place + 1, min(place + 5, len(words))) if words[i].text in ("gloss", "polish", "varnish")]
        if verb.tag == "remove" and gloss:
            found[gloss[0]], found[place] = Word(words[gloss[0]].text, "kind", "matte"), Word(verb.text, "verb", verb.text)
            continue
        is_direct = bool(near) and not any(words[i].tag in ("color", "kind") for i in range(place + 1, near[0]))
        kind = meanings.get((verb.tag, words[near[0]].value)) if is_direct else None
        if kind == "saturated" and words[near[0]].value == "color" and verb.text == "more":
            kind = None  # "more color" is a phrase of its own
        if kind is not None:
            found[near[0]] = Word(words[near[0]].text, "kind", kind)
            found[place] = Word(verb.text, "verb", verb.text)
    for word in found:
        if word.tag == "remove" and not any(w.tag == "kind" and w.value in ("matte", "grey", "darker") for w in found):
            raise Refused(f"{word.text!r}: {REASONS['objects']}")
    return found
