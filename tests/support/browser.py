"""Pages in headless Chromium, driven by tests/outside/browser.mjs."""

import dataclasses
import json
import subprocess
from pathlib import Path

from tests.support.outside import npm_package, program

_SCRIPT = Path(__file__).parents[1] / "outside" / "browser.mjs"

# The page of viser draws all Gaussians as one quad whose corners have two coordinates; three.js computes the sphere round them
# with three, and says that it cannot. Nothing on the page depends on it.
ALLOWED_ERRORS = ("THREE.BufferGeometry.computeBoundingSphere(): Computed radius is NaN",)


@dataclasses.dataclass
class Visit:
    """What happened on a page."""

    errors: list[str]
    """Errors on the console and in scripts, without those allowed."""
    requests: list[str]
    """Addresses that were asked for."""
    values: list
    """Of the steps `eval`, in order."""


class Browser:
    """A browser that opens `url` and does the steps that browser.mjs knows, while the caller goes on."""

    def __init__(self, url: str, steps: list, folder: Path) -> None:
        npm_package("playwright-core")
        path = folder / "steps.json"
        path.write_text(json.dumps(steps))
        command = [program("node"), _SCRIPT, program("chromium", "chromium-browser"), url, path]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def visit(self) -> Visit:
        """Wait for the end; fails where a step failed."""
        out, err = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, err
        answer = json.loads(out)
        errors = [text for text in answer["errors"] if not text.startswith(ALLOWED_ERRORS)]
        assert "failed" not in answer, (answer["failed"], errors)
        return Visit(errors, answer["requests"], answer["values"])
