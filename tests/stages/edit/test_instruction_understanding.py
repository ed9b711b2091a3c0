"""From text to edits."""

import collections
import re
from pathlib import Path

import pytest

from vision3d.stages.edit.instructions import text as encoders
from vision3d.stages.edit.instructions.parser import expanded, parse
from vision3d.stages.edit.instructions.tagging import other_language
from vision3d.stages.edit.instructions.understanding import InstructionError, understand

FOLDER = Path(__file__).parent


def said(text):
    found = parse(text)
    return found.problem or " + ".join(map(str, found.edits))


@pytest.mark.parametrize(
    "text, edits",
    [
        ("Make the vase RED!", "red"),
        ("make it red and then add stripes", "red + stripes"),
        ("black and white stripes", "stripes: black on white"),
        ("turn it into black and white", "grey"),
        ("red, not blue", "red"),
        ("not red but blue", "blue"),
        ("don't make it red, make it blue", "blue"),
        ("blue instead of red", "blue"),
        ("make the top red", "red (top)"),
        ("make the red one blue at the top", "two"),
        ("make the top red and the bottom blue", "red (top) + blue (bottom)"),
        ("make the top red and shiny", "red (top) + glossy (top)"),
        ("make the top red and add stripes", "red (top) + stripes"),
        ("make everything red except the top", "red (middle) + red (bottom)"),
        ("make it red but leave the top as it is", "red (middle) + red (bottom)"),
        ("make it look metallic, but leave the rest", "metallic"),
        ("red with white dots", "dots: white on red"),
        ("a gradient from red at the bottom to blue at the top", "gradient: red to blue"),
        ("a gradient from red at the top to blue at the bottom", "gradient: blue to red"),
        ("no shine", "matte"),
        ("remove the colour", "grey"),
        ("raise the brightness", "lighter"),
        ("gold stripes", "stripes: gold"),
        ("matte black", "black + matte"),
        ("white marble", "marble"),
        ("change it from green to orange", "orange"),
        ("paint it yellow and colour it red", "yellow + red"),
        ("make it wooden and gild it", "wood + gold"),
        ("apply a flat, matte surface to the lower third", "matte (bottom)"),
        ("change the chair to pink and add dots to the chair", "pink + dots"),
    ],
)
def test_parser(text, edits):
    found = said(text)
    assert found == edits or (edits == "two" and "are not clear" in found)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("make it taller", "not the shape"),
        ("rotate the red box", "not the position"),
        ("add a hat", "add and remove nothing"),
        ("remove the stripes", "add and remove nothing"),
        ("what is this?", "a question"),
        ("is it red?", "a question"),
        ("make it transparent", "transparent"),
        ("make the left side red", "parts are top, middle and bottom"),
        ("don't make it red", "what not to do"),
        ("anything but red", "leaves open|what not to do"),
        ("make it red and blue", "red and blue stripes"),
        ("black marble", "not clear"),
        ("dark orange", "not a known color"),
        ("red or blue", "choose one"),
        ("more green", "no amount"),
        ("roses are red", "describes"),
        ("we painted it blue", "describes"),
    ],
)
def test_refused_with_a_reason(text, reason):
    assert re.search(reason, parse(text).problem), parse(text)


@pytest.mark.parametrize(
    "text", ["make it look like a red dragon", "red and furry thing", "add stripes of bacon", "a blue moon"]
)
def test_words_that_are_not_known(text):
    assert parse(text).loose or parse(text).problem


@pytest.mark.parametrize(
    "text", ["mach die Vase rot", "rends le vase rouge", "把花瓶变成红色", "сделай вазу красной", "füge Streifen hinzu"]
)
def test_other_languages(text):
    with pytest.raises(InstructionError, match="does not seem to be English"):
        understand(text)


@pytest.mark.parametrize("text", ["make it red", "a matte cliché in plum", "die-cast metal", "ombre", "orange"])
def test_english(text):
    assert other_language(text) is None


@pytest.mark.parametrize(
    "text, want", [("", "want an instruction"), (" ?! ", "want an instruction"), ("red " * 2500, "10000 characters")]
)
def test_nothing_and_too_much(text, want):
    with pytest.raises(InstructionError, match=want) as caught:
        understand(text)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    pytest.importorskip("transformers")
    pytest.importorskip(encoders.PACKAGE)
    return encoders.text_encoder()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.slow
def test_report(encoder):
    found = understand("paint the hull navy blue", encoder)
    assert found.summary()["understood"] == ["navy"] and found.notes == ("'hull' is taken for the whole object",)
    assert 0.5 < found.similarity <= 1 and found.evidence == "noun"


@pytest.mark.slow
def test_refusals_name_what_is_known(encoder):
    with pytest.raises(InstructionError, match="dragon") as caught:
        understand("make it look like a red dragon", encoder)
    message = str(caught.value)
    assert "nearest: 'make" in message and "Known are colors (red, orange" in message and "\n" not in message
    with pytest.raises(InstructionError, match="tokens, want at most 24"):
        understand("make it red and " * 8 + "shiny", encoder)


@pytest.mark.slow
def test_damaged_cache(encoder, tmp_path, monkeypatch):
    from vision3d.stages.edit.instructions import understanding

    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path))
    want = understanding._embeddings(["make it red", "add dots"], encoder)
    (file,) = (tmp_path / "instructions").iterdir()
    file.write_bytes(b"damaged")
    assert understanding._embeddings(["make it red", "add dots"], encoder).equal(want)
    assert understanding._embeddings(["make it red", "add dots"], encoder).equal(want) and file.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, most_refused, most_wrong, most_accepted",
    [("validation", 0.03, 0.01, 0.02), ("held_out", 0.08, 0.02, 0.1)],
)
def test_error_rates(name, most_refused, most_wrong, most_accepted, encoder):
    counts = collections.Counter()
    for line in (FOLDER / f"requests_{name}.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        want, text = line.split(" | ", 1)
        want = re.sub(r"(stripes|checks|dots): (\w+) on (\w+)( \(\w+\))?", r"\3\4 + \1: \2\4", want)
        try:
            found = " + ".join(map(str, expanded(understand(text, encoder).edits)))
        except InstructionError:
            found = "-"
        counts["other" if want == "-" else "known"] += 1
        counts["accepted"] += want == "-" != found
        counts["refused"] += want != "-" == found
        counts["wrong"] += want not in ("-", found) and found != "-"
    assert counts["known"] >= 50 and counts["other"] >= 50
    assert counts["refused"] <= most_refused * counts["known"]
    assert counts["wrong"] <= most_wrong * counts["known"]
    assert counts["accepted"] <= most_accepted * counts["other"]
