"""What can be asked about a scene, as data: the same questions are then worded in each language."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal

from lightning_llava.demo.scenes import (
    COLOURS,
    SHAPES,
    Colour,
    Kind,
    Scene,
    SceneObject,
    Shape,
    kinds_of,
)

Topic = Literal[
    "exists",  # is there a red circle?
    "is_colour",  # is the star red?
    "colour_of",  # what colour is the star?
    "colour_at",  # what colour is the object at the top left?
    "shape_at",  # which shape is at the top left?
    "count_all",  # how many objects?
    "count_shape",  # how many circles?
    "count_colour",  # how many red objects?
    "where",  # where is the red circle?
    "where_it",  # where is it? (after a question about the only circle)
    "has_word",  # is there a word?
    "read",  # which word?
]


@dataclass(frozen=True)
class Question:
    """A question and its answer, in no language."""

    topic: Topic
    answer: bool | int | str
    """Yes or no, a number, a colour, a shape, a word, or (where) the number of a cell."""
    colour: Colour | None = None
    shape: Shape | None = None
    cell: int | None = None

    @property
    def asked(self) -> tuple[object, ...]:
        """The question without its answer."""
        return self.topic, self.colour, self.shape, self.cell


def exists(scene: Scene, answer: bool) -> list[Question]:
    """Ask for every kind of object that is there, or for every one of the split's that is not."""
    present = scene.kinds
    kinds = present if answer else [k for k in kinds_of(scene.split) if k not in present]
    return [Question("exists", answer, k.colour, k.shape) for k in kinds]


def near_misses(scene: Scene) -> list[Question]:
    """Ask for absent kinds that share the colour or the shape of something that is there."""
    return [
        question
        for question in exists(scene, answer=False)
        if any(question.colour == k.colour or question.shape == k.shape for k in scene.kinds)
    ]


def is_colour(scene: Scene, answer: bool) -> list[Question]:
    """Ask whether the only object of a shape has this colour."""
    allowed = kinds_of(scene.split)
    return [
        Question("is_colour", answer, colour, thing.kind.shape)
        for thing in only_of_its_shape(scene)
        for colour in COLOURS
        if (colour == thing.kind.colour) == answer and Kind(colour, thing.kind.shape) in allowed
    ]


def colours_by_shape(scene: Scene) -> list[Question]:
    """Ask for the colour of each object whose shape occurs once."""
    return [
        Question("colour_of", thing.kind.colour, shape=thing.kind.shape)
        for thing in only_of_its_shape(scene)
    ]


def colours_by_place(scene: Scene) -> list[Question]:
    """Ask for the colour at each place that is taken."""
    return [Question("colour_at", o.kind.colour, cell=o.cell) for o in scene.objects]


def shapes(scene: Scene) -> list[Question]:
    """Ask which shape is at each place that is taken."""
    return [Question("shape_at", o.kind.shape, cell=o.cell) for o in scene.objects]


def count_all(scene: Scene) -> list[Question]:
    """Ask for the number of all objects."""
    return [Question("count_all", len(scene.objects))]


def counts_by_shape(scene: Scene) -> list[Question]:
    """Ask for the number of objects of each shape, absent ones included."""
    number = Counter(o.kind.shape for o in scene.objects)
    return [Question("count_shape", number[shape], shape=shape) for shape in SHAPES]


def counts_by_colour(scene: Scene) -> list[Question]:
    """Ask for the number of objects of each colour, absent ones included."""
    number = Counter(o.kind.colour for o in scene.objects)
    return [Question("count_colour", number[colour], colour=colour) for colour in COLOURS]


def places(scene: Scene) -> list[Question]:
    """Ask where each object is of whose kind there is one."""
    number = Counter(o.kind for o in scene.objects)
    return [
        Question("where", o.cell, o.kind.colour, o.kind.shape)
        for o in scene.objects
        if number[o.kind] == 1
    ]


def only_of_its_shape(scene: Scene) -> list[SceneObject]:
    """List the objects whose shape occurs once."""
    number = Counter(o.kind.shape for o in scene.objects)
    return [o for o in scene.objects if number[o.kind.shape] == 1]


class Balance:
    """Picks questions so that none of a question's answers becomes likelier than the others.

    Without it "how many hearts?" would be answered by 0 nearly always, and a model could score
    without looking.
    """

    def __init__(self) -> None:
        self._answers: Counter[Question] = Counter()
        self._asked: Counter[tuple[object, ...]] = Counter()

    def pick(self, candidates: Iterable[Question], rng: Random) -> Question:
        """Pick the candidate whose answer is the rarest so far among those to its question."""
        best = min(candidates, key=lambda q: (self._share(q), rng.random()))
        self._answers[best] += 1
        self._asked[best.asked] += 1
        return best

    def _share(self, question: Question) -> float:
        return self._answers[question] / max(1, self._asked[question.asked])
