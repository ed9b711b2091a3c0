"""The commands of hand: run, train, synth, eval, export, and wrong input."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.hand_models import TINY, Finds, random_model
from vision3d.io.images import read_photo, write_image
from vision3d.io.video import VideoWriter, read_video
from vision3d.scene import Mesh, SkinnedMesh
from vision3d.stages.hand import HandTemplate, save_hand_model

BOX = ["--box", 30, 20, 50, 60]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path_factory.getbasetemp() / "hands"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_hand_model(path, random_model())
    return path


@pytest.fixture
def photo(tmp_path):
    generator = torch.Generator().manual_seed(0)
    write_image(tmp_path / "photo.png", torch.rand(96, 128, 3, generator=generator))
    return tmp_path / "photo.png"


@pytest.fixture
def video(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        for number in range(5):
            writer.append(torch.full((64, 96, 3), 0.1 * number))
    return tmp_path / "clip.mp4"


@pytest.fixture
def finder(monkeypatch):
    """A finder in place of the bundled one; set its boxes."""
    found = Finds()
    module = type(sys)("finder")
    module.load_finder = lambda path, device: found
    monkeypatch.setitem(sys.modules, "vision3d.stages.hand.finder", module)
    return found


def last(text):
    return json.loads(text.splitlines()[-1])


def test_a_photo(cli, tmp_path, photo, weights):
    out = tmp_path / "out"
    code, text, err = cli("hand", "run", photo, *BOX, "--side", "left", "--weights", weights, "--out", out, "--json")
    assert code == 0, err
    assert last(text)["hands"] == 1 and last(text)["left"] == 1
    assert "assumed from a field of view of 60 degrees" in text and "--fov" in err
    record = json.loads((out / "photo.json").read_text())
    (hand,) = record["hands"]
    assert record["size"] == [128, 96] and record["intrinsics"].startswith("assumed") and record["units"]["joints_3d"] == "m"
    joints, pixels, K = (np.array(value) for value in (hand["joints_3d"], hand["joints_2d"], record["K"]))
    assert joints.shape == (21, 3) and pixels.shape == (21, 2) and hand["side"] == "left" and 0 < hand["score"] < 1
    mesh = Mesh.load(out / "photo_0_left.obj")
    assert mesh.vertices.shape == (778, 3) and torch.equal(mesh.faces, HandTemplate.load("left").faces)
    lines = (out / "photo_0_left.obj").read_text().splitlines()
    assert min(int(word.split("/")[0]) for line in lines if line.startswith("f ") for word in line.split()[1:]) == 1
    regressed = HandTemplate.load("left").joints(mesh.vertices)
    assert np.abs(regressed.numpy() - joints).max() < 1e-5
    scene = Mesh.load(out / "photo_0_left.glb")
    assert scene.vertices[:, 1].max() == pytest.approx(-float(mesh.vertices[:, 1].min()), abs=1e-5)  # y up
    assert read_photo(out / "photo_overlay.png").shape == (96, 128, 3)
    assert K[0][2] == 64 and (out / "report.html").is_file()


def test_given_intrinsics_scale_the_distance(cli, tmp_path, photo, weights):
    depths = []
    for number, more in enumerate((["--fov", 60], ["--intrinsics", 221.7, 221.7, 64, 48])):
        out = tmp_path / f"out{number}"
        done = cli("hand", "run", photo, *BOX, "--side", "right", "--weights", weights, "--out", out, *more, "--no-meshes")
        assert done[0] == 0 and not list(out.glob("*.obj"))
        record = json.loads((out / "photo.json").read_text())
        depths.append(record["hands"][0]["translation"][2])
    assert record["intrinsics"] == "given" and depths[1] > 1.3 * depths[0]


def test_a_folder_with_boxes_and_images_without(cli, tmp_path, photo, weights):
    folder = tmp_path / "photos"
    for name in ("a.png", "b.png"):
        write_image(folder / name, torch.rand(60, 80, 3))
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.png": [{"box": [5, 5, 40, 40], "side": "right"}, {"box": [30, 10, 30, 40]}], "b.png": []}))
    out = tmp_path / "out"
    code, text, err = cli("hand", "run", folder, "--boxes", boxes, "--weights", weights, "--out", out, "--json")
    assert code == 0, err
    assert last(text)["hands"] == 2 and last(text)["without_hand"] == 1
    assert "no hand found in 1 of 2 images: b.png" in err
    assert json.loads((out / "b.json").read_text())["hands"] == []


def test_no_hand_is_reported(cli, tmp_path, photo, weights, finder):
    code, text, err = cli("hand", "run", photo, "--weights", weights, "--out", tmp_path / "out")
    assert code == 0 and "no hand found in 1 image" in text and "no hand found in 1 of 1 images: photo.png" in err
    assert json.loads((tmp_path / "out" / "photo.json").read_text())["hands"] == []
    assert finder.calls == 1


def test_a_video(cli, tmp_path, video, weights, finder):
    finder.squares = ((40.0, 30.0, 30.0),)
    out = tmp_path / "out"
    code, text, err = cli(
        "hand", "run", video, "--weights", weights, "--out", out, "--lost", 0, "--score", 0, "--frames", 4, "--json"
    )
    assert code == 0, err
    values = last(text)
    assert values["images"] == 4 and values["hands"] == 4 and values["fps"] > 0 and values["p50_ms"] <= values["p90_ms"]
    assert finder.calls == 1
    records = [json.loads(path.read_text()) for path in sorted((out / "frames").iterdir())]
    assert [record["time"] for record in records] == [0, 0.1, 0.2, 0.3]
    assert {record["hands"][0]["track"] for record in records} == {0}
    skin = SkinnedMesh.load(out / "hands.glb")
    assert len(skin.names) >= 16 and skin.clips[0].end == pytest.approx(0.3)
    assert (out / "overlay.mp4").is_file()


@pytest.fixture
def capture(monkeypatch):
    """Makes ffmpeg capture from a device of its own, which generates images, as if it were a camera."""
    from vision3d.io import video

    def use(*options):
        monkeypatch.setattr(video, "_capture_options", lambda index: options)

    return use


def test_a_webcam(cli, tmp_path, weights, finder, capture):
    finder.squares = ((40.0, 30.0, 30.0),)
    capture("-f", "lavfi", "-i", "testsrc=size=96x64:rate=20")
    out = tmp_path / "out"
    code, text, err = cli(
        "hand", "run", "--webcam", 0, "--weights", weights, "--out", out, "--lost", 0, "--score", 0, "--frames", 3, "--json"
    )
    assert code == 0, err
    assert last(text)["images"] == 3 and last(text)["hands"] == 3
    records = [json.loads(path.read_text()) for path in sorted((out / "frames").iterdir())]
    assert [record["time"] for record in records] == [0, 0.05, 0.1] and records[0]["size"] == [96, 64]
    assert SkinnedMesh.load(out / "hands.glb").clips[0].end == pytest.approx(0.1)
    assert (out / "overlay.mp4").is_file()


def test_a_webcam_that_drops_frames(cli, tmp_path, weights, finder, capture):
    """Files have the times of capture, and the overlay plays at the speed of the world."""
    finder.squares = ((40.0, 30.0, 30.0),)
    capture("-f", "lavfi", "-i", r"testsrc=size=96x64:rate=20,select=not(mod(n\,4))+eq(n\,5)")
    out = tmp_path / "out"
    code, _, err = cli(
        "hand", "run", "--webcam", 0, "--weights", weights, "--out", out, "--lost", 0, "--score", 0, "--frames", 4
    )
    assert code == 0, err
    times = [json.loads(path.read_text())["time"] for path in sorted((out / "frames").iterdir())]
    assert times == [0, 0.05, 0.2, 0.4]  # images 4, 5, 8 and 12
    assert SkinnedMesh.load(out / "hands.glb").clips[0].end == pytest.approx(0.4)
    overlay = read_video(out / "overlay.mp4")
    assert overlay.fps == 20 and len(list(overlay)) == 9  # 0 to 0.4 s


@pytest.mark.parametrize("options", [("-f", "v4l2", "-i", "/dev/null"), ("-f", "lavfi", "-i", "nosuchfilter")])
def test_a_webcam_that_cannot_be_read(cli, tmp_path, weights, capture, options):
    capture(*options)
    code, _, err = cli("hand", "run", "--webcam", 0, "--weights", weights, "--out", tmp_path / "out")
    assert code == 3 and "webcam 0: ffmpeg cannot read it (" in err and len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_video_is_finished(cli, tmp_path, video, weights, finder, monkeypatch):
    finder.squares = ((40.0, 30.0, 30.0),)
    own, calls = Finds.find, []

    def find(self, image):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(self, image)

    monkeypatch.setattr(Finds, "find", find)
    code, text, err = cli(
        "hand", "run", video, "--weights", weights, "--out", tmp_path / "out", "--lost", 0, "--score", 0, "--find-every", 1
    )
    assert code == 0, err
    assert "in 2 images" in text and "interrupted: the 2 frames so far are written" in err
    assert len(list((tmp_path / "out" / "frames").iterdir())) == 2 and (tmp_path / "out" / "overlay.mp4").is_file()


def test_a_video_without_a_hand(cli, tmp_path, video, weights, finder):
    code, text, _ = cli("hand", "run", video, "--weights", weights, "--out", tmp_path / "out")
    assert code == 0 and "no hand found in 5 images" in text
    assert finder.calls == 5 and not (tmp_path / "out" / "hands.glb").exists()


@pytest.mark.parametrize("kind", ["gray", "alpha", "palette", "one", "exif"])
def test_unusual_images(cli, tmp_path, weights, kind):
    path = tmp_path / ("photo.jpg" if kind == "exif" else "photo.png")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    if kind == "exif":
        exif[0x0112] = 6
        image.convert("RGB").save(path, exif=exif)
    else:
        image = image.resize((1, 1)) if kind == "one" else image.convert({"gray": "L", "palette": "P"}.get(kind, "RGBA"))
        image.save(path)
    box = [0, 0, 1, 1] if kind == "one" else [5, 5, 20, 20]
    code, _, err = cli("hand", "run", path, "--box", *box, "--weights", weights, "--out", tmp_path / "out")
    assert code == 0, err
    size = json.loads((tmp_path / "out" / "photo.json").read_text())["size"]
    assert size == {"one": [1, 1], "exif": [40, 60]}.get(kind, [60, 40])  # upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10)
    image.save(tmp_path / "photo.png", exif=exif)
    from PIL import ImageOps

    with Image.open(tmp_path / "photo.png") as stored:
        want = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(read_photo(tmp_path / "photo.png").numpy(), want)


def test_transparency_is_on_white(tmp_path):
    write_image(tmp_path / "a.png", torch.tensor([[[1.0, 0, 0, 0], [1, 0, 0, 1]]]))
    assert read_photo(tmp_path / "a.png").tolist() == [[[255, 255, 255], [255, 0, 0]]]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nowhere.png", *BOX], 3, "nowhere.png: does not exist; want an image, a folder of images, or a video"),
        ([], 2, "want either PATH or --webcam 0"),
        (["PHOTO", "--webcam", 0], 2, "want either PATH or --webcam 0"),
        (["--webcam", 97], 3, "/dev/video97: does not exist; want webcam 97"),
        (["EMPTY"], 3, "has no images"),
        (["CORRUPT", *BOX], 3, "is not a video that ffmpeg can read"),
        (["PHOTO", "--box", 500, 20, 50, 60], 3, "photo.png: box: got a square of 60 px around (525, 50), which is outside"),
        (["PHOTO", "--box", 5, 20, 0, 60], 2, "box: got 5 20 0 60, want x y w h in pixels with w, h > 0"),
        (["PHOTO", *BOX, "--intrinsics", 0, 100, 64, 48], 2, "intrinsics: got 0 100 64 48, which is singular"),
        (["PHOTO", *BOX, "--fov", 180], 2, "fov: got 180"),
        (["PHOTO", *BOX, "--side", "up"], 2, "right"),
        (["PHOTO", *BOX, "--weights", "nope"], 3, "nope: does not exist; want weights"),
        (["PHOTO", *BOX, "--weights", "PICKLE"], 3, "PICKLE"),
        (["PHOTO", *BOX, "--weights", "OTHER"], 3, "does not match its network; has unexpected keys"),
        (["PHOTO", *BOX, "--weights", "RESHAPED"], 3, "RESHAPED.safetensors: does not match its network"),
        (["PHOTO", "--finder-weights", "PICKLE"], 3, "PICKLE"),
        (["PHOTO", "--finder-weights", "HAND"], 3, "holds weights of 'hand', want 'hand_finder'"),
        (["CUT", *BOX], 3, "CUT.mp4: is not a video that ffmpeg can read"),
        (["CLIP", "--box", 500, 20, 50, 60], 3, "frame 0: box: got a square of 60 px around (525, 50), which is outside"),
        (["CLIP", "--boxes", "FAR"], 3, "frame 0: box: got a square of 60 px around (525, 50), which is outside the image"),
        (["CLIP", "--boxes", "BOXES"], 3, "'other.png' is not the number of a frame"),
        (["PHOTO", "--boxes", "BOXES"], 3, "'other.png' is not one of the images"),
        (["PHOTO", "--boxes", "BROKEN"], 3, "is not JSON"),
        (["PHOTO", "--boxes", "FLAT"], 3, "want {\"box\": [x, y, w, h]"),
    ],
)  # fmt: skip
def test_wrong_input_has_one_line(cli, tmp_path, photo, video, weights, arguments, code, text):
    files = {"PHOTO": photo, "EMPTY": tmp_path / "empty", "CORRUPT": tmp_path / "clip.mp4"}
    files["EMPTY"].mkdir()
    files |= {"CLIP": tmp_path / "good.mp4", "CUT": tmp_path / "CUT.mp4", "HAND": weights}
    files["CLIP"].write_bytes(video.read_bytes())
    files["CUT"].write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    files["CORRUPT"].write_bytes(b"\0\0\0\x18ftypmp42" + bytes(300))
    contents = {"BOXES": {"other.png": []}, "FLAT": {"photo.png": [[1, 2, 3, 4]]}, "BROKEN": None}
    contents["FAR"] = {"0": [{"box": [500, 20, 50, 60], "side": "right"}]}
    for name, content in contents.items():
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text("{" if content is None else json.dumps(content))
    if "PICKLE" in arguments:
        torch.save({"weight": torch.zeros(2)}, tmp_path / "PICKLE.safetensors")
        files["PICKLE"] = tmp_path / "PICKLE.safetensors"
    if "OTHER" in arguments:
        files["OTHER"] = tmp_path / "other.safetensors"
        model = random_model()
        model.network.extra = torch.nn.Linear(2, 2)
        save_hand_model(files["OTHER"], model)
    if "RESHAPED" in arguments:
        files["RESHAPED"] = tmp_path / "RESHAPED.safetensors"
        save_hand_model(files["RESHAPED"], replace(random_model(), config=replace(TINY, reduce=16)))
    given = [files.get(word, word) for word in arguments]
    more = [] if "--weights" in arguments else ["--weights", weights]
    done = cli("hand", "run", *given, *more, "--out", tmp_path / "run")
    assert done[0] == code, done
    assert text in done[2] and "Traceback" not in done[2]
    assert len(done[2].strip().splitlines()) == 1, done[2]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_train_synth_eval_export(cli, tmp_path):
    tiny = ["--network.input-size", 64, "--network.reduce", 8, "--network.dims", 16, 16, 8, "--network.heads", 4]
    done = cli(
        "hand", "train", *tiny, "--frames.size", 64, "--images", 16, "--steps", 2, "--batch-size", 4, "--workers", 0,
        "--evaluate-images", 16, "--out", tmp_path / "train", "--quiet",
    )  # fmt: skip
    assert done[0] == 0, done[2]
    weights = tmp_path / "train" / "hand.safetensors"
    done = cli("hand", "synth", "--images", 18, "--frames.size", 64, "--out", tmp_path / "data", "--json")
    assert done[0] == 0, done[2]
    labels = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "data").glob("training_*.json")}
    assert all(
        len(labels[f"training_{name}"]) == 18 for name in ("K", "xyz", "verts", "uv", "visible", "side", "pose", "scale")
    )
    K, xyz, uv = (torch.tensor(labels[f"training_{name}"]) for name in ("K", "xyz", "uv"))
    projected = xyz @ K.mT
    assert (projected[..., :2] / projected[..., 2:] - uv).abs().max() < 0.01
    for name, suffix in (("rgb", "jpg"), ("mask", "png"), ("depth", "png")):
        assert len(list((tmp_path / "data" / "training" / name).glob(f"*.{suffix}"))) == 18
    depth = np.asarray(Image.open(tmp_path / "data" / "training" / "depth" / "00000000.png"))
    mask = np.asarray(Image.open(tmp_path / "data" / "training" / "mask" / "00000000.png")) > 127
    verts = np.array(labels["training_verts"][0])
    assert 1000 * verts[:, 2].min() - 1 <= np.median(depth[mask]) <= 1000 * verts[:, 2].max() + 1
    for number, data in enumerate((tmp_path / "data", "synth")):
        more = [] if number == 0 else ["--images", 16]
        out = tmp_path / f"eval{number}"
        done = cli("hand", "eval", data, "--weights", weights, *more, "--out", out, "--json")
        assert done[0] == 0, done[2]
        values = last(done[1])
        assert values["images"] == (18, 16)[number] and {row["alignment"] for row in values["table"]} == {"proper", "official"}
        assert values["pa_mpjpe"] > 0 and values["pa_mpvpe"] > 0 and "PA-MPJPE mm" in done[1]
    # Without our mark the vertices are of an unknown topology.
    (tmp_path / "data" / "training_info.json").unlink()
    done = cli("hand", "eval", tmp_path / "data", "--weights", weights, "--images", 3, "--out", tmp_path / "eval2", "--json")
    assert last(done[1])["pa_mpvpe"] is None and "another topology" in done[1]


def test_eval_names_what_is_wrong_with_a_folder(cli, tmp_path, weights):
    folder = tmp_path / "freihand"
    folder.mkdir()
    K, xyz = np.eye(3).tolist(), np.ones((21, 3)).tolist()

    def evaluated():
        return cli("hand", "eval", folder, "--weights", weights, "--out", tmp_path / "out")

    for files, text in (
        ({}, "want a folder in FreiHAND's layout"),
        ({"K": [K]}, "evaluation_xyz.json: does not exist"),
        ({"K": [K], "xyz": [xyz, xyz]}, "evaluation_xyz.json: has 2 entries"),
        ({"K": [K], "xyz": [xyz[:20]]}, "has the shape (1, 20, 3), want (N, 21, 3)"),
        ({"K": [K], "xyz": ["a"]}, "is not a list of numbers"),
        ({"K": [np.zeros((3, 3)).tolist()], "xyz": [xyz]}, "singular"),
        ({"K": [K], "xyz": [xyz]}, "00000000.jpg: does not exist"),
    ):
        for name, value in files.items():
            (folder / f"evaluation_{name}.json").write_text(json.dumps(value))
        code, _, err = evaluated()
        assert code == 3 and text in err and len(err.strip().splitlines()) == 1, err


def test_export_and_its_errors(cli, tmp_path, weights):
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "hand.onnx"
    code, out, err = cli("hand", "export", path, "--weights", weights, "--json")
    assert code == 0, err
    values = last(out)
    assert values["outputs"]["vertices"] == ["N", 778, 3] and values["difference_mm"] < 0.01
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    joints = session.run(["joints"], {"images": np.zeros((5, 3, 64, 64), np.float32)})[0]
    assert joints.shape == (5, 21, 3) and np.abs(joints[:, 9]).max() < 1e-6
    before = path.read_bytes()
    broken, model = tmp_path / "nan.safetensors", random_model()
    with torch.no_grad():
        model.network.vertex_head.bias[0] = torch.nan
    save_hand_model(broken, model)
    for arguments, want, words in (
        ([path, "--weights", weights], 5, "exists; give --overwrite"),
        ([tmp_path / "out.pt", "--weights", weights], 3, "want a file ending in .onnx"),
        ([tmp_path / "a.onnx", "--weights", "nope"], 3, "want weights (.safetensors)"),
        ([tmp_path / "a.onnx", "--weights", broken], 1, "not finite; nothing is written"),
    ):
        code, _, err = cli("hand", "export", *arguments)
        assert (code, words in err) == (want, True), err
        assert len(err.strip().splitlines()) == 1
    assert path.read_bytes() == before and not (tmp_path / "a.onnx").exists()


def test_a_video_with_damaged_frames_is_finished(cli, tmp_path, weights, finder):
    """The second half of the frames is lost: what ffmpeg decodes counts."""
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        for _ in range(8):
            writer.append(torch.rand(64, 96, 3))
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    frames = content.index(b"mdat")
    length = int.from_bytes(content[frames - 4 : frames], "big")
    content[frames + length // 2 : frames + length - 8] = bytes(length - 8 - length // 2)
    (tmp_path / "damaged.mp4").write_bytes(content)
    code, text, err = cli("hand", "run", tmp_path / "damaged.mp4", "--weights", weights, "--out", tmp_path / "out", "--json")
    assert code == 0 and "Traceback" not in err, err
    decoded = sum(1 for _ in read_video(tmp_path / "damaged.mp4"))
    assert decoded > 0 and last(text)["images"] == decoded
    assert len(list((tmp_path / "out" / "frames").glob("*.json"))) == decoded


def test_a_video_without_frames(cli, tmp_path, weights, finder, monkeypatch):
    from vision3d.io.video import Video

    monkeypatch.setattr(Video, "in_bytes", lambda self: iter(()))
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        writer.append(torch.zeros(64, 96, 3))
    code, _, err = cli("hand", "run", tmp_path / "clip.mp4", "--weights", weights, "--out", tmp_path / "out")
    assert code == 3 and "has no frame that can be decoded" in err and len(err.strip().splitlines()) == 1, err


def test_hands_of_a_video_that_are_not_finite_are_not_written(cli, tmp_path, video):
    model = random_model()
    with torch.no_grad():
        model.network.vertex_head.bias[0] = torch.nan
    save_hand_model(tmp_path / "nan.safetensors", model)
    arguments = ("--box", 20, 10, 40, 40, "--side", "right", "--weights", tmp_path / "nan.safetensors", "--lost", 0)
    code, _, err = cli("hand", "run", video, *arguments, "--out", tmp_path / "out")
    assert (
        code == 3
        and "frame 0: hand: joints_3d of wrist is not finite; nothing can be written" in err
        and len(err.strip().splitlines()) == 1
    ), err
    assert not list(tmp_path.glob("out/frames/*")) and not (tmp_path / "out" / "hands.glb").exists()


def test_hands_that_are_not_finite_are_not_written(cli, tmp_path, photo):
    model = random_model()
    with torch.no_grad():
        model.network.vertex_head.bias[0] = torch.nan
    save_hand_model(tmp_path / "nan.safetensors", model)
    done = cli("hand", "run", photo, *BOX, "--weights", tmp_path / "nan.safetensors", "--out", tmp_path / "out")
    assert done[0] == 3 and "photo.png: hand: joints_3d of wrist is not finite" in done[2]
    assert not list(tmp_path.glob("out/*.obj"))
