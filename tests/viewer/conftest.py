"""Fixtures of the viewer tests."""

import pytest

from tests.support.browser import Browser, Visit
from tests.support.outside import package


@pytest.fixture
def browse(tmp_path):
    """Serves layers, opens the page, performs the steps: `visit = browse(layers, steps, while_open)`.

    `while_open(viewer)` is called after every iteration of the viewer's loop. Only addresses of this machine may be requested.
    """
    package("viser")
    from vision3d.viewer.web import WebViewer

    def run(layers, steps, while_open=lambda viewer: None) -> Visit:
        with WebViewer(layers, port=0, folder=tmp_path) as viewer:
            browser = Browser(viewer.url, [["see", "Save image"], *steps], tmp_path)

            def is_over():
                while_open(viewer)
                return browser.has_ended()

            viewer.run(until=is_over)
            visit = browser.visit()
        local = (viewer.url, viewer.url.replace("http", "ws"), f"blob:{viewer.url}", "data:")
        assert [url for url in visit.requests if not url.startswith(local)] == []
        assert visit.errors == []
        return visit

    return run
