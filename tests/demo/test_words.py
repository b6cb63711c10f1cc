import re
from itertools import product

from lightning_llava.demo.words import HELD_OUT_WORDS, SHARED_SHAPES, WORDS
from lightning_llava.lettering import font

ALPHABETS = {"latin": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "cyrillic": "АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ"}


def picture(letter):
    mask = font(60).getmask(letter)
    return mask.size, bytes(mask)


def test_words_keep_to_their_script_and_occur_once():
    for script, words in WORDS.items():
        assert all(re.fullmatch(f"[{ALPHABETS[script]}]{{3,}}", word) for word in words)
        assert len(set(words)) == len(words)


def test_every_word_shows_which_script_it_is_in():
    twins = [(a, b) for a, b in product(*ALPHABETS.values()) if picture(a) == picture(b)]
    for position, script in enumerate(("latin", "cyrillic")):
        # The package counts K and К, Y and У in as well: in this font they differ, but hardly.
        assert {*"KКYУ", *(pair[position] for pair in twins)} >= set(SHARED_SHAPES[script])
        assert {pair[position] for pair in twins} <= set(SHARED_SHAPES[script])
        assert all(set(word) - set(SHARED_SHAPES[script]) for word in WORDS[script])


def test_training_has_every_letter_and_most_words_of_either_script():
    for script, words in WORDS.items():
        kept = [word for word in words if word not in HELD_OUT_WORDS]
        assert set("".join(kept)) == set("".join(words)) == set(ALPHABETS[script])
        assert len(words) / 2 < len(kept) < len(words)
