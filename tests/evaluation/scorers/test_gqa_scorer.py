import json

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.gqa import GqaCounts, gqa_compute, gqa_is_right, gqa_update

DIALECTS = ("official", "llava", "lmms-eval", "vlmevalkit")


@pytest.mark.parametrize(
    ("prediction", "answer", "right_in"),
    [
        ("no", "no", DIALECTS),
        ("No", "no", ("llava", "lmms-eval", "vlmevalkit")),
        ("No..", "no", ("llava", "lmms-eval")),
        (" No", "no", ("vlmevalkit",)),
        ("No!", "no", ("lmms-eval",)),
        ("t-shirt", "tshirt", ("lmms-eval",)),
        ("«no»", "no", ()),  # not ASCII
        ("none", "no", ()),
    ],
)
def test_each_dialect(prediction, answer, right_in):
    found = tuple(name for name in DIALECTS if gqa_is_right(prediction, answer, name))
    assert found == right_in


def test_counts_and_refusals():
    counts = gqa_update(["No", "cat", "dog"], ["no", "cat", "cat"], "llava")
    assert counts == GqaCounts(correct=2, total=3)
    assert gqa_compute(counts) == {"accuracy": 2 / 3, "correct": 2, "total": 3}
    with pytest.raises(SettingError, match="'m4c' for gqa: there is no such name; expected one of"):
        gqa_update([], [], "m4c")


def test_golden_numbers_of_llava_1_5_13b(shared_data):
    (file,) = shared_data("llava-1.5-13b/gqa_train_48.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    columns = [row["prediction"] for row in rows], [row["answer"] for row in rows]
    assert gqa_update(*columns, "official") == GqaCounts(0, 1490)
    assert gqa_update(*columns, "llava") == GqaCounts(951, 1490)
