import json
import re
from html.parser import HTMLParser

import pytest
import torch

from vision3d.core.errors import FileFormatError, MissingFileError
from vision3d.io.images import write_image
from vision3d.report import write_report

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements by name; fails if one is closed that was not opened."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a <run>"
    folder.mkdir()
    summary = {
        "status": "done", "command": ["x", "fit", "<script>alert(1)</script>"], "vision3d": "0.1.0",
        "results": {"psnr": 30.26672, "steps": 7017, "background": [0, 0, 0], "device": "cpu"},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def add_views(folder, count):
    views = [{"name": f"images/{i}<b>.png", "file": f"{i:03d}.png", "psnr": 20.0 + i} for i in range(count)]
    for view in views:
        write_image(folder / "renders" / view["file"], torch.rand(20, 60, 3))
    (folder / "eval.json").write_text(json.dumps({"mean": {"psnr": 21.0}, "views": views}))


def test_page_needs_nothing_else(folder):
    add_views(folder, 30)
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "wall_s": {i}, "loss": {1 / i}}}\n' for i in range(1, 9)))
    (folder / "config.yaml").write_text("steps: 7 # <i>\n")
    (folder / "orbit.mp4").write_bytes(b"\0" * 100)
    path = write_report(folder)
    text = path.read_text("utf-8")
    page = Page(text)
    sources = [attrs["src"] for tag in ("img", "video") for attrs in page.all(tag)]
    assert all(source.startswith("data:") for source in sources) and not page.all("link")
    assert len(page.all("input")) == 24 and len(page.all("video")) == 1
    assert len(page.all("img")) == 1 + 2 * 24
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in page.all("meta")[1]["content"]


def test_page_shows_metrics_as_text(folder):
    add_views(folder, 1)
    text = write_report(folder).read_text("utf-8")
    assert "30.27 <small>dB</small>" in text and "7,017" in text
    assert len(Page(text).all("script")) == 1
    assert "a &lt;run&gt;" in text and "images/0&lt;b&gt;.png   PSNR 20.00 dB" in text
    assert "&lt;script&gt;alert(1)" in text


def test_page_of_a_bare_run(folder):
    page = Page(write_report(folder).read_text("utf-8"))
    assert not page.all("img") and not page.all("h2")


def test_rows_and_sentences_become_tables_and_lists(folder):
    summary = json.loads((folder / "summary.json").read_text())
    rows = [
        {"name": "a<b", "mean": 0.12345, "seeds": [1, 2], "best": None},
        {"name": "c", "mean": 2, "seeds": [], "best": True},
    ]
    summary["results"] |= {"by_name": rows, "what_differs": ["a < b", "c"], "uneven": [{"a": 1}, {"b": 2}], "none": []}
    (folder / "summary.json").write_text(json.dumps(summary))
    text = write_report(folder).read_text("utf-8")
    assert "<h2>By name</h2>" in text and "<tr><td>a&lt;b</td><td>0.1235</td><td>-</td></tr>" in text
    assert "<tr><th>name</th><th>mean</th><th>best</th></tr>" in text and "<td>yes</td>" in text
    assert "<h2>What differs</h2>" in text and "<li>a &lt; b</li><li>c</li>" in text
    assert "Uneven" not in text and "<h2>None</h2>" not in text


def test_page_of_a_folder_that_is_not_a_run(folder, tmp_path):
    with pytest.raises(MissingFileError, match=r"summary\.json"):
        write_report(tmp_path)
    add_views(folder, 1)
    for text, message in (
        ("[]", "is not a JSON object"),
        ("{", "is not JSON"),
        (9999 * "[", "nested deeper"),
        ('{"views": [1]}', "lacks the names"),
    ):
        (folder / "eval.json").write_text(text)
        with pytest.raises(FileFormatError, match=message):
            write_report(folder)
    assert not (folder / "report.html").exists()


def test_images_outside_the_renders_are_not_used(folder):
    add_views(folder, 1)
    write_image(folder / "secret.png", torch.rand(20, 60, 3))
    evaluation = json.loads((folder / "eval.json").read_text())
    evaluation["views"][0]["file"] = "../secret.png"
    (folder / "eval.json").write_text(json.dumps(evaluation))
    with pytest.raises(MissingFileError):
        write_report(folder)
