"""Which questions the benchmarks about the validation pictures ask: balanced, topic by topic.

Two splits tell what was learnt from what was only seen. `seen` has pictures and questions without a
colour and shape that training never puts together, `held_out` the others. Questions for the printed
word are divided by the word alone, all others whatever is printed.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from random import Random
from typing import Literal

from lightning_llava.demo import questions
from lightning_llava.demo.questions import Balance, Question, Topic
from lightning_llava.demo.scenes import HELD_OUT_KINDS, Kind, Scene
from lightning_llava.demo.words import HELD_OUT_WORDS

ExamSplit = Literal["seen", "held_out"]
EXAM_SPLITS: tuple[ExamSplit, ...] = ("seen", "held_out")
Asked = list[tuple[Scene, Question]]
Candidates = Callable[[Scene], list[Question]]


def _present(scene: Scene) -> list[Question]:
    return questions.exists(scene, answer=True)


def _far_misses(scene: Scene) -> list[Question]:
    near = questions.near_misses(scene)
    return [question for question in questions.exists(scene, answer=False) if question not in near]


POOLS: dict[Topic, tuple[Candidates, ...]] = {
    # As often yes as no; half of the noes share something with what is there.
    "exists": (_present, questions.near_misses, _present, _far_misses),
    "is_colour": (
        lambda scene: questions.is_colour(scene, answer=True),
        lambda scene: questions.is_colour(scene, answer=False),
    ),
    "colour_of": (questions.colours_by_shape,),
    "colour_at": (questions.colours_by_place,),
    "shape_at": (questions.shapes,),
    "count_all": (questions.count_all,),
    "count_shape": (questions.counts_by_shape,),
    "count_colour": (questions.counts_by_colour,),
    "where": (questions.places,),
}
"""Where the questions of a topic come from, in turn."""


def choose(
    scenes: Sequence[Scene], split: ExamSplit, topics: Sequence[Topic], name: str, seed: int
) -> Asked:
    """Choose a benchmark's questions of one split: of each topic half as many as scenes.

    Args:
        scenes: validation scenes; those of the split are asked about.
        split: see the top of this file.
        topics: keys of `POOLS`.
        name: of the benchmark; another one, another choice.
        seed: likewise.

    Returns:
        Scenes in their order, each with its questions: of none two that are the same. No answer
        to a question is likelier than another as far as the scenes allow, and scenes have about
        the same number of questions.
    """
    chosen = [scene for scene in scenes if _shows_held_out(scene) == (split == "held_out")]
    rng, balance = Random(f"{name}/{split}/{seed}"), Balance()
    asked: dict[int, list[Question]] = {scene.index: [] for scene in chosen}
    for topic in topics:
        # One pool for a source that has two turns: what is taken is taken for both.
        pools = {source: _pool(chosen, source, split) for source in POOLS[topic]}
        for _, source in zip(range((len(chosen) + 1) // 2), cycle(POOLS[topic]), strict=False):
            if not (pool := pools[source]):
                continue
            question = balance.pick(pool, rng)
            scene = min(pool[question], key=lambda s: (len(asked[s.index]), rng.random()))
            asked[scene.index].append(question)
            pool[question].remove(scene)
            if not pool[question]:
                del pool[question]
    return [(scene, question) for scene in chosen for question in asked[scene.index]]


def words(scenes: Sequence[Scene], split: ExamSplit) -> Asked:
    """Ask every scene of the split that has a word which word it is."""
    return [
        (scene, Question("read", scene.word.text))
        for scene in scenes
        if scene.word is not None and (scene.word.text in HELD_OUT_WORDS) == (split == "held_out")
    ]


def _pool(
    scenes: Sequence[Scene], candidates: Candidates, split: ExamSplit
) -> dict[Question, list[Scene]]:
    """Gather what can be asked, and about which scenes."""
    pool: dict[Question, list[Scene]] = defaultdict(list)
    for scene in scenes:
        for question in candidates(scene):
            if split == "held_out" or not _names_held_out(question):
                pool[question].append(scene)
    return pool


def _shows_held_out(scene: Scene) -> bool:
    return any(kind in HELD_OUT_KINDS for kind in scene.kinds)


def _names_held_out(question: Question) -> bool:
    if question.colour is None or question.shape is None:
        return False
    return Kind(question.colour, question.shape) in HELD_OUT_KINDS
