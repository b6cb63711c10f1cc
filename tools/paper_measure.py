"""Ask a model of `paper_in_miniature.py` all questions, and measure what its table says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper_parts import world_hash
from rich.console import Console

from lightning_llava.demo.scenes import HELD_OUT_KINDS, generate
from lightning_llava.demo.world import DemoWorld
from lightning_llava.evaluation.answerers.protocol import Answerer
from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT, load_benchmarks
from lightning_llava.evaluation.intervals import interval, mean_ratio, sum_by_cluster
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.measures import Intervals, cluster_numbers, with_intervals
from lightning_llava.evaluation.report import score_rows
from lightning_llava.evaluation.run import evaluate
from lightning_llava.evaluation.scorers.language import SCRIPTS, language_update, script_share
from lightning_llava.evaluation.translation.cache import CachedTranslator, TranslationCache
from lightning_llava.evaluation.translation.protocol import RussianProtocol
from lightning_llava.evaluation.translation.tasks import measured_json
from lightning_llava.evaluation.translation.translator import TableTranslator, read_table
from lightning_llava.specs import BenchmarkSpec

MEASURED = "measured.json"
TABLE = "russian.tsv"
"""In the world's folder: all questions and answers in both languages."""
LEANS = ("yes_ratio", "unknown_rate", "cer")
Measured = dict[str, Any]


def device() -> torch.device:
    """Return the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure(
    answerer: Answerer,
    specs: Mapping[str, BenchmarkSpec],
    world: DemoWorld,
    folder: Path,
    shortened: Mapping[str, Any],
    console: Console,
) -> Measured:
    """Ask the model what it has not answered yet, and write `measured.json` behind the report.

    Args:
        answerer: the model.
        specs: benchmarks in both languages; with a subset, that is asked.
        world: what is asked about.
        folder: gets ledger, report, gallery and `measured.json`; one that stands there is
            returned as it is if it is of the same model, questions and pictures.
        shortened: options that make a run shorter than its configs; written down, as only runs
            shortened alike are compared.
        console: shows the progress.
    """
    path, asked = folder / MEASURED, {name: asdict(spec) for name, spec in specs.items()}
    about = {
        "model": answerer.name,
        "fingerprint": answerer.fingerprint,
        "world": world_hash(),
    }
    identity = {**about, "shortened": dict(shortened), "benchmarks": asked}
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["of"] == identity:
            console.print(f"there already: {path}", style="dim", markup=False, highlight=False)
            return known
    whole = all(spec.subset is None for spec in specs.values())
    questions = load_benchmarks(specs, whole, seed=0)
    protocol = russian_protocol(Path(world.folder) / TABLE)
    meta = {**about, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    outcome = evaluate(questions, answerer, folder, meta, console, after=protocol.after)
    assert outcome is not None  # there is one process
    write_atomically(folder / "russian.json", measured_json(protocol.splits, protocol.questions))
    measured = {"of": identity, **describe(outcome.rows, protocol.splits, world.seed)}
    # Read back, so that a measurement is the same whether it was made now or before.
    text = json.dumps(measured, ensure_ascii=False, indent=1)
    write_atomically(path, text + "\n")
    return json.loads(text)


def russian_protocol(table: Path) -> RussianProtocol:
    """Make the Russian protocol with a table for a translator.

    Raises:
        SettingError: no such table.
    """
    translator = TableTranslator(read_table(table, "the demo world"), table.name)
    cache = TranslationCache(None)
    return RussianProtocol(
        CachedTranslator(lambda: translator, cache, "en", "ru"),
        CachedTranslator(lambda: translator, cache, "ru", "en"),
    )


def describe(
    rows: Sequence[LedgerRow], protocol: Mapping[str, Mapping[str, Any]], seed: int
) -> Measured:
    """Measure a ledger.

    Args:
        rows: answered, and brought back into English.
        protocol: what `RussianProtocol` measured.
        seed: of the world.

    Returns:
        Per benchmark `kind`, `language`, `splits` (each split's, and the `mean`'s, measures with
        their intervals), `parts` (the same by topic, script, or by whether a picture shows what
        training lacks), the numbers of `LEANS` over all its questions, and `ceiling`, where the
        answers were translated. Beside them `fidelity`, see there.
    """
    splits, parts = with_intervals(rows), with_intervals(_regrouped(rows, seed))
    together = score_rows([replace(row, split="all", question_id=_id(row)) for row in rows])
    measured: Measured = {}
    for benchmark in splits:
        first = next(row for row in rows if row.benchmark == benchmark)
        numbers = together[benchmark]["all"]
        measured[benchmark] = {
            "kind": first.kind,
            "language": first.language,
            "splits": _plain(splits)[benchmark],
            "parts": _plain(parts)[benchmark],
            **{key: numbers[key] for key in LEANS if key in numbers},
        }
        top = protocol.get(f"{benchmark}/{RESERVED_SPLIT}", {}).get("ceiling")
        if top is not None:
            measured[benchmark]["ceiling"] = top
    return {"benchmarks": measured, "fidelity": fidelity(rows)}


def fidelity(rows: Sequence[LedgerRow]) -> dict[str, Any]:
    """Return per language the share of answers in the language asked in, with its interval.

    Of all answers that have letters. Printed words are in either script, whatever the question's
    language; OCR is left out.
    """
    found: dict[str, Any] = {}
    for language in dict.fromkeys(row.language for row in rows):
        chosen = [row for row in rows if row.language == language and row.kind != "ocr"]
        counts = [language_update([row.raw_answer], language) for row in chosen]
        told = [
            (row, (n.asked, 1.0)) for row, n in zip(chosen, counts, strict=True) if not n.neutral
        ]
        if told:
            spoken, parts = zip(*told, strict=True)
            together = np.zeros(len(told), np.int64)
            sums = sum_by_cluster(cluster_numbers(spoken), together, np.array(parts))
            found[language] = asdict(interval(sums, mean_ratio, len(told)))
    return found


def _regrouped(rows: Sequence[LedgerRow], seed: int) -> list[LedgerRow]:
    """Let the parts of a benchmark stand where its splits do."""
    return [replace(row, split=_part(row, seed), question_id=_id(row)) for row in rows]


def _id(row: LedgerRow) -> str:
    return f"{row.split}/{row.question_id}"


def _part(row: LedgerRow, seed: int) -> str:
    if row.kind == "vqav2":
        return row.types["question_type"]
    if row.kind == "gqa":
        return row.types["semantic"]
    if row.kind == "ocr":
        return "Latin" if script_share(row.label or "", SCRIPTS["en"]) > 0.5 else "Cyrillic"
    scene = generate(seed, int(Path(row.image or "").stem.split("_")[-1]), "validation")
    return "held_out" if any(kind in HELD_OUT_KINDS for kind in scene.kinds) else "seen"


def _plain(intervals: Intervals) -> dict[str, Any]:
    return {
        benchmark: {
            split: {name: asdict(found) for name, found in numbers.items()}
            for split, numbers in splits.items()
        }
        for benchmark, splits in intervals.items()
    }
