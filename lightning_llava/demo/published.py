"""Questions about the validation pictures as VQAv2, GQA and OCR sets publish theirs.

The Russian files are those of the Russian protocol: questions in Russian, the English ones beside
them as `source`, answers in English.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_llava.demo import english, russian
from lightning_llava.demo.exam import Asked
from lightning_llava.demo.questions import Question, Topic
from lightning_llava.demo.records import short_question
from lightning_llava.demo.scenes import COLOURS, NUM_CELLS, SHAPES, Scene
from lightning_llava.demo.wording import Wording, capitalised

LANGUAGES: tuple[Wording, ...] = (english, russian)
VQA_TOPICS: dict[Topic, str] = {
    "is_colour": "yes/no",
    "exists": "yes/no",
    "colour_of": "other",
    "colour_at": "other",
    "shape_at": "other",
    "count_all": "number",
    "count_shape": "number",
    "count_colour": "number",
    "where": "other",
}
"""What VQAv2's form asks → its `answer_type`; `question_type` is the topic."""
GQA_TOPICS: dict[Topic, tuple[str, str]] = {
    "exists": ("verify", "obj"),
    "is_colour": ("verify", "attr"),
    "colour_of": ("query", "attr"),
    "colour_at": ("query", "attr"),
    "shape_at": ("query", "cat"),
    "where": ("query", "attr"),
}
"""What GQA's form asks → structural and semantic type. GQA does not count."""
HUMANS = 10
"""Answers to a question of VQAv2."""


def write_vqav2(folder: Path, split: str, asked: Asked) -> None:
    """Write `{en,ru}/demo_{split}_questions.json` and `demo_{split}_annotations.json`."""
    # The published files have descriptions and licences here.
    head: dict[str, Any] = {"info": {}, "license": {}, "data_type": "mscoco"}
    head["data_subtype"] = "demo"  # the middle of the pictures' names
    for wording in LANGUAGES:
        rows = [
            {
                "image_id": scene.index,
                "question": wording.ask(question),
                "question_id": number,
                **_source(question, wording),
            }
            for number, scene, question in _numbered(asked)
        ]
        content = {**head, "task_type": "Open-Ended", "questions": rows}
        _write_json(folder / wording.CODE / f"demo_{split}_questions.json", content)
    annotations = [
        {
            "question_type": question.topic,
            "multiple_choice_answer": answer(question),
            "answers": [
                {"answer": answer(question), "answer_confidence": "yes", "answer_id": human}
                for human in range(1, HUMANS + 1)
            ],
            "image_id": scene.index,
            "answer_type": VQA_TOPICS[question.topic],
            "question_id": number,
        }
        for number, scene, question in _numbered(asked)
    ]
    _write_json(folder / f"demo_{split}_annotations.json", {**head, "annotations": annotations})


def write_gqa(folder: Path, split: str, asked: Asked) -> None:
    """Write `{en,ru}/demo_{split}_questions.json`, all of them balanced."""
    for wording in LANGUAGES:
        content = {
            f"{number:08d}": {
                "question": wording.ask(question),
                "imageId": scene.image_id,
                "isBalanced": True,
                "answer": answer(question),
                "fullAnswer": english.reply(question),
                "types": dict(
                    zip(("structural", "semantic"), GQA_TOPICS[question.topic], strict=True),
                    detailed=question.topic,
                ),
                **_source(question, wording),
            }
            for number, scene, question in _numbered(asked)
        }
        _write_json(folder / wording.CODE / f"demo_{split}_questions.json", content)


def write_ocr(folder: Path, split: str, asked: Asked) -> None:
    """Write `{en,ru}/demo_{split}.jsonl`: picture, word, and the question as in training."""
    for wording in LANGUAGES:
        rows = (
            {
                "question_id": scene.image_id,
                "image": scene.image_name,
                "text": question.answer,
                "question": short_question(wording, question),
            }
            for scene, question in asked
        )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        _write(folder / wording.CODE / f"demo_{split}.jsonl", lines)


def write_table(path: Path, asked: Iterable[Question]) -> None:
    """Write `english<TAB>russian`, a translator for the Russian protocol.

    Args:
        path: of the table.
        asked: questions that it shall have, beside all answers but words, numbers, yes and no,
            which need no translation or have one of their own.
    """
    answers: list[Question] = [
        *(Question("colour_at", colour, cell=0) for colour in COLOURS),
        *(Question("shape_at", shape, cell=0) for shape in SHAPES),
        *(Question("where", cell, "red", "circle") for cell in range(NUM_CELLS)),
    ]
    forms: tuple[Callable[[str], str], ...] = (str.lower, capitalised)
    table = {english.ask(question): russian.ask(question) for question in asked}
    for question in answers:
        pair = english.answer(question), russian.answer(question)
        table |= {form(pair[0]): form(pair[1]) for form in forms}
    _write(path, "".join(f"{text}\t{said}\n" for text, said in table.items()))


def answer(question: Question) -> str:
    """Answer as benchmarks do: in English and in lower case."""
    return english.answer(question).lower()


def _source(question: Question, wording: Wording) -> dict[str, str]:
    return {} if wording.CODE == english.CODE else {"source": english.ask(question)}


def _numbered(asked: Asked) -> Iterator[tuple[int, Scene, Question]]:
    """Number questions as VQAv2 does: the picture's number, and three digits of their own."""
    before: Counter[int] = Counter()
    for scene, question in asked:
        yield 1000 * scene.index + before[scene.index], scene, question
        before[scene.index] += 1


def _write_json(path: Path, content: Any) -> None:
    _write(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
