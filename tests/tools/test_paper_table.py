"""The paper in miniature: what it measures, and how its tables and charts read."""

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from lightning_llava.demo.scenes import HELD_OUT_KINDS, generate
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")


def measured(scores, low=None):
    """Make what `describe` returns of numbers per benchmark."""
    benchmarks = {}
    for (kind, language), value in scores.items():
        number = {"value": value, "low": low, "high": low and 2 * value - low, "questions": 50}
        measure = {"pope": "f1"}.get(kind, "accuracy")
        splits = {name: {measure: number} for name in ("held_out", "seen", "mean")}
        benchmarks[f"{kind}_{language}"] = {
            "kind": kind,
            "language": language,
            "splits": splits,
            "parts": {"where": splits["seen"], "exists": splits["seen"]},
            "yes_ratio": 0.25,
        }
    spoken = {"value": 0.625, "low": 0.5, "high": 0.75, "questions": 50}
    return {"benchmarks": benchmarks, "fidelity": {"en": spoken}}


RESULTS = {
    "mini-vicuna": measured({("vqav2", "en"): 0.8, ("pope", "en"): 0.9, ("ocr", "en"): 0.5}, 0.4),
    "question only": measured({("vqav2", "en"): 0.25, ("vqav2", "ru"): 0.125}),
}


def test_scores_in_the_layout_of_table_3():
    from paper_table import score_lines

    assert score_lines(RESULTS) == [
        ["model", "questions", "VQAv2", "GQA", "POPE", "OCR"],
        [
            *("mini-vicuna", "English", "0.800 (0.400–1.200)", "–", "0.900 (0.400–1.400)"),
            "0.500 (0.400–0.600)",
        ],
        ["question only", "English", "0.250", "–", "–", "–"],
        ["mini-vicuna", "Russian", "–", "–", "–", "–"],
        ["question only", "Russian", "0.125", "–", "–", "–"],
    ]


def test_leanings_and_language():
    from paper_table import leaning_lines

    header, first, *_ = leaning_lines(RESULTS)
    found = dict(zip(header, first, strict=True))
    assert (found["yes, VQAv2"], found["yes, GQA"], found["MT, VQAv2"]) == ("0.250", "–", "–")
    assert found["language"] == "0.625 (0.500–0.750)"


def test_tables_fit_a_terminal():
    from paper_table import leaning_lines, score_lines, terminal

    for lines in (score_lines(RESULTS), leaning_lines(RESULTS)):
        output = io.StringIO()
        Console(file=output, width=80).print(terminal(lines, "title"))
        assert "…" not in output.getvalue()
        words = " ".join([*lines[0], "mini-vicuna"]).replace(",", "").split()
        assert set(words) <= set(output.getvalue().split())


def test_splits_and_parts_in_their_order():
    from paper_table import markdown, part_lines, split_lines

    header, *_ = split_lines(RESULTS)
    assert header[2:4] == ["VQAv2, seen (50)", "VQAv2, held_out (50)"]
    assert markdown(part_lines({"question only": RESULTS["question only"]}, "vqav2")) == (
        "| model | questions | exists (50) | where (50) |\n"
        "| --- | --- | ---: | ---: |\n"
        "| question only | English | 0.250 | 0.250 |\n"
        "| question only | Russian | 0.125 | 0.125 |"
    )


def test_ablations_side_by_side():
    from paper_table import ablation_lines

    seeing = {name: part for name, part in RESULTS.items() if name != "question only"}
    lines = ablation_lines({"paper": RESULTS, "no-align": seeing})
    assert lines[0][:4] == ["variant", "model", "VQAv2 en", "GQA en"]
    assert [line[:3] for line in lines[1:]] == [
        ["paper", "mini-vicuna", "0.800"],
        ["paper", "question only", "0.250"],
        ["no-align", "mini-vicuna", "0.800"],
    ]


def rows_of(kind, *answered, language="en", split="seen"):
    """Answer questions of a kind: label, raw answer, types and number of the scene."""
    made = []
    for number, (label, said, types, scene) in enumerate(answered):
        answers = (label,) * (10 if kind == "vqav2" else 1)
        image = Path(f"COCO_demo_{scene:012d}.png")
        name = f"{kind}{'_ru' * (language == 'ru')}"
        question = Question(
            *(name, split, str(number), "?", image, label, language, kind, answers),
            tuple(types.items()),
        )
        made += make_rows([question], "?", said)
    return made


def test_a_ledger_measured_by_hand():
    from paper_measure import describe

    def vqa(topic):
        return {"question_type": topic, "answer_type": "other"}

    shows = {
        any(kind in HELD_OUT_KINDS for kind in generate(0, i, "validation").kinds): i
        for i in range(60)
    }
    rows = [
        *rows_of("vqav2", ("yes", "Yes", vqa("exists"), 1), ("no", "Yes", vqa("exists"), 2)),
        *rows_of("vqav2", ("red", "Red", vqa("colour_of"), 3), split="held_out"),
        *rows_of("ocr", ("SUN", "SUN", {}, 1), ("ДОМ", "ДЫМ", {}, 2)),
        *rows_of("pope", ("yes", "Yes", {}, shows[True]), ("no", "Yes", {}, shows[False])),
    ]
    measured = describe(rows, {"vqav2/mean": {"ceiling": 0.75}}, seed=0)
    found = measured["benchmarks"]
    vqav2, ocr, pope = (found[name] for name in ("vqav2", "ocr", "pope"))
    assert {name: part["accuracy"]["value"] for name, part in vqav2["splits"].items()} == {
        "seen": 0.5,
        "held_out": 1.0,
        "mean": 0.75,
    }
    assert vqav2["parts"]["exists"]["accuracy"]["value"] == 0.5
    assert vqav2["parts"]["colour_of"]["accuracy"]["value"] == 1.0
    assert (vqav2["yes_ratio"], vqav2["ceiling"]) == (1.0, 0.75)
    assert ocr["cer"] == pytest.approx(1 / 6)
    assert ocr["parts"]["Latin"]["accuracy"]["value"] == 1
    assert ocr["parts"]["Cyrillic"]["accuracy"]["value"] == 0
    assert pope["parts"]["held_out"]["accuracy"]["value"] == 1
    assert pope["parts"]["seen"]["accuracy"]["value"] == 0
    assert pope["yes_ratio"] == 1


def test_the_language_of_the_answers_by_hand():
    """Of answers with letters, and not of printed words; pictures are drawn whole."""
    from paper_measure import fidelity

    kind = {"question_type": "where", "answer_type": "other"}
    said = [("top", "Вверху", kind, 1), ("top", "Top", kind, 2), ("2", "2", kind, 3)]
    rows = [
        *rows_of("vqav2", *said, *said, language="ru"),
        *rows_of("ocr", ("SUN", "SUN", {}, 4), language="ru"),
        *rows_of("pope", ("yes", "Yes", {}, 5), language="en"),
    ]
    found = fidelity(rows)
    assert found["ru"] == {"value": 0.5, "low": 0.0, "high": 1.0, "images": 2, "questions": 4}
    assert (found["en"]["value"], found["en"]["questions"]) == (1.0, 1)


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (4.2, [0, 1, 2, 3, 4, 5]),
        (300, [0, 100, 200, 300]),
        (0.09, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
    ],
)
def test_round_ticks(highest, ticks):
    from paper_chart import round_ticks

    assert round_ticks(highest) == pytest.approx(ticks)


def test_a_score_is_where_its_number_says(tmp_path):
    from paper_chart import SERIES
    from paper_pictures import FACET, LABELS, ROW, TOP, draw_scores

    draw_scores(RESULTS, tmp_path / "scores.png")
    picture = Image.open(tmp_path / "scores.png")
    y = TOP + 4 + ROW  # the first line
    dot = picture.getpixel((round(LABELS + 0.8 * FACET), y))
    assert max(abs(a - b) for a, b in zip(dot, SERIES[0], strict=True)) < 8
    # What needs no picture is a dark line, higher than a dot.
    dark = [x for x in range(LABELS + FACET) if max(picture.getpixel((x, y - 12))) < 130]
    assert dark
    assert all(abs(x + 0.5 - (LABELS + 0.25 * FACET)) <= 1 for x in dark)


def test_a_drawn_table_has_ink_in_every_cell_that_says_something(tmp_path):
    from paper_pictures import ROW, draw_table

    row = ["a", "English", "0.812 (0.790–0.830)"]
    lines = [["model", "questions", "VQAv2"], row, ["b", "", ""]]
    draw_table(lines, tmp_path / "table.png")
    picture = Image.open(tmp_path / "table.png").convert("L")
    assert picture.size == (24 + 130 + 110 + 190 + 24, 46 + 3 * ROW)
    for y, cells in enumerate(lines):
        for x, width, cell in zip((24, 154, 264), (130, 110, 190), cells, strict=True):
            place = (x, 46 + y * ROW + 4, x + width, 46 + (y + 1) * ROW - 4)
            assert (picture.crop(place).getextrema()[0] < 150) == bool(cell)


def test_losses_of_a_run_that_went_on(tmp_path):
    from paper_pictures import draw_losses, read_losses

    for steps in ((1, 2, 3), (2, 3, 4)):  # stopped after step 3, continued from step 1
        with SummaryWriter(tmp_path / "run") as writer:
            for step in steps:
                writer.add_scalar("learning/loss", 10 * len(steps) - step, step)
    assert read_losses(tmp_path / "run") == [(1, 29), (2, 28), (3, 27), (4, 26)]
    (tmp_path / "empty").mkdir()
    assert read_losses(tmp_path / "empty") == []
    runs = {("align", "a"): tmp_path / "run", ("lora", "a"): tmp_path / "empty"}
    draw_losses(runs, tmp_path / "losses.png")
    assert len(Image.open(tmp_path / "losses.png").getcolors(1 << 20)) > 10
