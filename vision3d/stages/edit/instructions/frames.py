"""Frames, names and connectors that phrasings are made of. Held-out ones differ from those for training in verb and frame.

`{it}` is an object or a part of it, `{x}` a color or pattern, `{c}` the colors of a pattern.
"""

OBJECTS: dict[str, tuple[str, ...]] = {
    "training": (
        "it", "it", "it", "this", "the object", "the thing", "the vase", "the box", "the chair", "the lamp", "the cup",
        "my model",
    ),
    "held_out": ("it", "that", "the item", "the mug", "the table", "the statue", "the bottle", "our shape"),
}  # fmt: skip
"""What is edited."""
PART_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "training": {
        "top": ("the top", "the top of {it}", "the top part", "the upper part of {it}"),
        "middle": ("the middle", "the middle of {it}", "the middle part", "the central part of {it}"),
        "bottom": ("the bottom", "the bottom of {it}", "the bottom part", "the lower part of {it}"),
    },
    "held_out": {
        "top": ("the upper third", "the top section of {it}"),
        "middle": ("the middle third", "the center of {it}", "the midsection"),
        "bottom": ("the lower third", "the bottom section of {it}", "the base of {it}"),
    },
}  # fmt: skip
"""Names of the parts."""
FRAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "training": {
        "color": (
            "make {it} {x}", "paint {it} {x}", "turn {it} {x}", "{color_verb} {it} {x}",
            "change the {color_word} of {it} to {x}", "change {it} to {x}", "{it} should be {x}", "i want {it} {x}",
            "make {it} look {x}", "{it} in {x}", "set the {color_word} of {it} to {x}",
        ),
        "darker": (
            "make {it} darker", "darken {it}", "turn {it} darker", "{it} should be darker", "make {it} a lot darker",
            "i want {it} darker", "make the {color_word}s of {it} darker", "{it} is too bright",
        ),
        "lighter": (
            "make {it} lighter", "lighten {it}", "turn {it} lighter", "{it} should be lighter", "make {it} brighter",
            "brighten {it}", "i want {it} lighter", "make the {color_word}s of {it} lighter", "{it} is too dark",
        ),
        "saturated": (
            "make {it} more saturated", "make {it} more vivid", "saturate {it}", "make the {color_word}s of {it} more vivid",
            "make {it} more {color_word}ful", "{it} should be more saturated", "increase the saturation of {it}",
        ),
        "grey": (
            "make {it} {grey}", "turn {it} {grey}", "paint {it} {grey}", "desaturate {it}",
            "remove the {color_word} from {it}", "{it} should be {grey}", "make {it} {grey}scale", "i want {it} {grey}",
        ),
        "pattern": (
            "add {x}", "add {x} to {it}", "put {x} on {it}", "give {it} {x}", "cover {it} with {x}", "paint {x} on {it}",
            "i want {x} on {it}", "{it} should have {x}", "{it} with {x}",
        ),
        "gradient": (
            "add {x}", "add {x} to {it}", "give {it} {x}", "color {it} with {x}", "paint {x} on {it}", "i want {x} on {it}",
            "{it} should have {x}", "{it} with {x}",
        ),
        "wood": (
            "make {it} wooden", "make {it} look like wood", "turn {it} into wood", "{it} should be made of wood",
            "make {it} out of wood", "i want {it} wooden", "{it} in wood", "change the material of {it} to wood",
        ),
        "marble": (
            "make {it} look like marble", "turn {it} into marble", "{it} should be made of marble", "make {it} out of marble",
            "make {it} marble", "{it} in marble", "i want {it} in marble", "change the material of {it} to marble",
        ),
        "metallic": (
            "make {it} metallic", "turn {it} metallic", "make {it} look metallic", "{it} should be metallic",
            "i want {it} metallic", "make {it} look like metal", "turn {it} into metal", "make {it} out of metal",
            "change the material of {it} to metal",
        ),
        "gold": (
            "make {it} gold", "make {it} golden", "turn {it} into gold", "make {it} look like gold",
            "{it} should be made of gold", "make {it} out of gold", "paint {it} gold", "{it} in gold",
            "change the material of {it} to gold",
        ),
        "glossy": (
            "make {it} glossy", "make {it} shiny", "turn {it} glossy", "turn {it} shiny", "make {it} look glossy",
            "make {it} look shiny", "{it} should be glossy", "{it} should be shiny", "i want {it} glossy", "i want {it} shiny",
            "polish {it}", "make {it} more glossy",
        ),
        "matte": (
            "make {it} matte", "turn {it} matte", "make {it} look matte", "{it} should be matte", "i want {it} matte",
            "make {it} less shiny", "make {it} dull", "give {it} a matte finish",
        ),
        "unchanged": (
            "leave {it} as it is", "do not change anything", "keep {it} as it is", "change nothing", "leave {it} alone",
            "keep {it} the same", "don't change {it}", "no change", "leave {it} unchanged",
        ),
    },
    "held_out": {
        "color": (
            "dye {it} {x}", "could you tint {it} {x}?", "give {it} a {x} coat", "{it} would look nicer in {x}",
            "switch {it} over to {x}", "recolor {it} {x}", "have {it} appear {x}",
        ),
        "darker": ("dim {it}", "{it} needs a darker shade", "lower the brightness of {it}", "could {it} be darker?"),
        "lighter": (
            "{it} needs a lighter shade", "raise the brightness of {it}", "could {it} be brighter?",
            "have {it} appear lighter",
        ),
        "saturated": (
            "boost the {color_word}s of {it}", "{it} needs stronger {color_word}s", "could {it} be more vibrant?",
            "intensify the {color_word}s of {it}",
        ),
        "grey": (
            "drain the {color_word} from {it}", "convert {it} to {grey}scale", "could {it} be {grey}?",
            "take away all {color_word}s of {it}",
        ),
        "pattern": (
            "decorate {it} with {x}", "draw {x} across {it}", "{it} needs {x}", "apply {x} to {it}", "could {it} get {x}?",
        ),
        "gradient": ("decorate {it} with {x}", "{it} needs {x}", "apply {x} to {it}", "could {it} get {x}?"),
        "wood": (
            "have {it} carved from wood", "give {it} a wooden texture", "could {it} be wooden?", "apply a wood grain to {it}",
        ),
        "marble": (
            "have {it} carved from marble", "give {it} a marble texture", "could {it} be of marble?",
            "apply a marbled surface to {it}",
        ),
        "metallic": (
            "give {it} a metallic appearance", "could {it} be metallic?", "have {it} cast in metal", "coat {it} in metal",
        ),
        "gold": ("gild {it}", "coat {it} in gold", "could {it} be golden?", "have {it} cast in gold"),
        "glossy": ("give {it} a glossy coating", "could {it} be shinier?", "apply gloss to {it}", "varnish {it}"),
        "matte": (
            "apply a flat, matte surface to {it}", "could {it} be matte?", "take the shine off {it}", "have {it} appear matte",
        ),
        "unchanged": ("don't touch {it}", "{it} is fine already", "preserve {it}", "{it} can stay how it looks now"),
    },
}  # fmt: skip
"""By kind; `pattern` are stripes, checks and dots."""
PATTERN_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "training": {
        "stripes": ("{c} stripes", "a {c} striped pattern", "{c} stripes"),
        "checks": ("{c} checks", "a {c} checkered pattern", "a {c} checkerboard"),
        "dots": ("{c} dots", "{c} polka dots", "a {c} dotted pattern"),
        "gradient": ("a gradient", "a {color_word} gradient"),
    },
    "held_out": {
        "stripes": ("{c} bands", "{c} striping"),
        "checks": ("a {c} chequered design", "a {c} chessboard pattern"),
        "dots": ("{c} spots", "a {c} polka dot design"),
        "gradient": ("a smooth {color_word} transition", "a {color_word} fade"),
    },
}  # fmt: skip
"""Names of the patterns."""
CONNECTORS: dict[str, tuple[str, ...]] = {
    "training": ("{a} and {b}", "{a}, then {b}", "{a} and then {b}", "{a}. {B}", "{a} and also {b}"),
    "held_out": ("{a}; after that {b}", "first {a}, afterwards {b}", "{a}, and finally {b}", "{a} plus {b}"),
}  # fmt: skip
"""Between two edits; `{B}` starts a sentence."""
