from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from tyro.conf import Positional

from vision3d.cli.app import UsageError
from vision3d.cli.options import RunOptions, Settings, option_names, parse
from vision3d.core.errors import ConfigError, MissingFileError


@dataclass(frozen=True)
class Optim:
    lr: float = 0.1
    """Rate."""
    is_fused: bool = True
    """Fused kernel."""


@dataclass(frozen=True)
class Config:
    steps: int = 10
    """Steps."""
    limit: int | None = None
    """Limit."""
    mode: Literal["3dgs", "2dgs"] = "3dgs"
    """Kind of Gaussians."""
    size: tuple[int, int] = (4, 5)
    """Width and height."""
    optim: Optim = Optim()

    def __post_init__(self):
        if self.steps < 1:
            raise ConfigError("steps", f"got {self.steps}, want at least 1")


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Fit things."""

    data: Positional[Path]
    """Folder of photos."""
    settings: Settings[Config] = field(default_factory=Config)


def test_defaults_and_flags():
    options = parse(Options, ["photos", "--steps", "3", "--optim.lr", "1e-3", "--optim.no-is-fused"], "try")
    assert options.data == Path("photos") and options.out is None
    assert options.settings == Config(steps=3, optim=Optim(1e-3, False))


def test_command_line_overrides_file_overrides_default(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("steps: 5\nmode: 2dgs\noptim: {lr: 0.5, is_fused: false}")
    options = parse(Options, ["photos", "--config", str(path), "--steps=7", "--optim.is-fused"], "try")
    assert options.settings == Config(7, None, "2dgs", (4, 5), Optim(0.5, True))
    assert options.config == str(path)


def test_wrong_file_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("optim: {rate: 1}")
    with pytest.raises(ConfigError, match=r"optim.rate: unknown; valid: is_fused, lr"):
        parse(Options, ["photos", "--config", str(path)], "try")
    with pytest.raises(MissingFileError, match="preset of nowhere: there is none"):
        parse(Options, ["photos", "--config", "fast"], "try", stage="nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing from vision3d try: PATH Folder of photos. (required)"),
        (["a", "--steps", "many"], "Error parsing --steps: invalid literal for int() with base 10: 'many'"),
        (["a", "--limit", "many"], "Error parsing --limit: invalid value 'many', want None or INT ("),
        (["a", "--steps", "0"], "steps: got 0, want at least 1"),
        (["a", "--mode", "4d"], "invalid choice '4d' for argument '--mode'. Expected one of ('3dgs', '2dgs')"),
        (["a", "--size", "1"], "Missing value for argument '--size'. Expected 2 values"),
        (["a", "--optim.rate", "1"], "--optim.rate: unknown option of vision3d try; did you mean "),
        (["a", "b"], "Unrecognized options: b"),
    ],
)
def test_every_error_is_one_line(arguments, message, capsys):
    with pytest.raises((UsageError, ConfigError)) as caught:
        parse(Options, arguments, "try")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert capsys.readouterr() == ("", "")


def test_help_shows_names_types_and_sentences(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], "try")
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "usage: vision3d try" in out and "--optim.lr FLOAT" in out and "Folder of photos" in out


def test_option_names():
    names = option_names(Options)
    assert {"--out", "--print-config", "--steps", "--optim.lr", "--optim.no-is-fused"} <= set(names)
    assert "--no-quiet" not in names and "--data" not in names


def test_arguments_after_two_dashes_are_not_options():
    assert parse(Options, ["--", "--photos"], "try").data == Path("--photos")
