import math

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.language import (
    LanguageCounts,
    language_compute,
    language_update,
)


def test_fidelity_leaves_out_answers_without_letters():
    answers = ["Да", "кот сидит на iPhone", "a cat", "2", "", "猫"]
    counts = language_update(answers, "ru")
    assert counts == LanguageCounts(asked=2, other=2, neutral=2)
    assert language_compute(counts) == {"fidelity": 0.5, "asked": 2, "other": 2, "neutral": 2}
    assert language_update(answers, "en") == LanguageCounts(asked=1, other=3, neutral=2)


def test_nothing_to_judge_has_no_fidelity():
    assert math.isnan(language_compute(language_update(["2", "?"], "ru"))["fidelity"])


def test_refuses_a_language_whose_script_it_does_not_know():
    with pytest.raises(SettingError, match="language 'ja': its script is not known"):
        language_update(["猫"], "ja")
