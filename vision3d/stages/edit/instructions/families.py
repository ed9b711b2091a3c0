"""What can be asked for: the kinds of edits in 12 families, and the color words.

| family | kinds |
|---|---|
| color | color: 8 basic colors; further color words are measured by their color difference alone |
| lightness | darker, lighter |
| saturation | saturated, grey |
| stripes | stripes |
| checks | checks |
| dots | dots |
| gradient | gradient |
| wood | wood |
| marble | marble |
| metal | metallic, gold |
| finish | glossy, matte |
| unchanged | unchanged |
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from vision3d.core.errors import ConfigError, nearest_names
from vision3d.stages.edit.instructions.variation import USUAL, Variation

Kind = Literal[
    "color", "darker", "lighter", "saturated", "grey", "stripes", "checks", "dots", "gradient", "wood", "marble", "metallic",
    "gold", "glossy", "matte", "unchanged",
]  # fmt: skip
Part = Literal["top", "middle", "bottom"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PARTS: tuple[Part, ...] = get_args(Part)
"""Thirds of the object along its up axis."""
PATTERNS: tuple[Kind, ...] = ("stripes", "checks", "dots", "gradient")
"""Kinds whose colors can be given."""

FAMILIES: dict[str, tuple[Kind, ...]] = {
    "color": ("color",),
    "lightness": ("darker", "lighter"),
    "saturation": ("saturated", "grey"),
    "stripes": ("stripes",),
    "checks": ("checks",),
    "dots": ("dots",),
    "gradient": ("gradient",),
    "wood": ("wood",),
    "marble": ("marble",),
    "metal": ("metallic", "gold"),
    "finish": ("glossy", "matte"),
    "unchanged": ("unchanged",),
}

BASIC_COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 30, 35),
    "orange": (240, 130, 25),
    "yellow": (245, 215, 45),
    "green": (45, 150, 60),
    "blue": (35, 80, 200),
    "purple": (125, 50, 160),
    "pink": (245, 150, 185),
    "brown": (115, 70, 40),
}
"""sRGB values in 0..255."""
FINE_COLORS: dict[str, tuple[int, int, int]] = {
    "black": (28, 28, 30),
    "white": (243, 243, 241),
    "scarlet": (235, 50, 30),
    "maroon": (110, 20, 35),
    "coral": (250, 125, 95),
    "salmon": (245, 150, 125),
    "peach": (250, 205, 165),
    "amber": (250, 180, 20),
    "mustard": (205, 165, 45),
    "cream": (250, 240, 210),
    "beige": (225, 210, 180),
    "tan": (205, 170, 125),
    "chocolate": (85, 50, 30),
    "khaki": (185, 175, 120),
    "rust": (175, 75, 35),
    "lime": (165, 220, 40),
    "mint": (165, 230, 195),
    "emerald": (20, 155, 100),
    "forest green": (35, 95, 50),
    "turquoise": (60, 205, 195),
    "cyan": (30, 215, 235),
    "sky blue": (130, 195, 240),
    "navy": (25, 35, 95),
    "indigo": (65, 35, 135),
    "lavender": (200, 185, 235),
    "violet": (145, 75, 215),
    "plum": (120, 45, 100),
    "magenta": (215, 35, 150),
    "charcoal": (60, 62, 66),
    "dark red": (125, 15, 20),
    "dark green": (15, 80, 35),
    "dark blue": (20, 30, 115),
    "light green": (155, 220, 150),
    "light blue": (160, 200, 235),
}
"""Further color words with training phrasings."""
HELD_OUT_COLORS: dict[str, tuple[int, int, int]] = {
    "crimson": (190, 20, 60),
    "teal": (15, 125, 125),
    "olive": (115, 120, 40),
    "lilac": (195, 165, 210),
    "aqua": (95, 220, 215),
    "burgundy": (120, 15, 45),
    "fuchsia": (235, 50, 165),
    "terracotta": (200, 100, 70),
    "sand": (220, 195, 150),
    "jade": (40, 165, 120),
}
"""Color words that no training phrasing contains."""
MATERIAL_COLORS: dict[str, tuple[int, int, int]] = {
    "grey": (128, 128, 128),
    "gold": (212, 170, 55),
    "silver": (190, 192, 196),
}
"""Colors of patterns only: as an edit of the whole, grey, gold and silver are kinds of their own."""
COLORS: dict[str, tuple[int, int, int]] = {**BASIC_COLORS, **FINE_COLORS, **HELD_OUT_COLORS, **MATERIAL_COLORS}


@dataclass(frozen=True)
class Edit:
    """One edit of an object, or of a part of it.

    Raises:
        ConfigError: The values do not belong together.
    """

    kind: str
    """What to do: one of `KINDS`."""
    color: str | None = None
    """A key of `COLORS`. Of a pattern: the stripes, dots, every other check, or the upper end of the gradient; if None, white
    on dark objects and black on light ones."""
    second: str | None = None
    """Of a pattern: the ground or the lower end of the gradient; if None, the object's own colors."""
    part: str | None = None
    """One of `PARTS`, the third of the object that it applies to; None: all of it."""
    variation: Variation = USUAL
    """How it is done where no word says."""

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raise a ConfigError if a name is unknown or the values do not belong together."""
        for key, value, names in (
            ("kind", self.kind, KINDS),
            ("color", self.color, COLORS),
            ("second", self.second, COLORS),
            ("part", self.part, PARTS),
        ):
            if value not in names and (key == "kind" or value is not None):
                raise ConfigError(key, f"got {value!r}; {nearest_names(str(value), names)}")
        if self.kind == "color" and (self.color is None or self.color in MATERIAL_COLORS):
            kinds = {"grey": "kind grey", "gold": "kind gold", "silver": "kinds grey and metallic"}
            want = f"{kinds[self.color]} instead" if self.color else "a color word"
            raise ConfigError("color", f"got {self.color} for kind color, want {want}")
        if self.kind not in ("color", *PATTERNS) and self.color is not None:
            raise ConfigError("color", f"got {self.color} for kind {self.kind}, which has none; want None")
        if self.second is not None and (self.kind not in PATTERNS or self.color is None):
            raise ConfigError(
                "second", f"got {self.second} for kind {self.kind} and color {self.color}; want a pattern and a color"
            )
        if self.second is not None and self.second == self.color:
            raise ConfigError("second", f"got {self.second} twice, want two colors")

    @property
    def family(self) -> str:
        """The family of its kind."""
        return next(name for name, kinds in FAMILIES.items() if self.kind in kinds)

    def __str__(self) -> str:
        """Short text for reports: `red (top)`, `stripes: white on red`."""
        text = str(self.color) if self.kind == "color" else self.kind
        if self.kind == "gradient" and self.color:
            text += f": {self.second or 'own colors'} to {self.color}"
        elif self.kind in PATTERNS and self.color:
            text += f": {self.color}" + (f" on {self.second}" if self.second else "")
        return text + (f" ({self.part})" if self.part else "")


def color_srgb(name: str) -> tuple[float, float, float]:
    """sRGB values in [0, 1] of a color word."""
    red, green, blue = COLORS[name]
    return red / 255, green / 255, blue / 255


def basic_edits() -> list[Edit]:
    """Each basic color and each other kind, of the whole object: the classes of the accuracy."""
    colors = [Edit("color", name) for name in BASIC_COLORS]
    return [*colors, *(Edit(kind) for kind in KINDS if kind != "color")]


def fine_edits(*, held_out: bool = False) -> list[Edit]:
    """Each further color word, of the whole object."""
    return [Edit("color", name) for name in (HELD_OUT_COLORS if held_out else FINE_COLORS)]


def pattern_edits() -> list[Edit]:
    """Patterns in one basic color, or black or white, and some in two."""
    names = [*BASIC_COLORS, "black", "white"]
    one = [Edit(kind, name) for kind in PATTERNS for name in names]
    pairs = [
        ("black", "white"),
        ("red", "white"),
        ("blue", "yellow"),
        ("white", "green"),
        ("pink", "purple"),
        ("orange", "blue"),
    ]
    return one + [Edit(kind, *pair) for kind in PATTERNS for pair in pairs]


def part_edits() -> list[Edit]:
    """Each basic edit of each part, except for `unchanged`."""
    return [replace(edit, part=part) for edit in basic_edits() if edit.kind != "unchanged" for part in PARTS]


def all_edits() -> list[Edit]:
    """All single edits with training phrasings."""
    return [*basic_edits(), *fine_edits(), *pattern_edits(), *part_edits()]
