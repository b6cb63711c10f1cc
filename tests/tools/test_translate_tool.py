import json
from dataclasses import asdict, replace

import pytest

from ledgers import asked_in_russian
from lightning_llava.evaluation.ledger import read_ledger, write_ledger
from lightning_llava.evaluation.translation.command import parser
from lightning_llava.evaluation.translation.translator import OracleTranslator
from tool_files import load_tool

POPE = [
    {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.jpg", "text": "Is there a kite in the image?", "label": "no"},
]
ROW = asked_in_russian(
    question="Что в небе?",
    prompt="Что в небе?\nОтветь одним словом.",
    raw_answer="Воздушный змей",
    label="kite",
    answers=["kite"],
    source="What is in the sky?",
)


@pytest.fixture(scope="module")
def tool():
    return load_tool("translate")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(tool, refusal, capsys):
    """Run the tool, and return what it prints."""

    def run(*arguments, code=0):
        if code == 2:
            return refusal(*arguments)
        capsys.readouterr()
        assert tool.main([*map(str, arguments)]) == code
        printed = capsys.readouterr().out
        return json.loads(printed) if "--json" in arguments else printed

    return run


def lines(path, records):
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_popes_questions_need_no_translator(folder, run):
    lines(folder / "pope.json", POPE)
    said = run("questions", "pope.json", "--output", "ru")
    assert "2 questions, 2 different: 2 reviewed, 0 translated" in said
    assert read(folder / "ru" / "pope.json") == [
        record | {"source": record["text"], "text": f"Есть ли на изображении {noun}?"}
        for record, noun in zip(POPE, ["собака", "воздушный змей"], strict=True)
    ]
    assert not (folder / "translations.jsonl").exists()


def test_failed_questions_are_listed_for_review_and_then_taken_from_it(folder, run):
    lines(folder / "pope.json", [*POPE, POPE[0] | {"question_id": 3, "text": "Why?"}])
    (folder / "table.tsv").write_text("Why?\tWhy\n", encoding="utf-8")
    command = ("questions", "pope.json", "--output", "ru", "--to-russian", "table.tsv")
    assert "1 different questions have no usable translation" in run(*command, code=2)
    assert not (folder / "ru" / "pope.json").exists()
    failed = folder / "ru" / "failed.tsv"
    assert failed.read_text(encoding="utf-8") == "# script\nWhy?\tWhy\n"
    failed.write_text("Why?\tПочему?\n", encoding="utf-8")
    run(*command, "--reviewed", failed)
    assert read(folder / "ru" / "pope.json")[2]["text"] == "Почему?"
    assert "1 of these failed" in run(*command, "--keep-failed")
    assert read(folder / "ru" / "pope.json")[2]["problem"] == "script"


def test_the_whole_protocol_with_a_real_pair_of_models(folder, run, marian_pair):
    """Questions, answers, back and scored, with tiny Marian models; then again from the cache."""
    models = [
        argument
        for option, pair in (("--to-russian", ("en", "ru")), ("--to-english", ("ru", "en")))
        for argument in (option, str(marian_pair[pair]))
    ]
    asked = {"1": {"question": "What is in the sky?", "answer": "kite"}}
    asked["2"] = {"question": "What color is the cat?", "answer": "white"}
    (folder / "gqa.json").write_text(json.dumps(asked), encoding="utf-8")
    run("questions", "gqa.json", "--output", "ru", *models[:2])
    russian = json.loads((folder / "ru" / "gqa.json").read_text(encoding="utf-8"))
    assert [question["question"] for question in russian.values()] == [
        "Что в небе?",
        "Какого цвета кошка?",
    ]
    answers = {"1": "Воздушный змей", "2": "Чёрная"}
    ledger = [
        replace(
            ROW,
            question_id=key,
            question=question["question"],
            source=question["source"],
            label=question["answer"],
            answers=[question["answer"]],
            raw_answer=answers[key],
        )
        for key, question in russian.items()
    ]
    write_ledger(folder / "ledger.jsonl", ledger)
    command = ("answers", "ledger.jsonl", "--output", "english.jsonl", "--json")
    report = run(*command, *models)
    (numbers,) = report["splits"].values()
    assert (numbers["score"], numbers["ceiling"], numbers["gold"]) == (0.5, 1.0, 1.0)
    assert {route: found["rows"] for route, found in numbers["routes"].items()} == {
        "map": 1,
        "mt": 1,
    }
    assert report["questions"]["accuracy"] == 1
    assert read_ledger(folder / "english.jsonl") == [
        replace(ledger[0], english="Kite", route="mt", parsed="kite", correct=True),
        replace(ledger[1], english="Black", route="map", parsed="black", correct=False),
    ]
    kept = (folder / "translations.jsonl").read_bytes()
    assert run(*command, *models) == report
    assert (folder / "translations.jsonl").read_bytes() == kept


def test_pope_is_measured_without_any_model(folder, run):
    rows = [
        replace(
            ROW,
            kind="pope",
            question_id=str(record["question_id"]),
            source=record["text"],
            label=record["label"],
            raw_answer=answer,
        )
        for record, answer in zip(POPE, ("Да", "Нет."), strict=True)
    ]
    write_ledger(folder / "ledger.jsonl", rows)
    nowhere = ("--to-english", "not/there", "--to-russian", "not/there", "--json")
    report = run("answers", "ledger.jsonl", "--output", "en.jsonl", *nowhere)
    (numbers,) = report["splits"].values()
    assert (numbers["metric"], numbers["score"], numbers["ceiling"]) == ("f1", 1, 1)
    assert report["questions"] == {}
    (numbers,) = run("ceiling", "ledger.jsonl", *nowhere)["splits"].values()
    assert numbers["ceiling"] == 1


def test_without_a_translator_map_and_lexicon_remain(folder, run):
    rows = [replace(ROW, raw_answer="Белый", label="white"), replace(ROW, question_id="2")]
    write_ledger(folder / "ledger.jsonl", rows)
    command = ("answers", "ledger.jsonl", "--output", "en.jsonl", "--without-ceiling", "--json")
    (numbers,) = run(*command, "--to-english", "none")["splits"].values()
    assert {route: found["rows"] for route, found in numbers["routes"].items()} == {
        "map": 1,
        "none": 1,
    }


def test_the_ceiling_of_an_english_ledger(folder, run):
    english = replace(ROW, language="en", question="What is in the sky?", source=None)
    other = replace(english, question_id="2", label="moon", answers=["moon"])
    write_ledger(folder / "ledger.jsonl", [english, other])
    command = ("ceiling", "ledger.jsonl", "--to-english", "oracle", "--json")
    (numbers,) = run(*command, "--to-russian", "oracle")["splits"].values()
    assert (numbers["gold"], numbers["ceiling"]) == (1, 1)
    assert "score" not in numbers
    kite, sky = OracleTranslator().translate(["kite", "What is in the sky?"], "en", "ru")
    table = {"kite": kite, "What is in the sky?": sky}
    (folder / "table.json").write_text(json.dumps(table), encoding="utf-8")
    (numbers,) = run(*command, "--to-russian", "table.json")["splits"].values()
    assert numbers["ceiling"] == 0.5


def test_answers_print_score_ceiling_and_routes(folder, run):
    write_ledger(folder / "ledger.jsonl", [replace(ROW, raw_answer="Белый", label="white")])
    (folder / "words.txt").write_text("whites\n", encoding="utf-8")
    oracle = ("--to-english", "oracle", "--to-russian", "oracle")
    arguments = ("answers", "ledger.jsonl", "--output", "en.jsonl", "--vocabulary", "words.txt")
    said = run(*arguments, "--report", "report.json", *oracle)
    for part in ("gqa/testdev", "MT ceiling", "snapped", "100.00", "by tables", "1 questions into"):
        assert part in said
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["splits"]["gqa/testdev"]["snapped"] == 0
    said = run("answers", "ledger.jsonl", "--output", "en.jsonl", "--without-ceiling")
    assert "there and back" not in said


def test_a_lexicon_is_built_and_used(folder, run):
    for name, answer in (("en", "kite"), ("ru", "змей")):
        content = {str(i): {"question": f"{name}?", "answer": answer} for i in range(3)}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    files = ("--english", "en.json", "--russian", "ru.json", "--output", "lexicon.json")
    assert "1 different Russian answers, 1 with" in run("lexicon", *files)
    command = ("answers", "ledger.jsonl", "--output", "en.jsonl", "--without-ceiling")
    write_ledger(folder / "ledger.jsonl", [replace(ROW, raw_answer="Змей")])
    run(*command, "--lexicon", "lexicon.json", "--json")
    (row,) = read_ledger(folder / "en.jsonl")
    assert (row.english, row.route, row.correct) == ("Kite", "lexicon", True)
    write_ledger(folder / "ledger.jsonl", [replace(ROW, raw_answer="Змей", source="en?")])
    assert "training splits only" in run(*command, "--lexicon", "lexicon.json", code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["questions", "nowhere.json", "--output", "ru"], "nowhere.json"),
        (["questions", "pope.json", "--output", "."], "would write over pope.json"),
        (["answers", "english.jsonl", "--output", "x"], "no row was asked in Russian"),
        (["answers", "ledger.jsonl", "--output", "x", "--to-english", "no/such"], "--to-english"),
        (["answers", "ledger.jsonl", "--output", "x", "--to-english", "t.tsv"], "t.tsv, line 1"),
        (["answers", "ledger.jsonl", "--output", "x", "--lexicon", "pope.json"], "--lexicon"),
        (["answers", "ledger.jsonl", "--output", "x", "--vocabulary", "none"], "--vocabulary"),
        (["ceiling", "nothing.jsonl"], "nothing to measure"),
    ],
)
def test_wrong_inputs_are_one_sentence(folder, run, arguments, message):
    lines(folder / "pope.json", POPE)
    lines(folder / "nothing.jsonl", [asdict(replace(ROW, label=None))])
    write_ledger(folder / "ledger.jsonl", [ROW])
    write_ledger(folder / "english.jsonl", [replace(ROW, language="en")])
    (folder / "t.tsv").write_text("one column\n", encoding="utf-8")
    assert message in run(*arguments, code=2)
    assert not (folder / "x").exists()


def test_a_stopped_run_says_how_it_goes_on(tool, monkeypatch, capsys):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "run", stopped)
    assert tool.main([]) == 130
    assert "the next run goes on" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["questions", "answers", "ceiling", "lexicon"])
def test_help_names_every_default(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args([command, "--help"])
    said = capsys.readouterr().out
    defaults = {
        "questions": ["opus-mt-en-ru", "translations.jsonl", "default: 4", "default: 32", "auto"],
        "answers": ["opus-mt-en-ru", "opus-mt-ru-en", "translations.jsonl"],
        "ceiling": ["opus-mt-en-ru", "opus-mt-ru-en", "translations.jsonl"],
        "lexicon": ["(required)"],
    }
    assert all(default in said for default in defaults[command])
    assert "default: None" not in said
