"""Runs pages in headless Chromium, driven by tests/outside/browser.mjs."""

import dataclasses
import json
import subprocess
from pathlib import Path

from tests.support.outside import npm_package, program

_SCRIPT = Path(__file__).parents[1] / "outside" / "browser.mjs"

# The viser page draws all Gaussians as one quad with two-dimensional corners; three.js computes its bounding sphere from
# three-dimensional ones and logs that it cannot. Nothing on the page depends on it.
ALLOWED_ERRORS = ("THREE.BufferGeometry.computeBoundingSphere(): Computed radius is NaN",)


@dataclasses.dataclass
class Visit:
    """Events recorded on a page."""

    errors: list[str]
    """Errors on the console and in scripts, except allowed ones."""
    requests: list[str]
    """Requested addresses."""
    values: list
    """Results of the `eval` steps, in order."""


class Browser:
    """A browser that opens `url` and performs the steps of browser.mjs in parallel to the caller."""

    def __init__(self, url: str, steps: list, folder: Path) -> None:
        npm_package("playwright-core")
        path = folder / "steps.json"
        path.write_text(json.dumps(steps))
        command = [program("node"), _SCRIPT, program("chromium", "chromium-browser"), url, path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def visit(self) -> Visit:
        """Waits until it has finished; fails if a step failed."""
        out, err = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, err
        answer = json.loads(out)
        errors = [text for text in answer["errors"] if not text.startswith(ALLOWED_ERRORS)]
        assert "failed" not in answer, (answer["failed"], errors)
        return Visit(errors, answer["requests"], answer["values"])
