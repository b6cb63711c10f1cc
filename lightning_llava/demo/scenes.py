"""What a picture of the embedded world shows, as data: a pure function of (seed, index, split).

A scene has one to four objects on a 3 x 3 grid, each with a shape, a colour, a size and a place.
Half of the scenes have a printed word too, which takes a whole row of the grid. Besides there is
what no question asks about: the shade, the tilt, the exact position, the background.
"""

from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Literal, NamedTuple

from lightning_llava.demo.words import HELD_OUT_WORDS, WORDS, Script

Split = Literal["train", "validation"]
Shape = Literal["circle", "square", "triangle", "star", "heart", "cross"]
Colour = Literal["red", "blue", "green", "yellow", "purple", "orange", "black"]
Size = Literal["small", "large"]

SHAPES: dict[Shape, float] = {
    "circle": 1.6,
    "square": 1.4,
    "triangle": 1.2,
    "star": 1.0,
    "heart": 0.8,
    "cross": 0.8,
}
"""How often each occurs, relative to the others: uneven, so that POPE's `popular` has a meaning."""
COLOURS: dict[Colour, float] = {
    "red": 1.6,
    "blue": 1.4,
    "green": 1.2,
    "yellow": 1.0,
    "purple": 0.8,
    "orange": 0.8,
    "black": 0.8,
}
"""Likewise."""
NUM_CELLS = 9
MAX_OBJECTS = 4
NUM_BACKGROUNDS = 4
VALIDATION_SHARE = 0.2
"""Share of all possible contents that belongs to validation."""


class Kind(NamedTuple):
    """What POPE calls an object here: a colour and a shape."""

    colour: Colour
    shape: Shape


HELD_OUT_KINDS: frozenset[Kind] = frozenset(
    {
        Kind("red", "star"),
        Kind("orange", "square"),
        Kind("yellow", "heart"),
        Kind("green", "cross"),
        Kind("blue", "triangle"),
        Kind("purple", "circle"),
    }
)
"""Never in training, neither drawn nor mentioned; their colours and shapes occur in other pairs."""
KINDS: tuple[Kind, ...] = tuple(Kind(colour, shape) for shape in SHAPES for colour in COLOURS)


def kinds_of(split: Split) -> tuple[Kind, ...]:
    """List the kinds of object that a split draws and mentions."""
    return tuple(kind for kind in KINDS if split == "validation" or kind not in HELD_OUT_KINDS)


@dataclass(frozen=True)
class SceneObject:
    """One object and how it is drawn."""

    kind: Kind
    size: Size
    cell: int
    """Place on the grid, row by row from 0 (top left) to 8 (bottom right)."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Offset from the middle of the cell, right and down, as a fraction of the room there is."""
    tilt: float = 0.0
    """Degrees clockwise."""
    shade: int = 0
    """Added to each colour channel."""


@dataclass(frozen=True)
class PrintedWord:
    """A word and the row of the grid that it takes."""

    text: str
    row: int
    shift: float = 0.0
    """Offset to the right, as a fraction of the room there is."""


@dataclass(frozen=True)
class Scene:
    """One picture."""

    split: Split
    index: int
    objects: tuple[SceneObject, ...]
    """In reading order."""
    word: PrintedWord | None = None
    background: int = 0
    """Which of the background colours."""

    @property
    def content(self) -> tuple[object, ...]:
        """Everything that can be asked about: scenes with the same content show the same things."""
        objects = tuple((*o.kind, o.size, o.cell) for o in self.objects)
        return objects, self.word and (self.word.text, self.word.row)

    @property
    def kinds(self) -> list[Kind]:
        """The different kinds of object in it, in reading order."""
        return list(dict.fromkeys(o.kind for o in self.objects))

    @property
    def held_out(self) -> bool:
        """Whether it shows a combination or a word that training never does."""
        word = self.word is not None and self.word.text in HELD_OUT_WORDS
        return word or any(kind in HELD_OUT_KINDS for kind in self.kinds)

    @property
    def image_id(self) -> str:
        """Name of the picture's file without its ending.

        As COCO's, for VQAv2's files give pictures by number alone, and their readers add the rest.
        """
        return f"COCO_demo_{self.index:012d}"

    @property
    def image_name(self) -> str:
        """Name of the picture's file; training pictures have none."""
        return f"{self.image_id}.png"


def generate(seed: int, index: int, split: Split) -> Scene:
    """Make scene number `index` of a split, whatever was made before.

    A content belongs to one split by its hash, so no validation picture shows what a training
    picture shows, whatever their seeds and numbers.
    """
    rng = Random(f"scene/{seed}/{split}/{index}")
    while True:
        scene = _propose(rng, split, index)
        if owner(scene) == split:
            return scene


def owner(scene: Scene) -> Split:
    """Tell which split a scene's content belongs to."""
    digest = sha256(repr(scene.content).encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "validation" if share < VALIDATION_SHARE else "train"


def _propose(rng: Random, split: Split, index: int) -> Scene:
    word = _word(rng, split) if rng.random() < 0.5 else None
    cells = [cell for cell in range(NUM_CELLS) if word is None or cell // 3 != word.row]
    kinds = _kinds(rng, split, rng.randint(1, MAX_OBJECTS))
    objects = [
        SceneObject(
            kind=kind,
            size=rng.choice(("small", "large")),
            cell=cell,
            shift=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
            tilt=rng.uniform(-12, 12),
            shade=rng.randint(-14, 14),
        )
        for kind, cell in zip(kinds, rng.sample(cells, len(kinds)), strict=True)
    ]
    objects.sort(key=lambda o: o.cell)
    return Scene(split, index, tuple(objects), word, rng.randrange(NUM_BACKGROUNDS))


def _kinds(rng: Random, split: Split, number: int) -> list[Kind]:
    """Draw the objects: half of the scenes mix, a quarter has one shape, a quarter one colour."""
    kinds = kinds_of(split)
    theme = rng.choice(("mixed", "mixed", "shape", "colour"))
    if theme == "shape":
        shape = rng.choices(list(SHAPES), list(SHAPES.values()))[0]
        kinds = tuple(kind for kind in kinds if kind.shape == shape)
    elif theme == "colour":
        colour = rng.choices(list(COLOURS), list(COLOURS.values()))[0]
        kinds = tuple(kind for kind in kinds if kind.colour == colour)
    weights = [SHAPES[kind.shape] * COLOURS[kind.colour] for kind in kinds]
    return rng.choices(kinds, weights, k=number)


def _word(rng: Random, split: Split) -> PrintedWord:
    script: Script = rng.choice(("latin", "cyrillic"))
    words = [w for w in WORDS[script] if split == "validation" or w not in HELD_OUT_WORDS]
    return PrintedWord(rng.choice(words), rng.randrange(3), rng.uniform(-1, 1))
