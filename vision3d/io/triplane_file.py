"""Triplanes as .safetensors."""

from pathlib import Path

from vision3d.core.errors import FileFormatError, InputError
from vision3d.io.described import read_described, write_described
from vision3d.scene.triplane import Triplane

KIND = "triplane"
_VERSION = 1
_DECODER = "decoder."


def write_triplane(path: Path | str, value: Triplane) -> None:
    """Write planes, decoder and matrix; float32 values are preserved bit by bit.

    Raises:
        InputError: A value is invalid.
    """
    value.validate()
    tensors = {"planes": value.planes, "matrix": value.matrix}
    tensors |= {_DECODER + name: tensor for name, tensor in value.decoder.items()}
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    write_described(path, KIND, _VERSION, {"num_density": value.num_density}, tensors)


def read_triplane(path: Path | str) -> Triplane:
    """Read a triplane.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged or contains something else.
    """
    path = Path(path)
    own, tensors = read_described(path, KIND, _VERSION, "a triplane", ("num_density",))
    if missing := [name for name in ("planes", "matrix") if name not in tensors]:
        raise FileFormatError(path, f"lacks {', '.join(missing)}", "header")
    if not isinstance(own["num_density"], int):
        raise FileFormatError(path, f"num_density: got {own['num_density']!r}, want an integer", "header")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    decoder = {name.removeprefix(_DECODER): value for name, value in tensors.items() if name.startswith(_DECODER)}
    try:
        return Triplane(tensors["planes"], decoder, own["num_density"], tensors["matrix"]).validate()
    except FileFormatError:
        raise
    except InputError as error:
        raise FileFormatError(path, str(error)) from error
