"""Every distinct prompt about every picture is asked once, whatever happens in between."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.ledger import read_ledger
from lightning_llava.evaluation.processes import Processes
from lightning_llava.evaluation.run import evaluate


class Parrot:
    """Answers by rote, and remembers what it was asked; gives up after some questions."""

    name, fingerprint = "parrot", "0"

    def __init__(self, patience=1000):
        self.asked, self.patience = [], patience

    def prompt(self, question):
        return f"{question.history} {question.text} ({question.language})"

    def answer(self, image, questions):
        answers = []
        for question in questions:
            if len(self.asked) == self.patience:
                raise KeyboardInterrupt
            self.asked.append((image and image.name, question.text))
            answers.append("yes" if "dog" in question.text else "no")
        return answers


@pytest.fixture
def questions(tmp_path):
    """Of three pictures, two are the same one; some questions occur in several splits."""
    for name, seed in (("a", 0), ("b", 1), ("same_as_a", 0)):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    asked = []
    for split in ("random", "popular"):
        for name in ("a", "b", "same_as_a"):
            for thing in ("dog", "cat", f"{split} thing"):
                number, image = str(len(asked)), tmp_path / f"{name}.png"
                label = "yes" if thing == "dog" else "no"
                text = f"Is there a {thing}?"
                asked.append(Question("pope", split, number, text, image, label, "en"))
    return asked


def run(questions, answerer, folder, **settings):
    quiet = Console(quiet=True)
    return evaluate(questions, answerer, folder, {"model": "parrot"}, quiet, **settings)


def lines(folder):
    return [
        line
        for path in folder.glob("answers*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def test_each_distinct_prompt_is_asked_once(questions, tmp_path):
    parrot, folder = Parrot(), tmp_path / "out"
    outcome = run(questions, parrot, folder)
    assert (outcome.asked, outcome.kept) == (8, 0), "four texts about two pictures"
    assert len(set(parrot.asked)) == len(parrot.asked) == 8
    rows = read_ledger(folder / "ledger.jsonl")
    assert [row.question_id for row in rows] == [question.question_id for question in questions]
    assert all(row.correct for row in rows)
    report = json.loads((folder / "report.json").read_text())
    assert report["scores"]["pope"]["mean"]["accuracy"] == 1.0
    assert report["meta"] == {"model": "parrot"}


def test_stopped_and_started_again_it_asks_the_rest(questions, tmp_path):
    whole, folder = Parrot(), tmp_path / "out"
    run(questions, whole, tmp_path / "whole")
    asked = []
    for patience in (0, 3, 5, 1):
        parrot = Parrot(patience)
        with pytest.raises(KeyboardInterrupt):
            run(questions, parrot, folder)
        asked += parrot.asked[: len(lines(folder)) - len(asked)]
    parrot = Parrot()
    outcome = run(questions, parrot, folder)
    assert (outcome.asked, outcome.kept) == (len(parrot.asked), len(asked))
    assert outcome.kept > 0
    assert sorted(asked + parrot.asked) == sorted(whole.asked)
    for name in ("ledger.jsonl", "report.json", "report.md"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_model_is_asked_anew(questions, tmp_path):
    run(questions, Parrot(), tmp_path)
    other = Parrot()
    other.fingerprint = "1"
    assert run(questions, other, tmp_path).kept == 0
    assert run(questions, Parrot(), tmp_path).asked == 0, "both are kept"


def test_another_picture_at_the_same_path_is_asked_about_anew(questions, tmp_path):
    run(questions, Parrot(), tmp_path / "out")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    parrot = Parrot()
    run(questions, parrot, tmp_path / "out")
    assert {image for image, _ in parrot.asked} == {"b.png"}
    assert len(parrot.asked) == 4


def test_questions_are_changed_before_and_rows_behind(questions, tmp_path):
    def translate(questions):
        return [replace(q, text=f"{q.text}!", source=q.text, language="ru") for q in questions]

    def bring_back(rows):
        return [replace(row, english=row.raw_answer.upper(), route="map") for row in rows]

    parrot = Parrot()
    outcome = run(questions, parrot, tmp_path / "out", before=translate, after=bring_back)
    assert all(text.endswith("?!") for _, text in parrot.asked)
    assert {row.english for row in outcome.rows} == {"YES", "NO"}
    assert {row.raw_answer for row in outcome.rows} == {"yes", "no"}
    assert read_ledger(tmp_path / "out" / "ledger.jsonl") == outcome.rows
    again = run(questions, parrot, tmp_path / "out", before=translate)
    assert again.asked == 0, "changing what comes behind asks nothing"


def test_questions_without_a_picture_are_asked_some_at_a_time(questions, tmp_path):
    sizes = []

    class Listener(Parrot):
        def answer(self, image, questions):
            sizes.append((image is None, len(questions)))
            return super().answer(image, questions)

    blind = [replace(question, image=None) for question in questions]
    run(blind, Listener(), tmp_path / "out", at_once=3)
    assert sizes == [(True, 3), (True, 1)]


class Threads(Processes):
    """Two threads in the place of processes: what one says, both hear."""

    barrier, said = Barrier(2), [0, 0]

    def total(self, number):
        self.said[self.rank] = number
        self.barrier.wait(timeout=20)
        total = sum(self.said)
        self.barrier.wait(timeout=20)
        return total


def test_two_processes_ask_different_pictures(questions, tmp_path):
    talk = [replace(q, image=None, text=f"{q.text} {i}") for i, q in enumerate(questions)]
    talk = [replace(q, benchmark="talk", follow_up="Why?") for q in talk]
    asked = [*questions, *talk]
    alone = run(asked, Parrot(), tmp_path / "one", at_once=4)
    parrots = [Parrot(), Parrot()]

    def one_of_two(rank):
        place = {"processes": Threads(rank, 2), "at_once": 4}
        return run(asked, parrots[rank], tmp_path / "two", **place)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one_of_two, range(2))
    assert second is None
    assert (first.asked, first.kept) == (alone.asked, 0)
    assert sum(len(parrot.asked) for parrot in parrots) == alone.asked == 8 + 2 * len(talk)
    assert {image for image, _ in parrots[0].asked} == {"a.png", None}
    assert {image for image, _ in parrots[1].asked} == {"b.png", None}
    for name in ("ledger.jsonl", "report.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = run(asked, Parrot(), tmp_path / "two", at_once=4)
    assert again.asked == 0, "one process after two"
