import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import example, given, strategies as st

from vision3d.core import config
from vision3d.core.errors import ConfigError, FileFormatError, MissingFileError


@dataclass(frozen=True)
class Optim:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self):
        if self.lr <= 0:
            raise ConfigError("lr", f"got {self.lr}, want more than 0")


@dataclass(frozen=True)
class Run:
    name: str = "run"
    steps: int = 100
    out: Path | None = None
    mode: Literal["3dgs", "2dgs", 4] = "3dgs"
    grow: bool = True
    sizes: tuple[int, ...] = (1, 2)
    tags: list[str] = field(default_factory=list)
    limit: int | str = 5
    optim: Optim = Optim()


@dataclass(frozen=True)
class Needs:
    data: Path
    steps: int = 1


values = st.builds(
    Run,
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12),
    steps=st.integers(),
    out=st.none() | st.sampled_from([Path("a/b"), Path("1e5"), Path("no"), Path("~")]),
    mode=st.sampled_from(["3dgs", "2dgs", 4]),
    grow=st.booleans(),
    sizes=st.lists(st.integers()).map(tuple),
    tags=st.lists(st.sampled_from(["null", "true", "1e-3", "2024-01-01", "x: y", "", "0x1f", "1:30", "- a", "yes"])),
    limit=st.integers() | st.text("ab1", min_size=1),
    optim=st.builds(Optim, lr=st.floats(1e-300, 1e300), betas=st.tuples(st.floats(0, 1), st.floats(0, 1))),
)


@given(values)
@example(Run(name="\x85", tags=["a\u2028b"]))
def test_yaml_round_trip(run):
    assert config.from_dict(Run, config._parse(config.dump_yaml(run), "text")) == run


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("optim: {lr: 1e-5}", Run(optim=Optim(lr=1e-5))),
        ("optim: {lr: 1}", Run(optim=Optim(lr=1.0))),
        ("name: on\nmode: 4", Run(name="on", mode=4)),
        ("name: 2024-01-01", Run(name="2024-01-01")),
        ("out: a/b\nsizes: [3]", Run(out=Path("a/b"), sizes=(3,))),
        ("out: null", Run()),
        ("", Run()),
    ],
)
def test_values(tmp_path, text, want):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert config.load_yaml(Run, path) == want


def test_keys_of_earlier_versions_warn():
    @dataclass(frozen=True)
    class Outer:
        RENAMED: ClassVar[dict[str, str]] = {"rate": "lr"}

        lr: float = 0.1
        optim: Optim = field(default_factory=Optim)

    with pytest.warns(DeprecationWarning, match="rate is now lr"):
        assert config.from_dict(Outer, {"rate": 0.5}) == Outer(lr=0.5)
    with pytest.raises(ConfigError, match="rate: is the earlier name of lr, which is set as well"):
        config.from_dict(Outer, {"rate": 0.5, "lr": 0.5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "stepz: unknown; did you mean steps?"),
        ("optim: {rate: 1}", "optim.rate: unknown; valid: betas, lr"),
        ("steps: 3.0", "steps: got 3.0, want a whole number"),
        ("steps: true", "steps: got True, want a whole number"),
        ("grow: yes", "grow: got 'yes', want true or false"),
        ("grow: 1", "grow: got 1, want true or false"),
        ("mode: 5dgs", "mode: got '5dgs', want one of '3dgs', '2dgs', 4"),
        ("optim: 3", "optim: got 3, want keys with values"),
        ("optim: {lr: fast}", "optim.lr: got 'fast', want a number"),
        ("optim: {lr: -1}", "optim.lr: got -1.0, want more than 0"),
        ("optim: {betas: [1]}", "optim.betas: got 1 values, want 2"),
        ("sizes: [1, x]", "sizes[1]: got 'x', want a whole number"),
        ("sizes: 3", "sizes: got 3, want a list of a whole number"),
        ("limit: 1.5", "limit: got 1.5, want a whole number or text"),
        ("out: 3", "out: got 3, want a path"),
    ],
)
def test_invalid_values(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load_yaml(Run, path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "key a is a duplicate"),
        ("!!python/object/apply:os.system ['false']", "could not determine a constructor"),
        ("a: [1", "line 1"),
        ("- 1", "want keys with values"),
        ("a: \x01", "is not YAML: unacceptable character #x0001"),
        ("a: " + 5000 * "[", "nested too deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(2000)), "nested too deep"),
        ("a: !!int text", "has a value that does not match its tag"),
        ("a: !!bool text", "has a value that does not match its tag"),
        ("a: !!timestamp 2020-99-99", "has a value that does not match its tag"),
        ("a: " + 5000 * "9", "has a value that does not match its tag"),
    ],
    ids=range(11),
)
def test_invalid_files(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message) as caught:
        config.load_yaml(Run, path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(FileFormatError, match="byte 3: is not UTF-8 text"):
        config.load_yaml(Run, path)


def test_integers_beyond_floats():
    with pytest.raises(ConfigError, match="lr: got 1000"):
        config.from_dict(Optim, {"lr": 10**400})


def test_missing_key_and_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="data: missing; it has no default"):
        config.from_dict(Needs, {"steps": 2})
    with pytest.raises(MissingFileError, match="does not exist; want a YAML file"):
        config.load_yaml(Run, tmp_path / "no.yaml")
    with pytest.raises(MissingFileError, match="preset of no_such_stage: there is none"):
        config.load_yaml(Run, "fast", stage="no_such_stage")


def test_presets_are_found(monkeypatch, tmp_path):
    (tmp_path / "configs" / "fit").mkdir(parents=True)
    (tmp_path / "configs" / "fit" / "fast.yaml").write_text("steps: 7")
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    assert list(config.presets("fit")) == ["fast"]
    assert config.load_yaml(Run, "fast", stage="fit").steps == 7
    with pytest.raises(MissingFileError, match="fit: fast"):
        config.load_yaml(Run, "slow", stage="fit")


def test_base_replaces_defaults():
    base = Run(steps=5, optim=Optim(lr=0.5))
    assert config.from_dict(Run, {"optim": {"betas": [0, 0]}}, base=base) == dataclasses.replace(
        base, optim=Optim(0.5, (0.0, 0.0))
    )


def test_diff_names_nested_keys():
    other = config.to_dict(Run(steps=3, optim=Optim(lr=2.0)))
    assert config.diff(Run(), other) == ["steps", "optim.lr"]
    assert config.diff(Run(), {**config.to_dict(Run()), "more": 1}) == ["more"]
    assert config.diff(Run(), Run()) == []


def test_dotted_keys():
    assert list(config.dotted_keys(Run))[-2:] == ["optim.lr", "optim.betas"]
