"""POPE questions about the validation pictures, in the published file format.

As in Li et al. 2023 (Evaluating Object Hallucination in Large Vision-Language Models): per picture,
three objects that are there and three that are not; the splits differ in how the absent ones are
chosen. A picture with fewer than three different objects gets as many questions of each answer as
it has objects, so every picture, and with it every split, is exactly balanced.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Literal

from lightning_llava.demo.questions import Question
from lightning_llava.demo.scenes import KINDS, Kind, Scene
from lightning_llava.demo.wording import Wording

PopeSplit = Literal["random", "popular", "adversarial"]
POPE_SPLITS: tuple[PopeSplit, ...] = ("random", "popular", "adversarial")
QUESTIONS_PER_ANSWER = 3


def frequencies(scenes: Sequence[Scene]) -> Counter[Kind]:
    """Count in how many scenes each kind of object occurs."""
    return Counter(kind for scene in scenes for kind in scene.kinds)


def questions(
    split: PopeSplit, scenes: Sequence[Scene], popularity: Counter[Kind], seed: int
) -> list[tuple[Scene, Question]]:
    """Choose the questions of one split.

    Args:
        split: Absent objects are, for `random`, any; for `popular`, the most frequent in training;
            for `adversarial`, ones that share a colour or a shape with the objects that are there,
            the likelier the more objects they share it with.
        scenes: What is asked about.
        popularity: Frequencies in training.
        seed: What the choice starts from; the present objects are the same in all splits.
    """
    asked: list[tuple[Scene, Question]] = []
    for scene in scenes:
        rng = Random(f"pope/{seed}/{scene.split}/{scene.index}")
        present = rng.sample(scene.kinds, min(QUESTIONS_PER_ANSWER, len(scene.kinds)))
        absent = [kind for kind in KINDS if kind not in scene.kinds]
        ranked = NEGATIVES[split](scene, absent, popularity, rng)
        for here, missing in zip(present, ranked, strict=False):
            asked.append((scene, Question("exists", True, here.colour, here.shape)))
            asked.append((scene, Question("exists", False, missing.colour, missing.shape)))
    return asked


def write(path: Path, asked: Sequence[tuple[Scene, Question]], wording: Wording) -> None:
    """Write a question file: JSON lines, questions in this language, labels in English."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, (scene, question) in enumerate(asked, start=1):
            row = {
                "question_id": number,
                "image": scene.image_name,
                "text": wording.ask(question),
                "label": "yes" if question.answer else "no",
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


Ranking = Callable[[Scene, list[Kind], Counter[Kind], Random], list[Kind]]


def _any(_scene: Scene, absent: list[Kind], _popularity: Counter[Kind], rng: Random) -> list[Kind]:
    return rng.sample(absent, len(absent))


def _popular(
    _scene: Scene, absent: list[Kind], popularity: Counter[Kind], _rng: Random
) -> list[Kind]:
    return sorted(absent, key=lambda kind: -popularity[kind])


def _sharing(
    scene: Scene, absent: list[Kind], _popularity: Counter[Kind], rng: Random
) -> list[Kind]:
    # Listed once per present object that they share something with, then taken in random order.
    tickets = [
        kind
        for kind in absent
        for present in scene.kinds
        if kind.colour == present.colour or kind.shape == present.shape
    ]
    rng.shuffle(tickets)
    return list(dict.fromkeys(tickets))


NEGATIVES: dict[PopeSplit, Ranking] = {
    "random": _any,
    "popular": _popular,
    "adversarial": _sharing,
}
