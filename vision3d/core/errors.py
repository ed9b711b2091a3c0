"""Errors for users: what was found, what was expected, what to do. Each has the exit code of the command line."""

from collections.abc import Iterable
from pathlib import Path

from vision3d.core.install import install_command


class Vision3DError(Exception):
    """Base of all errors that vision3d raises on purpose.

    Attributes:
        exit_code: Exit code of the command line: 1 run failed, 2 usage, 3 wrong input, 4 missing dependency or backend,
            5 would overwrite.
    """

    exit_code = 1


class InputError(Vision3DError, ValueError):
    """Input that cannot be used: too few views, an empty scene, values that are not finite."""

    exit_code = 3


class ShapeError(InputError):
    """A tensor has the wrong shape or dtype."""

    def __init__(self, name: str, got: object, want: object) -> None:
        super().__init__(f"{name}: got {_shape_text(got)}, want {_shape_text(want)}")
        self.name, self.got, self.want = name, got, want


class FileFormatError(InputError):
    """A file does not match its suffix, is damaged, or contains invalid values."""

    def __init__(self, path: Path | str, problem: str, where: object = None) -> None:
        place = "" if where is None else f" at {'byte ' if isinstance(where, int) else ''}{where}"
        super().__init__(f"{path}{place}: {problem}")
        self.path, self.where, self.problem = Path(path), where, problem


class MissingFileError(InputError, FileNotFoundError):
    """A given file or folder does not exist."""

    def __init__(self, path: Path | str, want: str = "an existing file or folder") -> None:
        Exception.__init__(self, f"{path}: does not exist; want {want}")
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.args[0])


class ConfigError(Vision3DError, ValueError):
    """A configuration key is unknown or has an invalid value."""

    exit_code = 2

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem


class DeviceError(Vision3DError, RuntimeError):
    """Tensors are on different devices, or the requested device is not available."""

    exit_code = 4


class BackendError(Vision3DError, RuntimeError):
    """The requested backend does not support this, or is not built."""

    exit_code = 4


class MissingDependencyError(Vision3DError, ImportError):
    """An optional package is required."""

    exit_code = 4

    def __init__(self, package: str, extra: str, purpose: str = "this") -> None:
        super().__init__(f"{package} is needed for {purpose}: {install_command(extra)}")
        self.package, self.extra = package, extra


class PluginError(Vision3DError, ImportError):
    """A plugin of another package cannot be loaded."""

    exit_code = 4


class NumericalError(Vision3DError, ArithmeticError):
    """A value that must be finite is not."""

    def __init__(self, step: int, quantity: str, hint: str = "") -> None:
        super().__init__(f"step {step}: {quantity} is not finite{'. ' + hint if hint else ''}")
        self.step, self.quantity = step, quantity


class OutputExistsError(Vision3DError, FileExistsError):
    """The output already exists."""

    exit_code = 5

    def __init__(self, path: Path | str, hint: str = "give --overwrite, --resume or another --out") -> None:
        self.path = Path(path)
        Exception.__init__(self, f"{path}: exists{'' if self.path.is_file() else ' and is not empty'}; {hint}")

    def __str__(self) -> str:
        return str(self.args[0])


class RunInUseError(OutputExistsError):
    """Another process works in this run folder."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path = Path(path)
        Exception.__init__(self, f"{path}: {problem}")


def nearest_names(name: str, valid: Iterable[str], count: int = 3) -> str:
    """The valid names closest to `name`, for an error message."""
    import difflib

    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, count, 0.7) or difflib.get_close_matches(name, valid, count, 0.4)
    return f"did you mean {', '.join(close)}?" if close else f"valid: {', '.join(valid)}"


def _shape_text(shape: object) -> str:
    return f"shape {tuple(shape)}" if isinstance(shape, tuple | list) else str(shape)
