"""TripoSR in a folder of the user's: config.yaml and model.safetensors, checked name by name."""

from pathlib import Path

import torch
from torch import Tensor

from vision3d.core.errors import FileFormatError, InputError, MissingFileError
from vision3d.core.machine import free_memory
from vision3d.stages.edit.lrm.sizes import VitSizes, read_sizes
from vision3d.stages.edit.lrm.triposr import TripoSR
from vision3d.training.weights import check_layout

WEIGHTS, CONFIG = "model.safetensors", "config.yaml"
LICENSE = "MIT, by the model card of TripoSR (Tripo AI and Stability AI)"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_CONVERT = (
    'python -c "import torch, safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in '
    "torch.load('NAME', weights_only=True).items()}, 'model.safetensors')\""
)
_VIT = "image_tokenizer.model."
_PATCHES, _POSITIONS = f"{_VIT}embeddings.patch_embeddings.projection.weight", f"{_VIT}embeddings.position_embeddings"
_MLP = f"{_VIT}encoder.layer.0.intermediate.dense.weight"
_COPIES, _SHARE = 2, 0.9  # of the file in memory while it is loaded; of the free memory


def load_lrm(folder: Path | str) -> TripoSR:
    """Load TripoSR in evaluation mode.

    Args:
        folder: With config.yaml, and model.safetensors in the layout of the published model.ckpt.

    Raises:
        MissingFileError: The folder or one of its files does not exist.
        FileFormatError: The weights are a pickle or damaged, or names or shapes differ; the message lists them.
        InputError: There is not enough memory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if folder.exists():
            raise FileFormatError(folder, f"is a file, want a folder with {CONFIG} and {WEIGHTS}")
        raise MissingFileError(folder, f"a folder with {CONFIG} and {WEIGHTS}")
    path = _weights(folder)
    need, free = _COPIES * path.stat().st_size, free_memory()
    if free is not None and need > _SHARE * free:
        raise InputError(f"{path}: needs {need / 1e9:.2g} GB, {free / 1e9:.2g} GB are free; want more free memory")
    tensors = _tensors(path)
    sizes = read_sizes(folder / CONFIG, _vit(path, tensors))
    with torch.device("meta"):
        network = TripoSR(sizes)
    check_layout(network, tensors, path)
    network.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


def license_of(folder: Path | str) -> str:
    """The license of the weights: the first line of a file LICENSE in the folder, else that of the model card."""
    for path in sorted(Path(folder).glob("LICENSE*")):
        lines = [line.strip() for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
        if lines:
            return f"{lines[0][:80]} ({path.name})"
    return LICENSE


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if path.is_file():
        return path
    pickles = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICKLES)
    if pickles:
        raise FileFormatError(
            pickles[0],
            f"is a pickle, which can run code when it is loaded; want {WEIGHTS}, in the folder: "
            + _CONVERT.replace("NAME", pickles[0].name),
        )
    raise MissingFileError(path, "weights of TripoSR")


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError, OverflowError) as error:
        text = f"is damaged or not a .safetensors file ({str(error).splitlines()[0]})"
        raise FileFormatError(path, text, "header") from error
    for name, value in tensors.items():
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise FileFormatError(path, f"{name}: has values that are not finite numbers", name)
    return tensors


def _vit(path: Path, tensors: dict[str, Tensor]) -> VitSizes:
    """Sizes of the encoder of images from its shapes; those of ViT-B/16 where they cannot be."""
    usual = VitSizes()
    patches, positions, mlp = (tensors.get(name) for name in (_PATCHES, _POSITIONS, _MLP))
    if patches is None or positions is None or mlp is None or patches.ndim != 4 or positions.ndim != 3 or mlp.ndim != 2:
        return usual  # `check_layout` lists what is missing
    numbers = {name.removeprefix(f"{_VIT}encoder.layer.").split(".")[0] for name in tensors if f"{_VIT}encoder.layer." in name}
    grid = round((positions.shape[1] - 1) ** 0.5)
    if grid**2 + 1 != positions.shape[1] or patches.shape[0] % usual.head:
        return usual
    return VitSizes(patches.shape[0], len(numbers), mlp.shape[0], patches.shape[2], grid)
