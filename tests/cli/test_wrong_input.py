"""Wrong input for each command: exit code, one line with the problem and the expected value, and no files left behind."""

import json
import pickle
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.photos import blobs, ring, write_photos
from tests.support.refusals import assert_refused
from vision3d.core.checkpoints import CheckpointFolder
from vision3d.geometry.quaternion import rotmat_to_quat
from vision3d.io.colmap import ColmapCamera, ColmapImage, ColmapModel, ColmapPoints, write_model
from vision3d.io.images import write_image
from vision3d.stages.fit.trainer import Trainer

FEW = ("--steps", 2, "--max-gaussians", 50, "--sh-degree", 0, "--quiet")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Six photos, one of them held out, and the scene that they show."""
    folder = tmp_path_factory.mktemp("original")
    blobs().save(folder / "scene.ply")
    write_photos(folder / "set", cameras=ring(6), held_out=(2,))
    return folder


@pytest.fixture
def photos(original, tmp_path):
    """A copy of the photos, to damage."""
    shutil.copytree(original / "set", tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(params=["fit", "eval"])
def run(request, original, tmp_path, cli):
    """Runs a command that takes photos: `code, out, err = run(DATA, *options)`."""

    def call(data, *options):
        if request.param == "fit":
            return cli("fit", data, "--out", tmp_path / "out", *FEW, *options)
        return cli("eval", original / "scene.ply", data, "--out", tmp_path / "out", "--quiet", *options)

    call.verb = request.param
    call.out = tmp_path / "out"
    return call


def content_of(folder):
    return json.loads((folder / "transforms.json").read_text())


def change_frame(folder, index, change):
    content = content_of(folder)
    change(content["frames"][index])
    (folder / "transforms.json").write_text(json.dumps(content))


def change_content(folder, change):
    content = content_of(folder)
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))


def as_colmap(folder, model="PINHOLE"):
    """The photos with a binary COLMAP model instead of transforms.json."""
    cameras = ring(6)
    K = cameras.Ks[0]
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]] + ([0.1] if model == "FOV" else [])
    images = {
        i + 1: ColmapImage(
            f"{i:03d}.png",
            1,
            rotmat_to_quat(view[:3, :3].double()).numpy(),
            view[:3, 3].double().numpy(),
            np.full((1, 2), 5.0),
            np.array([1], np.uint64),
        )
        for i, view in enumerate(cameras.viewmats)
    }
    points = ColmapPoints(
        np.array([1], np.uint64), np.zeros((1, 3)), np.zeros((1, 3), np.uint8), np.zeros(1), [np.zeros(0, "<u4,<u4")]
    )
    (folder / "transforms.json").unlink()
    write_model(folder / "sparse/0", ColmapModel({1: ColmapCamera(model, 48, 48, np.array(params))}, images, points))
    return folder


# --- photos


def test_missing_folder(run, tmp_path):
    assert_refused(run(tmp_path / "none"), "none: does not exist; want a folder of photos, a transforms.json or a video")
    assert not run.out.exists()


@pytest.mark.parametrize("damage", ["missing", "no image", "cut off", "32 bits"])
@pytest.mark.parametrize("layout", ["transforms", "colmap"])
def test_images_that_cannot_be_read(run, photos, damage, layout):
    if layout == "colmap":
        as_colmap(photos)
    path = photos / "images" / "003.png"
    if damage == "missing":
        path.unlink()
    elif damage == "no image":
        path.write_text("no image")
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-50])
    else:
        Image.fromarray(np.zeros((48, 48), np.float32)).save(path, format="TIFF")
    what = {
        "missing": "which does not exist (5 of 6 images found)",
        "no image": f"{path}: is not an image that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF)",
        "cut off": f"{path}: cannot be decoded (",
        "32 bits": f"{path}: holds F pixels of 32 bits; want 8 or 16 bits per channel",
    }[damage]
    where = "image 4 names 003.png" if layout == "colmap" else "frame 3 names images/003.png"
    assert_refused(run(photos), where, what, ". Run with --skip-missing to skip it.")
    assert not run.out.exists()
    code, _, err = run(photos, "--skip-missing")  # to the same folder
    assert code == 0, err
    assert "skipped" in err


def test_images_damaged_behind_a_valid_header(run, photos):
    names = [f"images/{i:03d}.png" for i in range(6)]
    change_content(photos, lambda content: content.update(train_filenames=names[2:5], test_filenames=[names[0], names[5]]))
    path = photos / names[5]  # held out: otherwise only read at the end of a fit or after other views in eval
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(100) + data[160:])
    assert_refused(run(photos), f"{path}: view 4 (images/005.png): cannot be decoded (")
    assert not run.out.exists()
    code, _, err = run(photos, "--skip-missing")
    assert code == 0, err
    assert "skipped" in err and "005.png" in err


def test_image_of_another_size(run, photos):
    write_image(photos / "images/003.png", torch.rand(20, 30, 3))
    text = "frame 3 names images/003.png, which has 30x20 px; its camera has 48x48, which is not an integer multiple"
    assert_refused(run(photos), photos / "transforms.json", text)


def test_fewer_than_three_views(run, photos):
    change_content(photos, lambda content: content.update(frames=content["frames"][:2]))
    assert_refused(run(photos), "transforms.json: got 2 views with images, want at least 3")


@pytest.mark.parametrize(
    "row, text",
    [
        ([float("nan"), 0, 0, 0], "the pose holds NaN or infinity"),
        ([0, 0, 0, 1], "the pose is singular (determinant 0)"),
    ],
)
def test_poses(run, photos, row, text):
    change_frame(photos, 3, lambda frame: frame["transform_matrix"].__setitem__(0, row))
    assert_refused(run(photos), f"transforms.json: frame 3 (images/003.png): {text}")


def test_unknown_camera_models(run, photos):
    change_content(photos, lambda content: content.update(camera_model="CATADIOPTRIC"))
    assert_refused(run(photos), "camera_model CATADIOPTRIC is not supported; want PINHOLE, SIMPLE_PINHOLE, ")


def test_unknown_camera_models_of_colmap(run, photos):
    as_colmap(photos, "FOV")
    text = "camera 1: camera model FOV is not supported; want FULL_OPENCV, "
    assert_refused(run(photos), photos / "sparse/0", text, "`colmap image_undistorter` makes PINHOLE")
    path = photos / "sparse/0/cameras.bin"
    data = bytearray(path.read_bytes())
    data[12] = 77  # the model number
    path.write_bytes(data)
    assert_refused(run(photos), path, "camera 1 has the unknown model 77; want SIMPLE_PINHOLE, ")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_truncated_colmap_files(run, photos, name):
    path = as_colmap(photos) / f"sparse/0/{name}.bin"
    path.write_bytes(path.read_bytes()[:-3])
    assert_refused(run(photos), path, " at byte ", "is truncated: ", "bytes expected, ")


@pytest.mark.parametrize(
    "name, text",
    [
        ("empty", "is neither a transforms.json nor a video (.mp4, "),
        ("scene.ply", "is neither a transforms.json nor a video (.mp4, "),
        ("list.json", "has no list 'frames'; want a transforms.json"),
        ("cut.json", "is not JSON (Expecting value: line 1 column 13 (char 12))"),
        ("texts", "found 0 photos without cameras (searched for transforms.json, "),
        ("set/images", "found 6 photos without cameras"),
        ("video.mp4", "is a video; run with --sfm to find its cameras with pycolmap"),
    ],
)
def test_files_that_are_not_data_sets(run, original, photos, tmp_path, name, text):
    (tmp_path / "empty").touch()
    (tmp_path / "video.mp4").write_bytes(bytes(100))
    shutil.copy(original / "scene.ply", tmp_path)
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "cut.json").write_text('{"frames": [')
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    assert_refused(run(tmp_path / name), tmp_path / name, text)
    assert not run.out.exists()


@pytest.mark.parametrize(
    "mode, suffix", [("RGBA", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("CMYK", "jpg"), ("I;16", "png")]
)
def test_unusual_images_are_read(run, photos, mode, suffix):
    for path in (photos / "images").iterdir():
        image = Image.open(path).convert("L" if mode == "I;16" else mode)
        path.unlink()
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        image.save(path.with_suffix(f".{suffix}"))
    text = (photos / "transforms.json").read_text()
    (photos / "transforms.json").write_text(text.replace(".png", f".{suffix}"))
    assert run(photos)[0] == 0


def test_images_of_one_pixel(run, photos):
    for path in (photos / "images").iterdir():
        write_image(path, torch.zeros(1, 1, 3))
    assert_refused(run(photos), "transforms.json: images/00", "has 1x1 px, want at least 11x11")


def write_masks(folder, size, value):
    def add(content):
        for i, frame in enumerate(content["frames"]):
            frame["mask_path"] = f"masks/{i}.png"
            write_image(folder / frame["mask_path"], torch.full(size, value))

    change_content(folder, add)


def test_masks_of_another_size(run, photos):
    write_masks(photos, (20, 30), 1.0)
    assert_refused(run(photos), "masks/", "view ", "(images/00", "mask has 30x20 px, its image 48x48; want the same size")
    assert run(photos, "--no-masks")[0] == 3  # a wrong mask is still an error


def test_empty_masks(run, photos):
    write_masks(photos, (48, 48), 0.0)
    code, _, err = run(photos)
    assert code == 3 and "black" in err.splitlines()[-1]
    assert run(photos, "--no-masks")[0] == 0


def test_black_masks_of_held_out_views_stop_a_fit_before_it_starts(cli, photos, tmp_path):
    write_masks(photos, (48, 48), 1.0)
    write_image(photos / "masks/2.png", torch.zeros(48, 48))
    result = cli("fit", photos, "--out", tmp_path / "out", *FEW)
    assert_refused(result, "transforms.json: the masks of all held-out views are all black (--no-masks)")
    assert not (tmp_path / "out").exists()


def test_one_black_mask_among_others(cli, original, photos):
    write_masks(photos, (48, 48), 1.0)
    change_content(photos, lambda c: c.update(test_filenames=["images/002.png", "images/003.png"], train_filenames=[
        "images/000.png", "images/001.png", "images/004.png"]))  # fmt: skip
    write_image(photos / "masks/2.png", torch.zeros(48, 48))
    code, out, err = cli("eval", original / "scene.ply", photos, "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["held_out_views"] == 1
    assert "warning: " in err and "images/002.png skipped: its mask is all black" in err


# --- Gaussian scenes


def scene_bytes(original, kind):
    """A .ply with one error, or valid in another encoding."""
    data = (original / "scene.ply").read_bytes()
    header, body = data.split(b"end_header\n")
    names = re.findall(rb"property float (\w+)", header)
    rows = np.frombuffer(body, "<f4").reshape(40, len(names)).copy()
    if kind == "big-endian":
        return header.replace(b"little", b"big") + b"end_header\n" + rows.astype(">f4").tobytes()
    if kind == "ascii":
        lines = "\n".join(" ".join(map(str, row)) for row in rows.tolist())
        return header.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + lines.encode()
    if kind == "no opacity":
        at = names.index(b"opacity")
        header = header.replace(b"property float opacity\n", b"")
        return header + b"end_header\n" + np.delete(rows, at, 1).tobytes()
    if kind == "cut off":
        return data[:-40]
    if kind == "cut header":
        return data[:100]
    if kind == "nan":
        rows[[3, 7], 0] = np.nan
        return header + b"end_header\n" + rows.tobytes()
    if kind == "no rows":
        return header.replace(b"vertex 40", b"vertex 0") + b"end_header\n"
    return {"empty": b"", "pickle": pickle.dumps(Bomb())}[kind]


class Bomb:
    def __reduce__(self):
        return (open, ("exploded", "w"))


@pytest.fixture(params=["eval", "render", "info"])
def run_scene(request, original, tmp_path, cli):
    """Runs a command that takes a scene: `code, out, err = run_scene(SCENE)`."""

    def call(scene):
        if request.param == "eval":
            return cli("eval", scene, original / "set", "--out", tmp_path / "out", "--quiet")
        if request.param == "render":
            return cli("render", scene, "--out", tmp_path / "out", "--frames", 1, "--size", "16x12", "--quiet")
        return cli("info", scene, "--quiet")

    call.verb = request.param
    call.out = tmp_path / "out"
    return call


@pytest.mark.parametrize(
    "kind, text",
    [
        ("no opacity", "lacks opacity, which a Gaussian scene needs; it has x y z "),
        ("cut off", ": is truncated: it holds 39 whole rows of 40"),
        ("cut header", "header is truncated before end_header"),
        ("nan", "at row 3: 2 of 40 rows are not finite or have a rotation of length zero; drop_nan=True or vision3d convert"),
        ("no rows", "element 'vertex' has 0 rows"),
        ("empty", "is not a .ply file (it does not begin with the line 'ply')"),
        ("pickle", "is not a .ply file (it does not begin with the line 'ply')"),
    ],
)
def test_wrong_scenes(run_scene, original, tmp_path, monkeypatch, kind, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.ply").write_bytes(scene_bytes(original, kind))
    if kind == "no opacity" and run_scene.verb == "info":
        return  # that is a point cloud
    assert_refused(run_scene(tmp_path / "s.ply"), tmp_path / "s.ply", text)
    assert not run_scene.out.exists() and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("kind", ["ascii", "big-endian"])
def test_scenes_in_other_encodings(run_scene, original, tmp_path, kind):
    (tmp_path / "s.ply").write_bytes(scene_bytes(original, kind))
    assert run_scene(tmp_path / "s.ply")[0] == 0


@pytest.mark.parametrize(
    "name, text",
    [
        ("none.ply", "does not exist; want a Gaussian scene (.ply) or a run folder with scene.ply"),
        ("image.png", "holds an image, want a Gaussian scene ("),
        ("cameras.json", "holds cameras, want a Gaussian scene ("),
        ("bare", "no codec for a name without suffix; want .3dxml, .3mf, .bin, .bmp, "),
        ("folder", "is a folder without scene.ply or scene.json; want a Gaussian scene (.ply)"),
    ],
)
@pytest.mark.parametrize("verb", ["eval", "render"])
def test_files_that_are_not_scenes(cli, original, tmp_path, verb, name, text):
    write_image(tmp_path / "image.png", torch.zeros(12, 12, 3))
    ring(3).save(tmp_path / "cameras.json")
    (tmp_path / "bare").touch()
    (tmp_path / "folder").mkdir()
    data = [original / "set"] if verb == "eval" else []
    assert_refused(cli(verb, tmp_path / name, *data, "--out", tmp_path / "out"), tmp_path / name, text)
    assert not (tmp_path / "out").exists()


def test_eval_takes_run_folders(cli, original):
    assert cli("eval", original, original / "set", "--quiet")[0] == 0


@pytest.mark.parametrize(
    "name, text",
    [
        ("none.json", "does not exist; want a cameras.json, a transforms.json or a data set"),
        ("cut.json", "is not JSON (Expecting value: line 1 column 13 (char 12))"),
        ("list.json", "has no list 'frames'; want a transforms.json"),
        ("latin.json", "is not JSON ("),
        ("scene.ply", "is not a cameras file; want a cameras.json, a transforms.json or a data set folder"),
        ("folder", "found 0 photos without cameras (searched for transforms.json, "),
    ],
)
def test_files_that_are_not_cameras(cli, original, tmp_path, name, text):
    (tmp_path / "cut.json").write_text('{"frames": [')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "latin.json").write_bytes(b'{"frames": "\xe4"}')
    shutil.copy(original / "scene.ply", tmp_path)
    (tmp_path / "folder").mkdir()
    arguments = ("render", original / "scene.ply", "--cameras", tmp_path / name, "--out", tmp_path / "out")
    assert_refused(cli(*arguments), tmp_path / name, text)
    assert not (tmp_path / "out").exists()


# --- options and output


@pytest.mark.parametrize(
    "options, code, text",
    [
        (["--steps", "-3"], 2, "steps: got -3, want a number > 0"),
        (["--minutes", "0"], 2, "minutes: got 0.0, want a number > 0"),
        (["--config", "qualty"], 3, "qualty: does not exist; want a YAML file or a preset of fit: default, "),
        (["--device", "tpu"], 4, "device tpu: unknown; want auto, cpu or cuda"),
        (["--device", "meta"], 4, "device meta: unknown; want auto, cpu or cuda"),
        (["--seed", "9223372036854775808"], 2, "seed: got 9223372036854775808, want less than 2^63"),
    ],
)
def test_wrong_options_leave_nothing(cli, original, tmp_path, options, code, text):
    steps = [] if {"--steps", "--minutes"} & set(options) else ["--steps", 1]
    assert_refused(cli("fit", original / "set", "--out", tmp_path / "out", *steps, *options), text, code=code)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["fit", "eval", "render", "demo"])
def test_nothing_is_overwritten(cli, original, tmp_path, verb):
    inputs = {"fit": [original / "set"], "eval": [original / "scene.ply", original / "set"], "render": [original / "scene.ply"]}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = cli(verb, *inputs.get(verb, []), "--out", tmp_path / "out")
    assert_refused(result, f"{tmp_path / 'out'}: exists and is not empty; give --overwrite", code=5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("mine")
    options = ["--size", "8x8", "--frames", 1] if verb == "render" else []
    result = cli(verb, *inputs.get(verb, []), "--out", tmp_path / "file", *options)
    assert_refused(result, f"{tmp_path / 'file'}: exists; ", "another --out", code=5)
    options += ["--quiet"]
    result = cli(verb, *inputs.get(verb, []), "--out", tmp_path / "file" / "out", *options)
    assert_refused(result, f"{tmp_path / 'file' / 'out'}", "the folder could not be created (Not a directory)", code=1)
    assert (tmp_path / "file").read_text() == "mine"


# --- runs


def test_gradient_that_is_not_finite(cli, original, tmp_path, monkeypatch):
    loss = Trainer._loss
    calls = []

    def poisoned(self, *arguments):
        calls.append(1)
        return loss(self, *arguments) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(Trainer, "_loss", poisoned)
    out = tmp_path / "out"
    code, _, err = cli("fit", original / "set", "--out", out, "--max-gaussians", 50, "--sh-degree", 0, "--steps", 5)
    assert code == 1
    assert "error: step 2: the loss is not finite. the checkpoint of the previous step was written; lower the learning" in err
    assert CheckpointFolder(out / "checkpoints").latest().step == 2
    assert json.loads((out / "summary.json").read_text())["status"] == "failed"


def test_interrupted_run_is_resumed_by_the_same_command(cli, original, tmp_path, monkeypatch):
    step = Trainer.step

    def interrupted(self, number, progress):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, number, progress)

    monkeypatch.setattr(Trainer, "step", interrupted)
    out = tmp_path / "out"
    command = ("fit", original / "set", "--out", out, "--max-gaussians", 50, "--sh-degree", 0, "--steps", 6, "--quiet")
    code, _, err = cli(*command)
    assert code == 130 and f"stopped after step 3; resume with --resume --out {out}" in err
    assert CheckpointFolder(out / "checkpoints").latest().step == 3
    monkeypatch.undo()
    assert_refused(cli(*command), "exists and is not empty; give --overwrite, --resume or another --out", code=5)
    assert cli(*command, "--resume")[0] == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "done" and summary["results"]["steps"] == 6


def test_hidden_code_in_a_checkpoint_is_not_executed(cli, original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    command = ("fit", original / "set", "--out", out, *FEW)
    assert cli(*command)[0] == 0
    torch.save({"format": 1, "state": Bomb()}, out / "checkpoints" / "step_000009.pt")
    scene = (out / "scene.ply").read_bytes()
    result = cli(*command, "--resume")
    assert_refused(result, "step_000009.pt: holds objects other than tensors and plain values, which could run code; nothing")
    assert not (tmp_path / "exploded").exists() and (out / "scene.ply").read_bytes() == scene


@pytest.mark.parametrize(
    "name, text",
    [
        ("zip.pt", "is not a weights file, or holds objects other than tensors, which could run code; nothing was executed"),
        ("bare.pt", "is not a weights file, or holds objects other than tensors, which could run code; nothing was executed"),
        ("bare.safetensors", "cannot be read as weights"),
    ],
)
def test_hidden_code_in_weights_is_not_executed(cli, original, tmp_path, monkeypatch, name, text):
    monkeypatch.chdir(tmp_path)
    if name == "zip.pt":
        torch.save({"features.0.weight": Bomb()}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    result = cli("eval", original / "scene.ply", original / "set", "--lpips-weights", tmp_path / name, "--quiet")
    assert_refused(result, tmp_path / name, text)
    assert "weights_only" not in result[2] and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.pt", "a.pkl", "a.json", "a.png", "a.mp4"])
def test_hidden_code_in_other_files_is_not_executed(cli, original, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    assert_refused(cli("info", tmp_path / name), tmp_path / name)
    assert_refused(cli("eval", tmp_path / name, original / "set"), tmp_path / name)
    assert_refused(cli("fit", tmp_path / name, "--out", tmp_path / "out"), tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_the_payload_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb())).close()
    assert (tmp_path / "exploded").exists()
