import json
from dataclasses import replace

import pytest

from ledgers import ledger_row
from lightning_llava.evaluation.ledger import write_ledger
from lightning_llava.evaluation.scorers.dialects import DIALECTS
from tool_files import load_tool

SUFFIX = "\nAnswer the question using a single word or phrase."
SPLITS = ("random", "popular", "adversarial")


@pytest.fixture(scope="module")
def tool():
    return load_tool("score")


@pytest.fixture
def scores(tool, capsys):
    """Run the tool with `--json`."""

    def run(*arguments):
        assert tool.main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def array(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def pope_rows(count, word="image"):
    return [
        {
            "question_id": number + 1,
            "image": f"COCO_val2014_{number // 6:012}.jpg",
            "text": f"Is there thing {number} in the {word}?",
            "label": "no" if number % 2 else "yes",
        }
        for number in range(count)
    ]


def answered(rows, answers):
    return [
        {"question_id": row["question_id"], "text": text, "prompt": row["text"] + SUFFIX}
        for row, text in zip(rows, answers, strict=True)
    ]


def test_one_pope_split_by_hand(scores, tmp_path):
    rows = pope_rows(6)
    truth = lines(tmp_path / "coco_pope_random.json", rows)
    answers = answered(rows, ["Yes", "No", "No", "Yes", "maybe", ""])
    for row in answers:
        row["question_id"] = str(row["question_id"])  # the same ids, written otherwise
    result = scores(
        *("pope", "--ground-truth", truth, "--dialect", "all"),
        *("--predictions", lines(tmp_path / "answers.jsonl", reversed(answers))),
    )
    assert list(result["dialects"]) == list(DIALECTS["pope"])
    official = result["dialects"]["official"]["splits"]["random"]
    cells = ("tp", "fp", "tn", "fn", "total")
    assert [official[key] for key in cells] == [2, 2, 1, 1, 6]
    strict = result["dialects"]["strict"]["headline"]
    assert [strict[key] for key in cells] == [1, 1, 1, 2, 6]
    assert strict["unknown_rate"] == official["unknown_rate"] == 2 / 6
    assert strict["accuracy"] == 2 / 6
    assert result["notes"] == ["empty answers: 1"]
    assert result["version"].startswith("unknown")


@pytest.fixture
def old_pope(tmp_path):
    """Version e3e3926 in LLaVA's form: one question and one answer file, ids of its own."""
    truth, questions = [], []
    for split, count in zip(SPLITS, (2910, 3000, 3000), strict=True):
        rows = pope_rows(count, word="imange")
        truth.append(f"{split}={lines(tmp_path / f'{split}.json', rows)}")
        for row in rows:
            text = row["text"].replace("imange", "image") + SUFFIX
            questions.append(
                {**row, "question_id": len(questions), "text": text, "category": split}
            )
    answers = answered(questions, ["No" if row["label"] == "no" else "Yes" for row in questions])
    answers[0]["text"] = "No"
    return truth, lines(tmp_path / "questions.jsonl", questions), answers


def test_llavas_one_file_joins_through_its_question_file(scores, refusal, old_pope, tmp_path):
    truth, questions, answers = old_pope
    file = lines(tmp_path / "answers.jsonl", answers)
    command = ["pope", "--ground-truth", *truth, "--predictions", file]
    result = scores(*command, "--questions", questions)
    assert result["version"] == (
        "e3e3926 (random 2,910, popular 3,000, adversarial 3,000 rows): the version that LLaVA's "
        "paper used, not HEAD"
    )
    official = result["dialects"]["official"]
    assert official["splits"]["random"]["tp"] == 1454
    assert official["splits"]["popular"]["f1"] == 1.0
    assert official["headline"]["f1"] == pytest.approx((2 * 1454 / (2 * 1454 + 1) + 2) / 3)
    assert official["headline"]["total"] == 8910
    assert "name the split of each file" in refusal(*command)
    lines(file, answers[:-1])
    assert "answers missing: 1 (8909)" in refusal(*command, "--questions", questions)
    answers[7]["prompt"] = answers[8]["prompt"]
    lines(file, answers)
    assert "line 8: was asked 'Is there thing 8" in refusal(*command, "--questions", questions)


def test_every_pair_of_llavas_files_is_checked(refusal, old_pope, tmp_path):
    truth, questions, answers = old_pope
    file = lines(tmp_path / "answers.jsonl", answers)
    command = ["--predictions", file, "--questions", questions]
    rows = pope_rows(2910, word="imange")
    rows[7]["text"] = "Is there a cat in the imange?"
    lines(tmp_path / "random.json", rows)
    error = refusal("pope", "--ground-truth", *truth, *command)
    assert "line 8: asks 'Is there thing 7 in the image?'" in error
    rows[3]["image"] = "COCO_val2014_000000000009.jpg"
    lines(tmp_path / "random.json", rows)
    assert "line 4: is about" in refusal("pope", "--ground-truth", *truth, *command)
    lines(tmp_path / "random.json", pope_rows(2900))
    error = refusal("pope", "--ground-truth", *truth, *command)
    assert "random: the ground truth has 2,900 rows, the question file 2,910" in error
    assert "categories adversarial, popular, random" in refusal(
        "pope", "--ground-truth", truth[0], *command
    )


def test_the_versions_of_pope_are_told_apart(scores, refusal, tmp_path):
    files = [f"{split}={lines(tmp_path / split, pope_rows(3000))}" for split in SPLITS]
    answers = answered(pope_rows(3000), ["Yes"] * 3000)
    named = [f"{split}={lines(tmp_path / f'{split}.jsonl', answers)}" for split in SPLITS]
    result = scores("pope", "--ground-truth", *files, "--predictions", *named)
    assert result["version"].startswith("HEAD (random 3,000, popular 3,000")
    assert result["dialects"]["official"]["headline"]["yes_ratio"] == 1.0
    lines(tmp_path / "popular", pope_rows(3000, word="imange"))
    error = refusal("pope", "--ground-truth", *files, "--predictions", *named)
    assert "different versions of POPE" in error
    lines(tmp_path / "random.jsonl", answers[:2910])
    error = refusal("pope", "--ground-truth", files[0], "--predictions", named[0])
    assert "answers missing: 90 (2911, 2912, 2913, …)" in error
    assert "3,000 rows at HEAD and 2,910 in the version e3e3926" in error


def published_row(**changes):
    """Make a row of `pope_rows`."""
    published = {
        "image": "images/COCO_val2014_000000000000.jpg",
        "question": "Is there thing 0 in the image?",
        "prompt": "USER: Is there thing 0 in the image? ASSISTANT:",
    }
    return ledger_row(**published | changes)


def test_a_ledger_brought_back_into_english_is_scored_by_that(scores, tmp_path):
    content = {"1": {"question": "?", "imageId": "n1", "answer": "cat", "isBalanced": True}}
    truth = array(tmp_path / "testdev.json", content)
    common = {"benchmark": "gqa", "kind": "gqa", "split": "testdev", "image": "n1.jpg"}
    row = published_row(**common, question="Кто?", prompt="Кто?", raw_answer="Кот", label="cat")
    for english, accuracy in [(None, 0.0), ("Cat", 1.0)]:
        write_ledger(tmp_path / "ledger.jsonl", [replace(row, language="ru", english=english)])
        result = scores(
            *("gqa", "--ground-truth", truth),
            *("--predictions", tmp_path / "ledger.jsonl"),
        )
        assert (result["dialect"], result["accuracy"]) == ("llava", accuracy), "as in its report"


def test_a_ledger_in_russian_takes_the_strict_dialect(scores, refusal, tmp_path):
    second = {"question_id": "2", "question": "Is there thing 1 in the image?", "label": "no"}
    rows = [
        published_row(language="ru", question="Есть ли предмет 0?", raw_answer="Да"),
        published_row(language="ru", **{**second, "question": "Есть ли 1?"}, raw_answer="Нет"),
        published_row(benchmark="gqa", split="testdev"),
    ]
    write_ledger(tmp_path / "ledger.jsonl", rows)
    truth = lines(tmp_path / "coco_pope_random.json", pope_rows(2))
    command = ["pope", "--ground-truth", truth, "--predictions", tmp_path / "ledger.jsonl"]
    result = scores(*command)
    assert list(result["dialects"]) == ["strict"]
    assert result["dialects"]["strict"]["headline"]["accuracy"] == 1.0
    assert (result["dialect"], result["accuracy"], result["unknown_rate"]) == ("strict", 1.0, 0.0)
    assert result["notes"] == ["answers in Cyrillic letters: 2"]
    official = scores(*command, "--dialect", "official")["dialects"]["official"]["headline"]
    assert (official["accuracy"], official["unknown_rate"]) == (0.5, 1.0)
    rows[:2] = [replace(row, source=f"Is there thing {n} here?") for n, row in enumerate(rows[:2])]
    write_ledger(tmp_path / "ledger.jsonl", rows)
    assert "was asked 'Is there thing 0 here?'" in refusal(*command)
    write_ledger(tmp_path / "ledger.jsonl", [published_row(split="popular")])
    assert "is of the split 'popular', but --ground-truth gives random" in refusal(*command)


def test_a_ledger_is_known_by_its_kinds_whatever_its_benchmarks_are_called(
    scores, refusal, tmp_path
):
    other = published_row(benchmark="pope", kind="gqa", split="testdev", question_id="7")
    write_ledger(tmp_path / "ledger.jsonl", [published_row(benchmark="mine"), other])
    truth = lines(tmp_path / "coco_pope_random.json", pope_rows(1))
    command = ["--ground-truth", truth, "--predictions", tmp_path / "ledger.jsonl"]
    assert scores("pope", *command)["total"] == 1
    texts = tmp_path / "texts.tsv"
    texts.write_text("1\tдом\n", encoding="utf-8")
    error = refusal("ocr", "--ground-truth", texts, *command[2:])
    assert "a ledger of gqa, pope, none of its rows is ocr" in error


HUMANS = [{"answer": "two", "answer_id": number} for number in range(1, 11)]


def vqa_annotations(path):
    rows = [
        {
            "question_id": number,
            "image_id": number,
            "question_type": kind,
            "answer_type": answer_type,
            "multiple_choice_answer": "two",
            "answers": HUMANS,
        }
        for number, kind, answer_type in [(1, "how many", "number"), (2, "is", "yes/no")]
    ]
    return array(path, {"annotations": rows})


def test_vqav2_results(scores, refusal, tmp_path):
    truth = vqa_annotations(tmp_path / "annotations.json")
    results = [{"question_id": 1, "answer": "two"}, {"question_id": 2, "answer": "2"}]
    file = array(tmp_path / "results.json", results)
    command = ["vqav2", "--ground-truth", truth, "--predictions", file]
    result = scores(*command, "--dialect", "all")["dialects"]
    assert list(result) == ["official", "llava", "lmms-eval"]
    official = result["official"]
    assert (official["accuracy"], official["correct"], official["total"]) == (0.5, 1.0, 2)
    assert official["by_question_type"]["how many"]["accuracy"] == 1.0
    assert official["by_answer_type"]["yes/no"]["accuracy"] == 0.0
    assert result["lmms-eval"]["accuracy"] == 1.0
    questions = array(
        tmp_path / "questions.json",
        {"questions": [{"question_id": 1, "image_id": 1, "question": "How many?"}]},
    )
    assert "answers missing: 1 (2)" in refusal(*command, "--questions", questions)
    assert "VLMEvalKit defines no scoring" in refusal(*command, "--dialect", "vlmevalkit")
    array(file, [*results, results[0]])
    assert "questions answered more than once: 1 (1)" in refusal(*command)
    array(file, [{"question_id": 1, "answer": 2}])
    assert "entry 0: answer is 2, expected a text" in refusal(*command)


def test_gqa_predictions(scores, refusal, tmp_path):
    content = {
        name: {"question": "What?", "imageId": "n1", "answer": "cat", "isBalanced": name != "3"}
        for name in ("1", "2", "3")
    }
    truth = array(tmp_path / "testdev.json", content)
    predictions = [{"questionId": name, "prediction": "Cat."} for name in ("2", "3", "1")]
    file = array(tmp_path / "predictions.json", predictions)
    command = ["gqa", "--ground-truth", truth, "--predictions", file]
    result = scores(*command, "--dialect", "all")
    assert result["notes"] == ["answers to questions that are not balanced, not scored: 1"]
    accuracies = [numbers["accuracy"] for numbers in result["dialects"].values()]
    assert accuracies == [0.0, 1.0, 1.0, 0.0]
    right = {"accuracy": 1.0, "correct": 2, "total": 2}
    assert result["dialects"]["llava"] == right
    content["1"]["types"] = {"structural": "verify", "semantic": "attr"}
    array(truth, content)
    one = {**right, "correct": 1, "total": 1}
    assert scores(*command, "--dialect", "llava")["dialects"]["llava"] == {
        **right,
        "by_structural": {"verify": one},
        "by_semantic": {"attr": one},
        "by_answer_type": {"binary": one},
    }
    del content["2"]["isBalanced"]
    array(truth, content)
    assert "question 2: no true or false under 'isBalanced'" in refusal(*command)


def test_textvqa_in_llavas_form_and_by_question_id(scores, refusal, tmp_path):
    row = {"image_id": "ab12", "question": "what number is it?", "answers": ["3"] * 10}
    truth = array(tmp_path / "TextVQA_0.5.1_val.json", {"data": [{**row, "question_id": 34602}]})
    prompt = "What number is it?\nReference OCR token: 3, .\nAnswer the question using a word."
    llava = lines(
        tmp_path / "llava.jsonl", [{"question_id": "ab12", "prompt": prompt, "text": "3."}]
    )
    ours = array(tmp_path / "ours.json", [{"question_id": 34602, "answer": "3."}])
    for file in (llava, ours):
        command = ["textvqa", "--ground-truth", truth, "--predictions", file]
        result = scores(*command, "--dialect", "all")["dialects"]
        found = {name: numbers["accuracy"] for name, numbers in result.items()}
        assert found == {"llava": 1.0, "lmms-eval": 1.0, "vlmevalkit": 0.0}
    assert "own script defines no scoring" in refusal(*command, "--dialect", "official")
    assert list(scores(*command)["dialects"]) == ["llava"]


def test_ocr_from_tab_separated_lines_and_json_lines(scores, refusal, tmp_path):
    tabs = tmp_path / "gt.txt"
    tabs.write_text("a/1.png\tЁлка\na/2.png\tдом\n", encoding="utf-8")
    rows = [{"question_id": "a/1.png", "text": "елка"}, {"question_id": "a/2.png", "text": "том"}]
    file = lines(tmp_path / "answers.jsonl", rows)
    json_lines = lines(
        tmp_path / "gt.jsonl",
        [{"image": "a/1.png", "text": "Ёлка"}, {"image": "a/2.png", "text": "дом"}],
    )
    for truth in (tabs, json_lines):
        command = ["ocr", "--ground-truth", truth, "--predictions", file]
        result = scores(*command, "--dialect", "all")["dialects"]
        assert (result["verbatim"]["correct"], result["verbatim"]["cer"]) == (0, 2 / 7)
        assert (result["folded"]["correct"], result["folded"]["cer"]) == (1, 1 / 7)
    tabs.write_text("a/1.png Ёлка\n", encoding="utf-8")
    command = ["ocr", "--ground-truth", tabs, "--predictions", file]
    assert "line 1: no tab, expected path<TAB>text" in refusal(*command)
    tabs.write_text("a/1.png\t \n", encoding="utf-8")
    assert "line 1: no text to be read" in refusal(*command)


def test_refuses_other_labels_files_and_forms(refusal, tmp_path):
    rows = pope_rows(3)
    rows[1]["label"], rows[2]["label"] = "нет.", "'да'"
    truth = lines(tmp_path / "pope.json", rows)
    file = lines(tmp_path / "answers.jsonl", answered(rows, ["Yes"] * 3))
    command = ["pope", "--ground-truth", truth, "--predictions", file]
    error = refusal(*command)
    assert "labels that are neither yes nor no: 2, the first in" in error
    assert "line 2: 'нет.'" in error
    lines(truth, pope_rows(3)[:1] * 2)
    assert "ids that occur more than once in" in refusal(*command)
    lines(truth, pope_rows(3))
    lines(file, [{"id": 1, "caption": "Yes"}])
    assert "none of question_id, questionId among the keys" in refusal(*command)
    lines(file, pope_rows(3))
    assert "a question with label and no answer" in refusal(*command)
    lines(file, [])
    assert "holds no answers" in refusal(*command)
    assert "does not exist" in refusal(*command[:3], "--predictions", tmp_path / "nowhere")
    assert "there is no such name" in refusal(*command, "--dialect", "m4c")
    gqa = ["gqa", "--ground-truth", truth, "--predictions", file]
    assert "is not JSON" in refusal(*gqa)


def test_prints_a_table_that_fits_80_columns(tool, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    rows = pope_rows(3000)
    truth = f"adversarial={lines(tmp_path / 'truth', rows)}"
    file = lines(tmp_path / "answers.jsonl", answered(rows, ["Yes"] * 3000))
    assert tool.main(["pope", "--ground-truth", truth, "--predictions", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert "HEAD (adversarial 3,000 rows)" in printed
    for cell in ("1500", "precision", "66.67", "100.00", "yes ratio"):
        assert cell in printed


def test_golden_numbers_of_llava_1_5_13b(scores, shared_data, tmp_path):
    pope, gqa, xgqa = shared_data(
        "llava-1.5-13b/pope_random.jsonl",
        "llava-1.5-13b/gqa_train_48.jsonl",
        "xgqa/train_48.en.json",
    )
    rows = [json.loads(line) for line in pope.read_text(encoding="utf-8").splitlines()]
    file = lines(tmp_path / "answers.jsonl", answered(rows, [row["prediction"] for row in rows]))
    truth = f"random={pope}"
    result = scores("pope", "--ground-truth", truth, "--predictions", file)
    assert result["version"].startswith("e3e3926 (random 2,910 rows)")
    numbers = result["dialects"]["official"]["splits"]["random"]
    assert [numbers[key] for key in ("tp", "fp", "tn", "fn")] == [1182, 31, 1379, 318]
    assert numbers["f1"] == pytest.approx(0.871360, abs=5e-7)
    assert numbers["yes_ratio"] == pytest.approx(0.416838, abs=5e-7)
    result = scores("gqa", "--ground-truth", xgqa, "--predictions", gqa, "--dialect", "all")
    correct = {name: numbers["correct"] for name, numbers in result["dialects"].items()}
    assert (correct["official"], correct["llava"]) == (0, 951)


def test_machine_translated_labels_are_refused(refusal, shared_data):
    russian, english = shared_data("pope/coco_pope_random_ru.json", "pope/coco_pope_random.json")
    error = refusal("pope", "--ground-truth", russian, "--predictions", english)
    assert "labels that are neither yes nor no: 3,000, the first in" in error
    assert "POPE's labels stay as published" in error
