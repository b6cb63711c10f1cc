"""What could be answered by rote, without looking at the picture, would teach nothing about it."""

from collections import Counter, defaultdict
from math import sqrt

import pytest
import understanding
from understanding import Asked, exchanges

LANGUAGES = ("en", "ru")


def tally(samples):
    """Count the answers to each question."""
    answers = defaultdict(Counter)
    for sample in samples:
        for question, answer in exchanges(sample):
            asked = understanding.understand(question.rpartition("\n")[2], sample.language)
            if asked is not None:
                value = understanding.said(asked.topic, answer, sample.language)
                answers[asked][value] += 1
    return answers


# Independent answers would stray from their expected number by a binomial's standard deviation;
# four of them leave one chance in 15,000 that an even process fails.
SPREAD = 4


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("kind", "topic"),
    [("vqa", "exists"), ("vqa", "is_colour"), ("ocr", "has_word"), ("dialogue", "exists")],
)
def test_yes_is_as_likely_as_no(spoken, kind, topic, language):
    answers = tally(spoken["train", kind, language])
    asked = {q: counter for q, counter in answers.items() if q.topic == topic}
    total = Counter()
    for counter in asked.values():
        # To each single question too, or "is there a red circle?" could be answered by rote.
        number = counter.total()
        assert abs(counter[True] - number / 2) <= SPREAD * sqrt(number / 4)
        total += counter
    assert total.total() > 300
    assert abs(total[True] - total.total() / 2) <= SPREAD * sqrt(total.total() / 4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_number_is_the_safe_guess(spoken, language):
    answers = tally(spoken["train", "vqa", language])
    everything = answers.pop(Asked("count_all"))
    number = everything.total()
    for count in range(1, 5):
        assert abs(everything[count] - number / 4) <= SPREAD * sqrt(number * 0.25 * 0.75)
    checked = 0
    for asked, counter in answers.items():
        if asked.topic in ("count_shape", "count_colour"):
            # 3 and 4 of a sort are rare, but 0, 1 and 2 are there to be balanced.
            number = counter.total()
            assert max(counter.values()) <= number / 3 + SPREAD * sqrt(number * 2 / 9)
            checked += number
    assert checked > 500


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("topic", "choices"), [("colour_at", 7), ("shape_at", 6), ("where", 9), ("colour_of", 6)]
)
def test_no_answer_is_the_safe_guess(spoken, language, topic, choices):
    # A shape has at least six colours in training, one of seven being held out.
    checked = 0
    for asked, counter in tally(spoken["train", "vqa", language]).items():
        if asked.topic == topic:
            share, number = 1 / choices, counter.total()
            allowed = number * share + SPREAD * sqrt(number * share * (1 - share))
            # Of a few answers one always leads.
            assert max(counter.values()) <= max(allowed, 3)
            checked += number
    assert checked > 200
