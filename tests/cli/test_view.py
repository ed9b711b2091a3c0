"""`vision3d view` without a window: images, wrong options, and errors where no window can be opened."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.support.datasets import write_ring_photographs
from tests.support.scenes import ring_cameras, ring_scene
from tests.support.skins import arm, hybrid
from vision3d.geometry import shapes
from vision3d.io.images import image_size, read_image
from vision3d.optim.metrics import psnr
from vision3d.render import refit_cameras, render_views
from vision3d.render.composite import render_scene
from vision3d.scene import FrameSequence, Mesh, PointCloud

SMALL = ("--size", "80x60", "--quiet")


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.ply"
    ring_scene(400).save(path)
    return path


def test_an_image_from_a_given_camera_is_the_renderers(cli, tmp_path, scene_file):
    ring_cameras().save(tmp_path / "given.json")
    out = tmp_path / "view.png"
    options = ("--cameras", tmp_path / "given.json", "--camera", 2, "--background", "0.2,0.3,0.4")
    assert cli("view", scene_file, "--offscreen", out, *options, *SMALL) == (0, "", "")
    camera = refit_cameras(ring_cameras()[2], (80, 60))
    want = next(render_views(ring_scene(400), camera, backgrounds=(0.2, 0.3, 0.4))).image.clamp(0, 1)
    assert psnr(read_image(out), want) > 50


def test_colors_of_skinned_meshes(cli, tmp_path):
    """Each file uses the colorings it supports; if none does, the error names the supported ones."""
    hybrid().save(tmp_path / "ball.glb")
    arm().save(tmp_path / "arm.glb")
    means = {}
    for kind in ("own", "eta"):
        out = tmp_path / f"{kind}.png"
        assert cli("view", tmp_path / "ball.glb", "--colors", kind, "--offscreen", out, *SMALL)[0] == 0
        means[kind] = read_image(out)[..., :3].sum((0, 1))
    assert means["own"][0] == pytest.approx(float(means["own"][2]), rel=0.02)
    assert abs(means["eta"][0] / means["eta"][2] - 1) > 0.05
    both = tmp_path / "arm.glb", tmp_path / "ball.glb"
    assert cli("view", *both, "--colors", "eta", "--offscreen", tmp_path / "both.png", *SMALL)[0] == 0
    code, _, err = cli("view", both[0], "--colors", "eta", "--offscreen", tmp_path / "arm.png", *SMALL)
    assert (
        code == 3
        and err.startswith("error: colors: got 'eta', which this mesh does not have; it has own, weights")
        and err.count("\n") == 1
    )


def test_several_files_are_one_world(cli, tmp_path, scene_file):
    ball = Mesh(0.8 * shapes.icosphere(2)[0] + torch.tensor([0.0, 0.0, 0.6]), shapes.icosphere(2)[1])
    ball.save(tmp_path / "ball.glb")
    ring_cameras().save(tmp_path / "given.json")
    out = tmp_path / "both.png"
    cli("view", scene_file, tmp_path / "ball.glb", "--offscreen", out, "--cameras", tmp_path / "given.json", *SMALL)
    camera = refit_cameras(ring_cameras()[0], (80, 60))
    assert psnr(read_image(out), next(render_scene([ring_scene(400), ball], camera)).image.clamp(0, 1)) > 40


def test_the_first_camera_of_a_data_set_is_the_first_view(cli, tmp_path, scene_file):
    data = write_ring_photographs(tmp_path / "photographs")
    code, text, _ = cli("view", data, scene_file, "--offscreen", tmp_path / "a.png", "--size", "80x60", "--json")
    summary = json.loads(text.splitlines()[-1])
    assert code == 0 and summary["layers"] == {"photographs": "cameras", "scene": "gaussians"}
    want = next(render_views(ring_scene(400), refit_cameras(ring_cameras(8)[0], (80, 60)))).image.clamp(0, 1)
    assert psnr(read_image(tmp_path / "a.png"), want) > 45
    code, text, _ = cli("view", data, scene_file, "--camera", 5, "--offscreen", tmp_path / "b.png", *SMALL)
    want = next(render_views(ring_scene(400), refit_cameras(ring_cameras(8)[5], (80, 60)))).image.clamp(0, 1)
    assert psnr(read_image(tmp_path / "b.png"), want) > 45


def test_sides_and_heights(cli, tmp_path):
    """From above, 180 degrees flip the image; from the side a ring is smaller; closer or with a long lens it is larger."""
    images, scene_file = [], tmp_path / "ring.ply"
    scene = ring_scene(400)
    scene[scene.means[:, 2] > 0.2].save(scene_file)  # in a floor seen from above, the depth order depends on rounding
    for name, options in {
        "a": ("--elevation", 90), "b": ("--elevation", 90, "--azimuth", 180), "c": ("--elevation", 5), "d": ("--zoom", 3),
        "e": ("--fov", 20), "f": ("--elevation", 90, "--up", "-z"),
    }.items():  # fmt: skip
        out = tmp_path / f"{name}.png"
        up = () if "--up" in options else ("--up", "z")
        assert cli("view", scene_file, "--offscreen", out, *options, *up, *SMALL)[0] == 0
        images.append(read_image(out))
    above, round_, low, near, narrow, below = images
    assert psnr(above.flip(0, 1), round_) > 25
    lit = [float((image.sum(-1) > 0.05).float().mean()) for image in (above, low, near, narrow)]
    assert lit[1] < 0.85 * lit[0] and lit[2] > lit[1]
    assert lit[3] > lit[1]
    assert psnr(above, below) < 25


def test_a_time_of_an_animation(cli, tmp_path):
    points = torch.rand(50, 3)
    FrameSequence(PointCloud(points), torch.tensor([0.0, 1.0]), {"points": torch.stack([points, points + 3])}).save(
        tmp_path / "a.zarr"
    )
    for name, moment in (("first", ()), ("zero", ("--time", 0)), ("last", ("--time", 1.0))):
        assert cli("view", tmp_path / "a.zarr", "--offscreen", tmp_path / f"{name}.png", *moment, *SMALL)[0] == 0
    first, zero, last = (read_image(tmp_path / f"{name}.png") for name in ("first", "zero", "last"))
    assert torch.equal(first, zero) and not torch.equal(first, last)


def test_cameras_alone_are_drawn_as_frusta(cli, tmp_path):
    ring_cameras().save(tmp_path / "given.json")
    assert cli("view", tmp_path / "given.json", "--offscreen", tmp_path / "a.png", "--size", "160x120", "--quiet")[0] == 0
    assert 50 < int((read_image(tmp_path / "a.png").sum(-1) > 0).sum()) < 6000


def test_an_existing_image_is_kept(cli, tmp_path, scene_file):
    out = tmp_path / "a.png"
    out.write_text("mine")
    code, _, err = cli("view", scene_file, "--offscreen", out, *SMALL)
    assert code == 5 and err == f"error: {out}: exists; give --overwrite or another --offscreen\n"
    assert out.read_text() == "mine"
    assert cli("view", scene_file, "--offscreen", out, "--overwrite", *SMALL)[0] == 0
    assert image_size(out) == (80, 60)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--zoom", "0"), 2, "--zoom: got 0.0, want a number > 0"),
        (("--fov", "180"), 2, "--fov: got 180.0, want degrees between 0 and 180"),
        (("--elevation", "91"), 2, "--elevation: got 91.0, want degrees from -90 to 90"),
        (("--azimuth", "inf"), 2, "--azimuth: got inf, want degrees"),
        (("--time", "nan"), 2, "--time: got nan, want seconds"),
        (("--size", "80"), 2, "--size: got '80', want WIDTHxHEIGHT in pixels, such as 640x480"),
        (("--offscreen", "a.gif"), 2, "--offscreen: got a.gif, want an image (.png, .jpg, .jpeg, .webp)"),
        (("--offscreen", "a.png", "--web"), 2, "--web: shows a page and --offscreen writes an image; give one of them"),
        (("--offscreen", "a.png", "--camera", "0"), 2,
         "--camera: no cameras are shown; give --cameras FILE"),
        (
            ("--camera", "0", "--azimuth", "3"), 2,
            "--azimuth: rotates the view about the center; give either it or --camera and --cameras",
        ),
        (("--offscreen", "a.png", "--cameras", "nothing.json"), 3, "nothing.json"),
        (("nothing.ply", "--offscreen", "a.png"), 3, "nothing.ply"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(cli, tmp_path, monkeypatch, scene_file, options, code, text):
    monkeypatch.chdir(tmp_path)
    got, out, err = cli("view", scene_file, *options)
    assert (got, out) == (code, "")
    assert err.startswith(f"error: {text}") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_camera(cli, tmp_path, scene_file):
    ring_cameras(4).save(tmp_path / "given.json")
    options = ("--offscreen", tmp_path / "a.png", "--cameras", tmp_path / "given.json", "--camera", 4)
    code, _, err = cli("view", scene_file, *options)
    assert (code, err) == (2, "error: --camera: got 4, want 0 to 3\n")


def program(scene_file, *options, **environment):
    """Runs the program in a separate process, as a user would."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    path = os.pathsep.join(filter(None, [environment.pop("before", ""), os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "vision3d", "view", str(scene_file), *options],
        env={**kept, "PYTHONPATH": path, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def write_open3d(folder, code):
    (folder / "open3d.py").write_text(code)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "display", "text"),
    [
        ("import os\nos.abort()", ":1", "error: Open3D's renderer crashes here (SIGABRT)"),
        ("import ctypes\nctypes.string_at(0)", ":1", "error: Open3D's renderer crashes here (SIGSEGV)"),
        (
            'raise ImportError("libusb-1.0.so.0: cannot open shared object file: No such file or directory")', ":1",
            "error: Open3D cannot be loaded: libusb-1.0.so.0 is missing; apt install libusb-1.0-0; ",
        ),
        ("", "", "error: no display: neither DISPLAY nor WAYLAND_DISPLAY is set"),
    ],
)  # fmt: skip
def test_one_line_says_why_no_window_can_be_opened(tmp_path, scene_file, code, display, text):
    done = program(scene_file, before=write_open3d(tmp_path, code), DISPLAY=display)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(text) and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_image_needs_no_open3d_and_no_display(tmp_path, scene_file):
    done = program(
        scene_file, "--offscreen", str(tmp_path / "a.png"), *SMALL, before=write_open3d(tmp_path, "import os\nos.abort()")
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert image_size(tmp_path / "a.png") == (80, 60)
