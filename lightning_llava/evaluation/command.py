"""The command line of `tools/evaluate.py`."""

import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.choose import KINDS, load_answerer
from lightning_llava.evaluation.answerers.language_model import MAX_NEW_TOKENS
from lightning_llava.evaluation.benchmarks import Question, load_benchmarks
from lightning_llava.evaluation.benchmarks.submission import write_submissions
from lightning_llava.evaluation.configured import read_benchmarks
from lightning_llava.evaluation.processes import Processes, launched
from lightning_llava.evaluation.report import rich_table
from lightning_llava.evaluation.run import Outcome, evaluate
from lightning_llava.evaluation.translation.around import Around, add_protocol
from lightning_llava.evaluation.translation.command import Defaults
from lightning_llava.specs import BenchmarkSpec, GenerationSpec

PROG = "python tools/evaluate.py"


def run(arguments: Sequence[str] | None = None) -> int:
    """Answer what the command line names, and print the scores.

    Raises:
        SettingError: model, benchmarks or options do not fit together.
    """
    options = parser().parse_args(arguments)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with _stoppable():
        return _run(options)


def _run(options: Namespace) -> int:
    processes = launched()
    console = Console(stderr=True, quiet=not processes.first)
    options.device = _device(options.device, processes.local_rank)
    specs = _specs(options)
    questions = load_benchmarks(specs, options.subset is None, options.seed)
    processes.join()
    around = Around(options, processes)
    outcome = _evaluate(options, questions, processes, console, around)
    processes.leave()
    if outcome is not None:
        _print(outcome, write_submissions(options.output, outcome.rows, specs), options.output)
        around.report(options.output)
    return 0


def _print(outcome: Outcome, submissions: Sequence[Path], folder: Path) -> None:
    out = Console()
    out.print(rich_table(outcome.scores))
    lines = [
        *(f"for the judge: {path}" for path in submissions),
        f"asked {outcome.asked:,} prompts, {outcome.kept:,} had answers; report: "
        f"{folder / 'report.json'}",
    ]
    for line in lines:
        out.print(line, soft_wrap=True, markup=False, highlight=False)


def parser() -> ArgumentParser:
    """Build the argument parser."""
    parser = ArgumentParser(
        prog=PROG,
        description="Ask a model the questions of benchmarks, and score its answers. A run that was"
        " stopped or killed goes on when started again: answers are kept in the output folder, and"
        " used where weights, prompt, picture and settings are the same.",
        formatter_class=Defaults,
        epilog="several GPUs: torchrun --nproc-per-node N tools/evaluate.py …",
    )
    _add_questions(parser)
    _add_model(parser)
    add_protocol(parser)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="gets answers.jsonl, ledger.jsonl, report.json, report.md and gallery.html (required)",
    )
    return parser


def _add_questions(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-c",
        "--config",
        action="append",
        required=True,
        type=Path,
        metavar="FILE",
        help="YAML files whose data.benchmarks are asked, such as those of configs/eval (required)",
    )
    add(
        "--subset",
        type=_positive,
        metavar="N",
        help="questions per split, chosen by --seed (default: all, also where the config has a"
        " subset)",
    )
    add("--seed", type=int, default=0, help="another one, another subset (default: %(default)s)")


def _add_model(parser: ArgumentParser) -> None:
    short, long = GenerationSpec().max_new_tokens, MAX_NEW_TOKENS
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="NAME",
        help="a run folder or .ckpt of this project, folder or hub name of a model of transformers,"
        " training shards, or a file of answers (required)",
    )
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="of the run folder (default: its checkpoints/last.ckpt)",
    )
    add(
        "--answerer",
        choices=KINDS,
        default="auto",
        help="llava: this project's checkpoint; hf: image-text-to-text model; llm: bare LLM;"
        " question_only: the commonest training answer to the words; file: answers; auto goes by"
        " what --model is (default: %(default)s)",
    )
    add("--revision", metavar="NAME", help="of the hub (default: the newest)")
    add(
        "--prompt",
        metavar="TEXT",
        help="hf: text around {question}, inside the chat template if the model has one (default:"
        " LLaVA's short-answer prompt in a chat, else 'Question: {question} Short answer:'); llm:"
        " conversation template (default: auto, the tokenizer's own)",
    )
    add(
        "--max-new-tokens",
        type=_positive,
        metavar="N",
        help=f"longest answer (default: that of the run's config.yaml, hf {short}, llm {long})",
    )
    add(
        "--batch-size",
        type=_positive,
        default=32,
        metavar="N",
        help="most questions in a pass (default: %(default)s)",
    )
    add("--device", metavar="NAME", help="such as cuda:1 or cpu (default: a GPU if there is one)")


def _specs(options: Namespace) -> dict[str, BenchmarkSpec]:
    specs = read_benchmarks(options.config, PROG)
    if options.subset is None:
        return specs
    return {name: replace(spec, subset=options.subset) for name, spec in specs.items()}


def _evaluate(
    options: Namespace,
    questions: list[Question],
    processes: Processes,
    console: Console,
    around: Around,
) -> Outcome | None:
    answerer = _load(options)
    meta = {
        "model": answerer.name,
        "fingerprint": answerer.fingerprint,
        "protocol": options.protocol,
        "subset": options.subset,
        "seed": options.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return evaluate(
        questions,
        answerer,
        options.output,
        meta,
        console,
        around.before,
        around.after,
        at_once=options.batch_size,
        processes=processes,
    )


def _load(options: Namespace) -> Any:
    return load_answerer(
        options.model,
        options.answerer,
        options.device,
        options.checkpoint,
        options.max_new_tokens,
        options.batch_size,
        options.prompt,
        options.revision,
    )


def _device(name: str | None, local_rank: int) -> torch.device:
    if name is None:
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(f"--device: cannot use {name!r} ({reason})") from error
    return device


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number}, expected 1 or more")
    return number


@contextmanager
def _stoppable() -> Iterator[None]:
    """End on a signal with a word of comfort instead of a traceback."""

    def stop(number: int, frame: object) -> None:
        sys.stderr.write("stopped; the same command goes on from here\n")
        sys.exit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
