"""What a run folder records about itself, read without torch: that it is one, its configuration, its verb and inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vision3d.core.atomic import atomic_write
from vision3d.core.config import dump_plain, read_yaml
from vision3d.core.errors import FileFormatError

CONFIG_FILE, INPUTS_FILE = "config.yaml", "inputs.yaml"
HEADER = "# vision3d run, version "


def is_run_folder(path: Path | str) -> bool:
    """Whether a folder is a run folder, by the first line of its config.yaml."""
    try:
        with (Path(path) / CONFIG_FILE).open(encoding="utf-8") as file:
            return file.readline().startswith(HEADER)
    except (OSError, UnicodeDecodeError):
        return False


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run, so that it can be resumed without giving them again."""

    verb: str | None = None
    """For example `fit` or `animate rig`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Each input given as a path (absolute), a string, a flag, None, or a list of paths or strings."""
    from_python: tuple[str, ...] = ()
    """Names of inputs that were objects in memory, not files."""

    @classmethod
    def of(cls, verb: str, inputs: Mapping[str, Any]) -> "RunInputs":
        """Make paths absolute; of objects only the name is recorded."""
        values = {name: _plain(value) for name, value in inputs.items()}
        objects = tuple(name for name, value in values.items() if value is _OBJECT)
        return cls(verb, {name: value for name, value in values.items() if value is not _OBJECT}, objects)

    @classmethod
    def read(cls, folder: Path) -> "RunInputs":
        """Read the inputs of a run folder; empty if it does not record them.

        Raises:
            FileFormatError: inputs.yaml is damaged.
        """
        path = folder / INPUTS_FILE
        if not path.is_file():
            return cls()
        content = read_yaml(path)
        verb, values, objects = (content.get(name) for name in ("verb", "inputs", "from_python"))
        if not isinstance(verb, str) or not isinstance(values, dict) or not isinstance(objects, list):
            raise FileFormatError(path, "has no verb, inputs and from_python")
        return cls(verb, values, tuple(map(str, objects)))

    def write(self, folder: Path) -> None:
        """Write inputs.yaml."""
        content = {"verb": self.verb, "inputs": dict(self.values), "from_python": list(self.from_python)}
        with atomic_write(folder / INPUTS_FILE) as temporary:
            temporary.write_text(dump_plain(content), "utf-8")


_OBJECT = object()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(item, Path | str) for item in value):
        return [_plain(item) for item in value]
    return _OBJECT
