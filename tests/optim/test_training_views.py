import torch

from tests.support.photos import ring, write_photos
from vision3d.io.dataset import load_dataset
from vision3d.optim.training_views import Order, TrainingViews


def views_of(path, **options):
    images = load_dataset(path)
    defaults = {"masks": True, "with_alpha": False, "cache_bytes": 1e9, "device": torch.device("cpu")}
    views = TrainingViews(images, images.train, **{**defaults, **options})
    views.read_all(lambda done: None)
    return images, views


def test_views_at_half_the_size_are_means_of_four_pixels(tmp_path):
    images, views = views_of(write_photos(tmp_path / "set", cameras=ring(size=64)))
    full, half = views.get(3, 1), views.get(3, 2)
    assert full.size == (64, 64) and half.size == (32, 32)
    want = full.image.unflatten(0, (32, 2)).unflatten(2, (32, 2)).mean((1, 3))
    torch.testing.assert_close(half.image, want, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(half.K[:2], full.K[:2] / 2)
    torch.testing.assert_close(full.image, images.read(int(images.train[3]))[0], atol=1e-6, rtol=0)


def test_images_are_not_downscaled_below_32_pixels(tmp_path):
    _, views = views_of(write_photos(tmp_path / "set"))
    assert views.get(0, 8).size == (48, 48)


def test_alpha_is_included(tmp_path):
    _, views = views_of(write_photos(tmp_path / "set", with_alpha=True), with_alpha=True)
    view = views.get(0, 1)
    assert view.alpha is not None and float(view.alpha.min()) < 0.05 and float(view.alpha.max()) > 0.8
    assert bool((view.image <= view.alpha + 2 / 255).all())  # colors are premultiplied with alpha


def test_pixels_count_where_both_masks_are_set(tmp_path):
    masks = [torch.zeros(48, 48, 3) for _ in range(12)]
    for mask in masks:
        mask[:, :24] = 1
    upper = torch.zeros(48, 48, dtype=torch.bool)
    upper[:24] = True
    path = write_photos(tmp_path / "set", masks=masks)
    images, views = views_of(path, valid={0: upper})
    assert int(images.train[0]) == 0
    both, one = views.get(0, 1).mask, views.get(1, 1).mask
    assert both[:24, :24].all() and int(both.sum()) == 24 * 24 and int(one.sum()) == 48 * 24
    assert torch.equal(views_of(path, valid={0: upper}, masks=False)[1].get(0, 1).mask, upper)


def test_order_shows_each_view_once_before_any_again():
    order = Order(5, seed=0)
    taken = [order.take(2) for _ in range(10)]
    flat = [place for pair in taken for place in pair]
    assert all(sorted(flat[i : i + 5]) == [0, 1, 2, 3, 4] for i in range(0, 20, 5))
    assert flat[:5] != flat[5:10]


def test_order_can_be_resumed():
    order = Order(7, seed=3)
    order.take(4)
    copy = Order(7, seed=99)
    copy.load_state_dict(order.state_dict())
    assert copy.take(20) == order.take(20)
