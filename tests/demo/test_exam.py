"""What the benchmarks ask: labels read back from the words, balance counted, splits kept apart."""

from collections import Counter, defaultdict

import pytest

from lightning_llava.demo import exam
from lightning_llava.demo.published import GQA_TOPICS, VQA_TOPICS
from lightning_llava.demo.scenes import HELD_OUT_KINDS
from lightning_llava.demo.words import HELD_OUT_WORDS

TOPICS = {"vqav2": list(VQA_TOPICS), "gqa": list(GQA_TOPICS)}


@pytest.fixture(scope="module")
def asked(scenes):
    return {
        (name, split): exam.choose(scenes["validation"], split, topics, name, seed=0)
        for name, topics in TOPICS.items()
        for split in exam.EXAM_SPLITS
    }


def answers(pairs):
    found = defaultdict(Counter)
    for _, question in pairs:
        found[question.topic][question.answer] += 1
    return found


def kinds(pair):
    """List all kinds of object that a question brings up or its picture shows."""
    scene, question = pair
    named = {(question.colour, question.shape)} if question.colour and question.shape else set()
    return named | {tuple(thing.kind) for thing in scene.objects}


def test_splits_part_the_scenes_by_what_training_lacks(asked, scenes):
    for name in TOPICS:
        seen, held_out = asked[name, "seen"], asked[name, "held_out"]
        assert not any(kinds(pair) & HELD_OUT_KINDS for pair in seen)
        assert all(kinds(pair) & HELD_OUT_KINDS for pair in held_out)
        indices = {scene.index for scene, _ in seen} | {scene.index for scene, _ in held_out}
        assert len(indices) > 0.95 * len(scenes["validation"])


def test_half_as_many_questions_of_each_topic_as_scenes(asked, scenes):
    held_out = sum(bool(set(s.kinds) & HELD_OUT_KINDS) for s in scenes["validation"])
    number = {"seen": len(scenes["validation"]) - held_out, "held_out": held_out}
    for (name, split), pairs in asked.items():
        wanted = dict.fromkeys(TOPICS[name], (number[split] + 1) // 2)
        assert {topic: found.total() for topic, found in answers(pairs).items()} == wanted


def test_nothing_is_asked_twice(asked):
    for pairs in asked.values():
        assert len({(scene.index, question.asked) for scene, question in pairs}) == len(pairs)


def test_no_answer_is_much_likelier_than_another(asked):
    for (_, split), pairs in asked.items():
        found = answers(pairs)
        for topic in ("exists", "is_colour"):
            assert abs(found[topic][True] - found[topic][False]) <= 1
        for topic, chances in (("shape_at", 6), ("colour_at", 7), ("colour_of", 7)):
            # Held-out pictures are few, and have some colours oftener.
            most = 1.5 if split == "seen" else 2.5
            assert max(found[topic].values()) < most * found[topic].total() / chances


def test_the_commonest_count_of_a_shape_says_little(asked, scenes):
    """Of all scenes most have no heart; of the questions about hearts, few may be answered by 0."""
    pairs = [q for _, q in asked["vqav2", "seen"] if q.topic == "count_shape"]
    zeros = sum(question.answer == 0 for question in pairs) / len(pairs)
    everywhere = [
        not any(thing.kind.shape == question.shape for thing in scene.objects)
        for scene in scenes["validation"]
        for question in pairs
    ]
    assert zeros < 0.35 < 0.6 < sum(everywhere) / len(everywhere)


def test_half_of_the_noes_share_something_with_the_picture(asked):
    noes = [(s, q) for s, q in asked["vqav2", "seen"] if q.topic == "exists" and not q.answer]
    near = sum(any(q.colour == k[0] or q.shape == k[1] for k in s.kinds) for s, q in noes)
    assert abs(near / len(noes) - 0.5) < 0.05


def test_scenes_are_asked_about_equally_often(asked):
    for pairs in asked.values():
        times = Counter(scene.index for scene, _ in pairs)
        assert max(times.values()) <= 2.5 * len(pairs) / len(times)


def test_another_seed_and_another_name_ask_otherwise(asked, scenes):
    same, seed, name = (
        exam.choose(scenes["validation"], "seen", TOPICS["gqa"], name, seed)
        for name, seed in (("gqa", 0), ("gqa", 1), ("other", 0))
    )
    assert same == asked["gqa", "seen"]
    assert same != seed
    assert same != name


def test_words_by_whether_training_prints_them(scenes):
    found = {split: exam.words(scenes["validation"], split) for split in exam.EXAM_SPLITS}
    assert all(
        question.answer == scene.word.text for part in found.values() for scene, question in part
    )
    assert {q.answer for _, q in found["held_out"]} <= HELD_OUT_WORDS
    assert HELD_OUT_WORDS.isdisjoint({q.answer for _, q in found["seen"]})
    with_word = sum(scene.word is not None for scene in scenes["validation"])
    assert sum(map(len, found.values())) == with_word
