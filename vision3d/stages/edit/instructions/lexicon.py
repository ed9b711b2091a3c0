"""The words of instructions: colors, kinds of edits, parts, and what they are said with; and words of other requests."""

from vision3d.stages.edit.instructions.families import BASIC_COLORS, COLORS, MATERIAL_COLORS

Tagged = tuple[str, str]
"""Tag and value."""


def _rows(tag: str, rows: dict[str, str]) -> dict[str, Tagged]:
    return {word: (tag, value) for value, words in rows.items() for word in words.split(", ")}


COLOR_ALIASES = {
    "navy blue": "navy",
    "midnight blue": "navy",
    "lime green": "lime",
    "mint green": "mint",
    "emerald green": "emerald",
    "olive green": "olive",
    "jade green": "jade",
    "aquamarine": "aqua",
    "whiten": "white",
    "blacken": "black",
    "redden": "red",
    "fuschia": "fuchsia",
    "mauve": "lilac",
    "purplish red": "burgundy",
    "deep red": "dark red",
    "deep green": "dark green",
    "deep blue": "dark blue",
    "pale green": "light green",
    "pale blue": "light blue",
    "baby blue": "light blue",
    "snow white": "white",
    "pure white": "white",
    "jet black": "black",
    "pitch black": "black",
}
MODIFIERS = ("dark", "light", "pale", "deep", "bright", "pastel", "neon", "reddish", "bluish", "greenish", "yellowish")
"""Words that change the color after them. `bright` is left out with a note; the others need a color word of their own
(`dark red`)."""
HARMLESS_MODIFIERS = ("bright",)
SUBSTANCES = (
    "rust",
    "sand",
    "chocolate",
    "cream",
    "plum",
    "salmon",
    "coral",
    "peach",
    "lime",
    "mint",
    "mustard",
    "amber",
    "jade",
)
"""Color words that are things, too: "add rust" does not ask for a color."""

KIND_WORDS = _rows(
    "kind",
    {
        "darker": (
            "darker, darken, darkened, dim, dimmer, less bright, too bright, too light, too pale, tone down, tone it down"
        ),
        "lighter": (
            "lighter, lighten, lighten up, lightened, brighter, brighten, brighten up, brightened, less dark, too dark, paler"
        ),
        "saturated": "saturated, saturate, vivid, vibrant, colorful, colourful, intense, intensify, richer, pop, more color, "
        "more colour, stronger, stronger color, stronger colors, stronger colour, stronger colours, livelier, punchy, punchier",
        "grey": (
            "greyscale, grayscale, grey scale, gray scale, desaturate, desaturated, monochrome, colorless, colourless, no "
            "color, no colour, no colors, no colours, without color, without colour, without colors, without colours, black "
            "and white"
        ),
        "stripes": "stripe, stripes, striped, stripy, stripey, striping, bands, banded",
        "checks": "checks, checkered, checked, chequered, checkerboard, chequerboard, chessboard, checker, checkers",
        "dots": "dot, dots, dotted, polka dot, polka dots, polka dotted, polkadot, polkadots, spots, spotted",
        "gradient": (
            "gradient, gradients, ombre, color fade, colour fade, fade, color transition, colour transition, transition"
        ),
        "wood": "wood, wooden, timber, wood grain",
        "marble": "marble, marbled",
        "metallic": "metal, metallic",
        "gold": "golden, gild, gilded, gold plated",
        "glossy": (
            "glossy, glossier, gloss, high gloss, shiny, shinier, polish, polished, varnish, varnished, lacquered, too dull, "
            "too matte, less matte, less dull"
        ),
        "matte": (
            "matte, matt, dull, duller, flat, less shiny, less glossy, less shine, less gloss, too shiny, too glossy, not "
            "shiny, not glossy, no shine, no gloss, without shine, without gloss"
        ),
        "unchanged": (
            "unchanged, as it is, as is, as they are, the way it is, how it is, the same, like it is, do nothing, nothing, "
            "change nothing, leave it alone, leave alone, do not change, do not touch, do not edit, do not alter, do not "
            "change anything, do not touch anything, do not edit anything, do not do anything, no change, no changes, no "
            "edit, leave it, keep it, is fine, is fine already, is good already, is good as it is, is good, alone, leave the "
            "rest, keep the rest, preserve, preserve it, how it looks now"
        ),
    },
)
NEAR_KINDS = _rows(
    "near",
    {
        "wood": "oak, pine, walnut, mahogany, teak, birch",
        "metallic": "steel, chrome, iron, aluminium, aluminum, tin, nickel, titanium",
        "gold": "brass, bronze",
    },
)
"""Materials that are done as the nearest known one, with a note."""
PART_WORDS = _rows(
    "part",
    {
        "top": (
            "top, top part, top third, top section, top end, upper part, upper third, upper section, upper end, uppermost "
            "part, uppermost third, topmost section"
        ),
        "middle": (
            "middle, middle part, middle third, middle section, center, centre, central part, central section, central third,"
            " midsection, mid section"
        ),
        "bottom": (
            "bottom, bottom part, bottom third, bottom section, bottom end, lower part, lower third, lower section, lower "
            "end, lowest part, lowest third, base"
        ),
    },
)
ADD_VERBS = "add, put, place, attach, stick, mount, insert, draw, print, write, sprinkle, include, append, hang, glue, wrap"
REMOVE_VERBS = (
    "remove, delete, erase, strip, drain, take away, take off, take out, take, get rid of, wash out, reduce, lower, decrease,"
    " lose, eliminate"
)
RAISE_VERBS = "increase, raise, boost, enhance, lift, strengthen, up, crank up, turn up, more"
QUANTITIES = _rows(
    "quantity",
    {
        "color": "color, colour, colors, colours, coloring, colouring, pigment",
        "shine": "shine, sheen",
        "brightness": "brightness, lightness",
        "saturation": "saturation, vividness, intensity",
    },
)
NEGATIONS = (
    "not, no, never, without, instead of, rather than, neither, anything but, any color but, any colour but, any color "
    "except, any colour except"
)
STRONG = "then, and then, after that, afterwards, afterward, finally, next, lastly, secondly, but, first, firstly"
WEAK = "and, plus, also, with, as well as, and also, too and, or"
EXCEPTIONS = "except, except for, apart from, but not, other than, excluding, everything but, all but"
VERBS = (
    "make, paint, turn, color, colour, dye, tint, stain, coat, spray, change, set, switch, recolor, recolour, render, have, "
    "give, let, get, want, need, needs, would, could, can, should, must, shall, may, be, become, appear, look, looks, go, do,"
    " apply, cover, decorate, use, convert, transform, keep, leave, show, try, see, design, fill, finish, like, love, "
    "prefer, wish, stay, cast, carve, carved, cut from, painted, dyed, colored, coloured, tinted, coated, covered, made, "
    "done, built, decorated, turned, has, is, are, was, will, would like, i like, mean, edit, modify, adjust, style, help me,"
    " swap, repaint, suits, suit"
)
OBJECTS = (
    "vase, box, chair, lamp, cup, mug, table, statue, bottle, bowl, car, house, toy, teapot, pot, jar, plate, sofa, couch, "
    "bed, desk, shelf, ball, book, bag, shoe, shoes, shirt, hat stand, clock, bench, stool, armchair, cabinet, cupboard, "
    "wardrobe, figure, figurine, sculpture, bust, column, tower, boat, ship, truck, bike, robot, cat, dog, bird, duck, horse,"
    " bear, frog, dragon, tree, plant, apple, banana, pumpkin, guitar, phone, helmet, pillow, curtain, door"
)
"""Frequent names of objects; others are recognized by the article before them."""
FILLERS = (
    "it, its, itself, this, that, these, those, them, they, i, me, you, we, us, please, thanks, thank you, kindly, the, a, "
    "an, my, our, your, his, her, their, to, of, in, on, at, for, from, by, as, into, onto, over, across, all over, so, too, "
    "very, much, more, most, bit, a bit, little, a little, lot, a lot, lots, some, any, all, just, only, really, quite, "
    "rather, now, maybe, perhaps, kind of, sort of, entire, entirely, whole, everything, everywhere, completely, totally, "
    "fully, wholly, thing, object, objects, model, item, shape, tone, shade, hue, surface, material, texture, textured, look "
    "like, like, appearance, pattern, patterns, patterned, paint job, version, one, ones, there, here, up, out, off, again, "
    "instead, well, nice, nicer, nicely, better in, hey, hi, ok, okay, yes, am, been, being, if, possible, piece, part, area,"
    " effect, thanks a lot, s, smooth, solid, simple, classic, both, each, way, already, something, think, few, a few, "
    "several, couple of, slightly, soft, lovely, bold, thick, thin, small, big, large, tiny, fine, pure, real, plain, even, "
    "evenly, colored, coloured"
)
DETERMINERS = ("the", "a", "an", "my", "our", "your", "his", "her", "their", "this", "that", "each", "every", "some")
QUESTIONS = (
    "what",
    "who",
    "why",
    "how",
    "where",
    "when",
    "which",
    "whose",
    "is",
    "are",
    "does",
    "did",
    "do you",
    "was",
    "were",
)

FOREIGN = _rows(
    "foreign",
    {
        "shape": (
            "taller, bigger, smaller, larger, longer, shorter, wider, thinner, thicker, narrower, fatter, slimmer, rounder, "
            "smoother, sharper, higher, tall, stretch, shrink, scale, resize, size, bend, twist, squeeze, squash, deform, "
            "inflate, slice, cut, break, hollow, sharpen, cube, sphere, cylinder, extend, grow, explode, edges, corners, "
            "split, merge, carve a, heavier, pieces, hole, holes, thickness, height, width, length, double, twice, curved, "
            "straight, straighten"
        ),
        "pose": (
            "rotate, move, shift, flip, spin, tilt, upside down, upwards, downwards, mirror, left, right, forward, backwards,"
            " away, clockwise, degrees, turn it around, turn around, jump, dance, fly, drop"
        ),
        "objects": "hat, wings, copy, duplicate, replace, replaced, clone, handle longer, picture, photo, logo, name, face on",
        "transparency": "transparent, transparency, glass, see through, translucent, invisible, opacity, opaque, crystal",
        "material": (
            "leather, fur, furry, brick, bricks, stone, plastic, rubber, concrete, fabric, velvet, ice, snow, fire, water, "
            "paper, clay, ceramic, porcelain, feathers, wool, cloth, denim, silk, grass, mud, dirt, dirty, cardboard, "
            "diamond, copper, slime, slimy, old, aged, antique, worn, scratched, broken, granite, sandstone"
        ),
        "pattern": (
            "plaid, tartan, camouflage, camo, leopard, zebra, tiger, giraffe, flowers, floral, flower, paisley, rainbow, "
            "text, letters, words, hearts, zigzag, waves, print, herringbone, graffiti, image"
        ),
        "light": (
            "glow, glowing, neon, lighting, lights, lamp light, background, foreground, shadow, shadows, sky, room, scene, "
            "environment, reflection, reflections, sunlight, night"
        ),
        "part": (
            "left side, right side, front, back, side, sides, half, handle, handles, leg, legs, lid, rim, neck, arm, arms, "
            "head, face, eyes, eye, ears, ear, mouth, teeth, hair, button, buttons, stem, leaves, petals, hands, strap, "
            "sleeves, collar, screen, keys, knob, drawer, drawers, label, spout, sole, wheel, wheels, window, windows, roof, "
            "inside, outside, interior, tail, nose, foot, feet, edge, corner"
        ),
        "file": (
            "look at, buy, sell, find, count, tell, explain, describe, read, play, call, send, close, save, export, open, "
            "load, undo, redo, zoom, download, print it, import, render it as, quit, close, exit"
        ),
        "vague": (
            "here and there, partly, better, beautiful, cute, cool, scary, expensive, surprise, random, anything, whatever, "
            "modern, elegant, funny, interesting, ugly, prettier, amazing"
        ),
    },
)
REASONS = {
    "shape": "edits change colors and materials, not the shape",
    "pose": "edits change colors and materials, not the position",
    "objects": "edits change colors and materials; they add and remove nothing",
    "transparency": "edits do not make things transparent",
    "material": "this material is not known",
    "pattern": "this pattern is not known",
    "light": "edits change the object, not the light around it",
    "part": "parts are top, middle and bottom",
    "file": "this is not an edit of the appearance",
    "vague": "this leaves open what to do",
    "question": "this is a question, not an instruction",
}

_OTHER_LANGUAGES = (
    "der die das den dem ein eine einen mach mache machen bitte und nicht ist soll sein rot blau grün gelb schwarz weiß weiss"
    " füge hinzu oben unten mit es auf farbe streifen dunkler heller färbe le les une rends fais faire ajoute en rouge bleu "
    "vert jaune noir blanc avec du des plus foncé clair peins couleur rayures et el los las un una haz hazlo hacer pinta rojo"
    " azul verde amarillo negro blanco con más oscuro añade rayas por favor de y jarrón il lo gli rendi fai dipingi rosso blu"
    " giallo nero bianco più scuro aggiungi righe di per o os um uma faça pinte deixe vermelho amarelo preto branco mais "
    "escuro adicione listras xícara vaso de het een maak verf rood blauw groen geel zwart wit en donkerder strepen toe van "
    "måla gör den röd blå grön gul svart vit och"
)
_ALSO_ENGLISH = {"die", "den", "des", "plus", "de", "o", "y", "per", "con", "more", "dem", "mit", "los", "las", "lo"}
OTHER_LANGUAGES = frozenset(_OTHER_LANGUAGES.split()) - _ALSO_ENGLISH
WEAKLY_FOREIGN = frozenset(_ALSO_ENGLISH)


def _flat(tag: str, words: str) -> dict[str, Tagged]:
    return {word: (tag, word) for word in words.split(", ")}


def _lexicon() -> dict[str, Tagged]:
    found = _flat("filler", FILLERS) | _flat("verb", VERBS) | FOREIGN
    found |= _flat("add", ADD_VERBS) | _flat("remove", REMOVE_VERBS) | _flat("raise", RAISE_VERBS) | QUANTITIES
    found |= _flat("object", OBJECTS)
    found |= _flat("strong", STRONG) | _flat("weak", WEAK) | _flat("except", EXCEPTIONS) | _flat("not", NEGATIONS)
    found |= PART_WORDS | KIND_WORDS | NEAR_KINDS | {word: ("modifier", word) for word in MODIFIERS}
    found |= {name: ("color", name) for name in COLORS} | {alias: ("color", name) for alias, name in COLOR_ALIASES.items()}
    found |= {"would like": ("verb", "like"), "i like": ("verb", "like"), "too": ("filler", "too")}
    found |= {"gray": ("color", "grey"), "silvery": ("color", "silver"), "upper": ("part", "top"), "uppermost": ("part", "top")}
    found |= {"central": ("part", "middle"), "lowest": ("part", "bottom"), "topmost": ("part", "top")}
    found |= {f"{name} {word}": ("color", name) for name in BASIC_COLORS for word in ("colored", "coloured")}
    return {key: value for key, value in found.items() if key}


LEXICON = _lexicon()
LONGEST = max(len(phrase.split()) for phrase in LEXICON)
MATERIALS = frozenset(MATERIAL_COLORS)

OTHER_REQUESTS: dict[str, tuple[str, ...]] = {
    "shape": (
        "make it taller", "make it smaller", "make the vase wider", "stretch it", "scale it up", "make it rounder", "bend it",
        "cut it in half", "make a hole in it", "make it thicker", "turn it into a ball", "make it look like a cat",
        "make it a car", "give it a different shape",
    ),
    "pose": (
        "rotate it by 90 degrees", "move it up", "flip it over", "turn it around", "tilt the chair", "mirror it",
        "lay it down",
    ),
    "objects": (
        "add a flower", "put a cat on it", "remove the lid", "delete it", "replace it with a ball", "add a handle",
        "make two of them", "remove the stripes", "add legs to the table", "take the hat off", "put a logo on it",
        "write a word on it",
    ),
    "transparency": ("make it transparent", "make it glass", "make it invisible"),
    "material": (
        "make it look like stone", "turn it into plastic", "make it fluffy", "make it wet", "cover it with grass",
        "make it look old", "make it dirty",
    ),
    "pattern": ("add flowers to it", "put hearts on it", "leopard skin", "make it rainbow", "add a picture of a dog"),
    "light": ("make it glow", "turn on the light", "change the background", "add a shadow", "make the room brighter"),
    "part": ("make the handle black", "paint the left side green", "color the eyes blue"),
    "file": ("save it", "export the model", "open the file", "undo the last edit", "zoom in"),
    "vague": ("make it nicer", "do something", "improve it", "make it more modern"),
    "question": (
        "what is this", "what color is the chair", "how does this work", "who are you", "is it made of wood", "hello",
        "thank you", "tell me a joke", "the weather is nice today", "i like golden retrievers", "green tea", "a wooden spoon",
        "black coffee", "the white house", "red wine", "gold medal", "silver screen",
    ),
}  # fmt: skip
"""Requests that are not known, by the reason, as examples beside the known phrasings."""
