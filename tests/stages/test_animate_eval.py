"""`evaluate_clips`: closed forms of every metric, order of averaging, layout, missing files, and resuming."""

import json
import math
import shutil

import pytest
import torch

from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.core.runs import RunFolder
from vision3d.io.images import write_image
from vision3d.optim import metrics
from vision3d.stages.animate import EvalConfig, evaluate_clips
from vision3d.stages.animate.evaluation.layout import find_clips

SMALL = EvalConfig(size=32)
LEVELS = {("cat", "eval_0"): 25 / 255, ("cat", "eval_1"): 51 / 255, ("dog", "eval_0"): 12 / 255}


def silent(*_):
    pass


def measured(config, folder, **options):
    return evaluate_clips(config, folder, progress=silent, **options)


def write(folder, side, name, view, number, image):
    write_image(folder / side / name / view / f"{number}.png", image)


@pytest.fixture
def folder(tmp_path):
    """Gray ground truth of three frames; the prediction is brighter by one level per view."""
    for (name, view), level in LEVELS.items():
        for i in range(3):
            truth = torch.full((32, 32, 3), (50 + 25 * i) / 255)
            write(tmp_path, "gt", name, view, i, truth)
            write(tmp_path, "pred", name, view, i, truth + level)
    return tmp_path


def test_means_over_views_then_objects(folder):
    result = measured(SMALL, folder)
    psnr = {key: -20 * math.log10(level) for key, level in LEVELS.items()}
    rows = {(row["object"], row["view"]): row for row in result.views}
    for key, value in psnr.items():
        assert rows[key]["psnr"] == pytest.approx(value, abs=1e-4) and rows[key]["frames"] == 3
        assert rows[key]["flicker"] == pytest.approx(0, abs=1e-6)  # equally brighter in every frame
    cat, dog = result.objects
    both = rows["cat", "eval_0"]["psnr"] + rows["cat", "eval_1"]["psnr"]
    assert cat["object"] == "cat" and cat["psnr"] == pytest.approx(both / 2, abs=1e-5)
    assert result.means["psnr"] == pytest.approx((cat["psnr"] + dog["psnr"]) / 2, abs=1e-5)
    assert result.means["iou"] is None and result.means["lpips"] is None
    texts = "\n".join(result.not_computed)
    assert "lpips: not computed: no weights (--lpips-weights)" in texts
    assert (
        "clip: not computed" in texts
        and "fvd: not computed" in texts
        and "iou: not computed: images without alpha in 3" in texts
    )
    assert "psnr" in result.summary and "lpips" not in result.summary and result.summary["frames"] == 9


def test_values_equal_our_metrics(tmp_path):
    generator = torch.Generator().manual_seed(0)
    pairs = [(torch.rand(32, 32, 3, generator=generator), torch.rand(32, 32, 3, generator=generator)) for _ in range(2)]
    quantized = [[(255 * image).round() / 255 for image in pair] for pair in pairs]
    for i, (truth, predicted) in enumerate(quantized):
        write(tmp_path, "gt", "a", "eval_0", i, truth)
        write(tmp_path, "pred", "a", "eval_0", i, predicted)
    (row,) = measured(SMALL, tmp_path).views
    for name, function in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
        want = sum(function(predicted, truth) for truth, predicted in quantized) / 2
        assert row[name] == pytest.approx(want, abs=1e-4)
    change = [b - a for a, b in zip(*quantized)]
    assert row["flicker"] == pytest.approx(float((change[0] - change[1]).abs().mean()), abs=1e-4)
    assert row["worst_frame"] == min(range(2), key=lambda i: metrics.psnr(*quantized[i]))


def test_equal_images(tmp_path):
    for side in ("gt", "pred"):
        write(tmp_path, side, "a", "eval_0", 0, torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(1)))
    result = measured(SMALL, tmp_path)
    assert result.means["psnr"] == 100 and result.means["ssim"] == pytest.approx(1)
    assert result.means["flicker"] is None and "flicker: not computed: a single frame in 1 of 1 views" in "\n".join(
        result.not_computed
    )


def test_partial_alpha_is_composited_on_white(tmp_path):
    black = torch.zeros(32, 32, 4)
    black[:16, :, 3], black[16:, :, 3] = 128 / 255, 1.0
    write(tmp_path, "gt", "a", "eval_0", 0, black)
    seen = torch.zeros(32, 32, 3)
    seen[:16] = 1 - 128 / 255
    write(tmp_path, "pred", "a", "eval_0", 0, seen)
    assert measured(SMALL, tmp_path).means["psnr"] > 80


def test_masks_and_sizes(tmp_path):
    truth, predicted = torch.ones(64, 64, 4), torch.ones(16, 16, 4)
    truth[:, 32:, 3], predicted[:, 4:, 3] = 0, 0  # a half, and a quarter of it
    write(tmp_path, "gt", "a", "eval_0", 7, truth)
    write(tmp_path, "pred", "a", "eval_0", 7, predicted)
    result = measured(EvalConfig(size=64), tmp_path)
    assert result.means["iou"] == pytest.approx(0.5, abs=0.04)


def test_lpips_needs_its_weights(folder, tmp_path):
    with pytest.raises(MissingFileError, match="LPIPS weights"):
        measured(EvalConfig(size=32, lpips_weights=tmp_path / "none.pt"), folder)
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(FileFormatError, match="bad"):
        measured(EvalConfig(size=32, lpips_weights=tmp_path / "bad.pt"), folder)


def test_missing_files_are_listed(folder):
    (folder / "pred" / "cat" / "eval_0" / "1.png").unlink()
    shutil.rmtree(folder / "gt" / "dog")
    for i in range(6):
        write(folder, "pred", "bird", f"eval_{i}", 0, torch.zeros(8, 8, 3))
    with pytest.raises(InputError, match=r"8 missing \(pred/cat/eval_0/1.png, gt/bird/eval_0, .* and 3 more\).*--skip-missing"):
        measured(SMALL, folder)
    result = measured(EvalConfig(size=32, skip_missing=True), folder)
    assert len(result.missing) == 8 and [row["frames"] for row in result.views] == [2, 3]
    assert [row["object"] for row in result.objects] == ["cat"]


def test_frames_are_sorted_by_number(tmp_path):
    for number in (0, 1, 2, 10):
        for side in ("gt", "pred"):
            write(tmp_path, side, "a", "eval_0", f"{number:03d}_rgba" if side == "gt" else number, torch.zeros(8, 8, 3))
    ((pair,), missing) = find_clips(tmp_path)
    assert pair.numbers == (0, 1, 2, 10) and missing == []


def test_wrong_folders(tmp_path):
    with pytest.raises(MissingFileError, match=r"want a folder with the layout \{gt,pred\}/OBJECT/eval_VIEW/NUMBER.png"):
        measured(SMALL, tmp_path / "none")
    (tmp_path / "gt").mkdir()
    with pytest.raises(MissingFileError, match="pred: does not exist"):
        measured(SMALL, tmp_path)
    (tmp_path / "pred").mkdir()
    with pytest.raises(InputError, match="has no folders OBJECT/eval_VIEW"):
        measured(SMALL, tmp_path)
    write(tmp_path, "gt", "a", "eval_0", 0, torch.zeros(8, 8, 3))
    write(tmp_path, "pred", "b", "eval_0", 0, torch.zeros(8, 8, 3))
    with pytest.raises(InputError, match="no frame in common"):
        measured(EvalConfig(size=32, skip_missing=True), tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: write(f, "pred", "cat", "eval_0", 1, torch.zeros(16, 16, 3)), "is 16x16 px, but 0.png 32x32"),
        (
            lambda f: [write(f, "pred", "cat", "eval_0", i, torch.zeros(32, 16, 3)) for i in range(3)],
            "want images of one shape",
        ),
        (lambda f: write(f, "gt", "cat", "eval_0", "first", torch.zeros(32, 32, 3)), "has no number in its name"),
        (lambda f: write(f, "gt", "cat", "eval_0", "01", torch.zeros(32, 32, 3)), "want each frame once"),
    ],
)
def test_wrong_frames(folder, change, text):
    change(folder)
    with pytest.raises(InputError, match=text):
        measured(SMALL, folder)


def test_a_damaged_image_is_named(folder):
    path = folder / "pred" / "cat" / "eval_1" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FileFormatError, match=r"2\.png"):
        measured(SMALL, folder)


def test_size_is_checked():
    for size in (8, 5000):
        with pytest.raises(ConfigError, match="size"):
            EvalConfig(size=size)


def test_finished_views_are_not_evaluated_again(folder, tmp_path, monkeypatch):
    whole = measured(SMALL, folder)
    run = RunFolder.create(tmp_path / "run", SMALL)
    damaged = folder / "pred" / "dog" / "eval_0" / "1.png"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:60])
    with pytest.raises(FileFormatError):
        measured(SMALL, folder, run_folder=run)
    damaged.write_bytes(content)
    read = []
    from vision3d.stages.animate.evaluation import run as module

    original = module._measured
    monkeypatch.setattr(module, "_measured", lambda pair, *rest: (read.append(pair.name), original(pair, *rest))[1])
    resumed = measured(SMALL, folder, run_folder=RunFolder.create(tmp_path / "run", SMALL, resume=True))
    assert read == ["dog/eval_0"]
    assert resumed == whole
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["views"] == list(whole.views)
    assert (tmp_path / "run" / "figures" / "worst_frames.png").is_file()
