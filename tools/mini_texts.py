"""Conversations about scenes described in text: what the mini decoders learn language from."""

from dataclasses import replace
from random import Random

from lightning_llava.demo import questions
from lightning_llava.demo.questions import Question, Topic
from lightning_llava.demo.records import existence, short_question
from lightning_llava.demo.scenes import Scene
from lightning_llava.demo.wording import Wording
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

WEIGHTS: dict[Topic, float] = {
    "exists": 2.0,
    "is_colour": 1.5,
    "colour_of": 2.0,
    "colour_at": 3.0,
    "shape_at": 3.0,
    "count_all": 0.4,
    "count_shape": 1.3,
    "count_colour": 1.3,
    "where": 2.5,
    "has_word": 0.3,
    "read": 1.5,
}
"""How often each topic is drawn. Places take longest to learn."""
COUNTED = 0.75
"""Share of the questions for a number that ask for something that is there, where there is."""
IN_SENTENCES = 0.15
"""Share of the conversations that describe the scene and answer in sentences, as dialogues do."""
ASKED_SHORT, ASKED_SHORT_OF_MAPS = 0.25, 0.6
"""Share of the others whose questions end in the short-answer prompt; of maps most do, as those of
benchmarks. It takes the room of other questions, from which lookups are learned."""
SHUFFLED = 0.5
"""Share of the descriptions that list the objects in any order."""


def conversation(
    scene: Scene,
    described: Wording | None,
    asked: Wording,
    rng: Random,
    number: int,
    sentences: float = IN_SENTENCES,
) -> list[Turn]:
    """Describe a scene in words and ask about it.

    Args:
        scene: what is talked about.
        described: language of the description; None leaves the place to a map.
        asked: language of questions and answers.
        rng: what the choice is drawn from.
        number: of questions.
        sentences: share of the conversations that describe the scene and answer in sentences.
    """
    order = rng.sample(scene.objects, len(scene.objects))
    shown = replace(scene, objects=tuple(order)) if rng.random() < SHUFFLED else scene
    in_sentences = rng.random() < sentences
    short = rng.random() < (ASKED_SHORT if described else ASKED_SHORT_OF_MAPS)
    pairs = [(asked.DESCRIBE, asked.caption(scene))] if in_sentences else []
    for question in _choose(scene, rng, number - len(pairs)):
        if in_sentences:
            pairs.append((asked.ask(question), asked.reply(question)))
        else:
            ask = short_question(asked, question) if short else asked.ask(question)
            pairs.append((ask, asked.answer(question)))
    return turns(shown, described, pairs)


def single(
    scene: Scene, described: Wording | None, asked: Wording, topic: Topic, rng: Random
) -> list[Turn]:
    """Ask one question of a topic about a described scene; nothing where there is none to ask.

    About a map, as benchmarks ask about pictures: for a short answer.
    """
    pool = candidates(scene, topic, rng)
    if not pool:
        return []
    question = rng.choice(pool)
    ask = asked.ask(question) if described else short_question(asked, question)
    return turns(scene, described, [(ask, asked.answer(question))])


def turns(scene: Scene, described: Wording | None, pairs: list[tuple[str, str]]) -> list[Turn]:
    """Put the description before the first question, or the mark where a map goes."""
    text = IMAGE_PLACEHOLDER
    if described is not None:
        text = described.IN_WORDS.format(caption=described.caption(scene))
    made: list[Turn] = []
    for ask, answer in pairs:
        made.append(Turn("user", ask if made else f"{text}\n{ask}"))
        made.append(Turn("assistant", answer))
    return made


def candidates(scene: Scene, topic: Topic, rng: Random) -> list[Question]:
    """List the questions of a topic, as often yes as no where that is the answer."""
    match topic:
        case "exists":
            return existence(scene, rng)
        case "is_colour":
            return questions.is_colour(scene, answer=rng.random() < 0.5)
        case "has_word":
            return [Question("has_word", scene.word is not None)]
        case "read":
            return [Question("read", scene.word.text)] if scene.word else []
        case _:
            return _OTHERS[topic](scene)


_OTHERS = {
    "colour_of": questions.colours_by_shape,
    "colour_at": questions.colours_by_place,
    "shape_at": questions.shapes,
    "count_all": questions.count_all,
    "count_shape": questions.counts_by_shape,
    "count_colour": questions.counts_by_colour,
    "where": questions.places,
}


def _choose(scene: Scene, rng: Random, number: int) -> list[Question]:
    chosen: list[Question] = []
    for topic in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=4 * number):
        pool = [question for question in candidates(scene, topic, rng) if question not in chosen]
        if topic in ("count_shape", "count_colour") and rng.random() < COUNTED:
            pool = [question for question in pool if question.answer] or pool
        if pool:
            chosen.append(rng.choice(pool))
        if len(chosen) == number:
            break
    return chosen
