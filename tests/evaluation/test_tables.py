import io
from dataclasses import replace

import pytest
from rich.console import Console

from ledgers import ledger_row
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.tables import fill_table, markdown_table, plain_table, rich_table

SAIGA = "LLaVA-Saiga/Mistral"


def rows(benchmark, kind, rights, language="en"):
    return [
        ledger_row(
            benchmark=benchmark,
            split="val",
            question_id=str(number),
            image=f"{number}.jpg",
            language=language,
            raw_answer="yes" if right else "no",
            correct=bool(right),
            kind=kind,
            answers=["yes"] * 10,
            english=("yes" if right else "no") if language == "ru" else None,
        )
        for number, right in enumerate(rights)
    ]


def line(table, model, source):
    return next(row for row in table if (row["model"], row["source"]) == (model, source))


def test_measured_rows_stand_below_the_papers():
    english = [*rows("vqa", "vqav2", [1, 1, 1, 0]), *rows("pope", "pope", [1, 1, 0])]
    russian = [*rows("gqa_r", "gqa", [1, 0], "ru"), *rows("text", "textvqa", [1], "ru")]
    table = fill_table("table3", [("llava 1.5", english), (SAIGA, russian), ("mine", english)])
    assert [(row.model, row.language, row.source) for row in table] == [
        ("LLaVA 1.5", "en", "paper"),
        ("llava 1.5", "en", "measured"),
        (SAIGA, "ru", "paper"),
        (SAIGA, "ru", "measured"),
        ("mine", "en", "measured"),
    ]
    plain = plain_table(table)
    assert line(plain, "LLaVA 1.5", "paper")["vqav2"] == {"value": 0.80}
    ours = line(plain, "llava 1.5", "measured")
    assert ours["vqav2"]["value"] == 0.75
    assert ours["vqav2"]["low"] < 0.75 < ours["vqav2"]["high"]
    assert (ours["vqav2"]["images"], ours["vqav2"]["questions"]) == (4, 4)
    assert ours["gqa"] is None
    assert ours["pope"]["value"] == pytest.approx(0.8), "F1 of two hits and a miss"
    assert line(plain, SAIGA, "measured")["gqa"]["value"] == 0.5


def test_one_ledger_in_two_languages_is_two_rows_and_two_ledgers_can_be_one():
    both = [*rows("pope", "pope", [1, 1, 0]), *rows("pope_ru", "pope", [1, 0, 0], "ru")]
    table = fill_table("table3", [("mine", both), ("mine", rows("gqa", "gqa", [1, 0]))])
    assert [(row.language, set(row.scores)) for row in table[2:]] == [
        ("en", {"pope", "gqa"}),
        ("ru", {"pope"}),
    ]


def test_published_numbers_alone():
    # The paper's tables 1 and 3.
    lines = markdown_table(fill_table("table3", [])).splitlines()
    assert lines[:4] == [
        "| model | questions | source | VQAv2 | GQA | POPE |",
        "| --- | --- | --- | ---: | ---: | ---: |",
        "| LLaVA 1.5 | English | paper | 0.80 | 0.63 | 0.85 |",
        f"| {SAIGA} | Russian | paper | 0.72 | 0.53 | 0.79 |",
    ]
    first = markdown_table(fill_table("table1", []))
    for expected in (
        "| LLaVA 1.5 | English | paper | 0.80 | 0.63 | 0.85 |",
        "| InstructBLIP | English | paper | 0.48 | 0.49 | 0.79 |",
        "| BLIP-2 | English | paper | 0.15 | 0.02 | 0.86 |",
        "| LLaVA 1.5 7B | English | 2310.03744 | 0.785 | 0.620 | 0.859 |",
        "| BLIP-2 13B | English | 2310.03744 | – | – | 0.853 |",
    ):
        assert expected in first.splitlines()


def test_markdown_has_intervals_and_dashes():
    text = markdown_table(fill_table("table3", [("mine", rows("gqa", "gqa", [1, 0, 1, 0]))]))
    cells = text.splitlines()[4].strip("| ").split(" | ")
    assert cells[:4] == ["mine", "English", "measured", "–"]
    assert cells[4].startswith("0.500 (0.")
    assert cells[4].endswith(")")
    # Right about every picture: no interval.
    sure = markdown_table(fill_table("table3", [("mine", rows("gqa", "gqa", [1, 1]))]))
    assert "| – | 1.000 | – |" in sure


def test_a_full_row_fits_a_terminal():
    right = [1, 1, 0, 1]
    full = [
        *rows("vqa", "vqav2", right, "ru"),
        *rows("gqa", "gqa", right, "ru"),
        *rows("pope", "pope", right, "ru"),
    ]
    for name in ("table1", "table3"):
        output = io.StringIO()
        Console(file=output, width=80).print(rich_table(fill_table(name, [(SAIGA, full)]), name))
        printed = output.getvalue()
        assert "…" not in printed
        assert printed.count(f"{SAIGA} Russian") == (1 if name == "table1" else 2)


def test_refuses_what_has_no_one_cell():
    two = [*rows("new", "gqa", [1, 0]), *rows("old", "gqa", [1, 0])]
    with pytest.raises(SettingError, match="the ledger of 'mine' has more than one GQA in English"):
        fill_table("table3", [("mine", two)])
    with pytest.raises(SettingError, match="'mine' has more than one GQA in English; expected one"):
        fill_table("table3", [("mine", two[:2]), ("mine", two[2:])])
    unlabelled = [replace(row, label=None) for row in rows("dev", "vqav2", [1])]
    with pytest.raises(SettingError, match="no scored rows of VQAv2, GQA, POPE, only of vqav2"):
        fill_table("table3", [("mine", unlabelled)])
