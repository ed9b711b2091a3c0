"""Small sets of digits for tests, drawn with PIL's own font, in foreign file formats."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import torch

from vision3d.io.digits import Digits


def drawn_digits(count: int = 120, seed: int = 0) -> Digits:
    """`count` digits of 28 x 28, each slightly different."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28), np.uint8)
    for i in range(count):
        image = Image.new("L", (28, 28))
        draw = ImageDraw.Draw(image)
        place = tuple(14 + rng.uniform(-1, 1, 2))
        draw.text(place, str(i % 10), fill=255, font=ImageFont.load_default(int(rng.integers(18, 23))), anchor="mm")
        noise = rng.integers(0, 30, (28, 28), np.uint8)
        images[i] = np.maximum(np.asarray(image), noise + 30) - noise - 30  # all different, black stays black
    return Digits(torch.from_numpy(images.astype(np.float32) / 255), torch.arange(count) % 10, "drawn")


def write_idx(folder: Path, digits: Digits) -> Path:
    """Writes `train-images-idx3-ubyte` and its labels; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = (digits.images * 255).round().byte().numpy()
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", *pixels.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
    labels = digits.labels.numpy().astype(np.uint8)
    (folder / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels)) + labels.tobytes())
    return folder


def npm_files(digits: Digits) -> dict[str, bytes]:
    """The ten JSON files of the npm package."""
    rows = {str(d): digits.images[digits.labels == d].flatten().tolist() for d in range(10)}
    return {name: json.dumps({"data": values}).encode() for name, values in rows.items()}


def write_npm(path: Path, files: dict[str, bytes]) -> Path:
    """Writes a tarball in the layout of npm."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"package/src/digits/{name}.json")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_affnist(path: Path, images: np.ndarray, labels: np.ndarray, **fields: np.ndarray) -> Path:
    """Writes a .mat in the layout of affNIST: images (n, 40, 40) of bytes, column by column."""
    from scipy.io import savemat

    columns = images.transpose(2, 1, 0).reshape(1600, -1)
    savemat(path, {"affNISTdata": {"image": columns, "label_int": labels[None].astype(np.uint8), **fields}})
    return path
