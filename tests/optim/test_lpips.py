import types

import pytest
import torch

from vision3d.core.errors import FileFormatError, InputError, MissingFileError, ShapeError
from vision3d.optim import metrics
from vision3d.optim.lpips import LpipsNetwork, find_weights


def alexnet_features():
    """The layers of torchvision's AlexNet up to its classifier."""
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )


@pytest.fixture(scope="module")
def random_weights():
    torch.manual_seed(0)
    tensors = {f"features.{name}": p.detach() for name, p in alexnet_features().state_dict().items()}
    for i, channels in enumerate((64, 192, 384, 256, 256)):
        tensors[f"lin{i}.model.1.weight"] = torch.rand(1, channels, 1, 1)
    return tensors


def images():
    a = torch.rand(2, 70, 64, 3)
    return a, (a + 0.1 * torch.randn_like(a)).clamp(0, 1)


def test_the_network_equals_that_of_torchmetrics(random_weights, monkeypatch):
    oracle = pytest.importorskip("torchmetrics.functional.image.lpips")
    alexnet = types.SimpleNamespace(features=alexnet_features())
    monkeypatch.setattr(oracle, "_get_tv_model_features", lambda net, pretrained: alexnet.features)
    network = oracle._LPIPS(pretrained=False, net="alex", pnet_rand=True, use_dropout=True)
    backbone = {n.removeprefix("features."): p for n, p in random_weights.items() if n.startswith("features.")}
    alexnet.features.load_state_dict(backbone)
    heads = {name: p for name, p in random_weights.items() if name.startswith("lin")}
    assert not network.load_state_dict(heads, strict=False).unexpected_keys
    a, b = (image.movedim(-1, 1) for image in images())
    want = network(a, b, normalize=True).flatten()
    torch.testing.assert_close(LpipsNetwork(random_weights)(a, b), want.detach())


@pytest.mark.parametrize("kind", ["safetensors", "pt", "folder"])
def test_weights_are_read_from_files(random_weights, tmp_path, kind):
    from safetensors.torch import save_file

    heads = {name: p for name, p in random_weights.items() if name.startswith("lin")}
    backbone = {name: p for name, p in random_weights.items() if name not in heads}
    path = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(random_weights, path)
    elif kind == "pt":
        torch.save(random_weights, path)
    else:
        path.mkdir()
        save_file(backbone, path / "alexnet.safetensors")
        torch.save(heads, path / "heads.pth")
    a, b = images()
    assert metrics.lpips(a, a, path) == 0
    near, far = metrics.lpips(a, b, path), metrics.lpips(a, 1 - b, path)
    assert 0 < near < far


def test_without_weights_there_is_no_value(tmp_path, random_weights):
    a, b = images()
    with pytest.raises(InputError, match="LPIPS: backbone weights not found, give --lpips-weights"):
        metrics.lpips(a, b)
    with pytest.raises(MissingFileError, match=r"nothing\.pt: does not exist; want the LPIPS weights"):
        metrics.lpips(a, b, tmp_path / "nothing.pt")
    with pytest.raises(MissingFileError, match=r"safetensors: does not exist; want the LPIPS weights"):
        find_weights(tmp_path)
    (tmp_path / "broken.pt").write_bytes(b"no archive")
    with pytest.raises(FileFormatError, match=r"broken\.pt: is not a weights file"):
        find_weights(tmp_path / "broken.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(FileFormatError, match=r"list\.pt: want a mapping from names to tensors"):
        find_weights(tmp_path / "list.pt")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "shape.pt")
    with pytest.raises(FileFormatError, match=r"shape\.pt at features\.0\.weight: got shape \(3,\), want \(64, 3, 11"):
        find_weights(tmp_path / "shape.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(FileFormatError, match=r"empty\.pt at features\.0\.weight: is missing; want AlexNet"):
        find_weights(tmp_path / "empty.pt")
    small = torch.rand(1, 3, 31, 64)
    with pytest.raises(ShapeError, match=r"image: got shape \(31, 64, 3\), want 3 channels, at least 32x32"):
        LpipsNetwork(random_weights)(small, small)
