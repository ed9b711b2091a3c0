"""The web viewer without a browser: data sent, the port, the command and its errors."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.outside import package
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.errors import ConfigError, InputError, MissingDependencyError, OutputExistsError
from vision3d.core.install import install_command
from vision3d.geometry import se3, shapes
from vision3d.io.glb import mesh_bytes
from vision3d.scene import Boxes, FrameSequence, GaussianScene, Mesh, PointCloud, Region, Scene, Selection
from vision3d.viewer.layers import Layers
from vision3d.viewer.web import WebViewer, free_port, warn_if_public
from vision3d.viewer.web_draw import splat_buffer, splat_unit
from vision3d.viewer.web_panel import png_of
from vision3d.viewer.web_select import count_selected


@pytest.fixture
def taken():
    """A port in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use(taken):
    with pytest.raises(ConfigError, match=f"^port: {taken} is in use on 127.0.0.1; use another --port, or --port 0 ") as found:
        free_port("127.0.0.1", taken)
    assert found.value.exit_code == 2
    assert free_port("127.0.0.1", 0) not in (0, taken)


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("127.0.0.1", 65536, "port: got 65536, want 1 to 65535, or 0 for a free one"),
        ("127.0.0.1", -1, "port: got -1, want 1 to 65535"),
        ("192.0.2.7", 0, "host: got '192.0.2.7', which is not an address of this machine"),
        ("no host", 0, "host: got 'no host', which is not an address of this machine"),
    ],
)
def test_addresses_that_cannot_be_listened_on(host, port, text):
    with pytest.raises(ConfigError, match=text):
        free_port(host, port)


def test_viser_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    text = "^" + re.escape(f"viser is needed for the viewer in a browser: {install_command('viewer')}") + "$"
    with pytest.raises(MissingDependencyError, match=text) as found:
        WebViewer(Layers([]), port=0)
    assert found.value.exit_code == 4


def test_a_warning_for_a_public_address(caplog):
    warn_if_public("127.0.0.1")
    assert caplog.text == ""
    warn_if_public("0.0.0.0")
    assert "0.0.0.0: anyone with the printed address and its token sees the scene and can write selections" in caplog.text


def test_gaussians_are_precise_in_half_floats():
    """In meters, the covariance of Gaussians below a millimeter would be lost."""
    ring = ring_scene()
    for size in (1e-5, 1e-3, 1.0, 1e3):
        scene = replace(ring, means=ring.means * size, log_scales=ring.log_scales + float(np.log(size)))
        unit = splat_unit(scene)
        words = splat_buffer(scene, unit)
        halves = np.ascontiguousarray(words[:, 4:7]).view(np.float16).astype(np.float64)
        want = scene.covars.double().numpy().reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
        assert np.allclose(halves * unit**2, want, rtol=2e-3, atol=1e-3 * want.max())
        centers = np.ascontiguousarray(words[:, :3]).view(np.float32)
        assert np.allclose(centers * unit, scene.means.numpy(), rtol=1e-5, atol=1e-6 * size)


def test_an_image_is_composited_on_white():
    from io import BytesIO

    from PIL import Image

    image = np.zeros((2, 3, 4), np.uint8)
    image[0, :, 3] = 255
    assert np.asarray(Image.open(BytesIO(png_of(image)))).tolist() == [[[0, 0, 0]] * 3, [[255, 255, 255]] * 3]


def test_selected_points_are_counted_in_the_world(tmp_path):
    move = se3.similarity(torch.tensor(1.0), torch.eye(3), torch.tensor([10.0, 0, 0]))
    cloud = PointCloud(torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]]))
    Scene().add("cloud", cloud, move).add("hidden", cloud).add("boxes", Boxes(torch.ones(1, 7))).save(tmp_path / "room")
    layers = Layers.open([tmp_path / "room"])
    layers.show("hidden", False)
    selection = Selection((Region.sphere(torch.tensor([10.0, 0, 0]), 2.0),))
    assert count_selected(selection, layers) == {"cloud": (2, 3)}


def test_the_bytes_of_a_mesh_equal_its_file(tmp_path):
    mesh = Mesh(*shapes.icosphere(1))
    mesh.save(tmp_path / "ball.glb")
    assert mesh_bytes(mesh) == (tmp_path / "ball.glb").read_bytes()


def test_far_gaussians_fit_into_half_floats():
    scene = ring_scene()[:4]
    huge = replace(scene, log_scales=scene.log_scales + 12)
    triangle = splat_buffer(huge, 1.0)[:, 4:7].copy().view(np.float16)
    assert np.isfinite(triangle).all() and np.abs(triangle).max() == np.finfo(np.float16).max


def test_far_gaussians_keep_their_shape_in_half_floats():
    """Numbers that are clipped one by one would make another ellipsoid, or none."""
    scene = ring_scene()[:4]
    huge = replace(scene, log_scales=scene.log_scales + torch.tensor([12.0, 11.5, 10.5]))
    triangle = splat_buffer(huge, 1.0)[:, 4:7].copy().view(np.float16).astype(np.float64)
    want = huge.covars.double().numpy().reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    assert np.allclose(triangle / triangle[:, :1], want / want[:, :1], rtol=5e-3, atol=1e-3)


@pytest.mark.viewer
def test_far_gaussians_are_sent_without_a_warning(tmp_path):
    """A sky among small Gaussians, drawn first and then updated; warnings are errors."""
    package("viser")
    scene = ring_scene(100)
    log_scales = scene.log_scales.clone()
    log_scales[-3:] += 14
    replace(scene, log_scales=log_scales).save(tmp_path / "sky.ply")
    with WebViewer(Layers.open([tmp_path / "sky.ply"]), port=0, folder=tmp_path) as viewer:
        (node,) = viewer.drawer._nodes["sky"]
        scene = viewer.layers["sky"].value
        first, again = node.buffer.copy(), splat_buffer(scene, splat_unit(scene))
    assert np.isfinite(first[:, 4:7].copy().view(np.float16)).all()
    assert np.array_equal(first[:, :7], again[:, :7])


@pytest.mark.viewer
def test_the_buffer_equals_visers():
    viser = package("viser")
    scene = ring_scene()[:100]
    server = viser.ViserServer("127.0.0.1", free_port("127.0.0.1", 0), verbose=False)
    try:
        colors = (scene.sh[:, 0] * 0.28209479177387814 + 0.5).clamp(0, 1)
        values = [scene.means, scene.covars, colors, scene.opacities[:, None]]
        node = server.scene.add_gaussian_splats("/a", *(value.numpy() for value in values))
        words = splat_buffer(scene, 1.0)
        assert np.array_equal(node.buffer[:, :7], words[:, :7])
        bytes_apart = np.abs(node.buffer[:, 7:].view(np.uint8).astype(int) - words[:, 7:].copy().view(np.uint8).astype(int))
        assert bytes_apart.max() <= 1
    finally:
        server.stop()


@pytest.fixture
def viewer(tmp_path):
    package("viser")
    PointCloud(torch.rand(50, 3)).save(tmp_path / "cloud.ply")
    with WebViewer(Layers.open([tmp_path / "cloud.ply"]), port=0, folder=tmp_path) as viewer:
        yield viewer


@pytest.mark.viewer
def test_selections_are_written_only_into_their_folder(viewer, tmp_path):
    tool = viewer.selection
    with pytest.raises(InputError, match=r"^selection: got no region; add a box or a sphere first$"):
        tool.write("a")
    tool.add("box")
    for name in ("../a", "/tmp/a", "", ".a", "a b", "a/b"):
        with pytest.raises(InputError, match=r"^file name: got .*; want letters, digits, _ . - with a letter or digit first$"):
            tool.write(name)
    assert tool.write("part") == tool.write("part.selection.json") == tmp_path / "part.selection.json"
    (tmp_path / "mine.selection.json").write_text("{}")
    with pytest.raises(OutputExistsError, match=r"mine\.selection\.json: exists; choose another name$"):
        tool.write("mine")
    tool.add("sphere")
    tool.remove()
    assert [region.kind for region in tool.selection.regions] == ["box"]
    assert Selection.load(tmp_path / "part.selection.json").regions[0].kind == "box"


@pytest.mark.viewer
def test_a_region_follows_its_gizmo_and_its_size(viewer):
    tool = viewer.selection
    tool.add("box")
    tool.add("sphere")
    _, gizmo, _ = tool._regions[0]
    gizmo.position, gizmo.wxyz = (1.0, 2.0, 3.0), (0.0, 1.0, 0.0, 0.0)
    tool._moved(0)
    tool._size.value = (0.5, float(tool._regions[1][0].size[0]), float(tool._regions[1][0].size[0]))
    tool._resized()  # one radius: the changed number applies to all three
    box, sphere = tool.selection.regions
    assert box.center.tolist() == [1, 2, 3] and box.quat.tolist() == [0, 1, 0, 0]
    assert sphere.size.tolist() == [0.5, 0.5, 0.5] and tuple(tool._size.value) == (0.5, 0.5, 0.5)


@pytest.mark.viewer
def test_a_damaged_frame(tmp_path, caplog):
    """On startup it is an error, and no server remains; later the previous frame is kept."""
    package("viser")
    moving = FrameSequence(PointCloud(torch.zeros(5, 3)), torch.arange(4.0), {"points": torch.rand(4, 5, 3)})
    moving.save(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/points/1.0.0").write_bytes(b"x")
    with WebViewer(Layers.open([tmp_path / "a.zarr"]), port=0) as viewer:
        viewer.panel.advance()
        assert "1.0.0: is damaged" in caplog.text
        viewer.panel.advance()
        assert viewer.panel.time_s == 2
    (tmp_path / "a.zarr/points/0.0.0").write_bytes(b"x")
    port = free_port("127.0.0.1", 0)
    with pytest.raises(InputError, match=r"0\.0\.0: is damaged"):
        WebViewer(Layers.open([tmp_path / "a.zarr"]), port=port)
    assert free_port("127.0.0.1", port) == port


@pytest.mark.viewer
def test_more_cameras_than_nodes_are_one_set_of_lines(tmp_path):
    package("viser")
    ring_cameras(301).save(tmp_path / "cameras.json")
    ring_cameras(5).save(tmp_path / "few.json")
    with WebViewer(Layers.open([tmp_path / "cameras.json", tmp_path / "few.json"]), port=0) as viewer:
        assert len(viewer.drawer._nodes["cameras"]) == 1
        assert len(viewer.drawer._nodes["few"]) == 5
        stand = ring_cameras(5).centers[2].numpy()
        viewer.drawer.clear_view(stand)
        assert [node.visible for node in viewer.drawer._nodes["few"]] == [True, True, False, True, True]
        viewer.drawer.clear_view(stand + 1)
        assert all(node.visible for node in viewer.drawer._nodes["few"])
        viewer.drawer.show("few", False)
        viewer.drawer.clear_view(stand + 1)
        assert not any(node.visible for node in viewer.drawer._nodes["few"])


def program(*arguments, **options):
    command = [sys.executable, "-m", "vision3d", "view", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.viewer
@pytest.mark.slow
def test_ctrl_c_ends_the_program(tmp_path):
    package("viser")
    GaussianScene.from_points(torch.rand(20, 3)).save(tmp_path / "a.ply")
    process = program(str(tmp_path / "a.ply"), "--web", "--port", "0", "--no-open", "--json")
    lines = [process.stdout.readline(), process.stdout.readline()]
    url = json.loads(lines[1])["url"]
    assert lines[0] == f"{url}  (Ctrl-C to stop)\n" and json.loads(lines[1])["layers"] == ["a"]
    import urllib.request

    with urllib.request.urlopen(url) as page:
        assert b"<html" in page.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.viewer
def test_the_command_names_a_port_in_use(cli, taken, tmp_path):
    package("viser")
    ring_scene(10).save(tmp_path / "a.ply")
    code, out, err = cli("view", tmp_path / "a.ply", "--web", "--port", taken, "--no-open")
    assert (code, out) == (2, "")
    assert err == f"error: port: {taken} is in use on 127.0.0.1; use another --port, or --port 0 for a free one\n"


def test_the_command_names_what_is_missing(cli, tmp_path, monkeypatch):
    ring_scene(10).save(tmp_path / "a.ply")
    monkeypatch.setitem(sys.modules, "viser", None)
    code, out, err = cli("view", tmp_path / "a.ply", "--web", "--no-open")
    assert (code, out) == (4, "")
    assert err == f"error: viser is needed for the viewer in a browser: {install_command('viewer')}\n"
    code, _, err = cli("view", tmp_path / "b.ply", "--web")
    assert code == 3 and err.startswith(f"error: {tmp_path}{os.sep}b.ply: does not exist; want a scene, mesh, ")
    code, _, err = cli("view", "--web")
    assert code in (2, 3) and err.startswith("error: ") and err.count("\n") == 1
