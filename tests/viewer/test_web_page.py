"""The web page in headless Chromium, compared to our own images."""

import math
import socket
from dataclasses import replace

import pytest
import torch

from tests.support.browser import Browser
from tests.support.datasets import write_ring_photographs
from tests.support.outside import package
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.core.progress import silent
from vision3d.geometry import shapes
from vision3d.geometry.cameras import project
from vision3d.io.images import read_image
from vision3d.io.zarr_store import SequenceWriter
from vision3d.render import render_views
from vision3d.scene import Boxes, Mesh, PointCloud, Selection
from vision3d.stages.fit import FitConfig, fit
from vision3d.viewer.layers import Layers

pytestmark = [pytest.mark.viewer, pytest.mark.slow]

SIZE = (900, 600)  # browser window


def rise(folder):
    """The ring, rising by 1.2 m in four frames."""
    scene = ring_scene()
    writer = SequenceWriter(folder, scene)
    for i in range(4):
        writer.append(i / 4, means=scene.means + torch.tensor([0, 0, 0.4 * i]))
    return folder


def our_image(layers, name, time=0.0):
    """Our render of a layer from the initial view, in the colors of the page."""
    scene = layers.frame(name, time)
    flat = replace(scene, sh=scene.sh[:, :1])
    return next(iter(render_views(flat, layers.start.camera(*SIZE), backgrounds=(1.0, 1.0, 1.0)))).image


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


def colors_of(path):
    return read_image(path)[..., :3]


def test_the_image_matches_ours(browse, tmp_path):
    """A second rasterizer with its own thresholds: Gaussians end at 2.8 standard deviations there."""
    ring_cameras().save(tmp_path / "cameras.json")
    layers = Layers.open([rise(tmp_path / "rise.zarr"), tmp_path / "cameras.json"])
    layers.show("cameras", False)
    first, last, hidden = (tmp_path / f"{name}.png" for name in ("first", "last", "hidden"))
    browse(layers, [
        ["settle"], ["download", "Save image", str(first)],
        ["fill", "Frame", "3"], ["see", "0.75 s"], ["settle"], ["download", "Save image", str(last)],
        ["tick", "rise ("], ["settle"], ["download", "Save image", str(hidden)],
    ])  # fmt: skip
    for path, time in ((first, 0.0), (last, 0.75)):
        ours, theirs = our_image(layers, "rise", time), colors_of(path)
        assert theirs.shape == ours.shape
        assert float(theirs.std()) > 0.1  # not empty
        assert torch.allclose(theirs.mean((0, 1)), ours.mean((0, 1)), atol=0.02)
        assert psnr(theirs, ours) > 28
    assert psnr(colors_of(first), colors_of(last)) < 15  # the scene moved
    assert float((colors_of(hidden) - 1).abs().max()) == 0  # only the background


def test_far_gaussians_have_a_bounding_sphere(browse, tmp_path):
    """A sky of Gaussians of thousands of meters: three.js writes an error for bounding spheres that are NaN."""
    scene = ring_scene()
    log_scales, means = scene.log_scales.clone(), scene.means.clone()
    log_scales[-3:], means[-3:] = 8.0, torch.tensor([4e4, -6e4, 5e4])
    replace(scene, log_scales=log_scales, means=means).save(tmp_path / "sky.ply")
    ring_cameras().save(tmp_path / "cameras.json")
    path = tmp_path / "sky.png"
    browse(Layers.open([tmp_path / "sky.ply", tmp_path / "cameras.json"]), [["settle"], ["download", "Save image", str(path)]])
    assert float(colors_of(path).std()) > 0.05


def test_playing_shows_all_frames(browse, tmp_path):
    layers = Layers.open([rise(tmp_path / "rise.zarr")])
    seen = []
    browse(layers, [["tick", "Play"], ["wait", 3000]], lambda viewer: seen.append(viewer.panel.time_s))
    assert set(seen) == {0.0, 0.25, 0.5, 0.75}


def test_a_box_and_a_sphere_are_written_as_a_selection(browse, tmp_path):
    PointCloud(ring_scene().means).save(tmp_path / "ring.ply")
    layers = Layers.open([tmp_path / "ring.ply"])
    browse(layers, [
        ["click", "Selection"], ["click", "box"], ["see", "ring: "], ["click", "sphere"], ["wait", 500],
        ["fill", "File name", "middle"], ["wait", 500], ["click", "Write selection"], ["see", "Selection written"],
        ["settle"], ["shot", str(tmp_path / "page.png")],
    ])  # fmt: skip
    selection = Selection.load(tmp_path / "middle.selection.json")
    bounds = layers.bounds
    box, sphere = selection.regions
    assert (box.kind, sphere.kind, selection.combine) == ("box", "sphere", "any")
    assert torch.allclose(box.center, bounds.center, atol=1e-5)
    assert float(sphere.size[0]) == pytest.approx(bounds.radius / 3, rel=0.05)
    drawn = colors_of(tmp_path / "page.png")
    is_orange = (drawn[..., 0] > 0.85) & (drawn[..., 1] < 0.4) & (drawn[..., 2] < 0.1)
    assert int(is_orange.sum()) > 100  # the lines of the last region


def test_a_camera_is_looked_through(browse, tmp_path):
    photos = write_ring_photographs(tmp_path / "photos")
    ring_scene().save(tmp_path / "ring.ply")
    layers = Layers.open([photos, tmp_path / "ring.ply"])
    places = []

    def note(viewer):
        places.extend(torch.tensor(client.camera.position) for client in viewer.server.get_clients().values())

    path = tmp_path / "photo.png"
    steps = [["wait", 2000], ["fill", "Camera", "5"], ["wait", 2000], ["settle"], ["download", "Save image", str(path)]]
    browse(layers, steps, note)
    centers = layers["photos"].cameras.centers.double()
    assert any(torch.allclose(place, centers[0], atol=1e-4) for place in places)  # the start
    assert torch.allclose(places[-1], centers[5], atol=1e-4)
    # The photo of the current camera does not cover the view; the image shows the scene like the photo.
    camera = layers["photos"].cameras[5]
    scene = layers["ring"].value
    ours = next(iter(render_views(scene, camera, backgrounds=(1.0, 1.0, 1.0)))).image
    crop = colors_of(path)[:, 50:850]  # the camera is 4 to 3, the window 3 to 2
    small = torch.nn.functional.interpolate(crop.permute(2, 0, 1)[None], size=(36, 48), mode="area")[0].permute(1, 2, 0)
    assert psnr(small[2:], ours[2:]) > 20


def test_a_textured_mesh_covers_the_right_pixels(browse, tmp_path):
    vertices, faces = shapes.icosphere(3)
    uvs = vertices[:, :2] * 0.4 + 0.5
    texture = torch.zeros(64, 64, 3)
    texture[:, :32, 0] = texture[:, 32:, 2] = 1
    Mesh(vertices, faces, uvs=uvs, texture=texture).save(tmp_path / "ball.glb")
    layers = Layers.open([tmp_path / "ball.glb"])
    path = tmp_path / "ball.png"
    browse(layers, [["wait", 1500], ["settle"], ["download", "Save image", str(path)]])
    seen = colors_of(path)
    covered = (seen - 1).abs().amax(-1) > 0.05
    camera = layers.start.camera(*SIZE)
    pixels = project((vertices @ camera.viewmats[0, :3, :3].mT) + camera.viewmats[0, :3, 3], camera.Ks[0])
    height = float(pixels[:, 1].max() - pixels[:, 1].min())
    assert float(covered.any(1).sum()) == pytest.approx(height, abs=4)
    is_red, is_blue = (seen[..., 0] > seen[..., 2] + 0.2), (seen[..., 2] > seen[..., 0] + 0.2)
    assert int((is_red | is_blue).sum()) > 0.9 * int(covered.sum())
    assert int(is_red.sum()) > 2000 and int(is_blue.sum()) > 2000


def test_points_and_boxes_are_at_the_right_pixels(browse, tmp_path):
    points = torch.rand(400, 3) * torch.tensor([4.0, 2, 1])
    PointCloud(points, torch.tensor([1.0, 0, 0]).repeat(400, 1)).save(tmp_path / "cloud.ply")
    Boxes(torch.tensor([[2.0, 1, 0.5, 4, 2, 1, 0]]), torch.tensor([2])).save(tmp_path / "around.boxes.json")
    layers = Layers.open([tmp_path / "cloud.ply", tmp_path / "around.boxes.json"])
    path = tmp_path / "points.png"
    browse(layers, [["settle"], ["download", "Save image", str(path)]])
    seen = colors_of(path)
    camera = layers.start.camera(*SIZE)

    def at(places):
        moved = places @ camera.viewmats[0, :3, :3].mT + camera.viewmats[0, :3, 3]
        return project(moved, camera.Ks[0])

    is_red = torch.nn.functional.max_pool2d((seen[..., 0] > seen[..., 1] + 0.5).float()[None], 3, 1, 1)[0]
    columns, rows = at(points).long().T
    assert float(is_red[rows, columns].mean()) > 0.97  # some are behind an edge of the box
    assert float(is_red.mean()) < 0.1
    corners = at(layers["around"].value.corners[0])
    rows, columns = ((seen[..., 1] > seen[..., 0] + 0.2) & (seen[..., 1] > seen[..., 2] + 0.2)).nonzero().T  # green
    spans = [columns.min(), columns.max(), rows.min(), rows.max()]
    want = [corners[:, 0].min(), corners[:, 0].max(), corners[:, 1].min(), corners[:, 1].max()]
    assert [float(v) for v in spans] == pytest.approx([float(v) for v in want], abs=3)


def test_a_running_fit_is_updated(browse, tmp_path):
    photos = write_ring_photographs(tmp_path / "photos")
    config = FitConfig(steps=20, max_gaussians=300, sh_degree=0, checkpoint_every=10)
    done = fit(config, photos, run_folder=tmp_path / "done", progress=silent)
    live = tmp_path / "live"
    live.mkdir()
    (live / "config.yaml").write_bytes((done.run_folder / "config.yaml").read_bytes())
    layers = Layers.open([live])
    seen = tmp_path / "seen"

    def go_on(viewer):
        if seen.exists() and not (live / "checkpoints").exists():
            (live / "checkpoints").mkdir()
            name = "checkpoints/step_000010.pt"
            (live / name).write_bytes((done.run_folder / name).read_bytes())

    path = tmp_path / "live.png"
    browse(layers, [
        ["see", "live: waiting for the first checkpoint"], ["touch", str(seen)],
        ["see", "live: step 10"], ["wait", 2000], ["settle"],
        ["download", "Save image", str(path)],
    ], go_on)  # fmt: skip
    assert [layer.name for layer in layers] == ["live", "live.cameras"]
    layers.show("live.cameras", False)
    # After ten steps, everything is a haze of transparent Gaussians, whose tails the page cuts off below an alpha of 0.01.
    ours, theirs = our_image(layers, "live"), colors_of(path)
    assert torch.allclose(theirs.mean((0, 1)), ours.mean((0, 1)), atol=0.1)
    assert float(torch.corrcoef(torch.stack([theirs.flatten(), ours.flatten()]))[0, 1]) > 0.9


@pytest.mark.parametrize("width", [1280, 700, 390])
def test_names_of_layers_are_on_one_line(browse, tmp_path, width):
    """Beside their checkboxes, cut where the panel ends; a narrow window has the panel below the image, as wide as itself."""
    names = ("a", "ring_of_gaussians-with.a_long_name_that_does_not_fit_anywhere")
    for name in names:
        PointCloud(torch.rand(50, 3)).save(tmp_path / f"{name}.ply")
    labels = "[...document.querySelectorAll('label')].filter((label) => label.textContent.includes('(50 points)'))"
    box = "(({x, y, width, height}) => [x, y, x + width, y + height])"
    visit = browse(Layers.open(tmp_path / f"{name}.ply" for name in names), [
        ["size", width, 800], ["wait", 1500],
        ["eval", f"{labels}.map((label) => {box}(label.parentElement.getBoundingClientRect()))"],
        ["eval", f"{labels}.map((label) => {box}(document.getElementById(label.htmlFor).getBoundingClientRect()))"],
        ["eval", f"{box}([...document.querySelectorAll('button')].find((button) => button.textContent === 'Save image')"
         ".getBoundingClientRect())"],
    ])  # fmt: skip
    texts, boxes, button = visit.values
    assert len(texts) == len(boxes) == 2
    for text, check in zip(texts, boxes):
        assert text[3] - text[1] < 24 and abs(text[1] + text[3] - check[1] - check[3]) < 8  # px, in one row
        assert check[2] < text[0] and button[0] <= check[0] and text[2] <= button[2]
        assert text[2] - text[0] > 200
    if width == 390:
        assert button[2] - button[0] > 340


def test_the_page_of_another_machines_address_works_with_its_token(tmp_path):
    """The page finds its own WebSocket below the token and stays connected."""
    ring_scene().save(tmp_path / "ring.ply")
    package("viser")
    from vision3d.viewer.web import WebViewer

    with WebViewer(Layers.open([tmp_path / "ring.ply"]), host="0.0.0.0", port=0, folder=tmp_path) as viewer:
        url = viewer.url.replace(socket.gethostname(), "127.0.0.1")
        browser = Browser(
            url, [["see", "Save image"], ["settle"], ["download", "Save image", str(tmp_path / "a.png")]], tmp_path
        )
        viewer.run(until=browser.has_ended)
        visit = browser.visit()
    assert visit.errors == []
    assert float(colors_of(tmp_path / "a.png").std()) > 0.05
