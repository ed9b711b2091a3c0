"""The real window on a virtual display: comparison with the renderer, mouse and keys, the slider, the selection."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.datasets import write_ring_photographs
from tests.support.outside import package, program
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.geometry import shapes
from vision3d.io.images import read_image
from vision3d.optim.metrics import psnr
from vision3d.render import refit_cameras, render_views
from vision3d.scene import FrameSequence, Mesh, Selection

pytestmark = [pytest.mark.viewer, pytest.mark.slow]
SIZE = (640, 480)
PANEL = 352
WAIT = 240


@pytest.fixture
def display():
    """An X server without a screen."""
    package("open3d")
    server = program("Xvfb")
    program("xdotool")
    program("import")
    for _ in range(5):
        ready, told = os.pipe()
        # A number of our own: two servers that look for a free one take the same. Without -noreset the server starts anew
        # when its last client leaves, and refuses whoever comes at that moment.
        name = f":{random.SystemRandom().randint(200, 60000)}"
        command = [server, name, "-displayfd", str(told), "-noreset", "-screen", "0", "1100x700x24"]
        process = subprocess.Popen(command, pass_fds=[told], stderr=subprocess.DEVNULL)
        os.close(told)
        with os.fdopen(ready) as answer:
            is_ready = bool(answer.readline())  # empty when the server ends before it listens
        if is_ready:
            yield name
        process.terminate()
        process.wait()
        if is_ready:
            return
    pytest.fail("Xvfb does not start")


class Screen:
    """A window of `vision3d view` on the display, with simulated input."""

    def __init__(self, display, folder, arguments, before=""):
        self.environment = {**os.environ, "DISPLAY": display, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.getcwd()}
        self.folder = folder
        size = f"{SIZE[0]}x{SIZE[1]}"
        program = f"{before}\nfrom vision3d.cli.app import main\nmain()"
        command = [sys.executable, "-c", program, "view", *map(str, arguments), "--size", size, "--out", str(folder / "out")]
        self.log = (folder / "log.txt").open("w+")
        self.process = subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log)
        self.window = ""

    def do(self, *command):
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout.strip()

    def find(self, title="vision3d   [0-9]+ x [0-9]+"):
        """The title contains the size of the image once there is one."""
        self.window = self.do("xdotool", "search", "--name", title).partition("\n")[0]
        return bool(self.window)

    def until(self, condition, what):
        end = time.monotonic() + WAIT
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                pytest.fail(f"no {what}; exit code {self.process.poll()}: {self.log.read()[-500:]}")
            time.sleep(0.3)

    def title(self):
        return self.do("xdotool", "getwindowname", self.window)

    def rest(self):
        """Waits until the image is in full quality and stable; returns the image next to the panel, in [0, 1]."""
        before = None
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            time.sleep(0.7)
            image = self.grab()
            is_whole = self.title().startswith(f"vision3d   {image.shape[1]} x ")
            if is_whole and before is not None and before.shape == image.shape and bool((before == image).all()):
                return image
            before = image
        pytest.fail(f"the image does not become stable: {self.title()}")

    def changed(self, before):
        """Waits until the image differs and is stable again."""
        self.until(lambda: not torch.equal(self.grab(), before), "change")
        return self.rest()

    def grab(self):
        whole = self.whole()
        return whole[:, : whole.shape[1] - PANEL]

    def whole(self):
        """Image and panel."""
        path = self.folder / "grab.png"
        self.do("import", "-window", self.window, str(path))
        return read_image(path)

    def drag(self, start, end, button=1):
        self.do("xdotool", "mousemove", "--window", self.window, *map(str, start), "mousedown", str(button))
        for share in np.linspace(0, 1, 6)[1:]:
            time.sleep(0.15)
            place = [str(round(a + share * (b - a))) for a, b in zip(start, end)]
            self.do("xdotool", "mousemove", "--window", self.window, *place)
        time.sleep(0.15)
        self.do("xdotool", "mouseup", str(button))

    def click(self, x, y, button=1):
        self.do("xdotool", "mousemove", "--window", self.window, str(x), str(y))
        time.sleep(0.2)
        self.do("xdotool", "mousedown", str(button))
        time.sleep(0.2)
        self.do("xdotool", "mouseup", str(button))

    def key(self, name):
        self.do("xdotool", "key", "--window", self.window, name)

    def close(self):
        self.key("ctrl+q")
        self.do("xdotool", "keyup", "ctrl", "keyup", "q")  # the window is gone before xdotool lifts the keys
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(30)
        self.process.kill()
        return self.process.wait()


@pytest.fixture
def show(display, tmp_path):
    opened = []

    def show_(*arguments, before="", find=Screen.find):
        opened.append(Screen(display, tmp_path, arguments, before))
        opened[-1].until(lambda: find(opened[-1]), "a window")
        return opened[-1]

    yield show_
    for screen in opened:
        if screen.process.poll() is None:
            screen.process.kill()
            screen.process.wait()
        screen.log.close()


@pytest.fixture
def files(tmp_path):
    ring_scene(800).save(tmp_path / "ring.ply")
    ring_cameras().save(tmp_path / "given.json")
    return tmp_path / "ring.ply", "--cameras", tmp_path / "given.json", "--camera", 1, "--background", "0.1,0.2,0.4"


def rendered(camera=1):
    """The renderer's image for the same camera."""
    view = refit_cameras(ring_cameras()[camera], SIZE)
    return next(render_views(ring_scene(800), view, backgrounds=(0.1, 0.2, 0.4))).image.clamp(0, 1)


def test_the_window_matches_the_renderer(show, files):
    screen = show(*files)
    image, want = screen.rest(), rendered()
    assert image.shape == want.shape
    assert psnr(image, want) > 50  # bytes on the screen are rounded by at most 1 / 510: 59 dB
    # The image with possible errors:
    wrong = {
        "upside down": want.flip(0), "mirrored": want.flip(1), "red and blue swapped": want.flip(2),
        "another camera": rendered(2), "a row lower": want.roll(1, 0), "a column farther": want.roll(1, 1),
        "linear light": want**2.2,
    }  # fmt: skip
    assert {name: value for name, other in wrong.items() if (value := psnr(image, other)) > 42} == {}
    assert screen.close() == 0


@pytest.mark.parametrize("renderer", ["open3d"])
def test_open3ds_renderer_shows_the_same(show, files, renderer):
    """Its splats are truncated and filtered differently, so the colors differ slightly, but not the camera."""
    screen = show(*files, "--renderer", renderer)
    end = time.monotonic() + 60
    want, best = rendered(), 0.0
    while best < 22 and time.monotonic() < end:
        time.sleep(1)
        best = psnr(screen.grab(), want)
    assert best > 22
    image = screen.grab()
    for other in (want.flip(0), want.flip(1), want.flip(2), rendered(2)):
        assert psnr(image, other) < best - 4
    assert screen.close() == 0


def test_open3ds_renderer_shows_textures_and_vertex_colors(show, tmp_path):
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    texture = torch.zeros(8, 8, 3)
    texture[:4, :, 0], texture[4:, :, 1] = 0.9, 0.9  # red above green
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    Mesh(corners, faces, uvs=uvs, texture=texture).save(tmp_path / "textured.glb")
    Mesh(
        corners, faces, vertex_colors=(corners[:, 1:2] > 0) * torch.tensor([0.9, -0.9, 0.0]) + torch.tensor([0.0, 0.9, 0.0])
    ).save(tmp_path / "colored.glb")
    for name in ("textured.glb", "colored.glb"):
        screen = show(tmp_path / name, "--renderer", "open3d", "--elevation", 0, "--zoom", 1.5)
        is_right, end = False, time.monotonic() + 60
        while not is_right and time.monotonic() < end:  # a window is white at first
            screen.drag((300, 200), (306, 200))
            time.sleep(1)
            image = screen.grab()
            middle = image[:, image.shape[1] // 2]
            upper, lower = (middle[round(share * len(middle))] for share in (0.4, 0.6))
            is_right = bool(upper[0] > upper[1] + 0.2 and lower[1] > lower[0] + 0.2)
        assert is_right, name
        assert screen.close() == 0


def test_mouse_and_keys_move_the_camera(show, files):
    screen = show(*files)
    first = screen.rest()
    screen.drag((200, 200), (300, 200))
    turned = screen.changed(first)
    assert psnr(first, turned) < 30
    screen.drag((300, 200), (200, 200))
    assert psnr(first, screen.changed(turned)) > 38  # and back
    screen.click(240, 180, button=4)
    nearer = screen.changed(first)
    assert psnr(first, nearer) < 30
    screen.key("Home")
    assert psnr(first, screen.changed(nearer)) > 38


def test_escape_closes_a_dialog_but_not_the_window(show, files):
    screen = show(*files)
    first = screen.rest()
    panel = Panel(screen)
    panel.help()
    opened = screen.changed(first)
    assert int(((opened - first).abs().amax(-1) > 0.1).sum()) > 20_000  # the dialog covers a part of the image
    screen.key("Escape")
    assert torch.equal(screen.changed(opened), first)
    screen.key("Escape")
    time.sleep(2)
    assert screen.process.poll() is None
    assert torch.equal(screen.grab(), first)
    panel.edit()
    screen.do("xdotool", "type", "--window", screen.window, "xv")
    screen.do("xdotool", "keydown", "--window", screen.window, "Escape")  # the text field keeps the key, but not its release
    time.sleep(0.2)
    screen.do("xdotool", "keyup", "--window", screen.window, "Escape")
    time.sleep(2)
    assert screen.process.poll() is None
    assert not (screen.folder / "out").exists()  # typing is not a screenshot or a recording
    assert screen.close() == 0


def test_the_panel_reports_that_the_first_image_is_being_rendered(show, files):
    slow = """
import time, vision3d.viewer.loop as loop
draw = loop.draw
loop.draw = lambda *arguments: (time.sleep(4), draw(*arguments))[1]"""
    screen = show(*files, before=slow, find=lambda screen: screen.find("vision3d"))
    foot = lambda: screen.whole()[-80:, SIZE[0] :]  # noqa: E731
    screen.until(lambda: float(foot().amax()) > 0.5, "line in the panel")
    assert float(screen.grab().amax()) == 0  # before the image
    screen.until(screen.find, "image")
    screen.rest()
    assert float(foot().amax()) < 0.5


def test_a_click_picks_and_selects_and_the_files_are_written(show, files):
    screen = show(*files)
    first = screen.rest()
    screen.click(320, 267)
    marked = screen.changed(first)
    assert 0 < int(((first - marked).abs().amax(-1) > 0.1).sum()) < 2000  # a small cross
    screen.key("x")
    out = screen.folder / "out"
    screen.until(lambda: (out / "view_001.png").is_file(), "screenshot")
    assert psnr(read_image(out / "view_001.png"), marked) > 38


def test_the_selection_tool(show, files):
    """Select sphere in the panel with the mouse, click into the image, save."""
    screen = show(*files)
    screen.rest()
    panel = Panel(screen)
    panel.choose_sphere()
    screen.click(320, 267)
    screen.rest()
    panel.save_selection()
    out = screen.folder / "out"
    screen.until(lambda: (out / "selection_001.json").is_file(), "selection")
    selection = Selection.load(out / "selection_001.json")
    assert [region.kind for region in selection.regions] == ["sphere"]
    count = int(selection.mask(ring_scene(800).means).sum())
    assert 0 < count < 1200


class Panel:
    """Positions of the widgets, from the left edge of the panel and the top [px], for one layer and no cameras."""

    COMBO, SPHERE, SAVE, HELP, EDIT, TEXT = (184, 240), (150, 284), (46, 301), (292, 23), (40, 335), (100, 366)

    def __init__(self, screen):
        self.screen, self.left = screen, SIZE[0]

    def choose_sphere(self):
        self.screen.click(self.left + self.COMBO[0], self.COMBO[1])
        time.sleep(1.5)
        self.screen.click(self.left + self.SPHERE[0], self.SPHERE[1])
        time.sleep(1.5)

    def save_selection(self):
        self.screen.click(self.left + self.SAVE[0], self.SAVE[1])

    def help(self):
        self.screen.click(self.left + self.HELP[0], self.HELP[1])

    def edit(self):
        """Opens the section and puts the cursor into its text field."""
        for x, y in (self.EDIT, self.TEXT):
            self.screen.click(self.left + x, y)
            time.sleep(1.5)


def test_the_slider_changes_the_image(show, tmp_path):
    vertices, faces = shapes.icosphere(2)
    shift = torch.linspace(-1, 1, 5)[:, None, None] * torch.tensor([1.0, 0, 0])
    FrameSequence(Mesh(0.5 * vertices, faces), 0.5 * torch.arange(5), {"vertices": 0.5 * vertices + shift}).save(
        tmp_path / "ball.zarr"
    )
    screen = show(tmp_path / "ball.zarr")
    first = screen.rest()
    y = first.shape[0] - 18
    screen.drag((100, y), (350, y))
    later = screen.changed(first)
    assert psnr(first[: y - 30], later[: y - 30]) < 25
    screen.key("comma")
    earlier = screen.changed(later)
    assert psnr(later[: y - 30], earlier[: y - 30]) < 30


def test_it_starts_at_the_first_camera_and_moves_to_the_next(show, tmp_path):
    data = write_ring_photographs(tmp_path / "photographs")
    ring_scene(800).save(tmp_path / "ring.ply")
    screen = show(tmp_path / "ring.ply", data, "--background", "0.1,0.2,0.4")
    time.sleep(5)  # the photo appears a little later than the image
    first = screen.rest()
    screen.key("n")
    second = screen.changed(first)
    assert psnr(first, second) < 25
    screen.key("p")
    screen.changed(second)
    screen.until(lambda: psnr(first, screen.grab()) > 35, "return to the first camera, whose photo appears a little later")


def test_the_first_image_may_be_there_before_the_panel(show, tmp_path):
    data = write_ring_photographs(tmp_path / "photographs")
    ring_scene(100).save(tmp_path / "ring.ply")
    slow = """
import time
import vision3d.viewer.window as window
panel = window.Panel
window.Panel = lambda *arguments: (time.sleep(6), panel(*arguments))[1]
"""
    screen = show(tmp_path / "ring.ply", data, before=slow)  # the title contains the size of an image
    assert screen.close() == 0


def test_ctrl_c_closes_the_window(show, files):
    screen = show(*files, "--quiet")
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(60) == 130
    screen.log.seek(0)
    assert screen.log.read() == ""


def test_a_closed_window_leaves_no_process_and_no_output(show, files):
    screen = show(*files, "--quiet")
    screen.rest()
    assert screen.close() == 0
    screen.log.seek(0)
    assert screen.log.read() == ""
    assert not Path(screen.folder / "out").exists()
