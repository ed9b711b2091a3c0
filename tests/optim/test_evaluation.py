from dataclasses import replace

import pytest
import torch

from tests.support.photos import blobs, ring, write_photos
from vision3d import evaluate
from vision3d.core.errors import InputError
from vision3d.io.dataset import load_dataset
from vision3d.io.images import read_image
from vision3d.training.evaluation import Evaluation, ViewMetrics, background_of, fit_exposure, nearest_view


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos") / "set", cameras=ring(size=180))


def test_the_true_scene_is_limited_by_rounding(photos, tmp_path):
    evaluation = evaluate(blobs(), photos, renders=tmp_path / "renders")
    mean = evaluation.mean()
    # Rounding to bytes has a mean square error of (1/255)^2 / 12: 58.9 dB.
    assert 57 < mean["psnr"] < 63
    assert mean["ssim"] > 0.995 and mean["ms_ssim"] > 0.999
    assert mean["psnr_nearest"] < 25 and mean["above_nearest"] == mean["psnr"] - mean["psnr_nearest"]
    assert [view.name for view in evaluation.views] == ["images/002.png", "images/007.png"]
    pair = read_image(tmp_path / "renders" / "000_002.png")
    assert pair.shape == (180, 360, 3)
    torch.testing.assert_close(pair[:, :180], read_image(photos / "images" / "002.png"))
    torch.testing.assert_close(pair[:, 180:], pair[:, :180], atol=1 / 255 + 1e-6, rtol=0)


def test_scene_from_a_file(photos, tmp_path):
    blobs().save(tmp_path / "scene.ply")
    assert evaluate(tmp_path / "scene.ply", photos) == evaluate(blobs(), photos)


def test_alpha_max_matters_for_opaque_scenes(photos):
    scene = blobs()
    scene = replace(scene, opacity_logits=torch.full_like(scene.opacity_logits, 12.0))
    low, high = (evaluate(scene, photos, alpha_max=value).mean()["psnr"] for value in (0.5, 0.999))
    assert low != high


def test_small_images_have_no_ms_ssim(tmp_path):
    photos = write_photos(tmp_path / "set")
    mean = evaluate(blobs(), photos).mean()
    assert "ms_ssim" not in mean and "ssim" in mean


def test_masked_pixels_do_not_count(tmp_path):
    mask = torch.ones(48, 48, dtype=torch.bool)
    mask[:, :20] = False

    def soiled(index, image):
        return torch.where(mask[..., None], image, 1 - image)

    photos = write_photos(tmp_path / "set", masks=[mask] * 12, change=soiled)
    assert evaluate(blobs(), photos).mean()["psnr"] > 50
    assert evaluate(blobs(), photos, masks=False).mean()["psnr"] < 20


def test_only_the_pixels_of_the_masks_count(photos):
    left = torch.zeros(180, 180, dtype=torch.bool)
    left[:, :90] = True
    whole, half = evaluate(blobs(), photos), evaluate(blobs(), photos, valid={2: left})
    assert half.views[1] == whole.views[1] and half.views[0].psnr != whole.views[0].psnr
    assert half.views[0].ms_ssim is None and 55 < half.views[0].psnr < 65
    with pytest.raises(InputError, match=r"masks of all held-out views are all black"):
        evaluate(blobs(), photos, valid={2: ~left & left, 7: ~left & left})


def test_no_held_out_views(tmp_path):
    photos = write_photos(tmp_path / "set", held_out=())
    with pytest.raises(InputError, match="no view is held out for evaluation"):
        evaluate(blobs(), load_dataset(photos, split_every=0))


def test_scenes_without_gaussians_or_with_nan(photos):
    with pytest.raises(InputError, match="got 0 Gaussians"):
        evaluate(blobs()[:0], photos)
    with pytest.raises(InputError, match="means is not finite in 40 of 40 rows"):
        evaluate(replace(blobs(), means=blobs().means * float("nan")), photos)


def test_nearest_view_is_the_neighbor_on_the_ring():
    cameras = ring(12)
    assert nearest_view(cameras, 5, [0, 1, 2, 4, 8]) == 4
    assert nearest_view(cameras, 0, [3, 6, 11]) == 11


def test_nearest_view_has_a_similar_direction():
    """Of two cameras at the same distance, the one with the same direction is chosen, not the opposite one."""
    cameras = ring(12)
    viewmats = cameras.viewmats.clone()
    viewmats[4, :3] = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]]) @ viewmats[4, :3]
    assert nearest_view(replace(cameras, viewmats=viewmats), 5, [4, 6]) == 6


def test_background_follows_the_alpha_channel(tmp_path):
    plain = load_dataset(write_photos(tmp_path / "plain"))
    cut_out = load_dataset(write_photos(tmp_path / "cut", with_alpha=True))
    assert background_of(plain) == (0.0, 0.0, 0.0)
    assert background_of(cut_out) == (1.0, 1.0, 1.0)


def test_exposure_is_recovered_exactly():
    image = torch.rand(20, 30, 3)
    exposure = torch.tensor([[0.7, 0.1, 0.0, 0.05], [0.0, 0.9, 0.0, -0.02], [0.05, 0.0, 1.1, 0.0]])
    photo = image @ exposure[:, :3].mT + exposure[:, 3]
    torch.testing.assert_close(fit_exposure(image, photo, None), exposure, atol=2e-3, rtol=0)
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[:10] = True
    photo[10:] = 0.0
    torch.testing.assert_close(fit_exposure(image, photo, mask), exposure, atol=2e-3, rtol=0)


def test_means_skip_views_without_a_value():
    views = (ViewMetrics("a", 20.0, 0.5, ms_ssim=0.8), ViewMetrics("b", 30.0, 0.7))
    assert Evaluation(views).mean() == {"psnr": 25.0, "ssim": pytest.approx(0.6), "ms_ssim": 0.8}
