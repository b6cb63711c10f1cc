"""What holds for every conversation, in every built-in template."""

import pytest
from byte_level import spans
from dialogues import ANSWERS, QUESTIONS, dialogues, turns_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SAMPLED = settings(deadline=None, max_examples=200)
SENTENCEPIECE = {
    "vicuna_v1": "{}</s>",
    "llama_2": "{} </s>",
    "mistral_instruct": "{} </s>",
    "saiga_mistral": "{}</s>",
}
"""What is learnt of an answer; its "▁" is no text, as at the front of every SentencePiece text."""
BYTE_LEVEL = {"llama3": "{}<|eot_id|>", "chatml": "{}<|im_end|>", "qwen": "{}<|im_end|>"}
LEARNT = SENTENCEPIECE | BYTE_LEVEL
STRIPPING = ("saiga_mistral", "llama3")


@pytest.fixture(scope="module")
def encoders(make, byte_level):
    return {
        name: make(name, byte_level if name in BYTE_LEVEL else None) for name in [*LEARNT, "plain"]
    }


@st.composite
def cases(draw):
    """A template, a conversation and its number of pictures."""
    template = draw(st.sampled_from(list(LEARNT)))
    texts, images = draw(dialogues())
    # A line break in front would share a token with the prompt's; that is refused.
    assume(template not in BYTE_LEVEL or not any(text[0].isspace() for text in texts[1::2]))
    return template, texts, images


def decoded_spans(template, encoder, encoded, slow):
    if template in BYTE_LEVEL:
        return spans(encoder, encoded)
    texts, run = [], []
    for index in encoded.labels.tolist():
        if index == 2:
            texts.append(slow.pieces.decode(run) + "</s>")
            run = []
        elif index != -100:
            run.append(index)
    assert not run
    return texts


@SAMPLED
@given(case=cases())
def test_what_is_learnt_is_the_answers_and_their_terminators(encoders, slow, case):
    template, texts, images = case
    encoded = encoders[template].encode(turns_of(texts), images)
    answers = [text.strip() if template in STRIPPING else text for text in texts[1::2]]
    if template in SENTENCEPIECE:  # it writes "▁" for a space, and cannot tell the two apart
        answers = [text.replace("▁", " ") for text in answers]
        answers = [text[1:] if lost_space(template, text) else text for text in answers]
    expected = [LEARNT[template].format(answer) for answer in answers]
    assert decoded_spans(template, encoders[template], encoded, slow) == expected
    learnt = encoded.labels != -100
    assert (encoded.labels[learnt] == encoded.input_ids[learnt]).all()
    assert encoded.input_ids.tolist().count(-200) == images


def lost_space(template, answer):
    """Tell whether decoding takes the answer's own first space for SentencePiece's."""
    return template == "saiga_mistral" and answer.startswith(" ")


@SAMPLED
@given(case=cases(), data=st.data())
def test_what_is_learnt_does_not_depend_on_the_questions(encoders, case, data):
    template, texts, images = case
    encoder = encoders[template]
    first = encoder.encode(turns_of(texts), images)
    others = [text if i % 2 else data.draw(QUESTIONS) for i, text in enumerate(texts)]
    second = encoder.encode(turns_of(others), 0)
    assert (
        first.labels[first.labels != -100].tolist() == second.labels[second.labels != -100].tolist()
    )


@SAMPLED
@given(case=cases())
def test_first_turns_are_a_prefix_of_the_whole(encoders, case):
    template, texts, images = case
    encoder = encoders[template]
    whole = encoder.encode(turns_of(texts), images)
    for pairs in range(1, len(texts) // 2):
        kept = texts[: 2 * pairs]
        part = encoder.encode(turns_of(kept), sum("<image>" in text for text in kept))
        size = len(part.input_ids)
        assert part.input_ids.tolist() == whole.input_ids[:size].tolist()
        assert part.labels.tolist() == whole.labels[:size].tolist()


@SAMPLED
@given(case=cases())
def test_a_generation_prompt_is_what_stands_before_the_answer(encoders, case):
    template, texts, images = case
    encoder = encoders[template]
    encoded = encoder.encode(turns_of(texts), images)
    ids, _ = encoder.prompt(turns_of(texts[:-1]), images)
    assert ids.tolist() == encoded.input_ids[: len(ids)].tolist()
    assert (encoded.labels[len(ids) :] == encoded.input_ids[len(ids) :]).all()


@SAMPLED
@given(caption=ANSWERS, question=QUESTIONS)
def test_a_caption_is_learnt_whatever_the_prompt_was(encoders, slow, caption, question):
    encoded = encoders["plain"].encode(turns_of([f"{question}<image>", caption]), 1)
    assert encoded.input_ids[:2].tolist() == [1, -200]
    assert encoded.labels[:2].tolist() == [-100, -100]
    assert slow.pieces.decode(encoded.labels[2:].tolist()) == caption.replace("▁", " ") + "\n"
