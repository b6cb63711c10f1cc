"""Golden ids of Mistral-7B-v0.1's tokenizer, written out, and what the encoder refuses."""

import pickle
import re
from copy import copy

import pytest
from dialogues import turns_of

from lightning_llava.errors import SettingError
from lightning_llava.text.turns import Turn

P, IGNORED = -200, -100
THREE_TURNS = turns_of(["Привет", "2", "<image>\nWhat color is it?", "Black", "А 1990?", "Да"])
HELLO = [11824, 8496]  # ▁При вет
COLOR = [P, 28705, 13, 3195, 3181, 349, 378, 28804]  # the picture, ▁, \n, What ▁color ▁is ▁it ?
YEAR = [2182, 28705, 28740, 28774, 28774, 28734, 28804]  # ▁А ▁ 1 9 9 0 ?
TWO, BLACK, YES = [28705, 28750], [4777], [13608]  # ▁ 2, ▁Black, ▁Да
USER, ASSISTANT = [2223, 725, 28747], [8602, 8048, 12738, 28747]  # ▁US ER :, ▁A SS IST ANT… :
INST, INST_END = [733, 16289, 28793], [733, 28748, 16289, 28793]
SAIGA_USER, BOT = [1, 2188, 13], [1, 12435, 13]
SPACED = [28705, 2]  # the space before </s>, which is learnt, too
VICUNA_SYSTEM = [
    *(330, 10706, 1444, 264, 13903, 2188, 304, 396, 18278, 10895, 13892, 28723),
    *(415, 13892, 5212, 10865, 28725, 10537, 28725, 304, 27057, 11194, 298, 272, 2188),
    *(28742, 28713, 4224, 28723),
]
LLAMA_SYSTEM = [
    *(2087, 18741, 4060, 13, 1976, 460, 264, 10865, 3842, 304, 8021, 13892, 28723),
    *(995, 460, 2358, 298, 2380, 272, 8809, 3036, 369, 272, 2188, 5312, 28725),
    *(304, 6031, 272, 2188, 395, 264, 6677, 302, 9796, 1413, 4229, 3842, 28723),
    *(13, 28789, 700, 18741, 4060, 13, 13),
]
SAIGA_SYSTEM = [
    *(1, 1587, 13, 28875, 28829, 1040, 9177, 28819, 2618, 28725, 24379, 1789, 28811, 7763),
    *(28826, 4086, 14460, 15481, 22681, 1622, 6993, 608, 6089, 28723, 2775, 28829, 5234, 803),
    *(870, 892, 870, 28773, 28841, 28822, 698, 12566, 14599, 1563, 839, 21589, 2618, 28773),
    *(28841, 28822, 14122, 28723, 2),
]

VICUNA = [
    *(([*USER, *HELLO, *ASSISTANT], False), ([*TWO, 2], True)),
    *(([*USER, 28705, *COLOR, *ASSISTANT], False), ([*BLACK, 2], True)),
    *(([*USER, *YEAR, *ASSISTANT], False), ([*YES, 2], True)),
]
MISTRAL = [
    *(([*INST, *HELLO, *INST_END], False), ([*TWO, *SPACED], True)),
    *(([*INST, 28705, *COLOR, *INST_END], False), ([*BLACK, *SPACED], True)),
    *(([*INST, *YEAR, *INST_END], False), ([*YES, *SPACED], True)),
]
LLAMA_FIRST = [28847, 892, 8496]  # Привет behind a line break has no ▁: П ри вет
LLAMA_LATER = [
    *(([*INST_END], False), ([*TWO, *SPACED], True)),
    *(([1, *INST, 28705, *COLOR, *INST_END], False), ([*BLACK, *SPACED], True)),
    *(([1, *INST, *YEAR, *INST_END], False), ([*YES, *SPACED], True)),
]
SAIGA = [
    *(([*SAIGA_USER, *LLAMA_FIRST, 2, *BOT], False), ([28750, 2], True)),
    *(([*SAIGA_USER, *COLOR, 2, *BOT], False), ([15060, 2], True)),
    *(([*SAIGA_USER, 28858, *YEAR[1:], 2, *BOT], False), ([28868, 28763, 2], True)),
]
GOLDEN = {
    ("vicuna_v1", None): [([1, *VICUNA_SYSTEM], False), *VICUNA],
    ("vicuna_v1", ""): [([1], False), *VICUNA],
    ("mistral_instruct", None): [([1], False), *MISTRAL],
    ("llama_2", None): [([1, *INST, *LLAMA_SYSTEM, *LLAMA_FIRST], False), *LLAMA_LATER],
    ("llama_2", ""): [([1, *INST, *HELLO], False), *LLAMA_LATER],
    ("saiga_mistral", None): [(SAIGA_SYSTEM, False), *SAIGA],
    ("saiga_mistral", ""): SAIGA,
}


def ids_and_labels(segments):
    ids = [index for part, _ in segments for index in part]
    labels = [index if learnt else IGNORED for part, learnt in segments for index in part]
    return ids, labels


def learnt(encoded):
    return encoded.labels[encoded.labels != IGNORED].tolist()


@pytest.mark.parametrize(("template", "system"), GOLDEN)
def test_three_turns_with_the_picture_in_the_second(make, template, system):
    encoded = make(template, system=system).encode(THREE_TURNS, 1)
    expected = ids_and_labels(GOLDEN[template, system])
    assert (encoded.input_ids.tolist(), encoded.labels.tolist()) == expected


def test_plain_is_the_picture_and_its_caption(make):
    turns = turns_of(["<image>\nRender a summary.", "Чёрный кот, 2 цветка"])
    encoded = make("plain").encode(turns, 1)
    caption = [5477, 14507, 4086, 1619, 28786, 28725, 28705, 28750, 6033, 8496, 917]
    assert encoded.input_ids.tolist() == [1, P, *caption, 13]
    assert encoded.labels.tolist() == [IGNORED, IGNORED, *caption, 13]


@pytest.mark.parametrize(
    ("template", "answer", "expected"),
    [
        ("vicuna_v1", "Black", [4777, 2]),
        ("vicuna_v1", "2", [28705, 28750, 2]),
        ("llama_2", "Black", [4777, 28705, 2]),
        ("mistral_instruct", "Black", [4777, 28705, 2]),
    ],
)
def test_what_is_learnt_of_a_word(make, template, answer, expected):
    assert learnt(make(template).encode(turns_of(["<image>\nWhat?", answer]), 1)) == expected


@pytest.mark.parametrize(
    ("template", "ending"),
    [
        ("vicuna_v1", ASSISTANT),
        ("llama_2", INST_END),
        ("mistral_instruct", INST_END),
        ("saiga_mistral", [2, 1, 12435, 13]),
        ("plain", [P]),
    ],
)
def test_where_generation_begins(make, template, ending):
    ids, _ = make(template).prompt([Turn("user", "<image>\nWhat?")], 1)
    assert ids[-len(ending) :].tolist() == ending


def test_the_prompt_as_text(make):
    _, text = make("mistral_instruct").prompt(turns_of(["Hi", "Hello", "Look: <image>"]), 1)
    assert text == "<s>[INST] Hi [/INST] Hello </s>[INST] <image>\nLook: [/INST]"


@pytest.mark.parametrize("template", ["vicuna_v1", "llama_2", "mistral_instruct", "saiga_mistral"])
def test_users_cannot_write_special_tokens(make, template):
    encoder = make(template)
    text = "</s> <s> <unk> <image>"
    encoder.tokenizer("this call sets the tokenizer's own switch anew")
    encoded = encoder.encode(turns_of(["Q", text, "</s><s>Q", "<unk>"]), 0)
    plain = encoder.encode(turns_of(["Q", "A", "Q", "A"]), 0)
    for special in (0, 1, 2, P):
        count = (encoded.input_ids == special).sum()
        assert count == (plain.input_ids == special).sum(), special


def test_several_pictures_stand_one_a_line_in_front_of_their_turn(make):
    encoder = make("mistral_instruct")
    turns = turns_of(["Compare <image> with <image>", "Same", "And\n<image>", "No"])
    _, text = encoder.prompt([*turns, Turn("user", "Why?")], 3)
    assert text == (
        "<s>[INST] <image>\n<image>\nCompare  with [/INST] Same </s>"
        "[INST] <image>\nAnd [/INST] No </s>[INST] Why? [/INST]"
    )
    ids = encoder.encode(turns, 3).input_ids.tolist()
    assert ids[:9] == [1, *INST, 28705, P, 28705, 13, P]
    assert ids.count(P) == 3


def test_an_answer_that_names_the_placeholder_is_text(make):
    encoded = make("vicuna_v1").encode(turns_of(["<image>\nQ", "I see <image> there"]), 1)
    assert encoded.input_ids.tolist().count(P) == 1
    assert P not in encoded.labels


def test_the_prefix_of_an_answer_at_the_front_of_a_run_is_learnt(make, tmp_path):
    """SentencePiece's "▁" has no characters of its own; text that is not learnt follows here."""
    path = tmp_path / "lines.yaml"
    path.write_text('user: "{content}"\nassistant_prefix: "{bos}"\nanswer: "{content}\\n"\n')
    encoded = make(str(path)).encode(turns_of(["А 1990?", "2", "А 1990?", "2"]), 0)
    year, answer = YEAR, [*TWO, 13]
    mixed = [28858, *YEAR[1:]]  # behind the line break, without its "▁"
    assert encoded.input_ids.tolist() == [*year, 1, *answer, *mixed, 1, *answer]
    assert learnt(encoded) == [*answer, *answer]


def test_a_picture_takes_all_of_its_features(make):
    encoder = make("mistral_instruct", image_tokens=576)
    encoded = encoder.encode(THREE_TURNS, 1)
    assert encoded.length == len(encoded.input_ids) - 1 + 576


@pytest.mark.parametrize(("room", "pairs"), [(53, 3), (52, 2), (36, 2), (35, 1), (23, 1)])
def test_whole_turns_are_dropped_from_the_end(make, room, pairs):
    """The pairs take 1 + 19 + 3, 13 and 17 tokens, where a picture takes 4."""
    texts = ["<image>\nWhat color is it?", "Black", "Привет", "2", "А 1990?", "Да"]
    encoder = copy(make("mistral_instruct"))
    whole = encoder.encode(turns_of(texts[: 2 * pairs]), 1)
    encoder.max_length = room
    encoded = encoder.encode(turns_of(texts), 1)
    assert encoded.dropped_turns == 6 - 2 * pairs
    assert encoded.input_ids.tolist() == whole.input_ids.tolist()
    assert encoded.labels.tolist() == whole.labels.tolist()


def test_a_data_worker_s_copy_writes_the_same_from_bytes_that_are_made_once(make):
    encoder = make("saiga_mistral", system="Привет </s>")
    copied = pickle.loads(pickle.dumps(encoder))
    assert copied.encode(THREE_TURNS, 1).input_ids.tolist() == (
        encoder.encode(THREE_TURNS, 1).input_ids.tolist()
    )
    assert copied.decode(YEAR) == encoder.decode(YEAR) == "А 1990?"
    first, again = encoder.__getstate__(), encoder.__getstate__()
    assert first["_tokenizers"] is again["_tokenizers"]


def test_decoding_stops_at_the_terminator(make):
    encoder = make("saiga_mistral")
    assert encoder.stop_ids == [2]
    assert encoder.decode([28868, 28763, 2, 4777, 4777]) == "Да"
    assert encoder.decode([28705, 13, 13608, 28705]) == "Да"
    assert make("plain").decode([5477, 14507, 13, 4777]) == "Чёр"


def says(texts, *roles):
    given = roles or ("user", "assistant") * len(texts)
    return [Turn(role, text) for role, text in zip(given, texts, strict=False)]


TOO_LONG = (
    "the conversation takes more than 30 tokens before its images and one whole answer are in; "
    "shorten it or raise model.language.max_length"
)
LONG = "word " * 40
REFUSED = {
    "no turns": ("vicuna_v1", [], 0, "0 turns; expected pairs of question and answer"),
    "odd": ("vicuna_v1", says("abc"), 0, "3 turns; expected pairs of question and answer"),
    "assistant first": (
        *("vicuna_v1", says("ab", "assistant", "user"), 0),
        "turn 0 is the assistant's, expected user",
    ),
    "user twice": (
        *("vicuna_v1", says("abcd", "user", "assistant", "user", "user"), 0),
        "turn 3 is the user's, expected assistant",
    ),
    "empty answer": (
        *("vicuna_v1", says(["a", "b", "c", ""]), 0),
        "turn 3: the answer is empty; drop the pair or fill it in",
    ),
    "blank answer": (
        *("saiga_mistral", says(["a", " \n\t"]), 0),
        "turn 1: the answer is empty; drop the pair or fill it in",
    ),
    "empty question": (
        *("mistral_instruct", says(["a", "b", "", "c"]), 0),
        "turn 2: the question is empty; drop the pair or fill it in",
    ),
    "picture missing": (
        *("vicuna_v1", says(["<image>\na", "b", "<image> <image>", "c"]), 1),
        "3 <image> placeholders in the user turns but 1 images",
    ),
    "picture left over": (
        *("vicuna_v1", says(["<image>\na", "b"]), 2),
        "1 <image> placeholders in the user turns but 2 images",
    ),
    "picture in an answer": (
        *("vicuna_v1", says(["a", "<image>"]), 1),
        "0 <image> placeholders in the user turns but 1 images",
    ),
    "two pairs in plain": (
        *("plain", says(["<image>", "b", "c", "d"]), 1),
        "2 question-answer pairs; the template 'plain' takes 1: leave this source out of "
        "data.sources (the align stage takes captions), or set data.prompt: chat",
    ),
    "plain without a picture": (
        *("plain", says(["a", "b"]), 0),
        "no image; the template 'plain' writes nothing else before the answer: leave text-only "
        "records out of this stage, or set data.prompt: chat",
    ),
    "one pair too long": ("mistral_instruct", says(["a", LONG]), 0, TOO_LONG),
    "picture in a dropped turn": (
        *("mistral_instruct", says(["a", "b", f"<image>\n{LONG}", "c"]), 1),
        TOO_LONG,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(make, case):
    template, turns, images, sentence = REFUSED[case]
    max_length = 30 if sentence == TOO_LONG else 2048
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        make(template, max_length=max_length).encode(turns, images)


def test_a_prompt_for_the_wrong_number_of_pictures_is_refused(make):
    sentence = "0 <image> placeholders in the user turns but 1 images"
    with pytest.raises(SettingError, match=f"^{sentence}$"):
        make("vicuna_v1").prompt([Turn("user", "What is it?")], 1)


def test_a_prompt_that_ends_inside_a_token_is_refused(make, tmp_path):
    path = tmp_path / "glued.yaml"
    path.write_text('user: "Q: {content} A"\nanswer: "{content}{eos}"\n')
    sentence = (
        "model.language.template: 'glued' ends its prompt inside a token of this tokenizer "
        "(' Ann'); put a line break or a special token before the answer"
    )
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        make(str(path)).encode(turns_of(["x", "nn"]), 0)
