"""What a text asks for, how sure that is, and a refusal with the reason where it is something else."""

import contextlib
import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vision3d.core.caches import cache_folder
from vision3d.core.errors import FileFormatError, Vision3DError
from vision3d.io.described import read_described, write_described
from vision3d.stages.edit.instructions.families import BASIC_COLORS, FAMILIES, KINDS, PARTS, PATTERNS, Edit
from vision3d.stages.edit.instructions.lexicon import OTHER_REQUESTS, REASONS
from vision3d.stages.edit.instructions.parser import Parse, parse
from vision3d.stages.edit.instructions.phrases import kinds_phrasings, phrasings
from vision3d.stages.edit.instructions.tagging import canonical, other_language
from vision3d.stages.edit.instructions.text import TextEncoder, text_encoder

MAX_CHARACTERS = 1000
THRESHOLDS = {"clear": -0.2, "noun": 0.0, "bare": 0.1, "loose": math.inf}
"""Minimum margin by how much of the text the words explain; chosen on tests/stages/edit/requests_validation.txt."""
_VERSION = 1
_SHORT = (("", ""), ("a ", " object"), ("make the object ", ""), ("", " please"))
_NAMES = {"stripes": "striped", "checks": "checkered", "dots": "dotted", "wood": "wooden", "gold": "golden"}


class InstructionError(Vision3DError, ValueError):
    """A text asks for something that is not known, or not clearly enough."""

    exit_code = 2


@dataclass(frozen=True)
class Understanding:
    """What a text asks for."""

    text: str
    edits: tuple[Edit, ...]
    """In order."""
    nearest: str
    """The most similar known phrasing."""
    similarity: float
    """Cosine to it, in [-1, 1]."""
    margin: float
    """`similarity` minus the cosine to the most similar request that is not known."""
    evidence: str
    """`clear`: the words explain all of the text; `noun`: all but the name of an object; `bare`: a word after a color is
    unknown; `loose`: another word is."""
    notes: tuple[str, ...] = ()
    """What is done a little differently from what was asked."""

    def summary(self) -> dict[str, object]:
        """For the report of a run."""
        return {
            "text": self.text,
            "understood": [str(edit) for edit in self.edits],
            "similarity": round(self.similarity, 3),
            "nearest": self.nearest,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Known:
    phrases: tuple[str, ...]
    edits: tuple[Edit, ...]
    embeddings: Float[Tensor, "k 384"]
    others: tuple[tuple[str, str], ...]
    """Reason and text."""
    other_embeddings: Float[Tensor, "o 384"]


def understand(text: str, encoder: TextEncoder | None = None) -> Understanding:
    """Edits of a text.

    Args:
        text: An instruction in English, such as "make it red and add stripes".
        encoder: Text encoder; that of the package when None.

    Raises:
        InstructionError: The text is empty, too long, in another language, or asks for something that is not known.
        MissingDependencyError: The text encoder is not installed.
    """
    check_text(text)
    found = parse(text)
    if found.problem:
        raise InstructionError(f"{_quoted(text)}: {found.problem}. {what_is_known()}")
    encoder = encoder or text_encoder()
    count = encoder.num_tokens(text)
    if count > encoder.max_tokens:
        raise InstructionError(
            f"{_quoted(text)}: got {count} tokens, want at most {encoder.max_tokens}; give several shorter texts in order"
        )
    known = known_phrases(encoder)
    nearest, similarity, reason, other = compare(text, found, known, encoder)
    evidence = evidence_of(found)
    if not found.edits or similarity - other < THRESHOLDS[evidence]:
        raise InstructionError(_refusal(text, found, known, nearest, similarity, reason if other > similarity else None))
    return Understanding(
        text, tuple(found.edits), known.phrases[nearest], similarity, similarity - other, evidence, tuple(found.notes)
    )


def check_text(text: str) -> None:
    """Raise an InstructionError if the text is empty, too long or not English."""
    if not any(letter.isalnum() for letter in text):
        raise InstructionError(f"text: got {_quoted(text)}, want an instruction. {what_is_known()}")
    if len(text) > MAX_CHARACTERS:
        raise InstructionError(f"text: got {len(text)} characters, want at most {MAX_CHARACTERS}; give several texts in order")
    signs = other_language(text)
    if signs is not None:
        raise InstructionError(f"{_quoted(text)}: the text does not seem to be English ({signs}); write it in English")


def evidence_of(found: Parse) -> str:
    """How much of a text its words explain: a key of `THRESHOLDS`."""
    return "loose" if found.loose else "bare" if found.bare else "noun" if found.nouns else "clear"


def compare(text: str, found: Parse, known: _Known, encoder: TextEncoder) -> tuple[int, float, str, float]:
    """Row and cosine of the most similar known phrasing; reason and cosine of the most similar other request."""
    vector = encoder.encode([canonical(text, found.nouns) or text]).pooled[0]
    inside, outside = known.embeddings @ vector, known.other_embeddings @ vector
    best, other = int(inside.argmax()), int(outside.argmax())
    return best, float(inside[best]), known.others[other][0], float(outside[other])


def what_is_known() -> str:
    """One sentence with all kinds of edits, for messages."""
    plain = [kind for kinds in FAMILIES.values() for kind in kinds if kind not in ("color", "unchanged", *PATTERNS)]
    return (
        f"Known are colors ({', '.join(BASIC_COLORS)} and others), {', '.join(plain)}, {', '.join(PATTERNS)}, "
        f"and 'leave it as it is', each for the whole or the {', '.join(PARTS)}"
    )


@functools.lru_cache(maxsize=2)
def known_phrases(encoder: TextEncoder) -> _Known:
    """Training phrasings and other requests with their embeddings, computed once and kept in the cache folder."""
    rows = dict(_known_rows())
    others = tuple((reason, text) for reason, texts in OTHER_REQUESTS.items() for text in texts)
    texts = [*rows, *(text for _, text in others)]
    embeddings = _embeddings(texts, encoder)
    return _Known(tuple(rows), tuple(rows.values()), embeddings[: len(rows)], others, embeddings[len(rows) :])


def _known_rows() -> list[tuple[str, Edit]]:
    rows = [
        (text, Edit("color", "red") if kind == "color" else Edit(kind))
        for kind, texts in kinds_phrasings().items()
        for text in texts
    ]
    extra = [Edit("color", "red", part=part) for part in PARTS] + [Edit("stripes", part=part) for part in PARTS]
    extra += [Edit(kind, "red") for kind in PATTERNS]
    rows += [(text, edit) for edit in extra for text in phrasings(edit)]
    short = [Edit("color", "red"), *(Edit(kind) for kind in KINDS if kind not in ("color", "unchanged"))]
    rows += [
        (f"{before}{edit.color or _NAMES.get(edit.kind, edit.kind)}{after}", edit) for edit in short for before, after in _SHORT
    ]
    return [(text.replace("colour", "color"), edit) for text, edit in rows]


def _embeddings(texts: Sequence[str], encoder: TextEncoder) -> Tensor:
    identity = hashlib.sha256("\n".join([encoder.digest, str(encoder.max_tokens), *texts]).encode()).hexdigest()
    path = cache_folder("instructions") / f"{identity[:16]}.safetensors"
    if path.is_file():
        try:
            described, tensors = read_described(path, "phrases", _VERSION, "embeddings of phrases", ("identity",))
            if described["identity"] == identity and tensors["pooled"].shape == (len(texts), 384):
                return tensors["pooled"].float()
        except (FileFormatError, KeyError):
            pass  # written again
    pooled = encoder.encode(texts).pooled.half()
    with contextlib.suppress(Vision3DError):  # a read-only cache costs time, nothing else
        write_described(path, "phrases", _VERSION, {"identity": identity}, {"pooled": pooled})
    return pooled.float()


def _refusal(text: str, found: Parse, known: _Known, nearest: int, similarity: float, reason: str | None) -> str:
    unknown = [*found.loose, *found.bare]
    if reason in ("question", "vague") or (reason is not None and not unknown):
        problem = REASONS[reason]
    elif unknown:
        problem = f"{', '.join(repr(word) for word in unknown)} is not known"
    elif found.edits:
        problem = "it is not similar enough to the known instructions"
    else:
        problem = "no known edit in it"
    guess = f"; nearest: {known.phrases[nearest]!r} (similarity {similarity:.2f})"
    return f"{_quoted(text)}: {problem}{guess}. {what_is_known()}"


def _quoted(text: str) -> str:
    short = " ".join(text.split())
    return repr(short if len(short) <= 80 else short[:77] + "...")
