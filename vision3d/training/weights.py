"""Trained weights with a model card: contents, training, and results."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Self, TypeVar

from torch import Tensor, nn

from vision3d import __version__
from vision3d.core import config as configuration
from vision3d.core.errors import ConfigError, FileFormatError, InputError, MissingFileError
from vision3d.core.inside import inside
from vision3d.core.machine import git_hash
from vision3d.io.described import read_described, write_described

_VERSION = 1
_FOLDER = "weights"  # folder in the assets
_SHOWN = 5
_PART = "weights part"
_HEADER = 65536  # room for the names in a file


Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Card:
    """Model card of a weights file."""

    kind: str
    """Kind of network, such as `digit_classifier`."""
    config: dict[str, Any]
    """Arguments to build the network."""
    data: str
    """Training data."""
    seed: int
    """Seed of the training."""
    cpu_hours: float
    """CPU time of the training, all sessions together."""
    command: str = ""
    """Command line of the training."""
    figures: dict[str, float | str] = field(default_factory=dict)
    """Results, with the data that they were measured on."""
    licence: str = "Apache-2.0"
    """Licence of the weights."""
    about: dict[str, Any] = field(default_factory=dict)
    """Further entries of the stage."""
    vision3d: str = __version__
    """Version of vision3d that wrote it."""
    git: str | None = None
    """Commit of vision3d that wrote it."""

    @classmethod
    def of_now(cls, kind: str, **values: Any) -> Self:
        """A card with the command and commit of this process."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        return cls(kind, **{"command": command, "git": git_hash(), **values})

    def markdown(self) -> str:
        """The card as a Markdown table."""
        rows = {**dataclasses.asdict(self), "figures": ", ".join(f"{name} {value}" for name, value in self.figures.items())}
        rows["cpu_hours"] = f"{self.cpu_hours:.3g}"
        lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value not in ("", None, {})]
        return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def save_weights(path: Path | str, card: Card, tensors: Mapping[str, Tensor], *, most_bytes: int | None = None) -> None:
    """Write weights with their card as .safetensors atomically.

    Args:
        path: The file.
        card: Its card.
        tensors: By name.
        most_bytes: Put tensors into more files beside it, PATH.part2 and so on, so that none is larger; no tensor may
            be larger by itself. None: one file.

    Raises:
        InputError: A tensor is larger than `most_bytes`.
    """
    path = Path(path)
    parts = [dict(tensors)] if most_bytes is None else _parts(tensors, most_bytes - _HEADER)
    names = [f"{path.name}.part{number}" for number in range(2, len(parts) + 1)]
    more = {"parts": names, "digest": digest_of(tensors)[:16]} if names else {}
    for name, part in zip(names, parts[1:]):
        write_described(path.with_name(name), _PART, _VERSION, {"digest": more["digest"]}, part)
    write_described(path, "weights", _VERSION, {"card": dataclasses.asdict(card), **more}, parts[0])


def load_weights(source: Path | str, kind: str) -> tuple[Card, dict[str, Tensor]]:
    """Load the card and the tensors of a file.

    Args:
        source: A file, or the name of bundled weights (`digits` is assets/weights/digits.safetensors).
        kind: Expected kind.

    Raises:
        MissingFileError: Neither a file nor the name of bundled weights.
        FileFormatError: It is damaged or contains something else.
    """
    path = find_weights(source)
    own, tensors = read_described(path, "weights", _VERSION, "weights", ("card",), ("parts", "digest"))
    for name in own.get("parts", ()):
        part = inside(path, str(name))
        described, more = read_described(part, _PART, _VERSION, f"a part of the weights {path.name}", ("digest",))
        if described["digest"] != own.get("digest"):
            raise FileFormatError(part, f"is a part of other weights than {path.name}")
        tensors |= more
    names = {entry.name for entry in dataclasses.fields(Card)}
    values = own["card"]
    try:
        card = Card(**{name: value for name, value in values.items() if name in names})
    except (TypeError, AttributeError) as error:
        raise FileFormatError(path, f"has an unknown card ({error})", "header") from error
    if not all(isinstance(value, dict) for value in (card.config, card.figures, card.about)):
        raise FileFormatError(path, "has an unknown card", "header")
    if card.kind != kind:
        raise FileFormatError(path, f"holds weights of {card.kind!r}, want {kind!r}", "header")
    return card, tensors


def bundled_weights() -> dict[str, Path]:
    """The bundled weights: name -> file."""
    folder = Path(str(files("vision3d") / "assets" / _FOLDER))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def find_weights(source: Path | str) -> Path:
    """The file for a path or a name.

    Raises:
        MissingFileError: The file does not exist.
    """
    path = Path(source)
    if path.is_file():
        return path
    bundled = bundled_weights()
    if str(source) in bundled:
        return bundled[str(source)]
    raise MissingFileError(path, f"weights (.safetensors), or the name of bundled ones ({', '.join(bundled) or 'none'})")


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Load the tensors of a file into a network.

    Raises:
        FileFormatError: Names or shapes differ; the message lists them.
    """
    check_layout(network, tensors, path)
    network.load_state_dict(dict(tensors))


def check_layout(network: nn.Module, tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Check that the tensors of a file are those of a network, which may be on the meta device.

    Raises:
        FileFormatError: Names or shapes differ; the message lists them.
    """
    own = network.state_dict()
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    ]
    problems = {"lacks": sorted(own.keys() - tensors.keys()), "has unexpected keys": sorted(tensors.keys() - own.keys())}
    problems["has different shapes"] = sorted(shapes)
    texts = [f"{words}: {listed(names)}" for words, names in problems.items() if names]
    if texts:
        raise FileFormatError(path, "does not match its network; " + "; ".join(texts))


def in_half(network: nn.Module) -> dict[str, Tensor]:
    """The parameters as a small file holds them: float16."""
    return {
        name: (value.half() if value.is_floating_point() else value).detach().clone()
        for name, value in network.state_dict().items()
    }


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values, to detect files that do not belong together."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_network(
    source: Path | str, kind: str, config_type: type[Config], make: Callable[[Config], Network]
) -> tuple[Network, Config, Card]:
    """A network in evaluation mode from a file that describes its configuration, floats as float32.

    Args:
        source: A file, or the name of bundled weights.
        kind: That of the card.
        config_type: Dataclass of the configuration.
        make: Makes the network of a configuration.

    Raises:
        MissingFileError: The file does not exist.
        FileFormatError: It is damaged, contains something else, or does not match its configuration; differing keys are listed.
    """
    path = find_weights(source)
    card, tensors = load_weights(path, kind)
    try:
        config = configuration.from_dict(config_type, card.config)
    except ConfigError as error:
        raise FileFormatError(path, f"does not match its description ({error})") from error
    network = make(config)
    load_strictly(network, {name: v.float() if v.is_floating_point() else v for name, v in tensors.items()}, path)
    return network.eval(), config, card


def _parts(tensors: Mapping[str, Tensor], most_bytes: int) -> list[dict[str, Tensor]]:
    """Tensors in the order of their names, in as few parts as that allows."""
    parts: list[dict[str, Tensor]] = [{}]
    used = 0
    for name in sorted(tensors):
        size = tensors[name].numel() * tensors[name].element_size()
        if size > most_bytes:
            raise InputError(f"most_bytes: {name} alone has {size} bytes, want at least {size + _HEADER}")
        if used + size > most_bytes:
            parts.append({})
            used = 0
        parts[-1][name] = tensors[name]
        used += size
    return parts


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {item}" for name, item in value.items())
    return str(value).replace("|", "\\|")
