"""Text to tagged words."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from vision3d.stages.edit.instructions.lexicon import (
    COLOR_ALIASES,
    LEXICON,
    LONGEST,
    OTHER_LANGUAGES,
    WEAKLY_FOREIGN,
)

_CONTRACTIONS = {
    "don't": "do not", "dont": "do not", "doesn't": "does not", "isn't": "is not", "shouldn't": "should not",
    "can't": "can not", "it's": "it is", "that's": "that is", "i'd": "i would", "i'm": "i am", "let's": "let us",
    "won't": "will not", "i'll": "i will",
}  # fmt: skip
_WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")
_STOPS = ".;!?:\n"


@dataclass(frozen=True)
class Word:
    """One or more words with one meaning."""

    text: str
    tag: str
    """A tag of the lexicon; `stop`, `weak` for punctuation; `unknown`."""
    value: str


def tagged(text: str) -> list[Word]:
    """The words of a text, the longest known phrases first."""
    plain = plain_text(text)
    tokens = _WORD.findall(plain)
    found: list[Word] = []
    place = 0
    while place < len(tokens):
        for count in range(min(LONGEST, len(tokens) - place), 0, -1):
            phrase = " ".join(tokens[place : place + count])
            if phrase in LEXICON:
                found.append(Word(phrase, *LEXICON[phrase]))
                break
        else:
            count, phrase = 1, tokens[place]
            found.append(Word(phrase, *_punctuation(phrase)))
        place += count
    return found


def plain_text(text: str) -> str:
    """Lower case, one kind of quotes, no hyphens, contractions written out."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("`", "'")
    text = re.sub(r"(?<=\w)[-_/](?=\w)", " ", text)
    for short, long in _CONTRACTIONS.items():
        text = re.sub(rf"\b{short}\b", long, text)
    return re.sub(r"[\"“”()]|'(?!\w)|(?<!\w)'", " ", text).replace("'s", " s")


def other_language(text: str) -> str | None:
    """Why a text does not seem to be English, or None."""
    letters = [letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()]
    scripts = [unicodedata.name(letter, "?").split()[0] for letter in letters]
    other = sorted({script for script in scripts if script != "LATIN"})
    if sum(script != "LATIN" for script in scripts) * 5 > len(scripts):
        return f"{', '.join(other).lower()} letters"
    words = re.findall(r"[^\W\d_]+", text.lower())
    strong = [word for word in words if word in OTHER_LANGUAGES and word not in LEXICON]
    weak = [word for word in words if word in WEAKLY_FOREIGN and word not in LEXICON]
    accented = [word for word in words if any(ord(letter) > 127 for letter in word)]
    english = [word for word in words if word in LEXICON and word not in OTHER_LANGUAGES]
    foreign = list(dict.fromkeys([*strong, *accented, *(weak if strong or accented else [])]))
    if foreign and len(foreign) >= len(english):
        return ", ".join(repr(word) for word in foreign[:3])
    return None


def canonical(text: str, nouns: Sequence[str] = ()) -> str:
    """The text with red for every color word and `object` for every object: what the known phrasings are compared with."""
    words = []
    for word in tagged(text):
        if word.tag == "stop":
            continue
        is_name = word.tag == "color" and word.value not in ("grey", "gold", "silver")
        is_object = word.tag == "object" or word.text in nouns
        words.append("red" if is_name or word.text in COLOR_ALIASES else "object" if is_object else word.text)
    return " ".join(words)


def _punctuation(token: str) -> tuple[str, str]:
    if token in _STOPS:
        return "stop", token
    if token in ",&+":
        return "weak", token
    return ("unknown" if token.isalnum() else "filler"), token
