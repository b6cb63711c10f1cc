from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.compare import compare, sentence, swap_test
from lightning_llava.evaluation.intervals import Interval, mean_ratio, sum_by_cluster
from lightning_llava.evaluation.pairing import pair_rows


def ledger(rights, name="pope", split="random", **changes):
    """One string of verdicts per image, 1 being right; labels are yes and no in turn."""
    rows = []
    for image, verdicts in enumerate(rights):
        for number, right in enumerate(verdicts):
            label = "yes" if number % 2 == 0 else "no"
            answer = label if right == "1" else {"yes": "no", "no": "yes"}[label]
            question = Question(
                name, split, f"{image}-{number}", "dog?", Path(f"{image}.jpg"), label, "en"
            )
            rows += make_rows([question], "?", answer)
    return [replace(row, **changes) for row in rows]


def test_all_ways_to_swap_by_hand():
    a, b = ledger(["00", "11", "11"]), ledger(["11", "01", "11"])
    result = {c.measure: c for c in compare(a, b)}
    accuracy = result["accuracy"]
    # Per image B - A is 2, -1 and 0 of 6 questions: |±2 ± 1| >= 1 in all four ways to swap.
    assert accuracy.p == 1.0
    assert (accuracy.a, accuracy.b) == (4 / 6, 5 / 6)
    assert accuracy.difference.value == pytest.approx(1 / 6)
    assert (accuracy.both_right, accuracy.only_a, accuracy.only_b, accuracy.neither) == (3, 1, 2, 0)
    # A: tp 2, fn 1, fp 1. B: tp 2, fn 1, fp 0.
    assert (result["f1"].a, result["f1"].b) == (4 / 6, pytest.approx(4 / 5))
    assert list(result) == ["f1", "accuracy"], "the headline comes first"


def test_p_is_scipys_where_all_ways_are_tried():
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(9), 4)
    groups = np.tile([0, 0, 1, 1], 9)
    sums = []
    for chance in (0.5, 0.75):
        hits = (generator.random(36) < chance).astype(float)
        parts = np.column_stack([2 * hits, 1 + hits])
        sums.append(sum_by_cluster(clusters, groups, parts))

    def statistic(drawn_a, drawn_b):
        totals = [
            np.take(side, drawn.astype(int), axis=0).sum(0)
            for side, drawn in ((np.concatenate(sums), drawn_a), (np.concatenate(sums), drawn_b))
        ]
        return mean_ratio(totals[1]) - mean_ratio(totals[0])

    reference = stats.permutation_test(
        (np.arange(9), np.arange(9, 18)),
        statistic,
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
    )
    assert swap_test(*sums) == pytest.approx(reference.pvalue, abs=1e-12)
    assert 0 < reference.pvalue < 1


def test_random_swaps_agree_with_the_sign_test():
    # 20 images differ, 16 in favour of B: the exact two-sided sign test of 16 of 20.
    a = ledger(["0"] * 16 + ["1"] * 4 + ["1"] * 30)
    b = ledger(["1"] * 16 + ["0"] * 4 + ["1"] * 30)
    found = compare(a, b)[1]
    assert found.measure == "accuracy"
    exact = stats.binomtest(16, 20).pvalue
    # 9,999 draws: a standard deviation of 0.0011.
    assert found.p == pytest.approx(exact, abs=0.004)
    assert found.sentence.startswith("B is better by 24.0 points (95 % interval ")
    assert found.sentence.endswith("; 50 images, 50 questions).")
    turned = compare(b, a, a="English", b="Russian")[1]
    assert turned.sentence.startswith("English is better by 24.0 points (95 % interval ")
    assert turned.difference.value == -found.difference.value


def test_questions_about_one_image_are_one_piece_of_evidence():
    once = compare(ledger(["0"] * 5 + ["1"] * 9), ledger(["1"] * 14))[1]
    often = compare(ledger(["000000"] * 5 + ["111111"] * 9), ledger(["111111"] * 14))[1]
    assert once.p == often.p == 2 / 2**5
    assert "No difference can be told: B minus A is 35.7 points" in often.sentence


def test_the_same_answers_do_not_differ():
    rows = ledger(["10", "01", "11"])
    found = compare(rows, rows)[0]
    assert (found.p, found.difference.value, found.difference.low) == (1.0, 0.0, None)
    assert found.sentence == (
        "B minus A is 0.0 points on every image (p = 1.000; 3 images, 6 questions)."
    )


def test_sentences():
    gain = Interval(0.031, 0.012, 0.05, 500, 3000)
    assert sentence(gain, 0.002) == (
        "B is better by 3.1 points (95 % interval 1.2 to 5.0; p = 0.002; 500 images, 3,000 "
        "questions)."
    )
    loss = Interval(-0.031, -0.05, -0.012, 1, 1)
    assert sentence(loss, 0.0001, "EN", "RU") == (
        "EN is better by 3.1 points (95 % interval 1.2 to 5.0; p < 0.001; 1 image, 1 question)."
    )
    for interval, p in ((gain, 0.06), (Interval(0.03, -0.001, 0.05, 9, 9), 0.04)):
        assert sentence(interval, p).startswith("No difference can be told: B minus A is 3.")


def test_of_errors_less_is_better():
    gain = Interval(0.031, 0.012, 0.05, 9, 9)
    loss = Interval(-0.031, -0.05, -0.012, 9, 9)
    for change, better in ((gain, "A"), (loss, "B")):
        found = sentence(change, 0.002, less_is_better=True)
        assert found.startswith(f"{better} is better by 3.1 points (95 % interval 1.2 to 5.0;")
    read = [
        replace(row, kind="ocr", label="мир", raw_answer=answer, benchmark="signs", language="ru")
        for row, answer in zip(ledger(["1"] * 20), ["мир", "мор"] * 10, strict=True)
    ]
    right = [replace(row, raw_answer="мир") for row in read]
    found = {c.measure: c for c in compare(read, right)}
    assert (found["cer"].a, found["cer"].b) == (10 / 60, 0)
    # As it is exact match that decides here, both measures say the same.
    assert found["cer"].p == found["accuracy"].p == 2 / 2**10
    assert found["cer"].sentence.startswith("B is better by 16.7 points")
    assert found["accuracy"].sentence.startswith("B is better by 50.0 points")


def test_several_splits_have_a_mean():
    a = [*ledger(["10", "01"]), *ledger(["11", "01"], split="popular")]
    b = [*ledger(["10", "01"]), *ledger(["11", "11"], split="popular")]
    found = {(c.split, c.measure): c for c in compare(a, b)}
    assert [split for split, measure in found if measure == "f1"] == ["random", "popular", "mean"]
    mean = found["mean", "accuracy"]
    assert (mean.a, mean.b) == (0.625, 0.75)
    assert (mean.difference.images, mean.difference.questions) == (2, 8)


RUSSIAN = {"language": "ru", "question": "Собака?", "source": "dog?", "image": "/elsewhere/0.jpg"}


def test_pairs_languages_by_kind_and_splits():
    english, russian = ledger(["10"]), ledger(["10"], "pope_ru", **RUSSIAN)
    russian.reverse()
    pairs = pair_rows(english, russian)
    assert list(pairs) == ["pope"]
    assert [(a.question_id, b.question_id) for a, b in pairs["pope"]] == [
        ("0-0",) * 2,
        ("0-1",) * 2,
    ]
    assert compare(english, russian)[0].benchmark == "pope → pope_ru"
    assert list(pair_rows([*english, *russian], russian, {"pope": "pope_ru"})) == ["pope"]


def refused(match, first, second, names=None):
    with pytest.raises(SettingError, match=match):
        pair_rows(first, second, names)


def test_refuses_what_does_not_pair():
    rows = ledger(["1011"])
    refused("2 questions only in A, 1 only in B, first '0-2' of split 'random'", rows, [
        *rows[:2], replace(rows[0], question_id="9")
    ])  # fmt: skip
    refused("ledger B: 1 questions answered more than once", rows, [*rows, rows[0]])
    refused("ledger A has no rows with a right", [replace(r, label=None) for r in rows], rows)
    refused("image '0.jpg' in A, '1.jpg' in B", rows, [
        replace(row, image="1.jpg") for row in rows
    ])  # fmt: skip
    refused("question 'dog[?]' in A, 'cat[?]' in B", rows, ledger(["1011"], question="cat?"))
    turned = ledger(["1011"], "pope_ru", **{**RUSSIAN, "label": "no"})
    refused("right answer 'yes' in A, 'no' in B", rows, turned)
    two = [*ledger(["1011"], "pope_ru"), *ledger(["1011"], "pope_old")]
    refused("no partner for 'pope' of A, 'pope_ru' of B, 'pope_old' of B; say", rows, two)
    refused("ledger B has no 'gqa', only pope", rows, rows, {"pope": "gqa"})
