"""An evaluation: questions → answers, kept as they come → ledger → report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console

from lightning_llava.evaluation.answerers.fingerprints import hash_file
from lightning_llava.evaluation.answerers.protocol import Answerer
from lightning_llava.evaluation.answering import group_by_image, group_identical, make_rows
from lightning_llava.evaluation.asking_bar import AskingBar
from lightning_llava.evaluation.benchmarks import Question, with_follow_ups
from lightning_llava.evaluation.gallery import build_gallery
from lightning_llava.evaluation.interval_report import add_intervals
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow, write_ledger
from lightning_llava.evaluation.measures import with_intervals
from lightning_llava.evaluation.processes import Processes
from lightning_llava.evaluation.report import Scores, score_rows, write_report
from lightning_llava.evaluation.store import Store, answer_key

GALLERY = "gallery.html"

Before = Callable[[Sequence[Question]], list[Question]]
"""What becomes of the questions before they are asked, such as their translation."""
After = Callable[[Sequence[LedgerRow]], list[LedgerRow]]
"""What becomes of the rows before they are scored; it may not touch `raw_answer`."""


@dataclass(frozen=True)
class Job:
    """The distinct prompts about one image, each with the questions that its answer serves."""

    image: Path | None
    prompts: dict[str, list[Question]]
    keys: dict[str, str]
    """Prompt → what its answer is kept under."""

    def served(self) -> Iterator[tuple[Question, str]]:
        """Yield every question with the key of its answer."""
        for prompt, questions in self.prompts.items():
            for question in questions:
                yield question, self.keys[prompt]


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found and did."""

    rows: list[LedgerRow]
    scores: Scores
    asked: int
    """Prompts that the model answered now, in all processes."""
    kept: int
    """Prompts whose answers were there already."""


def evaluate(
    questions: Sequence[Question],
    answerer: Answerer,
    folder: Path,
    meta: Mapping[str, object],
    console: Console,
    before: Before = list,
    after: After = list,
    at_once: int = 32,
    processes: Processes = Processes(),  # noqa: B008
) -> Outcome | None:
    """Ask what has not been answered yet; write ledger, report with intervals, and gallery.

    Args:
        questions: of any benchmarks.
        answerer: the model.
        folder: of the run; answers that an earlier run kept there are used again.
        meta: what the report says the numbers belong to.
        console: shows the progress.
        before: applied to the questions.
        after: applied to the rows.
        at_once: most questions without an image that are asked together.
        processes: those that share the work.

    Returns:
        What was found; None in all processes but the first.
    """
    asked = before(questions)
    if answerer.fingerprint is None:
        rows, counts = _given_rows(with_follow_ups(asked), answerer), (0, len(asked))
    else:
        with closing(Store(folder, processes.rank, processes.world)) as store:
            rows, counts = _converse(asked, answerer, store, console, at_once, processes)
    if not processes.first:
        return None
    rows = after(rows)
    write_ledger(folder / "ledger.jsonl", rows)
    scores = score_rows(rows, with_follow_ups(asked))
    write_report(folder, rows, scores, meta)
    if any(row.label is not None for row in rows):
        with console.status("computing intervals, drawing wrong answers"):
            add_intervals(folder, with_intervals(rows))
            title = f"Wrong answers of {answerer.name}"
            write_atomically(folder / GALLERY, build_gallery(rows, title).html)
    return Outcome(rows, scores, *counts)


def _converse(
    questions: Sequence[Question],
    answerer: Answerer,
    store: Store,
    console: Console,
    at_once: int,
    processes: Processes,
) -> tuple[list[LedgerRow], tuple[int, int]]:
    """Ask the questions, and then those that follow from the answers."""
    assert answerer.fingerprint is not None
    rows: list[LedgerRow] = []
    asked = kept = 0
    while questions:
        with console.status("reading pictures, writing prompts"):
            jobs = plan(questions, answerer, answerer.fingerprint, at_once)
        counts = ask(jobs[processes.rank :: processes.world], answerer, store, console)
        asked, kept = asked + processes.total(counts[0]), kept + processes.total(counts[1])
        store.read()
        rows += _rows(questions, jobs, store.answers)
        pairs = [(q, store.answers[k]) for job in jobs for q, k in job.served()]
        questions = [after for q, answer in pairs if (after := q.next_question(answer))]
    return rows, (asked, kept)


def plan(
    questions: Sequence[Question], answerer: Answerer, fingerprint: str, at_once: int
) -> list[Job]:
    """Find the distinct prompts, image by image.

    Images are told apart by their bytes: a picture that lies in two files is asked about once.
    """
    hash_once = cache(hash_file)
    distinct: dict[tuple[str | None, str], list[Question]] = {}
    for group in group_identical(questions):
        image = group[0].image
        digest = None if image is None else hash_once(image)
        distinct.setdefault((digest, answerer.prompt(group[0])), []).extend(group)
    jobs: list[Job] = []
    for part in group_by_image(distinct.items(), lambda item: item[0][0], at_once):
        keys = {prompt: answer_key(fingerprint, digest, prompt) for (digest, prompt), _ in part}
        prompts = {prompt: served for (_, prompt), served in part}
        jobs.append(Job(next(iter(prompts.values()))[0].image, prompts, keys))
    return jobs


def ask(jobs: Sequence[Job], answerer: Answerer, store: Store, console: Console) -> tuple[int, int]:
    """Ask what the store does not have, image by image, and keep the answers of each image.

    Returns:
        The numbers of prompts that were asked, and that had an answer.
    """
    keys = [key for job in jobs for key in job.keys.values()]
    kept = sum(key in store.answers for key in keys)
    with AskingBar(console, len(keys), kept) as bar:
        for job in jobs:
            missing = {
                key: job.prompts[prompt][0]
                for prompt, key in job.keys.items()
                if key not in store.answers
            }
            if missing:
                answers = answerer.answer(job.image, list(missing.values()))
                store.add(dict(zip(missing, answers, strict=True)))
                bar.advance(len(missing))
    return len(keys) - kept, kept


def _rows(
    questions: Sequence[Question], jobs: Sequence[Job], answers: Mapping[str, str]
) -> list[LedgerRow]:
    """Write a row for each question, in their order."""
    rows = {
        row.key: row
        for job in jobs
        for prompt, same in job.prompts.items()
        for row in make_rows(same, prompt, answers[job.keys[prompt]])
    }
    return [rows[question.key] for question in questions]


def _given_rows(questions: Sequence[Question], answerer: Answerer) -> list[LedgerRow]:
    answers = answerer.answer(None, questions)
    return [
        row
        for question, answer in zip(questions, answers, strict=True)
        for row in make_rows([question], answerer.prompt(question), answer)
    ]
