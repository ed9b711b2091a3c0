"""Tensors with a description as .safetensors: the header's metadata has `vision3d`, JSON with type, version and more."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vision3d.core.atomic import atomic_write
from vision3d.core.errors import FileFormatError, MissingFileError


def write_described(
    path: Path | str, kind: str, version: int, description: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors and what they are, whole or not at all.

    Args:
        path: The file.
        kind: What it holds, such as `digit_classifier`.
        version: Of the layout.
        description: More that JSON can hold.
        tensors: By name.
    """
    from safetensors.torch import save

    own = {"type": kind, "version": version, **description}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(plain, {"vision3d": json.dumps(own)}))


def read_described(
    path: Path | str, kind: str, version: int, words: str, keys: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file.

    Args:
        path: The file.
        kind: What it must hold.
        version: The layout that it must have.
        words: The same as `kind` for people, such as `a classifier`.
        keys: What the description must have besides.

    Raises:
        MissingFileError: There is no such file.
        FileFormatError: It is damaged or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(path, f"{words} (.safetensors)")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError, OverflowError) as error:
        raise FileFormatError(
            path, f"is damaged or not a .safetensors file ({str(error).splitlines()[0]})", "header"
        ) from error
    try:
        own = json.loads(metadata["vision3d"])
        found = own["type"], own["version"]
        if found == (kind, version):
            return {key: own[key] for key in keys}, tensors
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(path, f"does not declare that it holds {words} of vision3d", "header") from error
    text = f"holds {found[0]!r}, version {found[1]!r}; want {kind!r}, version {version}"
    raise FileFormatError(path, text, "header")
