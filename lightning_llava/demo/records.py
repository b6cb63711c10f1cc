"""Scenes to training records of the paper's kinds, in any language that has a `Wording`."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from lightning_llava.data.schema import Box, Sample
from lightning_llava.demo import questions
from lightning_llava.demo.drawing import Extent, object_extent, word_extent
from lightning_llava.demo.questions import Balance, Question
from lightning_llava.demo.scenes import Scene, Split
from lightning_llava.demo.wording import Wording, capitalised, coordinates
from lightning_llava.demo.words import HELD_OUT_WORDS, WORDS
from lightning_llava.text.template import SHORT_ANSWER
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

RecordKind = Literal["captions", "vqa", "ocr", "regions", "dialogue", "text"]


@dataclass
class Talk:
    """What is said in one record."""

    pairs: list[tuple[str, str]]
    """Questions and answers in turn; empty when this scene gives no such record."""
    boxes: list[Box] = field(default_factory=list)
    image: bool = True
    """Whether the picture comes along."""


Builder = Callable[[Scene, Wording, Balance, Random], Talk]


def samples(
    kind: RecordKind,
    wording: Wording,
    scenes: Sequence[Scene],
    pictures: Sequence[bytes],
    seed: int,
) -> Iterator[Sample]:
    """Make the records of one kind in one language.

    Args:
        kind: `captions` for the align stage, `vqa` short questions of every topic, `ocr` printed
            words, `regions` box to phrase and phrase to box, `dialogue` questions answered in
            sentences, `text` records without a picture.
        wording: The language.
        scenes: Of one split, in order: balancing the answers looks back at earlier scenes.
        pictures: The scenes, encoded.
        seed: What the choice of questions starts from.
    """
    balance = Balance()
    for scene, picture in zip(scenes, pictures, strict=True):
        name = f"{kind}-{wording.CODE}-{scene.split}-{scene.index:06d}"
        talk = BUILDERS[kind](scene, wording, balance, Random(f"{name}/{seed}"))
        if not talk.pairs:
            continue
        turns = [Turn(*turn) for pair in talk.pairs for turn in zip(ROLES, pair, strict=True)]
        if talk.image:
            turns[0] = Turn("user", f"{IMAGE_PLACEHOLDER}\n{turns[0].text}")
        yield Sample(
            id=name,
            turns=turns,
            images=[picture] if talk.image else [],
            source=f"demo_{kind}",
            language=wording.CODE,
            boxes=talk.boxes,
        )


ROLES: tuple[Literal["user"], Literal["assistant"]] = ("user", "assistant")


def short_question(wording: Wording, question: Question) -> str:
    """Word a question that wants a short answer."""
    return wording.ask(question) + SHORT_ANSWER[wording.CODE]


def _captions(scene: Scene, wording: Wording, _balance: Balance, _rng: Random) -> Talk:
    return Talk([(wording.DESCRIBE, wording.caption(scene))])


def _vqa(scene: Scene, wording: Wording, balance: Balance, rng: Random) -> Talk:
    chosen = _choose(scene, balance, rng)
    return Talk([(short_question(wording, q), wording.answer(q)) for q in chosen])


def _ocr(scene: Scene, wording: Wording, _balance: Balance, rng: Random) -> Talk:
    # As often yes as no: half of the scenes have a word, and half of either are asked about it.
    asked = [Question("has_word", scene.word is not None)] if rng.random() < 0.5 else []
    if scene.word is not None:
        asked.append(Question("read", scene.word.text))
    return Talk([(short_question(wording, q), wording.answer(q)) for q in asked])


def _regions(scene: Scene, wording: Wording, _balance: Balance, rng: Random) -> Talk:
    named: list[tuple[str, Extent]] = [
        (wording.describe(thing), object_extent(thing)) for thing in scene.objects
    ]
    if scene.word is not None:
        named.append((wording.printed(scene.word.text), word_extent(scene.word)))
    number = Counter(phrase for phrase, _ in named)
    # Never the same part twice: the first question would answer the second.
    rng.shuffle(named)
    forwards, rest = named[:1], named[1:]
    backwards = [part for part in rest if number[part[0]] == 1][:1]
    if not rest and rng.random() < 0.5:
        forwards, backwards = [], forwards
    asked = [
        *((wording.ask_phrase(coordinates(box)), capitalised(phrase)) for phrase, box in forwards),
        *((wording.ask_box(phrase), coordinates(box)) for phrase, box in backwards),
    ]
    boxes = [Box(extent, phrase) for phrase, extent in forwards + backwards]
    order = rng.sample(range(len(asked)), len(asked))
    return Talk([asked[i] for i in order], [boxes[i] for i in order])


def _dialogue(scene: Scene, wording: Wording, balance: Balance, rng: Random) -> Talk:
    everything = Question("count_all", len(scene.objects))
    opening = rng.choice(
        (
            (wording.DESCRIBE, wording.caption(scene)),
            (wording.ask(everything), wording.reply(everything)),
        )
    )
    asked: list[Question] = []
    # Not located a second time: the first answer would give the second.
    located: int | None = None
    if single := questions.only_of_its_shape(scene):
        thing = rng.choice(single)
        located = thing.cell
        asked.append(Question("colour_of", thing.kind.colour, shape=thing.kind.shape))
        asked.append(Question("where_it", thing.cell, shape=thing.kind.shape))
    asked.append(balance.pick(existence(scene, rng), rng))
    if scene.word is not None:
        asked.append(Question("read", scene.word.text))
    elif places := [q for q in questions.places(scene) if q.answer != located]:
        asked.append(balance.pick(places, rng))
    return Talk([opening, *((wording.ask(q), wording.reply(q)) for q in asked)])


def _text(scene: Scene, wording: Wording, balance: Balance, rng: Random) -> Talk:
    if scene.index % 4 == 3:
        return Talk(_facts(scene.split, wording, rng), image=False)
    asked = _choose(scene, balance, rng)[:4]
    if scene.word is not None:
        asked.append(Question("read", scene.word.text))
    pairs = [(short_question(wording, q), wording.answer(q)) for q in asked]
    described = wording.IN_WORDS.format(caption=wording.caption(scene))
    pairs[0] = (f"{described}\n{pairs[0][0]}", pairs[0][1])
    return Talk(pairs, image=False)


def _facts(split: Split, wording: Wording, rng: Random) -> list[tuple[str, str]]:
    first, second = rng.randint(0, 9), rng.randint(0, 9)
    word, opposite = rng.sample(rng.choice(wording.OPPOSITES), 2)
    words = [w for script in WORDS.values() for w in script]
    printable = rng.choice([w for w in words if split == "validation" or w not in HELD_OUT_WORDS])
    last = rng.random() < 0.5
    pairs = [
        (wording.ask_sum(first, second), str(first + second)),
        (wording.ask_opposite(word), capitalised(opposite)),
        (wording.ask_letter(printable, last), printable[-1 if last else 0]),
    ]
    rng.shuffle(pairs)
    return [(ask + SHORT_ANSWER[wording.CODE], answer) for ask, answer in pairs]


def existence(scene: Scene, rng: Random) -> list[Question]:
    """Toss for yes or no; half of the noes share something with what is there."""
    if rng.random() < 0.5:
        return questions.exists(scene, answer=True)
    if rng.random() < 0.5:
        return questions.near_misses(scene)
    return questions.exists(scene, answer=False)


def _choose(scene: Scene, balance: Balance, rng: Random) -> list[Question]:
    """Choose a question of each sort, two of existence where there are several kinds of object."""
    colours = (questions.colours_by_place, questions.colours_by_shape)
    counts = (questions.count_all, questions.counts_by_shape, questions.counts_by_colour)
    pools = [
        *(existence(scene, rng) for _ in scene.kinds[:2]),
        questions.is_colour(scene, answer=rng.random() < 0.5),
        rng.choice(colours)(scene),
        questions.shapes(scene),
        rng.choice(counts)(scene),
        questions.places(scene),
    ]
    chosen: list[Question] = []
    for pool in pools:
        fresh = [question for question in pool if question not in chosen]
        if fresh:
            chosen.append(balance.pick(fresh, rng))
    rng.shuffle(chosen)
    return chosen


BUILDERS: dict[RecordKind, Builder] = {
    "captions": _captions,
    "vqa": _vqa,
    "ocr": _ocr,
    "regions": _regions,
    "dialogue": _dialogue,
    "text": _text,
}
