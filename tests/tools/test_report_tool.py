import json
from dataclasses import replace

import pytest

from ledgers import ledger_row
from lightning_llava.evaluation.ledger import write_ledger
from tool_files import load_tool


@pytest.fixture(scope="module")
def tool():
    return load_tool("report")


@pytest.fixture
def printed(tool, capsys):
    """Run the tool, which succeeds."""

    def run(*arguments):
        assert tool.main([*map(str, arguments)]) == 0
        return capsys.readouterr().out

    return run


def pope(verdicts, language="en"):
    return [
        ledger_row(
            benchmark="pope" if language == "en" else "pope_ru",
            question_id=str(number),
            image=f"{number // 2}.jpg",
            language=language,
            question="Is there a dog?" if language == "en" else "Есть ли собака?",
            raw_answer="Yes" if verdict == "1" else "No",
            correct=verdict == "1",
            source=None if language == "en" else "Is there a dog?",
            english=None if language == "en" else ("yes" if verdict == "1" else "no"),
            route=None if language == "en" else "map",
        )
        for number, verdict in enumerate(verdicts)
    ]


@pytest.fixture
def runs(tmp_path):
    write_ledger(tmp_path / "en" / "ledger.jsonl", pope("11" * 8 + "1010"))
    write_ledger(tmp_path / "ru" / "ledger.jsonl", pope("00" * 8 + "1010", "ru"))
    return tmp_path


def test_scores(printed, runs):
    found = json.loads(
        printed("scores", runs / "en", f"RU={runs / 'ru' / 'ledger.jsonl'}", "--json")
    )
    assert list(found) == [str(runs / "en"), "RU"]
    accuracy = found["RU"]["pope_ru"]["random"]["accuracy"]
    assert accuracy["value"] == 0.1
    assert 0 <= accuracy["low"] < 0.1 < accuracy["high"] < 0.3
    lines = printed("scores", runs / "en").splitlines()
    cells = next(line.split() for line in lines if "accuracy" in line)
    assert cells[:4] == ["pope", "random", "accuracy", "90.00"]
    assert cells[-2:] == ["10", "20"]


def test_scores_into_a_report(printed, runs, tmp_path):
    printed("scores", runs / "en", "--output", tmp_path / "out", "--resamples", 100, "--seed", 3)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["scores"]["pope"]["random"]["accuracy"] == 0.9
    assert report["intervals"]["pope"]["random"]["accuracy"]["value"] == 0.9
    assert (report["meta"]["resamples"], report["meta"]["seed"]) == (100, 3)
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in markdown.split("## Intervals")[1].splitlines()
        if line.startswith("|")
    ]
    assert {len(cells) for cells in table} == {7}
    accuracy = next(cells for cells in table if cells[:3] == ["pope", "random", "accuracy"])
    shown = dict(zip(table[0], accuracy, strict=True))
    found = report["intervals"]["pope"]["random"]["accuracy"]
    span = f"{100 * found['low']:.2f}–{100 * found['high']:.2f}"
    assert (shown["score"], shown["95 % interval"]) == ("90.00", span)
    assert (shown["images"], shown["asked"]) == ("10", "20")


def test_compare(printed, runs):
    text = printed("compare", f"EN={runs / 'en'}", f"RU={runs / 'ru'}")
    assert "pope → pope_ru, random, accuracy\nEN 90.00 %, RU 10.00 %\n" in text
    assert "EN is better by 80.0 points (95 % interval " in text
    # Swapped on none or on all of the eight images that differ: 2 of 256 ways.
    assert "p = 0.008; 10 images, 20 questions)." in text
    assert "right: both 2, only EN 16, only RU 0, neither 2\n" in text
    named = ["--benchmark", "pope=pope_ru", "--json"]
    found = json.loads(printed("compare", runs / "en", runs / "ru", *named))
    assert [comparison["measure"] for comparison in found] == ["f1", "accuracy"]
    assert found[1]["sentence"].startswith("A is better by 80.0 points")


def test_gallery(printed, runs, tmp_path):
    page = tmp_path / "pages" / "gallery.html"
    said = printed("gallery", f"RU={runs / 'ru'}", "--output", page, "--most", 5)
    assert said.splitlines() == [
        f"5 of 18 wrong answers in {page}",
        "3 of 3 pictures could not be read; --images names the folder they are in",
    ]
    html = page.read_text(encoding="utf-8")
    assert "Wrong answers of RU" in html
    assert "Есть ли собака?" in html


def test_tables(printed, runs):
    arguments = ["table3", f"LLaVA 1.5={runs / 'en'}", f"LLaVA-Saiga/Mistral={runs / 'ru'}"]
    rows = json.loads(printed(*arguments, "--json"))
    assert [row["source"] for row in rows] == ["paper", "measured"] * 2
    assert rows[3]["pope"]["value"] == pytest.approx(2 * 2 / (2 * 2 + 18))
    assert "| LLaVA-Saiga/Mistral | Russian | measured | – | – | 0.182 (0.0" in printed(
        *arguments, "--markdown"
    )
    text = printed("table1", runs / "en")
    assert "Table 1: models on English questions" in text
    assert "0.15" in text


def test_short_errors(refusal, runs, tool, tmp_path, capsys):
    assert "no/ledger.jsonl' does not exist" in refusal("scores", "A=no/ledger.jsonl")
    assert "--output takes one ledger's report, 2 led" in refusal(
        "scores", runs / "en", runs / "ru", "--output", tmp_path / "out"
    )
    assert "two ledgers have the same name" in refusal("scores", runs / "en", runs / "en")
    write_ledger(runs / "part.jsonl", [replace(row, label=None) for row in pope("1")])
    assert "no rows with a right answer" in refusal("scores", runs / "part.jsonl")
    assert "no partner for 'pope' of A" in refusal("compare", runs / "en", _gqa(runs))
    for wrong in (["--seed", "-1"], ["--resamples", "0"], ["--resamples", "many"]):
        with pytest.raises(SystemExit) as stopped:
            tool.main(["scores", str(runs / "en"), *wrong])
        assert stopped.value.code == 2
        assert f"{wrong[1]!r}, expected a whole number from" in capsys.readouterr().err


def _gqa(folder):
    path = folder / "gqa.jsonl"
    write_ledger(path, [replace(row, benchmark="gqa", kind="gqa") for row in pope("11")])
    return path


@pytest.mark.parametrize("command", ["scores", "compare", "gallery", "table1", "table3"])
def test_help_of_every_command(tool, capsys, command):
    with pytest.raises(SystemExit) as stopped:
        tool.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: python tools/report.py {command} " in capsys.readouterr().out
