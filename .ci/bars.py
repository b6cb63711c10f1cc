"""Hold a report about the miniature against what it must reach; exit 1 where it does not.

    python .ci/bars.py REPORT.json

REPORT.json is what `tools/evaluate.py -c configs/demo/benchmarks.yaml` writes. The bars are goals
that were set before anything was trained, not what was once measured. All pictures asked about are
new; beside each score over all of them stands that of held-out combinations and words alone.
"""

import json
import sys
from pathlib import Path
from statistics import mean

POPE = 0.90
"""Accuracy, on each split, in either language."""
TOPICS = {
    "colour": (0.90, ("colour_at", "colour_of")),
    "number": (0.85, ("count_all", "count_colour", "count_shape")),
    "place": (0.85, ("where",)),
}
"""Of VQAv2, of each of which equally many are asked."""
WORD = 0.60
"""Printed words, exact match."""


def main() -> int:
    """Print each score beside its bar."""
    scores = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["scores"]
    missed = 0
    for benchmark in ("pope", "pope_ru"):
        for split in ("random", "popular", "adversarial"):
            missed += _show(f"{benchmark} {split}", scores[benchmark][split]["accuracy"], POPE)
    for name, (bar, topics) in TOPICS.items():
        score, held_out = _together(scores["vqav2"], [f"accuracy_{topic}" for topic in topics])
        missed += _show(name, score, bar, held_out)
    for benchmark in ("ocr", "ocr_ru"):
        score, held_out = _together(scores[benchmark], ["accuracy"])
        missed += _show(benchmark, score, WORD, held_out)
    return int(missed > 0)


def _together(splits: dict, keys: list[str]) -> tuple[float, float]:
    """Return the score over all questions, and that of the held-out ones."""
    try:
        found = {name: mean(splits[name][key] for key in keys) for name in ("seen", "held_out")}
    except KeyError as error:
        sys.exit(f"the report has no {error}; ask all questions, without --subset")
    total = {name: splits[name]["total"] for name in found}
    over_all = sum(found[name] * total[name] for name in found) / sum(total.values())
    return over_all, found["held_out"]


def _show(name: str, score: float, bar: float, held_out: float | None = None) -> bool:
    alone = "" if held_out is None else f"  held out {held_out:.3f}"
    verdict = "reaches" if score >= bar else "MISSES"
    sys.stdout.write(f"{name:20} {score:.3f}  {verdict} {bar:.2f}{alone}\n")
    return score < bar


if __name__ == "__main__":
    sys.exit(main())
