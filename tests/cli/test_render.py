import json
import math

import numpy as np
import pytest
import torch

from tests.support.balls import ball as ball_mesh
from tests.support.scenes import ring_cameras, ring_scene
from vision3d.geometry import shapes
from vision3d.io.glb import write_mesh
from vision3d.io.images import image_size, read_image
from vision3d.io.ply import write_points
from vision3d.io.video import read_video
from vision3d.render import normals_to_rgb, path_cameras, render_scene, render_views
from vision3d.scene import Cameras, FrameSequence, GaussianScene, Mesh, PointCloud, Scene, SkinnedMesh
from vision3d.scene.upright import axis_vector

SMALL = ("--size", "33x25", "--quiet")


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.ply"
    ring_scene(300).save(path)
    return path


@pytest.fixture
def cameras_file(tmp_path):
    path = tmp_path / "given.json"
    ring_cameras().save(path)
    return path


def edited(path, change):
    """The cameras file with its content changed by a function."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def pose(content, index):
    return content["frames"][index]["transform_matrix"]


def test_one_image_matches_the_library(cli, scene_file, tmp_path):
    out = tmp_path / "one.png"
    assert cli("render", scene_file, "--out", out, "--background", "0.2,0.4,0.6", *SMALL) == (0, "", "")
    scene = GaussianScene.load(scene_file)
    view = next(
        render_views(scene, path_cameras(scene, num=1, size=(33, 25), up=axis_vector("-y")), backgrounds=(0.2, 0.4, 0.6))
    )
    assert (read_image(out) - view.image.clamp(0, 1)).abs().max() < 0.51 / 255
    assert view.image.std() > 0.05


def test_cameras_of_a_file_give_images_of_their_names(cli, scene_file, cameras_file, tmp_path):
    out = tmp_path / "views"
    code, stdout, _ = cli("render", scene_file, "--cameras", cameras_file, "--out", out, "--json")
    assert code == 0
    first, last = stdout.splitlines()
    assert first == f"6 views in {out}"
    values = json.loads(last)
    assert values["views"] == 6 and values["files"] == [str(out)] and values["device"] == "cpu"
    assert sorted(path.name for path in out.glob("*.png")) == [f"{i:03d}.png" for i in range(6)]
    written = Cameras.load(out / "cameras.json")
    torch.testing.assert_close(written.viewmats, ring_cameras().viewmats, rtol=0, atol=1e-6)
    view = next(render_views(GaussianScene.load(scene_file), ring_cameras()[2]))
    assert (read_image(out / "002.png") - view.image.clamp(0, 1)).abs().max() < 0.51 / 255


def test_depth_and_normals_in_a_folder(cli, scene_file, cameras_file, tmp_path):
    out = tmp_path / "views"
    assert cli("render", scene_file, "--cameras", cameras_file, "--out", out, "--depth", "--normals", "--quiet")[0] == 0
    scene, camera = GaussianScene.load(scene_file), ring_cameras()[3]
    view = next(render_views(scene, camera, render_mode="RGB+ED"))
    depth = np.load(out / "depth" / "003.npy")
    assert depth.dtype == np.float32 and depth.shape == (36, 48)
    np.testing.assert_allclose(depth, torch.where(view.alpha > 0, view.depth, 0), rtol=0, atol=1e-4)
    assert image_size(out / "depth" / "003.png") == image_size(out / "normals" / "003.png") == (48, 36)
    image = read_image(out / "normals" / "003.png")
    want = normals_to_rgb(view.normal * view.alpha[..., None], camera.viewmats[0])
    assert (image - want)[1:-1, 1:-1].abs().mean() < 0.003


def test_normals_reach_the_border_of_the_image(cli, tmp_path):
    ring_scene(1500).save(tmp_path / "s.ply")
    assert cli("render", tmp_path / "s.ply", "--out", tmp_path / "a.png", "--normals", "--zoom", "4", *SMALL)[0] == 0
    image = read_image(tmp_path / "a_normals.png")
    assert min(float(edge.amax(-1).median()) for edge in (image[-1], image[:, 0], image[:, -1])) > 0.5


@pytest.mark.parametrize("path", ["orbit", "spiral", "flythrough"])
def test_video_of_odd_size_along_a_path(cli, scene_file, cameras_file, tmp_path, path):
    out = tmp_path / "video.mp4"
    arguments = ["--cameras", cameras_file, "--path", path, "--frames", "5", "--fps", "12", "--out", out, *SMALL]
    assert cli("render", scene_file, *arguments) == (0, "", "")
    video = read_video(out)
    frames = list(video)
    assert (video.width, video.height, video.fps, len(frames)) == (34, 26, 12, 5)
    scene = GaussianScene.load(scene_file)
    cameras = path_cameras(scene, path, ring_cameras(), num=5, size=(33, 25))
    for frame, view in zip(frames, render_views(scene, cameras)):
        assert (frame[:25, :33] - view.image.clamp(0, 1)).abs().mean() < 0.06  # color at half the resolution


def test_layers_of_a_video(cli, scene_file, tmp_path):
    out = tmp_path / "video.mp4"
    code, stdout, _ = cli("render", scene_file, "--frames", "2", "--out", out, "--depth", "--normals", "--size", "32x24")
    assert code == 0
    assert stdout == f"2 views in {out}, {tmp_path / 'video_depth.mp4'}, {tmp_path / 'video_normals.mp4'}\n"
    assert [len(list(read_video(path))) for path in sorted(tmp_path.glob("*.mp4"))] == [2, 2, 2]


def test_orbit_is_the_default_and_is_written_next_to_the_scene(cli, tmp_path):
    ring_scene(50).save(tmp_path / "a.ply")
    code, stdout, _ = cli("render", tmp_path / "a.ply", "--frames", "2", "--size", "16x16")
    assert (code, stdout) == (0, f"2 views in {tmp_path / 'orbit.mp4'}\n")


def test_run_folder_and_its_cameras(cli, tmp_path):
    ring_scene(50).save(tmp_path / "scene.ply")
    ring_cameras().save(tmp_path / "cameras.json")
    out = tmp_path / "out"
    assert cli("render", tmp_path, "--path", "flythrough", "--frames", "3", "--out", out, "--quiet")[0] == 0
    assert image_size(out / "00000.png") == (48, 36)
    torch.testing.assert_close(Cameras.load(out / "cameras.json").viewmats[0], ring_cameras().viewmats[0], rtol=0, atol=1e-5)


def test_cameras_of_another_program_next_to_the_scene_are_ignored(cli, tmp_path):
    ring_scene(50).save(tmp_path / "scene.ply")
    (tmp_path / "cameras.json").write_text("[{}]")
    code, _, err = cli("render", tmp_path, "--out", tmp_path / "a.png", "--size", "16x16")
    assert code == 0 and "cameras.json: has no list 'frames'" in err


def test_folder_of_named_objects(cli, tmp_path):
    Scene().add("ring", ring_scene(50)).save(tmp_path / "room")
    assert cli("render", tmp_path / "room", "--out", tmp_path / "a.png", *SMALL)[0] == 0


def test_size_and_field_of_view_do_not_stretch(cli, scene_file, cameras_file, tmp_path):
    out = tmp_path / "views"
    assert cli("render", scene_file, "--cameras", cameras_file, "--size", "60x20", "--fov", "30", "--out", out)[0] == 0
    cameras = Cameras.load(out / "cameras.json")
    assert (cameras.width == 60).all() and (cameras.height == 20).all()
    focal = 10 / math.tan(math.radians(15))
    torch.testing.assert_close(cameras.Ks[0], torch.tensor([[focal, 0, 30], [0, focal, 10], [0, 0, 1]]))


def test_distorted_cameras_are_rendered_without_their_distortion(cli, scene_file, tmp_path):
    cameras = ring_cameras()
    path = tmp_path / "lens.json"
    Cameras.from_camtoworlds(
        cameras.camtoworlds, cameras.Ks, 48, 36, distortion=torch.tensor([-0.1, 0.01, 0.0, 0.0]), names=cameras.names
    ).save(path)
    out = tmp_path / "views"
    assert cli("render", scene_file, "--cameras", path, "--out", out, "--quiet")[0] == 0
    assert Cameras.load(out / "cameras.json").distortion is None


def test_sh_degree_and_alpha_max_change_the_image(cli, tmp_path):
    scene = ring_scene(200)
    scene.sh[:, 1:] = 0.3
    scene.save(tmp_path / "s.ply")
    images = []
    for name, options in {"a": (), "b": ("--sh-degree", "0"), "c": ("--alpha-max", "0.5")}.items():
        assert cli("render", tmp_path / "s.ply", "--out", tmp_path / f"{name}.png", *SMALL, *options)[0] == 0
        images.append(read_image(tmp_path / f"{name}.png"))
    assert (images[0] - images[1]).abs().max() > 0.05
    assert (images[0] - images[2]).abs().max() > 0.05


def test_progress_and_overwriting(cli, scene_file, tmp_path):
    out = tmp_path / "a.png"
    code, _, err = cli("render", scene_file, "--out", out, "--size", "16x16")
    assert code == 0 and err.startswith("render: step 1/1")
    before = out.read_bytes()
    code, _, err = cli("render", scene_file, "--out", out, "--size", "24x24")
    assert (code, err) == (5, f"error: {out}: exists; give --overwrite or another --out\n")
    assert out.read_bytes() == before
    assert cli("render", scene_file, "--out", out, "--size", "24x24", "--overwrite", "--quiet")[0] == 0
    assert image_size(out) == (24, 24)


def test_existing_layers_are_rejected_too(cli, scene_file, tmp_path):
    (tmp_path / "a_depth.mp4").write_text("mine")
    code, _, err = cli("render", scene_file, "--out", tmp_path / "a.mp4", "--depth", "--frames", "2", *SMALL)
    assert code == 5 and "a_depth.mp4" in err
    assert not (tmp_path / "a.mp4").exists()


def test_folder_with_files_is_rejected(cli, scene_file, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert cli("render", scene_file, "--out", tmp_path, "--frames", "2", *SMALL)[0] == 5


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--frames", "0"], 2, "--frames: got 0, want 1 or more"),
        (["--fps", "0"], 2, "--fps: got 0.0, want a number > 0"),
        (["--size", "640"], 2, "--size: got '640', want WIDTHxHEIGHT in pixels, such as 640x480"),
        (["--size", "0x10"], 2, "--size: got '0x10', want WIDTHxHEIGHT"),
        (["--fov", "180"], 2, "--fov: got 180.0, want degrees between 0 and 180"),
        (["--elevation", "100"], 2, "--elevation: got 100.0, want degrees from -90 to 90"),
        (["--zoom", "0"], 2, "--zoom: got 0.0, want a number > 0"),
        (["--sh-degree", "5"], 2, "--sh-degree: got 5, want 0 to 4"),
        (["--alpha-max", "1"], 2, "--alpha-max: got 1.0, want a number between 0 and 1"),
        (["--background", "blu"], 2, "--background: got 'blu', want black, white, gray, #rrggbb, or r,g,b in 0 to 1"),
        (["--path", "zigzag"], 2, "invalid choice 'zigzag'"),
        (["--out", "a.gif"], 3, "a.gif: renders cannot be written as .gif; want .mp4, .mkv, .mov, .png, .jpg or"),
        (["--out", "a.png", "--frames", "3"], 3, "a.png: got 3 cameras for one image; want one camera, a folder or"),
        (["--path", "flythrough"], 3, "path flythrough: got 0 cameras, want at least 2"),
        (["--cameras", "none.json"], 3, "none.json: does not exist; want a cameras.json, a transforms.json or a"),
        (["--device", "cuda"], 4, "device cuda: "),
        (["--backend", "gsplat"], 4, "backend gsplat needs a CUDA device"),
    ],
)  # fmt: skip
def test_wrong_options(cli, scene_file, tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("has a CUDA device")
    if "--out" not in options:
        options = [*options, "--out", tmp_path / "out"]
    got, out, err = cli("render", scene_file, *options)
    assert (got, out) == (code, "") and err.count("\n") == 1
    assert message in err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: pose(c, 2)[0].__setitem__(0, math.nan), "frame 2 (images/002.png): the pose holds NaN"),
        (lambda c: pose(c, 1).__setitem__(2, [0, 0, 0, 0]), "frame 1 (images/001.png): the pose is singular"),
        (lambda c: c.update(frames=[]), "has no frames"),
        (lambda c: c.update(camera_model="PANORAMA"), "PANORAMA"),
    ],
)
def test_wrong_cameras(cli, scene_file, cameras_file, tmp_path, change, message):
    path = edited(cameras_file, change)
    code, _, err = cli("render", scene_file, "--cameras", path, "--out", tmp_path / "out")
    assert code == 3 and err.count("\n") == 1
    assert message in err and str(path) in err
    assert not (tmp_path / "out").exists()


def test_options_without_effect_are_rejected(cli, scene_file, cameras_file, tmp_path):
    code, _, err = cli("render", scene_file, "--cameras", cameras_file, "--frames", "4", "--out", tmp_path / "out")
    assert (code, err) == (
        2,
        "error: --frames: is for paths; give --path, or leave it out to render each of the --cameras\n",
    )


def test_wrong_scenes(cli, tmp_path):
    out = ("--out", tmp_path / "out")
    path = tmp_path / "none.ply"
    want = "does not exist; want a Gaussian scene (.ply) or a run folder with scene.ply, a mesh (.glb, .obj), or a folder "
    want += "with scene.json"
    assert cli("render", path, *out) == (3, "", f"error: {path}: {want}\n")

    write_points(tmp_path / "points.ply", torch.rand(4, 3))
    code, _, err = cli("render", tmp_path / "points.ply", *out)
    assert code == 3 and "points.ply: holds a point cloud, want a Gaussian scene (.ply) or a mesh (.glb, .obj)" in err

    (tmp_path / "text.ply").write_text("hello")
    code, _, err = cli("render", tmp_path / "text.ply", *out)
    assert code == 3 and "text.ply" in err and err.count("\n") == 1

    code, _, err = cli("render", tmp_path, *out)
    assert code == 3 and "is a folder without scene.ply or scene.json" in err

    ring_cameras().save(tmp_path / "cameras.json")
    code, _, err = cli("render", tmp_path / "cameras.json", *out)
    assert code == 3 and "cameras.json: holds cameras, want a Gaussian scene" in err


def test_cameras_of_several_sizes_need_a_folder_or_a_size(cli, scene_file, tmp_path):
    small, large = ring_cameras(2), ring_cameras(2, 60, 40)
    small.merge(large).save(tmp_path / "mixed.json")
    arguments = ("render", scene_file, "--cameras", tmp_path / "mixed.json", "--quiet", "--out")
    code, _, err = cli(*arguments, tmp_path / "a.mp4")
    assert code == 3 and "the cameras have 2 sizes (48x36, 60x40); a video has one: give a size" in err
    assert cli(*arguments, tmp_path / "a.mp4", "--size", "32x24")[0] == 0
    assert cli(*arguments, tmp_path / "views")[0] == 0
    assert image_size(tmp_path / "views" / "00003_001.png") == (60, 40)


@pytest.mark.parametrize("mode", ["2dgs", "flat"])
def test_other_modes(cli, tmp_path, mode):
    scene = ring_scene(300)
    scene = GaussianScene(scene.means, scene.quats, scene.log_scales, scene.opacity_logits, scene.sh, mode=mode)
    scene.save(tmp_path / "s.ply")
    assert cli("render", tmp_path / "s.ply", "--out", tmp_path / "a.png", "--normals", "--depth", *SMALL)[0] == 0
    for name in ("a.png", "a_depth.png", "a_normals.png"):
        assert read_image(tmp_path / name).std() > 0.05


def test_fisheye_cameras(cli, scene_file, tmp_path):
    cameras = ring_cameras()
    fisheye = Cameras(cameras.viewmats, cameras.Ks, cameras.width, cameras.height, model="fisheye", names=cameras.names)
    fisheye.save(tmp_path / "f.json")
    out = ("--out", tmp_path / "views", "--quiet")
    assert cli("render", scene_file, "--cameras", tmp_path / "f.json", *out)[0] == 0
    view = next(render_views(GaussianScene.load(scene_file), fisheye[1]))
    assert (read_image(tmp_path / "views" / "001.png") - view.image.clamp(0, 1)).abs().max() < 0.51 / 255

    code, _, err = cli("render", scene_file, "--cameras", tmp_path / "f.json", "--fov", "40", "--out", tmp_path / "b")
    assert code == 3 and "for fisheye cameras; want pinhole cameras" in err


def test_interrupted_video_keeps_the_previous_one(cli, scene_file, tmp_path, monkeypatch):
    out = tmp_path / "a.mp4"
    assert cli("render", scene_file, "--frames", "3", "--out", out, *SMALL)[0] == 0
    before = out.read_bytes()

    def stopped(*arguments, **options):
        yield from list(render_scene(*arguments, **options))[:1]
        raise KeyboardInterrupt

    monkeypatch.setattr("vision3d.report.renders.render_scene", stopped)
    code, stdout, err = cli("render", scene_file, "--frames", "3", "--out", out, "--overwrite", *SMALL)
    assert (code, stdout, err) == (130, "", "interrupted\n")
    assert out.read_bytes() == before and [*tmp_path.iterdir()] == [out]


def test_full_disk(cli, scene_file, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vision3d.core.atomic.os.fsync", full)
    code, _, err = cli("render", scene_file, "--frames", "2", "--out", tmp_path / "out", *SMALL)
    assert code == 1 and "00000.png: could not be written (No space left on device)" in err


def test_a_mesh_file_is_rendered_y_up(cli, tmp_path):
    mesh = Mesh(*shapes.box((1.0, 2.0, 0.5)))
    mesh.save(tmp_path / "box.glb")
    out = tmp_path / "box.png"
    assert cli("render", tmp_path / "box.glb", "--out", out, "--shading", "flat", *SMALL) == (0, "", "")
    cameras = path_cameras(mesh, num=1, size=(33, 25), up=torch.tensor([0.0, 1.0, 0.0]))
    view = next(render_scene(Mesh.load(tmp_path / "box.glb"), cameras, shading="flat"))
    assert (read_image(out) - view.image.clamp(0, 1)).abs().max() < 0.51 / 255
    assert view.alpha.max() == 1


@pytest.mark.parametrize("name", ["a.compressed.ply", "a.ply", "a.spz"])
def test_gaussians_without_cameras_are_rendered_with_y_down(cli, tmp_path, name):
    ring_scene().save(tmp_path / name)
    scene = GaussianScene.load(tmp_path / name)
    assert cli("render", tmp_path / name, "--out", tmp_path / "a.png", *SMALL) == (0, "", "")
    cameras = path_cameras(scene, num=1, size=(33, 25), up=torch.tensor([0.0, -1.0, 0.0]))
    want = next(render_scene(scene, cameras)).image.clamp(0, 1)
    assert (read_image(tmp_path / "a.png") - want).abs().max() < 0.51 / 255


def test_the_mesh_of_a_scene_is_rendered_in_the_axes_of_its_cameras(cli, tmp_path):
    mesh = Mesh(*shapes.box((1.0, 2.0, 0.5)))
    write_mesh(tmp_path / "mesh.glb", mesh, scene_up="z")
    out, cameras = tmp_path / "box.png", path_cameras(mesh, num=1, size=(33, 25), up=torch.tensor([0.0, 0.0, 1.0]))
    want = next(render_scene(mesh, cameras, shading="flat")).image.clamp(0, 1)
    assert cli("render", tmp_path / "mesh.glb", "--out", out, "--shading", "flat", *SMALL) == (0, "", "")
    assert (read_image(out) - want).abs().max() < 0.51 / 255
    cameras.save(tmp_path / "cameras.json")
    out.unlink()
    given = ("--cameras", tmp_path / "cameras.json", "--out", tmp_path / "views", "--shading", "flat", "--quiet")
    assert cli("render", tmp_path / "mesh.glb", *given) == (0, "", "")
    assert (read_image(next((tmp_path / "views").glob("*.png"))) - want).abs().max() < 0.51 / 255


def test_a_folder_of_gaussians_and_meshes_is_one_image(cli, tmp_path):
    place = torch.eye(4)
    place[:3, 3] = torch.tensor([0.1, 0.2, 0.3])
    scene = Scene().add("ring", ring_scene(100)).add("ball", Mesh(*shapes.icosphere(1, 0.5)), place)
    scene.save(tmp_path / "both")
    out = tmp_path / "both.png"
    assert cli("render", tmp_path / "both", "--out", out, "--depth", "--normals", *SMALL) == (0, "", "")
    view = next(
        render_scene(
            Scene.load(tmp_path / "both"), path_cameras(scene, num=1, size=(33, 25), up=axis_vector("y")), render_mode="RGB+ED"
        )
    )
    assert (read_image(out) - view.image.clamp(0, 1)).abs().max() < 0.51 / 255
    depth = np.load(tmp_path / "both_depth.npy")
    assert np.allclose(depth, torch.where(view.alpha > 0, view.depth, 0).numpy(), atol=1e-5)
    assert read_image(tmp_path / "both_normals.png")[12, 16].sum() > 0.2


@pytest.mark.parametrize(
    ("name", "options", "code", "text"),
    [
        ("points.ply", (), 3, "error: {path}: holds a point cloud, want a Gaussian scene (.ply) or a mesh (.glb, .obj)"),
        ("empty", (), 3, "error: {path}/scene.json: has no Gaussians and no meshes; there is nothing to render"),
        (
            "box.glb",
            ("--shading", "uvs"),
            3,
            "error: shading: got uvs, but a mesh has none; want smooth, flat",
        ),
        (
            "missing.glb",
            (),
            3,
            "error: {path}: does not exist; want a Gaussian scene (.ply) or",
        ),
    ],
)
def test_what_cannot_be_rendered_is_named(cli, tmp_path, name, options, code, text):
    points = PointCloud(torch.rand(4, 3))
    points.save(tmp_path / "points.ply")
    Scene().add("points", points).save(tmp_path / "empty")
    Mesh(*shapes.box()).save(tmp_path / "box.glb")
    path = tmp_path / name
    found, _, stderr = cli("render", path, "--out", tmp_path / "out.png", *SMALL, *options)
    assert found == code
    assert stderr.startswith(text.format(path=path)) and stderr.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_an_unknown_shading_is_rejected(cli, scene_file):
    code, _, stderr = cli("render", scene_file, "--shading", "phong", *SMALL)
    assert code == 2 and "phong" in stderr and "smooth" in stderr


def _wobble(path):
    mesh = ball_mesh()
    frames = mesh.vertices + torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0, 0]])[:, None]
    SkinnedMesh.from_frames(mesh, frames, [0.0, 0.125, 0.25]).save(path)
    return path


def test_clips_are_rendered_in_time(cli, tmp_path):
    scene = _wobble(tmp_path / "wobble.glb")
    code, out, err = cli("render", scene, "--out", tmp_path / "a.mp4", "--size", "32x32")
    assert code == 0 and out.startswith("3 views"), err
    assert read_video(tmp_path / "a.mp4").fps == pytest.approx(8)
    code, out, _ = cli("render", scene, "--out", tmp_path / "b", "--size", "32x32", "--frames", 5, "--quiet")
    assert code == 0 and len(list((tmp_path / "b").glob("*.png"))) == 5
    images = []
    for number, at in enumerate((0.0, 0.125, 0.25)):
        code, _, err = cli("render", scene, "--at", at, "--out", tmp_path / f"{number}.png", "--size", "32x32", "--quiet")
        assert code == 0, err
        images.append(read_image(tmp_path / f"{number}.png"))
    assert torch.equal(images[0], images[2]) and (images[0] - images[1]).abs().max() > 0.1


def test_frames_of_a_run_are_rendered_from_new_cameras(cli, tmp_path):
    mesh = ball_mesh()
    frames = FrameSequence(mesh, torch.tensor([0.0, 0.5]), {"vertices": torch.stack([mesh.vertices, mesh.vertices + 1])})
    frames.save(tmp_path / "run" / "frames.zarr")
    for source in (tmp_path / "run", tmp_path / "run" / "frames.zarr"):
        out = tmp_path / f"{source.name}_out"
        code, text, err = cli("render", source, "--out", out, "--size", "24x24")
        assert code == 0 and text.startswith("2 views"), err


def test_times_are_for_animations(cli, tmp_path, scene_file):
    code, _, err = cli("render", scene_file, "--at", 1, "--out", tmp_path / "a.png")
    assert code == 2 and err.strip() == f"error: --at: is for moving scenes, and nothing moves in {scene_file}"
    code, _, err = cli("render", _wobble(tmp_path / "w.glb"), "--at", "nan", "--out", tmp_path / "a.png")
    assert code == 2 and "--at: got nan, want a number of seconds" in err
